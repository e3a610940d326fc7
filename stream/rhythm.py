"""How likely customers are to order again: learned from how long customers like them took.

Comes in: samples of users, look after look: how many orders, how long silent, how long known. Goes out:
the chance of an order within 90 days, and the same held against what the shop's living customers have
(`outlook`), so that one limit means the same in a shop of weekly orders and in one of yearly ones.
`kinds` is next.

Customers fall into groups by their own rhythm: the mean gap between their orders, and how many there
were. From one look to the next each is seen to order or to stay silent, so the orders a day are counted
by group and by how long the customer was silent: a piecewise-constant hazard (life tables; Cox 1972 for
the word). No look waits for 90 days to be over, for each day that passes tells of its own silence.
Where little was seen yet, a cautious guess from the group's gap stands in for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from stream.events import Bools, Floats, Hashes, Ints
from stream.units import DAY_MS

HORIZON_DAYS = 90.0
ORDERS, LIFETIME, SILENCE, KNOWN = "orders_180d", "orders_total", "days_since_order", "tenure_days"
"""The features it reads; orders ever placed, if that is declared, else the decayed count made whole."""
CUSTOMERS_NEED = (ORDERS, SILENCE, KNOWN)
GAP = "order_gap_days"
"""Mean days between a customer's own orders; 0 of who has not ordered twice."""
SEEN = "days_since_seen"
HALF_LIFE_DAYS = 180.0
BANDS = np.array([0.0, 3, 7, 14, 21, 30, 45, 60, 90, 120, 180, 270, 365, 545])
"""Days of silence at which another hazard begins."""
GAPS = np.array([10.0, 20, 40, 80, 160])
"""Days between orders at which another group begins."""
MANY = 3.0
"""Gaps known of a customer from which the mean of them says who that is."""
USUAL_GAP = 90.0
"""Of customers with one order, where nothing was seen yet."""
MIDDLE = np.array([7.0, 14, 28, 56, 112, 250])
"""A gap in the midst of each group's, for the guess."""
GROUPS = 1 + 2 * len(MIDDLE)
FADING = 2.5
"""Of the guess: how fast hope fades with silence, as a power of the silence over the gap."""
GUESS_ORDERS = 1.5
"""A guess weighs as much as the silence in which it expects so many orders."""
REMEMBER_DAYS = 365.0
"""Half of what was seen is forgotten after so many days: a year, for a shop has seasons."""
LIVELY_ODDS = 1.6
"""Of an order within 90 days: where the shop's living customers have less on average, all odds are
raised in the measure in which they lack it. Weighed against Online Retail, where it is about this."""


class Customers(NamedTuple):
    """Who has ordered, a column a field.

    Attributes:
        group: by rhythm, from 0 for who has ordered once.
        silence: days since the last order.
    """

    group: Ints
    silence: Floats


class Seen(msgspec.Struct, frozen=True):
    """What was seen of customers so far, and how they were at the last look.

    Attributes:
        days, orders: of silence looked on, and that ended it; by group and band, flat.
        at_ms: of the last look; 0 for none.
        hashes, groups, silences: of customers at the last look, packed.
        usual: the shop's `pace` at the last look; 0 where it is not known.
    """

    days: list[float] = []
    orders: list[float] = []
    at_ms: int = 0
    hashes: bytes = b""
    groups: bytes = b""
    silences: bytes = b""
    usual: float = 0.0


NOTHING_SEEN = Seen()


def readable(names: Sequence[str]) -> bool:
    """Whether a feature table has what is read here."""
    return set(CUSTOMERS_NEED) <= set(names)


def tells_gaps(names: Sequence[str]) -> bool:
    """Whether a feature table has what `rest_days` reads."""
    return {SILENCE, GAP, LIFETIME} <= set(names)


def rest_days(vectors: Floats, names: Sequence[str], gaps: float, most_days: float) -> Floats:
    """How much longer the silence since the last order may be until it is so many of their own gaps.

    Above 0 for those who rest. 0 for whom fewer than `MANY` gaps are known: one or two say little of who that is.

    Args:
        most_days: longer silence is no rest, whatever the gap.
    """
    silence, usual = vectors[:, names.index(SILENCE)], vectors[:, names.index(GAP)]
    known = vectors[:, names.index(LIFETIME)] > MANY
    left: Floats = np.where(known, np.minimum(gaps * usual, most_days) - silence, 0.0)
    return left


def have_ordered(vectors: Floats, names: Sequence[str]) -> Bools:
    """Who has an order that was not taken back, however long ago: a decayed count never ends."""
    which: Bools = vectors[:, names.index(ORDERS)] > 0
    return which


def customers(vectors: Floats, names: Sequence[str]) -> Customers:
    """Of users who have ordered."""
    silence = vectors[:, names.index(SILENCE)]
    known = np.maximum(vectors[:, names.index(KNOWN)], silence)
    last = known - silence
    if LIFETIME in names:
        gaps = vectors[:, names.index(LIFETIME)] - 1.0
    else:
        # As of the last order, which counts whole. What faded before is made up for: so many orders
        # in the days that still count make so many in all of them.
        faded = vectors[:, names.index(ORDERS)] * np.exp2(silence / HALF_LIFE_DAYS) - 1.0
        counted = (1.0 - np.exp2(-last / HALF_LIFE_DAYS)) * HALF_LIFE_DAYS / np.log(2.0)
        gaps = faded * np.where(last > 1.0, last / np.maximum(counted, 1e-9), 1.0)
    again = gaps > 0.5
    gap = last / np.where(again, gaps, 1.0)
    group = 1 + 2 * np.searchsorted(GAPS, gap, side="right") + (gaps >= MANY)
    return Customers(np.where(again, group, 0).astype(np.int64), np.maximum(silence, 0.0))


