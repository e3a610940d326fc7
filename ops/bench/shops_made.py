"""Invents shops with rhythms of their own, for what must hold in any shop.

Comes in: a seed. Goes out: the events of a shop in the order of their times, as columns, day by day.
A shopper has an arrival, a rhythm of orders (a mean gap, and how regular it is), visits between them,
and a day on which they quit; a shop has a season, refunds, and perhaps days of a sale.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stream.events import EventColumns, Floats, Ints
from stream.features import FeatureTable
from stream.features.terms import REFUNDED
from stream.units import DAY_MS

START_MS = 1_640_995_200_000
"""2022-01-01, UTC."""
VIEWED, ADDED, ORDERED = "Product Viewed", "Product Added", "Order Completed"
KINDS = (VIEWED, ADDED, ORDERED, REFUNDED)
CATEGORIES = 12
ORDERS_EACH = 10_000
"""Numbers of orders set aside for each shopper, so that none comes twice."""


@dataclass(frozen=True)
class Habit:
    """Shoppers of a kind: a number each is the mean of a distribution over them.

    Attributes:
        users: how many come.
        gap: days between two orders; infinite for who never orders.
        regular: shape of the gaps: 1 are by chance, 50 like a clock.
        orders: at the most; a one-time customer has one.
        stay: days from the first visit until they quit.
        visits: days between two visits without an order; infinite for none.
        views: in a visit.
        basket: money in an order.
    """

    users: int
    gap: float
    regular: float = 1.0
    orders: int = 10_000
    stay: float = 400.0
    visits: float = np.inf
    views: float = 4.0
    basket: float = 40.0


@dataclass(frozen=True)
class Made:
    """A shop that is made up.

    Attributes:
        days: of its life.
        opening: share of the shoppers who come in the first tenth of it.
        season: how much more is ordered in the last two months of a year, as a factor.
        refunds: share of the orders that are refunded whole, within three weeks.
        sales: days from one sale to the next, where nobody orders between them; 0 for none.
    """

    name: str
    days: int
    habits: tuple[Habit, ...]
    opening: float = 0.4
    season: float = 1.0
    refunds: float = 0.0
    sales: int = 0

    def scaled(self, share: float) -> Made:
        """The same with another number of shoppers."""
        habits = (replace(one, users=max(round(one.users * share), 20)) for one in self.habits)
        return replace(self, habits=tuple(habits))


MADE = (
    Made(
        "weekly grocer", 540,
        (
            Habit(900, 7, 4, stay=500, visits=12, basket=60),
            Habit(600, 14, 3, stay=300, visits=20, basket=45),
            Habit(500, 35, 1.5, stay=200, visits=30, basket=30),
            Habit(500, 20, 1, orders=1, stay=20, visits=15),
        ),
    ),
    Made(
        "yearly gift shop", 1_100,
        (
            Habit(1_200, 365, 25, stay=1_500, visits=180, basket=80),
            Habit(500, 180, 4, stay=900, visits=90, basket=60),
            Habit(120, 40, 1, stay=700, visits=30, basket=120),
            Habit(1_200, 200, 1, orders=1, stay=30, visits=40, basket=50),
        ),
        season=3.0,
    ),
    Made(
        "subscription", 540,
        (
            Habit(1_500, 30, 400, stay=300, visits=45, basket=25),
            Habit(700, 91, 400, stay=400, visits=60, basket=70),
            Habit(600, 30, 400, orders=2, stay=60, visits=45, basket=25),
        ),
    ),
    Made(
        "few buyers", 420,
        (
            Habit(5_000, np.inf, stay=4, visits=3, views=2),
            Habit(2_500, np.inf, stay=90, visits=6, views=6),
            Habit(90, 25, 1.5, stay=300, visits=6, views=6, basket=90),
            Habit(120, 60, 1, orders=1, stay=40, visits=8),
        ),
    ),
    Made(
        "most gone", 720,
        (
            Habit(500, 30, 1.5, stay=500, visits=25, basket=70),
            Habit(2_200, 40, 1, stay=40, visits=20),
            Habit(1_500, 30, 1, orders=1, stay=10, visits=15),
        ),
        opening=0.75,
    ),
    Made(
        "clicks only", 240,
        (
            Habit(1_500, np.inf, stay=3, visits=2, views=2),
            Habit(1_500, np.inf, stay=120, visits=4, views=5),
            Habit(500, np.inf, stay=200, visits=1, views=12),
        ),
    ),
)  # fmt: skip
"""Those that names and kinds were tuned on."""
JUDGED = (
    Made(
        "monthly box", 480,
        (
            Habit(1_400, 30, 300, stay=150, visits=60, views=2, basket=30),
            Habit(500, 30, 300, orders=1, stay=20, visits=40, views=2, basket=30),
            Habit(300, 60, 50, stay=300, visits=60, views=2, basket=30),
        ),
        refunds=0.08,
    ),
    Made(
        "fortnightly groceries", 420,
        (
            Habit(1_300, 14, 8, stay=400, visits=30, basket=90),
            Habit(500, 14, 2, stay=120, visits=30, basket=60),
            Habit(400, 30, 1, orders=2, stay=50, visits=30),
        ),
    ),
    Made(
        "furniture", 1_500,
        (
            Habit(1_800, 1_095, 3, stay=2_500, visits=300, views=8, basket=900),
            Habit(700, 400, 2, stay=1_500, visits=200, views=8, basket=400),
            Habit(1_500, np.inf, stay=60, visits=12, views=10),
        ),
    ),
    Made(
        "trade", 900,
        (
            Habit(500, 120, 8, stay=1_200, visits=20, views=10, basket=6_000),
            Habit(500, 45, 2, stay=900, visits=15, views=6, basket=1_500),
            Habit(400, 300, 2, orders=2, stay=300, visits=60, basket=800),
        ),
    ),
    Made(
        "reading only", 300,
        (
            Habit(2_500, np.inf, stay=30, visits=5, views=3),
            Habit(800, np.inf, stay=280, visits=2, views=9),
        ),
    ),
    Made(
        "much sent back", 480,
        (
            Habit(1_200, 30, 1.5, stay=350, visits=10, views=8, basket=120),
            Habit(800, 60, 1, stay=250, visits=20, views=6, basket=80),
            Habit(700, 20, 1, orders=1, stay=20, visits=15, basket=90),
        ),
        refunds=0.45,
    ),
    Made(
        "sale days only", 540,
        (
            Habit(1_300, 60, 3, stay=500, visits=40, basket=70),
            Habit(800, 120, 2, stay=400, visits=60, basket=50),
            Habit(600, 30, 1, orders=1, stay=30, visits=30, basket=40),
        ),
        sales=45,
    ),
    Made(
        "buyers of 1 %", 420,
        (
            Habit(8_000, np.inf, stay=4, visits=3, views=2),
            Habit(4_000, np.inf, stay=90, visits=6, views=6),
            Habit(55, 25, 1.5, stay=300, visits=6, views=6, basket=90),
            Habit(70, 60, 1, orders=1, stay=40, visits=8),
        ),
    ),
    Made(
        "buyers of .3 %", 420,
        (
            Habit(17_000, np.inf, stay=4, visits=3, views=2),
            Habit(8_000, np.inf, stay=90, visits=6, views=5),
            Habit(35, 25, 1.5, stay=300, visits=6, views=6, basket=90),
            Habit(40, 60, 1, orders=1, stay=40, visits=8),
        ),
    ),
)  # fmt: skip
"""Those that nothing was tuned on: what must hold in any shop is held against them."""


class Events(NamedTuple):
    """Events of a shop in the order of their times, a column a field.

    Attributes:
        kind: 0 a view, 1 something added to the cart, 2 an order, 3 a refund of one.
        value: of an order; 0 of others.
        order: number of an order, and of that which is refunded; 0 of others.
    """

    time_ms: Ints
    user: Ints
    kind: Ints
    category: Ints
    value: Floats
    order: Ints

    def between(self, start_ms: int, end_ms: int) -> Events:
        """Those of a span of time."""
        here = slice(*np.searchsorted(self.time_ms, (start_ms, end_ms)).tolist())
        return Events(
            self.time_ms[here],
            self.user[here],
            self.kind[here],
            self.category[here],
            self.value[here],
            self.order[here],
        )


_Part = tuple[Ints, Ints, Ints, Ints, Floats, Ints]
"""Columns of `Events`, in no order."""


def made_events(shop: Made, seed: int) -> Events:
    """The life of a shop."""
    random = np.random.default_rng([seed, shop.days, len(shop.habits)])
    parts: list[_Part] = []
    first = 0
    for habit in shop.habits:
        parts += _shoppers(random, shop, habit, first)
        first += habit.users
    columns: list[npt.NDArray[Any]] = [np.concatenate(part) for part in zip(*parts, strict=True)]
    order = np.lexsort((columns[2], columns[1], columns[0]))
    return Events(*(column[order] for column in columns))


def _shoppers(random: np.random.Generator, shop: Made, habit: Habit, first: int) -> list[_Part]:
    users = habit.users
    early = random.random(users) < shop.opening
    arrival = random.random(users) * shop.days * np.where(early, 0.1, 0.95)
    quits = np.minimum(arrival + random.exponential(habit.stay, users), shop.days)
    taste = random.integers(0, CATEGORIES, users)
    found: list[_Part] = []

    def told(user: Ints, day: Floats, kind: int, value: Floats, order: Ints) -> None:
        stray = random.random(len(user)) < 0.3
        category = np.where(stray, random.integers(0, CATEGORIES, len(user)), taste[user])
        time_ms = START_MS + (day * DAY_MS).astype(np.int64)
        kinds = np.full(len(user), kind)
        found.append((time_ms, first + user, kinds, 1 + category, value, order))

    visits = [(np.arange(users), arrival)]  # everyone comes once, whatever follows
    if np.isfinite(habit.gap):
        user, day = _orders(random, shop, habit, arrival, quits)
        money = habit.basket * random.lognormal(0.0, 0.3, users)
        value = money[user] * random.lognormal(0.0, 0.4, len(user))
        number = 1 + first * ORDERS_EACH + np.arange(len(user))
        told(user, day, 2, np.round(value, 2), number)
        if shop.refunds:
            back = np.flatnonzero(random.random(len(user)) < shop.refunds)
            when = day[back] + random.uniform(2, 21, len(back))
            back, when = back[when < shop.days], when[when < shop.days]
            told(user[back], when, 3, np.zeros(len(back)), number[back])
        visits.append((user, day - random.uniform(0.002, 0.02, len(user))))
    if np.isfinite(habit.visits):
        pace = habit.visits * random.lognormal(0.0, 0.4, users)
        times = random.poisson((quits - arrival) / pace)
        user = np.repeat(np.arange(users), times)
        visits.append((user, arrival[user] + random.random(len(user)) * (quits - arrival)[user]))
    for who, came in visits:
        views = random.geometric(1 / habit.views, len(who))
        user = np.repeat(who, views)
        day = np.repeat(came, views) + random.uniform(0.0, 0.006, len(user))
        day = np.maximum(day, 0.0)
        none = np.zeros(len(user), np.int64)
        told(user, day, 0, np.zeros(len(user)), none)
        adds = random.random(len(user)) < 0.1
        told(user[adds], day[adds] + 1e-4, 1, np.zeros(np.count_nonzero(adds)), none[adds])
    return found


def _orders(
    random: np.random.Generator, shop: Made, habit: Habit, arrival: Floats, quits: Floats
) -> tuple[Ints, Floats]:
    """User and day of each order: the first soon after the arrival, then gap after gap."""
    users = len(arrival)
    gap = habit.gap * random.lognormal(0.0, 0.25, users)
    most = min(habit.orders, int(shop.days / habit.gap * 4) + 4)
    gaps = random.gamma(habit.regular, 1 / habit.regular, (users, most)) * gap[:, None]
    gaps[:, 0] = 0.02 + random.exponential(2.0, users) * (habit.orders > 1)
    day = arrival[:, None] + gaps.cumsum(axis=1)
    if shop.sales:
        # Put off to the next sale, at some hour of it.
        day = (np.ceil(day / shop.sales) * shop.sales) + random.random(day.shape)
    if shop.season > 1.0:
        # Thinned to the season: in the last two months every order is kept, else some.
        in_season = day % 365 >= 304
        kept = in_season | (random.random(day.shape) < 1 / shop.season) | (habit.regular > 10)
        kept[:, 0] = True
    else:
        kept = np.ones(day.shape, np.bool_)
    user, column = np.nonzero(kept & (day < np.maximum(quits, day[:, 0] + 1e-6)[:, None]))
    found: Floats = day[user, column]
    inside = found < shop.days
    return user[inside], found[inside]


def columns(events: Events, table: FeatureTable, slots: Ints, first: int) -> Iterator[EventColumns]:
    """Events as an owner has them, by topic: clicks, then orders.

    Args:
        slots: of each user.
        first: number of the first event, which makes its id.
    """
    number = (first + 1 + np.arange(len(events.user))).astype(np.uint64)
    codes = np.array([table.codes[name] for name in KINDS], np.uint8)
    for topic in (0, 1):
        which = np.flatnonzero((events.kind >= 2) == bool(topic))
        ordered = events.kind[which] == 2
        yield EventColumns(
            slot=slots[events.user[which]],
            topic=np.full(len(which), topic, np.uint8),
            kind=codes[events.kind[which]],
            time_ms=events.time_ms[which],
            id=number[which],
            value=events.value[which],
            quantity=np.where(ordered, 1.0, 0.0),
            category=events.category[which].astype(np.uint64),
            order=events.order[which].astype(np.uint64),
            whole=events.kind[which] == 3,
            rate=np.ones(len(which)),
            currency=np.zeros(len(which), np.uint32),
            recorded_ms=events.time_ms[which],
        )
