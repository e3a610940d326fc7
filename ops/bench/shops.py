"""Holds names and kinds against what shoppers are and what they do next, in shops of many rhythms.

``python -m ops.bench.shops`` plays the shared shops, the demo's shop and made ones (`shops_made`)
through `stream.rehearsal`, an owner and a trainer in memory, and looks at everyone at each month's end.
``--append`` adds a dated section to ``results/shops.md``. What the numbers mean:

- *false words*: of the words in the names of segments, at each month's end: one is false if it does
  not hold, in natural units, of the segment's median member, or of less than eight in ten members.
  It is held against the limits of the settings, and against the wider ones of `PLAIN_SENSE` and
  `PLAIN_TIMES`, which nothing else reads. Members are those published in the segment, all of them. A word
  that speaks against the kind is false too, and so is a name given twice.
- *foretold*: the share of a kind's customers who order within 90 days of a month's end, with its
  95 % interval (Wilson 1927). Two kinds *touch* if their intervals do, and are *reversed* if the
  lower one buys more; kinds of less than 30 customers are not judged. Whoever never ordered is not in it.
- *too few*: of the pairs that touch or are reversed, those whose intervals touch and of whom there are
  too few to say: a difference of `APART` would show in less than eight in ten such samples.
  *Reversed for certain*: those reversed pairs whose intervals do not touch.
- *AUC*: how well a customer's segment, and a customer's cell in a grid of three bands of recency (30
  and 90 days) by three of orders (1, up to 4, more), rank who orders within 90 days; each segment
  and cell by the share in it that does. *Crossed*: by the share among the other half of its customers,
  so that many small cells gain nothing by chance.
- *dormant*: segments of that kind, at the most at any month's end.
- *taken back*: of changes of segment, those *reverted* as `year` has it, within thirty days.
- *kinds a year*: how often a customer is told another kind, and in brackets how often their cell in the
  grid changes from one day to the next.
- *lifted*: users told a better kind without an act of theirs. *New again*: users told that they are new
  who were told another kind before.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from consumers.decode import Decoder
from ops.bench import command
from ops.bench.report import measured_on
from ops.bench.shops_made import JUDGED, MADE, START_MS, Made, columns, made_events
from ops.bench.year import Changes, GridCells, grid, month_of, share
from producers.mapping import MappingError, load_mapping
from producers.texts import FileError
from producers.traffic import EventBatch, encode, simulate
from stream.config import ConfigError, Settings
from stream.events import Bools, EventColumns, Floats, Ints, SegmentChange
from stream.features.terms import PLACED
from stream.kinds import Members, ladder
from stream.model import PopulationModel
from stream.naming import Truth, kept_by, words_of
from stream.partition import Partition
from stream.rehearsal import Rehearsal
from stream.segments import columns_of
from stream.units import DAY_MS, iso
from stream.wiring import demo
from stream.wiring.history import StampedMessage, open_history

RESULTS = Path(__file__).parent / "results" / "shops.md"
DATA = Path(__file__).parents[3] / "shared" / "data"
FILES = (
    ("Online Retail", DATA / "online_retail_uk.csv.gz", "online_retail", "1d", "7d"),
    ("Taobao", DATA / "taobao_behavior_9days.csv.gz", "taobao", "6h", "1d"),
    ("REES46", DATA / "rees46_multicategory_3h.csv.gz", "rees46", "10m", "30m"),
)
"""Name, file, mapping, and shop time between marks and between refits."""
DEMO = "demo's shop"
CHAIN = ("champion", "loyal", "promising", "at_risk", "dormant")
HORIZON_MS = 90 * DAY_MS
FEWEST = 30
APART = 0.1
"""Two kinds that buy more alike than this are of one use to whoever writes to them."""
POWER = 2.8
"""Standard errors at which eight in ten samples show a difference at the 95 % level: 1.96 + .84."""
SHARE = 0.8
DEMO_USERS, DEMO_DAYS = 6_000, 42

PLAIN_SENSE: dict[str, dict[str, tuple[float, float]]] = {
    "recent": {"days_since_seen": (0, 14)},
    "silent": {"days_since_seen": (14, np.inf)},
    "ordered recently": {"days_since_order": (0, 30)},
    "no recent order": {"days_since_order": (30, np.inf)},
    "newcomers": {"tenure_days": (0, 60)},
    "long known": {"tenure_days": (120, np.inf)},
    "ordering now": {"orders_30d": (0.8, np.inf), "days_since_order": (0, 30)},
    "few orders lately": {"orders_30d": (-np.inf, 1)},
    "frequent": {"orders_180d": (2, np.inf)},
    "rare orders": {"orders_180d": (-np.inf, 2)},
    "spending now": {"days_since_order": (0, 30)},
    "high value": {"revenue_180d": (1e-9, np.inf)},
    "big baskets": {"basket_value": (1e-9, np.inf)},
    "small baskets": {"basket_value": (1e-9, np.inf)},
    "no refunds": {"refunds_180d": (-np.inf, 0.1)},
    "sends back": {"refunds_180d": (0.3, np.inf)},
    "browsing now": {"days_since_seen": (0, 0.1)},
    "browsed today": {"days_since_seen": (0, 1)},
    "browses a lot": {"views_7d": (5, np.inf), "days_since_seen": (0, 14)},
    "hardly browses": {"views_7d": (-np.inf, 1)},
    "many visits": {"days_since_seen": (0, 30)},
    "fills carts": {"carts_7d": (1, np.inf)},
    "broad taste": {"categories_7d": (2, np.inf)},
    "little time browsing": {"browse_seconds_7d": (-np.inf, 300)},
    "much time browsing": {"browse_seconds_7d": (600, np.inf)},
    "few visits": {"sessions_7d": (-np.inf, 1)},
    "nothing in carts lately": {"carts_7d": (-np.inf, 0.5)},
    "narrow taste": {"categories_7d": (0.1, 2)},
    "looks only": {"orders_30d": (-np.inf, 0.1)},
    "buys when visiting": {"orders_30d": (0.3, np.inf)},
}
"""What words mean to anybody, wherever the settings put the limit: a range for each feature."""
PLAIN_TIMES: dict[str, dict[str, tuple[float, float]]] = {
    "low spend lately": {"revenue_30d": (-np.inf, 0.8)},
    "spending now": {"revenue_30d": (0.8, np.inf)},
    "low value": {"revenue_180d": (-np.inf, 0.8)},
    "high value": {"revenue_180d": (1.3, np.inf)},
    "small baskets": {"basket_value": (-np.inf, 0.9)},
    "big baskets": {"basket_value": (1.1, np.inf)},
}
"""The same of money: times the median of those of the population who have any."""
AGAINST: dict[str, tuple[str, ...]] = {
    "at_risk": ("recent", "ordering now", "spending now", "browsing now", "browsed today", "newcomers"),
    "dormant": (
        "recent", "ordering now", "spending now", "browsing now", "browsed today", "newcomers",
        "ordered recently", "frequent", "many visits", "browses a lot", "fills carts",
    ),
    "champion": ("silent", "no recent order", "rare orders", "looks only", "few orders lately"),
    "loyal": ("silent", "rare orders", "looks only", "newcomers"),
    "new": ("long known", "silent", "frequent"),
    "browsing": ("silent", "ordering now", "spending now", "frequent", "buys when visiting"),
}  # fmt: skip
"""Words that speak against a kind."""


class Shop(NamedTuple):
    """What is played.

    Attributes:
        play: folds events into a rehearsal and stops at each mark.
    """

    name: str
    settings: Settings
    play: Callable[[Rehearsal, Callable[[EventColumns], None]], Iterator[int]]


# -- shops ---------------------------------------------------------------------------------------


def settings_of(mark: str, refit: str, base: dict[str, Any] | None = None) -> Settings:
    told = dict(base or {})
    told["clock"] = {**told.get("clock", {}), "mode": "watermark", "mark_seconds": mark}
    told["learning"] = {**told.get("learning", {}), "refit_seconds": refit}
    return Settings.model_validate(told)


def of_file(name: str, file: Path, mapping: str, mark: str, refit: str) -> Shop:
    settings = settings_of(mark, refit)

    def play(rehearsal: Rehearsal, saw: Callable[[EventColumns], None]) -> Iterator[int]:
        def fold(parts: Sequence[Callable[[Partition], EventColumns]]) -> int:
            return rehearsal.fold([_seen(part, saw) for part in parts])

        step_ms = round(settings.clock.mark_seconds * 1_000)
        with open_history(settings, rehearsal.table, file, load_mapping(mapping)) as history:
            yield from history.play(fold, step_ms)

    return Shop(name, settings, play)


def of_made(made: Made, seed: int, base: dict[str, Any] | None = None) -> Shop:
    settings = settings_of("1d", "7d", base)

    def play(rehearsal: Rehearsal, saw: Callable[[EventColumns], None]) -> Iterator[int]:
        events = made_events(made, seed)
        names = [f"u{number}" for number in range(int(events.user.max()) + 1)]
        first = 0
        for day in range(made.days):
            today = events.between(START_MS + day * DAY_MS, START_MS + (day + 1) * DAY_MS)

            def fold(partition: Partition, today: Any = today, first: int = first) -> EventColumns:
                seen = np.unique(today.user)
                slots = np.zeros(len(names), np.int64)
                slots[seen] = partition.slots([names[user] for user in seen.tolist()])
                parts = list(columns(today, rehearsal.table, slots, first))
                return EventColumns.concatenate(parts)

            if len(today.user):
                rehearsal.fold([_seen(fold, saw)])
            first += len(today.user)
            yield START_MS + (day + 1) * DAY_MS

    return Shop(made.name, settings, play)


def of_demo(seed: int, batches: Iterable[EventBatch] | None = None) -> Shop:
    """The demo's shop.

    Args:
        batches: what happens there, a batch a day; None for what the seed makes happen.
    """
    text = demo.SETTINGS.format(bootstrap="none:1", url="redis://none", mark_hours=6)
    settings = Settings.model_validate(tomllib.loads(text))

    def play(rehearsal: Rehearsal, saw: Callable[[EventColumns], None]) -> Iterator[int]:
        decoder = Decoder(
            rehearsal.table, settings.worker, money=settings.money, ratings=settings.reviews
        )
        step_ms = round(settings.clock.mark_seconds * 1_000)
        mark_ms = 0
        for batch in batches or simulate(seed, DEMO_USERS, DEMO_DAYS):
            messages = encode(batch, seed)
            mark_ms = mark_ms or int(batch.time_ms[0]) // step_ms * step_ms + step_ms
            place = 0
            while place < len(messages):
                end = int(np.searchsorted(batch.time_ms, mark_ms))
                parts = []
                for topic in (0, 1):
                    some = [
                        StampedMessage(out.value, out.time_ms)
                        for out in messages[place:end]
                        if out.topic == topic
                    ]
                    if some:
                        parts.append(decoder.decode(some).batch(topic, 0, len(some)).columns)
                if parts:
                    rehearsal.fold([_seen(part, saw) for part in parts])
                if end < len(messages):
                    yield mark_ms
                    mark_ms += step_ms
                place = end
        yield mark_ms

    return Shop(DEMO, settings, play)


def _seen(
    part: Callable[[Partition], EventColumns], saw: Callable[[EventColumns], None]
) -> Callable[[Partition], EventColumns]:
    def told(partition: Partition) -> EventColumns:
        found = part(partition)
        saw(found)
        return found

    return told


# -- looking -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MonthEnd:
    """Everyone at a month's end; users are only ever added at the end.

    Attributes:
        kinds: of each user, as told to them; empty for nobody told.
        segments: 0 for none.
        silence: days since the last order.
    """

    at_ms: int
    kinds: list[str]
    segments: Ints
    silence: Floats


class FalseWord(NamedTuple):
    """A word that is not so."""

    at_ms: int
    name: str
    word: str
    why: str


@dataclass
class Seen:
    """What was seen of a shop."""

    words: int = 0
    names: int = 0
    numbered: int = 0
    wrong: list[FalseWord] = field(default_factory=list)
    renamed: int = 0
    ends: list[MonthEnd] = field(default_factory=list)
    lifted: int = 0
    new_again: int = 0
    dormant: int = 0
    kind_changes: Counter[str] = field(default_factory=Counter)
    changes: Changes = field(default_factory=Changes)
    cells: GridCells = field(default_factory=GridCells)
    customer_days: float = 0.0
    of_customers: int = 0
    in_grid: int = 0
    orders: list[tuple[Ints, Ints]] = field(default_factory=list)
    last_ms: int = 0


def look(shop: Shop, seen: Seen, rehearsal: Rehearsal, at_ms: int) -> None:
    """Take in a month's end."""
    model = rehearsal.state.model
    if model is None:
        return
    rows, table = rehearsal.partition.rows, rehearsal.table
    vectors = table.vectors(rows, at_ms)
    segments = rows["segment"].astype(np.int64)
    _words(shop, seen, rehearsal, vectors, segments, at_ms)
    told = rehearsal.partition.kinds_of(rows)
    silence = vectors[:, table.names.index("days_since_order")]
    seen.ends.append(MonthEnd(at_ms, told, segments, silence))