def seen(before: Seen, hashes: Hashes, found: Customers, at_ms: int) -> Seen:
    """What is known after another look.

    Args:
        hashes: of the customers found, ascending.
    """
    days, orders = _tables(before)
    passed = (at_ms - before.at_ms) / DAY_MS
    if before.at_ms and passed <= 0:
        return before
    if before.at_ms:
        forgotten = np.exp2(-passed / REMEMBER_DAYS)
        days, orders = days * forgotten, orders * forgotten
        then = np.frombuffer(before.hashes, np.uint64)
        _, old, new = np.intersect1d(then, hashes, return_indices=True)
        group = np.frombuffer(before.groups, np.uint8)[old].astype(np.int64)
        silence = np.frombuffer(before.silences, np.float32)[old].astype(float)
        now = found.silence[new]
        ordered = now < np.minimum(silence + passed - 1e-3, passed)
        until = np.where(ordered, passed - now, passed)
        _add_days(days, group, silence, until)
        cells = group * len(BANDS) + _band(silence + until)
        orders += np.bincount(cells[ordered], minlength=orders.size).reshape(orders.shape)
        _add_days(days, found.group[new][ordered], np.zeros(int(ordered.sum())), now[ordered])
    return Seen(
        days=days.ravel().tolist(),
        orders=orders.ravel().tolist(),
        at_ms=at_ms,
        hashes=hashes.tobytes(),
        groups=found.group.astype(np.uint8).tobytes(),
        silences=found.silence.astype(np.float32).tobytes(),
    )


def chance(known: Seen, found: Customers, days: float = HORIZON_DAYS) -> Floats:
    """The chance of an order of each customer within so many days."""
    hazards = _hazards(known)
    passed = np.diff(BANDS)
    until = np.concatenate([np.zeros((GROUPS, 1)), np.cumsum(hazards[:, :-1] * passed, axis=1)], 1)

    def total(silence: Floats) -> Floats:
        band = _band(silence)
        more = hazards[found.group, band] * (silence - BANDS[band])
        summed: Floats = until[found.group, band] + more
        return summed

    expected: Floats = 1.0 - np.exp(total(found.silence) - total(found.silence + days))
    return expected


def pace(known: Seen, found: Customers, each: Floats) -> float:
    """The chance of an order within 90 days that a shop's living customers have.

    Args:
        found: customers of every sort: those of a part of the shop would tell of that part.
        each: how many customers each stands for.
    """
    likely = chance(known, found)
    return float((each * likely**2).sum() / max((each * likely).sum(), 1e-12))


def in_shop(known: Seen, vectors: Floats, names: Sequence[str], each: Floats) -> Seen:
    """With the pace of a shop.

    Args:
        vectors: users of every sort, customers or not.
        each: how many users each stands for.
    """
    if not readable(names):
        return known
    ordered = have_ordered(vectors, names)
    usual = pace(known, customers(vectors[ordered], names), each[ordered])
    return msgspec.structs.replace(known, usual=usual)


def outlook(known: Seen, found: Customers) -> Floats:
    """The chance of an order within 90 days, held against what the shop's living customers have.

    It is that chance itself where the living ones order as fast as in an ordinary shop, or faster; in
    a slower shop all odds are raised in one measure, so the order of customers stays. Where nothing is
    known of the shop, the customers found stand for it.
    """
    likely = chance(known, found)
    usual = known.usual or pace(known, found, np.ones(len(likely)))
    raised = max(1.0, LIVELY_ODDS * (1.0 - usual) / max(usual, 1e-9))
    held: Floats = likely * raised / (1.0 - likely + likely * raised)
    return held


def _tables(known: Seen) -> tuple[Floats, Floats]:
    """Days and orders by group and band."""
    if len(known.days) != GROUPS * len(BANDS):
        return np.zeros((GROUPS, len(BANDS))), np.zeros((GROUPS, len(BANDS)))
    shape = (GROUPS, len(BANDS))
    return np.array(known.days).reshape(shape), np.array(known.orders).reshape(shape)


def _hazards(known: Seen) -> Floats:
    """Orders a day, by group and band."""
    days, orders = _tables(known)
    # One or two gaps are often an order that came in two parts: they say half of who that is.
    few = np.sqrt(MIDDLE * USUAL_GAP)
    gap = np.concatenate([[USUAL_GAP], np.column_stack([few, MIDDLE]).ravel()])[:, None]
    middle = np.append((BANDS[:-1] + BANDS[1:]) / 2, BANDS[-1] * 1.5)
    # Who is silent for longer than usual is less and less likely to come back.
    guess = np.minimum(1.0, (gap / middle) ** FADING) / gap
    weight = GUESS_ORDERS / guess
    found: Floats = (orders + GUESS_ORDERS) / (days + weight)
    return found


def _band(silence: Floats) -> Ints:
    band: Ints = np.searchsorted(BANDS, silence, side="right") - 1
    return np.minimum(np.maximum(band, 0), len(BANDS) - 1)


def _add_days(table: Floats, group: Ints, begin: Floats, passed: Floats) -> None:
    """Add the days of silences to the bands they pass through."""
    ends = np.append(BANDS[1:], np.inf)
    for band, (low, high) in enumerate(zip(BANDS, ends, strict=True)):
        inside = np.minimum(begin + passed, high) - np.maximum(begin, low)
        table[:, band] += np.bincount(group, np.maximum(inside, 0.0), minlength=GROUPS)
