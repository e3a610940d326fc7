"""Invents shoppers who are none of the usual: for a test of who is told *unusual*.

Comes in: a seed and a span of days. Goes out: events like those of `producers.traffic`, a batch a day, and
what each of these shoppers is. They vary around their kind as people do, and each kind behaves in a way
in which no number of its own is beyond what an ordinary shopper may have: a reseller orders
as often as a regular and spends as a big spender does, but many pieces at once and without looking.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from producers.traffic import CATEGORIES, EVENTS, EventBatch
from stream.events import Floats, Ints
from stream.units import DAY_MS

VIEWED, ADDED, ORDERED, REFUNDED = (
    EVENTS.index(name)
    for name in ("Product Viewed", "Product Added", "Order Completed", "Order Refunded")
)
FIRST_NUMBER = 1 << 40
"""Of events: none of the shop's has such a number."""


class Told(NamedTuple):
    """Events of one kind of a visit.

    Attributes:
        day: of each event, in days.
    """

    day: Floats
    event: int
    category: int
    pieces: int = 0
    money: float = 0.0


@dataclass(frozen=True)
class Intruders:
    """Who they are, and what they do.

    Attributes:
        kinds: of each, by number from `first`.
        events: in the order of their times.
    """

    first: int
    kinds: tuple[str, ...]
    events: EventBatch

    def on(self, day_ms: int) -> EventBatch:
        """What they do on a day."""
        times = self.events.time_ms
        return self.events.where((times >= day_ms) & (times < day_ms + DAY_MS))


Random: TypeAlias = np.random.Generator
Life: TypeAlias = Callable[[Random, float], list[Told]]


def _views(random: Random, start: float, count: int, gap_seconds: float, category: int) -> Told:
    gaps = random.exponential(gap_seconds, count) + 0.2
    return Told(start + np.cumsum(gaps) / 86_400, VIEWED, category)


def bot(random: Random, days: float) -> list[Told]:
    """Reads the whole shop, a page every few seconds, several times a day; it never buys."""
    found = []
    day = days - random.uniform(3, 20)
    every, pages = random.uniform(0.15, 1.0), random.uniform(25, 120)
    while day < days:
        categories = random.permutation(len(CATEGORIES))[: random.integers(5, 16)].tolist()
        found += [
            _views(random, day, 1 + random.poisson(pages / 10), 2.5, one) for one in categories
        ]
        day += every * random.uniform(0.7, 1.3)
    return found


def reseller(random: Random, days: float) -> list[Told]:
    """Orders by the dozen, of one category, and hardly looks before."""
    found = []
    day = days - random.uniform(10, 35)
    every, pieces = random.uniform(2.0, 6.0), random.uniform(15, 60)
    price, category = random.uniform(5, 20), int(random.integers(len(CATEGORIES)))
    while day < days:
        found.append(_views(random, day, 1, 20.0, category))
        ordered = np.array([day + 0.01])
        found.append(Told(ordered - 0.005, ADDED, category, 1, price))
        many = max(round(pieces * random.lognormal(0.0, 0.3)), 2)
        found.append(Told(ordered, ORDERED, category, many, round(many * price, 2)))
        day += every * random.uniform(0.6, 1.4)
    return found


def card_tester(random: Random, days: float) -> list[Told]:
    """Tries cards, one after the other, on the cheapest thing there is; a day or two later it is gone."""
    found = []
    begins, category = days - random.uniform(0.5, 6.0), int(random.integers(len(CATEGORIES)))
    tries = int(random.integers(8, 40))
    for day in np.sort(begins + random.exponential(0.15, tries)).tolist():
        found.append(_views(random, day, 1, 5.0, category))
        money = round(float(random.uniform(1, 6)), 2)
        found.append(Told(np.array([day + 30 / 86_400]), ORDERED, category, 1, money))
    return found


def serial_returner(random: Random, days: float) -> list[Told]:
    """Looks and orders as a regular does, and sends most of it back, all of it or nearly."""
    found = []
    day = days - random.uniform(20, 40)
    every, share = random.uniform(3.0, 8.0), random.uniform(0.7, 0.95)
    basket, favourites = random.uniform(40, 160), random.integers(0, len(CATEGORIES), 3)
    while day < days:
        looked_at = favourites[: random.integers(1, 4)].tolist()
        found += [_views(random, day, int(random.geometric(0.4)), 45.0, one) for one in looked_at]
        first = int(favourites[0])
        pieces = 1 + int(random.poisson(2.0))
        money = round(float(basket * random.lognormal(0.0, 0.4)), 2)
        found.append(Told(np.array([day + 0.02]), ADDED, first, 1, money))
        found.append(Told(np.array([day + 0.022]), ORDERED, first, pieces, money))
        if random.random() < share:
            back = np.array([day + random.uniform(2, 9)])
            part = 1.0 if random.random() < 0.8 else random.uniform(0.5, 0.9)
            many = max(round(pieces * part), 1)
            found.append(Told(back, REFUNDED, first, many, round(money * part, 2)))
        day += every * random.uniform(0.7, 1.3)
    return found


LIVES: dict[str, Life] = {
    "bot": bot,
    "reseller": reseller,
    "card tester": card_tester,
    "serial returner": serial_returner,
}


def intruders(seed: int, of_each: int, first: int, days: int, start_ms: int) -> Intruders:
    """Some of every kind, who do what they do until the last day.

    Args:
        first: number of the first of them.
        start_ms: of the first day.
    """
    random = np.random.default_rng([seed, of_each, days])
    kinds: list[str] = []
    parts: list[EventBatch] = []
    for kind, life in LIVES.items():
        for _ in range(of_each):
            user = first + len(kinds)
            kinds.append(kind)
            parts += [_batch(told, user, start_ms) for told in life(random, float(days))]
    joined = EventBatch(
        *(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(EventBatch))
    )
    order = np.argsort(joined.time_ms, kind="stable")
    ordered = {f.name: getattr(joined, f.name)[order] for f in fields(EventBatch)}
    numbers: Ints = FIRST_NUMBER + np.arange(len(order))
    return Intruders(first, tuple(kinds), EventBatch(**(ordered | {"number": numbers})))


def _batch(told: Told, user: int, start_ms: int) -> EventBatch:
    n = len(told.day)

    def column(value: float, kind: Any) -> Any:
        return np.full(n, value, kind)

    money = told.money if told.event in {ORDERED, REFUNDED, ADDED} else np.nan
    return EventBatch(
        start_ms + (told.day * DAY_MS).astype(np.int64), column(0, np.int64),
        column(user, np.int64), column(told.event, np.int8), column(told.category, np.int8),
        column(told.pieces, np.int64), column(money, np.float64), column(-1, np.int64),
    )  # fmt: skip


def together(one: EventBatch, other: EventBatch) -> EventBatch:
    """Both, in the order of their times."""
    joined = EventBatch(
        *(
            np.concatenate([getattr(one, f.name), getattr(other, f.name)])
            for f in fields(EventBatch)
        )
    )
    return joined.where(np.lexsort((joined.number, joined.time_ms)))
