"""Remembers orders, so that a refund takes back what is left of its order, at the order's time.

Comes in: order and refund messages of a partition's topics, in offset order. Goes out: what each of
them changes in sums and counts; `features` folds it. An order is a *state*, and what counts is a
function of it:

- its time is the earliest that was said, its value and quantity are the last that were said: a second
  message of the same order corrects it, and one that says nothing new is a repeat. The order itself, come
  after an update that happened later, corrects nothing;
- what names no currency is in that of its order, whichever message names it;
- an order's money is worth what it was when its currency was first said: rates that change later change
  neither the order nor what its refunds take back;
- refunds and cancellations add up. What is left of the order counts at the order's own time, in
  every decayed sum and window: nothing, once they come to its value, or one takes back all;
- a refund of an order that is not known (yet) is held, and takes effect when its order comes;
- a refund that names no order takes from the user's newest orders what they have left, until its
  amount is used up; one that names no amount either takes back the newest. A refund of an order that
  is not known takes from orders without an id in the same way, and only the rest of it is held.

An order is remembered for a declared time by the clock of its topic, from its first message on, in
steps as `remembered` has them. Fresh orders of users without refunds, repeats and corrections in the
same batch, nearly all, are taken in by vector operations; the others one message after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import product
from math import isclose
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stream.events import Bools, EventColumns, Hashes, Ints
from stream.features import OrderKinds, Shares
from stream.hashing import MULTIPLIERS, mix
from stream.keytable import KeyTable
from stream.limits import STEPS
from stream.remembered import NOBODY, ORDER, Lane, keys_of

WHOLE = 1.0 - 1e-9
"""Of an order's value: parts that were refunded come to the whole but for rounding."""
ROUNDED = 1e-12
"""Of a value: with less of a difference it is the same, said in another currency."""
DEAD = 0.25
"""Of the columns when they are full: with fewer forgotten orders than that, they are made larger."""
READ_FIRST = 16
"""Of a user's orders, the newest so many are looked at first; then twice as many, and so on."""
TAIL = 16_384
"""Orders that are looked through for those of a user; those before them are sorted by user."""

KNOWN, PLACED, ALL_BACK, NAMED, PRICED = 1, 2, 4, 8, 16
"""Flags of an order: its value is known, its customer has placed it, all of it goes back, it has an
id that a refund may name, a message has named its currency."""

PACKED = np.dtype(
    [
        ("user", "<u8"),
        ("serial", "<u4"),
        ("flags", "u1"),
        ("time_ms", "<i8"),
        ("value", "<f8"),
        ("quantity", "<f8"),
        ("refunded", "<f8"),
        ("refunded_quantity", "<f8"),
        ("rate", "<f8"),
        ("refunded_own", "<f8"),
        ("currency", "<u4"),
    ]
)
"""An order as a store keeps it.

`rate` is what a unit of its money is worth, 1 as long as that is not known, and `currency` which that is,
as in `EventColumns`; of an order of which only refunds are known, of the first that named one. `value` and `refunded` are in the
reporting currency. `refunded_own` was given back by refunds that name no currency, in that of the order.

`user` is a hash of user and topic, `serial` tells which of a user's orders came first.
"""
_COLUMN = np.dtype([("key", "<u8"), *PACKED.descr, ("lane", "<u4"), ("step", "<u4")])


class Effect(NamedTuple):
    """What an order counts at its time: as it was placed, and what is left of it."""

    time_ms: int
    orders: float
    value: float
    quantity: float
    left: float
    left_value: float
    left_quantity: float