def _words(
    shop: Shop, seen: Seen, rehearsal: Rehearsal, vectors: Floats, segments: Ints, at_ms: int
) -> None:
    """Count words and names, and those that are false, among members as published."""
    model = rehearsal.state.model
    assert model is not None
    names = [segment.name for segment in model.segments]
    seen.names += len(names)
    seen.numbered += sum(name.endswith(")") for name in names)
    seen.dormant = max(seen.dormant, [one.kind for one in model.segments].count("dormant"))
    for name, times in Counter(names).items():
        if times > 1:
            seen.wrong.append(FalseWord(at_ms, name, "", "given twice"))
    for part in model.parts:
        labels = columns_of(segments.astype(np.int32), part.ids)
        some = labels >= 0
        members = Members(vectors[some], labels[some], rehearsal.table.names, len(part.segments))
        truth = Truth(rehearsal.table, members, shop.settings.learning.word_share)
        _words_of(part, seen, truth, at_ms)


def _words_of(part: PopulationModel, seen: Seen, truth: Truth, at_ms: int) -> None:
    """Count the words in the names of a population's segments, and those that are false."""
    table, members = truth.axes, truth.members
    for column, segment in enumerate(part.segments):
        here = members.vectors[members.labels == column]
        if not len(here):
            continue
        for word in words_of(segment.name):
            if word not in truth.claims:
                continue
            seen.words += 1
            found = [kept_by(limits, here, members) for limits in truth.claims[word]]
            if not any(
                kept_by(limits, members.typical[[column]], members)[0]
                for limits in truth.claims[word]
            ):
                seen.wrong.append(FalseWord(at_ms, segment.name, word, "of the median member"))
            elif (share := np.logical_or.reduce(found).mean()) < SHARE:
                seen.wrong.append(FalseWord(at_ms, segment.name, word, f"of {share:.0%}"))
            for name, low, high in _plainly(word, members):
                values = here[:, table.names.index(name)]
                inside = (values >= low) & (values <= high)
                median = float(np.median(values))
                if not low <= median <= high or inside.mean() < SHARE:
                    why = f"{name} is {median:.3g}, in {inside.mean():.0%} within plain sense"
                    seen.wrong.append(FalseWord(at_ms, segment.name, word, why))
            if word in AGAINST.get(segment.kind, ()):
                seen.wrong.append(FalseWord(at_ms, segment.name, word, "against the kind"))


