"""What campaigns know of users: who they are, what was sent to them, and what is under way.

Comes in: users and pairs of a user and a campaign. Goes out: their places, and columns there. `decide`
works on the columns.

A pair has 64 bytes (`PAIR`) as soon as anything was decided for it. The pairs of a user are a chain: a
user has few of them, and a pair is found by walking a chain, for all pairs of a batch at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from stream.campaigns.arms import arm_hashes
from stream.events import Bools, Hashes, Ints

NEVER = -(1 << 62)
NOT_DUE = 1 << 62
NONE = -1

PAIR = np.dtype(
    [
        ("user", "<i4"),  # place of the user
        ("next", "<i4"),  # the user's next pair; NONE ends the chain
        ("move", "<i4"),  # of the change under way
        ("number", "<i4"),  # version of the user in the change under way
        ("incarnation", "<i8"),  # of the same
        ("changed_ms", "<i8"),  # when it happened
        ("due_ms", "<i8"),  # when it is looked at again; NOT_DUE if nothing is under way
        ("sent_ms", "<i8"),  # last trigger; NEVER
        ("counted_ms", "<i8"),  # when the effect window began
        ("version", "<u2"),  # of the campaign, of what is under way
        ("counted", "<u2"),  # version whose effect the user is measured for, plus 1; 0 for none
        ("campaign", "u1"),
        ("arm", "u1"),  # of what is under way
        ("counted_arm", "u1"),
        ("stage", "u1"),  # IDLE, SETTLING or WAITING
    ]
)
"""What is kept of a user and a campaign."""
IDLE, SETTLING, WAITING = 0, 1, 2
_NO_PLACES = np.empty(0, np.int64)
Steps = npt.NDArray[np.uint8]


def step_code(steps: Sequence[str], step: str | None) -> int:
    """How it is kept that a user is on a step of a level; 0 for none of them."""
    return 0 if step is None or step not in steps else steps.index(step) + 1


def one_a_user(slots: Ints) -> Iterator[Ints]:
    """Indices of the first row of each user, then of each one's second, and so on."""
    order = np.argsort(slots, kind="stable")
    begins = np.flatnonzero(np.diff(slots[order], prepend=NONE))
    lengths = np.diff(begins, append=len(slots))
    for turn in range(int(lengths.max(initial=0))):
        yield np.sort(order[begins[lengths > turn] + turn])


def of_chains(first: npt.NDArray[np.int32], after: npt.NDArray[np.int32]) -> tuple[Ints, Ints]:
    """Places on chains, and for each on which of them it is.

    Args:
        first: where each chain begins; NONE where there is none.
        after: of each place the next one on its chain; NONE ends it.
    """
    places, owners = [_NO_PLACES], [_NO_PLACES]
    here, owner = first.astype(np.int64), np.arange(len(first))
    while len(here):
        there = here != NONE
        here, owner = here[there], owner[there]
        places.append(here)
        owners.append(owner)
        here = after[here].astype(np.int64)
    return np.concatenate(places), np.concatenate(owners)


@dataclass(frozen=True)
class Batch:
    """Columns of one length that stay as they are; whoever is one has a field a column."""

    def __len__(self) -> int:
        first: npt.NDArray[Any] = getattr(self, fields(self)[0].name)
        return len(first)

    def where(self, keep: npt.NDArray[Any]) -> Self:
        """What a mask or an index picks, in that order."""
        return type(self)(*(getattr(self, field.name)[keep] for field in fields(self)))


class Columns:
    """Columns that grow together."""

    def __init__(self, columns: Mapping[str, tuple[Any, Any, int]], room: int = 256) -> None:
        self._room = room
        self._blank = {name: fill for name, (_, fill, _) in columns.items()}
        self.size = 0
        for name, (kind, fill, width) in columns.items():
            shape = (room, width) if width else (room,)
            setattr(self, name, np.full(shape, fill, kind))

    def make_room(self, more: int) -> None:
        """See to it that so many more fit."""
        if self.size + more <= self._room:
            return
        while self.size + more > self._room:
            self._room *= 2
        for name, fill in self._blank.items():
            old = getattr(self, name)
            new = np.full((self._room, *old.shape[1:]), fill, old.dtype)
            new[: self.size] = old[: self.size]
            setattr(self, name, new)


