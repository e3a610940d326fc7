"""Measures what levels and scores add to a sweep of the owner.

``python -m ops.bench.levels_cost`` plays the demo's shop, small and large, and, where it is there, the shared shop with
purchases: once with levels, once without. Then both owners sweep everyone again and again, in turns, as by the wall clock: every
five seconds of an hour. The numbers are processor time of this process. The first sweep looks at levels of everyone.
Scores of everyone are evaluated with a sample only, and not with each: sweeps that send one are taken with scores and
without, in turns, and what they add is told of all sweeps, too, of which by default every sixth sends a sample, and
every tenth of these what scores come to.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from ops.bench import command
from ops.bench.report import measured_on
from ops.bench.shops import DEMO_DAYS, FILES, Shop, of_demo, of_file
from producers.traffic import simulate
from stream.config import Settings
from stream.events import Counts
from stream.learning.rounds import SAMPLES_A_TOTAL
from stream.levels.declare import USUAL_LEVELS
from stream.rehearsal import Rehearsal
from stream.sweeps import SampleRequest
from stream.units import HOUR_MS

RESULTS = Path(__file__).parent / "results" / "levels_cost.md"
SWEEP_MS = 5_000
SEED, MANY_USERS = 11, 30_000
SAMPLED = 100
"""Sweeps that send a sample."""
_LEARNING = Settings().learning
EVERY = SAMPLES_A_TOTAL * round(_LEARNING.refit_seconds * _LEARNING.alarm_share * 1_000 / SWEEP_MS)
"""Sweeps from one for which scores of everyone are evaluated to the next, by default and by the clock."""
HEADER = """\
# What levels and scores add to a sweep

Each section is one run of `make bench-levels`. Only proportions mean anything from one machine to another.
"""


class _Owner:
    """The owner of a shop that was played to its end."""

    def __init__(self, shop: Shop, *, levels: bool) -> None:
        told = {"levels": USUAL_LEVELS if levels else ()}
        rehearsal = Rehearsal(shop.settings.model_copy(update=told))
        self.last_ms = 0
        for self.last_ms in shop.play(rehearsal, lambda _: None):
            rehearsal.mark(self.last_ms)
        self.partition = rehearsal.partition

    def sweep(self, now_ms: int, sample: SampleRequest | None = None) -> float:
        """Seconds of processor time."""
        begun = time.process_time()
        self.partition.sweep(now_ms, now_ms, sample=sample)
        took = time.process_time() - begun
        self.partition.committed(self.partition.commit([0, 0], Counts(), now_ms))
        return took


def scores_add(owner: _Owner, begin_ms: int, sweeps: int) -> float:
    """Seconds that scores add to a sweep that sends a sample and what they come to."""
    model = owner.partition.model
    assert model is not None
    request = SampleRequest(_LEARNING.sample_users, {}, totals=True)
    taken = []
    for number in range(1, sweeps + 1):
        both = []
        for one in (replace(model, scores=None), model):
            owner.partition.model = one
            both.append(owner.sweep(begin_ms + number * SWEEP_MS, request))
        taken.append(both)
    without, with_scores = np.array(taken).T
    return float(np.median(with_scores) - np.median(without))


def cost(shop: Shop, sweeps: int) -> dict[str, Any]:
    """What a sweep takes, without levels and with them."""
    plain, told = _Owner(shop, levels=False), _Owner(shop, levels=True)
    model = told.partition.model
    assert model is not None, f"{shop.name} has too few users"
    taken = [
        [owner.sweep(owner.last_ms + number * SWEEP_MS) for owner in (plain, told)]
        for number in range(1, sweeps + 1)
    ]
    without, with_levels = np.array(taken).T
    usual = float(np.median(without))
    orders = plain.partition.table.vectors(plain.partition.rows, plain.last_ms)
    ordered = orders[:, plain.partition.table.names.index("orders_total")] > 0
    scored = scores_add(plain, plain.last_ms + (sweeps + 1) * SWEEP_MS, min(sweeps, SAMPLED))
    return {
        "shop": shop.name,
        "users": len(plain.partition),
        "customers": float(ordered.mean()),
        "levels": [one.name for one in model.levels.known],
        "sweep_ms": 1_000 * usual,
        "more": float(np.median(with_levels)) / usual - 1.0,
        "first_times": float(with_levels[0]) / usual,
        "more_an_hour": float(with_levels.sum() / without.sum()) - 1.0,
        "scores": scored / usual,
        "scores_of_all": scored / usual / EVERY,
    }


def section(report: dict[str, Any], at: datetime) -> str:
    """A dated section of the results."""
    rows = "\n".join(
        f"| {one['shop']} | {one['users']:,} | {one['customers']:.0%} | {one['sweep_ms']:.1f} ms | "
        f"{one['more']:.1%} | {one['first_times']:.1f} | {one['more_an_hour']:.1%} | {one['scores']:.1%} | "
        f"{one['scores_of_all']:.1%} |"
        for one in report["shops"]
    )
    return (
        f"## {at:%Y-%m-%d %H:%M} UTC\n\n{measured_on()}; {report['sweeps']} sweeps of each.\n\n"
        "| shop | users | customers | a sweep without levels | levels add, median | the first takes times "
        "as long | levels add, all sweeps | scores add where they are evaluated | scores add, all sweeps "
        f"|\n|---|---|---|---|---|---|---|---|---|\n{rows}\n"
    )


def measure(sweeps: int) -> dict[str, Any]:
    shops = [of_demo(SEED)]
    many = of_demo(SEED, list(simulate(SEED, MANY_USERS, DEMO_DAYS)))
    shops.append(many._replace(name=f"{many.name}, larger"))
    shops += [of_file(*one) for one in FILES if one[0] == "Online Retail" and one[1].exists()]
    return {"sweeps": sweeps, "shops": [cost(shop, sweeps) for shop in shops]}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command.options(__doc__ or "", RESULTS)
    parser.add_argument("--sweeps", type=command.at_least(2), default=HOUR_MS // SWEEP_MS)
    wanted = parser.parse_args(arguments)
    return command.run(
        "bench-levels",
        lambda: measure(wanted.sweeps),
        section,
        wanted=wanted,
        results=RESULTS,
        header=HEADER,
    )


if __name__ == "__main__":
    sys.exit(main())
