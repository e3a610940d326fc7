"""Runs the pipeline under faults, and has it judged.

Comes in: a mode, a seed, a length, kinds of faults. Goes out: a `Verdict`; on the way, a line for each
fault. Logs, settings and findings are kept when something was found.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from consumers.audit.report import AuditReport, explain
from consumers.audit.run import audit
from ops.chaos.evidence import Evidence, gather
from ops.chaos.inflict import inflict, mend
from ops.chaos.judge import Check, judge
from ops.chaos.plan import PUBLISHERS, ROLES, Fault, Kind, make_plan
from ops.chaos.stage import EXACT, ChaosError, Mode, Stage
from ops.chaos.traffic import Traffic
from stream.store.redis import RedisStore
from stream.store.state import StoreUnavailableError
from stream.wiring.roles import open_store

START_SECONDS = 60.0
STALLED_SECONDS = 120.0
"""Who has moved nothing for so long will not catch up. How long a recovery takes is the machine's."""
CATCH_UP_SECONDS = 1_800.0
"""Whoever moves on but is not there by then turns in a circle."""
BEGIN_SECONDS = 30.0
"""After a total loss, every partition has begun again by then, whatever faults come on top."""
SYNC_SECONDS = 2.0
"""What the store has on its disk may be older by as much: it writes once a second."""
REFUSES_LOSS = "no state in the store"


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

    def as_json(self) -> dict[str, Any]:
        """The same in plain values."""
        faults = [
            {"began": began, **asdict(fault), "came_of_it": came_of_it}
            for began, fault, came_of_it in self.faults
        ]
        told = {"faults": faults, "kept": str(self.kept or ""), "findings": self.findings}
        return asdict(self) | told


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
    stage = Stage(mode)
    try:
        with stage:
            evidence = _play(stage, verdict, rate, kinds, tell)
    except BaseException:
        tell(f"logs and settings are kept in {stage.directory}")
        raise
    if verdict.findings:
        verdict.kept = stage.directory
        _keep(verdict, evidence)
    else:
        shutil.rmtree(stage.directory)
    return verdict


@dataclass
class FreshStarts:
    """How often users' versions may begin again, by what the store has lost.

    It is empty at first and after it has lost everything; so whenever it goes back to before the
    partitions had begun, they begin again.

    Attributes:
        allowed: so often.
    """

    allowed: int = 0
    _until: float = 0.0

    def begun(self, lived: float) -> None:
        """Every partition has begun, after so many seconds of the store's life."""
        self._until = lived + SYNC_SECONDS

    def lose(self, lived: float) -> None:
        """Everything is lost after so many seconds of the store's life."""
        self.allowed += 1
        self._until = lived + BEGIN_SECONDS

    def put_back(self, lived: float) -> None:
        """It is put back to so many seconds of its life."""
        if lived <= self._until:
            self.allowed += 1


def _play(
    stage: Stage,
    verdict: Verdict,
    rate: float,
    kinds: Sequence[Kind],
    tell: Callable[[str], None],
) -> Evidence:
    """Traffic with faults; then the end, and the judgement."""
    fresh = FreshStarts()
    with Traffic(stage.settings, seed=verdict.seed, rate=rate) as traffic:
        _await_work(stage, traffic)
        fresh.begun(stage.store.lived())
        started = time.monotonic()
        for fault in make_plan(verdict.seed, verdict.seconds, kinds):
            stage.pass_time(started + fault.at_seconds - time.monotonic())
            began = round(time.monotonic() - started, 1)
            # The line stands before its fault: if that hangs, it is known which.
            tell(f"{began:7.1f} s  {fault}")
            put_back_to = stage.store.put_back_to
            came_of_it = inflict(stage, traffic, fault)
            if came_of_it:
                tell(f"{'':11}{came_of_it}")
            if fault.kind is Kind.LOSE_EVERYTHING:
                fresh.lose(stage.store.lived())
            elif stage.store.put_back_to != put_back_to:
                fresh.put_back(stage.store.put_back_to or 0.0)
            verdict.faults.append((began, fault, came_of_it))
            _see_to(traffic)
        stage.pass_time(started + verdict.seconds - time.monotonic())
        mend(stage)
        tell(f"{time.monotonic() - started:7.1f} s  the traffic ends")
        traffic.stop()
        _see_to(traffic)
    with open_store(stage.settings) as store:
        verdict.recovery_seconds, caught_up = _catch_up(stage, store, traffic.last_ms)
        if not caught_up:
            for role in stage.roles.values():
                role.say_where()
            stage.pass_time(1.0)
        behaved = _end(stage, store, lost=fresh.allowed > 0)
        if not caught_up:
            behaved.findings.append(f"not caught up after {verdict.recovery_seconds:.0f} s")
        tell(f"{time.monotonic() - started:7.1f} s  judging")
        evidence = gather(stage.settings, store, [feature.name for feature in EXACT])
        by_marks = verdict.mode == "marks"
        judged = judge(evidence, traffic.sent, by_marks=by_marks, fresh_starts=fresh.allowed)
        verdict.checks = [behaved, *judged, _audited(audit(stage.settings, store))]
    verdict.messages = sum(map(len, evidence.inputs))
    verdict.changes = len(evidence.changes)
    return evidence


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


def _catch_up(stage: Stage, store: RedisStore, last_ms: int) -> tuple[float, bool]:
    """Wait until everything is read, every change delivered, and a round of the trainer is past it.

    Returns:
        Seconds it took, and whether it has happened. It is given up where nothing moves any more.
    """
    began = moved = time.monotonic()
    ends = stage.input_ends()
    partitions = range(stage.settings.topics.partitions)
    before: object = None
    while (now := time.monotonic()) < min(began + CATCH_UP_SECONDS, moved + STALLED_SECONDS):
        with contextlib.suppress(StoreUnavailableError):
            found = [store.position(number) for number in partitions]
            read = [None if position is None else position.offsets for position in found]
            learned, waiting = store.round(), store.outbox_sizes(partitions)
            if read == ends and learned >= last_ms and not any(waiting):
                return round(now - began, 1), True
            if (stands := (read, learned, waiting)) != before:
                before, moved = stands, now
        stage.pass_time(0.2)
    return round(time.monotonic() - began, 1), False


def _end(stage: Stage, store: RedisStore, *, lost: bool) -> Check:
    """End the roles in good order: who makes changes first, who delivers them last.

    Args:
        lost: whether the store has lost everything: workers may end to have that accepted.
    """
    check = Check("roles stay up, catch up, raise nothing, and end when asked")
    check.looked_at = len(ROLES)
    stage.let_start()
    stage.end_roles(*(name for name in ROLES if name not in PUBLISHERS))
    deadline = time.monotonic() + STALLED_SECONDS
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
    (verdict.kept / "findings.json").write_text(json.dumps(verdict.as_json(), indent=1))
    for name, records in (("changes", evidence.changes), ("models", evidence.models)):
        with (verdict.kept / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for record in records:
                line = {"place": record.place, "time_ms": record.timestamp_ms}
                file.write(json.dumps(line | {"record": json.loads(record.value)}) + "\n")
