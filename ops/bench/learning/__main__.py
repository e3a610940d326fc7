"""Decides what is run: seeds, sizes, rivals. ``python -m ops.bench.learning``.

Comes in: the command line. Goes out: a table for people, one JSON object for programs, and a section
of ``results/learning.md``. It states what it measured and asserts nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from ops.bench import command
from ops.bench.command import at_least, say
from ops.bench.learning import conversion
from ops.bench.learning.arena import BenchError, Sizes, contest, contestants
from ops.bench.learning.report import HEADER, section, summary
from ops.bench.learning.rivals import RIVALS

RESULTS = Path(__file__).parent.parent / "results" / "learning.md"
SWEPT_SEEDS = 2
"""Shops of each share of buyers: the groups are the same at each, so it is rates that matter."""
LEAST_USERS = 1_000
LEAST_UPDATES = 20_000
"""Below these a burn-in is too short to seed anything."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0 done, 1 it could not be done, 2 wrong use."""
    wanted = parse(arguments)

    def measure() -> dict[str, Any]:
        with threadpool_limits(1):
            return bench(wanted)

    return command.run(
        "bench-learning",
        measure,
        section,
        wanted=wanted,
        results=RESULTS,
        header=HEADER,
        expected=(BenchError,),
    )


def bench(wanted: argparse.Namespace) -> dict[str, Any]:
    """Every seed, one after the other."""
    sizes = Sizes(wanted.users, wanted.updates, min(wanted.slow_updates, wanted.updates))
    seeds = range(wanted.first_seed, wanted.first_seed + wanted.seeds)
    methods = contestants(wanted.rivals)
    by_seed = {seed: contest(seed, sizes, methods, say) for seed in seeds}
    swept = conversion.sweep(seeds[:SWEPT_SEEDS], tell=say) if wanted.conversion else []
    facts = {
        "conversion": swept,
        "users": sizes.users,
        "updates": sizes.updates,
        "slow_updates": sizes.slow_updates,
    }
    return summary(by_seed, facts)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command.options(
        "Segments learned on drifting streams with a known truth, by us and by rivals.",
        RESULTS,
        prog="python -m ops.bench.learning",
        epilog='Example: make bench-learning ARGS="--json --seeds 5 --rivals spark,minibatch"',
    )
    add = parser.add_argument
    add("--seeds", type=at_least(1), default=3, help="streams of each kind, each of another seed")
    add("--first-seed", type=at_least(0), default=101, help="seeds below 101 are for tuning")
    add("--users", type=at_least(LEAST_USERS), default=12_000)
    add("--updates", type=at_least(LEAST_UPDATES), default=200_000, help="of each stream")
    add(
        "--slow-updates",
        type=at_least(LEAST_UPDATES),
        default=50_000,
        help="of the stream for rivals that learn one vector at a time",
    )
    add(
        "--rivals",
        type=_rivals,
        default=tuple(RIVALS),
        metavar="all|none|NAME,..",
        help=", ".join(RIVALS),
    )
    add(
        "--conversion",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="sweep the share of buyers as well",
    )
    return parser.parse_args(arguments)


def _rivals(text: str) -> tuple[str, ...]:
    if text in {"all", "none"}:
        return tuple(RIVALS) if text == "all" else ()
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in RIVALS:
            known = ", ".join(RIVALS)
            raise argparse.ArgumentTypeError(f"{name!r} is no rival; there are {known}")
    return names


if __name__ == "__main__":
    sys.exit(main())
