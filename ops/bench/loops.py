"""What the benchmark runs in processes of their own: ``python -m ops.bench.loops NAME JSON``.

Comes in: the name of a loop and its arguments, as JSON. Goes out: a file with one JSON object. The
rivals `ceiling` and `plain` read with the very client options of the worker; `worker` *is* the
worker, started by the function that ``segstream run activity`` calls, with a clock at its consumer
that is read once, at the first message.
"""

from __future__ import annotations

import gc
import json
import signal
import struct
import sys
import time
from datetime import datetime
from pathlib import Path
from threading import Event
from types import FrameType
from typing import Any, Self, TypeAlias

import msgspec
import redis
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from consumers import group
from consumers.client import activity_options, reader_options
from producers.client import producer_options
from producers.traffic import bench_events
from stream import config_layers
from stream.config import Settings
from stream.events import CHANGED
from stream.headers import EVENT_TYPE
from stream.health import Health
from stream.wiring import roles

CONSUME = 500
"""Messages the rivals take at once."""
BATCH = 10_000
"""Events after which the plain loop writes."""
SILENCE_SECONDS = 30.0
"""A loop that is sent nothing for this long gives up."""
SAMPLE_SECONDS = 0.002
GENERATED_PER_SECOND = 100_000
"""Events a second that a slow machine can make; decides how long the sender prepares."""


class LoopError(Exception):
    """A loop cannot do what it is for; the message says why."""


# -- the load ----------------------------------------------------------------------------------


def fill(settings: Settings, *, events: int, users: int, rate: float) -> dict[str, Any]:
    """Put events on the input topics, at times that end now."""
    producer = Producer(producer_options(settings.broker, linger_seconds=0.05))
    start_ms = time.time_ns() // 1_000_000 - int(events * 1_000 / rate)
    topics, per_ms = settings.topics.inputs, rate / 1_000
    size = 0
    made = bench_events(events, users, 1, start_ms=start_ms, events_per_second=rate)
    for number, (key, value, topic) in enumerate(made):
        size += len(value)
        while True:
            try:
                producer.produce(
                    topics[topic], value, key, timestamp=start_ms + int(number / per_ms)
                )
                break
            except BufferError:
                producer.poll(0.05)
        if not number % 1_000:
            producer.poll(0)
    if left := producer.flush(60.0):
        raise LoopError(f"{left} events were not delivered")
    return {"event_bytes": size / events}


def send(
    settings: Settings, *, events: int, users: int, rate: float, start_file: str
) -> dict[str, Any]:
    """Send events at a steady rate, each at the time it tells.

    All of them are made before the first is sent, so that making them delays none.
    """
    lead_seconds = 1.0 + events / GENERATED_PER_SECOND
    while True:
        start_ms = time.time_ns() // 1_000_000 + int(lead_seconds * 1_000)
        # Another seed than the filling's: other message ids.
        made = list(bench_events(events, users, 2, start_ms=start_ms, events_per_second=rate))
        if time.time() * 1_000 < start_ms:
            break
        lead_seconds *= 2
    gc.freeze()
    producer = Producer(producer_options(settings.broker))
    write(Path(start_file), {"start_ms": start_ms})
    topics, per_ms = settings.topics.inputs, rate / 1_000
    sent, late_ms = 0, 0.0
    while sent < events:
        ahead_ms = time.time() * 1_000 - start_ms
        due = min(int(ahead_ms * per_ms), events)
        if due <= sent:
            # Not `poll`: it knows milliseconds, and with less than one it burns a core.
            time.sleep(0.0005)
            continue
        late_ms = max(late_ms, ahead_ms - sent / per_ms)
        for number in range(sent, due):
            key, value, topic = made[number]
            producer.produce(topics[topic], value, key, timestamp=start_ms + int(number / per_ms))
        producer.poll(0)
        sent = due
    took = time.time() - start_ms / 1_000
    if left := producer.flush(60.0):
        raise LoopError(f"{left} events were not delivered")
    return {"rate": events / took, "latest_send_seconds": late_ms / 1_000}


