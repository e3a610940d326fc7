"""Holds *unusual* against shoppers who are, and tells who comes first in a real shop.

``python -m ops.bench.unusual`` plays the demo's shop with bots, resellers, card testers and serial returners
among its shoppers (`intruders`), on seeds that nothing was weighed on, and the shared shop with purchases. What
the numbers mean:

- *AUC*: chance that one of a kind is told to be more unusual than an ordinary shopper.
- *one in a hundred*: the share of a kind that is farther than the farthest hundredth of ordinary
  shoppers; of *heavy* buyers, the ordinary twentieth that spent most lately, a hundredth would be chance.
- *pull*: how far the centroid of a segment moves, in standard deviations, for the intruders in it; mapped
  as it is, and by a map that cuts nothing. The farthest of all segments.

Rivals are given the same sample and inputs. Those that are fitted within a segment are told it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from river import anomaly
from sklearn.covariance import LedoitWolf
from sklearn.ensemble import IsolationForest

from ops.bench import command
from ops.bench.intruders import LIVES, Intruders, intruders, together
from ops.bench.report import measured_on
from ops.bench.shops import DEMO_DAYS, DEMO_USERS, FILES, Shop, of_demo, of_file
from producers.traffic import SHOP_START_MS, EventBatch, simulate, user_id
from stream.clustering import FeatureMap
from stream.events import Bools, Floats, Ints
from stream.learning.statistics import Sample, stands_for
from stream.model import Model
from stream.rehearsal import Rehearsal
from stream.scores import unusual
from stream.scores.declare import HABITS
from stream.scores.logs import logs_of
from stream.scores.progress import auc
from stream.units import DAY_MS, exact_share

RESULTS = Path(__file__).parent / "results" / "unusual.md"
OURS = "**the nearest segment, one matrix of correlations**"
FIRST = 20
WHY = 3
HEAVY = 0.05
ONE_IN = 0.01

Far: TypeAlias = Callable[[Floats], Floats]
"""How far users are, by their inputs in logs."""


@dataclass(frozen=True)
class Everyone:
    """A shop's users at its end.

    Attributes:
        vectors: ``(n, features)`` in natural units.
        segments: ``(n,)`` as published; 0 for none.
        sample: which of them the trainer would see.
    """

    names: list[str]
    vectors: Floats
    segments: Ints
    sample: Bools
    features: tuple[str, ...]
    model: Model

    def of(self, feature: str) -> Floats:
        return self.vectors[:, self.features.index(feature)]

    def learned(self) -> unusual.Usual:
        """As the trainer learns it of its sample."""
        segments = self.segments.astype(np.int32)
        here, places = self.sample, self.model.divide(self.vectors, segments)
        counts = np.bincount(places, minlength=len(self.model.populations))
        each = stands_for(places[here], counts.tolist())
        found = unusual.learn(self.vectors[here], self.features, self.segments[here], each, HABITS)
        assert found is not None, "a shop of thousands"
        return found


def at_the_end(shop: Shop) -> Everyone:
    """Play a shop."""
    rehearsal, last_ms = Rehearsal(shop.settings), 0
    for at_ms in shop.play(rehearsal, lambda _: None):
        rehearsal.mark(at_ms)
        last_ms = at_ms
    partition, model = rehearsal.partition, rehearsal.state.model
    assert model is not None
    vectors = rehearsal.table.vectors(partition.rows, last_ms)
    published = partition.rows["segment"]
    seen = Sample.of(
        partition.hashes, vectors, model.divide(vectors, published), published, last_ms,
        shop.settings.learning.sample_users,
    )  # fmt: skip
    sample = np.isin(partition.hashes, seen.hashes)
    names = [name.decode() for name in partition.names]
    return Everyone(
        names, vectors, published.astype(np.int64), sample, rehearsal.table.names, model
    )


# -- rivals --------------------------------------------------------------------------------------


def ledoit_wolf(logs: Floats) -> Far:
    """Mahalanobis distance by all alike."""
    low, high = np.quantile(logs, unusual.WINSOR, axis=0)
    kept = np.clip(logs, low, high)
    spread = np.maximum(kept.std(axis=0), unusual.LEAST_LOG)
    known = LedoitWolf().fit(kept / spread)

    def far(some: Floats) -> Floats:
        found: Floats = np.sqrt(known.mahalanobis(some / spread))
        return found

    return far


def isolation_forest(logs: Floats) -> Far:
    """A hundred trees (Liu, Ting and Zhou 2008)."""
    known = IsolationForest(random_state=0).fit(logs)

    def far(some: Floats) -> Floats:
        found: Floats = -known.score_samples(some)
        return found

    return far


def half_space_trees(logs: Floats) -> Far:
    """River's, in one pass (Tan, Ting and Liu 2011)."""
    low, high = logs.min(axis=0), logs.max(axis=0)
    spread = np.where(high > low, high - low, 1.0)
    known: Any = anomaly.HalfSpaceTrees(n_trees=25, height=8, window_size=250, seed=0)

    def told(some: Floats) -> list[dict[int, float]]:
        return [dict(enumerate(one)) for one in np.clip((some - low) / spread, 0, 1).tolist()]

    for one in told(logs):
        known.learn_one(one)
    return lambda some: np.array([known.score_one(one) for one in told(some)])