@dataclass(slots=True)
class _Order:
    """One order, on its way through a batch; fields as in `PACKED`."""

    place: int
    key: int
    user: int
    serial: int
    flags: int
    time_ms: int
    value: float
    quantity: float
    refunded: float
    refunded_quantity: float
    rate: float
    refunded_own: float
    currency: int
    lane: int
    step: int

    @property
    def all_back(self) -> bool:
        reached = 0.0 < self.given_back >= WHOLE * self.value
        return bool(self.flags & ALL_BACK) or reached

    @property
    def given_back(self) -> float:
        """What refunds come to, in the reporting currency."""
        return self.refunded + self.refunded_own * self.rate

    def worth_of(self, value: float, said: _Said) -> float:
        """An amount that a message says of this order, in the reporting currency."""
        if said.rate < 0.0 or said.currency == self.currency > 0:
            return value * (self.rate / abs(said.rate))
        return value

    def left(self) -> tuple[float, float]:
        """Value and quantity that nothing has taken back yet."""
        if self.all_back:
            return 0.0, 0.0
        return self.value - self.given_back, self.quantity - min(
            self.refunded_quantity, self.quantity
        )

    def effect(self) -> Effect | None:
        """None as long as only refunds of it are known."""
        if not self.flags & KNOWN:
            return None
        value, quantity = self.left()
        count = 0.0 if self.all_back else 1.0
        return Effect(self.time_ms, 1.0, self.value, self.quantity, count, value, quantity)


class _Said(NamedTuple):
    """What a message says of an order; fields as in `EventColumns`, `message` is its place there."""

    message: int
    time_ms: int
    value: float
    quantity: float
    whole: bool
    rate: float
    currency: int


class Correction(NamedTuple):
    """What one message changes at another time than its own.

    Attributes:
        message: place of the message in the batch.
        tells: whether this is when an order happened that was not known before.
    """

    message: int
    effect: Effect
    tells: bool


