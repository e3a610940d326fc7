"""What any command writes is harmless: whoever names a user or a segment commands no terminal.

Each command is run with facts in which every text that somebody else may have written is hostile. A
command that is not in `DRIVES` fails here, so that a new one cannot be forgotten.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import pytest
from confluent_kafka import KafkaException
from rich.text import Text
from typer.core import TyperGroup

from consumers import activity, beginning, group, intake, owner, role, take_over, watermark
from consumers.audit.report import AuditReport, Check
from consumers.change_log import ChangeLog
from consumers.findings import Finding
from consumers.letters import Letter, Summary, Survey
from consumers.owner import NotOursError, StateLostError
from producers import control
from producers import topics as topic_plans
from producers.dead_letters import LetterReport
from producers.mapped import Refusal
from producers.replay import ReplayReport
from producers.topics import Difference, TopicPlan
from producers.traffic import ShopReport
from stream import config_layers
from stream.cli import explore as explore_view
from stream.cli import main, views
from stream.cli.commands import campaigning, checking, running, sending
from stream.cli.invocation import invocation
from stream.cli.terminal import SafeConsole, console
from stream.config import Settings
from stream.features import DEFAULT_FEATURES
from stream.insight import applying, campaign_facts, explore, members, queries, rule_facts, trial
from stream.insight import plan as planning
from stream.insight import why as reasons
from stream.insight.members import Member
from stream.told import ToldError
from stream.wiring import api, campaigns, republish, roles
from stream.wiring import demo as demonstration
from stream.wiring import letters as letter_facts
from stream.wiring import parked as parked_facts
from stream.wiring import rekey as rekeying
from tests.command import whole_command

EVIL = "mallory\x1b[2J\x1b]0;owned\x07\x9b31m\u202e\u2066\u200b\x7f\u2028\ud800\r\nFORGED line"
WRITTEN_OUT = r"mallory\x1b[2J\x1b]0;owned\x07\x9b31m\u202e\u2066\u200b\x7f\u2028\ud800\r\nFORGED"
OBEYED = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
FEATURE = DEFAULT_FEATURES[0].name


def harmless(text: str) -> None:
    """Nothing is obeyed, and no line begins as somebody else wished."""
    assert OBEYED.search(text) is None, text
    for line in text.splitlines():
        assert not re.match(r"\s*FORGED", line), text


# -- hostile facts -----------------------------------------------------------------------------


def change(user: str = EVIL) -> dict[str, Any]:
    return {
        "id": "1", "user": user, "version": 2, "from": 1, "to": 2, "kind_from": EVIL,
        "kind_to": "new", "cause": "user_moved", "name_from": EVIL, "name_to": EVIL,
        "at": "2026-01-01T00:00:00.000Z", "last_event_at": "2026-01-01T00:00:00.000Z",
        "model": "1.0", "margin": 0.3, "provisional": False, "rest": 0.0,
        "why": [{"feature": EVIL, "value": 1.0, "contribution": 0.3}],
    }  # fmt: skip


LINEAGE = {
    "id": "2", "event": "renamed", "segment": 1, "others": [], "name": EVIL, "kind": EVIL,
    "users": 3, "at": "2026-01-01T00:00:00.000Z", "model": "1.0",
}  # fmt: skip


def segments() -> dict[str, Any]:
    profile = [
        {"feature": f.name, "value": 1.0, "unit": f.unit, "z": 1.0} for f in DEFAULT_FEATURES
    ]
    flapping = {"changes_per_user_day": 0.1, "reverted_share": 0.2, "user_days": 9.0}
    one = {"id": 1, "name": EVIL, "kind": EVIL, "size": 3, "profile": profile, "flapping": flapping,
           "population": EVIL, "scores": [
               {"score": EVIL, "unit": "probability", "users": 2, "mean": 0.5, "total": 1.0,
                "looks": 3, "foretold": 0.5, "came": 0.4}]}  # fmt: skip
    populations = [{"name": name, "when": {}, "users": 3, "segments": ids, "choice": EVIL}
                   for name, ids in ((EVIL, [1]), (f"{EVIL} too", []))]  # fmt: skip
    return {
        "model": EVIL, "at": EVIL, "users": 3, "inertia": 1.0, "silhouette": 0.5,
        "segments": [one], "lineage": [LINEAGE], "populations": populations, "scores": [score()],
        "levels": [
            {"level": EVIL, "step": EVIL, "limits": [{"of": EVIL, "least": 1.0}], "users": 2}
        ],
    }  # fmt: skip


def score() -> dict[str, Any]:
    return {
        "score": EVIL, "of": "buy", "days": 30.0, "unit": EVIL, "labels": 900, "base": 0.5,
        "auc": 0.7, "log_loss": 0.5, "calibration": 0.01, "captured": None, "total": None,
    }  # fmt: skip


def rules() -> dict[str, Any]:
    conditions = [{"feature": FEATURE, "above": None, "upto": 1.0, "unit": ""}]
    rule = {"conditions": conditions, "covers": 0.5, "purity": 0.5, "users": 3}
    return {
        "populations": [
            {"name": EVIL, "when": {FEATURE: {"min": 1.0}}}, {"name": "rest", "when": {}},
        ],
        "fidelity": 0.9, "learned_from": 9, "judged_on": 3, "users": 12,
        "segments": [{
            "segment": 1, "name": EVIL, "kind": EVIL, "covers": 0.5, "purity": 0.5,
            "overlaps": True, "rules": [rule], "population": EVIL,
        }],
    }  # fmt: skip


def user() -> dict[str, Any]:
    return {
        "user": EVIL, "partition": 0, "at": EVIL, "first_seen": EVIL, "last_seen": EVIL,
        "features": [{"feature": FEATURE, "value": 1.0, "unit": EVIL}], "version": 2,
        "segment": {"id": 1, "name": EVIL, "kind": EVIL, "since": EVIL}, "changes": [change()],
        "model": EVIL, "distances": [{"segment": 1, "name": EVIL, "distance": 0.1}],
        "scores": [{"score": EVIL, "value": 0.5, "unit": unit} for unit in (EVIL, views.FARTHER)],
        "levels": [level()],
    }  # fmt: skip


def level() -> dict[str, Any]:
    return {"level": EVIL, "step": EVIL, "looks_at": {EVIL: 1.0}}


def why() -> dict[str, Any]:
    part = {"feature": FEATURE, "unit": EVIL, "value": 1.0, "own": 1.0, "other": 2.0,
            "contribution": 0.1}  # fmt: skip
    to = {"segment": 2, "name": EVIL, "kind": EVIL}
    proposal = {"feature": FEATURE, "unit": EVIL, "value": 1.0, "needed": 2.0, "sd": 1.0,
                "how": "by acting"}  # fmt: skip
    return {
        "population": {"name": EVIL, "when": {FEATURE: {"max": 1.0}}},
        "margin": {"own": 1, "other": 2, "difference": -0.1, "z": -0.1, "parts": [part]},
        "margin_needed": 0.2, "silence_margin_needed": 0.1, "evidence": {"segment": 2, "z": 0.1},
        "rests_until": EVIL,
        "moves": [{**to, "is": "nearest", "acts_only_until": EVIL, "changes": [proposal]}],
        "acts": [{**to, "event": EVIL, "times": 2, "value": None, "quantity": None}],
        "silence": [{**to, "days": 3, "at": EVIL}],
        "scores": [score() | {"value": 0.5, "log_odds": 0.0, "average": 0.5, "parts": [
            {"feature": FEATURE, "value": 1.0, "unit": EVIL, "log_odds": -0.5}]}],
        "unusual": {**to, "value": 0.99, "distance": 2.0, "parts": [
            {"feature": FEATURE, "value": 1.0, "usual": 2.0, "unit": EVIL, "squared": 4.0}]},
        "levels": [level() | {
            "acts": [{"event": EVIL, "times": 2, "value": None, "quantity": None, "step": EVIL}],
            "silence": [{"days": 3, "at": EVIL, "step": EVIL}]}],
    }  # fmt: skip


def plan() -> dict[str, Any]:
    row = {"id": 1, "name": EVIL, "kind": EVIL, "users": 3}
    return {
        "verdict": EVIL, "users": 3, "source": EVIL, "at": EVIL, "model": EVIL, "sampled": 3,
        "matrix": [{"from": 1, "to": 1, "users": 3}], "before": [row],
        "after": [row | {"new": False}], "kinds": {EVIL: {"before": 3, "after": 3}},
        "lineage": [LINEAGE], "causes": {EVIL: 1}, "records": 1, "due_anyway": 1, "notes": [EVIL],
        "moving": 1, "share": 1 / 3,
    }  # fmt: skip


def study() -> dict[str, Any]:
    return {
        "firmness": "firm", "noise": 1, "suggested": 2, "source": EVIL, "sampled": 3, "users": 9,
        "segments": [{"id": 1, "name": EVIL, "kind": EVIL, "size": 3, "share": 1.0}],
        "curves": {"inertia": {"2": 1.0}, "stability": {}, "separation": {}, "silhouette": {}},
        "notes": [EVIL], "written": {"report": EVIL}, "population": EVIL,
        "populations": [
            {"name": EVIL, "users": 9, "configured": None, "suggested": 2, "firmness": "firm"},
            {"name": "rest", "users": 0, "configured": 3, "suggested": None, "firmness": None},
        ],
    }  # fmt: skip


def demo() -> Any:
    return {
        "ok": False, "seconds": 1.0, "events": 3, "events_per_second": 3.0, "users": 3,
        "changes": 1, "changes_by_cause": {EVIL: 1}, "churn_risk_moves": 1,
        "change_latency_p50_seconds": 0.1, "change_latency_p99_seconds": 0.1, "lost": 0,
        "duplicated": 0, "rejected": 0, "segment_list": segments(),
        "checks": [{"name": EVIL, "ok": False, "offenders": [EVIL], "note": EVIL}],
        "effects": [{
            "campaign": EVIL, "arm": EVIL, "users": 1, "held_out_users": 1, "verdict": EVIL,
            "measured": 0.1, "sequence": [0.0, 0.2], "true": 0.1,
        }],
    }  # fmt: skip


def report(file: Path) -> ReplayReport:
    refusal = Refusal(1, EVIL, EVIL, {"user": EVIL})
    return ReplayReport(
        rows=2, refused={EVIL: 1}, examples={EVIL: [refusal]}, events={EVIL: 1}, rejected_to=file
    )


# -- each command ------------------------------------------------------------------------------

Patch: TypeAlias = pytest.MonkeyPatch
Drive: TypeAlias = Callable[[Patch, Path], Sequence[str]]


def _stored(patch: Patch) -> None:
    """A store that is open, and is asked nothing."""

    @contextmanager
    def opened(_: Settings) -> Iterator[SimpleNamespace]:
        asked = {"want": lambda _: None, "output": lambda: ("", ""), "namespace_key": bytes}
        yield SimpleNamespace(**asked)

    model = SimpleNamespace(schema="", name="1.0", version=1)
    patch.setattr(roles, "open_store", opened)
    patch.setattr(queries, "trainer_state", lambda _: SimpleNamespace(model=model))
    patch.setattr(queries, "kinds_of", lambda *_: ["new"])


def _user(patch: Patch, _: Path) -> Sequence[str]:
    _stored(patch)
    patch.setattr(queries.Reader, "user", lambda *_: user())
    patch.setattr(reasons, "why", lambda *_: why())
    return ["user", EVIL, "--why"]


def _segments(patch: Patch, _: Path) -> Sequence[str]:
    _stored(patch)
    patch.setattr(queries, "segments", lambda *_: segments())
    patch.setattr(explore, "read_store", lambda *_: None)
    patch.setattr(rule_facts, "rules", lambda *_: rules())
    return ["segments", "--rules"]


def _rename(patch: Patch, _: Path) -> Sequence[str]:
    _stored(patch)
    patch.setattr(queries, "rename", lambda *_: EVIL)
    return ["segments", "rename", "1", EVIL]


def _changes(patch: Patch, _: Path) -> Sequence[str]:
    _stored(patch)
    records = [change(), LINEAGE]
    patch.setattr(ChangeLog, "read", lambda *_, **__: iter(records))
    return ["changes", "--lineage"]


def _members(patch: Patch, _: Path) -> Sequence[str]:
    _stored(patch)
    found = Member(EVIL, 1, EVIL, EVIL, "2026-01-01", "2026-01-01", "2026-01-01", 1.0)
    patch.setattr(queries.Reader, "now_ms", lambda _: 0)
    patch.setattr(members, "members", lambda *_: iter([[found]]))
    return ["members"]


def _republish(patch: Patch, _: Path) -> Sequence[str]:
    _stored(patch)
    patch.setattr(topic_plans, "see_partitions", lambda _: None)
    patch.setattr(republish, "Output", lambda _: SimpleNamespace(topic_ids=lambda names: names))
    patch.setattr(republish, "republish", lambda *_: Counter({EVIL: 3}))
    return ["republish"]


def _plan(patch: Patch, folder: Path) -> Sequence[str]:
    _stored(patch)
    patch.setattr(planning, "live_crowd", lambda *_: None)
    patch.setattr(planning, "plan", lambda *_: None)
    patch.setattr(planning, "facts_of", lambda *_: plan())
    return ["plan", str(_settings_file(folder)), "--live"]


def _campaigns_check(patch: Patch, folder: Path) -> Sequence[str]:
    patch.setattr(trial, "see_that_there_are_some", lambda _: None)
    one = {"name": EVIL, "version": EVIL, "declared": {"when": {EVIL: EVIL}}, "notes": [EVIL]}
    patch.setattr(trial, "declared", lambda _: [one])
    return ["campaigns", "check", str(_settings_file(folder))]


def _campaigns_try(patch: Patch, folder: Path) -> Sequence[str]:
    _stored(patch)
    keys = (
        *("user", "change", "changed_at", "decided_at", "arm", "kind_from", "kind_to", "cause"),
        *("level", "step_from", "step_to"),
    )
    crossing, move = dict.fromkeys(keys, EVIL), dict.fromkeys(keys, EVIL) | {"level": None}
    one = {
        "name": EVIL,
        "version": EVIL,
        "looked_at": 1,
        "outcomes": {"sent": 1, "holdout": 1},
        "sent_by_arm": {EVIL: 1, "letter": 0},
        "examples": {"sent": [move], "holdout": [crossing]},
    }
    facts = {
        "source": EVIL,
        "changes": 1,
        "users": 1,
        "until": EVIL,
        "campaigns": [one],
        "notes": [EVIL],
    }
    patch.setattr(trial, "see_that_there_are_some", lambda _: None)
    patch.setattr(trial, "on_changes", lambda *_: facts)
    return ["campaigns", "try", str(_settings_file(folder)), "--live"]


def _campaign_state() -> dict[str, Any]:
    difference = {
        "treated": 0.2,
        "held_out": 0.1,
        "difference": 0.1,
        "sequence": [0.0, 0.2],
        "plain": None,
    }
    comparison = {
        "arm": EVIL,
        "users": 1,
        "held_out_users": 1,
        "verdict": "not_enough_yet",
        "missing": 3,
    }
    effect = {
        "version": EVIL, "declared": True, "within_seconds": 60.0, "hope": 0.1, "as_declared": False,
        "ratio_evidence": 2_000.0,
        "arms": [{"arm": EVIL, "users": 1, "converted": 1, "active": 1, "revenue": 1.0, "still_open": 1}],
        "comparisons": [
            comparison | dict.fromkeys(("conversion", "active", "revenue"), difference)
        ],
    }  # fmt: skip
    return {
        "name": EVIL, "version": EVIL, "paused": True, "looked_at": 1, "outcomes": {EVIL: 1},
        "effects": [effect],
    }  # fmt: skip


def _campaigns_list(patch: Patch, _: Path) -> Sequence[str]:
    patch.setattr(campaigns, "state", lambda _: [])
    facts = {"campaigns": [_campaign_state()]}
    patch.setattr(campaign_facts, "campaigns_facts", lambda *_: facts)
    return ["campaigns", "list"]


def _campaigns_show(patch: Patch, folder: Path) -> Sequence[str]:
    _campaigns_list(patch, folder)
    return ["campaigns", "show", EVIL]


def _campaigns_say(patch: Patch, *arguments: str) -> Sequence[str]:
    patch.setattr(campaigning, "_see_declared", lambda _: None)
    patch.setattr(control, "say", lambda *_: 1)
    return ["campaigns", *arguments]


def _webhooks_list(patch: Patch, _: Path) -> Sequence[str]:
    reason = dict.fromkeys(("endpoint", "reason", "first", "last", "detail", "example"), EVIL)
    facts = {"letters": 1, "reasons": [reason | {"letters": 1, "replayed": 0}]}
    patch.setattr(sending, "parked", lambda _: None)
    patch.setattr(parked_facts, "parked_facts", lambda _: facts)
    return ["webhooks", "list"]


def _webhooks_replay(patch: Patch, _: Path) -> Sequence[str]:
    counts = ("asked", "would_ask", "sent_before", "too_late", "undeclared", "beyond_limit")
    numbers = dict.fromkeys(counts, 1)
    patch.setattr(sending, "parked", lambda _: None)
    patch.setattr(parked_facts, "replay", lambda *_, **__: numbers | {"endpoints": {EVIL: 1}})
    return ["webhooks", "replay"]


def _run_webhooks(patch: Patch, folder: Path) -> Sequence[str]:
    return [*_run_campaigns(patch, folder)[:1], "webhooks"]


def _run_api(patch: Patch, folder: Path) -> Sequence[str]:
    return [*_run_campaigns(patch, folder)[:1], "api"]


def _dashboard(patch: Patch, _: Path) -> Sequence[str]:
    patch.setattr(api, "address_of", lambda _: EVIL)
    patch.setattr(api, "see_that_it_answers", lambda _: None)
    return ["dashboard", "--address"]


def _apply(patch: Patch, folder: Path) -> Sequence[str]:
    _plan(patch, folder)
    facts = {"in_force": True, "tuning": EVIL, "model": EVIL, "lineage": [LINEAGE]}
    patch.setattr(applying, "wait", lambda *_: None)
    patch.setattr(applying, "facts_of", lambda *_: facts)
    return ["apply", str(_settings_file(folder))]


def _explore(patch: Patch, _: Path) -> Sequence[str]:
    _stored(patch)
    for name in ("read_store", "study"):
        patch.setattr(explore, name, lambda *_: None)
    for name in ("write", "see_that_it_can_draw"):
        patch.setattr(explore_view, name, lambda *_: None)
    patch.setattr(explore, "facts_of", lambda *_: study())
    return ["explore", "--live"]


def _audit(patch: Patch, _: Path) -> Sequence[str]:
    _stored(patch)
    checks = [Check(EVIL, ok=False, offenders=[EVIL], note=EVIL)]
    patch.setattr(checking, "run_audit", lambda *_, **__: _report_of(checks))
    return ["audit"]


def _report_of(checks: list[Check]) -> AuditReport:
    made = AuditReport.__new__(AuditReport)
    for name, one in AuditReport.__dataclass_fields__.items():
        empty: Any = 0 if one.type == "int" else {}
        object.__setattr__(made, name, empty)
    made.ok, made.checks = False, checks
    return made


def _doctor(patch: Patch, _: Path) -> Sequence[str]:
    patch.setattr(checking, "examine", lambda *_: [Finding(False, EVIL, EVIL, EVIL)])
    return ["doctor"]


def _topics(patch: Patch, _: Path) -> Sequence[str]:
    def applied(
        _: Settings, __: bool, created: Callable[[TopicPlan], None], **___: Any
    ) -> list[Difference]:
        created(TopicPlan(EVIL, 1, 1, {}))
        return [Difference(EVIL, EVIL, EVIL, EVIL, EVIL)]

    patch.setattr(topic_plans, "apply", applied)
    return ["topics", "apply"]


def _schemas(_: Patch, folder: Path) -> Sequence[str]:
    return ["schemas", str(folder / EVIL.replace("\ud800", ""))]


def _replay(patch: Patch, folder: Path) -> Sequence[str]:
    patch.setattr(running, "replay", lambda *_, **__: report(folder / EVIL.replace("\ud800", "")))
    return ["replay", "shop.csv", "--mapping", "simple"]


def _simulate(patch: Patch, _: Path) -> Sequence[str]:
    """It shows numbers of its own; what others say is in the log."""

    def run(*_: Any, **__: Any) -> ShopReport:
        logging.getLogger("producers.replay").warning("of %s", EVIL)
        return ShopReport()

    patch.setattr(running, "run_shop_at_rate", run)
    return ["simulate", "--for", "1s"]


def _config(_: Patch, folder: Path) -> Sequence[str]:
    group = json.dumps(EVIL.replace("\ud800", ""))
    return ["-c", str(_settings_file(folder)), "--set", f"broker.group={group}", "config", "show"]


def _demo(patch: Patch, _: Path) -> Sequence[str]:
    def run(*_: Any, screen: demonstration.Screen, **__: Any) -> bool:
        screen.ended(demo())
        return False

    patch.setattr(demonstration, "run", run)
    return ["demo"]


def _roles(patch: Patch, _: Path) -> Sequence[str]:
    """A role shows nothing but its log; see below for whoever it ends by."""

    def run(*_: Any) -> None:
        logging.getLogger("stream.role").warning("of %s", EVIL)

    patch.setattr(roles, "run", run)
    return ["run", "activity"]


def _run_campaigns(patch: Patch, folder: Path) -> Sequence[str]:
    patch.setattr(roles, "wanted", lambda _: list(roles.ROLES.values()))
    return [*_roles(patch, folder)[:1], "campaigns"]


def _letter() -> Letter:
    return Letter(
        id=EVIL, topic=EVIL, reason=EVIL, detail=EVIL, timestamp_ms=0, filed_ms=0, key=b"\xff",
        value=EVIL.encode("utf-8", "replace"), headers=((EVIL, b"\x1b[2J"),), lacks=(EVIL,), size=1,
    )  # fmt: skip


def _dlq_list(patch: Patch, _: Path) -> Sequence[str]:
    patch.setattr(sending, "survey", lambda *_: Survey([Summary(EVIL, EVIL, 1, example=EVIL)]))
    return ["dlq", "list"]


def _dlq_show(patch: Patch, _: Path) -> Sequence[str]:
    patch.setattr(sending, "letters", lambda *_, **__: iter([_letter()]))
    return ["dlq", "show"]


def _dlq_replay(patch: Patch, _: Path) -> Sequence[str]:
    patch.setattr(letter_facts, "choose", lambda *_: (set(), set()))
    patch.setattr(letter_facts, "send_again", lambda *_, **__: LetterReport(Counter({EVIL: 1})))
    return ["dlq", "replay", "--reason", "not_json"]


def _rekey(patch: Patch, _: Path) -> Sequence[str]:
    patch.setattr(topic_plans, "see_partitions", lambda _: None)
    facts = {"sent": 1, "would_send": 0, "topics": {EVIL: 1}}
    patch.setattr(rekeying, "letters", lambda *_, **__: facts)
    return ["rekey"]


DRIVES: dict[str, Drive] = {
    "demo": _demo,
    "run activity": _roles,
    "run trainer": lambda patch, folder: [*_roles(patch, folder)[:1], "trainer"],
    "run publisher": lambda patch, folder: [*_roles(patch, folder)[:1], "publisher"],
    "run campaigns": _run_campaigns,
    "run webhooks": _run_webhooks,
    "run api": _run_api,
    "dashboard": _dashboard,
    "run all": lambda patch, folder: [*_roles(patch, folder)[:1], "all"],
    "topics apply": _topics,
    "schemas": _schemas,
    "replay": _replay,
    "simulate": _simulate,
    "explore": _explore,
    "plan": _plan,
    "apply": _apply,
    "campaigns check": _campaigns_check,
    "campaigns try": _campaigns_try,
    "campaigns list": _campaigns_list,
    "campaigns show": _campaigns_show,
    "campaigns pause": lambda patch, _: _campaigns_say(patch, "pause", EVIL),
    "campaigns resume": lambda patch, _: _campaigns_say(patch, "resume", EVIL),
    "campaigns suppress": lambda patch, _: _campaigns_say(patch, "suppress", EVIL),
    "webhooks list": _webhooks_list,
    "webhooks replay": _webhooks_replay,
    "segments": _segments,
    "segments rename": _rename,
    "user": _user,
    "changes": _changes,
    "members": _members,
    "republish": _republish,
    "audit": _audit,
    "dlq list": _dlq_list,
    "dlq show": _dlq_show,
    "dlq replay": _dlq_replay,
    "rekey": _rekey,
    "doctor": _doctor,
    "config show": _config,
}


def _settings_file(folder: Path) -> Path:
    file = folder / "shop.toml"
    file.write_text("[log]\nformat = 'text'\n")
    return file


def commands(group: TyperGroup, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Every command that does something."""
    for name, command in group.commands.items():
        inner = isinstance(command, TyperGroup)
        if not inner or (isinstance(command, TyperGroup) and command.invoke_without_command):
            yield " ".join((*path, name))
        if isinstance(command, TyperGroup):
            yield from commands(command, (*path, name))


