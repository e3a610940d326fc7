"""Sends what restless shoppers do, and some garbage, until told to stop.

Comes in: settings, a seed, a rate. Goes out: messages on the input topics, through the project's own
`InputWriter` (so in watermark mode with the marks of the shop's clock), and how many of each sort.

Shoppers change their habits every few seconds, so that many of them change segments in every second
and a second that is lost has changes in it. Amounts of money are whole numbers: they add up exactly.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple, Self

import numpy as np

from producers.replay import InputWriter, Stopped
from producers.traffic import SHOP_START_MS
from stream.config import Settings
from stream.events import ORDER_COMPLETED, ORDER_REFUNDED
from stream.units import DAY_MS, iso
from stream.wiring.roles import mark_signer

SHOP_HOURS_A_SECOND = 1.0
"""Watermark mode: an hour, and a mark, every second; so ten minutes are 25 days."""
STEP_SECONDS = 0.1
"""Messages are made in portions of this much wall clock time."""
FIRST_USERS = 1_500
USERS_A_SECOND = 15.0
HABIT_SECONDS = 12.0
"""How long a shopper keeps to a habit."""
HOT_SHARE = 0.05
"""Of the messages, those of the one busiest shopper."""
DUPLICATE_SHARE, LATE_SHARE, UNWATCHED_SHARE = 0.03, 0.005, 0.01
GARBAGE_EACH = 0.005
"""Garbage messages for each good one, while there is no flood."""

UNWATCHED_EVENT = "Coupon Viewed"
"""A sound message that no feature watches."""
WATCHED_EVENTS = (
    "Product Viewed", "Product List Viewed", "Product Added", ORDER_COMPLETED, ORDER_REFUNDED,
)  # fmt: skip

# How likely a shopper of a habit does each of the above.
_HABITS = np.array(
    [
        (0.90, 0.08, 0.02, 0.00, 0.00),
        (0.30, 0.60, 0.10, 0.00, 0.00),
        (0.45, 0.05, 0.45, 0.05, 0.00),
        (0.30, 0.00, 0.25, 0.45, 0.00),
        (0.40, 0.00, 0.10, 0.25, 0.25),
    ]
)
_LARGEST_ORDER = np.array([20, 40, 60, 150, 900])


class Sort(StrEnum):
    """What is right to become of a message."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    LATE = "late"
    IGNORED = "ignored"
    REJECTED = "rejected"
    MARK = "marks"


GARBAGE = (
    b"",
    b"\xff\xfe no text at all",
    b'{"type":"track","event":"Product Viewed","userId":"u1","mess',
    b"[1,2,3]",
    b'{"type":"track"}',
    b'{"type":"track","event":"Product Viewed","userId":"","messageId":"m","timestamp":"2026-01-01T00:00:00.000Z"}',
    b'{"type":"track","event":"Product Viewed","userId":"u1","messageId":"m","timestamp":"yesterday"}',
    b'{"type":"track","event":7,"userId":"u1","messageId":"m","timestamp":"2026-01-01T00:00:00.000Z"}',
    b"{" * 300,
    b'{"type":"segstream-mark","a":1e999,"b":NaN}',
    b'{"type":"track","event":"Order Completed","userId":"u1","messageId":"m","timestamp":"2026-01-01T00:00:00.000Z","properties":{"revenue":1e300}}',
)
"""None of these can be read by anybody."""
FORGED = (
    b'{"type":"segstream-mark","timestamp":"2025-09-02T00:00:00.000Z","sentAt":"2025-09-02T00:00:00.000Z"}',
    b'{"type":"segstream-mark","timestamp":"2090-01-01T00:00:00.000Z","sentAt":"2090-01-01T00:00:00.000Z","signature":"00"}',
)
"""Marks of the shop's clock by somebody who may not write them."""


class Outgoing(NamedTuple):
    """A message on its way."""

    sort: Sort
    topic: int
    key: bytes
    value: bytes
    time_ms: int


