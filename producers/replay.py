"""Sends history onto the input topics, in the order and with the marks of the shop's clock.

Comes in: a file and its mapping, or whoever else has events in order (`traffic`). Goes out: `track`
messages on the two input topics, and in watermark mode a mark in every partition of both at every
multiple of ``clock.mark_seconds``, signed with the namespace's secret. The activity worker is next.

In each partition a mark M stands after every event before M and before every event from M on:
one idempotent producer keeps the order in which it was given records of a partition. The first
mark is the last multiple up to the first event, the last one the first multiple after the last,
unless more are asked for so that silence goes on being seen.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any, Literal, Self

import msgspec
import numpy as np
from confluent_kafka import KafkaError, KafkaException, Producer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from producers.client import producer_options
from producers.delivery import DeliveryError
from producers.files import ReadNative, Source, read_sources
from producers.mapped import (
    BAD_CURRENCY,
    BAD_NUMBER,
    BAD_TIME,
    BAD_USER,
    IGNORED_EVENT,
    NO_EVENT,
    NO_USER,
    OUTLIER_TIME,
    PLACEHOLDER_USER,
    UNREADABLE,
    Event,
    Refusal,
)
from producers.mapping import Mapping
from producers.messages import encoded_message, topic_of
from producers.sorting import EventSorter
from producers.tables.opening import stem
from producers.texts import FileError
from stream.config import ConfigError, Settings
from stream.errors import BrokerUnavailableError, TopicMissingError, kafka_client
from stream.log_end import LogEnd
from stream.told import ToldError
from stream.units import iso, milliseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from confluent_kafka import Message
    from rich.console import Console

    from stream.events import Ints
    from stream.marks import MarkSigner

Speed = Literal["max"] | float
"""As fast as it goes, or so many seconds of shop time a second."""

_CONNECT_SECONDS = 30.0
_EXAMPLES = 3
"""Refused rows kept of each reason: one may be odd, three show the pattern."""
_POLL_EVERY = 1_000
_SHOW_EVERY = 500
_SHORTEST_SLEEP_SECONDS = 0.005
"""Events may be this late against the shop's clock; sleeping for each one would cost a core."""
_LONGEST_SLEEP_SECONDS = 0.05
"""How long a wish to stop, or a failed delivery, may go unnoticed."""


