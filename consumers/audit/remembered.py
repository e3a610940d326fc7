"""Holds what the store remembers of messages and orders to the log: nothing may count twice.

Comes in: snapshots, and the log as the oracle has folded it. Goes out: what differs, in the check that is
given.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from consumers.audit.log import FoldedLog
from consumers.audit.report import Check
from consumers.audit.sample import Sample
from consumers.audit.snapshot import Snapshot
from stream.events import code_of_currency
from stream.hashing import user_hashes
from stream.limits import PLACES
from stream.orders import ALL_BACK, KNOWN, NAMED, PACKED, PLACED, PRICED, owners_of
from stream.remembered import MESSAGE, keys_of, salt_of

_REFUNDED = ("refunded", "refunded_quantity", "rate", "refunded_own", "currency")
"""Of an order, what refunds have taken of it, and in which currency."""


class RememberedCheck:
    """Whether what is remembered of messages and orders is what the log says.

    Args:
        check: what is found goes in here.
        inputs: names of the input topics.
        key: the namespace's secret, see `hashing`.
    """

    def __init__(
        self, check: Check, inputs: tuple[str, ...], key: bytes, log: FoldedLog, sample: Sample
    ) -> None:
        self._check = check
        self._inputs = inputs
        self._key = key
        self._log = log
        self._sample = sample

    def compare(self, partition: int, snapshot: Snapshot) -> None:
        """Hold what is remembered for a partition to the log."""
        check, oracle, position = self._check, self._log.oracles[partition], snapshot.position
        after = snapshot.after
        still = (position.offsets, position.ids, position.orders) == (
            after.offsets,
            after.ids,
            after.orders,
        )
        if not still or snapshot.by_wall:
            check.unjudged += 1
            return
        names = list(oracle.users)
        hashes = user_hashes([name.encode() for name in names], self._key).tolist()
        users = dict(zip(names, hashes, strict=True))
        for index, topic in enumerate(self._inputs):
            check.counted += 1
            stored = {
                key
                for place, keys in snapshot.ids.items()
                if place // PLACES == index
                for key in np.frombuffer(keys, np.uint64).tolist()
            }
            told = sum(count for _, count in (position.ids or [[], []])[index])
            if len(stored) != told:
                check.accuse(
                    f"partition {partition} has {len(stored)} message ids of {topic} in the store, "
                    f"its position says {told}"
                )
            remembered = [one for ids in oracle.topics[index].ids.values() for one in ids]
            true = self._keys(partition, index, users, remembered)
            if not (stored == true if self._sample.whole else stored >= true):
                check.accuse(
                    f"partition {partition} remembers other messages of {topic} than it should: "
                    f"{len(true - stored)} are missing, {len(stored - true)} are too many"
                )
            self._check_orders(partition, index, snapshot, users)

    def _keys(
        self, partition: int, topic: int, users: dict[str, int], ids: list[tuple[str, int]]
    ) -> set[int]:
        """Keys of message ids, as a store keeps them."""
        hashes = np.array([users[user] for user, _ in ids], np.uint64)
        salts = np.full(len(ids), salt_of(partition, topic), np.uint64)
        texts = np.array([message for _, message in ids], np.uint64)
        return set(keys_of(hashes, salts, texts, MESSAGE).tolist())

    def _check_orders(
        self, partition: int, topic: int, snapshot: Snapshot, users: dict[str, int]
    ) -> None:
        """Whether the orders of a topic are remembered as the log says."""
        check, told = self._check, (snapshot.position.orders or [[], []])[topic]
        steps = {step % PLACES for step, _ in told}
        kept = [
            packed
            for (place, _), packed in snapshot.orders.items()
            if place // PLACES == topic and place % PLACES in steps
        ]
        check.counted += 1
        if len(kept) != sum(count for _, count in told):
            check.accuse(
                f"partition {partition} has {len(kept)} orders of {self._inputs[topic]} in the store, "
                f"its position says {sum(count for _, count in told)}"
            )
        rows = np.frombuffer(b"".join(kept), PACKED)
        names = ("user", "flags", "time_ms", "value", "quantity", *_REFUNDED)
        stored = Counter(zip(*(rows[name].round(6).tolist() for name in names), strict=True))
        true: Counter[tuple[Any, ...]] = Counter()
        found = self._log.oracles[partition].orders_remembered(topic)
        hashes = np.array([users[user] for user, _ in found], np.uint64)
        owners = owners_of(hashes, np.full(len(found), salt_of(partition, topic), np.uint64))
        for owner, (_, order) in zip(owners.tolist(), found, strict=True):
            amounts = order.amounts
            flags = KNOWN * (amounts is not None) | PLACED * order.placed
            flags |= ALL_BACK * order.all_back | NAMED * order.has_name
            flags |= PRICED * any(one.unit is not None for one in order.said)
            at = (0, 0.0, 0.0) if amounts is None else amounts[:3]
            back = (
                sum(value for value, _, own in order.refunds if not own),
                sum(pieces for _, pieces, _ in order.refunds),
                order.rate,
                sum(value for value, _, own in order.refunds if own),
                code_of_currency(order.money[0]),
            )
            numbers = [round(float(one), 6) for one in (*at[1:], *back)]
            true[owner, flags, at[0], *numbers] += 1
        wrong = (true - stored) if not self._sample.whole else (true - stored) + (stored - true)
        if wrong:
            check.accuse(
                f"partition {partition} remembers orders of {self._inputs[topic]} otherwise than the"
                f" log says: {wrong.total()} of {true.total()}"
            )
