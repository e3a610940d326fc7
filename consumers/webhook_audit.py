"""Proves or refutes that no delivery is lost: of each endpoint, taken = delivered + parked + dropped + waiting.

Comes in: what the role of webhooks keeps of each partition. Goes out: a `Check` for the audit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from consumers.audit.report import Check
from stream.roles.state import RolePosition
from stream.webhooks.queue import tallies

LOOKS = 20
"""At a partition at work, until nothing is committed between the first look and the last."""


class RowStore(Protocol):
    """What is asked of the role's store."""

    def position(self, partition: int) -> RolePosition | None: ...
    def own(self, partition: int) -> bytes: ...
    def load(self, partition: int) -> Iterator[tuple[bytes, bytes]]: ...


def audit_webhooks(store: RowStore, partitions: int) -> Check:
    """Hold what was counted of deliveries to what is kept of them.

    Raises:
        StoreUnavailableError: the store does not answer.
    """
    check = Check("webhooks: every delivery has arrived, was given up, or waits")
    for number in range(partitions):
        kept = _of_one_moment(store, number)
        if kept is None:
            check.unjudged += 1
            continue
        for one in tallies(*kept):
            check.counted += one.taken
            if one.taken != one.ended + one.waiting:
                check.accuse(
                    f"{one.endpoint} in partition {number}: {one.taken:,} taken, {one.ended:,} came to an end, "
                    f"{one.waiting:,} wait"
                )
    return check


def _of_one_moment(store: RowStore, number: int) -> tuple[bytes, list[tuple[bytes, bytes]]] | None:
    """What is kept of a partition; None if the role commits all the while."""
    for _ in range(LOOKS):
        before = store.position(number)
        kept = store.own(number), list(store.load(number))
        if store.position(number) == before:
            return kept
    return None
