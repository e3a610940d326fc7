"""A batch of events in the order of their users, for aggregates to fold.

Comes in: `EventColumns` and copies of the rows they touch. Goes out: a `Batch`, with what every user
has whatever features there are: when they were seen, which of their clicks open a session.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stream.events import Bools, Floats, Ints, Rows
from stream.features.terms import PLACED, UPDATED, meant

SESSION_GAP_MS = 30 * 60_000
"""A silence of 30 minutes ends a session, as web analytics have it since the 1990s."""


class OrderKinds(NamedTuple):
    """Codes of the events that make, correct and take back orders.

    Attributes:
        takes_back: by code, whether an event is a refund or a cancellation.
    """

    completed: int
    updated: int
    takes_back: Bools


@dataclass(frozen=True)
class Shares:
    """What events and corrections count, a column a field, where not each counts once as it is.

    Attributes:
        counts: 1 for an event, 0 for one that only corrects what counted before.
        left: what is left of it: a count of 0 or 1, a value and a quantity, ``(3, n)``.
        acts: whether it may be an act of the user.
        tells: whether it is an event that happened, not the correction of one.
        arrived: whether it is a message, not what one brings about elsewhere.
    """

    counts: Floats
    left: Floats
    acts: Bools
    tells: Bools
    arrived: Bools


class Codes(dict[str, int]):
    """Event name to code, for every event that a feature watches."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__((name, code) for code, name in enumerate(names))
        self._masks: dict[tuple[str, ...], Bools] = {}

    def mask(self, names: Sequence[str]) -> Bools:
        """By code, whether an event has one of the names."""
        mask = np.zeros(256, dtype=np.bool_)
        mask[[self[name] for name in names]] = True
        return mask

    def watched(self, names: tuple[str, ...]) -> Bools:
        """By code, whether an event is one of those named, or meant; no names watch every event.

        An update is counted with its order, and by itself only where it is named by itself.
        """
        mask = self._masks.get(names)
        if mask is None:
            chosen = list(meant(names)) if names else list(self)
            if PLACED in chosen:
                chosen.remove(UPDATED)
            mask = self._masks[names] = self.mask(chosen)
        return mask


@dataclass
class Batch:
    """Events in the order of their users, a column a field.

    Attributes:
        user: place of the user among those touched.
        mine: rows of those touched; folds change them in place.
        counts, left, acts, tells: see `Shares`; None where each event counts once, as it is.
        codes: of events.
        arrived: which are messages, not what one brings about elsewhere; None for all of them.
        sentiment: of each, NaN where none is known; None where there is no review.
        opens: which clicks open a session.
        browsed: seconds browsed since the click before.
        who: places of users who have events here, ascending; the following are theirs.
        before: when their sums were of; 0 for never.
        as_of: when their sums are of from now on.
    """

    user: Ints
    topic: npt.NDArray[np.uint8]
    kind: npt.NDArray[np.uint8]
    time_ms: Ints
    category: npt.NDArray[np.uint64]
    counts: Floats | None
    value: Floats
    quantity: Floats
    left: Floats | None
    acts: Bools
    tells: Bools | None
    mine: Rows
    codes: Codes
    arrived: Bools | None = None
    sentiment: Floats | None = None
    opens: Bools = field(init=False)
    browsed: Floats = field(init=False)
    who: Ints = field(init=False)
    before: Ints = field(init=False)
    as_of: Ints = field(init=False)
    _repeats: Ints = field(init=False)

    def __post_init__(self) -> None:
        """See the users, and bring their rows to the newest of what is folded into them."""
        _see(self.mine, self.user, self.time_ms, self.acts)
        self.opens, self.browsed = self._sessions()
        starts = starts_of(self.user)
        self.who = self.user[starts]
        self.before = self.mine["as_of"][self.who]
        self.as_of = np.maximum(self.before, np.maximum.reduceat(self.time_ms, starts))
        self.mine["as_of"][self.who] = self.as_of
        self._repeats = np.diff(starts, append=len(self.user))

    def __len__(self) -> int:
        return len(self.user)

    def each(self, of_who: Ints) -> Ints:
        """For each event, what there is of its user."""
        return np.repeat(of_who, self._repeats)

    @cached_property
    def row(self) -> Ints:
        """For each event, the place of its user in `who`."""
        return self.each(np.arange(len(self.who)))

    def chosen(self, names: tuple[str, ...]) -> Bools:
        """Which events are of some names, or watched at all, and happened themselves."""
        return self.told(self.codes.watched(names)[self.kind])

    def told(self, chosen: Bools) -> Bools:
        """Of some events, those that happened: a correction tells of one that did before."""
        return chosen if self.tells is None else chosen & self.tells

    def _sessions(self) -> tuple[Bools, Floats]:
        """Which clicks open a session, and the seconds browsed since the click before.

        A click opens a session if it is more than the gap later than every click before it.
        """
        opens = np.zeros(len(self.user), dtype=np.bool_)
        browsed = np.zeros(len(self.user))
        clicks = np.flatnonzero((self.topic == 0) & self.acts)
        if len(clicks) == 0:
            return opens, browsed
        whom, time = self.user[clicks], self.time_ms[clicks]
        starts = starts_of(whom)
        who = whom[starts]
        before, newest = newest_before(starts, time, self.mine["click"][who])
        gap = time - before
        opens[clicks] = gap > SESSION_GAP_MS
        browsed[clicks] = np.where((gap > 0) & (gap <= SESSION_GAP_MS), gap / 1_000, 0.0)
        self.mine["click"][who] = newest
        return opens, browsed


def _see(mine: Rows, user: Ints, time: Ints, acts: Bools) -> None:
    """When users were first and last seen: by what they do, not by what the shop does."""
    if not acts.all():
        user, time = user[acts], time[acts]
    if len(user) == 0:
        return
    starts = starts_of(user)
    who = user[starts]
    first = np.minimum.reduceat(time, starts)
    known = mine["first"][who]
    mine["first"][who] = np.where(known > 0, np.minimum(known, first), first)
    mine["seen"][who] = np.maximum(mine["seen"][who], np.maximum.reduceat(time, starts))


def newest_before(starts: Ints, time: Ints, known: Ints) -> tuple[Ints, Ints]:
    """For each event the newest time before it, and for each run the newest time of all.

    Args:
        starts: where each run of events begins; at least one.
        known: of each run, the newest time before its first event; 0 for none.
    """
    lengths = np.diff(starts, append=len(time))
    base = int(time.min())
    span = int(time.max()) - base + 1
    # A running maximum of each run: what is added keeps every run above the one before.
    shift = np.repeat(np.arange(len(starts)) * span, lengths) - base
    newest = np.maximum.accumulate(time + shift) - shift
    before = np.empty_like(time)
    before[1:] = newest[:-1]
    before[starts] = 0
    before = np.maximum(before, np.repeat(known, lengths))
    return before, np.maximum(known, newest[starts + lengths - 1])


def starts_of(keys: Ints) -> Ints:
    """Where each run of equal keys begins."""
    if len(keys) == 0:
        return np.empty(0, np.int64)
    return np.concatenate(([0], np.flatnonzero(keys[1:] != keys[:-1]) + 1))
