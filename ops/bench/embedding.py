"""Holds a learned embedding against the mapped features: would its segments be worth having?

``python -m ops.bench.embedding`` plays the shared shop with purchases, and made ones. Once a quarter both are
fitted to the customers of that day, and k-means finds as many segments in each: in the mapped features as the
trainer has them, and in the bottleneck of an autoencoder (scikit-learn's `MLPRegressor`, mapped features to
mapped features). Nothing of it is in the pipeline; `ops/decisions` has what came of it. What the numbers mean:

- *AUC*: how well a customer's segment ranks who orders within 90 days of the fit. Shares of segments are
  taken from one half of the customers, and the other half is judged by them.
- *moves*: of customers who did nothing and of those who did, in a year, as a week's look finds them nearest to
  another centroid. No margin, no dwell time: those would hide the difference. *back*: the share of moves that go back
  to the segment before within four weeks.
- *agree*: adjusted Rand index of the segments of two fits to different halves of the customers.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.neural_network import MLPRegressor

from ops.bench import command
from ops.bench.report import measured_on
from ops.bench.shops import FILES, Shop, ask_for_shops, asked_for, chosen, of_file, of_made
from ops.bench.shops_made import MADE
from stream.clustering import FeatureMap
from stream.events import Bools, EventColumns, Floats, Ints
from stream.features.terms import PLACED
from stream.rehearsal import Rehearsal
from stream.scores.model import have_ordered
from stream.scores.progress import auc
from stream.units import DAY_MS

RESULTS = Path(__file__).parent / "results" / "embedding.md"
MADE_SHOPS = ("weekly grocer", "yearly gift shop", "subscription", "most gone")
WEEK_MS, HORIZON_MS = 7 * DAY_MS, 90 * DAY_MS
QUARTER, BACK = 13, 4
"""Weeks from one fit to the next, and within which a move back is one."""
SEGMENTS, HIDDEN = 8, 32
WIDTHS = (3, 6)
FEWEST = 400
"""Customers below whom nothing is fitted."""
SAMPLE = 4_096

Into: TypeAlias = Callable[[Floats], Floats]
"""From vectors in natural units to where distances are taken."""


@dataclass
class Played:
    """A shop, week by week.

    Attributes:
        weeks: time, and vectors of everyone by slot, in natural units.
        orders: slot and time of each.
    """

    features: tuple[str, ...] = ()
    weights: Floats = field(default_factory=lambda: np.empty(0))
    weeks: list[tuple[int, Floats]] = field(default_factory=list)
    orders: list[tuple[Ints, Ints]] = field(default_factory=list)
    last_ms: int = 0


def play(shop: Shop) -> Played:
    """Fold a shop, and look at everyone once a week."""
    rehearsal = Rehearsal(shop.settings)
    seen = Played(rehearsal.table.names, rehearsal.table.weights)
    ordered = rehearsal.table.codes[PLACED]

    def saw(events: EventColumns) -> None:
        which = events.kind == ordered
        seen.orders.append((events.slot[which], events.time_ms[which]))

    looked_ms = 0
    for at_ms in shop.play(rehearsal, saw):
        seen.last_ms = at_ms
        if at_ms - looked_ms >= WEEK_MS:
            looked_ms = at_ms
            vectors = rehearsal.table.vectors(rehearsal.partition.rows, at_ms)
            seen.weeks.append((at_ms, vectors.astype(np.float32)))
    return seen


# -- where distances are taken -------------------------------------------------------------------


def as_mapped(vectors: Floats, weights: Floats, seed: int) -> Into:
    """The mapped features, weighted."""
    del seed
    known = FeatureMap.learn(vectors, weights)
    scale = np.sqrt(known.weights)
    return lambda some: known.apply(some)[:, scale > 0] * scale[scale > 0]


def bottleneck(width: int) -> Callable[[Floats, Floats, int], Into]:
    """Of an autoencoder with a layer so narrow."""

    def fit(vectors: Floats, weights: Floats, seed: int) -> Into:
        into = as_mapped(vectors, weights, seed)
        mapped = into(vectors)
        network = MLPRegressor(
            hidden_layer_sizes=(HIDDEN, width, HIDDEN), activation="tanh", early_stopping=True, max_iter=150,
            learning_rate_init=0.005, random_state=seed,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            network.fit(mapped, mapped)

        def narrow(some: Floats) -> Floats:
            found = into(some)
            for weight, bias in zip(network.coefs_[:2], network.intercepts_[:2], strict=True):
                found = np.tanh(found @ weight + bias)
            return found

        spread = np.maximum(narrow(vectors).std(axis=0), 1e-9)
        return lambda some: narrow(some) / spread

    return fit


PLACES: dict[str, Callable[[Floats, Floats, int], Into]] = {
    "mapped features": as_mapped,
    **{f"bottleneck of {width}": bottleneck(width) for width in WIDTHS},
}


# -- judging -------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What was seen of a method in a shop."""

    aucs: list[float] = field(default_factory=list)
    agreed: list[float] = field(default_factory=list)
    moves: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    weeks: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    back: int = 0

    def told(self) -> dict[str, float]:
        """Means; moves are of a year."""
        acting, silent = (52.0 * self.moves[one] / max(self.weeks[one], 1) for one in (True, False))
        return {
            "auc": float(np.mean(self.aucs)),
            "acting": acting,
            "silent": silent,
            "back": self.back / max(sum(self.moves.values()), 1),
            "agree": float(np.mean(self.agreed)),
        }


