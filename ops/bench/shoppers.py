"""Holds scores against what shoppers did, and against methods that are refitted from the whole history.

``python -m ops.bench.shoppers`` plays the shared shop with purchases, made ones (`shops_made`), and any
other file (``--file`` and ``--mapping``) through the fold of an owner, and steps of learning as the trainer
takes them: of a sample of users, a step a day. Once a week everyone who has ordered is looked at. What the
numbers mean:

- every prediction is made before anything is known of what came of it, and is judged when its horizon is
  over: *progressive*. All methods are judged by the same looks: those for which each had something to say.
- *AUC*: how well predictions rank who orders within the horizon; *log loss*; *calibration*: the mean
  distance of prediction and share over 15 quantile bins, which ``results/calibration-*.svg`` shows.
- *levels*: whoever will not order for 100 days, from an order on when levels were there already, and how long they had been
  silent when they were told that their churn risk is high (the median; `levels_told`); who orders within 30 days of being
  told; crossings a customer and year.
- *capture*: of all money spent within 90 days, the share that the tenth with the highest predictions
  spent; *total*: all that was predicted over all that was spent. *ms a step* is the processor's time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from ops.bench import calibration, command
from ops.bench.levels_told import LevelsJudged, LevelsWatch
from ops.bench.levels_told import judged as judged_levels
from ops.bench.report import measured_on
from ops.bench.rivals_of_scores import RIVALS, Looks, days_of_orders
from ops.bench.shops import FILES, Shop, ask_for_shops, asked_for, chosen, of_file, of_made
from ops.bench.shops_made import MADE
from producers.mapping import MappingError
from producers.texts import FileError
from stream.clustering import smallest_hashes
from stream.config import ConfigError
from stream.events import EventColumns, Floats, Ints
from stream.features.terms import PLACED
from stream.learning.statistics import Sample
from stream.rehearsal import Rehearsal
from stream.scores import progress
from stream.scores.declare import REVENUE, SILENCE, Wanted
from stream.scores.learner import NOTHING_LEARNED
from stream.scores.logs import logs_of
from stream.scores.model import Scores, have_ordered
from stream.scores.step import NO_LOOKS, advance, due, published
from stream.units import DAY_MS

RESULTS = Path(__file__).parent / "results" / "shoppers.md"
DAYS = (30.0, 90.0)
WEEK_DAYS = 7
OURS = "**one pass over a sample**"
MADE_SHOPS = ("weekly grocer", "yearly gift shop", "subscription", "most gone")


@dataclass(frozen=True)
class Week:
    """A look at everyone.

    Attributes:
        who: slots of customers.
        vectors: theirs.
        scores: in force then, by name; empty where nothing was learned yet.
    """

    at_ms: int
    who: Ints
    vectors: Floats
    scores: dict[str, Floats]


@dataclass
class Watched:
    """A shop, played.

    Attributes:
        orders: slot and time of each.
        steps, seconds: steps of learning, and the processor's time they took.
        kept: bytes that wait in the trainer's looks, at the most.
    """

    features: tuple[str, ...] = ()
    weeks: list[Week] = field(default_factory=list)
    orders: list[tuple[Ints, Ints]] = field(default_factory=list)
    last_ms: int = 0
    steps: int = 0
    seconds: float = 0.0
    kept: int = 0
    levels: LevelsWatch | None = None


def watch(shop: Shop) -> Watched:
    """Play a shop; learn from a sample a day, and look at everyone once a week, at their levels every day."""
    rehearsal, seen = Rehearsal(shop.settings), Watched()
    levels = seen.levels = LevelsWatch(shop.settings)
    acted: list[Ints] = []
    features = seen.features = rehearsal.table.names
    ordered = rehearsal.table.codes[PLACED]
    wanted, users = shop.settings.foretold(), shop.settings.learning.sample_users
    known, looks, scores = NOTHING_LEARNED, NO_LOOKS, None
    looked_ms, no_slots = 0, np.empty(0, np.int64)

    def saw(events: EventColumns) -> None:
        acted.append(events.slot)
        which = events.kind == ordered
        if which.any():
            seen.orders.append((events.slot[which], events.time_ms[which]))

    for at_ms in shop.play(rehearsal, saw):
        seen.last_ms = at_ms
        partition = rehearsal.partition
        everyone = rehearsal.table.vectors(partition.rows, at_ms)
        levels.look(everyone, features, np.concatenate([*acted, no_slots]), at_ms)
        acted.clear()
        if due(known, wanted, at_ms):
            who = np.sort(smallest_hashes(partition.hashes, users))
            vectors = rehearsal.table.vectors(partition.rows[who], at_ms)
            nobody = np.zeros(len(who), np.int64)
            nowhere = nobody.astype(np.int32)
            sample = Sample(partition.hashes[who], vectors, nobody, nowhere, at_ms)
            began = time.process_time()
            known, looks = advance(known, looks, sample, features, wanted, users)
            scores = published(known, looks, wanted)
            seen.seconds += time.process_time() - began
            seen.steps += 1
            levels.adopt(everyone, features, vectors, scores, at_ms)
        if at_ms - looked_ms >= WEEK_DAYS * DAY_MS:
            looked_ms = at_ms
            seen.weeks.append(_look(rehearsal, scores, at_ms))
            seen.kept = max(seen.kept, len(looks.pack()))
    return seen


def _look(rehearsal: Rehearsal, scores: Scores | None, at_ms: int) -> Week:
    features = rehearsal.table.names
    vectors = rehearsal.table.vectors(rehearsal.partition.rows, at_ms)
    who = np.flatnonzero(have_ordered(vectors, features))
    vectors = vectors[who]
    found: dict[str, Floats] = {}
    if scores is not None:
        found = dict(zip(scores.names, scores.evaluate(vectors, features).T, strict=True))
    return Week(at_ms, who, vectors, found)


# -- judging ---------------------------------------------------------------------------------------


def looks_of(seen: Watched, wanted: Wanted, days: float) -> Iterator[tuple[Week, Looks]]:
    """Weeks of which all is known at the end, with what came of each customer."""
    slots, times = (np.concatenate(column) for column in zip(*seen.orders, strict=True))
    order = np.lexsort((times, slots))
    slots, times = slots[order], times[order]
    columns = [seen.features.index(name) for name in wanted.inputs]
    for week in seen.weeks:
        end_ms = week.at_ms + int(days * DAY_MS)
        if end_ms > seen.last_ms:
            return
        users = int(week.who.max(initial=0)) + 1
        later = slots[(times > week.at_ms) & (times <= end_ms) & (slots < users)]
        bought = (np.bincount(later, minlength=users) > 0).astype(float)
        repeats, recency, age = (
            one[week.who] for one in days_of_orders(slots, times, week.at_ms, users)
        )
        logs = logs_of(week.vectors[:, columns])
        silence = week.vectors[:, seen.features.index(SILENCE)]
        yield week, Looks(
            week.at_ms, np.concatenate([logs, logs**2], axis=1), silence, repeats, recency, age,
            bought[week.who],
        )  # fmt: skip


def judged(
    seen: Watched, wanted: Wanted, days: float, *, rivals: bool = True
) -> dict[str, Any] | None:
    """Every method, on the looks for which each had something to say; None where there are none."""
    pairs = list(looks_of(seen, wanted, days))
    name = f"buy_probability_{days:.0f}d"
    predicted = {OURS: [week.scores.get(name) for week, _ in pairs]}
    looks = [one for _, one in pairs]
    for title, rival in RIVALS.items() if rivals else ():
        predicted[title] = rival(looks, days)
    both = [
        place
        for place in range(len(looks))
        if all(each[place] is not None for each in predicted.values())
    ]
    if not both:
        return None
    bought = np.concatenate([looks[place].bought for place in both])
    rows = []
    for title, each in predicted.items():
        likely = np.concatenate([one for place in both if (one := each[place]) is not None])
        found = progress.judged(likely, bought)
        if found is not None:
            bins = progress.bins(likely, bought)
            rows.append({"method": title, **found._asdict(), "bins": [list(b) for b in bins]})
    return {"looks": len(bought), "base": float(bought.mean()), "rows": rows}


def money(seen: Watched, days: float) -> dict[str, Any] | None:
    """Expected money against what was spent, beside what was spent so far."""
    name, column = f"expected_spend_{days:.0f}d", seen.features.index(REVENUE)
    expected, past, spent = [], [], []
    for week in seen.weeks:
        after = _first_behind(seen, week.at_ms + int(days * DAY_MS))
        if after is None or name not in week.scores:
            continue
        users = int(after.who.max(initial=0)) + 1
        later = np.zeros(users)
        later[after.who] = after.vectors[:, column]
        known = week.who < users
        now = week.vectors[:, column][known]
        expected.append(week.scores[name][known])
        past.append(now)
        spent.append(np.maximum(later[week.who[known]] - now, 0.0))
    if not spent:
        return None
    truth = np.concatenate(spent)
    ours = progress.judged_money(np.concatenate(expected), truth)
    before = progress.judged_money(np.concatenate(past), truth)
    if ours is None or before is None:
        return None
    return {"captured": ours.captured, "total": ours.total, "captured_by_past": before.captured}


def _first_behind(seen: Watched, at_ms: int) -> Week | None:
    """The first look at or behind a time."""
    return next((week for week in seen.weeks if week.at_ms >= at_ms), None)


def report_of(shop: Shop, *, rivals: bool = True) -> dict[str, Any]:
    """A shop, played and judged.

    Args:
        rivals: whether scores are held against other methods, which takes most of the time.
    """
    began = time.perf_counter()
    seen = watch(shop)
    wanted = shop.settings.foretold()
    assert seen.levels is not None
    slots, times = (np.concatenate(column) for column in zip(*seen.orders, strict=True))
    return {
        "shop": shop.name,
        "horizons": {
            f"{days:.0f}": found
            for days in DAYS
            if (found := judged(seen, wanted, days, rivals=rivals))
        },
        "levels": judged_levels(seen.levels, slots, times, seen.last_ms),
        "money": money(seen, DAYS[-1]),
        "step_ms": 1_000 * seen.seconds / max(seen.steps, 1),
        "kept_bytes": seen.kept,
        "seconds": round(time.perf_counter() - began, 1),
    }


# -- telling ---------------------------------------------------------------------------------------

HEADER = """\
# Who buys again: scores against what shoppers did

