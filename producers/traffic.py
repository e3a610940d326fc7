"""Invents seeded shoppers for demos, tests and benchmarks.

Comes in: a seed, how many shoppers, how many days. Goes out: batches of events in the order of
their times (`simulate`), the same on the input topics with the marks of the shop's clock, or as if
all happened now (`run_shop`, through `replay.InputWriter`), or ready-made records for a benchmark
(`bench_events`). The same seed gives the same events, whatever the pace.

A shopper has a career: a first visit, habits (how often, which hours, which categories, how big a
basket), perhaps a day on which interest begins to fade, perhaps a return weeks later. The shop has
weekdays, a season, and sales that bring newcomers and wake bargain hunters.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from confluent_kafka import Producer

from producers.messages import (
    MessageContext,
    MessageProperties,
    TrackMessage,
    encode_message,
    topic_of,
)
from producers.replay import CLOCK, Clock, InputWriter, Progress, Speed, Stopped, iso_texts
from stream.events import ORDER_COMPLETED, ORDER_REFUNDED
from stream.units import DAY_MS, iso

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from producers.reactions import Reactions
    from stream.config import Settings
    from stream.events import Floats, Ints
    from stream.marks import MarkSigner

SHOP_START_MS = 1_756_684_800_000
"""2025-09-01, a Monday: brokers refuse record timestamps ahead of their own clock."""

EVENTS = (
    "Product List Viewed",
    "Products Searched",
    "Product Viewed",
    "Product Added",
    ORDER_COMPLETED,
    ORDER_REFUNDED,
)
_LISTED, _SEARCHED, _VIEWED, _ADDED, _ORDERED, _REFUNDED = range(len(EVENTS))
_TOPICS = np.array([topic_of(name) for name in EVENTS])

REACT_EVENTS = 50
"""So often, in events, it is asked who reacts to a campaign."""

CATEGORIES = (
    "dresses", "shoes", "coats", "knitwear", "shirts", "jeans", "sportswear", "underwear",
    "bags", "jewellery", "watches", "home", "kitchen", "garden", "toys", "books",
)  # fmt: skip
_PRICES = np.array([45, 70, 120, 50, 35, 65, 40, 20, 60, 35, 130, 30, 28, 32, 22, 14], float)


class Habit(NamedTuple):
    """What shoppers of one type have in common; each shopper varies around it."""

    share: float
    visits_a_day: float
    views: float
    """Mean views a visit."""
    adds: float
    """Chance that a view ends in the cart."""
    orders: float
    """Chance that a visit ends in an order."""
    basket: float
    """Median order value."""
    items: float
    """Mean pieces in an order."""
    refunds: float
    """Chance that an order is (partly) sent back."""
    stays_days: float
    """Mean time until interest begins to fade."""
    returns: float
    """Chance to come back after it has."""
    sale: float
    """Factor on visits and orders while a sale is on."""


# Shares and rates are weighed so that six weeks of 25,000 shoppers are about 500,000 events,
# and that at the end about a quarter of the shoppers have been silent for two weeks or more.
HABITS = {
    "regular": Habit(0.28, 0.19, 2.0, 0.20, 0.40, 48, 2.6, 0.05, 180, 0.50, 1.3),
    "bargain hunter": Habit(0.21, 0.10, 2.3, 0.13, 0.08, 27, 3.2, 0.10, 140, 0.60, 4.0),
    "one-time buyer": Habit(0.12, 0.30, 2.0, 0.20, 0.50, 38, 1.5, 0.06, 3, 0.12, 1.2),
    "window shopper": Habit(0.29, 0.14, 3.0, 0.05, 0.01, 33, 1.3, 0.05, 110, 0.40, 1.5),
    "big spender": Habit(0.10, 0.15, 2.5, 0.20, 0.36, 210, 4.5, 0.08, 180, 0.50, 1.2),
}
TYPES = tuple(HABITS)

# Share of visits by hour of the day, of shoppers in the evening and of those during work.
_EVENING = np.array([2, 1, 1, 0, 0, 1, 2, 3, 4, 4, 4, 5, 5, 4, 4, 5, 6, 8, 10, 13, 15, 14, 9, 5])
_OFFICE = np.array([1, 0, 0, 0, 0, 1, 3, 6, 9, 10, 10, 11, 13, 11, 9, 8, 7, 6, 5, 4, 4, 3, 2, 1])
_EVENING_BY = np.cumsum(_EVENING) / _EVENING.sum()
_OFFICE_BY = np.cumsum(_OFFICE) / _OFFICE.sum()

_FADE_HALF_LIFE_DAYS = 2.0
_FADED_DAYS = 8.0
"""After this the rest of the interest is nought, not just small: silence is what is shown."""


@dataclass(frozen=True)
class EventBatch:
    """Events in the order of their times, a column a field.

    Attributes:
        time_ms: shop time.
        number: of the event within the simulation; makes its message id.
        user: number of the shopper.
        event: place in `EVENTS`.
        category: place in `CATEGORIES`, -1 for none.
        quantity: pieces, of orders and refunds; else 0.
        money: revenue of orders and refunds, price of views and carts; NaN for none.
        session: number of the visit, -1 for none.
    """

    time_ms: Ints
    number: Ints
    user: Ints
    event: npt.NDArray[np.int8]
    category: npt.NDArray[np.int8]
    quantity: Ints
    money: Floats
    session: Ints

    def __len__(self) -> int:
        return len(self.time_ms)

    def where(self, keep: npt.NDArray[Any]) -> EventBatch:
        """The events a mask or an index picks, in that order."""
        return EventBatch(*(getattr(self, f.name)[keep] for f in fields(self)))


class Outgoing(NamedTuple):
    """An encoded event."""

    topic: int
    key: bytes
    value: bytes
    time_ms: int


def user_id(number: int) -> str:
    return f"shopper-{number:06d}"


# -- the shoppers ------------------------------------------------------------------------------


class Shoppers:
    """Everything about the shoppers that does not change from day to day, a column a trait."""

    def __init__(self, random: np.random.Generator, users: int, days: int) -> None:
        habits = np.array(list(HABITS.values()))
        shares = habits[:, 0] / habits[:, 0].sum()
        self.type = random.choice(len(TYPES), users, p=shares)
        (
            _, visits, self.views, self.adds, self.orders, basket, self.items, self.refunds,
            stays, returns, self.sale,
        ) = habits[self.type].T  # fmt: skip
        self.visits = visits * random.gamma(2.5, 1 / 2.5, users)
        self.basket = basket * random.lognormal(0.0, 0.35, users)
        self.evening = random.beta(1.5, 1.0, users)
        self.weekend = random.lognormal(0.15, 0.4, users)
        self.favourites = random.integers(0, len(CATEGORIES), (users, 3))
        self.sales = _sales(days)

        # Half of them are seen in the first days; of the others most come by themselves, some by a sale.
        known = random.random(users) < 0.55
        arrival = np.where(known, random.random(users) * 8, random.random(users) * days * 0.9)
        tempted = ~known & (random.random(users) < 0.25)
        if len(self.sales):
            sale = self.sales[random.integers(0, len(self.sales), users)]
            tempted_day = sale[:, 0] + random.random(users) * (sale[:, 1] - sale[:, 0])
            arrival = np.where(tempted, tempted_day, arrival)
        self.arrival = np.minimum(arrival, days - 0.01)
        self.fading = self.arrival + random.exponential(stays)
        comes_back = random.random(users) < returns
        pause = _FADED_DAYS + random.uniform(8.0, 22.0, users)
        self.back = np.where(comes_back, self.fading + pause, np.inf)

    def rates(self, day: int, weekday: int, season: float) -> Floats:
        """Visits to be expected of each shopper on a day."""
        since = day + 0.5 - self.fading
        fading = np.where(
            since < _FADED_DAYS, np.exp2(-np.maximum(since, 0) / _FADE_HALF_LIFE_DAYS), 0.0
        )
        interest = np.where(day + 0.5 >= self.back, 0.9, fading)
        present = np.clip(day + 1 - self.arrival, 0.0, 1.0)
        rhythm = self.weekend if weekday >= 5 else 1.0
        sale = self.sale if self.on_sale(day) else 1.0
        rates: Floats = self.visits * interest * present * rhythm * sale * season
        return rates

    def on_sale(self, day: int) -> bool:
        return any(first <= day < end for first, end in self.sales.tolist())


def _sales(days: int) -> npt.NDArray[np.int64]:
    """First day and the day after the last of each sale: one for ten days, two for a month."""
    starts = [days * share // 100 for share in ((40, 80) if days >= 28 else (60,))]
    length = 3 if days >= 21 else 1
    return np.array([(s, s + length) for s in starts if days >= 5], dtype=np.int64).reshape(-1, 2)


# -- the simulation ----------------------------------------------------------------------------


def simulate(
    seed: int, users: int, days: int, start_ms: int = SHOP_START_MS
) -> Iterator[EventBatch]:
    """The life of a shop, a batch a day.

    Args:
        seed: decides everything.
        users: shoppers who will have come by the end.
        days: length in days.
        start_ms: midnight, UTC, of the first day.

    Yields:
        The events of each day in the order of their times. Every shopper comes at least once.
    """
    random = np.random.default_rng([seed, users, days])
    shoppers = Shoppers(random, users, days)
    later = _empty()
    numbered = visited = 0
    for day in range(days):
        day_ms = start_ms + day * DAY_MS
        visits = _visits(random, shoppers, day, day_ms)
        made = _events(random, shoppers, visits, on_sale=shoppers.on_sale(day), visited=visited)
        visited += len(visits.user)
        made = _numbered(made, numbered)
        numbered += len(made)
        # Visits run past midnight, refunds come days later: what is not of today waits.
        waiting = _joined([later, made])
        today = waiting.time_ms < day_ms + DAY_MS
        later = waiting.where(~today)
        batch = waiting.where(today)
        yield batch.where(np.lexsort((batch.number, batch.time_ms)))


class _Visits(NamedTuple):
    user: Ints
    start_ms: Ints


def _visits(random: np.random.Generator, shoppers: Shoppers, day: int, day_ms: int) -> _Visits:
    weekday = (day_ms // DAY_MS + 3) % 7  # 1970-01-01 was a Thursday
    season = 1 + 0.15 * np.cos(2 * np.pi * ((day_ms / DAY_MS) % 365.25 - 340) / 365.25)
    count = random.poisson(shoppers.rates(day, weekday, season))
    user = np.repeat(np.arange(len(count)), count)
    evening = random.random(len(user)) < shoppers.evening[user]
    drawn = random.random(len(user))
    hour = np.where(
        evening, np.searchsorted(_EVENING_BY, drawn), np.searchsorted(_OFFICE_BY, drawn)
    )
    start = day_ms + ((hour + random.random(len(user))) * 3_600_000).astype(np.int64)
    first_ms = day_ms + ((shoppers.arrival - day) * DAY_MS).astype(np.int64)
    after = start > first_ms[user]
    new = np.flatnonzero((shoppers.arrival >= day) & (shoppers.arrival < day + 1))
    return _Visits(
        np.concatenate([user[after], new]), np.concatenate([start[after], first_ms[new]])
    )


def _events(
    random: np.random.Generator, shoppers: Shoppers, visits: _Visits, *, on_sale: bool, visited: int
) -> EventBatch:
    """What happens on visits: a look around, views, carts, an order, and later its refund."""
    user, start = visits
    sessions = visited + np.arange(len(user))
    boost = shoppers.sale[user] if on_sale else np.ones(len(user))

    # Views, one after the other; `visit` is the visit of each.
    views = random.geometric(1 / shoppers.views[user])
    visit = np.repeat(np.arange(len(user)), views)
    gaps = 4_000 + (random.exponential(42_000, len(visit))).astype(np.int64)
    ends = np.cumsum(views) - 1
    passed = np.cumsum(gaps)
    before = np.repeat(passed[ends - views + 1] - gaps[ends - views + 1], views)
    viewed_at = start[visit] + passed - before
    category = _tastes(random, shoppers, user, visit)
    price = _PRICES[category] * random.lognormal(0.0, 0.4, len(visit)) * (0.8 if on_sale else 1.0)

    orders = random.random(len(user)) < np.minimum(shoppers.orders[user] * boost, 0.8)
    added = random.random(len(visit)) < shoppers.adds[user[visit]]
    added[ends[orders]] = True  # nobody orders an empty cart
    added_at = viewed_at + random.integers(2_000, 30_000, len(visit))

    browsing = np.flatnonzero(random.random(len(user)) < 0.25)
    searching = random.random(len(browsing)) < 0.4
    bought = np.flatnonzero(orders)
    last = ends[bought]
    ordered_at = added_at[last] + random.integers(20_000, 240_000, len(bought))
    pieces = 1 + random.poisson(shoppers.items[user[bought]] - 1)
    worth = shoppers.basket[user[bought]] * random.lognormal(0.0, 0.45, len(bought))
    worth = np.round(worth * (0.8 if on_sale else 1.0), 2)
    sent_back = np.flatnonzero(random.random(len(bought)) < shoppers.refunds[user[bought]])
    whole = random.random(len(sent_back)) < 0.6
    share = np.where(whole, 1.0, random.uniform(0.2, 0.8, len(sent_back)))
    refunded_at = ordered_at[sent_back] + random.integers(2 * DAY_MS, 12 * DAY_MS, len(sent_back))

    first_category = category[ends - views + 1]
    return _joined(
        [
            _of(
                start[browsing], user[browsing], np.where(searching, _SEARCHED, _LISTED),
                first_category[browsing], session=sessions[browsing],
            ),
            _of(
                viewed_at, user[visit], _VIEWED, category,
                money=np.round(price, 2), session=sessions[visit],
            ),
            _of(
                added_at[added], user[visit[added]], _ADDED, category[added],
                quantity=1, money=np.round(price[added], 2), session=sessions[visit[added]],
            ),
            _of(
                ordered_at, user[bought], _ORDERED, category[last],
                quantity=pieces, money=worth, session=sessions[bought],
            ),
            _of(
                refunded_at, user[bought[sent_back]], _REFUNDED, category[last[sent_back]],
                quantity=np.ceil(pieces[sent_back] * share),
                money=np.round(worth[sent_back] * share, 2),
            ),
        ]
    )  # fmt: skip


def _tastes(
    random: np.random.Generator, shoppers: Shoppers, user: Ints, visit: Ints
) -> npt.NDArray[np.int64]:
    """A category for each view: mostly a favourite, the first one most of all."""
    favourite = np.minimum(random.geometric(0.55, len(visit)) - 1, 2)
    anything = random.random(len(visit)) < 0.2
    chosen: npt.NDArray[np.int64] = np.where(
        anything,
        random.integers(0, len(CATEGORIES), len(visit)),
        shoppers.favourites[user[visit], favourite],
    )
    return chosen


def _of(
    time_ms: Ints,
    user: Ints,
    event: Any,
    category: npt.NDArray[Any],
    *,
    quantity: Any = 0,
    money: Any = np.nan,
    session: Any = -1,
) -> EventBatch:
    count = len(time_ms)

    def column(values: Any, kind: Any) -> Any:
        return np.broadcast_to(np.asarray(values).astype(kind), (count,))

    return EventBatch(
        time_ms, np.zeros(count, np.int64), column(user, np.int64), column(event, np.int8),
        column(category, np.int8), column(quantity, np.int64), column(money, np.float64),
        column(session, np.int64),
    )  # fmt: skip


def _empty() -> EventBatch:
    none = np.empty(0, np.int64)
    return _of(none, none, none, none)


def _joined(parts: list[EventBatch]) -> EventBatch:
    return EventBatch(
        *(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(EventBatch))
    )


def _numbered(batch: EventBatch, first: int) -> EventBatch:
    """Numbers in the order of time, so that equal ones in a batch have a fixed order."""
    order = np.argsort(batch.time_ms, kind="stable")
    ordered = {f.name: getattr(batch, f.name)[order] for f in fields(batch)}
    return EventBatch(**(ordered | {"number": first + np.arange(len(batch))}))


# -- to messages -------------------------------------------------------------------------------


def encode(batch: EventBatch, seed: int) -> list[Outgoing]:
    """The records of a batch, in its order; the encoder is that of `replay`.

    Args:
        batch: the events.
        seed: of the simulation; keeps the message ids of several apart.
    """
    out = []
    columns = zip(
        batch.time_ms.tolist(),
        iso_texts(batch.time_ms),
        batch.number.tolist(),
        batch.user.tolist(),
        batch.event.tolist(),
        batch.category.tolist(),
        batch.quantity.tolist(),
        batch.money.tolist(),
        batch.session.tolist(),
        strict=True,
    )
    for time_ms, timestamp, number, user, event, category, quantity, money, session in columns:
        bought = event >= _ORDERED
        amount = None if money != money else money  # noqa: PLR0124 - NaN is none
        who = user_id(user)
        message = TrackMessage(
            EVENTS[event],
            who,
            f"s{seed}-{number}",
            timestamp,
            MessageProperties(
                category=CATEGORIES[category],
                quantity=quantity or None,
                price=None if bought else amount,
                revenue=amount if bought else None,
            ),
            None if session < 0 else MessageContext(f"s{seed}-v{session}"),
        )
        out.append(Outgoing(int(_TOPICS[event]), who.encode(), encode_message(message), time_ms))
    return out


# -- running the shop --------------------------------------------------------------------------


@dataclass
class ShopReport:
    """What was sent; the kinds add up to the records on the topics, marks aside.

    Attributes:
        events: good events, each once.
        duplicates: records sent a second time.
        malformed: records that no worker can read.
        late: events too old to count.
        reactions: orders that campaigns brought about.
        marks: ticks of the shop's clock, each written into every partition.
        users: shoppers who came.
        complete: False if it was stopped before the end.
    """

    events: int = 0
    duplicates: int = 0
    malformed: int = 0
    late: int = 0
    reactions: int = 0
    marks: int = 0
    users: int = 0
    first_event_ms: int | None = None
    last_event_ms: int | None = None
    seconds: float = 0.0
    complete: bool = True

    @property
    def records(self) -> int:
        return self.events + self.duplicates + self.malformed + self.late + self.reactions


_DUPLICATE, _LATE, _MALFORMED = range(3)
_FAULT_SHARES = (0.6, 0.25, 0.15)
"""Of the faults: repeats are what real trackers do most, garbage least."""

_GARBAGE: tuple[Callable[[bytes], bytes], ...] = (
    lambda _: b"",
    lambda good: good[: len(good) // 2],
    lambda _: b"\xff\xfe not JSON at all",
    lambda _: b'["a list"]',
    lambda good: good.replace(b'"event":', b'"incident":'),
    lambda good: good.replace(b'"userId":"', b'"userId":"","whoever":"'),
    lambda good: good.replace(b'"timestamp":"', b'"timestamp":"the day before yesterday","was":"'),
    lambda good: good.replace(b'"userId":"', b'"userId":"undefined","was":"'),
)


def run_shop(
    settings: Settings,
    signer: MarkSigner | None,
    *,
    seed: int,
    users: int,
    days: int,
    seconds: float | None,
    stop: Callable[[], bool] | None = None,
    progress: Callable[[Progress], None] | None = None,
    faults: float = 0.0,
    reactions: Reactions | None = None,
    start_ms: int = SHOP_START_MS,
    live_rate: float | None = None,
    clock: Clock = CLOCK,
    make_producer: Callable[[dict[str, Any]], Producer] = Producer,
) -> ShopReport:
    """Run a simulated shop on the input topics.

    Args:
        settings: names broker and topics; in watermark mode marks are written.
        signer: signs the marks; None writes none even in watermark mode.
        seed: decides everything that is sent.
        users: shoppers who will have come by the end.
        days: length in shop days.
        seconds: length by the wall clock, its nights as short as its days; None: at once.
        stop: asked now and then; a yes ends it early, with its last mark.
        progress: is told how far it is, in days.
        faults: share of events that are accompanied by a duplicate, a record that cannot be
            read, or a copy of the event that is too late; the events themselves are as without.
        reactions: of shoppers to campaigns, whose orders go between the others, and are counted apart;
            None for shoppers to whom nobody writes.
        start_ms: midnight, UTC, of the first day.
        live_rate: events a second, each of which happens when it is sent, whatever the shop's time;
            None for events at the shop's times.
        clock: what time it is.
        make_producer: makes a producer from its options.

    Raises:
        BrokerUnavailableError: no broker answers.
        TopicMissingError: an input topic does not exist.
        ConfigError: the input topics have different numbers of partitions.
        DeliveryError: a record was not delivered.
    """
    started = clock.monotonic()
    report = ShopReport()
    life = simulate(seed, users, days, start_ms)
    speed: Speed = "max" if not seconds else days * DAY_MS / 1_000 / seconds
    if live_rate is not None:
        speed, life = 1.0, _as_they_are_sent(life, round(clock.now() * 1_000), live_rate)
    mischief = _Mischief(seed, faults, round(settings.worker.late_seconds * 1_000))
    came = np.zeros(users, dtype=np.bool_)
    with InputWriter(
        settings,
        signer,
        speed=speed,
        # The local broker slows down at some 5,000 batches a partition: a batch every 20 ms is
        # well below for a demo of a minute, a longer one takes larger batches.
        linger_seconds=max(0.02, (seconds or 0.0) / 4_000),
        stop=stop,
        clock=clock,
        make_producer=make_producer,
    ) as writer:
        try:
            for day, batch in enumerate(life):
                kinds = mischief.draw(len(batch))
                for index, (out, kind) in enumerate(zip(encode(batch, seed), kinds, strict=True)):
                    writer.send(*out)
                    report.events += 1
                    came[batch.user[index]] = True
                    if reactions is not None:
                        if batch.event[index] == _ORDERED:
                            reactions.ordered(out.key.decode(), out.time_ms)
                        if report.events % REACT_EVENTS == 0:
                            for order in reactions.due(out.time_ms):
                                writer.send(*order)
                                report.reactions += 1
                    if kind is not None:
                        mischief.send(writer, out, kind, report)
                    if progress is not None and report.events % 500 == 0:
                        progress(Progress("sending", day, days, out.time_ms))
        except Stopped:
            report.complete = False
        report.first_event_ms, report.last_event_ms = writer.first_ms, writer.last_ms
        try:
            writer.finish()
        finally:
            report.marks = writer.marks
    report.users = int(np.count_nonzero(came))
    report.seconds = clock.monotonic() - started
    return report


def _as_they_are_sent(
    life: Iterator[EventBatch], start_ms: int, rate: float
) -> Iterator[EventBatch]:
    """The same events, so many a second from a time on."""
    sent = 0
    for batch in life:
        place = sent + np.arange(len(batch))
        sent += len(batch)
        yield replace(batch, time_ms=start_ms + (place * (1_000 / rate)).astype(np.int64))


def run_shop_at_rate(
    settings: Settings,
    signer: MarkSigner | None,
    *,
    rate: float,
    seed: int,
    users: int,
    days: int,
    faults: float = 0.0,
    stop: Callable[[], bool] | None = None,
    progress: Callable[[Progress], None] | None = None,
    clock: Clock = CLOCK,
    make_producer: Callable[[dict[str, Any]], Producer] = Producer,
) -> ShopReport:
    """Run a simulated shop by the clock of the settings; see `run_shop`.

    By the wall clock every event happens when it is sent. By marks the shop's days are those before today, and
    its clock goes so fast that there are as many events a second by the mean.
    """
    live_rate = seconds = None
    today_ms = round(clock.now() * 1_000) // DAY_MS * DAY_MS
    if settings.clock.mode == "live":
        live_rate = rate
    else:
        seconds = sum(map(len, simulate(seed, users, days))) / rate
    return run_shop(
        settings, signer, seed=seed, users=users, days=days, seconds=seconds, stop=stop,
        progress=progress, faults=faults, start_ms=today_ms - days * DAY_MS, live_rate=live_rate,
        clock=clock, make_producer=make_producer,
    )  # fmt: skip


class _Mischief:
    """Sends on purpose what goes wrong in real shops; draws apart from the simulation."""

    def __init__(self, seed: int, share: float, late_ms: int) -> None:
        self._random = np.random.default_rng([seed, 1])
        self._share = share
        self._late_ms = late_ms
        self._sent = 0

    def draw(self, count: int) -> list[int | None]:
        """For each event the kind of fault that goes with it, mostly none."""
        faulty = (self._random.random(count) < self._share).tolist()
        kinds = self._random.choice(len(_FAULT_SHARES), count, p=_FAULT_SHARES).tolist()
        return [kind if bad else None for bad, kind in zip(faulty, kinds, strict=True)]

    def send(self, writer: InputWriter, out: Outgoing, kind: int, report: ShopReport) -> None:
        topic, key, value, time_ms = out
        if kind == _DUPLICATE:
            writer.send(topic, key, value, time_ms)
            report.duplicates += 1
        elif kind == _LATE:
            old = iso(time_ms - self._late_ms - DAY_MS).encode()
            late = value.replace(b'"messageId":"', b'"messageId":"late-')
            writer.send(topic, key, late.replace(iso(time_ms).encode(), old), time_ms)
            report.late += 1
        else:
            garbage = _GARBAGE[self._sent % len(_GARBAGE)](value)
            self._sent += 1
            writer.send(topic, key, garbage, time_ms)
            report.malformed += 1


# -- records for a benchmark -------------------------------------------------------------------

_BLOCK = 50_000


def bench_events(
    n: int, users: int, seed: int, *, start_ms: int, events_per_second: float = 20_000.0
) -> Iterator[tuple[bytes, bytes, int]]:
    """Ready-made records of about 245 bytes, made fast; no shop, only its load.

    Args:
        n: how many.
        users: keys to draw from, by a zipf law: few shoppers do much.
        seed: decides everything.
        start_ms: event time of the first. Give the records this time or produce them at about
            this time, or a worker counts them as late or future.
        events_per_second: event times advance at this rate.

    Yields:
        Key, value, and index of the input topic (about 92 % views, 5 % carts, 3 % orders).
    """
    random = np.random.default_rng([seed, users])
    weights = np.cumsum(1 / np.arange(1, users + 1))
    names = [b"u%07d" % number for number in random.permutation(users)]
    categories = [name.encode() for name in CATEGORIES]
    for first in range(0, n, _BLOCK):
        count = min(_BLOCK, n - first)
        who = np.searchsorted(weights, random.random(count) * weights[-1])
        kinds = random.choice(3, count, p=(0.92, 0.05, 0.03))
        price = np.round(random.lognormal(3.5, 0.6, count), 2)
        times = start_ms + ((first + np.arange(count)) * (1_000 / events_per_second)).astype(int)
        columns = zip(
            who.tolist(),
            kinds.tolist(),
            random.integers(0, len(categories), count).tolist(),
            random.integers(0, 100_000, count).tolist(),
            (1 + random.poisson(1.0, count)).tolist(),
            price.tolist(),
            iso_texts(times),
            strict=True,
        )
        for number, (user, kind, category, product, pieces, money, at) in enumerate(columns, first):
            key = names[user]
            yield (
                key,
                _TEMPLATES[kind]
                % (key, seed, number, at.encode(), product, categories[category], pieces, money),
                1 if kind == 2 else 0,
            )


def _template(event: str, money: str) -> bytes:
    return (
        f'{{"type":"track","event":"{event}","userId":"%b","messageId":"bench-%04d-%010d",'
        f'"timestamp":"%b","properties":{{"product_id":"product-%06d","category":"%b",'
        f'"quantity":%d,"{money}":%.2f,"currency":"EUR"}}}}'
    ).encode()


_TEMPLATES = (
    _template("Product Viewed", "price"),
    _template("Product Added", "price"),
    _template(ORDER_COMPLETED, "revenue"),
)
