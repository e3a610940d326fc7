"""Keeps the orders of users as long as a window of effect may reach back to them.

Comes in: orders and refunds as columns, in the order of their topic. Goes out: how many orders of a user lie
within a window and what is left of their value. `windows` asks.

An order is one thing however often it is said: a message that comes again changes nothing, a second message of
an order corrects it, and what was given back is taken off it. All orders within the time are kept, for changes
come by another topic, and a purchase may be read before the change that it followed. A refund of an order that
is not known waits for it.

The orders of a user are a chain, as their pairs are (`state`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stream.campaigns.state import NONE, Batch, Columns, of_chains, one_a_user
from stream.events import Bools, Codes, Floats, Hashes, Ints

BOUGHT = np.dtype(
    [
        ("order", "<u8"),  # hash of its id, or of its message's where it has none; 0 for neither
        ("message", "<u8"),  # of the last message about it
        ("at_ms", "<i8"),
        ("value", "<f8"),
        ("refunded", "<f8"),
        ("rate", "<f8"),
        ("refunded_own", "<f8"),
        ("currency", "<u4"),
        ("flags", "u1"),
    ]
)
"""An order in a row; `rate`, `refunded_own` and `currency` as in `stream.orders.PACKED`."""
USED, PLACED, ALL_BACK, PRICED = 1, 2, 4, 8
MOST = 100
"""Orders of a user that are kept, the newest: of whoever buys more in a window, some are not seen."""
WHOLE = 1.0 - 1e-9
"""Of an order's value: parts that were refunded come to the whole but for rounding."""


@dataclass(frozen=True)
class PurchaseColumns(Batch):
    """What messages say of orders, a column a field; those of a user stand in their order.

    Attributes:
        order: hash of its id; 0 for none.
        message: hash of the message's id; 0 for none.
        whole: of a refund: it takes back all there is; of an order: its value is not said.
        given_back: whether it is a refund or a cancellation.
        rate, currency: as in `EventColumns`.
    """

    order: Hashes
    message: Hashes
    at_ms: Ints
    value: Floats
    whole: Bools
    given_back: Bools
    rate: Floats
    currency: Codes


class Read(NamedTuple):
    """What messages say, whose purchases they are, and up to when all are known by them; 0 for not at all."""

    users: Sequence[str]
    purchases: PurchaseColumns
    until_ms: int


class Packed(NamedTuple):
    """Orders for rows: of which row each is, which one there, and the orders."""

    row: Ints
    nth: Ints
    orders: npt.NDArray[Any]