Each section is one run of `make bench-shoppers`; `ops/bench/shoppers.py` says what each number means.
Steps are as fast as the machine; all other numbers are the shops' and the program's.
"""


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
        "| shop, horizon | looks | bought | method | AUC | log loss | calibration |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in reports:
        for days, found in one["horizons"].items():
            for number, row in enumerate(found["rows"]):
                head = (
                    f"{one['shop']}, {days} d | {found['looks']:,} | {found['base']:.3f}"
                    if number == 0
                    else " | | "
                )
                auc = "" if row["auc"] is None else f"{row['auc']:.3f}"
                lines.append(
                    f"| {head} | {row['method']} | {auc} | {row['log_loss']:.3f} | "
                    f"{row['calibration']:.3f} |"
                )
    lines += [
        "",
        "| shop | expected spend: capture | by what was spent so far | total | ms a step | looks kept |",
        "|---|---|---|---|---|---|",
    ]
    for one in reports:
        spend = one["money"]
        told_money = (
            f"{spend['captured']:.3f} | {spend['captured_by_past']:.3f} | {spend['total']:.2f}"
            if spend
            else " | | "
        )
        lines.append(
            f"| {one['shop']} | {told_money} | {one['step_ms']:.1f} | "
            f"{one['kept_bytes'] / 1e6:.1f} MB |"
        )
    lines += [
        "",
        "| shop | long silences | told high after | of them the best | told after | soon ordered | crossings a year | by models |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {one['shop']} | {_of_levels(one['levels'])} |" for one in reports]
    pictures = ", ".join(
        f"[{one['shop']}]({calibration.file_of(one['shop'])})" for one in reports if one["horizons"]
    )
    if pictures:
        lines += ["", f"Predictions and what came of them, as of the last run of each: {pictures}."]
    return "\n".join(lines) + "\n"


def _of_levels(found: LevelsJudged | None) -> str:
    if found is None:
        return " | | | | | | "
    days = [
        "never" if early.days is None else f"{early.days:.0f} d"
        for early in (found.all, found.best)
    ]
    a_year = ", ".join(f"{name} {count:.2f}" for name, count in found.a_year.items())
    soon = "" if found.soon is None else f"{found.soon:.3f}"
    return (
        f"{found.all.silences:,} | {days[0]} | {found.best.silences:,} | {days[1]} | {soon} | {a_year} | "
        f"{found.by_models:.3f}"
    )


def shops(wanted: argparse.Namespace) -> list[Shop]:
    """The file that was asked for; else all there are, or those whose name has a text in it."""
    return [_with_falls(one, falls=wanted.falls) for one in _asked(wanted)]


def _asked(wanted: argparse.Namespace) -> list[Shop]:
    if wanted.file is not None:
        return [of_file(wanted.file.name, wanted.file, wanted.mapping, "1d", "7d")]
    found = [of_file(*one) for one in FILES[:1] if one[1].exists()]
    found += [
        of_made(one.scaled(wanted.scale), wanted.seed) for one in MADE if one.name in MADE_SHOPS
    ]
    return chosen(found, wanted)


def _with_falls(shop: Shop, *, falls: bool) -> Shop:
    scoring = shop.settings.scoring.model_copy(update={"falls": falls})
    return shop._replace(settings=shop.settings.model_copy(update={"scoring": scoring}))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0 done, 1 it could not be done, 2 wrong use."""
    wanted = parse(arguments)
    what = asked_for(wanted)
    if wanted.file is not None:
        what = f"--file {wanted.file.name} --mapping {wanted.mapping}"
    what += ("" if wanted.rivals else " --no-rivals") + ("" if wanted.falls else " --no-falls")
    told = f"python -m ops.bench.shoppers {what}"

    def measure() -> dict[str, Any]:
        reports = []
        for shop in shops(wanted):
            reports.append(report_of(shop, rivals=wanted.rivals))
            if wanted.append and wanted.rivals and wanted.falls:
                calibration.write(RESULTS.parent, reports[-1])
            command.say(f"{shop.name}: {reports[-1]['seconds']} s")
        return {"shops": reports}

    return command.run(
        "bench-shoppers",
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
        "Who buys again: scores against what shoppers did, and against rivals.",
        RESULTS,
        prog="python -m ops.bench.shoppers",
        epilog='Example: make bench-shoppers ARGS="--only grocer --seed 3"',
        append=False,
    )
    add = parser.add_argument
    add("--file", type=Path, help="a file of events, instead of the shops")
    add("--mapping", default="segment", help="of that file")
    add(
        "--rivals", action=argparse.BooleanOptionalAction, default=True,
        help="hold scores against rivals, which takes nearly all of the time",
    )  # fmt: skip
    add(
        "--falls", action=argparse.BooleanOptionalAction, default=True,
        help="scores fall with silence, whatever was learned",
    )  # fmt: skip
    ask_for_shops(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