@dataclass(frozen=True)
class Clock:
    """The clocks of the one loop here, to be wound by hand in tests."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.time


CLOCK = Clock()


@dataclass(frozen=True)
class Progress:
    """How far it is: rows read, then events sent and the shop time they have reached."""

    phase: Literal["reading", "sending"]
    done: int
    total: int | None
    time_ms: int | None = None


class Stopped(Exception):  # noqa: N818 - not an error, the wish of whoever asked to stop
    """Asked to stop while waiting or sending."""


def parse_speed(text: str) -> Speed:
    """``max``, or a factor such as ``60x`` or ``0.5``.

    Raises:
        ValueError: it is neither.
    """
    if text == "max":
        return "max"
    try:
        factor = float(text.removesuffix("x"))
    except ValueError:
        factor = 0.0
    if not 0 < factor < 1e9:
        raise ValueError(f"speed {text!r}: expected max, or a factor of real time such as 60x")
    return factor


# -- writing in order --------------------------------------------------------------------------


class InputWriter:
    """Writes events and marks to the input topics, as fast as the shop's clock allows.

    Attributes:
        marks: ticks written, each into every partition of both topics.
        first_ms: shop time of the first event, None before it.
        last_ms: shop time of the last event.
    """

    def __init__(
        self,
        settings: Settings,
        signer: MarkSigner | None,
        *,
        speed: Speed = "max",
        linger_seconds: float = 0.02,
        stop: Callable[[], bool] | None = None,
        clock: Clock = CLOCK,
        make_producer: Callable[[dict[str, Any]], Producer] = Producer,
    ) -> None:
        """Connect, and look at the topics.

        Args:
            settings: names broker and topics; marks are written in watermark mode only.
            signer: signs the marks for the namespace that is to read them; None writes none.
            speed: of the shop's clock.
            linger_seconds: how long a record may wait for company on its way to the broker.
            stop: asked now and then; a yes raises `Stopped` out of `send` and `finish`.
            clock: what time it is.
            make_producer: makes a producer from its options.

        Raises:
            BrokerUnavailableError: no broker answers.
            TopicMissingError: an input topic does not exist.
            ConfigError: the input topics have different numbers of partitions.
        """
        self.marks = 0
        self.first_ms: int | None = None
        self.last_ms: int | None = None
        self._topics = settings.topics.inputs
        self._step_ms = round(settings.clock.mark_seconds * 1_000)
        wanted = settings.clock.mode == "watermark" and self._step_ms > 0
        self._signer = signer if wanted else None
        self._future_ms = round(settings.worker.future_seconds * 1_000)
        self._next_mark_ms = 0
        self._speed = None if speed == "max" else speed
        self._origin: tuple[int, float] | None = None
        self._reached_ms = -1 if self._speed is not None else 1 << 62
        self._stop = stop or (lambda: False)
        self._clock = clock
        self._failure: str | None = None
        self._until_poll = _POLL_EVERY
        self._producer = kafka_client(
            make_producer,
            producer_options(settings.broker, linger_seconds=linger_seconds)
            | {"delivery.report.only.error": True, "on_delivery": self._not_delivered},
        )
        self._partitions = self._look_up(settings.broker.bootstrap)

    def send(self, topic: int, key: bytes, value: bytes | None, time_ms: int) -> None:
        """Write an event, and before it the marks that are due.

        Args:
            topic: index of the input topic.
            key: the user.
            value: the message.
            time_ms: shop time, at least that of the event before; the record's timestamp.

        Raises:
            DeliveryError: this or an earlier record was not delivered.
            Stopped: asked to stop.
        """
        if self.first_ms is None:
            self.first_ms = time_ms
            # The opening mark tells owners that marks will come, however slowly.
            self._next_mark_ms = self._before(time_ms)
            if self._signer is not None:
                self._write_mark()
        if self._signer is not None:
            while time_ms >= self._next_mark_ms:
                self._mark()
        self._until_poll -= 1
        if time_ms > self._reached_ms:
            self._wait(time_ms)
        elif self._until_poll <= 0:
            self._breathe()
        self._produce(self._topics[topic], key, value, time_ms, -1)
        self.last_ms = time_ms

    def finish(self, until_ms: int | None = None, *, next_ms: int | None = None) -> None:
        """Write the last marks and wait for every delivery.

        Args:
            until_ms: shop time up to which marks go on after the last event, but not beyond now.
            next_ms: shop time of an event that is still to come: no mark after it is written, so
                that it does not come too late.

        Raises:
            DeliveryError: a record was not delivered.
            Stopped: asked to stop; what was written so far has been delivered.
        """
        try:
            if self._signer is not None and self.last_ms is not None:
                until_ms = min(until_ms or 0, self.latest_ms)
                if next_ms is None:
                    # Nothing is left to wait for: the day is closed as soon as it is over.
                    self._write_mark()
                else:
                    until_ms = min(until_ms, next_ms)
                while self._next_mark_ms <= until_ms:
                    self._mark()
        finally:
            self._flush()

    @property
    def latest_ms(self) -> int:
        """The latest time that an event may have: no shop is ahead of the wall clock."""
        return round(self._clock.now() * 1_000) + self._future_ms

    def pass_over(self, time_ms: int) -> None:
        """Let the next mark be the first one after a time, if it would be an earlier one."""
        self._next_mark_ms = max(self._next_mark_ms, self._before(time_ms) + self._step_ms)

    def close(self) -> None:
        """Drop whatever is not delivered, after `finish` nothing."""
        self._producer.purge()
        self._producer.flush(1.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _before(self, time_ms: int) -> int:
        return time_ms // self._step_ms * self._step_ms if self._step_ms else 0

    def _mark(self) -> None:
        self._until_poll -= len(self._topics) * self._partitions
        if self._next_mark_ms > self._reached_ms:
            self._wait(self._next_mark_ms)
        elif self._until_poll <= 0:
            self._breathe()
        self._write_mark()

    def _write_mark(self) -> None:
        time_ms = self._next_mark_ms
        if self._signer is None:
            return
        sent_ms = round(self._clock.now() * 1_000)
        for topic in self._topics:
            for partition in range(self._partitions):
                mark = self._signer.mark(topic, partition, time_ms, sent_ms)
                self._produce(topic, None, msgspec.json.encode(mark), time_ms, partition)
        self.marks += 1
        self._next_mark_ms = time_ms + self._step_ms

    def _produce(
        self, topic: str, key: bytes | None, value: bytes | None, time_ms: int, partition: int
    ) -> None:
        while True:
            try:
                self._producer.produce(
                    topic, value=value, key=key, partition=partition, timestamp=time_ms
                )
                break
            except BufferError:
                self._producer.poll(0.1)
                self._raise_failure()
            except KafkaException as error:
                raise DeliveryError(str(error.args[0])) from None

    def _breathe(self) -> None:
        """Take note of failures and of a wish to stop; never half-way through a mark."""
        self._until_poll = _POLL_EVERY
        self._producer.poll(0)
        self._raise_failure()
        if self._stop():
            self._stop = lambda: False  # asked and answered: the last mark is still written
            raise Stopped

    def _wait(self, time_ms: int) -> None:
        """Until the shop's clock has reached a time."""
        speed = self._speed
        if speed is None:
            return
        if self._origin is None:
            self._origin = (time_ms, self._clock.monotonic())
        start_ms, start = self._origin
        while True:
            self._reached_ms = start_ms + int((self._clock.monotonic() - start) * speed * 1_000)
            ahead = (time_ms - self._reached_ms) / 1_000 / speed
            if ahead <= 0:
                return
            self._breathe()
            self._clock.sleep(min(max(ahead, _SHORTEST_SLEEP_SECONDS), _LONGEST_SLEEP_SECONDS))

    def _flush(self) -> None:
        # Ends: what cannot be delivered fails after delivery.timeout.ms.
        while self._producer.flush(1.0):
            self._raise_failure()
        self._raise_failure()

    def _not_delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and self._failure is None:
            self._failure = f"a record for {message.topic()} was not delivered: {error.str()}"

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise DeliveryError(self._failure)

    def _look_up(self, bootstrap: str) -> int:
        try:
            # All topics: to ask for one by name would create it on some brokers.
            known = self._producer.list_topics(timeout=_CONNECT_SECONDS).topics
        except KafkaException:
            raise BrokerUnavailableError(
                f"no broker answers at {bootstrap} within {_CONNECT_SECONDS:.0f} s"
            ) from None
        for topic in self._topics:
            if topic not in known:
                raise TopicMissingError(
                    f"topic {topic} does not exist, or may not be seen by this user; `segstream"
                    " topics apply` makes it"
                )
        first, second = (len(known[topic].partitions) for topic in self._topics)
        if first != second:
            raise ConfigError(
                f"topics {' and '.join(self._topics)} have {first} and {second} partitions; "
                "they must have the same number"
            )
        return first


