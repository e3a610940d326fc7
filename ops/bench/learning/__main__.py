"""Decides what is run: seeds, sizes, rivals. ``python -m ops.bench.learning``.

Comes in: the command line. Goes out: a table for people, one JSON object for programs, and a section
of ``results/learning.md``. It states what it measured and asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from threadpoolctl import threadpool_limits

from ops.bench.learning.arena import BenchError, Sizes, contest, contestants
from ops.bench.learning.report import HEADER, section, summary
from ops.bench.learning.rivals import RIVALS
from ops.bench.report import append

RESULTS = Path(__file__).parent.parent / "results" / "learning.md"
LEAST_USERS = 1_000
LEAST_UPDATES = 20_000
"""Below these a burn-in is too short to seed anything."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0 done, 1 it could not be done, 2 wrong use."""
    wanted = parse(arguments)
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with threadpool_limits(1):
            report = bench(wanted)
        text = section(report, datetime.now(UTC))
        if wanted.append:
            append(RESULTS, text, HEADER)
    except (BenchError, OSError) as error:
        return _failed(str(error))
    except KeyboardInterrupt:
        return _failed("interrupted", 130)
    finally:
        signal.signal(signal.SIGTERM, before)
    print(text, file=sys.stderr if wanted.json else sys.stdout)
    if wanted.json:
        print(json.dumps(report))
    return 0


def bench(wanted: argparse.Namespace) -> dict[str, Any]:
    """Every seed, one after the other."""
    sizes = Sizes(wanted.users, wanted.updates, min(wanted.slow_updates, wanted.updates))
    seeds = range(wanted.first_seed, wanted.first_seed + wanted.seeds)
    methods = contestants(wanted.rivals)
    by_seed = {seed: contest(seed, sizes, methods, _say) for seed in seeds}
    facts = {
        "users": sizes.users,
        "updates": sizes.updates,
        "slow_updates": sizes.slow_updates,
    }
    return summary(by_seed, facts)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m ops.bench.learning",
        description="Segments learned on drifting streams with a known truth, by us and by rivals.",
        epilog='Example: make bench-learning ARGS="--json --seeds 5 --rivals spark,minibatch"',
    )
    add = parser.add_argument
    add("--json", action="store_true", help="one JSON object as the last line on stdout")
    add("--seeds", type=_at_least(1), default=3, help="streams of each kind, each of another seed")
    add("--first-seed", type=_at_least(0), default=101, help="seeds below 101 are for tuning")
    add("--users", type=_at_least(LEAST_USERS), default=12_000)
    add("--updates", type=_at_least(LEAST_UPDATES), default=200_000, help="of each stream")
    add(
        "--slow-updates",
        type=_at_least(LEAST_UPDATES),
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
        "--append",
        action=argparse.BooleanOptionalAction,
        default=True,
        help=f"append a section to {RESULTS.parent.name}/{RESULTS.name}",
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


def _at_least(least: int) -> Callable[[str], int]:
    """Reads a whole number, perhaps with underscores or commas, not below a limit."""

    def read(text: str) -> int:
        try:
            number = int(text.replace(",", ""))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
        if number < least:
            raise argparse.ArgumentTypeError(f"must be at least {least:,}")
        return number

    return read


def _interrupt(number: int, frame: object) -> NoReturn:
    del number, frame
    raise KeyboardInterrupt


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _failed(why: str, code: int = 1) -> int:
    _say(f"bench-learning: {why}")
    return code


if __name__ == "__main__":
    sys.exit(main())
