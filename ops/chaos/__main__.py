"""Runs chaos against the pipeline: ``python -m ops.chaos --seconds 600 --seed 1 --mode live``.

Comes in: a length, a seed, a mode. Goes out: a line for each fault as it happens, then what the judge
and the project's own audit found, and an exit code: 0 nothing, 1 something, 2 it could not be run.

The same seed gives the same faults in the same order, and the same shoppers. What exactly a fault
hits is a matter of moments, so a finding may take several runs of its seed to come again. When
something was found, the logs of the roles, the settings and all findings are kept.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NoReturn

from ops.chaos.plan import SHAPES, Kind, make_plan
from ops.chaos.run import Verdict, run
from ops.chaos.stage import ChaosError
from stream.errors import BrokerUnavailableError, ServerStartError, TopicMissingError
from stream.store.state import StoreUnavailableError

FOUND, NOT_RUN, INTERRUPTED = 1, 2, 130
SHOWN = 5
RESULTS = Path(__file__).parent / "results.md"
HEADER = """\
# Chaos, recorded

Each line is one run of `make chaos`: live traffic on Apache Kafka and Redis, faults at random by a
seed, and a judge that reads topics and rows. `python -m ops.chaos --help` has the kinds of faults.

| when | mode | seed | seconds | messages | changes | faults | findings |
|---|---|---|---|---|---|---|---|
"""
EXPECTED = (
    OSError,
    ChaosError,
    ServerStartError,
    StoreUnavailableError,
    BrokerUnavailableError,
    TopicMissingError,
)


def _table(verdict: Verdict) -> Iterator[str]:
    """The verdict for a person."""
    yield (
        f"{verdict.mode}, seed {verdict.seed}: {verdict.messages:,} messages, "
        f"{verdict.changes:,} records of changes and lineage, {len(verdict.faults)} faults, "
        f"caught up in {verdict.recovery_seconds:.0f} s"
    )
    for check in verdict.checks:
        mark = "OFF" if check.findings else "ok "
        wrong = f", {len(check.findings)} wrong" if check.findings else ""
        repeats = f", {check.repeats} repeated" if check.repeats else ""
        yield f"  {mark} {check.promise}: {check.looked_at:,} looked at{wrong}{repeats}"
        yield from (f"        {finding}" for finding in check.findings[:SHOWN])
        if len(check.findings) > SHOWN:
            yield f"        and {len(check.findings) - SHOWN} more"
    if verdict.kept is not None:
        yield f"findings, logs and settings are kept in {verdict.kept}"


def _record(verdict: Verdict) -> None:
    if not RESULTS.exists():
        RESULTS.write_text(HEADER)
    when = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    with RESULTS.open("a") as file:
        file.write(
            f"| {when} | {verdict.mode} | {verdict.seed} | {verdict.seconds:.0f} | "
            f"{verdict.messages:,} | {verdict.changes:,} | {len(verdict.faults)} | "
            f"{verdict.findings} |\n"
        )


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    kinds = "\n".join(f"  {kind:<29} {SHAPES[kind].meaning}" for kind in Kind)
    parser = argparse.ArgumentParser(
        prog="python -m ops.chaos",
        description="Live traffic on real servers, faults by a seed, and a judge.",
        epilog=f"kinds of faults:\n{kinds}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=600.0, help="length of the traffic")
    parser.add_argument("--seed", type=int, default=1, help="decides faults and shoppers")
    parser.add_argument("--mode", choices=("live", "marks"), default="live", help="clock in use")
    parser.add_argument("--rate", type=float, default=1_200.0, help="messages a second")
    parser.add_argument("--only", type=_kinds, metavar="KIND,..", help="no other kinds of faults")
    parser.add_argument("--without", type=_kinds, metavar="KIND,..", help="not these kinds")
    parser.add_argument("--plan", action="store_true", help="show the faults and do nothing")
    parser.add_argument("--record", action="store_true", help=f"add a line to {RESULTS.name}")
    parser.add_argument("--json", action="store_true", help="the verdict as one object on stdout")
    found = parser.parse_args(arguments)
    wanted = found.only or tuple(Kind)
    found.kinds = tuple(kind for kind in wanted if kind not in (found.without or ()))
    if not found.kinds:
        parser.error("no kind of fault is left")
    return found


def _kinds(text: str) -> tuple[Kind, ...]:
    return tuple(Kind(name.strip()) for name in text.split(","))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from a command line; returns the exit code."""
    asked = _arguments(arguments)
    if asked.plan:
        for fault in make_plan(asked.seed, asked.seconds, asked.kinds):
            print(f"{fault.at_seconds:7.1f} s  {fault}")
        return 0

    def tell(line: str) -> None:
        print(line, file=sys.stderr if asked.json else sys.stdout, flush=True)

    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        verdict = run(
            mode=asked.mode,
            seed=asked.seed,
            seconds=asked.seconds,
            rate=asked.rate,
            kinds=asked.kinds,
            tell=tell,
        )
    except EXPECTED as error:
        print(f"chaos: {error}", file=sys.stderr)
        return NOT_RUN
    except KeyboardInterrupt:
        print("chaos: interrupted", file=sys.stderr)
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)
    for line in _table(verdict):
        tell(line)
    if asked.json:
        print(json.dumps(verdict.as_json()))
    if asked.record:
        _record(verdict)
    return FOUND if verdict.findings else 0


def _interrupt(number: int, frame: object) -> NoReturn:
    del number, frame
    raise KeyboardInterrupt


if __name__ == "__main__":
    logging.getLogger("stream").setLevel(logging.CRITICAL)  # a broker that is away is no news here
    sys.exit(main())