def iso_texts(times_ms: Ints) -> list[str]:
    """Times in the 24-character form, `stream.units.iso` for a whole column."""
    texts = np.datetime_as_string(times_ms.astype("datetime64[ms]"), unit="ms")
    return [f"{text}Z" for text in texts.tolist()]


# -- replaying a file --------------------------------------------------------------------------


@dataclass
class ReplayReport:
    """What became of the files.

    Attributes:
        rows: in the files.
        refused: rows (or orders made of them) that became no event, by reason.
        examples: the first few of each reason.
        mapped: events after the rows of an order were added up.
        events: events sent, by name.
        known: events that a resumed replay passed over, because they are in the topics, or before
            the shop's clock there.
        unsent: events left out because of `limit` or `until`.
        marks: ticks of the shop's clock, each written into every partition.
        notes: what a reader should know of how the files were read.
        complete: False if it was stopped before the end.
        caught_up: whether the pipeline has taken in all of it; None if nobody waited for that.
        rejected_to: where every refused row was written, if that was asked for.
    """

    rows: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[Refusal]] = field(default_factory=dict)
    mapped: int = 0
    events: dict[str, int] = field(default_factory=dict)
    known: int = 0
    unsent: int = 0
    marks: int = 0
    first_event_ms: int | None = None
    last_event_ms: int | None = None
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    complete: bool = True
    caught_up: bool | None = None
    rejected_to: Path | None = None

    @property
    def sent(self) -> int:
        return sum(self.events.values())

    def as_dict(self) -> dict[str, Any]:
        """For JSON: times as ISO 8601, examples with their columns."""
        return {
            "rows": self.rows,
            "mapped": self.mapped,
            "sent": self.sent,
            "events": self.events,
            "known": self.known,
            "refused": self.refused,
            "examples": {
                reason: [refusal._asdict() for refusal in found]
                for reason, found in self.examples.items()
            },
            "unsent": self.unsent,
            "marks": self.marks,
            "first_event_at": None if self.first_event_ms is None else iso(self.first_event_ms),
            "last_event_at": None if self.last_event_ms is None else iso(self.last_event_ms),
            "seconds": round(self.seconds, 3),
            "notes": self.notes,
            "complete": self.complete,
            "caught_up": self.caught_up,
            "rejected_to": None if self.rejected_to is None else str(self.rejected_to),
        }

    def lines(self) -> list[str]:
        """The report for a terminal, with how to see what was refused."""
        names = ", ".join(f"{count:,} {name}" for name, count in sorted(self.events.items()))
        text = [f"{self.rows:,} rows, {self.sent:,} events sent ({names or 'none'})"]
        if self.first_event_ms is not None and self.last_event_ms is not None:
            text.append(
                f"from {iso(self.first_event_ms)} to {iso(self.last_event_ms)}, "
                f"{self.marks:,} marks, {self.seconds:.1f} s"
            )
        if self.known:
            text.append(
                f"{self.known:,} events were passed over: they are in the topics already, or before "
                "the shop's clock there"
            )
        if self.unsent:
            text.append(f"{self.unsent:,} events were left out")
        if not self.complete:
            text.append("stopped before the end; --resume goes on from there")
        if self.caught_up is not None:
            text.append(
                "the pipeline has taken in all of it"
                if self.caught_up
                else "stopped before the pipeline had taken in all of it"
            )
        text += [f"note: {note}" for note in self.notes]
        if self.refused:
            text.append(f"{sum(self.refused.values()):,} refused:")
            text += refusal_lines(self.refused, self.examples)
            text.append(
                f"  all of them are in {self.rejected_to}"
                if self.rejected_to
                else "  to see every one: --rejected FILE writes them as JSON Lines"
            )
        return text