class Orders:
    """The orders that a worker remembers, of all its lanes.

    Takes 89 bytes an order in the columns, of which up to a third are free, and 16 a place of the table:
    130 to 195 bytes an order.
    """

    def __init__(self) -> None:
        self._table = KeyTable()
        self._columns = np.zeros(1_024, _COLUMN)
        self._size = 0
        self._floors = np.zeros(64, np.int64)
        self._lanes: dict[int, Lane] = {}
        self._sorted: Ints = np.empty(0, np.int64)
        self._sorted_users: Hashes = np.empty(0, np.uint64)

    # -- lanes --------------------------------------------------------------------------------

    def open(self, lane: Lane) -> None:
        """Remember for a lane, from now on."""
        if lane.number >= len(self._floors):
            more = np.zeros(len(self._floors) + lane.number, np.int64)
            self._floors = np.concatenate([self._floors, more])
        self._floors[lane.number] = 0
        self._lanes[lane.number] = lane

    def close(self, number: int) -> None:
        """Forget a lane; its number may be used again after `purge`."""
        del self._lanes[number]

    def purge(self, least: float = 0.0) -> None:
        """Leave out what is forgotten, if it is more than this share; places change."""
        columns = self._columns[: self._size]
        open_ = np.zeros(len(self._floors), np.bool_)
        open_[list(self._lanes)] = True
        alive = open_[columns["lane"]] & (columns["step"] >= self._floors[columns["lane"]])
        if np.count_nonzero(alive) >= (1.0 - least) * len(columns):
            return
        moved = np.where(alive, np.cumsum(alive) - 1, -1)
        for lane in self._lanes.values():
            lane.changed = [moved[places][moved[places] >= 0] for places in lane.changed]
        kept = columns[alive]
        self._columns = np.zeros(max(1_024, len(kept) + len(kept) // 2), _COLUMN)
        self._columns[: len(kept)] = kept
        self._size = len(kept)
        self._sorted, self._sorted_users = np.empty(0, np.int64), np.empty(0, np.uint64)
        self._table = KeyTable(len(kept))
        places = self._table.put(kept["key"], kept["lane"])
        # Of one key that was forgotten and came again, the later one counts.
        self._table.numbers[places] = np.arange(1, len(kept) + 1)

    @property
    def room(self) -> int:
        """For how many orders there is memory."""
        return len(self._columns)

    def load(self, lane: Lane, step: int, keys: Hashes, packed: npt.NDArray[np.void]) -> int:
        """Take in orders that a store has kept; returns how many were not there yet."""
        found = self._find(keys, np.full(len(keys), step))
        new = np.flatnonzero(found < 0)
        rows = np.zeros(len(new), _COLUMN)
        rows["key"], rows["lane"], rows["step"] = keys[new], lane.number, step
        for name in PACKED.names or ():
            rows[name] = packed[name][new]
        if len(rows):
            self._append(rows)
            lane.serial = max(lane.serial, int(rows["serial"].max()) + 1)
        return len(rows)

    def packed(self, lane: Lane) -> Iterator[tuple[int, Hashes, npt.NDArray[np.void]]]:
        """Changed orders of a lane that are still remembered: step, keys and how they are kept."""
        if not lane.changed:
            return
        places = np.unique(np.concatenate(lane.changed))
        rows = self._columns[places]
        rows = rows[rows["step"] >= lane.orders_step - STEPS]
        for step in np.unique(rows["step"]).tolist():
            here = rows[rows["step"] == step]
            kept = np.zeros(len(here), PACKED)
            for name in PACKED.names or ():
                kept[name] = here[name]
            yield step, here["key"], kept

    # -- a batch ------------------------------------------------------------------------------

    def take(
        self,
        lanes: Mapping[int, Lane],
        events: EventColumns,
        kinds: OrderKinds,
        users: Hashes,
        salts: Hashes,
        number: npt.NDArray[np.int64],
        clock_ms: Ints,
        repeated: Bools,
    ) -> tuple[EventColumns, Shares | None]:
        """Take in a batch; `repeated` is set where an order says nothing new.

        Args:
            lanes: that have events here, by number.
            users, salts, number, clock_ms: hash of each event's user, salt and number of its lane,
                and the lane's clock at it.

        Returns:
            The events with their corrections behind them, and what each counts; no shares where
            each event counts as it is.
        """
        makes = (events.kind == kinds.completed) | (events.kind == kinds.updated)
        takes = kinds.takes_back[events.kind]
        which = np.flatnonzero((makes | takes) & ~repeated)
        if len(which) == 0:
            self._forget(lanes)
            return events, None
        if self._size + len(which) > len(self._columns):
            self.purge(DEAD)
            # At once, even if none of them is new: or each batch would look for room again.
            self._reserve(len(which))
        makes, takes = makes[which], takes[which]
        steps = clock_ms[which] // next(iter(lanes.values())).orders.step_ms
        number = number[which].astype(np.int64)
        owners = owners_of(users[which], salts[which])
        named = events.order[which] > 0
        texts = np.where(named, events.order[which], events.id[which])
        keys = keys_of(users[which], salts[which], texts, ORDER)
        nameless = np.flatnonzero(~named)
        if len(nameless):
            keys[nameless] = keys_of(
                users[which][nameless], salts[which][nameless], texts[nameless], NOBODY
            )
            for place in nameless[(texts[nameless] == 0) & makes[nameless]].tolist():
                # Without any id it is told apart by the lane's count of orders.
                keys[place] = self._key_of_nothing(lanes[int(number[place])], users[which[place]])
        found = self._find(keys, steps)

        odd = takes | ((found >= 0) & makes) | (events.kind[which] == kinds.updated)
        order = np.argsort(keys, kind="stable")
        again = np.flatnonzero(keys[order][1:] == keys[order][:-1])
        odd[order[again]] = True
        odd[order[again + 1]] = True
        if odd.any():
            odd = _among(owners, owners[odd])
        fresh = np.flatnonzero(~odd)
        if len(fresh):
            rows = np.zeros(len(fresh), _COLUMN)
            chosen = which[fresh]
            rows["key"], rows["user"], rows["lane"] = keys[fresh], owners[fresh], number[fresh]
            rows["step"], rows["time_ms"] = steps[fresh], events.time_ms[chosen]
            rows["value"], rows["quantity"] = events.value[chosen], events.quantity[chosen]
            rate = events.rate[chosen]
            rows["rate"], rows["currency"] = np.abs(rate), events.currency[chosen]
            rows["flags"] = KNOWN | PLACED | (NAMED * named[fresh]) | (PRICED * (rate > 0.0))
            self._number(rows, lanes)
            self.append_new(rows, lanes)
        shares: Shares | None = None
        if odd.any():
            slow = np.flatnonzero(odd)
            one = _OneByOne(self, lanes, events, kinds, which[slow])
            one.run(keys[slow], owners[slow], number[slow], steps[slow], named[slow], found[slow])
            one.write()
            repeated[one.repeats] = True
            events, shares = one.result()
        self._forget(lanes)
        return events, shares

    def overwrite(
        self, places: Ints, rows: npt.NDArray[np.void], lanes: Mapping[int, Lane]
    ) -> None:
        """Orders that have changed."""
        self._columns[places] = rows
        for number, here in _by_lane(rows):
            lanes[number].changed.append(places[here])

    def append_new(self, rows: npt.NDArray[np.void], lanes: Mapping[int, Lane]) -> None:
        """Orders that were not known before, in the order of arrival."""
        if len(rows) == 0:
            return
        places = self._append(rows)
        for number, here in _by_lane(rows):
            lanes[number].changed.append(places[here])
            lanes[number].orders.add(np.sort(rows["step"][here].astype(np.int64)))

    def _find(self, keys: Hashes, steps: Ints) -> Ints:
        """Place of each order that is remembered at a step; -1 where none is."""
        at = self._table.find(keys)
        places = np.where(at >= 0, self._table.numbers[at].astype(np.int64) - 1, -1)
        there = np.flatnonzero(places >= 0)
        gone = self._columns["step"][places[there]] < steps[there] - STEPS
        places[there[gone]] = -1
        return places

    def _key_of_nothing(self, lane: Lane, user: np.uint64) -> int:
        """A key for an order that nothing names: its user's hash and its place in the log."""
        lane.serial += 1
        one = np.array([user], np.uint64)
        salt = np.array([lane.salt], np.uint64)
        return int(keys_of(one, salt, np.array([lane.serial], np.uint64), NOBODY + 1)[0])

    def _number(self, rows: npt.NDArray[np.void], lanes: Mapping[int, Lane]) -> None:
        """Give new orders their place in the order of arrival, of each lane."""
        for number, here in _by_lane(rows):
            rows["serial"][here] = lanes[number].serial + np.arange(len(here))
            lanes[number].serial += len(here)

    def _append(self, rows: npt.NDArray[np.void]) -> Ints:
        """Put orders behind the others; returns their places."""
        if not self._table.has_room(len(rows)):
            wanted = np.ones(len(self._table.keys), np.bool_)
            self._table.rebuild(wanted, len(rows))
        self._reserve(len(rows))
        size = self._size + len(rows)
        places = np.arange(self._size, size)
        self._columns[self._size : size] = rows
        self._size = size
        at = self._table.put(rows["key"], rows["lane"])
        self._table.numbers[at] = places + 1
        return places

    def _reserve(self, more: int) -> None:
        """Memory for so many more orders."""
        size = self._size + more
        if size > len(self._columns):
            grown = np.zeros(max(size, len(self._columns) * 3 // 2), _COLUMN)
            grown[: self._size] = self._columns[: self._size]
            self._columns = grown

    def _forget(self, lanes: Mapping[int, Lane]) -> None:
        """Forget what is too old by the clocks of lanes."""
        for lane in lanes.values():
            step = lane.clock_ms // lane.orders.step_ms
            if step > lane.orders_step:
                lane.orders_step = step
                lane.orders.forget(step - STEPS)
                self._floors[lane.number] = max(step - STEPS, 0)

    def _of_users(self, owners: Hashes) -> Ints:
        """Places of all orders of some users, in the order of arrival."""
        known = len(self._sorted)
        if self._size - known > max(TAIL, known // 4):
            self._sorted = np.argsort(self._columns["user"][: self._size], kind="stable")
            self._sorted_users = self._columns["user"][self._sorted]
            known = self._size
        low = np.searchsorted(self._sorted_users, owners)
        high = np.searchsorted(self._sorted_users, owners, side="right")
        early = [self._sorted[a:b] for a, b in zip(low.tolist(), high.tolist(), strict=True)]
        tail = known + np.flatnonzero(_among(self._columns["user"][known : self._size], owners))
        places: Ints = np.concatenate([*early, tail])
        return places[np.argsort(self._columns["serial"][places], kind="stable")]


def owners_of(users: Hashes, salts: Hashes) -> Hashes:
    """What stands for the user of an order: of one lane, so that topics do not mix."""
    with np.errstate(over="ignore"):
        return mix((users ^ salts) * MULTIPLIERS[7])


def _among(keys: Hashes, wanted: Hashes) -> Bools:
    """Which keys are wanted ones, of which there are few, and one at least."""
    wanted = np.sort(wanted)
    places = np.searchsorted(wanted, keys)
    places[places == len(wanted)] = 0
    found: Bools = wanted[places] == keys
    return found


def _by_lane(rows: npt.NDArray[np.void]) -> Iterator[tuple[int, Ints]]:
    """Places of the rows of each lane."""
    lanes = rows["lane"]
    for number in np.unique(lanes).tolist():
        yield number, np.flatnonzero(lanes == number)


class _Stack:
    """Orders of one user, the newest on top, without those that a sort of refund takes nothing from.

    What is in the columns is taken out of them as far as it is needed: one user may have very many.

    Args:
        read: takes orders out of the columns.
        stored: their places and serials, the oldest first.
        named: whether orders that have an id are among them.
        whole: whether orders without a value are.
    """

    def __init__(
        self,
        read: Callable[[Ints], list[_Order]],
        stored: tuple[Ints, Ints],
        *,
        named: bool,
        whole: bool,
    ) -> None:
        self._read_out = read
        self._places, self._serials = stored
        self._named, self._whole = named, whole
        self._left = len(self._places)
        self._portion = READ_FIRST
        self._heap: list[int] = []
        self._orders: dict[int, _Order] = {}

    def push(self, order: _Order) -> None:
        """Put an order where its serial says; it may be there already."""
        self._orders[order.serial] = order
        heappush(self._heap, -order.serial)

    def newest(self, step: int) -> _Order | None:
        """The newest order that has something left, as of a step of the clock."""
        while True:
            while self._left and (
                not self._heap or self._heap[0] > -int(self._serials[self._left - 1])
            ):
                begin = max(self._left - self._portion, 0)
                for order in self._read_out(self._places[begin : self._left]):
                    self.push(order)
                self._left, self._portion = begin, self._portion * 2
            if not self._heap:
                return None
            order = self._orders[-self._heap[0]]
            if order.step >= step - STEPS and self._has_left(order):
                return order
            heappop(self._heap)

    def _has_left(self, order: _Order) -> bool:
        if not order.flags & KNOWN or order.all_back or (order.flags & NAMED and not self._named):
            return False
        left, _ = order.left()
        return left > 0.0 or (self._whole and left == 0.0)


class _OneByOne:
    """Takes in the messages of users who have a refund, a repeat or a correction in a batch.

    Attributes:
        repeats: places of orders that say nothing new.
    """

    def __init__(
        self,
        orders: Orders,
        lanes: Mapping[int, Lane],
        events: EventColumns,
        kinds: OrderKinds,
        which: Ints,
    ) -> None:
        self._orders = orders
        self._lanes = lanes
        self._events = events
        self._kinds = kinds
        self._which = which
        self._known: dict[int, _Order] = {}
        self._stacks: dict[tuple[int, bool, bool], _Stack] = {}
        self._said: dict[int, list[_Order]] = {}
        self._places: Ints | None = None
        self._place_owners: Hashes = np.empty(0, np.uint64)
        self._owners: Hashes = np.empty(0, np.uint64)
        self._changed: dict[int, _Order] = {}
        self._corrections: list[Correction] = []
        self._own: dict[int, tuple[Effect | None, bool, bool]] = {}
        self._worth: dict[int, float] = {}
        self.repeats: list[int] = []

    def run(
        self,
        keys: Hashes,
        owners: Hashes,
        number: Ints,
        steps: Ints,
        named: Bools,
        found: Ints,
    ) -> None:
        """Take in messages in offset order; see `Orders.take`."""
        self._owners = np.unique(owners)
        self._read(np.unique(found[found >= 0]))
        events, which = self._events, self._which
        for (
            message,
            kind,
            time_ms,
            value,
            quantity,
            whole,
            rate,
            currency,
            key,
            owner,
            lane,
            step,
            has_name,
        ) in zip(
            which.tolist(),
            events.kind[which].tolist(),
            events.time_ms[which].tolist(),
            events.value[which].tolist(),
            events.quantity[which].tolist(),
            events.whole[which].tolist(),
            events.rate[which].tolist(),
            events.currency[which].tolist(),
            keys.tolist(),
            owners.tolist(),
            number.tolist(),
            steps.tolist(),
            named.tolist(),
            strict=True,
        ):
            said = _Said(message, time_ms, value, quantity, whole, rate, currency)
            order = self._known.get(key)
            if order is not None and order.step < step - STEPS:
                order = None
            if self._kinds.takes_back[kind]:
                if not has_name:
                    self._take_from(said, owner, step, named=True)
                    continue
                if order is None:
                    # What the shop's own orders without an id can give is not held as well.
                    rest = self._take_from(said, owner, step, named=False)
                    only_pieces = said.value <= 0.0 < rest.quantity
                    if rest.value > 0.0 or rest.whole or only_pieces:
                        order = self._begin(key, owner, lane, step, NAMED)
                        self._take_back(order, rest)
                    continue
                self._take_back(order, said)
                continue
            if order is None:
                order = self._begin(key, owner, lane, step, NAMED * has_name)
            self._say(order, said, placed=kind == self._kinds.completed)

    def _read(self, places: Ints) -> list[_Order]:
        """Take orders out of the columns, as values; those that were taken out already stay."""
        rows = self._orders._columns[places]  # noqa: SLF001 - two halves of one thing
        names = ("key", *(PACKED.names or ()), "lane", "step")
        read: list[_Order] = []
        for place, key, *rest in zip(
            places.tolist(), *(rows[name].tolist() for name in names), strict=True
        ):
            order = self._known.get(key)
            if order is None:
                order = self._known[key] = _Order(place, key, *rest)
            # A key that was forgotten and came again in this batch has another order by now.
            if order.place == place:
                read.append(order)
        return read

    def _begin(self, key: int, owner: int, lane: int, step: int, flags: int) -> _Order:
        """An order of which this message is the first."""
        here = self._lanes[lane]
        order = _Order(
            -1, key, owner, here.serial, flags, 0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0, lane, step
        )  # fmt: skip
        here.serial += 1
        self._known[key] = order
        return order

    def _say(self, order: _Order, said: _Said, *, placed: bool) -> None:
        """An order is placed, or said again, or corrected."""
        before, message = order.effect(), said.message
        flags, rate, currency = order.flags, order.rate, order.currency
        acts = placed and not order.flags & PLACED
        # An update has overtaken the order on the way: what it said is newer.
        overtaken = (
            before is not None and acts and said.time_ms < order.time_ms and order.value > 0.0
        )
        self._see_currency(order, said, is_first=before is None, is_old=overtaken)
        value = order.worth_of(said.value, said)
        if isclose(value, order.value, rel_tol=ROUNDED):
            value = order.value
        if before is None:
            order.time_ms, order.value, order.quantity = said.time_ms, value, said.quantity
        else:
            order.time_ms = min(order.time_ms, said.time_ms)
            if not said.whole and not overtaken:
                order.value, order.quantity = value, said.quantity
        order.flags |= KNOWN | (PLACED if placed else 0)
        after = order.effect()
        assert after is not None
        if after == before and not acts:
            order.flags, order.rate, order.currency = flags, rate, currency
            self.repeats.append(message)
            return
        self._changed[id(order)] = order
        self._has_something(order)
        if before is None and placed:
            self._own[message] = after, True, True
            return
        # An update is an event of its own, which a feature may count under its own name.
        own = Effect(said.time_ms, 1.0, value, said.quantity, 1.0, value, said.quantity)
        self._own[message] = None if placed else own, acts, acts or not placed
        self._correct(message, before, after)

    @staticmethod
    def _see_currency(order: _Order, said: _Said, *, is_first: bool, is_old: bool) -> None:
        """Take in what a message says of the currency of its order; the last that names one counts.

        Args:
            is_old: the message does not count for what others have said already.
        """
        known = said.currency == order.currency > 0
        if said.rate < 0.0:
            if is_first and not known:
                order.rate, order.currency = -said.rate, said.currency
        elif not (is_old and order.flags & PRICED):
            if not known:
                if is_old:
                    # What was said before was said in this currency, which nobody had named.
                    order.value *= said.rate / order.rate
                order.rate, order.currency = said.rate, said.currency
            order.flags |= PRICED

    def _take_back(self, order: _Order, said: _Said) -> None:
        """A refund adds to what is taken back of an order."""
        before = order.effect()
        if said.rate < 0.0:
            order.refunded_own += said.value / -said.rate
        else:
            if before is None and order.currency == 0 < said.currency:
                order.rate, order.currency = said.rate, said.currency
            order.refunded += order.worth_of(said.value, said)
        if before is not None and (said.rate < 0.0 or said.currency):
            self._worth[said.message] = order.worth_of(said.value, said)
        order.refunded_quantity += said.quantity
        if said.whole:
            order.flags |= ALL_BACK
        self._changed[id(order)] = order
        after = order.effect()
        if after is not None:
            self._correct(said.message, before, after)

    def _take_from(self, said: _Said, owner: int, step: int, *, named: bool) -> _Said:
        """Take an amount from a user's newest orders; returns what of it is left.

        Args:
            named: whether from orders that have an id, too.
        """
        if not said.whole and said.value <= 0.0:
            return said
        stack = self._stack(owner, step, named=named, whole=said.whole)
        worth = 0.0
        while (order := stack.newest(step)) is not None:
            if said.whole:
                self._take_back(order, said._replace(value=0.0, quantity=0.0))
                return said._replace(value=0.0, quantity=0.0, whole=False)
            left, pieces = order.left()
            value = order.worth_of(said.value, said)
            taken_pieces = min(max(pieces, 0.0), said.quantity)
            # Exactly up to its value, whatever rounding made of the parts.
            taken = value if value < left else order.value - order.given_back
            part = said._replace(value=taken, quantity=taken_pieces, rate=1.0, currency=0)
            self._take_back(order, part)
            rest = said.value - left / order.worth_of(1.0, said) if left < value else 0.0
            said = said._replace(value=rest, quantity=said.quantity - taken_pieces)
            worth += taken
            if rest <= 0.0:
                break
        if said.rate < 0.0 or said.currency:
            self._worth[said.message] = worth + said.value
        return said

    def _stack(self, owner: int, step: int, *, named: bool, whole: bool) -> _Stack:
        """The orders of a user that a sort of refund can take from."""
        stack = self._stacks.get((owner, named, whole))
        if stack is None:
            stored = self._stored(owner, step, named=named)
            stack = _Stack(self._read, stored, named=named, whole=whole)
            for order in self._said.get(owner, ()):
                stack.push(order)
            self._stacks[owner, named, whole] = stack
        return stack

    def _stored(self, owner: int, step: int, *, named: bool) -> tuple[Ints, Ints]:
        """Places and serials of a user's orders in the columns that may have something left."""
        columns = self._orders._columns  # noqa: SLF001 - as above
        if self._places is None:
            places = self._orders._of_users(self._owners)  # noqa: SLF001 - as above
            self._places = places[np.argsort(columns["user"][places], kind="stable")]
            self._place_owners = columns["user"][self._places]
        wanted = np.uint64(owner)
        low = np.searchsorted(self._place_owners, wanted)
        high = np.searchsorted(self._place_owners, wanted, side="right")
        places = self._places[low:high]
        flags = columns["flags"][places]
        able = (flags & (KNOWN | ALL_BACK)) == KNOWN
        given_back = columns["refunded"][places] + (
            columns["refunded_own"][places] * columns["rate"][places]
        )
        able &= columns["value"][places] >= given_back
        able &= columns["step"][places] >= step - STEPS
        if not named:
            able &= (flags & NAMED) == 0
        places = places[able]
        return places, columns["serial"][places].astype(np.int64)

    def _has_something(self, order: _Order) -> None:
        """What was said of an order may have left something that refunds can take."""
        self._said.setdefault(order.user, []).append(order)
        for named, whole in product((False, True), repeat=2):
            stack = self._stacks.get((order.user, named, whole))
            if stack is not None:
                stack.push(order)

    def _correct(self, message: int, before: Effect | None, after: Effect) -> None:
        """What an order counts has changed."""
        if before is not None and before.time_ms != after.time_ms:
            gone = Effect(before.time_ms, *(-amount for amount in before[1:]))
            self._corrections += [
                Correction(message, gone, tells=False),
                Correction(message, after, tells=False),
            ]
            return
        if before is None:
            self._corrections.append(Correction(message, after, tells=True))
            return
        amounts = [new - old for new, old in zip(after[1:], before[1:], strict=True)]
        if any(amounts):
            self._corrections.append(
                Correction(message, Effect(after.time_ms, *amounts), tells=False)
            )

    def write(self) -> None:
        """Put changed orders back into the columns."""
        changed = list(self._changed.values())
        rows = np.zeros(len(changed), _COLUMN)
        for name in ("key", *(PACKED.names or ()), "lane", "step"):
            rows[name] = [getattr(order, name) for order in changed]
        places = np.array([order.place for order in changed], np.int64)
        old, new = np.flatnonzero(places >= 0), np.flatnonzero(places < 0)
        self._orders.overwrite(places[old], rows[old], self._lanes)
        self._orders.append_new(rows[new], self._lanes)

    def result(self) -> tuple[EventColumns, Shares]:
        """The batch with its corrections behind it, and what each counts."""
        events, count = self._events, len(self._events)
        messages = np.array([one.message for one in self._corrections], np.int64)
        more = events.where(messages)
        effects = np.array([one.effect[1:] for one in self._corrections], np.float64).reshape(-1, 6)
        more = replace(
            more,
            kind=np.full(len(messages), self._kinds.completed, np.uint8),
            time_ms=np.array([one.effect.time_ms for one in self._corrections], np.int64),
            value=effects[:, 1],
            quantity=effects[:, 2],
            category=np.zeros(len(messages), np.uint64),
        )
        value, quantity = events.value.copy(), events.quantity.copy()
        counts, left = np.ones(count), np.stack([np.ones(count), value, quantity])
        acts, tells = np.ones(count, np.bool_), np.ones(count, np.bool_)
        for message, (effect, acted, told) in self._own.items():
            acts[message], tells[message] = acted, told
            if effect is None:
                counts[message] = value[message] = quantity[message] = 0.0
                left[:, message] = 0.0
            else:
                value[message] = effect.value
                left[:, message] = effect[4:]
        for message, worth in self._worth.items():
            value[message] = left[1, message] = worth
        nobody = np.zeros(len(messages), np.bool_)
        shares = Shares(
            np.concatenate([counts, effects[:, 0]]),
            np.concatenate([left, effects[:, 3:].T], axis=1),
            np.concatenate([acts, nobody]),
            np.concatenate([tells, np.array([one.tells for one in self._corrections], np.bool_)]),
            np.concatenate([np.ones(count, np.bool_), nobody]),
        )
        return EventColumns.concatenate(
            [replace(events, value=value, quantity=quantity), more]
        ), shares