def _plainly(word: str, members: Members) -> Iterator[tuple[str, float, float]]:
    """What a word means to anybody: feature, and the lowest and the highest value of it."""
    for name, (low, high) in PLAIN_SENSE.get(word, {}).items():
        yield name, low, high
    for name, (low, high) in PLAIN_TIMES.get(word, {}).items():
        values = members.vectors[:, members.names.index(name)]
        if (some := values[values > 0]).size:
            usual = float(np.median(some))
            yield name, low * usual, high * usual


def watch(shop: Shop) -> Seen:
    """Play a shop."""
    rehearsal, seen = Rehearsal(shop.settings), Seen()
    ordered = rehearsal.table.codes[PLACED]
    ranked = {rung.kind: rung.rank for rung in ladder(shop.settings.kinds)}

    def saw(events: EventColumns) -> None:
        which = events.kind == ordered
        if which.any():
            seen.orders.append((events.slot[which], events.time_ms[which]))

    names: dict[int, str] = {}
    step_ms = round(shop.settings.clock.mark_seconds * 1_000)
    looked_ms = 0
    for at_ms in shop.play(rehearsal, saw):
        changes = rehearsal.mark(at_ms).changes
        for change in changes:
            _kind_change(seen, change, ranked)
        seen.changes.add(changes, at_ms)
        _customers(seen, rehearsal, changes, at_ms)
        seen.last_ms = at_ms
        if (model := rehearsal.state.model) is not None:
            now = {segment.id: segment.name for segment in model.segments}
            seen.renamed += sum(now[one] != names[one] for one in now.keys() & names.keys())
            names = now
        if month_of(at_ms) != month_of(at_ms + step_ms):
            # Not when the next month has begun: what is folded by then nobody has looked at.
            look(shop, seen, rehearsal, at_ms)
            looked_ms = at_ms
    if looked_ms != seen.last_ms:
        look(shop, seen, rehearsal, seen.last_ms)
    return seen