def listen(settings: Settings, *, ready_file: str) -> dict[str, Any]:
    """Read changes as a campaign would, until told to stop and there are no more.

    Returns:
        Of changes that users made: the time of the user's newest event, and the seconds from then
        to the change in hand. And how many changes there were in all, by cause.
    """
    stop = roles.stop_on_signals()
    consumer = Consumer(reader_options(settings.broker))
    partitions = range(settings.topics.partitions)
    consumer.assign(
        [TopicPartition(settings.topics.changes, p, OFFSET_BEGINNING) for p in partitions]
    )
    decode = msgspec.json.Decoder(_Change).decode
    at_ms: list[float] = []
    seconds: list[float] = []
    causes: dict[str, int] = {}
    unread = set(partitions)
    while True:
        message = consumer.poll(0.1)
        now = time.time()
        if message is None:
            if stop.is_set():
                break
            continue
        if message.error() is not None:
            if unread:
                unread.discard(message.partition() or 0)
                if not unread:  # it has come to the end of each partition: it really reads
                    write(Path(ready_file), {})
            continue
        value = message.value()
        assert value is not None
        if (EVENT_TYPE, CHANGED.encode()) not in list(message.headers() or ()):
            continue
        change = decode(value)
        causes[change.cause] = causes.get(change.cause, 0) + 1
        if change.cause == "user_moved":
            at = change.last_event_at.timestamp()
            at_ms.append(at * 1_000)
            seconds.append(now - at)
    consumer.close()
    return {"at_ms": at_ms, "seconds": seconds, "causes": causes}


class _Change(msgspec.Struct):
    cause: str
    last_event_at: datetime


# -- the rivals --------------------------------------------------------------------------------


def ceiling(settings: Settings, *, events: int) -> dict[str, Any]:
    """Consume and read the bytes."""
    consumer = _reader_of_inputs(settings)
    clock = _Clock()
    done = size = 0
    while done < events:
        messages: list[Any] = consumer.consume(CONSUME, 0.1)
        if clock.waits(messages):
            continue
        for message in messages:
            if message.error() is None:
                size += len(message.value())
                done += 1
    measured = clock.stop(done)
    consumer.close()
    return measured


class _Properties(msgspec.Struct, gc=False):
    price: float = 0.0
    revenue: float = 0.0
    quantity: float = 0.0


class _Event(msgspec.Struct, gc=False):
    event: str
    userId: str  # noqa: N815 - Segment's spelling
    timestamp: datetime
    properties: _Properties


Row: TypeAlias = list[Any]
_ROW = struct.Struct("<10d48x")
"""Nine numbers and the time of the last event, in 128 bytes."""
DAY_SECONDS = 86_400.0


def plain(settings: Settings, *, events: int, rolling: bool) -> dict[str, Any]:
    """The loop that somebody would write by hand: nine numbers a user, no more promises.

    It decodes only what it adds up, and writes once in 10,000 events.

    Args:
        settings: as shipped.
        events: to be read in all.
        rolling: three measures, each decayed with three half-lives, as the job asks for; or
            totals, which is less.
    """
    consumer = _reader_of_inputs(settings)
    store = redis.Redis.from_url(settings.store.url, protocol=2)
    store.ping()
    add = _add_decayed if rolling else _add_totals
    decode = msgspec.json.Decoder(_Event).decode
    users: dict[str, Row] = {}
    dirty: set[str] = set()
    clock = _Clock()
    done, written = 0, 0
    while done < events:
        messages: list[Any] = consumer.consume(CONSUME, 0.1)
        if clock.waits(messages):
            continue
        for message in messages:
            if message.error() is not None:
                continue
            event = decode(message.value())
            user = event.userId
            row = users.get(user)
            if row is None:
                row = users[user] = [0.0] * 9 + [event.timestamp]
            add(row, event)
            dirty.add(user)
            done += 1
        if done - written >= BATCH or done >= events:
            store.mset({f"{settings.store.namespace}:{user}": _pack(users[user]) for user in dirty})
            dirty.clear()
            written = done
    measured = clock.stop(done)
    consumer.close()
    return measured


