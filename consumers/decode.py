"""Turns messages into columns, with what cannot be turned set aside under its reason.

Comes in: messages. Goes out: a `Block` of columns with the fate of each message, cut into a
`Batch` for each topic partition; the activity worker is next. What the messages say is read by
`plain`, or by `compiled` where that is installed; here is decided what becomes of them.

No message is an error. Where a parser fails at one that nobody foresaw, that message is refused as
*unreadable*, and the others of its block are parsed without it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from consumers.fields import UNWATCHED, Fields
from consumers.plain import Odd, Parsed, PlainParser, parse_time
from consumers.timing import TimeRules
from stream import config
from stream.config import ConfigError, Money, Worker
from stream.errors import BrokerUnavailableError
from stream.events import (
    NO_EVENTS,
    Bools,
    Codes,
    Counts,
    EventColumns,
    Floats,
    Ints,
    Mark,
    Reason,
    Reviews,
)
from stream.features import FeatureTable
from stream.marks import MarkSigner
from stream.partition import Partition
from stream.store.state import StoreUnavailableError
from stream.times import EARLIEST_MS, LATEST_MS


class Message(Protocol):
    """What is needed of a Kafka message."""

    def topic(self) -> str: ...
    def partition(self) -> int: ...
    def value(self) -> bytes | None: ...
    def timestamp(self) -> tuple[int, int]: ...
    def offset(self) -> int | None: ...
    def headers(self) -> Any: ...


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
        slots: of each user in the partition, -1 of whom it may not know.
        counts: what became of the messages, except that duplicates are not known yet:
            `applied` still contains them.
        marks: (time, wall clock it was sent at) of each mark of the shop's clock.
        next_offset: of the topic partition, after these messages.
        oldest_ms: oldest record timestamp, 0 if there is no event.
        reasons: how many were refused for each.
    """

    topic: int
    users: list[str]
    slots: Ints
    kind: npt.NDArray[np.uint8]
    time_ms: Ints
    id: npt.NDArray[np.uint64]
    value: Floats
    quantity: Floats
    category: npt.NDArray[np.uint64]
    order: npt.NDArray[np.uint64]
    whole: Bools
    rate: Floats
    currency: Codes
    recorded_ms: Ints
    reviews: Reviews | None
    counts: Counts
    rejects: list[Reject]
    marks: list[tuple[int, int]]
    next_offset: int
    oldest_ms: int
    reasons: dict[Reason, int]

    def columns(self, partition: Partition) -> EventColumns:
        """The same events with the partition's slots for users."""
        if not self.users:
            return NO_EVENTS
        slots, unknown = self.slots, np.flatnonzero(self.slots < 0)
        if len(unknown):
            slots = slots.copy()
            slots[unknown] = partition.slots([self.users[place] for place in unknown.tolist()])
        return EventColumns(
            slots,
            np.full(len(self.users), self.topic, np.uint8),
            self.kind,
            self.time_ms,
            self.id,
            self.value,
            self.quantity,
            self.category,
            self.order,
            self.whole,
            self.rate,
            self.currency,
            self.recorded_ms,
            self.reviews,
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
        slots: of each user in the partition, -1 of whom it may not know; `placement` looks them up.
        fate: of each message; the columns mean something only where it is applied.
        appended_ms: record timestamps, as far as they can be.
        clamped: whose time was cut back from the future.
        rejects: by place.
        marks: by place, (time, wall clock it was sent at).
    """

    messages: Sequence[Any]
    users: list[str]
    slots: Ints
    kind: npt.NDArray[np.uint8]
    time_ms: Ints
    id: npt.NDArray[np.uint64]
    value: Floats
    quantity: Floats
    category: npt.NDArray[np.uint64]
    order: npt.NDArray[np.uint64]
    whole: Bools
    rate: Floats
    currency: Codes
    reviews: Reviews | None
    fate: npt.NDArray[np.uint8]
    appended_ms: Ints
    clamped: Bools
    rejects: dict[int, Reject]
    marks: dict[int, tuple[int, int]]

    @property
    def applied(self) -> Bools:
        """Whether each message is an event that counts, as far as is known."""
        applied: Bools = self.fate == _Fate.APPLIED
        return applied

    def refuse(self, place: int, reason: Reason, detail: str) -> None:
        """Refuse a message after all."""
        self.fate[place] = _Fate.REJECTED
        self.clamped[place] = False
        self.rejects[place] = Reject(reason, detail, self.messages[place])

    def refusals(self) -> list[tuple[int, int]]:
        """Runs of good messages and the refused ones behind them: their number, and how many refused.

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
        rejects = [self.rejects[place] for place in sorted(self.rejects) if start <= place < end]
        keep: slice | Ints = here
        users = self.users[here]
        if applied < end - start:
            keep = start + np.flatnonzero(self.fate[here] == _Fate.APPLIED)
            users = [self.users[place] for place in keep.tolist()]
        reviews = self.reviews
        if reviews is not None:
            reviews = reviews.where(np.arange(len(self.kind))[keep])
        return Batch(
            topic, users, self.slots[keep], self.kind[keep], self.time_ms[keep], self.id[keep],
            self.value[keep], self.quantity[keep], self.category[keep], self.order[keep],
            self.whole[keep], self.rate[keep], self.currency[keep], self.appended_ms[keep], reviews,
            counts, rejects,
            [self.marks[place] for place in sorted(self.marks) if start <= place < end],
            self.messages[end - 1].offset() + 1,
            int(self.appended_ms[keep].min()) if applied else 0,
            Counter(reject.reason for reject in rejects),
        )  # fmt: skip


class Parser(Protocol):
    """What reads messages."""

    def parse(self, values: Sequence[Any]) -> Parsed: ...


def parse_all(parser: Parser, values: Sequence[Any]) -> Parsed:
    """What a parser makes of messages; where it fails, only the message at fault is refused.

    Halving the block finds it: the others are parsed about ten times again, not one by one.
    """
    try:
        return parser.parse(values)
    except (MemoryError, StoreUnavailableError, BrokerUnavailableError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not end the worker
        if len(values) == 1:
            return _unreadable(error)
    middle = len(values) // 2
    return _joined(parse_all(parser, values[:middle]), parse_all(parser, values[middle:]))


def _unreadable(error: Exception) -> Parsed:
    """A message at which a parser failed."""
    refused = {0: (Reason.UNREADABLE, f"{type(error).__name__}: {error}")}
    nothing = np.zeros(1)
    return Parsed(
        [""], Odd(refused, {}, set()), nothing.astype(np.uint8), nothing.astype(np.int64),
        nothing.astype(np.uint64), nothing, nothing, nothing.astype(np.uint64),
        nothing.astype(np.uint64), nothing.astype(np.bool_), np.ones(1), nothing.astype(np.uint32),
    )  # fmt: skip


def _joined(first: Parsed, second: Parsed) -> Parsed:
    """The messages of both, in this order."""
    odd, behind = first.odd, len(first.users)
    more = second.odd.moved(range(behind, behind + len(second.users)))
    pairs: Any = zip(first[2:-1], second[2:-1], strict=True)
    columns: Any = map(np.concatenate, pairs)
    both = Parsed(
        first.users + second.users,
        Odd(odd.refused | more.refused, odd.marks | more.marks, odd.ignored | more.ignored),
        *columns,
    )
    reviews = [(first.reviews, behind), (second.reviews, len(second.users))]
    return both._replace(reviews=Reviews.concatenate(reviews))


class Decoder:
    """Decodes for one feature table and one set of limits.

    Attributes:
        way: which parser it uses.

    Args:
        marks: knows the genuine marks of the shop's clock; None where the clock is the wall's,
            and marks are ignored.
        mark_seconds: shop time from one mark to the next.
        money: the reporting currency, and what others are worth in it.
        ratings: which there are.
        agree: see `Fields`.

    Raises:
        ConfigError: the compiled parser is demanded and cannot be had.
    """

    def __init__(
        self,
        table: FeatureTable,
        worker: Worker,
        marks: MarkSigner | None = None,
        mark_seconds: float = 0.0,
        money: Money | None = None,
        ratings: config.Reviews | None = None,
        agree: Callable[[str], str] | None = None,
    ) -> None:
        self._signer = marks
        self._step_ms = int(mark_seconds * 1_000)
        self._times = TimeRules(worker)
        fields = Fields(table, worker, money or Money(), ratings, agree)
        plain = PlainParser(table, worker.message_bytes, fields)
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

    def decode(self, messages: Sequence[Any], now_ms: int | None = None) -> Block:
        """Columns of messages, in the order they come; none is an error.

        Args:
            now_ms: by the wall clock, after which nothing happens; None asks the machine's.
        """
        now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
        appended = np.array([message.timestamp()[1] for message in messages], dtype=np.int64)
        parsed = parse_all(self._parser, [message.value() for message in messages])
        odd = parsed.odd
        marks = self._judge_marks(odd, messages) if odd.marks else {}
        timed = self._times.apply(parsed.time_ms, appended, now_ms)
        fate = np.full(len(messages), _Fate.APPLIED, np.uint8)
        fate[timed.late] = _Fate.LATE
        fate[parsed.kind == UNWATCHED] = _Fate.IGNORED
        for places, what in (
            (odd.ignored, _Fate.IGNORED),
            (odd.refused, _Fate.REJECTED),
            (marks, _Fate.MARK),
        ):
            if places:
                fate[list(places)] = what
        return Block(
            messages=messages,
            users=parsed.users,
            slots=np.full(len(messages), -1, np.int64),
            kind=parsed.kind,
            time_ms=timed.time_ms,
            id=parsed.id,
            value=parsed.value,
            quantity=parsed.quantity,
            category=parsed.category,
            order=parsed.order,
            whole=parsed.whole,
            rate=parsed.rate,
            currency=parsed.currency,
            reviews=parsed.reviews,
            fate=fate,
            appended_ms=timed.recorded_ms,
            clamped=timed.clamped & (fate == _Fate.APPLIED),
            rejects={
                place: Reject(reason, detail, messages[place])
                for place, (reason, detail) in odd.refused.items()
            },
            marks=marks,
        )

    def _judge_marks(self, odd: Odd, messages: Sequence[Any]) -> dict[int, tuple[int, int]]:
        """Times of the genuine marks, by place; the others join what is ignored or refused."""
        found: dict[int, tuple[int, int]] = {}
        for place, mark in odd.marks.items():
            message = messages[place]
            if self._signer is None:
                odd.ignored.add(place)
            elif not self._signer.is_genuine(mark, message.topic(), message.partition()):
                detail = "not signed for this place" if mark.signature else "not signed"
                odd.refused[place] = Reason.FORGED_MARK, detail
            elif (times := self._times_of(mark)) is None:
                odd.refused[place] = Reason.BAD_TIME, "a mark with a time that cannot be"
            else:
                found[place] = times
        return found

    def _times_of(self, mark: Mark) -> tuple[int, int] | None:
        """Both times of a mark; None if one cannot be read, or the shop's is ahead of the wall clock.

        A mark ends a time that has begun. The wall clock is the one at which the mark was sent and signed,
        not this reader's: what a mark means must not depend on when it is read.
        """
        time_ms, sent_ms = parse_time(mark.timestamp), parse_time(mark.sentAt)
        sane = EARLIEST_MS <= time_ms < LATEST_MS and EARLIEST_MS <= sent_ms < LATEST_MS
        begun = time_ms - self._step_ms <= sent_ms + self._times.tolerance_ms
        return (time_ms, sent_ms) if sane and begun else None