class Purchases(Columns):
    """Orders; columns as in `BOUGHT`, and the chains of users.

    Args:
        keep_ms: how long they are kept, by the newest time that was said.
    """

    order: Hashes
    message: Hashes
    at_ms: Ints
    value: Floats
    refunded: Floats
    rate: Floats
    refunded_own: Floats
    currency: Codes
    flags: npt.NDArray[np.uint8]
    next: npt.NDArray[np.int32]

    def __init__(self, keep_ms: int) -> None:
        assert BOUGHT.fields is not None
        super().__init__(
            {name: (kind[0], 0, 0) for name, kind in BOUGHT.fields.items()}
            | {"next": (np.int32, NONE, 0)}
        )
        self._keep_ms = keep_ms
        self._first: npt.NDArray[np.int32] = np.empty(0, np.int32)
        self._free: Ints = np.empty(0, np.int64)

    def take(self, slots: Ints, said: PurchaseColumns) -> None:
        """Orders were placed, or said again; or they, or parts of them, go back."""
        self._reach(slots)
        for turn in one_a_user(slots):
            self._take(slots[turn], said.where(turn))

    def within(self, slots: Ints, begin_ms: Ints, end_ms: Ints) -> tuple[Ints, Floats]:
        """How many orders lie in the window of each user, and what is left of their value."""
        places, owner = self._of(slots)
        at_ms, left = self.at_ms[places], self._left(places)
        there = (begin_ms[owner] <= at_ms) & (at_ms < end_ms[owner]) & ~np.isnan(left)
        owner, left = owner[there], left[there]
        orders: Ints = np.bincount(owner, minlength=len(slots)).astype(np.int64)
        values: Floats = np.bincount(owner, left, minlength=len(slots)).astype(np.float64)
        return orders, values

    def forget(self, slots: Ints) -> None:
        """Forget everything of users."""
        places, _ = self._of(slots)
        self._first[slots] = NONE
        self._give_up(places)

    # -- rows --------------------------------------------------------------------------------

    def pack(self, slots: Ints, now_ms: int) -> Packed:
        """Orders of distinct users that are still to be kept; the others are forgotten."""
        places, owner = self._of(slots)
        last = np.searchsorted(owner, owner, side="right")
        kept = self.at_ms[places] >= now_ms - self._keep_ms
        kept &= last - np.arange(len(owner)) <= MOST
        self._first[slots] = NONE
        self._give_up(places[~kept])
        places, owner = places[kept], owner[kept]
        self._link(slots[owner], places)
        orders = np.zeros(len(places), BOUGHT)
        for name in BOUGHT.names or ():
            orders[name] = getattr(self, name)[places]
        return Packed(owner, np.arange(len(owner)) - np.searchsorted(owner, owner), orders)

    def load(self, slots: Ints, rows: npt.NDArray[Any]) -> None:
        """Take in orders of rows, ``(users, orders)``; those without flags are blanks.

        Nothing may be known of these users.
        """
        self._reach(slots)
        row, nth = np.nonzero(rows["flags"])
        places = self._places(len(row))
        for name in BOUGHT.names or ():
            getattr(self, name)[places] = rows[name][row, nth]
        self._link(slots[row], places)

    # -- steps -------------------------------------------------------------------------------

    def _take(self, slots: Ints, said: PurchaseColumns) -> None:
        """Purchases of distinct users."""
        by_message = (said.order == 0) & ~said.given_back
        key = np.where(by_message, said.message, said.order)
        place = self._find(slots, key)
        unnamed = said.given_back & (key == 0)
        place[unnamed] = self._newest(slots[unnamed])
        fresh = (place == NONE) & ~unnamed
        place[fresh] = self._add(slots[fresh], key[fresh], said.at_ms[fresh])
        known = place != NONE
        placed, back = known & ~said.given_back, known & said.given_back
        self._place(place[placed], said.where(placed))
        self._give_back(place[back], said.where(back))

    def _place(self, place: Ints, said: PurchaseColumns) -> None:
        known = (self.flags[place] & PLACED) > 0
        fresh = ~(known & self._is_repeat(place, said))
        place, said, known = place[fresh], said.where(fresh), known[fresh]
        flags, names = self.flags[place], said.rate > 0.0
        anew = ~self._is_its_own(place, said) & (names | (~known & ((flags & PRICED) == 0)))
        self.rate[place[anew]] = np.abs(said.rate[anew])
        self.currency[place[anew]] = said.currency[anew]
        self.flags[place[names]] |= PRICED
        value = self._worth(place, said, said.value)
        self.value[place] = np.where(known & said.whole, self.value[place], value)
        # Of a refund that came first it is not known when its order was placed.
        earliest = np.minimum(self.at_ms[place], said.at_ms)
        self.at_ms[place] = np.where(known, earliest, said.at_ms)
        self.message[place] = said.message
        self.flags[place] |= PLACED

    def _give_back(self, place: Ints, said: PurchaseColumns) -> None:
        fresh = ~self._is_repeat(place, said)
        place, said = place[fresh], said.where(fresh)
        self.message[place] = said.message
        self.flags[place[said.whole]] |= ALL_BACK
        value, names = np.where(said.whole, 0.0, said.value), said.rate > 0.0
        first = names & (self.currency[place] == 0) & ((self.flags[place] & PLACED) == 0)
        first &= said.currency > 0
        self.rate[place[first]] = said.rate[first]
        self.currency[place[first]] = said.currency[first]
        self.refunded[place] += np.where(names, self._worth(place, said, value), 0.0)
        self.refunded_own[place] += np.where(names, 0.0, value / np.abs(said.rate))

    def _is_its_own(self, place: Ints, said: PurchaseColumns) -> Bools:
        """Whether what is said is in the currency that the order is in, as far as is known."""
        own: Bools = (said.currency > 0) & (said.currency == self.currency[place])
        return own

    def _worth(self, place: Ints, said: PurchaseColumns, value: Floats) -> Floats:
        """Amounts in the reporting currency; what is in that of its order is worth what the order is."""
        own = (said.rate < 0.0) | self._is_its_own(place, said)
        worth: Floats = np.where(own, value * (self.rate[place] / np.abs(said.rate)), value)
        return worth

    def _is_repeat(self, place: Ints, said: PurchaseColumns) -> Bools:
        repeat: Bools = (said.message != 0) & (said.message == self.message[place])
        return repeat

    def _left(self, places: Ints) -> Floats:
        """Value that nothing has taken back; NaN of orders that do not count."""
        flags, value = self.flags[places], self.value[places]
        refunded = self.refunded[places] + self.refunded_own[places] * self.rate[places]
        gone = ((flags & PLACED) == 0) | ((flags & ALL_BACK) > 0)
        gone |= (refunded > 0) & (refunded >= WHOLE * value)
        left: Floats = np.where(gone, np.nan, value - refunded)
        return left

    def _find(self, slots: Ints, keys: Hashes) -> Ints:
        """The order of each user with a key; NONE if there is none. Whatever has no key is new."""
        found = np.where(keys == 0, NONE, self._first[slots]).astype(np.int64)
        walking = np.flatnonzero(found != NONE)
        while len(walking):
            walking = walking[self.order[found[walking]] != keys[walking]]
            found[walking] = self.next[found[walking]]
            walking = walking[found[walking] != NONE]
        return found

    def _newest(self, slots: Ints) -> Ints:
        """The newest order of each user of which anything is left; NONE if there is none."""
        places, owner = self._of(slots)
        there = ~np.isnan(self._left(places))
        newest = np.full(len(slots), NONE, np.int64)
        # They stand by their time, so the last one stays.
        newest[owner[there]] = places[there]
        return newest

    def _of(self, slots: Ints) -> tuple[Ints, Ints]:
        """Places of the orders of users, by user and time, and for each which of the users it is of."""
        self._reach(slots)
        places, owner = of_chains(self._first[slots], self.next)
        # By value, too: whichever way the chains were made, sums come out the same to the bit.
        by = np.lexsort((self.value[places], self.order[places], self.at_ms[places], owner))
        return places[by], owner[by]

    # -- places ------------------------------------------------------------------------------

    def _reach(self, slots: Ints) -> None:
        more = int(slots.max(initial=-1)) + 1 - len(self._first)
        if more > 0:
            # Half as many again, for users come one by one.
            more = max(more, len(self._first) // 2)
            self._first = np.append(self._first, np.full(more, NONE, np.int32))

    def _places(self, count: int) -> Ints:
        """Places that nothing is at, the given up ones first."""
        again, self._free = self._free[:count], self._free[count:]
        more = count - len(again)
        self.make_room(more)
        places = np.append(again, np.arange(self.size, self.size + more))
        self.size += more
        return places

    def _add(self, slots: Ints, keys: Hashes, at_ms: Ints) -> Ints:
        """Take in an order of each of distinct users; returns their places."""
        places = self._places(len(slots))
        self.order[places], self.at_ms[places] = keys, at_ms
        self.message[places], self.flags[places] = 0, USED
        self.value[places], self.refunded[places] = 0.0, 0.0
        self.rate[places], self.refunded_own[places], self.currency[places] = 1.0, 0.0, 0
        self.next[places] = self._first[slots]
        self._first[slots] = places
        return places

    def _link(self, slots: Ints, places: Ints) -> None:
        """Make the chains of users, whose orders stand together."""
        last = np.append(slots[1:] != slots[:-1], True)[: len(slots)]
        after = np.append(places[1:], NONE)[: len(slots)]
        self.next[places] = np.where(last, NONE, after)
        first = np.append(True, last)[: len(slots)]
        self._first[slots[first]] = places[first]

    def _give_up(self, places: Ints) -> None:
        self._free = np.append(self._free, places)