def test_no_command_is_forgotten() -> None:
    assert set(commands(whole_command())) == set(DRIVES)


def errors_that_are_told(above: type[ToldError] = ToldError) -> set[type[ToldError]]:
    """All there are, in the modules that commands and roles load."""
    whole_command()
    own = {kind for kind in above.__subclasses__() if kind.__module__.split(".")[0] != "tests"}
    return own | {kind for one in own for kind in errors_that_are_told(one)}


@pytest.fixture
def run(monkeypatch: Patch, capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., str]]:
    """Runs a command in this process; gives everything it wrote."""
    monkeypatch.setattr(invocation, "out", console(columns=1_000))
    monkeypatch.setattr(invocation, "err", console(stderr=True, columns=1_000))
    monkeypatch.setenv("SEGSTREAM_LOG__FORMAT", "text")

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["segstream", *arguments])
        with pytest.raises(SystemExit):
            main.main()
        said = capfd.readouterr()
        return said.out + said.err

    yield run
    logging.basicConfig(force=True, handlers=[logging.NullHandler()])


@pytest.mark.parametrize("command", DRIVES)
def test_a_command_shows_hostile_texts_safely(
    command: str, run: Callable[..., str], monkeypatch: Patch, tmp_path: Path
) -> None:
    said = run(*DRIVES[command](monkeypatch, tmp_path))
    harmless(said)
    told = (
        WRITTEN_OUT.replace(r"\ud800", "") if command in ("config show", "schemas") else WRITTEN_OUT
    )
    assert told in said
    assert "Traceback" not in said