_MENDED_BY = {
    NO_USER: "user",
    BAD_USER: "user",
    PLACEHOLDER_USER: "user",
    NO_EVENT: "event",
    IGNORED_EVENT: "event.values",
    BAD_TIME: "time.column, time.format or time.zone",
    BAD_NUMBER: "decimal, amount, price or quantity",
    BAD_CURRENCY: "currency",
    UNREADABLE: "encoding or delimiter",
}
"""The keys of a mapping that decide about each reason; about others, its rules do."""


def refusal_lines(refused: dict[str, int], examples: dict[str, list[Refusal]]) -> list[str]:
    """Reason, count, first examples and the key of the mapping, the most frequent reason first."""
    text = []
    for reason, count in sorted(refused.items(), key=lambda item: -item[1]):
        first, *others = examples[reason]
        where = f"row {first.row}" + (f" of {first.file}" if first.file else "")
        text.append(f"  {count:,} {reason}, such as {where}: {first.why}")
        if others:
            text.append(f"    also rows {', '.join(str(other.row) for other in others)}")
        # A line that is a message is read without the mapping's columns.
        by_mapping = bool(first.columns) or reason == UNREADABLE
        if by_mapping and reason != OUTLIER_TIME:
            text.append(f"    the mapping's key: {_MENDED_BY.get(reason, 'rules')}")
    return text


