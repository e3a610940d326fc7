"""Decides how the numbers are told: a table beside the numbers to reach, and an object for programs.

Comes in: numbers of each method, seed by seed. A number is the mean over the seeds; the worst
inertia ratio and the differences between workers are the worst of all seeds.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from typing import Any

from ops.bench.learning.arena import NEVER_FORGETS, ONE_MARGIN, OURS, STREAM_FACTS
from ops.bench.learning.conversion import table
from ops.bench.report import cpu

HEADER = """\
# Learning, measured

Each section is one run of `make bench-learning`: segments learned, named and published on synthetic
drifting streams with a known truth, by segstream and by the streaming k-means that can be installed
elsewhere. `ops/bench/learning/scores.py` says what each number means. Means over seeds the code was
not tuned on; *worst* is over all checkpoints of all seeds. Seconds are of one thread's processor time
and mean something only beside each other.
"""
CONVERSION = (
    "Conversion swept: shoppers who are in segments of their own group, and in brackets those in the "
    "largest of these, if it is where most of the group are; the least of all seeds "
    "(`ops/bench/learning/conversion.py`)."
)
WORST = frozenset(
    {"inertia_ratio_worst", "workers_label_difference", "workers_centroid_difference"}
)
ROWS: tuple[tuple[str, str, str, str], ...] = (
    ("inertia ratio R, mean", "inertia_ratio_mean", "{:.4f}", "1.005"),
    ("R, worst checkpoint", "inertia_ratio_worst", "{:.3f}", "1.03"),
    ("cells ratio, mean", "cells_ratio_mean", "{:.4f}", ""),
    ("ARI against batch", "ari_vs_batch", "{:.3f}", ".97"),
    ("ARI against batch, as published", "ari_published", "{:.3f}", ""),
    ("spurious changes per 1,000 updates", "spurious_changes_per_1000", "{:.1f}", "3"),
    ("moved by a retirement, per 1,000 updates", "retired_changes_per_1000", "{:.1f}", ""),
    ("published changes per true change", "published_per_true_change", "{:.2f}", ".8 to 1.1"),
    ("users who settle on the right segment, eight acts", "settled_share", "{:.3f}", ".96"),
    ("the same, after four acts", "settled_early_share", "{:.3f}", ""),
    ("identity kept from block to block", "identity_kept", "{:.3f}", ".985"),
    ("ids that stood for two groups", "ids_of_two_groups", "{:.1f}", "0"),
    ("ids minted", "ids_minted", "{:.1f}", ""),
    ("centroid bias, correlated activity, sd", "centroid_bias_sd", "{:.3f}", ".06"),
    ("stationary: spurious per 1,000", "stationary_spurious_changes_per_1000", "{:.1f}", ""),
    ("stationary: identity kept", "stationary_identity_kept", "{:.3f}", "1"),
    ("stationary: ids minted", "stationary_ids_minted", "{:.1f}", "0"),
    ("near-continuum: R, mean", "continuum_inertia_ratio_mean", "{:.4f}", ""),
    ("near-continuum: changes per 1,000", "continuum_spurious_changes_per_1000", "{:.1f}", ""),
    (
        "near-continuum: moved by a retirement, per 1,000",
        "continuum_retired_changes_per_1000",
        "{:.1f}",
        "",
    ),
    ("near-continuum: identity kept", "continuum_identity_kept", "{:.3f}", ""),
    ("near-continuum: ids minted", "continuum_ids_minted", "{:.1f}", ""),
    ("groups at .4 of the distance: spurious", "near_spurious_changes_per_1000", "{:.1f}", ""),
    ("the same: settled, eight acts", "near_settled_share", "{:.3f}", ""),
    ("the same: settled, four acts", "near_settled_early_share", "{:.3f}", ""),
    ("four workers: labels that differ", "workers_label_difference", "{:.1%}", "0"),
    ("four workers: centroids differ, sd", "workers_centroid_difference", "{:.0e}", "1e-9"),
    ("a million users re-scored, s", "seconds_per_million_rescored", "{:.2f}", ".1"),
    ("the same, mapped before, s", "seconds_per_million_mapped_rescored", "{:.2f}", ".1"),
    ("update and publish per 10,000, s", "seconds_per_10000_updates", "{:.3f}", ".03"),
)
"""Title, name in the object, form, number to reach."""


def over_seeds(rows: Sequence[Mapping[str, float]]) -> dict[str, float | None]:
    """Each number over the seeds; None if no seed has it."""
    found: dict[str, float | None] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row[name] for row in rows if not math.isnan(row.get(name, math.nan))]
        if not values:
            found[name] = None
        else:
            value = max(values) if name in WORST else sum(values) / len(values)
            found[name] = float(f"{value:.5g}")
    return found


def summary(
    by_seed: Mapping[int, Mapping[str, Mapping[str, float]]], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """The object that programs read.

    Args:
        by_seed: numbers by method (and of the streams), as `arena.contest` gives them.
        facts: how much was played.
    """
    methods = dict.fromkeys(name for found in by_seed.values() for name in found)
    told = {name: over_seeds([found[name] for found in by_seed.values()]) for name in methods}
    streams = told.pop(STREAM_FACTS)
    rows = {
        seed: {name: over_seeds([numbers]) for name, numbers in found.items()}
        for seed, found in by_seed.items()
    }
    return {
        **told.pop(OURS),
        NEVER_FORGETS: told.pop(NEVER_FORGETS),
        ONE_MARGIN: told.pop(ONE_MARGIN),
        "rivals": told,
        "streams": streams,
        "targets": {name: target for _, name, _, target in ROWS if target},
        "seeds": list(by_seed),
        "by_seed": rows,
        **facts,
        "machine": machine(),
    }


def machine() -> dict[str, Any]:
    """What it was measured on; no names of machines or users."""
    libraries = ("numpy", "river", "scikit-learn", "scipy")
    return {
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "versions": {
            "Python": platform.python_version(),
            **{name: version(name) for name in libraries},
        },
    }


def section(report: Mapping[str, Any], at: datetime) -> str:
    """The same for people: a dated section in Markdown."""
    on = report["machine"]
    seeds = ", ".join(map(str, report["seeds"]))
    hardness = ", ".join(
        f"{name.removesuffix('_batch_ari_vs_truth')} {value:.2f}"
        for name, value in report["streams"].items()
    )
    played = (
        f"Seeds {seeds}; {report['users']:,} users, {report['updates']:,} updates a stream. River's "
        f"methods: {report['slow_updates']:,} updates of as many fewer users, main stream only. "
        "Segstream is told the judge's window of activity, but for the column that never forgets; in that with "
        "one margin, near segments ask for no greater one than others (`publish.apart` is 0)."
    )
    rivals: Mapping[str, Mapping[str, float | None]] = report["rivals"]
    columns: dict[str, Mapping[str, float | None]] = {
        OURS: report,
        "segstream, never forgets": report[NEVER_FORGETS],
        "segstream, one margin": report[ONE_MARGIN],
        **rivals,
    }
    lines = [
        f"## {at:%Y-%m-%d %H:%M} UTC",
        "",
        f"{on['cpu']}, {on['cores']} cores, one used; "
        + ", ".join(f"{name} {told}" for name, told in on["versions"].items()),
        "",
        played,
        "",
        f"Batch KMeans against the truth, ARI: {hardness}.",
        "",
        "| | to reach | " + " | ".join(columns) + " |",
        "|---|---|" + "---|" * len(columns),
    ]
    for title, name, form, target in ROWS:
        cells = " | ".join(_told(column.get(name), form) for column in columns.values())
        lines.append(f"| {title} | {target} | {cells} |")
    if report.get("conversion"):
        lines += ["", CONVERSION, "", *table(report["conversion"])]
    return "\n".join(lines) + "\n"


def _told(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