def _add_decayed(row: Row, event: _Event) -> None:
    """Views, orders and revenue, each with half-lives of 1, 7 and 30 days."""
    at = event.timestamp
    if at > row[9]:
        days = (at - row[9]).total_seconds() / DAY_SECONDS
        day, week, month = 0.5**days, 0.5 ** (days / 7), 0.5 ** (days / 30)
        for place in (0, 3, 6):
            row[place] *= day
            row[place + 1] *= week
            row[place + 2] *= month
        row[9] = at
    name = event.event
    if name == "Product Viewed":
        row[0] += 1
        row[1] += 1
        row[2] += 1
    elif name == "Order Completed":
        revenue = event.properties.revenue
        row[3] += 1
        row[4] += 1
        row[5] += 1
        row[6] += revenue
        row[7] += revenue
        row[8] += revenue


def _add_totals(row: Row, event: _Event) -> None:
    """Events, views, looked-at prices, carts, orders, pieces, revenue."""
    row[0] += 1
    name, told = event.event, event.properties
    if name == "Product Viewed":
        row[1] += 1
        row[2] += told.price
    elif name == "Product Added":
        row[3] += 1
    elif name == "Order Completed":
        row[4] += 1
        row[5] += told.quantity
        row[6] += told.revenue
    if event.timestamp > row[9]:  # noqa: PLR1730 - max() would be a call for each
        row[9] = event.timestamp


def _pack(row: Row) -> bytes:
    """A time stays what it is decoded to until a row is written: that is much rarer."""
    *numbers, last = row
    return _ROW.pack(*numbers, last.timestamp())


def _reader_of_inputs(settings: Settings) -> Consumer:
    """A consumer like the worker's, but assigned to everything at once."""
    options = activity_options(settings.broker, "classic")
    consumer = Consumer(options | {"group.id": f"{settings.broker.group}-rival"})
    consumer.assign(
        [
            TopicPartition(topic, partition, OFFSET_BEGINNING)
            for topic in settings.topics.inputs
            for partition in range(settings.topics.partitions)
        ]
    )
    return consumer


class _Clock:
    """Runs from the first message on; gives up when none comes."""

    def __init__(self) -> None:
        self._started = 0.0
        self._cpu = 0.0
        self._heard = time.perf_counter()

    def waits(self, messages: list[Any]) -> bool:
        """Whether there is nothing to do yet."""
        now = time.perf_counter()
        if messages:
            if not self._started:
                self._started, self._cpu = now, time.process_time()
            self._heard = now
        elif now - self._heard > SILENCE_SECONDS:
            raise LoopError(f"no message for {SILENCE_SECONDS:.0f} s")
        return not messages

    def stop(self, events: int) -> dict[str, Any]:
        return {
            "events": events,
            "seconds": time.perf_counter() - self._started,
            "cpu_seconds": time.process_time() - self._cpu,
        }


# -- the whole job -----------------------------------------------------------------------------


class ClockedConsumer(Consumer):
    """The worker's consumer, which notes when the first messages came."""

    started: tuple[float, float] | None = None
    """Monotonic clock and CPU seconds of this process then."""
    start_file = Path()

    def consume(self, num_messages: int = 1, timeout: float = -1) -> list[Any]:
        messages = super().consume(num_messages, timeout)
        if ClockedConsumer.started is None and messages:
            ClockedConsumer.started = (time.monotonic(), time.process_time())
            at, cpu = ClockedConsumer.started
            write(ClockedConsumer.start_file, {"at": at, "cpu_seconds": cpu})
        return messages