class Refusals:
    """Counts refused rows, keeps a few of each reason, and writes all to a file if asked to."""

    def __init__(self, to: Path | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[Refusal]] = {}
        self._to = to
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        if self._to is not None:
            try:
                self._file = self._to.open("wb")
            except OSError as error:
                raise FileError(f"{self._to}: cannot be written: {error.strerror}") from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def __call__(self, refusal: Refusal) -> None:
        self.counts[refusal.reason] += 1
        examples = self.examples.setdefault(refusal.reason, [])
        if len(examples) < _EXAMPLES:
            examples.append(refusal)
        if self._file is not None:
            self._file.write(msgspec.json.encode(refusal._asdict()) + b"\n")


class BehindError(ToldError):
    """A file that lies before the pipeline's clock, or is in the topics; says what to do."""


Behind = Literal["refuse", "resume", "send"]
"""What to do with events that come too late or are in the topics: end before anything is sent, pass
them over, or send them all the same."""


def replay(
    settings: Settings,
    file: Path,
    mapping: Mapping,
    signer: MarkSigner | None,
    *,
    more: Sequence[Source] = (),
    speed: Speed = "max",
    progress: Callable[[Progress], None] | None = None,
    until: datetime | None = None,
    limit: int | None = None,
    rejected_to: Path | None = None,
    keep_outliers: bool = False,
    watched: Collection[str] | None = None,
    native: ReadNative | None = None,
    log_end: Callable[[], LogEnd] | None = None,
    behind: Behind = "refuse",
    tell: Callable[[str], None] = lambda _: None,
    stop: Callable[[], bool] | None = None,
    clock: Clock = CLOCK,
    make_producer: Callable[[dict[str, Any]], Producer] = Producer,
) -> ReplayReport:
    """Send the events of files onto the input topics, in event-time order.

    Records carry the time of their event, so that late and future are judged by the shop's clock.
    Ids of messages are made of what is in the files: said again, they are the same.

    Args:
        settings: names broker and topics; in watermark mode marks are written.
        file: CSV, JSON Lines or Parquet, with .gz or without.
        mapping: says what its columns mean.
        signer: signs the marks; None writes none even in watermark mode.
        more: further files, whose events are merged with the first one's.
        speed: ``"max"``, or so many seconds of shop time a second.
        progress: is told how far it is.
        until: where the shop's clock ends: later events are left out, and marks go on until
            there after the last event, but not beyond now. Without a zone it is UTC.
        limit: the largest number of events to send.
        rejected_to: a file that takes every refused row as JSON Lines.
        keep_outliers: whether events far from all others are sent, too.
        watched: the events that features look at; None does not ask.
        native: reads lines that are messages as the worker does; see `files.stage`.
        log_end: reads what the topics end with; None does not ask.
        behind: what to do with events that come too late for the topics, or are in them.
        tell: is told what there is to know before anything is sent.
        stop: asked now and then; a yes ends the replay early. Its clock stays where the last event
            is, so that a resumed replay can go on.
        clock: what time it is.
        make_producer: makes a producer from its options.

    Raises:
        FileError: a file cannot be read, or nothing in it is watched.
        MappingError: a file lacks a column that the mapping needs.
        BehindError: events come too late for the topics, or are in them.
        BrokerUnavailableError: no broker answers.
        TopicMissingError: an input topic does not exist.
        ConfigError: the input topics have different numbers of partitions.
        DeliveryError: a record was not delivered.
    """
    started = clock.monotonic()
    report = ReplayReport(rejected_to=rejected_to)
    until_ms = None if until is None else milliseconds(until)
    sources = [Source(file, mapping), *more]
    names = [stem(source.file) for source in sources]

    def show(phase: Literal["reading", "sending"], done: int, time_ms: int | None = None) -> None:
        if progress is not None:
            progress(Progress(phase, done, report.mapped or None, time_ms))

    def read(rows: int) -> None:
        show("reading", rows)
        if stop is not None and stop():
            raise Stopped

    with Refusals(rejected_to) as refusals, EventSorter() as sorter:
        try:
            latest_ms = round((clock.now() + settings.worker.future_seconds) * 1_000)
            report.rows, report.mapped = read_sources(
                sources,
                sorter,
                refusals,
                read,
                latest_ms=latest_ms,
                keep_outliers=keep_outliers,
                native=native,
                placeholders=settings.worker.placeholder_ids,
                money=settings.money,
                ratings=settings.reviews,
            )
            report.notes = list(sorter.notes)
            if watched is not None:
                report.notes += unwatched_notes(sorter.names(), watched, file)
            for note in report.notes:
                tell(note)
            refused = refusals.counts.total()
            with InputWriter(
                settings,
                signer,
                speed=speed,
                stop=stop,
                clock=clock,
                make_producer=make_producer,
            ) as writer:
                end = LogEnd(0, 0, {}) if log_end is None else log_end()
                plan = _Plan(sorter, names, end, behind)
                report.known = plan.known
                sending = _Sending(plan, until_ms, limit)
                _send(writer, sending, names, report, refusals, show)
                report.first_event_ms, report.last_event_ms = writer.first_ms, writer.last_ms
                try:
                    if behind == "send" and report.complete:
                        writer.pass_over(end.latest_ms)
                    writer.finish(until_ms if report.complete else None, next_ms=sending.next_ms)
                finally:
                    report.marks = writer.marks
            failed = refusals.counts.total() - refused
            report.unsent = report.mapped - report.known - report.sent - failed
        except Stopped:
            report.complete = False
    report.refused = dict(refusals.counts)
    report.examples = refusals.examples
    report.seconds = clock.monotonic() - started
    return report


