"""Changes that were delivered, but that the store has lost: they are true, and a partition takes them in.

Comes in: changes as the output has them. Goes out: rows of users who are where they were told, and who is held
where they are until their time comes. `partition` asks; how they are found is `consumers.take_over`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from stream.events import Ints, Rows
from stream.turns import tell_kind
from stream.users import TextSlots


class Delivered(NamedTuple):
    """A change as the output has it: who went where, and when.

    Attributes:
        before: segment before; 0 for none. The one after, if that has turned into another kind.
        kind: that they were told.
        moved: where they came from when they came to the segment, and when; None if that is not
            known, as of one record alone.
        kind_since_ms: when they were told that kind first; 0 if that is not known.
        steps: of levels, the steps they were told, in this order; None for none any more.
    """

    user: str
    incarnation: int
    version: int
    before: int
    after: int
    at_ms: int
    kind: str
    moved: tuple[int, int] | None = None
    kind_since_ms: int = 0
    steps: tuple[tuple[str, str | None], ...] = ()

    @property
    def of_level(self) -> bool:
        """Whether it tells of levels alone, and nothing of a segment."""
        return self.after == 0

    def after_all(self, before: Delivered | None) -> Delivered:
        """With what a user's records before tell of how they came there."""
        steps = self.steps if before is None else (*before.steps, *self.steps)
        if self.of_level:
            told = self if before is None else before
            return told._replace(version=self.version, at_ms=self.at_ms, steps=steps)
        if before is not None and before.of_level:
            before = None
        moved = (self.before, self.at_ms) if self.before != self.after else before and before.moved
        same = before is not None and before.kind == self.kind
        since_ms = before.kind_since_ms if before is not None and same else self.at_ms
        return self._replace(moved=moved, kind_since_ms=since_ms, steps=steps)


def newest_of(delivered: Iterable[Delivered], incarnation: int) -> dict[str, Delivered]:
    """The newest change of each user.

    Args:
        delivered: in the order of the output; those of another incarnation say nothing here.
    """
    newest: dict[str, Delivered] = {}
    for one in delivered:
        if one.incarnation == incarnation:
            newest[one.user] = one.after_all(newest.get(one.user))
    return newest


def put_where_told(rows: Rows, told: Delivered, kind: int) -> None:
    """A user is where a delivered change says; nothing speaks for another segment yet.

    Args:
        rows: the user's alone; it changes in place.
        kind: code of the one that they were told; of no meaning where levels alone are told.
    """
    rows["version"] = told.version
    if told.of_level:
        return
    if told.moved is not None:
        rows["previous"], rows["since"] = told.moved
    elif rows["segment"] != told.after:
        rows["previous"], rows["since"] = rows["segment"], told.at_ms
    rows["segment"] = told.after
    rows["candidate"], rows["evidence"], rows["sign"] = 0, 0, 0
    tell_kind(rows, np.array([kind], np.uint8), told.kind_since_ms)


class LostChanges:
    """Delivered changes that have yet to take effect.

    Attributes:
        unknown: by user, of those whom the store has lost too: as soon as they are known again.
        foretold: by user, at their own time, which the partition has yet to reach again.
    """

    def __init__(self) -> None:
        self.unknown: dict[str, Delivered] = {}
        self.foretold: dict[str, Delivered] = {}

    def __bool__(self) -> bool:
        return bool(self.unknown or self.foretold)

    def hold(
        self, slots: Ints, known: TextSlots, now_ms: int
    ) -> tuple[Ints, list[tuple[int, Delivered]]]:
        """Whom nothing moves at a time, because it is known where they go.

        Args:
            slots: of the users looked at, ascending.

        Returns:
            Their places, and the slots of those who go there now.
        """
        found: list[int] = []
        due: list[tuple[int, Delivered]] = []
        for user, told in list(self.foretold.items()):
            slot = known.get(user)
            if slot is None:
                continue
            if now_ms > told.at_ms:
                del self.foretold[user]
                continue
            place = int(np.searchsorted(slots, slot))
            if place == len(slots) or slots[place] != slot:
                continue
            if now_ms == told.at_ms:
                due.append((slot, told))
            found.append(place)
        return np.array(found, np.int64), due

    def slots(self, known: TextSlots) -> list[int]:
        """Of users of whom it is known where they go."""
        return [known[user] for user in self.foretold if user in known]
