"""Keeps the orders of users as long as a window of effect may reach back to them.

Comes in: orders and refunds, in the order of their topic. Goes out: how many orders of a user lie within a
window and what is left of their value. `windows` asks.

An order is one thing however often it is said: a message that comes again changes nothing, a second message of
an order corrects it, and what was given back is taken off it. All orders within the time are kept, for changes
come by another topic, and a purchase may be read before the change that it followed. A refund of an order that
is not known waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

BOUGHT = np.dtype(
    [
        ("order", "<u8"),  # hash of its id, or of its message's where it has none; 0 for neither
        ("message", "<u8"),  # of the last message about it
        ("at_ms", "<i8"),
        ("value", "<f8"),
        ("refunded", "<f8"),
        ("flags", "u1"),
    ]
)
"""An order in a row."""
USED, PLACED, ALL_BACK = 1, 2, 4
MOST = 100
"""Orders of a user that are kept, the newest: of whoever buys more in a window, some are not seen."""
WHOLE = 1.0 - 1e-9
"""Of an order's value: parts that were refunded come to the whole but for rounding."""


class Purchase(NamedTuple):
    """What a message says of an order.

    Attributes:
        order: hash of its id; 0 for none.
        message: hash of the message's id; 0 for none.
        whole: of a refund: it takes back all there is; of an order: its value is not said.
        given_back: whether it is a refund or a cancellation.
    """

    user: str
    order: int
    message: int
    at_ms: int
    value: float
    whole: bool
    given_back: bool


class Read(NamedTuple):
    """What messages say, and up to when all purchases are known by them; 0 for not at all."""

    purchases: Sequence[Purchase]
    until_ms: int


@dataclass(slots=True)
class Bought:
    """An order; fields as in `BOUGHT`."""

    order: int
    message: int
    at_ms: int
    value: float = 0.0
    refunded: float = 0.0
    flags: int = USED

    @property
    def left(self) -> float | None:
        """Value that nothing has taken back; None if the order does not count."""
        if not self.flags & PLACED or self.flags & ALL_BACK:
            return None
        if 0.0 < self.refunded >= WHOLE * self.value:
            return None
        return self.value - self.refunded


class Purchases:
    """Orders by place of the user.

    Args:
        keep_ms: how long they are kept, by the newest time that was said.
    """

    def __init__(self, keep_ms: int) -> None:
        self._keep_ms = keep_ms
        self._of: dict[int, list[Bought]] = {}

    @property
    def slots(self) -> npt.NDArray[np.int64]:
        """Of whom there are orders."""
        return np.fromiter(self._of, np.int64, len(self._of))

    def take(self, slot: int, said: Purchase) -> None:
        """An order was placed, or said again; or it, or a part of it, goes back."""
        if said.given_back:
            self._give_back(slot, said)
            return
        one = self._find(slot, said.order or said.message, said.at_ms)
        known = bool(one.flags & PLACED)
        if known and said.message and said.message == one.message:
            return
        one.value = one.value if known and said.whole else said.value
        # Of a refund that came first it is not known when its order was placed.
        one.at_ms = min(one.at_ms, said.at_ms) if known else said.at_ms
        one.message = said.message
        one.flags |= PLACED

    def _give_back(self, slot: int, said: Purchase) -> None:
        """One without an id takes from the user's newest order."""
        one = self._find(slot, said.order, said.at_ms) if said.order else self._newest(slot)
        if one is None or (said.message and said.message == one.message):
            return
        one.message = said.message
        if said.whole:
            one.flags |= ALL_BACK
        else:
            one.refunded += said.value

    def within(self, slot: int, begin_ms: int, end_ms: int) -> tuple[int, float]:
        """How many orders lie in a window, and what is left of their value."""
        left = [
            value
            for one in self._of.get(slot, ())
            if begin_ms <= one.at_ms < end_ms and (value := one.left) is not None
        ]
        return len(left), sum(left)

    def forget(self, slot: int) -> None:
        """Forget everything of a user."""
        self._of.pop(slot, None)

    # -- rows --------------------------------------------------------------------------------

    def pack(self, slot: int, now_ms: int) -> Sequence[Bought]:
        """Orders of a user that are still to be kept."""
        kept = [one for one in self._of.get(slot, ()) if one.at_ms >= now_ms - self._keep_ms]
        kept = sorted(kept, key=lambda one: one.at_ms)[-MOST:]
        if kept:
            self._of[slot] = kept
        else:
            self._of.pop(slot, None)
        return kept

    def load(self, slot: int, rows: npt.NDArray[Any]) -> None:
        """Take in orders of a row; those without an order are its blanks."""
        found = [Bought(*row) for row in rows.tolist() if row[-1]]
        if found:
            self._of[slot] = found

    # -- steps -------------------------------------------------------------------------------

    def _find(self, slot: int, order: int, at_ms: int) -> Bought:
        orders = self._of.setdefault(slot, [])
        for one in orders:
            if order and one.order == order:
                return one
        # Whatever has no id at all is an order of its own.
        orders.append(Bought(order, 0, at_ms))
        return orders[-1]

    def _newest(self, slot: int) -> Bought | None:
        left = [one for one in self._of.get(slot, ()) if one.left is not None]
        return max(left, key=lambda one: one.at_ms, default=None)