def _customers(
    seen: Seen, rehearsal: Rehearsal, changes: Sequence[SegmentChange], at_ms: int
) -> None:
    """Count days and changes of kind of who had ordered at the mark before, and those of their cells."""
    if rehearsal.state.model is None:
        return
    before = seen.cells.cells
    seen.cells.see(rehearsal, at_ms)
    customer = before >= 0
    seen.customer_days += customer.sum() * (at_ms - seen.last_ms) / DAY_MS
    seen.in_grid += int((customer & (seen.cells.cells[: len(before)] != before)).sum())
    told = [c["user"] for c in changes if c["kind_from"] not in {None, c["kind_to"]}]
    slots = rehearsal.partition.slots(told)
    seen.of_customers += int(customer[slots[slots < len(before)]].sum())


def _kind_change(seen: Seen, change: Any, ranked: dict[str, int]) -> None:
    before, after = change["kind_from"], change["kind_to"]
    if before is None or before == after:
        return
    seen.kind_changes[change["cause"]] += 1
    rises = ranked.get(after, 0) > ranked.get(before, 0) > 0
    # A mark tells who acted since the one before.
    seen.lifted += rises and change["last_event_at"] <= iso(seen.last_ms)
    seen.new_again += after == "new" and before != "new"


# -- what comes of it ------------------------------------------------------------------------------