class Shoppers:
    """What shoppers do, in the order of their times; the seed decides everything.

    `by_marks` says whether marks count: then a forged one is refused, else it is nothing.
    """

    def __init__(
        self, seed: int, rate: float, start_ms: int, ms_a_second: float, *, by_marks: bool
    ) -> None:
        self._random = np.random.default_rng(seed)
        self._forged = Sort.REJECTED if by_marks else Sort.IGNORED
        self._seed = seed
        self._rate = rate
        self._start_ms = start_ms
        self._ms_a_second = ms_a_second
        self._number = 0
        self._garbage = 0

    def step(self, number: int, garbage_each: float) -> Iterator[Outgoing]:
        """Everything of one `STEP_SECONDS`; `garbage_each` good message."""
        begin = number * STEP_SECONDS
        random = self._random
        count = int(random.poisson(self._rate * STEP_SECONDS))
        known = FIRST_USERS + int(begin * USERS_A_SECOND)
        users = (known * random.random(count) ** 1.5).astype(int)
        users[random.random(count) < HOT_SHARE] = 0
        habits = (users * 7 + ((begin + users % 97) / HABIT_SECONDS).astype(int)) % len(_HABITS)
        limits = _HABITS.cumsum(axis=1)[habits]
        drawn = (random.random(count)[:, None] > limits).sum(axis=1)
        events = np.minimum(drawn, len(WATCHED_EVENTS) - 1)
        amounts = 1 + (random.random(count) * _LARGEST_ORDER[habits]).astype(int)
        times = begin + np.sort(random.random(count)) * STEP_SECONDS
        chances = random.random((count, 2))
        columns = zip(
            users.tolist(), events.tolist(), amounts.tolist(), times.tolist(), chances.tolist(),
            strict=True,
        )  # fmt: skip
        for user, event, amount, at, (chance, extra) in columns:
            time_ms = self._start_ms + int(at * self._ms_a_second)
            key = b"u%06d" % user
            for _ in range(int(garbage_each + extra)):
                yield self._trash(key, time_ms)
            yield from self._said(WATCHED_EVENTS[event], key, amount, time_ms, chance)

    def _said(
        self, event: str, key: bytes, amount: int, time_ms: int, chance: float
    ) -> Iterator[Outgoing]:
        """An event, perhaps twice, perhaps another one with it."""
        topic = int(event in (ORDER_COMPLETED, ORDER_REFUNDED))
        value = self._message(event, key, amount, time_ms)
        said = Outgoing(Sort.APPLIED, topic, key, value, time_ms)
        yield said
        if chance < DUPLICATE_SHARE:
            yield said._replace(sort=Sort.DUPLICATE)
        elif chance < DUPLICATE_SHARE + LATE_SHARE:
            late = self._message(event, key, amount, time_ms - 200 * DAY_MS)
            yield said._replace(sort=Sort.LATE, value=late)
        elif chance < DUPLICATE_SHARE + LATE_SHARE + UNWATCHED_SHARE:
            other = self._message(UNWATCHED_EVENT, key, amount, time_ms)
            yield Outgoing(Sort.IGNORED, 0, key, other, time_ms)

    def _message(self, event: str, key: bytes, amount: int, time_ms: int) -> bytes:
        self._number += 1
        return (
            b'{"type":"track","event":"%b","userId":"%b","messageId":"c%d-%d","timestamp":"%b",'
            b'"properties":{"category":"c%d","quantity":1,"%b":%d}}'
        ) % (
            event.encode(), key, self._seed, self._number, iso(time_ms).encode(),
            self._number % 13, b"revenue" if event.startswith("Order") else b"price", amount,
        )  # fmt: skip

    def _trash(self, key: bytes, time_ms: int) -> Outgoing:
        self._garbage += 1
        number = self._garbage % (len(GARBAGE) + len(FORGED))
        topic = self._garbage // 7 % 2
        if number < len(GARBAGE):
            return Outgoing(Sort.REJECTED, topic, key, GARBAGE[number], time_ms)
        return Outgoing(self._forged, topic, key, FORGED[number - len(GARBAGE)], time_ms)


class Traffic:
    """Shoppers in a thread of their own; a context manager.

    Attributes:
        sent: messages of each sort, without marks.
        garbage_each: garbage messages for each good one; a flood raises it.
        last_ms: shop time of the last message, once it has ended.
        failure: why the traffic ended before it was told to; None if it did not.
    """

    def __init__(self, settings: Settings, *, seed: int, rate: float) -> None:
        self.sent: Counter[Sort] = Counter()
        self.garbage_each = GARBAGE_EACH
        self.last_ms = 0
        self.failure: Exception | None = None
        self._settings = settings
        self._stopping = threading.Event()
        by_marks = settings.clock.mode == "watermark"
        self._speed = SHOP_HOURS_A_SECOND * 3_600 if by_marks else 1.0
        start_ms = SHOP_START_MS if by_marks else int(time.time() * 1_000)
        self._shoppers = Shoppers(seed, rate, start_ms, self._speed * 1_000, by_marks=by_marks)
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)

    def stop(self) -> None:
        """Send no more, and wait until everything is delivered."""
        self._stopping.set()
        self._thread.join()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            with InputWriter(
                self._settings,
                mark_signer(self._settings),
                speed=self._speed,
                stop=self._stopping.is_set,
            ) as writer:
                with contextlib.suppress(Stopped):
                    self._send(writer)
                writer.finish()
                self.last_ms = writer.last_ms or 0
        except Exception as error:  # noqa: BLE001 - told by whoever joins this thread
            self.failure = error

    def _send(self, writer: InputWriter) -> None:
        number = 0
        while not self._stopping.is_set():
            for sort, topic, key, value, time_ms in self._shoppers.step(number, self.garbage_each):
                writer.send(topic, key, value, time_ms)
                self.sent[sort] += 1
            number += 1