def by_segment(rival: Callable[[Floats], Far], everyone: Everyone, logs: Floats) -> Floats:
    """How far each is, by a rival that is fitted to their segment; nobody of a small one is far."""
    found = np.zeros(len(logs))
    for segment in np.unique(everyone.segments).tolist():
        here = everyone.segments == segment
        known = here & everyone.sample
        if np.count_nonzero(known) >= unusual.FEWEST_OF_SEGMENT:
            found[here] = rival(logs[known])(logs[here])
    return found


def methods(everyone: Everyone) -> Iterator[tuple[str, Floats]]:
    """How far everyone is, by every method."""
    logs = logs_of(
        everyone.vectors[:, [everyone.features.index(name) for name in HABITS]].astype(float)
    )
    yield OURS, everyone.learned().evaluate(everyone.vectors, everyone.features)
    rivals: dict[str, Callable[[Floats], Far]] = {
        "Ledoit-Wolf": ledoit_wolf, "isolation forest": isolation_forest,
    }  # fmt: skip
    for name, rival in rivals.items():
        yield f"{name}, all alike", rival(logs[everyone.sample])(logs)
        yield f"{name}, within the segment", by_segment(rival, everyone, logs)
    yield "river's HalfSpaceTrees, all alike", half_space_trees(logs[everyone.sample])(logs)


# -- the simulated shop --------------------------------------------------------------------------


