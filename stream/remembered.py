"""Remembers message ids for a declared time, so that an event that is sent again counts once.

Comes in: messages of a partition's topics in offset order, with the times of their records. Goes
out: which of them came before; `partition` folds the others. What is remembered is a function of
the log alone, however it was cut into batches:

- the *clock* of a topic partition is the largest record time so far, in offset order;
- it is cut into *steps* of an eighth of the time to remember. An id that counted in a step is
  remembered until the clock is more than eight steps further, so for that time at least and an
  eighth more at the most. A repeat does not renew it;
- where a step begins with more ids than the cap, the oldest steps are forgotten early.

All partitions of a worker share one table: numpy's calls cost the same for one id or a thousand,
and in live mode a partition has few at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from stream import metrics
from stream.events import Bools, Hashes, Ints
from stream.hashing import MULTIPLIERS, mix
from stream.keytable import KeyTable
from stream.limits import PLACES, STEPS, Limits

log = logging.getLogger(__name__)

MOST_LANES = 1 << 16
_FORGOTTEN = np.iinfo(np.uint32).max


@dataclass
class Steps:
    """How many things are remembered of each step of a clock.

    Attributes:
        step_ms: length of a step.
        counts: by step, of those that have any.
        stored: the same as it was last committed.
    """

    step_ms: int
    counts: dict[int, int] = field(default_factory=dict)
    stored: dict[int, int] = field(default_factory=dict)

    def add(self, steps: Ints) -> None:
        """Count things that were taken in at steps of the clock."""
        if len(steps) == 0:
            return
        first, last = int(steps[0]), int(steps[-1])
        if first == last:
            self.counts[first] = self.counts.get(first, 0) + len(steps)
            return
        for step, number in zip(*np.unique(steps, return_counts=True), strict=True):
            self.counts[int(step)] = self.counts.get(int(step), 0) + int(number)

    def forget(self, before: int) -> int:
        """Forget the steps before one; returns how many things they had."""
        gone = [step for step in self.counts if step < before]
        return sum(self.counts.pop(step) for step in gone)

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def told(self) -> list[tuple[int, int]]:
        return sorted(self.counts.items())

    @staticmethod
    def of(step_ms: int, told: list[tuple[int, int]]) -> Steps:
        return Steps(step_ms, dict(told), dict(told))

    def vanished(self) -> list[int]:
        """Places in the store that hold only what is forgotten."""
        return sorted({step % PLACES for step in self.stored if step not in self.counts})

    def keep(self) -> None:
        """What is remembered has been committed."""
        self.stored = dict(self.counts)


@dataclass
class Lane:
    """What is remembered of one topic of a partition.

    Attributes:
        number: its place among the lanes of the worker.
        salt: keeps its keys apart from those of other lanes.
        clock_ms: see above.
        step: that its message ids have come to.
        orders_step: that its orders have come to.
        ids: how many message ids, by step.
        orders: how many orders, by step.
        fresh: ids that are not committed yet, as (step, key).
        changed: places of orders that are not committed yet.
        serial: of the next order.
    """

    number: int
    salt: int
    ids: Steps
    orders: Steps
    clock_ms: int = 0
    step: int = -1
    orders_step: int = -1
    fresh: list[tuple[Ints, Hashes]] = field(default_factory=list)
    changed: list[Ints] = field(default_factory=list)
    serial: int = 1

    def fresh_by_step(self) -> list[tuple[int, bytes]]:
        """Ids that are not committed yet and still remembered, by step."""
        if not self.fresh:
            return []
        steps = np.concatenate([steps for steps, _ in self.fresh])
        keys = np.concatenate([keys for _, keys in self.fresh])
        return [
            (step, keys[steps == step].tobytes())
            for step in np.unique(steps).tolist()
            if step in self.ids.counts
        ]

    def keep(self) -> None:
        """What is remembered has been committed."""
        self.fresh.clear()
        self.changed.clear()
        self.ids.keep()
        self.orders.keep()


def salt_of(partition: int, topic: int) -> int:
    """What the keys of a partition's topic are mixed with."""
    return (int(MULTIPLIERS[topic]) * (partition + 1)) % (1 << 64)


def keys_of(users: Hashes, salts: Hashes, texts: Hashes, what: int) -> Hashes:
    """Keys of things that have a text: of one user, topic, text and sort, never 0.

    Args:
        users: keyed hash of each thing's user.
        texts: hash of each thing's text.
        what: which sort of text.
    """
    with np.errstate(over="ignore"):
        mixed = mix((users ^ salts) * MULTIPLIERS[2] + texts * MULTIPLIERS[3 + what])
    return np.maximum(mixed, np.uint64(1))


MESSAGE, ORDER, NOBODY = 0, 1, 2
"""Sorts of texts: a message id, an order id, and the place of an order that has no id at all."""