def worker(settings: Settings, *, start_file: str, profiled: bool) -> dict[str, Any]:
    """The shipped worker, until told to stop."""
    stop = roles.stop_on_signals()
    ClockedConsumer.start_file = Path(start_file)
    # Where a member of a group looks for it: the worker itself stays as it is shipped.
    vars(group)["Consumer"] = ClockedConsumer
    if not profiled:
        roles.run(settings, ["activity"], stop)
        return {}
    # Signals are handled in the main thread, so what they shall interrupt has to run there.
    with Sampler(stop) as sampler:
        roles.activity(settings, stop, Health())
    return {"shares": sampler.shares()}


STEPS = {
    "ClockedConsumer": "consume",
    "LiveClock.gather": "decode",
    "MarkClock.gather": "decode",
    "Decoder": "decode",
    "Batch": "slots",
    "FeatureTable.fold": "fold",
    "FeatureTable.vectors": "look",
    "Partition._look": "look",
    "act_together": "look",
    "Partition.record": "record",
    "Partition.commit": "commit",
    "RedisStore": "commit",
    "RedisPartitions": "commit",
}
"""What the worker is doing: the innermost of these methods, or classes, on its stack."""
SWEEP = "Partition.sweep_on"


class Sampler:
    """Tells where the main thread's time goes, by looking at its stack every other millisecond.

    Each look puts the CPU time of the thread since the look before on the step it finds. A step in
    C is not interrupted, so one long call is one look; its time is not lost. What the Kafka
    client's own threads take, and how long none of them runs (for want of data, of an answer or of
    a core), comes from the process's clocks.
    """

    def __init__(self, stop: Event) -> None:
        self._stop = stop
        self._seconds: dict[str, float] = {}
        self._last = 0.0
        self._begun: tuple[float, float, float] | None = None
        self._ended: tuple[float, float, float] | None = None

    def __enter__(self) -> Self:
        signal.signal(signal.SIGALRM, self._look)
        signal.setitimer(signal.ITIMER_REAL, SAMPLE_SECONDS, SAMPLE_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _look(self, number: int, frame: FrameType | None) -> None:
        del number
        if ClockedConsumer.started is None or self._ended is not None:
            return
        now = (time.monotonic(), time.process_time(), time.thread_time())
        if self._begun is None:
            self._begun = now
        elif self._stop.is_set():
            self._ended = now
        else:
            step = step_of(frame)
            self._seconds[step] = self._seconds.get(step, 0.0) + now[2] - self._last
        self._last = now[2]

    def shares(self) -> dict[str, float]:
        """Share of the wall clock of each step, greatest first."""
        if self._begun is None or self._ended is None:
            raise LoopError("the run was too short for a profile")
        wall, process, thread = (e - b for b, e in zip(self._begun, self._ended, strict=True))
        seconds = self._seconds | {
            "kafka client threads": max(process - thread, 0.0),
            "waiting": max(wall - process, 0.0),
        }
        ordered = sorted(seconds.items(), key=lambda item: -item[1])
        return {step: second / wall for step, second in ordered}


def step_of(frame: FrameType | None) -> str:
    """What a stack is doing; a look at everyone is a sweep, whoever asked for it."""
    step = ""
    while frame is not None:
        name = frame.f_code.co_qualname
        if not step:
            step = STEPS.get(name) or STEPS.get(name.partition(".")[0], "")
        elif step == "look" and name == SWEEP:
            return "sweep"
        frame = frame.f_back
    return step or "other"


# -- as a program ------------------------------------------------------------------------------

LOOPS = {loop.__name__: loop for loop in (fill, send, listen, ceiling, plain, worker)}


def write(file: Path, content: Any) -> None:
    """A JSON file that is there whole or not at all."""
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps(content))
    draft.replace(file)


def main() -> None:
    name, arguments = sys.argv[1], json.loads(sys.argv[2])
    out, settings_file = Path(arguments.pop("out")), Path(arguments.pop("settings"))
    settings = config_layers.load(settings_file, environment={})[0]
    try:
        write(out, LOOPS[name](settings, **arguments))
    except LoopError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