def with_intruders(seed: int, of_each: int) -> tuple[Shop, Intruders]:
    """The demo's shop, with some of every kind in it."""
    found = intruders(seed, of_each, DEMO_USERS, DEMO_DAYS, SHOP_START_MS)

    def days() -> Iterator[EventBatch]:
        for batch in simulate(seed, DEMO_USERS, DEMO_DAYS):
            yield together(batch, found.on(int(batch.time_ms[0]) // DAY_MS * DAY_MS))

    return of_demo(seed, days()), found


def kinds_of(everyone: Everyone, who: Intruders) -> list[str]:
    """What each of a shop's users is; empty for ordinary ones."""
    kinds = {user_id(who.first + number): kind for number, kind in enumerate(who.kinds)}
    return [kinds.get(name, "") for name in everyone.names]


def judged(everyone: Everyone, kinds: Sequence[str], far: Floats) -> dict[str, Any]:
    """How well a method tells intruders from ordinary shoppers."""
    kind = np.array(kinds)
    ordinary = np.flatnonzero(kind == "")
    limit = float(np.quantile(far[ordinary], 1.0 - ONE_IN))
    found: dict[str, Any] = {}
    for name in LIVES:
        theirs = far[kind == name]
        both = np.concatenate([far[ordinary], theirs])
        which = np.concatenate([np.zeros(len(ordinary)), np.ones(len(theirs))])
        found[name] = {"auc": auc(both, which), "told": float((theirs > limit).mean())}
    spent = everyone.of("revenue_180d")[ordinary]
    heavy = ordinary[np.argsort(-spent, kind="stable")[: int(len(ordinary) * HEAVY)]]
    found["heavy"] = float((far[heavy] > limit).mean())
    return found


def pull(everyone: Everyone, kinds: Sequence[str]) -> dict[str, float]:
    """How far intruders move a centroid at the most, winsorised and not."""
    ordinary = np.array([kind == "" for kind in kinds])
    found = {"mapped": 0.0, "uncut": 0.0}
    for part in everyone.model.parts:
        uncut = _uncut(part.map)
        for segment in part.ids.tolist():
            here = everyone.segments == segment
            if not (here & ordinary).any() or (here & ~ordinary).sum() == 0:
                continue
            for name, apply in (("mapped", part.map.apply), ("uncut", uncut)):
                moved = apply(everyone.vectors[here]).mean(axis=0)
                moved -= apply(everyone.vectors[here & ordinary]).mean(axis=0)
                found[name] = max(found[name], float(np.abs(moved).max()))
    return found


def _uncut(known: FeatureMap) -> Callable[[Floats], Floats]:
    """A map without logs and limits, in standard deviations of these features as they are."""

    def apply(vectors: Floats) -> Floats:
        limits = np.sign([known.low, known.high]) * np.expm1(np.abs([known.low, known.high]))
        spread = np.clip(vectors, *limits).std(axis=0)
        found: Floats = vectors / np.where(spread > 1e-9, spread, np.inf)
        return found

    return apply


def simulated(seed: int, of_each: int) -> dict[str, Any]:
    """One shop."""
    shop, who = with_intruders(seed, of_each)
    everyone = at_the_end(shop)
    kinds = kinds_of(everyone, who)
    rows = {name: judged(everyone, kinds, far) for name, far in methods(everyone)}
    return {
        "seed": seed,
        "of_each": of_each,
        "rows": rows,
        "pull": pull(everyone, kinds),
        "cost": cost(everyone),
    }


def meant(shops: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Of each method the least AUC of each kind over shops, and the means of shares."""
    found: dict[str, dict[str, float]] = {}
    for name in shops[0]["rows"]:
        each = [shop["rows"][name] for shop in shops]
        row = {kind: min(one[kind]["auc"] for one in each) for kind in LIVES}
        row |= {
            f"{kind} told": float(np.mean([one[kind]["told"] for one in each])) for kind in LIVES
        }
        found[name] = row | {"heavy": float(np.mean([one["heavy"] for one in each]))}
    return found


# -- a real shop ---------------------------------------------------------------------------------


def first_of(shop: Shop) -> dict[str, Any]:
    """Who is the most unusual, and why."""
    everyone = at_the_end(shop)
    known = everyone.learned()
    far = known.evaluate(everyone.vectors, everyone.features)
    rows = []
    for place in np.argsort(-far, kind="stable")[:FIRST].tolist():
        vector = everyone.vectors[place]
        told = known.explain(vector, everyone.features)
        values = dict(zip(everyone.features, vector.tolist(), strict=True))
        parts = sorted(told.parts.items(), key=lambda one: -one[1])[:WHY]
        rows.append(
            {
                "user": everyone.names[place],
                "value": told.value,
                "orders": values["orders_total"],
                "money": values["revenue_total"],
                "like": everyone.model.by_id[told.segment].name,
                "why": [
                    {"feature": name, "value": values[name], "usual": told.usual[name],
                     "share": part / told.squared}
                    for name, part in parts
                    if part > 0.1 * told.squared
                ],
            }
        )  # fmt: skip
    heavy = everyone.of("revenue_180d")
    most = np.argsort(-heavy, kind="stable")[: int(len(far) * HEAVY)]
    limit = float(np.quantile(far, 1.0 - ONE_IN))
    return {
        "shop": shop.name, "users": len(far), "first": rows,
        "heavy": float((far[most] > limit).mean()),
    }  # fmt: skip


# -- what it costs -------------------------------------------------------------------------------


def cost(everyone: Everyone, users: int = 4_096, times: int = 40) -> dict[str, float]:
    """Milliseconds to evaluate some users, to place them under the model, and to learn from a sample."""
    known, rows = everyone.learned(), np.arange(users) % len(everyone.vectors)
    vectors, segments = everyone.vectors[rows], everyone.segments[rows].astype(np.int32)
    return {
        "users": users,
        "evaluate_ms": _fastest(lambda: known.evaluate(vectors, everyone.features), times),
        "place_ms": _fastest(lambda: everyone.model.place(vectors, segments), times),
        "learn_ms": _fastest(everyone.learned, 5),
    }


def _fastest(work: Callable[[], object], times: int) -> float:
    found = []
    for _ in range(times):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return 1_000 * min(found)


# -- telling -------------------------------------------------------------------------------------

HEADER = """\
# Who is unusual

Each section is one run of `make bench-unusual`; `ops/bench/unusual.py` says what each number means.
"""


def section(report: dict[str, Any], at: datetime, told: str) -> str:
    """A dated section of the results."""
    lines = [f"## {at:%Y-%m-%d %H:%M} UTC", "", f"`{told}`", "", f"{measured_on()}.", ""]
    shops = report["simulated"]
    if shops:
        seeds = ", ".join(str(one["seed"]) for one in shops)
        lines += [
            (
                f"{shops[0]['of_each']} of each kind among {DEMO_USERS:,} shoppers, seeds {seeds}: the least AUC, "
                "and behind it how many of them are one in a hundred."
            ),
            "",
            f"| method | {' | '.join(LIVES)} | ordinary heavy buyers |",
            f"|{'---|' * (len(LIVES) + 2)}",
        ]
        for name, row in meant(shops).items():
            cells = [f"{row[kind]:.3f}, {row[f'{kind} told']:.0%}" for kind in LIVES]
            lines.append(f"| {name} | {' | '.join(cells)} | {row['heavy']:.1%} |")
        moved = {name: max(one["pull"][name] for one in shops) for name in ("mapped", "uncut")}
        lines += [
            "",
            (
                f"They pull no centroid by more than {moved['mapped']:.2f} standard deviations in any feature; "
                f"without logs and winsorising it would be {moved['uncut']:.1f}."
            ),
        ]
        spent = shops[0]["cost"]
        lines += [
            "",
            (
                f"{spent['users']:,} users are evaluated in {spent['evaluate_ms']:.2f} ms of the processor's time; to "
                f"map and measure them takes {spent['place_ms']:.2f} ms. To learn it takes "
                f"{spent['learn_ms']:.1f} ms, once a day."
            ),
        ]
    if (shop := report["first"]) is not None:
        lines += [
            "",
            (
                f"The first {FIRST} of {shop['users']:,} in {shop['shop']}, each held against the segment whose people "
                f"are most like them. Of its heavy buyers {shop['heavy']:.1%} are one in a hundred."
            ),
            "",
            "| who | less far are | orders | spent | like | why: theirs, usual there, share of the distance |",
            "|---|---|---|---|---|---|",
        ]
        for row in shop["first"]:
            why = "; ".join(
                f"{one['feature']} {_plain(one['value'])} for {_plain(one['usual'])}, {one['share']:.0%}"
                for one in row["why"]
            )
            lines.append(
                f"| {row['user']} | {exact_share(row['value'])} | {row['orders']:.0f} | "
                f"{row['money']:,.0f} | {row['like']} | {why} |"
            )
    return "\n".join(lines) + "\n"


def _plain(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0 done, 1 it could not be done, 2 wrong use."""
    wanted = parse(arguments)
    seeds = " ".join(str(seed) for seed in wanted.seeds)
    told = f"python -m ops.bench.unusual --seeds {seeds} --of-each {wanted.of_each}"

    def measure() -> dict[str, Any]:
        shops = []
        for seed in wanted.seeds:
            shops.append(simulated(seed, wanted.of_each))
            command.say(f"seed {seed}: done")
        files = [of_file(*one) for one in FILES[:1] if one[1].exists()]
        return {
            "simulated": shops,
            "first": first_of(files[0]) if files else None,
        }

    return command.run(
        "bench-unusual",
        measure,
        lambda report, at: section(report, at, told),
        wanted=wanted,
        results=RESULTS,
        header=HEADER,
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command.options(
        "Who is unusual: shoppers who are, and the first of a real shop.",
        RESULTS,
        prog="python -m ops.bench.unusual",
        epilog='Example: make bench-unusual ARGS="--seeds 7 --of-each 60"',
        append=False,
    )
    add = parser.add_argument
    add("--seeds", type=int, nargs="+", default=[11, 12, 13], help="of the simulated shop")
    add("--of-each", type=command.at_least(2), default=20, help="of each kind in it")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