class Remembered:
    """The message ids that a worker remembers, of all its lanes.

    Takes 16 bytes a place, and half to three quarters of the places are free: 32 to 64 bytes an id.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._table = KeyTable()
        self._floors = np.full(64, _FORGOTTEN, np.uint32)
        self._told_early = False

    def open(self, lane: Lane) -> None:
        """Remember for a lane, from now on."""
        if lane.number >= len(self._floors):
            more = np.full(len(self._floors) + lane.number, _FORGOTTEN, np.uint32)
            self._floors = np.concatenate([self._floors, more])
        self._floors[lane.number] = 0

    def close(self, number: int) -> None:
        """Forget a lane; its number may be used again after `purge`."""
        self._floors[number] = _FORGOTTEN

    def purge(self, more: int = 0) -> None:
        """Make the forgotten ones' room free, and room for so many more."""
        wanted = self._table.numbers > self._floors[self._table.lanes]
        self._table.rebuild(wanted, more)

    def load(self, lane: Lane, step: int, keys: Hashes) -> None:
        """Take in ids that a store has kept."""
        self._make_room(len(keys))
        places = self._table.put(keys, np.full(len(keys), lane.number, np.uint32))
        self._table.numbers[places] = step + 1

    def repeats(self, lanes: Sequence[Lane], number: Ints, keys: Hashes, clock_ms: Ints) -> Bools:
        """Which messages came before; the others are remembered.

        Args:
            lanes: of the messages, in that order.
            number: of each message's lane, a lane's together and in offset order.
            keys: of the messages; 0 has no id, and never comes again.
            clock_ms: of each message's lane at the message.
        """
        found = np.zeros(len(keys), np.bool_)
        self._make_room(len(keys))
        cuts = [0, *(np.flatnonzero(number[1:] != number[:-1]) + 1).tolist(), len(keys)]
        spans = list(zip(lanes, cuts, cuts[1:], strict=False))
        step_ms = np.repeat(np.array([lane.ids.step_ms for lane in lanes]), np.diff(np.array(cuts)))
        steps = clock_ms // step_ms
        full = [
            span
            for span in spans
            if span[0].ids.total + span[2] - span[1] > self._limits.ids
            and int(steps[span[2] - 1]) > span[0].step
        ]
        chosen = keys > 0
        for _, start, end in full:
            chosen[start:end] = False
        if chosen.all():
            found[:] = self._ask(keys, number, steps)
        elif chosen.any():
            found[chosen] = self._ask(keys[chosen], number[chosen], steps[chosen])
        by_steps = {lane.number for lane, _, _ in full}
        for lane, start, end in spans:
            if lane.number in by_steps:
                self._go_by_steps(lane, steps[start:end], keys[start:end], found[start:end])
            else:
                self._take_in(lane, steps[start:end], keys[start:end], found[start:end])
        return found

    def _go_by_steps(self, lane: Lane, steps: Ints, keys: Hashes, found: Bools) -> None:
        """Where the cap may be reached in between: one step after the other, as in small batches."""
        cuts = [0, *(np.flatnonzero(steps[1:] != steps[:-1]) + 1).tolist(), len(steps)]
        for low, high in pairwise(cuts):
            self._begin(lane, int(steps[low]))
            chosen = low + np.flatnonzero(keys[low:high] > 0)
            number = np.full(len(chosen), lane.number)
            found[chosen] = self._ask(keys[chosen], number, steps[chosen])
            self._take_in(lane, steps[low:high], keys[low:high], found[low:high])

    def _take_in(self, lane: Lane, steps: Ints, keys: Hashes, found: Bools) -> None:
        """Count and keep what did not come before."""
        new = np.flatnonzero(~found & (keys > 0))
        if len(new):
            lane.ids.add(steps[new])
            lane.fresh.append((steps[new], keys[new]))
        self._begin(lane, int(steps[-1]))

    def _begin(self, lane: Lane, step: int) -> None:
        """The clock of a lane has come to a step: forget what is too old, or too much."""
        if step <= lane.step:
            return
        lane.step = step
        lane.ids.forget(step - STEPS)
        floor = step - STEPS
        early = 0
        while lane.ids.total > self._limits.ids:
            oldest = min(lane.ids.counts)
            early += lane.ids.counts.pop(oldest)
            floor = oldest + 1
        if early:
            metrics.ids_forgotten_early(early)
            if not self._told_early:
                log.warning(
                    "more message ids than worker.remembered_ids (%d) of a partition's topic: the "
                    "oldest are forgotten early, and who sends them again is counted twice",
                    self._limits.ids,
                )
                self._told_early = True
        self._floors[lane.number] = max(int(self._floors[lane.number]), floor, 0)

    def _ask(self, keys: Hashes, number: Ints, steps: Ints) -> Bools:
        """Which of these came before, or among these; what did not is put in with its step."""
        table, found = self._table, np.zeros(len(keys), np.bool_)
        places = table.put(keys, number.astype(np.uint32))
        floors = np.maximum(steps - STEPS, self._floors[number])
        pending = np.arange(len(keys))
        while len(pending):
            at = places[pending]
            # A number is the step plus one: what was just put in has none, and is below any floor.
            known = table.numbers[at] > floors[pending]
            found[pending[known]] = True
            new, at = pending[~known], at[~known]
            # Of equal keys the first counts: written backwards, its claim is the last one.
            table.numbers[at[::-1]] = new[::-1]
            first = table.numbers[at] == new
            table.numbers[at[first]] = steps[new[first]] + 1
            pending = new[~first]
        return found

    def _make_room(self, more: int) -> None:
        if not self._table.has_room(more):
            self.purge(more)
