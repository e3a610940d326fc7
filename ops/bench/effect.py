"""Measures whether the effect may be believed, where truth is known.

``python -m ops.bench.effect`` simulates campaigns day by day, half of them without any effect, looks at
every one every day, and appends a dated section to ``results/effect.md``: how often the intervals missed
the truth at any look, how often a campaign without effect was ever called effective, how many effects
were found and when, beside a fixed-horizon test that is looked at once, and the same test looked at
daily. Users are put into their arms by the shipped hash.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtri

from ops.bench import command
from stream.campaigns.arms import FIRST_ARM, HELD_OUT, Arms
from stream.campaigns.declare import Campaign
from stream.campaigns.effect import ALPHA, POWER, Interval, compare, ratio_evidence
from stream.campaigns.windows import Sums
from stream.config import ConfigError

RESULTS = Path(__file__).parent / "results" / "effect.md"
GOALS = ("conversion", "active", "revenue")

HEADER = """\
# Effects, measured where they are known

Each section is one run of `python -m ops.bench.effect` (`make bench-effect`). A campaign counts as missed
if the interval did not cover the true effect at any one of its daily looks.
"""


@dataclass(frozen=True)
class Truth:
    """A simulated campaign: how users behave, and what it does to them.

    Attributes:
        base, lift: conversion of users who are held out, and what treatment adds.
        basket: median of what a buyer spends; log-normal, so that a few spend a lot.
        daily: users decided for a day.
    """

    base: float
    lift: float
    active: float
    active_lift: float
    basket: float
    sigma: float
    holdout: float
    daily: int
    days: int

    def effects(self) -> tuple[float, float, float]:
        """The true differences, in the order of `GOALS`."""
        mean = self.basket * math.exp(self.sigma**2 / 2)
        return self.lift, self.active_lift, self.lift * mean


def drawn(random: np.random.Generator, number: int, days: int) -> Truth:
    """Every other campaign has no effect."""
    base = float(random.uniform(0.02, 0.2))
    real = number % 2 == 1
    return Truth(
        base=base,
        lift=float(base * random.uniform(0.15, 0.6)) if real else 0.0,
        active=float(random.uniform(0.2, 0.7)),
        active_lift=float(random.uniform(0.01, 0.08)) if real else 0.0,
        basket=float(random.uniform(15, 80)),
        sigma=float(random.uniform(0.4, 1.0)),
        holdout=float(random.uniform(0.1, 0.5)),
        daily=int(random.integers(60, 600)),
        days=days,
    )


@dataclass
class Seen:
    """What somebody saw who looked at a campaign every day.

    Attributes:
        missed: goals whose interval ever missed the truth.
        plain_missed: the same of the plain interval, which is not made for that.
        called: day on which it was called effective; None for never.
        plain_called: the same by the plain interval.
        harmful: it was ever called harmful.
        fixed_day, fixed_found: when a fixed-horizon test would have been looked at, and what it said.
        ratio_alarm: the arms' sizes gave an alarm.
    """

    truth: Truth
    missed: set[str]
    plain_missed: set[str]
    called: int | None = None
    plain_called: int | None = None
    harmful: bool = False
    fixed_day: int | None = None
    fixed_found: bool = False
    ratio_alarm: bool = False


def watch(truth: Truth, number: int, random: np.random.Generator) -> Seen:
    """Simulate a campaign and look at it every day."""
    declared = Campaign.model_validate(
        {"name": f"c{number}", "when": {"kind_to": ["at_risk"]}, "holdout": truth.holdout}
    )
    arms, share = Arms(declared, 0.0, b"bench"), 1.0 - truth.holdout
    sums = {HELD_OUT: Sums(), FIRST_ARM: Sums()}
    seen = Seen(truth, set(), set())
    horizon = fixed_horizon(truth)
    for day in range(1, truth.days + 1):
        users = random.integers(0, 2**64, truth.daily, dtype=np.uint64)
        of_users = arms.of(users)
        for arm in sums:
            sums[arm] += outcomes(truth, int((of_users == arm).sum()), arm == FIRST_ARM, random)
        treated, control = sums[FIRST_ARM], sums[HELD_OUT]
        found = compare("sent", treated, control, share, hope=0.02, tuned_for=5_000)
        for goal, effect in zip(GOALS, truth.effects(), strict=True):
            difference = getattr(found, goal)
            if difference.sequence is None:
                continue
            if not _covers(difference.sequence, effect):
                seen.missed.add(goal)
            if not _covers(difference.plain, effect):
                seen.plain_missed.add(goal)
        plain = found.conversion.plain
        if seen.called is None and found.verdict == "helps":
            seen.called = day
        if seen.plain_called is None and plain is not None and plain.low > 0:
            seen.plain_called = day
        seen.harmful |= found.verdict == "harms"
        if seen.fixed_day is None and day * truth.daily >= horizon:
            seen.fixed_day = day
            seen.fixed_found = plain is not None and plain.low > 0
        counts = [control.users, treated.users]
        seen.ratio_alarm |= ratio_evidence(counts, [truth.holdout, share]) >= 1_000
    return seen


def outcomes(truth: Truth, users: int, treated: bool, random: np.random.Generator) -> Sums:
    """What some users of an arm did within their windows."""
    converted = int(random.binomial(users, truth.base + treated * truth.lift))
    spent = truth.basket * np.exp(truth.sigma * random.standard_normal(converted))
    return Sums(
        users,
        converted,
        int(random.binomial(users, truth.active + treated * truth.active_lift)),
        float(spent.sum()),
        float(spent @ spent),
    )


def fixed_horizon(truth: Truth) -> int:
    """Users that a test planned for the true effect (a hoped for one where there is none) takes."""
    lift = truth.lift or 0.3 * truth.base
    high = truth.base + lift
    spread = high * (1 - high) / (1 - truth.holdout) + truth.base * (1 - truth.base) / truth.holdout
    z = float(ndtri(1 - ALPHA / 2) + ndtri(POWER))
    return math.ceil(z * z * spread / lift**2)


def _covers(interval: Interval, effect: float) -> bool:
    return interval.low <= effect <= interval.high


def measure(campaigns: int, days: int, seed: int) -> dict[str, Any]:
    """Watch so many campaigns."""
    random = np.random.default_rng(seed)
    seen = [watch(drawn(random, number, days), number, random) for number in range(campaigns)]
    without = [one for one in seen if one.truth.lift == 0]
    real = [one for one in seen if one.truth.lift > 0]
    called = [one for one in real if one.called is not None]
    planned = [one for one in real if one.fixed_day is not None]
    both = [one for one in called if one.fixed_day is not None]
    return {
        "campaigns": campaigns,
        "days": days,
        "seed": seed,
        "coverage": {goal: 1 - _share(seen, lambda s, g=goal: g in s.missed) for goal in GOALS},
        "plain_coverage_daily": {
            goal: 1 - _share(seen, lambda s, g=goal: g in s.plain_missed) for goal in GOALS
        },
        "false_alarms": _share(without, lambda s: s.called is not None),
        "plain_false_alarms_daily": _share(without, lambda s: s.plain_called is not None),
        "fixed_false_alarms": _share(without, lambda s: s.fixed_found),
        "called_harmful": _share(without, lambda s: s.harmful),
        "power": _share(real, lambda s: s.called is not None),
        "fixed_power": _share(planned, lambda s: s.fixed_found),
        "fixed_in_time": _share(real, lambda s: s.fixed_day is not None),
        "days_to_verdict": _median([s.called for s in called]),
        "fixed_days": _median([s.fixed_day for s in planned]),
        "days_to_fixed": _median(
            [s.called / s.fixed_day for s in both if s.called and s.fixed_day]
        ),
        "ratio_alarms": _share(seen, lambda s: s.ratio_alarm),
    }


def _share(seen: Sequence[Seen], holds: Any) -> float:
    return sum(map(bool, map(holds, seen))) / len(seen) if seen else math.nan


def _median(values: Sequence[Any]) -> float:
    return float(statistics.median(values)) if values else math.nan


def section(report: dict[str, Any], at: datetime) -> str:
    """A dated section of the results."""
    lines = [
        f"## {at:%Y-%m-%d %H:%M} UTC",
        "",
        (
            f"{report['campaigns']} campaigns, every other without effect, {report['days']} daily looks, seed "
            f"{report['seed']}: base conversion 2 to 20 %, lifts of 15 to 60 % of it, holdouts of 10 to 50 %, "
            "60 to 600 users a day, log-normal baskets."
        ),
        "",
        "| looked at every day | sequence | plain interval |",
        "|---|---|---|",
    ]
    lines += [
        f"| covers the true {goal} at all looks | {report['coverage'][goal]:.1%} | "
        f"{report['plain_coverage_daily'][goal]:.1%} |"
        for goal in GOALS
    ]
    lines += [
        (
            f"| no effect, ever called effective | {report['false_alarms']:.1%} | "
            f"{report['plain_false_alarms_daily']:.1%} |"
        ),
        "",
        "| conversion | sequence, daily | fixed horizon, one look |",
        "|---|---|---|",
        (
            f"| no effect, called effective | {report['false_alarms']:.1%} | "
            f"{report['fixed_false_alarms']:.1%} |"
        ),
        (
            f"| effects found | {report['power']:.1%} | {report['fixed_power']:.1%} of the "
            f"{report['fixed_in_time']:.0%} that came to their horizon |"
        ),
        f"| days to the verdict, median | {report['days_to_verdict']:.0f} | {report['fixed_days']:.0f} |",
        "",
        (
            f"The fixed horizon is planned with the true lift and base, which nobody knows. Where both came to "
            f"an end, the sequence took {report['days_to_fixed']:.2f} times as long, median. No effect, called "
            f"harmful: {report['called_harmful']:.1%}. Arms' sizes gave an alarm in "
            f"{report['ratio_alarms']:.1%}."
        ),
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command.options(__doc__ or "", RESULTS)
    add = parser.add_argument
    add("--campaigns", type=command.at_least(2), default=300, help="every other without effect")
    add("--days", type=command.at_least(1), default=90, help="daily looks at each")
    add("--seed", type=command.at_least(0), default=1, help="of the simulation")
    wanted = parser.parse_args(arguments)
    return command.run(
        "bench-effect",
        lambda: measure(wanted.campaigns, wanted.days, wanted.seed),
        section,
        wanted=wanted,
        results=RESULTS,
        header=HEADER,
        expected=(ConfigError,),
    )


if __name__ == "__main__":
    sys.exit(main())
