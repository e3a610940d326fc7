"""Reads change records into columns.

Comes in: records of `segment-changes`, as bytes or as values. Goes out: columns, a change a row; what
is no change is left out and counted under its reason. `decide` is next.

Whoever may write to the topic may write anything. So a record must be whole, of a time that can be meant, and
its id must be that of its user, which hangs on the namespace's secret.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import msgspec
import numpy as np

from stream.campaigns.match import Codes, Moves
from stream.campaigns.state import Batch, Users
from stream.events import Floats, Hashes, Ints
from stream.records import is_of
from stream.times import EARLIEST_MS, LATEST_MS
from stream.unreadable import UNREADABLE


class Came(StrEnum):
    """What a record of the topic came to."""

    CHANGE = "change"
    """It was decided about."""
    REPEATED = "repeated"
    """A change that is no newer than the last one of its user."""
    OF_SEGMENTS = "of_segments"
    """It tells what became of a segment, and is of no user."""
    UNREADABLE = "unreadable"
    """It is none of these."""
    TIME = "time"
    """No change can have happened then."""
    FOREIGN = "foreign"
    """Its id is not one of its user in this namespace."""
    MISPLACED = "misplaced"
    """It lies in another partition than its user's: the one who decides about them does not see it."""


REFUSED = (Came.UNREADABLE, Came.TIME, Came.FOREIGN, Came.MISPLACED)
"""Nobody writes such a record but by mistake, or to harm."""


class _OfSegments(msgspec.Struct, gc=False):
    """The fields of a lineage record by which it is told from a change that lacks some."""

    event: str
    segment: int


_read_of_segments = msgspec.json.Decoder(_OfSegments).decode


class _Why(msgspec.Struct, gc=False):
    feature: str


Moment = Annotated[datetime, msgspec.Meta(tz=True)]
"""Without a zone it would be read by that of the machine."""
MOST_INCARNATION, MOST_NUMBER = 1 << 62, (1 << 31) - 1
"""Beyond them there is no room in a row."""
SegmentId = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]
_EARLIEST_S = EARLIEST_MS / 1_000


class _Change(msgspec.Struct, gc=False):
    """The fields of a change of segment, or of a crossing of a level, that campaigns need."""

    id: str
    user: str
    version: int
    cause: str
    at: Moment
    why: list[_Why]
    origin: SegmentId | None = msgspec.field(name="from", default=None)
    to: SegmentId | None = None
    name_from: str | None = None
    name_to: str | None = None
    kind_from: str | None = None
    kind_to: str | None = None
    provisional: bool | None = None
    level: str | None = None
    step_from: str | None = None
    step_to: str | None = None
    population_from: str | None = None
    population_to: str | None = None


class _Scored(_Change, gc=False):
    """The same, where some campaign looks at scores."""

    scores: dict[str, float] = {}


def _is_whole(one: _Change) -> bool:
    """Whether all fields of a change of segment, or of a crossing, are there."""
    if one.level is None:
        return not (
            one.to is None or one.kind_to is None or one.name_to is None or one.provisional is None
        )
    return (one.to, one.name_to, one.kind_to, one.provisional) == (None,) * 4


def _number(digits: str, most: int) -> int:
    """A number up to some other; -1 for what is none."""
    if not digits.isdecimal() or len(digits) >= 20:
        return -1
    number = int(digits)
    return number if number <= most else -1


@dataclass(frozen=True)
class ChangeColumns(Batch):
    """Changes, a column a field; those of a user stand in their order.

    Attributes:
        slot: place of the user among `Users`.
        at_ms: when the change happened, by the clock in use.
        incarnation, version: of the user's id of changes.
        move: number of the move among `Moves`.
        reasons: a bit for each watched feature that is among the reasons.
        scores: ``(changes, watched)``, NaN where the user does not have one.
    """

    slot: Ints
    at_ms: Ints
    incarnation: Ints
    version: Ints
    move: Codes
    reasons: Hashes
    scores: Floats


