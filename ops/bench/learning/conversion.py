"""Decides what a shop of few buyers looks like, and whether each kind of shopper has a segment.

Comes in: a share of buyers. Goes out: of five known groups, how many of their users are in segments of
their own, as the library finds them from vectors and as the pipeline finds them from events. ``__main__``
sweeps the share from 30 % to .3 %; it states what it measured and asserts nothing.

- *best* order every few weeks until now. *Lapsed* ordered once to thrice, long ago. *Once* ordered
  one time, lately. *Browsing* look a lot, lately, and never ordered. *Passing* looked once, some day.
- *of their own*: a segment is a group's own if more than half of its users are of that group. The
  *share* is that of the group's users who are in such segments.
- *largest*: the share of the group's users in the segment that most of them are in, if that is their
  own; 0 if it is not. Above a half, the group has its majority in one segment of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stream.config import Settings
from stream.events import EventColumns, Floats, Ints
from stream.features import FeatureTable
from stream.partition import Partition
from stream.populations import AUTO, DEFAULT_POPULATIONS, Population
from stream.rehearsal import Rehearsal
from stream.segmenter import Segmenter
from stream.units import DAY_MS

GROUPS = ("best", "lapsed", "once", "browsing", "passing")
BEST, LAPSED, ONCE, BROWSING, PASSING = range(5)
RATES = (0.3, 0.1, 0.03, 0.01, 0.003)
USERS = 24_000
"""At .3 % that is 72 buyers, 24 of whom have lapsed: with fewer than 20 a population has no model."""
FEATURES = (
    "days_since_seen",
    "days_since_order",
    "tenure_days",
    "orders_total",
    "orders_180d",
    "spent_180d",
    "views_7d",
    "views_30d",
    "carts_7d",
    "sessions_30d",
)
DAYS = 300
MARK_DAYS = 10
START_MS = 1_700_000_000_000
ORDER, VIEW = "Order Completed", "Product Viewed"
SUGGESTED = tuple(one.model_copy(update={"segments": AUTO}) for one in DEFAULT_POPULATIONS)
"""The default populations, each with as many segments as its users suggest."""
MATCHED = tuple(
    one.model_copy(update={"segments": k})
    for one, k in zip(DEFAULT_POPULATIONS, (2, 1, 2), strict=True)
)
"""The default populations, each with as many segments as it has groups."""


class Found(NamedTuple):
    """Of each group, see the module.

    Attributes:
        segments: how many there are in all.
    """

    share: dict[str, float]
    largest: dict[str, float]
    segments: int


def groups(rng: np.random.Generator, users: int, rate: float) -> Ints:
    """The group of each user: a third of the buyers have lapsed, a third of the others browse."""
    buyers = round(users * rate)
    best, lapsed, browsing = buyers // 4, buyers // 3, (users - buyers) // 3
    counts = (best, lapsed, buyers - best - lapsed, browsing, users - buyers - browsing)
    return rng.permutation(np.repeat(np.arange(5), counts))


def judged(truth: Ints, segments: Ints) -> Found:
    """How much of each group is in segments of its own; 0 is no segment."""
    ids = np.unique(segments[segments > 0])
    inside = np.array([[np.sum((segments == i) & (truth == g)) for i in ids] for g in range(5)])
    own = inside > inside.sum(axis=0) / 2
    sizes = np.maximum(np.bincount(truth, minlength=5), 1)
    share = np.where(own, inside, 0).sum(axis=1) / sizes
    most = inside.argmax(axis=1)
    groups = np.arange(5)
    largest = np.where(own[groups, most], inside[groups, most], 0) / sizes
    return Found(
        dict(zip(GROUPS, share.tolist(), strict=True)),
        dict(zip(GROUPS, largest.tolist(), strict=True)),
        len(ids),
    )


# -- vectors -------------------------------------------------------------------------------------


def vectors(rng: np.random.Generator, truth: Ints) -> Floats:
    """A vector of each user, `FEATURES` in natural units."""

    def about(*typical: float, spread: float = 0.5) -> Floats:
        """Log-normal about a typical value of each group; nothing where that is 0."""
        found: Floats = np.array(typical)[truth] * rng.lognormal(0, spread, len(truth))
        return found

    buys = truth <= ONCE
    seen = np.minimum(about(4, 280, 40, 5, 60), np.where(truth == LAPSED, 1_000, 110))
    seen = np.where(truth == LAPSED, np.maximum(seen, 125), seen)
    orders = np.select(
        [truth == BEST, truth == LAPSED, truth == ONCE],
        [rng.poisson(9, len(truth)) + 3, rng.poisson(1, len(truth)) + 1, 1],
        0,
    ).astype(float)
    since = np.where(buys, seen + rng.exponential(2, len(truth)), 400.0)
    faded = orders * np.exp2(-since / 180)
    return np.column_stack(
        [
            seen,
            since,
            seen + about(120, 120, 5, 60, 2),
            orders,
            faded,
            faded * about(60, 40, 50, 0, 0),
            about(12, 0, 0.5, 10, 0.05),
            about(40, 0.01, 3, 25, 0.8),
            about(2, 0, 0.1, 0.5, 0.005),
            about(8, 0.01, 1, 6, 0.5),
        ]
    )


def in_library(
    rate: float, seed: int, users: int, populations: Sequence[Population], segments: int = 6
) -> Found:
    """What `Segmenter` finds: everyone comes twice, each time a little different."""
    rng = np.random.default_rng(seed)
    truth = groups(rng, users, rate)
    own = vectors(rng, truth)
    segmenter = Segmenter(
        FEATURES,
        segments,
        populations=populations,
        weights={"orders_total": 0.0},
        round_updates=users // 6,
    )
    everyone, step = np.arange(users), 2_000
    for time in (0, 1):
        for begin in range(0, users, step):
            some = slice(begin, begin + step)
            here = own[some] * rng.lognormal(0, 0.05, own[some].shape)
            here[:, [0, 3]] = own[some][:, [0, 3]]  # what a rule looks at does not tremble
            segmenter.update(everyone[some], here, time * 86_400.0 + begin)
    return judged(truth, segmenter.segment_of(everyone))


# -- events --------------------------------------------------------------------------------------


class Shop(NamedTuple):
    """What users did, in the order of time, a column a field."""

    user: Ints
    time_ms: Ints
    is_order: Ints


def events(rng: np.random.Generator, truth: Ints) -> Shop:
    """What users did in `DAYS` days."""
    found: list[tuple[Ints, Floats, bool]] = []

    def add(who: Ints, days: Floats, *, order: bool = False) -> None:
        found.append((who, np.clip(days, 0.0, DAYS - 0.01), order))

    best, lapsed, once, browsing, passing = (np.flatnonzero(truth == g) for g in range(5))
    for visit in range(14):
        days = DAYS - 3 - visit * 21 + rng.uniform(0, 3, len(best))
        add(best, days, order=True)
        for _ in range(3):
            add(best, days - rng.uniform(0.0, 0.5, len(best)))
    for _ in range(2):
        some = lapsed[rng.random(len(lapsed)) < 0.7]
        add(some, rng.uniform(5, 100, len(some)), order=True)
    add(lapsed, rng.uniform(5, 100, len(lapsed)), order=True)
    day = rng.uniform(DAYS - 70, DAYS - 10, len(once))
    add(once, day, order=True)
    for _ in range(3):
        add(once, day - rng.uniform(0, 0.2, len(once)))
    for _ in range(24):
        add(browsing, DAYS - rng.uniform(0, 25, len(browsing)))
    day = rng.uniform(0, DAYS, len(passing))
    for _ in range(2):
        add(passing, day + rng.uniform(0, 0.02, len(passing)))
    user = np.concatenate([who for who, _, _ in found])
    days = np.concatenate([when for _, when, _ in found])
    is_order = np.concatenate([np.full(len(who), order) for who, _, order in found]).astype(
        np.int64
    )
    order = np.argsort(days, kind="stable")
    return Shop(user[order], (START_MS + days[order] * DAY_MS).astype(np.int64), is_order[order])


def _columns(shop: Shop, some: slice, table: FeatureTable) -> Callable[[Partition], EventColumns]:
    """Events as a partition folds them."""

    def made(partition: Partition) -> EventColumns:
        user, time_ms, is_order = (column[some] for column in shop)
        users = len(user)
        codes = np.array([table.codes[VIEW], table.codes[ORDER]], np.uint8)
        return EventColumns(
            slot=partition.slots([f"u{number}" for number in user.tolist()]),
            topic=is_order.astype(np.uint8),
            kind=codes[is_order],
            time_ms=time_ms,
            id=np.arange(some.start + 1, some.start + 1 + users, dtype=np.uint64),
            value=40.0 * is_order.astype(np.float64),
            quantity=is_order.astype(np.float64),
            category=np.where(is_order, 0, 1 + user % 7).astype(np.uint64),
            order=np.zeros(users, np.uint64),
            whole=np.zeros(users, np.bool_),
            rate=np.ones(users),
            currency=np.zeros(users, np.uint32),
            recorded_ms=time_ms,
        )

    return made


def in_pipeline(rate: float, seed: int, users: int, settings: Mapping[str, Any]) -> Found:
    """What an owner and a trainer in memory find: a mark every ten days, each with a refit."""
    rng = np.random.default_rng(seed)
    truth = groups(rng, users, rate)
    shop = events(rng, truth)
    rehearsal = Rehearsal(
        Settings.model_validate({"learning": {"refit_seconds": f"{MARK_DAYS}d"}, **settings})
    )
    begin = 0
    for day in range(MARK_DAYS, DAYS + 1, MARK_DAYS):
        at_ms = START_MS + day * DAY_MS
        end = int(np.searchsorted(shop.time_ms, at_ms))
        rehearsal.fold([_columns(shop, slice(begin, end), rehearsal.table)])
        rehearsal.mark(at_ms)
        begin = end
    partition = rehearsal.partition
    place = np.array([int(name[1:]) for name in partition.names])
    segments = np.zeros(users, np.int64)
    segments[place] = partition.rows["segment"]
    return judged(truth, segments)


# -- the sweep -----------------------------------------------------------------------------------

WAYS: dict[str, Callable[[float, int, int], Found]] = {
    "library, one population of 8": lambda rate, seed, users: in_library(rate, seed, users, (), 8),
    "library": lambda rate, seed, users: in_library(rate, seed, users, DEFAULT_POPULATIONS),
    "library, k as groups": lambda rate, seed, users: in_library(rate, seed, users, MATCHED),
    "library, k suggested": lambda rate, seed, users: in_library(rate, seed, users, SUGGESTED),
    "pipeline": lambda rate, seed, users: in_pipeline(rate, seed, users, {}),
    "pipeline, k as groups": lambda rate, seed, users: in_pipeline(
        rate, seed, users, {"populations": MATCHED}
    ),
    "pipeline, k suggested": lambda rate, seed, users: in_pipeline(
        rate, seed, users, {"populations": SUGGESTED}
    ),
}
"""By title: how it is found from a share of buyers, a seed and a number of users."""


def sweep(
    seeds: Sequence[int], users: int = USERS, tell: Callable[[str], None] = lambda _: None
) -> list[dict[str, Any]]:
    """Every way at every rate; each share the least over the seeds."""
    rows = []
    for title, find in WAYS.items():
        for rate in RATES:
            tell(f"conversion {rate:.1%}, {title}")
            found = [find(rate, seed, users) for seed in seeds]
            rows.append(
                {
                    "way": title,
                    "rate": rate,
                    "segments": [one.segments for one in found],
                    "share": {name: min(one.share[name] for one in found) for name in GROUPS},
                    "largest": {name: min(one.largest[name] for one in found) for name in GROUPS},
                }
            )
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The sweep in Markdown: share of each group in segments of its own, and in the largest."""
    lines = [
        "| found by | buyers | segments | " + " | ".join(GROUPS) + " |",
        "|---|---|---|" + "---|" * len(GROUPS),
    ]
    for row in rows:
        cells = [f"{row['share'][name]:.0%} ({row['largest'][name]:.0%})" for name in GROUPS]
        counts = sorted(set(row["segments"]))
        told = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        lines.append(f"| {row['way']} | {row['rate']:.1%} | {told} | " + " | ".join(cells) + " |")
    return lines