def judge(seen: Played, seed: int) -> dict[str, dict[str, float]] | None:
    """Every method, on a shop; None where it has too few customers."""
    slots, times = (np.concatenate(column) for column in zip(*seen.orders, strict=True))
    found = {name: Tally() for name in PLACES}
    for first in range(QUARTER, len(seen.weeks) - QUARTER, QUARTER):
        at_ms, vectors = seen.weeks[first]
        who = np.flatnonzero(have_ordered(vectors, seen.features))
        if len(who) < FEWEST or at_ms + HORIZON_MS > seen.last_ms:
            continue
        later = slots[(times > at_ms) & (times <= at_ms + HORIZON_MS)]
        bought = np.isin(who, later)
        random = np.random.default_rng([seed, first])
        for name, fit in PLACES.items():
            _judge_one(found[name], seen, first, who, bought, fit, random)
    if not found["mapped features"].aucs:
        return None
    return {name: tally.told() for name, tally in found.items()}


def _judge_one(
    tally: Tally,
    seen: Played,
    first: int,
    who: Ints,
    bought: Bools,
    fit: Callable[[Floats, Floats, int], Into],
    random: np.random.Generator,
) -> None:
    vectors = seen.weeks[first][1][who].astype(float)
    drawn = random.permutation(len(who))[: SAMPLE * 2]
    one, other = (
        _segments(vectors[half], seen.weights, fit, int(random.integers(1 << 31)))
        for half in (drawn[::2], drawn[1::2])
    )
    tally.agreed.append(float(adjusted_rand_score(one(vectors), other(vectors))))
    segments, known = one(vectors), random.random(len(who)) < 0.5
    size = np.bincount(segments[known], minlength=SEGMENTS)
    share = np.bincount(segments[known], bought[known], minlength=SEGMENTS) / np.maximum(size, 1)
    ranked = auc(share[segments[~known]], bought[~known].astype(float))
    if ranked is not None:
        tally.aucs.append(ranked)
    count_moves(tally, seen, first, who, one)


def count_moves(
    tally: Tally, seen: Played, first: int, who: Ints, segments_of: Callable[[Floats], Ints]
) -> None:
    """Moves of a quarter's weeks, by whether whoever moved has done anything in that week."""
    silence = seen.features.index("days_since_seen")
    path = []
    for week in range(first, first + QUARTER + 1):
        vectors = seen.weeks[week][1][who].astype(float)
        path.append(segments_of(vectors))
        if week == first:
            continue
        acted = vectors[:, silence] < 7
        moved = path[-1] != path[-2]
        for did in (True, False):
            tally.weeks[did] += int((acted == did).sum())
            tally.moves[did] += int((moved & (acted == did)).sum())
    walked = np.array(path)
    for step in range(1, len(walked)):
        moved = walked[step] != walked[step - 1]
        until = walked[step + 1 : step + 1 + BACK]
        tally.back += int((moved & (until == walked[step - 1]).any(axis=0)).sum())


def _segments(
    vectors: Floats, weights: Floats, fit: Callable[[Floats, Floats, int], Into], seed: int
) -> Callable[[Floats], Ints]:
    into = fit(vectors, weights, seed)
    known = KMeans(SEGMENTS, n_init=4, random_state=seed).fit(into(vectors))

    def segments(some: Floats) -> Ints:
        found: Ints = known.predict(into(some)).astype(np.int64)
        return found

    return segments


# -- telling -------------------------------------------------------------------------------------

HEADER = """\
# A learned embedding against the mapped features

Each section is one run of `python -m ops.bench.embedding`; `ops/bench/embedding.py` says what each number means.
"""


def section(shops: Sequence[dict[str, Any]], at: datetime, told: str) -> str:
    """A dated section of the results."""
    lines = [
        f"## {at:%Y-%m-%d %H:%M} UTC",
        "",
        f"`{told}`",
        "",
        f"{measured_on()}; {SEGMENTS} segments of customers.",
        "",
        "| shop | segments in | AUC | moves a year, acting | silent | back | agree |",
        "|---|---|---|---|---|---|---|",
    ]
    for shop in shops:
        for number, (name, row) in enumerate(shop["rows"].items()):
            lines.append(
                f"| {shop['shop'] if number == 0 else ''} | {name} | {row['auc']:.3f} | "
                f"{row['acting']:.1f} | {row['silent']:.1f} | {row['back']:.0%} | {row['agree']:.2f} |"
            )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0 done, 1 it could not be done, 2 wrong use."""
    wanted = parse(arguments)
    told = f"python -m ops.bench.embedding {asked_for(wanted)}"

    def measure() -> dict[str, Any]:
        found = [of_file(*one) for one in FILES[:1] if one[1].exists()]
        found += [
            of_made(one.scaled(wanted.scale), wanted.seed) for one in MADE if one.name in MADE_SHOPS
        ]
        shops = []
        for shop in chosen(found, wanted):
            rows = judge(play(shop), wanted.seed)
            if rows is not None:
                shops.append({"shop": shop.name, "rows": rows})
            command.say(f"{shop.name}: done")
        return {"shops": shops}

    return command.run(
        "bench-embedding",
        measure,
        lambda report, at: section(report["shops"], at, told),
        wanted=wanted,
        results=RESULTS,
        header=HEADER,
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command.options(
        "A learned embedding against the mapped features: do its segments foretell better, or flap less?",
        RESULTS,
        prog="python -m ops.bench.embedding",
        append=False,
    )
    ask_for_shops(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
