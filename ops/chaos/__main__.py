"""Runs chaos against the pipeline: ``python -m ops.chaos --seconds 600 --seed 1 --mode live``.

Comes in: a length, a seed, a mode. Goes out: a line for each fault as it happens, then what the judge
and the project's own audit found, and an exit code: 0 nothing, 1 something, 2 it could not be run.

The same seed gives the same faults in the same order, and the same shoppers. What exactly a fault
hits is a matter of moments, so a finding may take several runs of its seed to come again. When
something was found, the logs of the roles, the settings and all findings are kept.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from consumers.audit import AuditReport, audit, explain
from ops.chaos.evidence import Evidence, gather
from ops.chaos.inflict import inflict, mend
from ops.chaos.judge import Check, judge
from ops.chaos.plan import PUBLISHERS, ROLES, SHAPES, Fault, Kind, make_plan
from ops.chaos.stage import EXACT, ChaosError, Mode, Stage
from ops.chaos.traffic import Traffic
from stream.cli.roles import open_store
from stream.errors import BrokerUnavailableError, ServerStartError, TopicMissingError
from stream.redis_state import RedisStore
from stream.state import StoreUnavailableError

FOUND, NOT_RUN, INTERRUPTED = 1, 2, 130
START_SECONDS = 60.0
CATCH_UP_SECONDS = 120.0
"""Far above what a recovery takes: a deadline only has to be shorter than patience."""
REFUSES_LOSS = "no state in the store"
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


@dataclass
class Verdict:
    """What a run came to.

    Attributes:
        faults: as they happened: seconds from the beginning, the fault, what came of it.
        checks: of the judge, and of the run itself.
        kept: where logs and findings lie; None if nothing was found.
    """

    mode: Mode
    seed: int
    seconds: float
    messages: int = 0
    changes: int = 0
    recovery_seconds: float = 0.0
    faults: list[tuple[float, Fault, str]] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    kept: Path | None = None

    @property
    def findings(self) -> int:
        return sum(len(check.findings) for check in self.checks)


def run(
    *,
    mode: Mode,
    seed: int,
    seconds: float,
    rate: float,
    kinds: Sequence[Kind] = tuple(Kind),
    tell: Callable[[str], None] = print,
) -> Verdict:
    """Run the pipeline under faults, and judge it.

    Raises:
        ChaosError: it could not be run.
    """
    verdict = Verdict(mode, seed, seconds)
    with Stage(mode) as stage:
        fresh_starts = 0
        with Traffic(stage.settings, seed=seed, rate=rate) as traffic:
            _await_work(stage, traffic)
            started = time.monotonic()
            for fault in make_plan(seed, seconds, kinds):
                stage.pass_time(started + fault.at_seconds - time.monotonic())
                began = round(time.monotonic() - started, 1)
                # The line stands before its fault: if that hangs, it is known which.
                tell(f"{began:7.1f} s  {fault}")
                came_of_it = inflict(stage, traffic, fault)
                if came_of_it:
                    tell(f"{'':11}{came_of_it}")
                fresh_starts += fault.kind is Kind.LOSE_EVERYTHING
                verdict.faults.append((began, fault, came_of_it))
                _see_to(traffic)
            stage.pass_time(started + seconds - time.monotonic())
            mend(stage)
            tell(f"{time.monotonic() - started:7.1f} s  the traffic ends")
            traffic.stop()
            _see_to(traffic)
        with open_store(stage.settings) as store:
            verdict.recovery_seconds = _catch_up(stage, store, traffic.last_ms)
            behaved = _end(stage, store, lost=fresh_starts > 0)
            tell(f"{time.monotonic() - started:7.1f} s  judging")
            evidence = gather(stage.settings, store, [feature.name for feature in EXACT])
            if verdict.recovery_seconds >= CATCH_UP_SECONDS:
                behaved.findings.append(f"not caught up after {verdict.recovery_seconds:.0f} s")
            verdict.checks = [
                behaved,
                *judge(evidence, traffic.sent, by_marks=mode == "marks", fresh_starts=fresh_starts),
            ]
            verdict.checks.append(_audited(audit(stage.settings, store)))
        verdict.messages = sum(map(len, evidence.inputs))
        verdict.changes = len(evidence.changes)
        if verdict.findings:
            verdict.kept = stage.directory
            _keep(verdict, evidence)
    if verdict.kept is None:
        shutil.rmtree(stage.directory)
    return verdict


def _await_work(stage: Stage, traffic: Traffic) -> None:
    """Wait until each partition has a state and there is a model.

    Before, there is nothing that could be lost; and how long roles take to start is the machine's.
    """
    deadline = time.monotonic() + START_SECONDS
    partitions = range(stage.settings.topics.partitions)
    with open_store(stage.settings) as store:
        while time.monotonic() < deadline:
            if all(store.position(number) for number in partitions) and store.round():
                return
            stage.pass_time(0.1)
            _see_to(traffic)
    raise ChaosError(f"the pipeline has not begun to work within {START_SECONDS:.0f} s")


def _see_to(traffic: Traffic) -> None:
    if traffic.failure is not None:
        raise ChaosError(f"the traffic failed: {traffic.failure}")


def _catch_up(stage: Stage, store: RedisStore, last_ms: int) -> float:
    """Wait until everything is read, every change delivered, and a round of the trainer is past it.

    Returns:
        Seconds it took; `CATCH_UP_SECONDS` or more if it has not happened.
    """
    began = time.monotonic()
    ends = stage.input_ends()
    partitions = range(stage.settings.topics.partitions)
    while time.monotonic() - began < CATCH_UP_SECONDS:
        with contextlib.suppress(StoreUnavailableError):
            found = [store.position(number) for number in partitions]
            read = [None if position is None else position.offsets for position in found]
            learned = store.round() >= last_ms
            if read == ends and learned and not any(store.outbox_sizes(partitions)):
                break
        stage.pass_time(0.2)
    return round(time.monotonic() - began, 1)


def _end(stage: Stage, store: RedisStore, *, lost: bool) -> Check:
    """End the roles in good order: who makes changes first, who delivers them last.

    Args:
        lost: whether the store has lost everything: workers may end to have that accepted.
    """
    check = Check("roles stay up, catch up, raise nothing, and end when asked")
    check.looked_at = len(ROLES)
    stage.let_start()
    stage.end_roles(*(name for name in ROLES if name not in PUBLISHERS))
    deadline = time.monotonic() + CATCH_UP_SECONDS
    partitions = range(stage.settings.topics.partitions)
    while any(store.outbox_sizes(partitions)) and time.monotonic() < deadline:
        stage.pass_time(0.2)
    stage.end_roles(*PUBLISHERS)
    check.findings += [one for one in stage.fell if not lost or REFUSES_LOSS not in one]
    for role in stage.roles.values():
        traces = role.said().count("Traceback")
        if traces:
            check.findings.append(f"{role.name} left {traces} traces: {role.log}")
    return check


def _audited(report: AuditReport) -> Check:
    """The project's own audit, as a check; where all stands still, nothing stays unjudged."""
    check = Check("the audit agrees", looked_at=sum(one.counted for one in report.checks))
    check.repeats = report.repeated
    if not report.ok:
        check.findings += [line.strip() for line in explain(report) if not line.startswith("ok")]
    if report.unjudged:
        check.findings.append(f"{report.unjudged} things were not judged")
    return check


def _keep(verdict: Verdict, evidence: Evidence) -> None:
    """Leave what is needed to see how it came about: findings, and the outputs as they were."""
    assert verdict.kept is not None
    (verdict.kept / "findings.json").write_text(json.dumps(_as_json(verdict), indent=1))
    for name, records in (("changes", evidence.changes), ("models", evidence.models)):
        with (verdict.kept / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for record in records:
                line = {"place": record.place, "time_ms": record.timestamp_ms}
                file.write(json.dumps(line | {"record": json.loads(record.value)}) + "\n")


# -- telling -----------------------------------------------------------------------------------


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


def _as_json(verdict: Verdict) -> dict[str, Any]:
    found = asdict(verdict)
    found["faults"] = [
        {"began": began, **asdict(fault), "came_of_it": came_of_it}
        for began, fault, came_of_it in verdict.faults
    ]
    return found | {"kept": str(verdict.kept or ""), "findings": verdict.findings}


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
    logging.getLogger("stream").setLevel(logging.CRITICAL)  # a broker that is away is no news here

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
        print(json.dumps(_as_json(verdict)))
    if asked.record:
        _record(verdict)
    return FOUND if verdict.findings else 0


def _interrupt(number: int, frame: object) -> NoReturn:
    del number, frame
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