@pytest.mark.parametrize("kind", sorted(errors_that_are_told(), key=str))
def test_an_error_is_told_safely(
    kind: type[Exception], run: Callable[..., str], monkeypatch: Patch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise kind.__new__(kind, EVIL)

    monkeypatch.setattr(config_layers, "load", fail)
    said = run("config", "show")
    harmless(said.replace("\n    FORGED", ""))
    assert said.startswith("segstream: mallory\\x1b")


def test_wrong_use_is_told_safely(run: Callable[..., str]) -> None:
    for arguments in ([EVIL], ["config", "show", EVIL], ["user", "x", f"--{EVIL}"]):
        said = run(*arguments)
        harmless(said.replace("\n    FORGED", ""))
        assert "see `segstream" in said


def test_an_unforeseen_error_is_told_safely(run: Callable[..., str], monkeypatch: Patch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError(EVIL)

    monkeypatch.setattr(config_layers, "load", fail)
    said = run("config", "show")
    assert OBEYED.search(said) is None
    # The settings could not be read, so this is for whoever reads a stream that is no terminal.
    (line,) = said.splitlines()
    assert "ZeroDivisionError" in json.loads(line)["message"]
    assert "test_output.py" in json.loads(line)["exception"]


@pytest.mark.parametrize("command", DRIVES)
def test_flags_stand_before_or_after_any_command(
    command: str, run: Callable[..., str], monkeypatch: Patch, tmp_path: Path
) -> None:
    arguments = list(DRIVES[command](monkeypatch, tmp_path))
    file = str(_settings_file(tmp_path))
    flags = ["-c", file, "--set", "learning.segments=6", "-v", "--set", "learning.seed=3"]
    for given in ([*flags, *arguments], [*arguments, *flags], [*flags[:4], *arguments, *flags[4:]]):
        run(*given)
        assert invocation.flags["learning"] == {"segments": 6, "seed": 3}
        assert invocation.named_file == Path(file)
    assert invocation.verbose
    run(*arguments)
    assert "learning" not in invocation.flags
    assert not invocation.verbose


def test_the_later_of_two_settings_files_counts(run: Callable[..., str], tmp_path: Path) -> None:
    one, other = tmp_path / "one.toml", tmp_path / "other.toml"
    one.write_text("[store]\nnamespace = 'one'\n")
    other.write_text("[store]\nnamespace = 'other'\n")
    assert "= other " in run("-c", str(one), "config", "-c", str(other), "show").replace("│", "=")
    assert "= one " in run("config", "-c", str(one), "show").replace("│", "=")


def test_settings_are_readable_on_a_narrow_terminal(
    run: Callable[..., str], monkeypatch: Patch
) -> None:
    monkeypatch.setattr(invocation, "out", console(columns=80))
    said = run("config", "show", "--set", "store.namespace=shop").splitlines()
    settings = said[: next(i for i, line in enumerate(said) if line.startswith("features = ["))]
    assert max(map(len, settings)) <= 80
    assert "store.namespace = shop  (flag)" in settings
    after = said[said.index("worker.sweep_seconds = 5.0 seconds  (default)") + 1]
    assert after.rstrip() == "    live mode: everyone is looked at this often"


def test_json_has_the_texts_as_they_are(run: Callable[..., str], monkeypatch: Patch) -> None:
    _changes(monkeypatch, Path())
    said = run("changes", "--lineage", "--json").splitlines()
    assert [json.loads(line) for line in said] == [LINEAGE, change()]


def test_a_console_of_ours_lets_nothing_through_that_was_forgotten() -> None:
    told = StringIO()
    console(file=told, columns=1_000).print(EVIL, views.change_line(change()))
    assert OBEYED.search(told.getvalue()) is None


def test_styles_of_ours_stay() -> None:
    told = StringIO()
    shown = SafeConsole(file=told, width=80, force_terminal=True, color_system="standard")
    shown.print(Text.assemble(("id\x1b[2J", "bold red")))
    assert told.getvalue() == "\x1b[1;31mid\\x1b[2J\x1b[0m\n"


WORKERS = (activity, beginning, group, intake, owner, role, take_over, watermark)


def test_what_ends_a_worker_for_a_person_is_told_without_a_trace() -> None:
    known = [thing for module in WORKERS for thing in vars(module).values()]
    ends = {e for e in known if isinstance(e, type) and issubclass(e, Exception)}
    assert StateLostError in ends
    untold = {end for end in ends if not issubclass(end, ToldError)}
    assert untold <= {KafkaException, NotOursError}, "the first is turned, the second caught"