def unwatched_notes(names: Counter[str], watched: Collection[str], file: Path) -> list[str]:
    """What to tell of events that no feature looks at.

    Raises:
        FileError: that is all of them.
    """
    others = {name: count for name, count in names.items() if name not in watched}
    if not others:
        return []
    told = ", ".join(f"{count:,} {name!r}" for name, count in sorted(others.items()))
    if len(others) == len(names):
        raise FileError(
            f"{file}: no feature watches any of its events ({told}); watched are "
            f"{', '.join(sorted(watched))}; is this the right mapping?"
        )
    return [f"no feature watches {told}"]


class _Plan:
    """Which of the sorted events are to be sent, and how many need not be.

    Attributes:
        known: events that are passed over.
    """

    def __init__(
        self, sorter: EventSorter, names: Sequence[str], end: LogEnd, behind: Behind
    ) -> None:
        """Compare the events with the end of the topics.

        Raises:
            BehindError: some come too late or are there, and nothing says what to do with them.
        """
        self._sorter = sorter
        self._from_ms = 0
        self._there: set[str] = set()
        self.known = 0
        if end.ids:
            ids = end.ids
            self._there = {
                found
                for batch in sorter.batches(end.mark_ms)
                for event in batch
                if (found := event.message_id(names[event.file])) in ids
            }
        there = len(self._there)
        before = sorter.before(end.mark_ms)
        if not before and not there:
            return
        if behind == "send":
            self._there = set()
            return
        if not end.latest_ms:
            # Without marks, what was sent before the oldest one that is found was sent before it.
            self._from_ms = min(end.ids[found] for found in self._there)
            before = sorter.before(self._from_ms)
        if behind == "refuse":
            raise BehindError(_behind(end, before, there, sorter.count))
        self._from_ms = max(self._from_ms, end.mark_ms)
        self.known = before + there
        self._names = names

    def batches(self) -> Iterator[list[Event]]:
        """What is to be sent, in order."""
        for batch in self._sorter.batches(self._from_ms):
            if self._there:
                yield [
                    event
                    for event in batch
                    if event.message_id(self._names[event.file]) not in self._there
                ]
            else:
                yield batch