class ChangeReader:
    """Reads changes; knows the users and moves it has met.

    Args:
        watched: features whose being a reason matters to some campaign, 64 at the most.
        scores: that matter to some campaign.
        key: the namespace's secret, by which ids are verified; None takes any id.

    Attributes:
        counts: how many records came to what, by `Came`.
    """

    def __init__(
        self,
        users: Users,
        moves: Moves,
        watched: Sequence[str] = (),
        scores: Sequence[str] = (),
        key: bytes | None = None,
    ) -> None:
        self._users, self._moves = users, moves
        self._bits = {feature: 1 << place for place, feature in enumerate(watched)}
        self._scores = tuple(scores)
        self._key = key
        self._type = _Scored if self._scores else _Change
        self._decode = msgspec.json.Decoder(self._type).decode
        self.counts: Counter[str] = Counter()

    @property
    def refused(self) -> int:
        """Records so far that should have been a change and are none."""
        return sum(self.counts[reason] for reason in REFUSED)

    def decode(self, values: Iterable[bytes], latest_ms: int = LATEST_MS) -> ChangeColumns:
        """Changes from their bytes.

        Args:
            latest_ms: a change of then or later cannot be meant.
        """
        changes = []
        for value in values:
            try:
                changes.append(self._decode(value))
            except UNREADABLE:
                self.counts[_why_no_change(value)] += 1
        return self._columns(changes, latest_ms)

    def read(self, records: Iterable[Any]) -> ChangeColumns:
        """Changes from records that were parsed already."""
        changes = []
        for record in records:
            try:
                changes.append(msgspec.convert(record, self._type))
            except UNREADABLE:
                self.counts[Came.UNREADABLE] += 1
        return self._columns(changes, LATEST_MS)

    def _columns(self, changes: Sequence[_Change], latest_ms: int) -> ChangeColumns:
        slots, times, incarnations, versions, moves, reasons = [], [], [], [], [], []
        scores: list[float] = []
        slot_of, code_of, bits = self._users.slot_of, self._moves.code, self._bits
        latest_s = latest_ms / 1_000
        for one in changes:
            if not _is_whole(one):
                self.counts[Came.UNREADABLE] += 1
                continue
            at_s = one.at.timestamp()
            if not _EARLIEST_S <= at_s < latest_s:
                self.counts[Came.TIME] += 1
                continue
            _, *ends = one.id.rsplit("-", 2)
            incarnation = number = -1
            if len(ends) == 2 and (self._key is None or is_of(one.id, one.user, self._key)):
                incarnation = _number(ends[0], MOST_INCARNATION)
                number = _number(ends[1], MOST_NUMBER)
            if incarnation < 0 or number < 0:
                self.counts[Came.FOREIGN] += 1
                continue
            slots.append(slot_of(one.user))
            times.append(at_s)
            incarnations.append(incarnation)
            versions.append(number)
            # A `Move` as a plain tuple: it is made in a third of the time.
            moves.append(
                code_of(
                    (
                        one.origin,
                        one.to,
                        one.name_from,
                        one.name_to,
                        one.kind_from,
                        one.kind_to,
                        one.cause,
                        one.provisional is True,
                        one.level,
                        one.step_from,
                        one.step_to,
                        one.population_from,
                        one.population_to,
                    )
                )
            )
            mask = 0
            if bits:
                for why in one.why:
                    mask |= bits.get(why.feature, 0)
            reasons.append(mask)
            if isinstance(one, _Scored):
                told = one.scores
                scores += [told.get(name, np.nan) for name in self._scores]
        return ChangeColumns(
            np.array(slots, np.int64),
            np.rint(np.array(times, np.float64) * 1_000).astype(np.int64),
            np.array(incarnations, np.int64),
            np.array(versions, np.int64),
            np.array(moves, np.int32),
            np.array(reasons, np.uint64),
            np.array(scores, np.float64).reshape(len(slots), len(self._scores)),
        )


def _why_no_change(value: bytes) -> Came:
    try:
        _read_of_segments(value)
    except UNREADABLE:
        return Came.UNREADABLE
    return Came.OF_SEGMENTS
