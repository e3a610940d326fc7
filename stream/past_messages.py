"""What a partition remembers of past messages, and learned from them, as the store keeps it.

Comes in: message ids, orders and words as stored, by place. Goes out: lanes of the worker's `Memory`, what reviews
have taught, and what a commit remembers and forgets. `memory` looks messages up, `reviews` judges texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from stream.limits import PLACES, TOPICS
from stream.memory import Memory
from stream.orders import PACKED
from stream.reviews.wording import Wording
from stream.store.state import MemoryChanges, Position

LOADED_AT_ONCE = 5_000
"""As many as a page of a scan has."""


class PastMessages:
    """Of one partition.

    Attributes:
        lanes: of the partition, by topic.
        wordings: what rated texts have taught, by topic.
    """

    def __init__(self, memory: Memory, number: int, position: Position) -> None:
        self._memory = memory
        self.lanes = memory.open(number, position.clocks, position.ids, position.orders)
        self.wordings = [Wording(told) for told in position.words or [[]] * TOPICS]
        self._loaded: dict[tuple[int, int, bool], int] = {}

    def load_ids(self, stored: Iterable[tuple[int, bytes]]) -> None:
        """Take in the message ids that the store has remembered; see `Store.load_ids`."""
        for place, keys in stored:
            topic, step = self._step_of(place, orders=False)
            if step is not None:
                found = np.frombuffer(keys[: len(keys) // 8 * 8], np.uint64)
                self._loaded[topic, step, False] = len(found)
                self._memory.ids.load(self.lanes[topic], step, found)

    def load_some_orders(self, stored: Iterator[tuple[int, bytes, bytes]]) -> bool:
        """Take in a portion of the orders that the store has; False if there was nothing left.

        A store may give one twice.
        """
        portion: dict[tuple[int, bytes], bytes] = {}
        for place, key, packed in islice(stored, LOADED_AT_ONCE):
            portion[place, key] = packed
        by_place: dict[int, list[tuple[bytes, bytes]]] = {}
        for (place, key), packed in portion.items():
            by_place.setdefault(place, []).append((key, packed))
        for place, orders in by_place.items():
            topic, step = self._step_of(place, orders=True)
            if step is None:
                continue
            keys = np.frombuffer(b"".join(key for key, _ in orders), np.uint64)
            rows = np.frombuffer(b"".join(packed for _, packed in orders), PACKED)
            new = self._memory.orders.load(self.lanes[topic], step, keys, rows)
            known = self._loaded.get((topic, step, True), 0)
            self._loaded[topic, step, True] = known + new
        return bool(portion)

    def load_words(self, stored: Iterable[tuple[int, bytes, bytes]]) -> None:
        """Take in what the store has of words that were learned; see `Store.load_words`."""
        for topic, key, packed in stored:
            self.wordings[topic].load(key, packed)

    def _step_of(self, place: int, *, orders: bool) -> tuple[int, int | None]:
        """Topic and step of a place in the store; no step if what is there is forgotten."""
        topic, here = divmod(place, PLACES)
        lane = self.lanes[topic]
        counts = (lane.orders if orders else lane.ids).stored
        return topic, next((step for step in counts if step % PLACES == here), None)

    def missing(self) -> str:
        """What the store had to have and did not give, in words; empty if nothing is missing."""
        for topic, lane in enumerate(self.lanes):
            for orders, steps, what in (
                (False, lane.ids, "message ids"),
                (True, lane.orders, "orders"),
            ):
                found = sum(self._loaded.get((topic, step, orders), 0) for step in steps.stored)
                stored = sum(steps.stored.values())
                if found != stored:
                    return f"{found} of {stored} remembered {what}"
            wording = self.wordings[topic]
            if wording.missing:
                found = wording.stored - wording.missing
                return f"{found} of {wording.stored} words that reviews have taught"
        return ""

    def release(self) -> None:
        """Forget what is remembered for this partition; it is not to be used any more."""
        self._memory.close(self.lanes)

    @property
    def counts(self) -> tuple[int, int]:
        """How many message ids and orders are remembered."""
        return (
            sum(lane.ids.total for lane in self.lanes),
            sum(lane.orders.total for lane in self.lanes),
        )

    @property
    def told_of_words(self) -> list[list[float]]:
        """What a position keeps of what was learned; nothing in a shop without rated texts."""
        told = [wording.told for wording in self.wordings]
        return told if any(told) else []

    def changes(self) -> MemoryChanges:
        """What is remembered since the last commit, and what is forgotten."""
        ids: dict[int, bytes] = {}
        orders: dict[int, tuple[bytes, bytes]] = {}
        no_ids: list[int] = []
        no_orders: list[int] = []
        for topic, lane in enumerate(self.lanes):
            base = topic * PLACES
            no_ids += [base + place for place in lane.ids.vanished()]
            no_orders += [base + place for place in lane.orders.vanished()]
            for step, keys in lane.fresh_by_step():
                ids[base + step % PLACES] = keys
            for step, found, packed in self._memory.orders.packed(lane):
                orders[base + step % PLACES] = found.tobytes(), packed.tobytes()
        words = {
            topic: changed
            for topic, wording in enumerate(self.wordings)
            if (changed := wording.changes()) is not None
        }
        return MemoryChanges(no_ids, ids, no_orders, orders, words)

    def keep(self) -> None:
        """A commit with the changes was applied."""
        for lane in self.lanes:
            lane.keep()
        for wording in self.wordings:
            wording.keep()