def _behind(end: LogEnd, before: int, there: int, count: int) -> str:
    rest = count - before - there
    if end.latest_ms:
        why = (
            f"the shop's clock in the topics is at {iso(end.mark_ms)}: {before:,} of {count:,} events "
            f"are before it, and {there:,} more are in the topics already"
        )
    else:
        why = f"{there:,} of {count:,} events are among the last in the topics already"
    resume = (
        f"--resume sends the {rest:,} events that come after" if rest else "nothing is left to send"
    )
    return (
        f"{why}. Nothing was sent. If these files, or parts of them, were replayed before: {resume}. "
        "If they are new, they would count out of order: "
        "replay all files of a time together, into topics and a namespace of their own; --anyway "
        "sends them all as they are"
    )


class _Sending:
    """Events before a time, and at most so many.

    Attributes:
        next_ms: the time of the first event that was not given out; None once there is none.
    """

    def __init__(self, plan: _Plan, until_ms: int | None, limit: int | None) -> None:
        self._batches = plan.batches()
        self._until_ms = 1 << 62 if until_ms is None else until_ms
        self._left = 1 << 62 if limit is None else limit
        self.next_ms: int | None = None

    def batches(self) -> Iterator[list[Event]]:
        for batch in self._batches:
            kept = [event for event in batch[: self._left] if event.time_ms < self._until_ms]
            self._left -= len(kept)
            if len(kept) < len(batch):
                self.next_ms = batch[len(kept)].time_ms
            yield kept
            if len(kept) < len(batch):
                return


def _send(
    writer: InputWriter,
    sending: _Sending,
    names: Sequence[str],
    report: ReplayReport,
    refusals: Refusals,
    show: Callable[[Literal["sending"], int, int | None], None],
) -> None:
    """Send events and count them; a wish to stop ends it early."""
    sent: Counter[str] = Counter()
    done = 0
    event: Event | None = None
    try:
        for batch in sending.batches():
            times = iso_texts(np.array([event.time_ms for event in batch], dtype=np.int64))
            for event, timestamp in zip(batch, times, strict=True):
                try:
                    value = encoded_message(event, timestamp, names[event.file])
                except ValueError as error:
                    shown = {"user": event.user, "order": event.order}
                    refusals(Refusal(event.row, BAD_NUMBER, str(error), shown))
                    continue
                writer.send(topic_of(event.event), event.user.encode(), value, event.time_ms)
                sent[event.event] += 1
                done += 1
                if done % _SHOW_EVERY == 0:
                    show("sending", done, event.time_ms)
    except Stopped:
        report.complete = False
        # Whatever is still to come has at least this time.
        sending.next_ms = None if event is None else event.time_ms
    finally:
        report.events = dict(sent)


# -- showing it --------------------------------------------------------------------------------


@contextmanager
def progress_bar(
    console: Console, sending: str = "events sent"
) -> Iterator[Callable[[Progress], None]]:
    """A bar on the terminal that takes what `replay` tells, or whoever sends something else."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[at]}"),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        tasks = {
            "reading": bars.add_task("rows read", total=None, at="", visible=False),
            "sending": bars.add_task(sending, total=None, at="", visible=False),
        }

        def show(told: Progress) -> None:
            at = "" if told.time_ms is None else iso(told.time_ms)[:16].replace("T", " ")
            bars.update(
                tasks[told.phase], completed=told.done, total=told.total, at=at, visible=True
            )

        yield show