class Users(Columns):
    """The users that were ever met.

    Args:
        key: the namespace's secret, for the hashes.
        sends: so many times of past triggers are kept of each.
        levels: so many levels are declared.

    Attributes:
        names: by place.
        hash: see `stream.campaigns.arms`; 0 where nobody has asked for it yet.
        clock_ms: the latest time anything was decided for the user.
        suppressed: gets no trigger.
        traits: a bit for each trait that suppresses the user.
        erased: is no more; nothing is kept of what they buy.
        at_risk: is in a kind of churn risk, since the last change.
        zone: number of the user's own time zone; NONE where it is not known.
        under_way: pairs that are settling or waiting.
        first: the user's first pair.
        sends: times of past triggers, latest first.
        steps: of each level the step that the user was told last, see `step_code`.
    """

    hash: Hashes
    clock_ms: Ints
    suppressed: Bools
    traits: npt.NDArray[np.uint8]
    erased: Bools
    at_risk: Bools
    zone: npt.NDArray[np.int16]
    under_way: npt.NDArray[np.int16]
    first: npt.NDArray[np.int32]
    sends: Ints
    steps: Steps

    def __init__(self, key: bytes = b"", sends: int = 0, levels: int = 0) -> None:
        super().__init__(
            {
                "hash": (np.uint64, 0, 0),
                "clock_ms": (np.int64, NEVER, 0),
                "suppressed": (np.bool_, False, 0),
                "traits": (np.uint8, 0, 0),
                "erased": (np.bool_, False, 0),
                "at_risk": (np.bool_, False, 0),
                "zone": (np.int16, NONE, 0),
                "under_way": (np.int16, 0, 0),
                "first": (np.int32, NONE, 0),
                "sends": (np.int64, NEVER, max(sends, 1)),
                "steps": (np.uint8, 0, max(levels, 1)),
            }
        )
        self._key = key
        self.names: list[str] = []
        self._slots: dict[str, int] = {}
        self._hashed = 0

    def slot_of(self, user: str) -> int:
        """The place of a user, who is taken in if they are new."""
        slot = self._slots.get(user)
        if slot is None:
            slot = self._slots[user] = len(self.names)
            self.names.append(user)
            self.make_room(1)
            self.size += 1
        return slot

    def hashes(self, slots: Ints) -> Hashes:
        """Hashes of users, worked out once each."""
        if self._hashed < self.size:
            fresh = [name.encode() for name in self.names[self._hashed :]]
            self.hash[self._hashed : self.size] = arm_hashes(fresh, self._key)
            self._hashed = self.size
        return self.hash[slots]


class Pairs(Columns):
    """Users and campaigns between whom anything was decided; columns as in `PAIR`.

    Attributes:
        summed: the window of effect is over, and what came of it was added up.
    """

    user: npt.NDArray[np.int32]
    next: npt.NDArray[np.int32]
    move: npt.NDArray[np.int32]
    number: npt.NDArray[np.int32]
    incarnation: Ints
    changed_ms: Ints
    due_ms: Ints
    sent_ms: Ints
    counted_ms: Ints
    version: npt.NDArray[np.uint16]
    counted: npt.NDArray[np.uint16]
    campaign: npt.NDArray[np.uint8]
    arm: npt.NDArray[np.uint8]
    counted_arm: npt.NDArray[np.uint8]
    stage: npt.NDArray[np.uint8]
    summed: Bools

    def __init__(self) -> None:
        blank = {"due_ms": NOT_DUE, "sent_ms": NEVER, "next": NONE}
        assert PAIR.fields is not None
        super().__init__(
            {name: (kind[0], blank.get(name, 0), 0) for name, kind in PAIR.fields.items()}
            | {"summed": (np.bool_, False, 0)}
        )

    def find(self, users: Users, slots: Ints, campaigns: Ints) -> Ints:
        """Places of pairs, NONE where there is none."""
        found = users.first[slots].astype(np.int64)
        walking = np.flatnonzero(found != NONE)
        while len(walking):
            here = found[walking]
            walking = walking[self.campaign[here] != campaigns[walking]]
            found[walking] = self.next[found[walking]]
            walking = walking[found[walking] != NONE]
        return found

    def of_users(self, users: Users, slots: Ints) -> tuple[Ints, Ints]:
        """Places of all pairs of distinct users, and for each which of the users it is of."""
        return of_chains(users.first[slots], self.next)

    def add(self, users: Users, slots: Ints, campaigns: Ints) -> Ints:
        """Take in distinct pairs that are not there; returns their places."""
        count = len(slots)
        self.make_room(count)
        order = np.argsort(slots, kind="stable")
        places = np.empty(count, np.int64)
        places[order] = np.arange(self.size, self.size + count)
        self.user[places], self.campaign[places] = slots, campaigns
        sorted_slots, sorted_places = slots[order], places[order]
        last = np.ones(count, np.bool_)
        last[:-1] = sorted_slots[1:] != sorted_slots[:-1]
        after = np.empty(count, np.int64)
        after[:-1] = sorted_places[1:]
        after[last] = users.first[sorted_slots[last]]
        self.next[sorted_places] = after
        first = np.ones(count, np.bool_)
        first[1:] = last[:-1]
        users.first[sorted_slots[first]] = sorted_places[first]
        self.size += count
        return places