def wilson(part: int, whole: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    low, high = binomtest(part, whole).proportion_ci(method="wilson")
    return float(low), float(high)


def too_few(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether a difference of `APART` between two shares may well not show among so many.

    The error is that of shares with two more of either sort (Agresti and Caffo 2000): none and all
    of a few say little.
    """
    variance = 0.0
    for part, whole in (one, other):
        share = (part + 1) / (whole + 2)
        variance += share * (1 - share) / (whole + 2)
    return bool(POWER * np.sqrt(variance) > APART)


def crossed_share(groups: npt.NDArray[Any], bought: Bools) -> Floats:
    """Of each user, the share of the group that buys, among every other user; the mean where none is."""
    half = np.arange(len(bought)) % 2
    _, group = np.unique(groups, return_inverse=True)
    found = np.zeros(len(bought))
    for side in (0, 1):
        others = half != side
        users = np.bincount(group[others], minlength=group.max() + 1)
        shares = np.bincount(group[others], bought[others], minlength=group.max() + 1)
        known = (shares + bought.mean()) / (users + 1)
        found[half == side] = known[group[half == side]]
    return found


def by_share(groups: npt.NDArray[Any], bought: Bools) -> Floats:
    """Of each user, the share of the group that buys."""
    _, group = np.unique(groups, return_inverse=True)
    shares: Floats = np.bincount(group, bought) / np.bincount(group)
    return shares[group]


def foretold(seen: Seen) -> dict[str, Any]:
    """Kinds against what customers did in the 90 days after, month by month."""
    slots = np.concatenate([slot for slot, _ in seen.orders]) if seen.orders else np.empty(0, int)
    times = np.concatenate([time for _, time in seen.orders]) if seen.orders else np.empty(0, int)
    months, touching, reversed_, judged, few, certain = [], 0, 0, 0, 0, 0
    auc: dict[str, list[float]] = defaultdict(list)
    total: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for end in seen.ends:
        if end.at_ms + HORIZON_MS > seen.last_ms:
            continue
        users = len(end.segments)
        count = np.bincount(slots[(times <= end.at_ms) & (slots < users)], minlength=users)
        later = slots[(times > end.at_ms) & (times <= end.at_ms + HORIZON_MS) & (slots < users)]
        bought = np.bincount(later, minlength=users) > 0
        customer = (count > 0) & (end.segments > 0)
        kinds = np.array(end.kinds)[customer]
        shares: dict[str, tuple[int, int]] = {}
        for kind in sorted(set(kinds.tolist())):
            part, whole = int(bought[customer][kinds == kind].sum()), int((kinds == kind).sum())
            shares[kind] = part, whole
            total[kind][0] += part
            total[kind][1] += whole
        chain = [kind for kind in CHAIN if shares.get(kind, (0, 0))[1] >= FEWEST]
        for better, worse in pairwise(chain):
            judged += 1
            low, high = wilson(*shares[better])[0], wilson(*shares[worse])[1]
            (more, of), (less, of_less) = shares[better], shares[worse]
            turned = more / of <= less / of_less
            above = wilson(*shares[worse])[0] > wilson(*shares[better])[1]
            reversed_ += turned
            touching += not turned and low <= high
            certain += turned and above
            few += low <= high and not above and too_few(shares[better], shares[worse])
        yes = bought[customer]
        if 0 < yes.sum() < len(yes):
            cells = grid(end.silence[customer], count[customer].astype(float))
            for name, groups in (("segments", end.segments[customer]), ("grid", cells)):
                auc[name].append(roc_auc_score(yes, by_share(groups, yes)))
                auc[f"{name}_crossed"].append(roc_auc_score(yes, crossed_share(groups, yes)))
        months.append({"at": iso(end.at_ms), "kinds": shares})
    return {
        "months": months,
        "pairs": judged,
        "touching": touching,
        "reversed": reversed_,
        "too_few": few,
        "reversed_for_certain": certain,
        "kinds": {kind: (part, whole) for kind, (part, whole) in total.items()},
        **{
            f"auc_{name}": float(np.mean(auc[name])) if auc else None
            for name in ("segments", "grid", "segments_crossed", "grid_crossed")
        },
    }


def report_of(shop: Shop) -> dict[str, Any]:
    """A shop, played and held against itself."""
    began = time.perf_counter()
    seen = watch(shop)
    return {
        "shop": shop.name,
        "users": len(seen.ends[-1].segments) if seen.ends else 0,
        "names": seen.names,
        "numbered": seen.numbered,
        "words": seen.words,
        "false_words": [one._asdict() | {"at_ms": iso(one.at_ms)} for one in seen.wrong],
        "renamed": seen.renamed,
        "lifted": seen.lifted,
        "new_again": seen.new_again,
        "dormant": seen.dormant,
        "kind_changes": dict(seen.kind_changes),
        "taken_back": share(seen.changes.reverted.total(), seen.changes.total),
        "kinds_a_year": share(seen.of_customers * 365.0, seen.customer_days),
        "cells_a_year": share(seen.in_grid * 365.0, seen.customer_days),
        **foretold(seen),
        "seconds": round(time.perf_counter() - began, 1),
    }


# -- telling ---------------------------------------------------------------------------------------

HEADER = """\
# Names and kinds, in shops of many rhythms

Each section is one run of `make bench-shops`; `ops/bench/shops.py` says what each number means. The
numbers are the shops' and the program's, not the machine's: the same shops and settings give the same.
"""


COLUMNS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("shop", lambda one: one["shop"]),
    ("users", lambda one: f"{one['users']:,}"),
    ("words", lambda one: f"{one['words']:,}"),
    ("false", lambda one: f"{len(one['false_words'])}"),
    ("names with a number", lambda one: f"{one['numbered']} of {one['names']}"),
    ("renamed", lambda one: f"{one['renamed']}"),
    ("pairs of kinds", lambda one: f"{one['pairs']}"),
    ("touching", lambda one: f"{one['touching']}"),
    ("reversed", lambda one: f"{one['reversed']}"),
    ("of these too few", lambda one: f"{one['too_few']}"),
    ("reversed for certain", lambda one: f"{one['reversed_for_certain']}"),
    ("lifted", lambda one: f"{one['lifted']}"),
    ("new again", lambda one: f"{one['new_again']}"),
    ("AUC of segments", lambda one: _number(one["auc_segments"])),
    ("of the grid", lambda one: _number(one["auc_grid"])),
    (
        "crossed",
        lambda one: " / ".join(
            filter(None, (_number(one["auc_segments_crossed"]), _number(one["auc_grid_crossed"])))
        ),
    ),
    ("dormant", lambda one: f"{one['dormant']}"),
    ("taken back", lambda one: "" if one["taken_back"] is None else f"{one['taken_back']:.1%}"),
    (
        "kinds a year",
        lambda one: (
            ""
            if one["kinds_a_year"] is None
            else f"{one['kinds_a_year']:.1f} ({one['cells_a_year']:.1f})"
        ),
    ),
)


def section(reports: Sequence[dict[str, Any]], at: datetime, told: str) -> str:
    """A dated section of the results."""
    took = sum(one["seconds"] for one in reports)
    lines = [
        f"## {at:%Y-%m-%d %H:%M} UTC",
        "",
        f"`{told}`",
        "",
        f"{measured_on()}; {took:.0f} s.",
        "",
        f"| {' | '.join(name for name, _ in COLUMNS)} |",
        f"|{'---|' * len(COLUMNS)}",
        *(f"| {' | '.join(cell(one) for _, cell in COLUMNS)} |" for one in reports),
    ]
    lines += ["", f"| shop | {' | '.join(CHAIN)} | others |", f"|---|{'---|' * len(CHAIN)}---|"]
    for one in reports:
        if one["pairs"]:
            kinds = dict(one["kinds"])
            chain = [_share(kinds.pop(kind, (0, 0))) for kind in CHAIN]
            others = ", ".join(f"{kind} {_share(kinds[kind])}" for kind in sorted(kinds))
            lines.append(f"| {one['shop']} | {' | '.join(chain)} | {others} |")
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _share(counted: tuple[int, int]) -> str:
    part, whole = counted
    return f"{part / whole:.2f} of {whole:,}" if whole else ""


def shops(wanted: argparse.Namespace) -> list[Shop]:
    """All there are, or those whose name has a text in it."""
    base = {} if wanted.segments is None else {"learning": {"segments": wanted.segments}}
    found = [of_file(*one) for one in FILES if one[1].exists()]
    found += [of_made(one.scaled(wanted.scale), wanted.seed, base) for one in (*MADE, *JUDGED)]
    found.append(of_demo(wanted.seed))
    return chosen(found, wanted)


def ask_for_shops(parser: argparse.ArgumentParser) -> None:
    """Options that say which shops are played."""
    add = parser.add_argument
    add("--only", default="", help="shops whose name has this in it")
    add("--seed", type=int, default=1, help="of the shops that are made up")
    add("--scale", type=float, default=1.0, help="times the users of the shops that are made up")


def asked_for(wanted: argparse.Namespace) -> str:
    """The same options, to be typed again."""
    told = f"--seed {wanted.seed} --scale {wanted.scale:g}"
    return f"{told} --only {shlex.quote(wanted.only)}" if wanted.only else told


def chosen(shops: Sequence[Shop], wanted: argparse.Namespace) -> list[Shop]:
    """Of some shops, those that were asked for."""
    return [one for one in shops if wanted.only.casefold() in one.name.casefold()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0 done, 1 it could not be done, 2 wrong use."""
    wanted = parse(arguments)
    told = f"python -m ops.bench.shops {asked_for(wanted)}"
    told += "" if wanted.segments is None else f" --segments {wanted.segments}"

    def measure() -> dict[str, Any]:
        reports = []
        for shop in shops(wanted):
            reports.append(report_of(shop))
            command.say(f"{shop.name}: {reports[-1]['seconds']} s")
            for wrong in reports[-1]["false_words"]:
                command.say(
                    f"  {wrong['at_ms'][:10]} {wrong['name']!r} {wrong['word']!r}: {wrong['why']}"
                )
        return {"shops": reports}

    return command.run(
        "bench-shops",
        measure,
        lambda report, at: section(report["shops"], at, told),
        wanted=wanted,
        results=RESULTS,
        header=HEADER,
        expected=(FileError, MappingError, ConfigError),
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command.options(
        "Names and kinds, in shops of many rhythms: are they true?",
        RESULTS,
        prog="python -m ops.bench.shops",
        epilog='Example: make bench-shops ARGS="--only grocer --seed 3"',
        append=False,
    )
    ask_for_shops(parser)
    parser.add_argument("--segments", type=int, help="k of the made shops; else the default")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
