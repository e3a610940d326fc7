"""Turns messages into columns, with what cannot be turned set aside under its reason.

Comes in: messages. Goes out: a `Block` of columns with the fate of each message, cut into a
`Batch` for each topic partition; the activity worker is next. What the messages say is read by
`plain`, or by `compiled` where that is installed; here is decided what becomes of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from consumers.plain import UNWATCHED, Parsed, PlainParser
from stream.config import ConfigError, Worker
from stream.events import NO_EVENTS, Bools, Counts, EventColumns, Floats, Ints, Reason
from stream.features import FeatureTable
from stream.partition import Partition


class Message(Protocol):
    """What is needed of a Kafka message."""

    def value(self) -> bytes | None: ...
    def timestamp(self) -> tuple[int, int]: ...
    def offset(self) -> int | None: ...


@dataclass(frozen=True)
class Reject:
    """A refused message and why."""

    reason: Reason
    detail: str
    message: Any


@dataclass
class Batch:
    """Columns of one topic partition, users by name.

    Attributes:
        users: name of each event's user; the other columns as in `EventColumns`.
        counts: what became of the messages, except that duplicates are not known yet:
            `applied` still contains them.
        marks: (time, wall clock it was sent at) of each mark of the shop's clock.
        next_offset: of the topic partition, after these messages.
        oldest_ms: oldest record timestamp, 0 if there is no event.
    """

    topic: int
    users: list[str]
    kind: npt.NDArray[np.uint8]
    time_ms: Ints
    id: npt.NDArray[np.uint64]
    value: Floats
    quantity: Floats
    category: npt.NDArray[np.uint64]
    counts: Counts
    rejects: list[Reject]
    marks: list[tuple[int, int]]
    next_offset: int
    oldest_ms: int

    def columns(self, partition: Partition) -> EventColumns:
        """The same events with the partition's slots for users."""
        if not self.users:
            return NO_EVENTS
        return EventColumns(
            partition.slots(self.users),
            np.full(len(self.users), self.topic, np.uint8),
            self.kind,
            self.time_ms,
            self.id,
            self.value,
            self.quantity,
            self.category,
        )


class _Fate(IntEnum):
    APPLIED = 0
    LATE = 1
    IGNORED = 2
    REJECTED = 3
    MARK = 4


@dataclass
class Block:
    """What became of messages, an entry a message, of whatever topic partitions they are.

    Attributes:
        fate: of each message; the columns mean something only where it is applied.
        appended_ms: record timestamps.
        clamped: whose time was cut back from the future.
        rejects: by place.
        marks: by place, (time, wall clock it was sent at).
    """

    messages: Sequence[Any]
    users: list[str]
    kind: npt.NDArray[np.uint8]
    time_ms: Ints
    id: npt.NDArray[np.uint64]
    value: Floats
    quantity: Floats
    category: npt.NDArray[np.uint64]
    fate: npt.NDArray[np.uint8]
    appended_ms: Ints
    clamped: Bools
    rejects: dict[int, Reject]
    marks: dict[int, tuple[int, int]]

    def refusals(self) -> list[tuple[int, int]]:
        """Stretches of good messages and the refused ones behind them: how many, how many refused.

        Marks are left out: they are no good messages, and must not break a run of refusals.
        """
        refused = self.fate[self.fate != _Fate.MARK] == _Fate.REJECTED
        again = np.flatnonzero(refused[:-1] & ~refused[1:]) + 1
        stretches = np.split(refused, again) if len(refused) else []
        return [(len(one), int(np.count_nonzero(one))) for one in stretches]

    def batch(self, topic: int, start: int, end: int) -> Batch:
        """The messages of one topic partition, which stand together in offset order.

        Args:
            topic: index of the input topic.
            start: place of the first.
            end: place behind the last.
        """
        here = slice(start, end)
        counted = np.bincount(self.fate[here], minlength=len(_Fate)).tolist()
        applied = counted[_Fate.APPLIED]
        counts = Counts(
            applied=applied,
            late=counted[_Fate.LATE],
            ignored=counted[_Fate.IGNORED],
            rejected=counted[_Fate.REJECTED],
            clamped=int(np.count_nonzero(self.clamped[here])),
            marks=counted[_Fate.MARK],
        )
        keep: slice | Ints = here
        users = self.users[here]
        if applied < end - start:
            keep = start + np.flatnonzero(self.fate[here] == _Fate.APPLIED)
            users = [self.users[place] for place in keep.tolist()]
        return Batch(
            topic, users, self.kind[keep], self.time_ms[keep], self.id[keep],
            self.value[keep], self.quantity[keep], self.category[keep], counts,
            [self.rejects[place] for place in sorted(self.rejects) if start <= place < end],
            [self.marks[place] for place in sorted(self.marks) if start <= place < end],
            self.messages[end - 1].offset() + 1,
            int(self.appended_ms[keep].min()) if applied else 0,
        )  # fmt: skip


class Parser(Protocol):
    """What reads messages."""

    def parse(self, values: Sequence[Any]) -> Parsed: ...


class Decoder:
    """Decodes for one feature table and one set of limits.

    Attributes:
        way: which parser it uses.

    Raises:
        ConfigError: the compiled parser is demanded and cannot be had.
    """

    def __init__(self, table: FeatureTable, worker: Worker) -> None:
        self._late_ms = int(worker.late_seconds * 1_000)
        self._future_ms = int(worker.future_seconds * 1_000)
        plain = PlainParser(table, worker.message_bytes)
        self._parser: Parser = plain
        self.way: Literal["plain", "compiled"] = "plain"
        if worker.decoder == "plain":
            return
        try:
            # Loads numba, which takes half a second, and compiles, which takes more the first time.
            from consumers.compiled import CompiledParser  # noqa: PLC0415 - an extra
        except ImportError as error:
            if worker.decoder == "compiled":
                raise ConfigError(
                    f"worker.decoder = 'compiled': {error}; install segstream[fast], or set it to "
                    "'auto' or 'plain'"
                ) from None
            return
        self._parser = CompiledParser(table, worker.message_bytes, plain)
        self.way = "compiled"

    def decode(self, messages: Sequence[Any]) -> Block:
        """Columns of messages, in the order they come; none is an error."""
        appended = np.array([message.timestamp()[1] for message in messages], dtype=np.int64)
        parsed = self._parser.parse([message.value() for message in messages])
        time, odd = parsed.time_ms, parsed.odd
        appended = np.where(appended < 0, time, appended)
        fate = np.full(len(messages), _Fate.APPLIED, np.uint8)
        fate[time < appended - self._late_ms] = _Fate.LATE
        fate[parsed.kind == UNWATCHED] = _Fate.IGNORED
        for places, what in (
            (odd.ignored, _Fate.IGNORED),
            (odd.refused, _Fate.REJECTED),
            (odd.marks, _Fate.MARK),
        ):
            if places:
                fate[list(places)] = what
        limit = appended + self._future_ms
        return Block(
            messages=messages,
            users=parsed.users,
            kind=parsed.kind,
            time_ms=np.minimum(time, limit),
            id=parsed.id,
            value=parsed.value,
            quantity=parsed.quantity,
            category=parsed.category,
            fate=fate,
            appended_ms=appended,
            clamped=(time > limit) & (fate == _Fate.APPLIED),
            rejects={
                place: Reject(reason, detail, messages[place])
                for place, (reason, detail) in odd.refused.items()
            },
            marks=odd.marks,
        )
