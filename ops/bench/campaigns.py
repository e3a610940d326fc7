"""Measures deciding: changes a second for ten campaigns on one core, and bytes a pair.

``python -m ops.bench.campaigns`` makes changes of many users over some days as they are on the topic,
decides about them in batches, as a role does, and appends a dated section to ``results/campaigns.md``.
Half of the campaigns settle, some wait for quiet hours, caps hold over all of them.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ops.bench import command
from ops.bench.report import load_after, measured_on
from stream.campaigns.decide import Decider
from stream.campaigns.declare import Campaign, Limits
from stream.campaigns.state import PAIR
from stream.config import ConfigError
from stream.units import isos

RESULTS = Path(__file__).parent / "results" / "campaigns.md"
START_MS = 1_764_547_200_000
KINDS = ("champion", "loyal", "promising", "new", "browsing", "at_risk", "dormant")
BATCH = 2_000

HEADER = """\
# Deciding about changes, measured

Each section is one run of `python -m ops.bench.campaigns`: processor time of one process from change
records to decisions, medians over rounds. `bytes` to columns is decoding, `columns` to decisions the
rest. Only proportions mean anything from one machine or day to another.
"""


def campaigns() -> list[Campaign]:
    """Ten, as a shop has them."""
    quiet = {"from": "21:00", "to": "08:00", "zone": "Europe/London"}
    declared: list[dict[str, Any]] = [
        {"when": {"kind_to": ["at_risk"], "kind_from": ["loyal", "champion"]}, "settle": "2h"},
        {"when": {"kind_to": ["dormant"]}, "settle": "1d", "valid_for": "3d", "quiet": quiet},
        {"when": {"kind_to": ["champion"]}, "arms": {"gift": 1, "letter": 2}},
        {"when": {"kind_to": ["loyal"], "kind_from": ["promising"]}, "quiet": quiet},
        {"when": {"kind_to": ["browsing"]}, "settle": "30m", "quiet": quiet | {"then": "drop"}},
        {"when": {"kind_to": ["new"]}, "priority": 1},
        {"when": {"kind_from": ["at_risk", "dormant"], "kind_to": ["loyal", "champion"]}},
        {"when": {"segment_to": [3, 4]}, "settle": "10m"},
        {"when": {"kind_to": ["at_risk"], "reasons": ["orders_30d"]}, "settle": "1h"},
        {"when": {"kind_to": ["promising"], "cause": ["user_moved"]}},
    ]
    common = {"holdout": 0.1, "cooldown": "30d", "goal": {}}
    return [
        Campaign.model_validate(
            {"name": f"c{place}", "group": "retention" if place in {0, 8} else None} | common | one
        )
        for place, one in enumerate(declared)
    ]


def records(changes: int, users: int, days: float, seed: int) -> list[bytes]:
    """Changes in the order of their times; a user leaves the segment they came to."""
    random = np.random.default_rng(seed)
    whose = random.integers(0, users, changes)
    times = START_MS + np.sort(random.integers(0, round(days * 86_400_000), changes))
    went = random.integers(1, len(KINDS) + 1, changes).tolist()
    where, numbers = [0] * users, [0] * users
    made = []
    for user, after, at in zip(whose.tolist(), went, isos(times), strict=True):
        before = where[user]
        where[user], numbers[user] = after, numbers[user] + 1
        made.append(
            msgspec.json.encode(
                {
                    "id": f"{user:032x}-1-{numbers[user]}",
                    "user": f"user-{user}",
                    "version": numbers[user],
                    "from": before or None,
                    "to": after,
                    "name_from": f"Segment {before}" if before else None,
                    "name_to": f"Segment {after}",
                    "kind_from": KINDS[before - 1] if before else None,
                    "kind_to": KINDS[after - 1],
                    "cause": "time_passed" if user % 3 else "user_moved",
                    "at": at,
                    "last_event_at": at,
                    "model": "1.0",
                    "margin": 0.2,
                    "provisional": before == 0,
                    "why": [
                        {"feature": name, "value": 1.0, "contribution": 0.1}
                        for name in ("orders_30d", "days_since_seen", "views_7d")
                    ],
                    "rest": 0.0,
                }
            )
        )
    return made


def measure(values: Sequence[bytes], rounds: int) -> dict[str, Any]:
    """Seconds of processor time a round, and what was decided."""
    decoding, deciding = [], []
    decider = Decider([], Limits())
    for _ in range(rounds):
        limits = Limits.model_validate({"per_user": {"day": 1, "week": 3}, "global_holdout": 0.02})
        decider = Decider(campaigns(), limits, b"key")
        spent = [0.0, 0.0]
        for first in range(0, len(values), BATCH):
            begun = time.process_time()
            changes = decider.reader.decode(values[first : first + BATCH])
            decoded = time.process_time()
            decider.advance(int(changes.at_ms[0]))
            decider.decide(changes)
            spent[0] += decoded - begun
            spent[1] += time.process_time() - decoded
        decoding.append(spent[0])
        deciding.append(spent[1])
    outcomes: dict[str, int] = {}
    for counts in decider.tally().values():
        for outcome, count in counts.items():
            outcomes[outcome] = outcomes.get(outcome, 0) + count
    both = [one + other for one, other in zip(decoding, deciding, strict=True)]
    return {
        "changes": len(values),
        "campaigns": len(decider.campaigns),
        "decoding_per_second": len(values) / statistics.median(decoding),
        "deciding_per_second": len(values) / statistics.median(deciding),
        "whole_per_second": len(values) / statistics.median(both),
        "rounds_per_second": [len(values) / seconds for seconds in both],
        "pairs": decider.pairs.size,
        "bytes_a_pair": PAIR.itemsize,
        "outcomes": outcomes,
    }


def section(report: dict[str, Any], at: datetime) -> str:
    """A dated section of the results."""
    rounds = " ".join(f"{rate:,.0f}" for rate in report["rounds_per_second"])
    told = ", ".join(f"{name} {count:,}" for name, count in report["outcomes"].items())
    lines = [
        f"## {at:%Y-%m-%d %H:%M} UTC",
        "",
        f"{measured_on('msgspec', 'numpy')}; {load_after()}.",
        "",
        f"{report['changes']:,} changes, {report['campaigns']} campaigns, batches of {BATCH:,}.",
        "",
        "| step | changes/s, one core |",
        "|---|---|",
        f"| bytes to columns | {report['decoding_per_second']:,.0f} |",
        f"| columns to decisions | {report['deciding_per_second']:,.0f} |",
        f"| both | {report['whole_per_second']:,.0f} ({rounds}) |",
        "",
        (
            f"{report['pairs']:,} pairs of a user and a campaign with state, {report['bytes_a_pair']} bytes "
            f"each. Outcomes: {told}."
        ),
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command.options(__doc__ or "", RESULTS)
    add = parser.add_argument
    add("--changes", type=command.at_least(BATCH), default=400_000, help="of a round")
    add("--users", type=command.at_least(1), default=100_000, help="whose changes they are")
    add("--rounds", type=command.at_least(1), default=5, help="of which medians are told")
    wanted = parser.parse_args(arguments)
    return command.run(
        "bench-campaigns",
        lambda: measure(records(wanted.changes, wanted.users, 20.0, 1), wanted.rounds),
        section,
        wanted=wanted,
        results=RESULTS,
        header=HEADER,
        expected=(ConfigError,),
    )


if __name__ == "__main__":
    sys.exit(main())
