"""What the partitions of a worker remember of past messages: which came before, and which orders.

Comes in: a batch of events of some partitions. Goes out: the same events with what they correct, and
which are repeats; `features` folds them. `remembered` knows message ids, `orders` knows orders. One
memory serves all partitions of a worker, so that a batch is looked up in one go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stream.events import Bools, EventColumns, Hashes, Ints
from stream.features import OrderKinds, Shares
from stream.limits import STEPS, TOPICS, Limits
from stream.orders import Orders
from stream.remembered import MESSAGE, MOST_LANES, Lane, Remembered, Steps, keys_of, salt_of


class Part(NamedTuple):
    """One partition's share of a batch.

    Attributes:
        lanes: of the partition, by topic.
        users: hash of each event's user.
    """

    lanes: Sequence[Lane]
    users: Hashes


@dataclass(frozen=True)
class Sifted:
    """A batch that was compared with what is remembered.

    Attributes:
        events: of the batch, and corrections of earlier orders behind them.
        repeats: which of them came before.
        shares: what each counts; None where each counts as it is.
    """

    events: EventColumns
    repeats: Bools
    shares: Shares | None


class Memory:
    """What a worker's partitions remember; `open` and `close` say which partitions these are."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.ids = Remembered(self.limits)
        self.orders = Orders()
        self._lanes: dict[int, Lane] = {}
        self._closed: list[int] = []
        self._free: list[int] = []
        self._next = 0

    def open(
        self,
        partition: int,
        clocks: Sequence[int],
        ids: Sequence[list[tuple[int, int]]],
        orders: Sequence[list[tuple[int, int]]],
    ) -> tuple[Lane, ...]:
        """Remember for a partition, from now on; returns its lanes, by topic.

        Args:
            clocks: of its topics, none for 0.
            ids, orders: how many of each step are stored, by topic; to be loaded next.
        """
        if self._closed:
            # Whoever comes back has the same keys as before.
            self.ids.purge()
            self.orders.purge()
            self._free += self._closed
            self._closed.clear()
        lanes = []
        for topic in range(TOPICS):
            clock = clocks[topic] if clocks else 0
            limits = self.limits
            lane = Lane(
                self._free.pop() if self._free else self._number(),
                salt_of(partition, topic),
                Steps.of(step_of(limits.ids_ms[topic]), ids[topic] if ids else []),
                Steps.of(step_of(limits.orders_ms), orders[topic] if orders else []),
                clock,
            )
            if clock:
                lane.step = clock // lane.ids.step_ms
                lane.orders_step = clock // lane.orders.step_ms
            self._lanes[lane.number] = lane
            self.ids.open(lane)
            self.orders.open(lane)
            lanes.append(lane)
        return tuple(lanes)

    def _number(self) -> int:
        self._next += 1
        if self._next > MOST_LANES:
            raise ValueError(f"a worker can own {MOST_LANES // TOPICS} partitions at the most")
        return self._next - 1

    def close(self, lanes: Sequence[Lane]) -> None:
        """Forget what was remembered for a partition."""
        for lane in lanes:
            if self._lanes.pop(lane.number, None) is not None:
                self.ids.close(lane.number)
                self.orders.close(lane.number)
                self._closed.append(lane.number)

    def sift(self, parts: Sequence[Part], events: EventColumns, kinds: OrderKinds | None) -> Sifted:
        """Compare a batch with what is remembered, and remember it.

        Args:
            parts: of the events, in their order.
            kinds: None where no feature knows orders.
        """
        if len(events) == 0:
            return Sifted(events, np.zeros(0, np.bool_), None)
        users = parts[0].users if len(parts) == 1 else np.concatenate([p.users for p in parts])
        first = np.repeat(np.arange(len(parts)) * TOPICS, [len(one.users) for one in parts])
        # By lane: of each lane the messages stand in offset order already.
        lane_order = first + events.topic
        numbers = np.array([lane.number for part in parts for lane in part.lanes])
        salts = np.array([lane.salt for part in parts for lane in part.lanes], np.uint64)
        number, salt = numbers[lane_order], salts[lane_order]
        keys = keys_of(users, salt, events.id, MESSAGE)
        keys[events.id == 0] = 0

        order: Ints | None = None
        if (lane_order[1:] < lane_order[:-1]).any():
            order = np.argsort(lane_order, kind="stable")
            lane_order = lane_order[order]
        starts = np.flatnonzero(np.concatenate(([True], lane_order[1:] != lane_order[:-1])))
        sorted_number = number if order is None else number[order]
        lanes = [self._lanes[n] for n in sorted_number[starts].tolist()]
        recorded = events.recorded_ms if order is None else events.recorded_ms[order]
        clock = _clocks(recorded, starts, lanes)
        if order is None:
            repeats = self.ids.repeats(lanes, number, keys, clock)
        else:
            repeats, unordered = np.empty(len(keys), np.bool_), np.empty_like(clock)
            repeats[order] = self.ids.repeats(lanes, sorted_number, keys[order], clock)
            unordered[order] = clock
            clock = unordered
        if kinds is None:
            return Sifted(events, repeats, None)
        by_number = {lane.number: lane for lane in lanes}
        count = len(events)
        events, shares = self.orders.take(
            by_number, events, kinds, users, salt, number, clock, repeats
        )
        if len(events) > count:
            repeats = np.concatenate([repeats, np.zeros(len(events) - count, np.bool_)])
        return Sifted(events, repeats, shares)


def step_of(remember_ms: int) -> int:
    """Length of a step of the time to remember something."""
    return max(remember_ms // STEPS, 1)


def _clocks(recorded: Ints, starts: Ints, lanes: Sequence[Lane]) -> Ints:
    """The clock of each message's lane at the message; the lanes keep where it has come to."""
    ends = np.append(starts[1:], len(recorded))
    clock = recorded.copy()
    before = np.array([lane.clock_ms for lane in lanes])
    clock[starts] = np.maximum(clock[starts], before)
    # A running maximum of each lane: what is added keeps every lane above the one before.
    lift = np.repeat(np.arange(len(starts)) << 44, ends - starts)
    clock = np.maximum.accumulate(clock + lift) - lift
    for lane, now in zip(lanes, clock[ends - 1].tolist(), strict=True):
        lane.clock_ms = now
    return clock
