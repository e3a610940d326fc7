"""Every alert fires when it should and not before, reads what is measured, and has its page."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.grafana.panels import NEEDED
from stream.config import Settings
from stream.events import Reason
from stream.store.state import Answer
from stream.webhooks.queue import Reason as GivenUp
from stream.wiring.roles import OTHER_ERROR, ROLES
from tests.command import whole_command
from tests.faults.test_alerts_provoked import PROVOKED
from tests.ops.queries import (
    ROOT,
    RULES,
    SERIES,
    asked_labels,
    is_counter,
    kept_labels,
    names,
    promtool,
    rules,
)

RUNBOOKS = ROOT / "ops/runbooks"
ALERTS = [rule for rule in rules() if "alert" in rule]
PAGES = sorted({rule["alert"] for rule in ALERTS})
PARTS = ["Meaning", "Impact", "Diagnosis", "Remedy"]
AT = 'job="segstream", instance="a"'
HIGH = 'campaign="win-back", arm="coupon", what="conversion", value="high"'
ERRORS = {error.__name__ for role in ROLES.values() for error in role.errors} | {OTHER_ERROR}


# -- what they read ---------------------------------------------------------------------------


def _id(rule: dict[str, Any]) -> str:
    return str(rule.get("alert", rule.get("record")))


@pytest.mark.parametrize("rule", rules(), ids=_id)
def test_a_rule_reads_what_is_measured(rule: dict[str, Any]) -> None:
    query = rule["expr"]
    read = names(query)
    assert read
    assert read <= SERIES.keys()
    known = set.union(*(SERIES[name] for name in read))
    assert kept_labels(query) | asked_labels(query) <= known
    for name in read:
        counted = rf"(rate|increase)\({name}(\{{[^}}]*\}})?\["
        assert not is_counter(name) or re.search(counted, query), name


@pytest.mark.parametrize("rule", rules(), ids=_id)
def test_a_rule_compares_labels_with_values_they_take(rule: dict[str, Any]) -> None:
    known = {
        "answer": {answer.value for answer in Answer} | {"2xx"},
        "outcome": {reason.value for reason in GivenUp},
        "what": {"conversion"},
        "value": {"high"},
        "reason": {reason.value for reason in Reason},
        "result": {"applied", "duplicate", "late", "ignored", "rejected"},
        "role": set(ROLES),
        "error": ERRORS,
        "le": {"2.0"},
    }
    for label, values in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"([^\"]*)\"", rule["expr"]):
        assert set(values.split("|")) <= known[label], label


def test_every_role_that_is_needed_is_missed() -> None:
    (absent,) = (rule["expr"] for rule in ALERTS if rule["alert"] == "SegstreamRoleAbsent")
    assert set(re.findall(r'absent\(segstream_role_ready\{role="(\w+)"\}\)', absent)) == set(NEEDED)


@pytest.mark.parametrize("rule", ALERTS, ids=_id)
def test_an_alert_says_what_a_reader_needs(rule: dict[str, Any]) -> None:
    assert re.fullmatch(r"Segstream([A-Z][a-z]+)+", rule["alert"])
    assert rule["labels"] in ({"severity": s} for s in ("critical", "warning", "info"))
    told = rule["annotations"]
    assert told.keys() == {"summary", "description", "runbook_url"}
    assert told["summary"].endswith(".")
    assert "{{" not in told["summary"]
    assert told["description"].endswith(".")
    assert told["runbook_url"] == f"ops/runbooks/{rule['alert']}.md"
    shown = set(re.findall(r"\$labels\.(\w+)", told["description"]))
    assert shown <= kept_labels(rule["expr"]) | {"job"}


def test_promtool_finds_nothing_to_say() -> None:
    assert "SUCCESS" in promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)


# -- pages ------------------------------------------------------------------------------------


def test_every_alert_is_provoked_against_a_running_pipeline() -> None:
    assert {(rule["alert"], rule["labels"]["severity"]) for rule in ALERTS} == PROVOKED


def test_every_alert_has_its_page_and_the_other_way_round() -> None:
    assert sorted(page.stem for page in RUNBOOKS.glob("*.md")) == PAGES


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_its_parts(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == PARTS
    assert "```console\n" in text.split("## Diagnosis")[1].split("## Remedy")[0]


def _commands(text: str) -> list[str]:
    """What a page says of the command line, in its blocks and its sentences."""
    blocks = re.findall(r"^segstream .*$", text, re.MULTILINE)
    return blocks + re.findall(r"`(segstream [^`]+)`", text)


def _understand(line: str) -> None:
    """Go down the command tree as the parser would.

    Raises:
        AssertionError: there is no such command or option.
    """
    command: Any = whole_command()
    words = iter(line.split()[1:])
    options: set[str] = {"-c", "--version", "--help"}
    for word in words:
        if word == "-c":
            next(words)
        elif word.startswith("-"):
            assert word in options, line
        elif word in getattr(command, "commands", {}):
            command = command.commands[word]
            options |= {option for one in command.params for option in one.opts}
        else:
            # An argument, or the value of an option; a group takes neither before its command.
            assert not hasattr(command, "commands"), line


def test_a_command_that_is_none_is_found() -> None:
    _understand("segstream -c shop.toml audit --sample 0.1")
    for wrong in ("segstream adit", "segstream audit --simple 0.1", "segstream dlq retry"):
        with pytest.raises(AssertionError):
            _understand(wrong)


@pytest.mark.parametrize("name", PAGES)
def test_commands_of_a_page_exist(name: str) -> None:
    for line in _commands((RUNBOOKS / f"{name}.md").read_text()):
        _understand(line)


def _settings_named(text: str) -> set[str]:
    sections = (
        "broker|topics|store|worker|learning|publish|publisher|metrics|money|clock|log|webhooks"
    )
    return set(re.findall(rf"`((?:{sections})\.[a-z_]+)\b", text))


@pytest.mark.parametrize("name", PAGES)
def test_settings_and_metrics_of_a_page_exist(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text()
    for setting in _settings_named(text):
        section, key = setting.split(".")
        assert key in type(getattr(Settings(), section)).model_fields, setting
    for metric in re.findall(r"`(segstream_\w+)`", text):
        assert {metric, f"{metric}_bucket"} & SERIES.keys(), metric


@pytest.mark.parametrize("name", PAGES)
def test_a_page_leads_where_it_says(name: str) -> None:
    page = RUNBOOKS / f"{name}.md"
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        assert (page.parent / link).exists(), link


# -- when they fire ---------------------------------------------------------------------------

Series = dict[str, str]

HEALTHY: Series = {
    **{f'segstream_role_ready{{{AT}, role="{role}"}}': "1x400" for role in NEEDED},
    **{f'segstream_leader{{{AT}, role="{role}"}}': "1x400" for role in ("trainer", "publisher")},
    f'segstream_build_info{{{AT}, version="1"}}': "1x400",
    f'segstream_unavailable_total{{{AT}, neighbour="store"}}': "0x400",
    f"segstream_partitions{{{AT}}}": "12x400",
    f"segstream_partitions_owned{{{AT}}}": "12x400",
    f'segstream_partition_users{{{AT}, partition="0"}}': "500x400",
    f'segstream_lag_seconds{{{AT}, partition="0"}}': "0.1x400",
    f'segstream_lag_records{{{AT}, topic="clicks", partition="0"}}': "5x400",
    f'segstream_commits_total{{{AT}, answer="ok"}}': "0+600x400",
    f'segstream_commits_total{{{AT}, answer="applied"}}': "0x400",
    f'segstream_commits_total{{{AT}, answer="lost"}}': "0x400",
    f'segstream_commits_total{{{AT}, answer="diverged"}}': "0x400",
    f"segstream_sweep_age_seconds{{{AT}}}": "4x400",
    f'segstream_events_total{{{AT}, result="applied"}}': "0+6000x400",
    f'segstream_events_total{{{AT}, result="rejected"}}': "0+6x400",
    f"segstream_reject_alert{{{AT}}}": "0x400",
    f'segstream_misplaced_events_total{{{AT}, topic="clicks"}}': "0x400",
    f'segstream_unaccounted_records{{{AT}, partition="0"}}': "3x400",
    f"segstream_ids_forgotten_early_total{{{AT}}}": "0x400",
    f"segstream_clock_jump_seconds{{{AT}}}": "0x400",
    f"segstream_store_memory_bytes{{{AT}}}": "500x400",
    f"segstream_store_memory_limit_bytes{{{AT}}}": "1000x400",
    f"segstream_store_evicted_keys{{{AT}}}": "7x400",
    f'segstream_outbox_age_seconds{{{AT}, partition="0"}}': "0.2x400",
    f"segstream_output_lacks_changes{{{AT}}}": "0x400",
    f'segstream_change_delivery_seconds_bucket{{{AT}, le="2.0"}}': "0+6000x400",
    f'segstream_change_delivery_seconds_bucket{{{AT}, le="+Inf"}}': "0+6001x400",
    f"segstream_change_delivery_seconds_count{{{AT}}}": "0+6001x400",
    f"segstream_trainer_round_seconds_count{{{AT}}}": "0+12x400",
    f"segstream_model_epoch{{{AT}}}": "4x400",
    f'segstream_segment_changes_total{{{AT}, segment="3"}}': "0+10x400",
    f'segstream_segment_reversions_total{{{AT}, segment="3"}}': "0+1x400",
    f'segstream_campaign_ratio_evidence{{{AT}, campaign="win-back"}}': "0.4x400",
    f"segstream_campaign_effect{{{AT}, {HIGH}}}": "0.08x400",
    f"segstream_campaign_control_unreadable_total{{{AT}}}": "0x400",
    f'segstream_webhook_endpoint_failed{{{AT}, endpoint="crm", partition="0"}}': "0x400",
    f'segstream_webhook_attempts_total{{{AT}, endpoint="crm", answer="2xx"}}': "0+60x400",
    f'segstream_webhook_attempts_total{{{AT}, endpoint="crm", answer="5xx"}}': "0+1x400",
    f'segstream_webhook_deliveries_total{{{AT}, endpoint="crm", outcome="delivered"}}': "0+60x400",
    f'segstream_webhook_deliveries_total{{{AT}, endpoint="crm", outcome="expired"}}': "0x400",
}
"""One process with all roles that does well, a sample a minute."""

GONE = "_x400"


@dataclass(frozen=True)
class Case:
    """When an alert fires, and what is nearly so and lets it be.

    Attributes:
        bad: series that take the place of healthy ones, or come on top.
        near: others, under which it does not fire.
        minute: at which one looks.
    """

    alert: str
    severity: str
    bad: Series
    near: Series
    minute: int = 60
    labels: dict[str, str] = field(default_factory=dict)


def one(name: str, values: str, **labels: str) -> Series:
    """A series of the process."""
    more = "".join(f', {label}="{value}"' for label, value in labels.items())
    return {f"segstream_{name}{{{AT}{more}}}": values}


def late(share: int, minutes: str = "0+6000x400") -> Series:
    """Of 6,000 changes a minute this share in percent comes within two seconds."""
    name = f"segstream_change_delivery_seconds_bucket{{{AT}, le="
    return {
        f'{name}"2.0"}}': f"0+{60 * share}x400",
        f'{name}"+Inf"}}': minutes,
        f"segstream_change_delivery_seconds_count{{{AT}}}": minutes,
    }


CASES = [
    *(
        Case(
            "SegstreamRoleAbsent",
            "critical",
            one("role_ready", GONE, role=role),
            one("role_ready", "1x57 _x1 1x400", role=role),
            labels={"role": role},
        )
        for role in NEEDED
    ),
    Case(
        "SegstreamRoleAbsent",
        "critical",
        # Of a second pipeline, while the first does well.
        {'segstream_role_ready{job="other", instance="b", role="trainer"}': "1x30 stale"},
        {'segstream_role_ready{job="other", instance="b", role="trainer"}': "1x400"},
        labels={"job": "other", "role": "trainer"},
    ),
    Case(
        "SegstreamRoleNotReady",
        "critical",
        one("role_ready", "0x400", role="trainer"),
        one("role_ready", "0x400", role="trainer")
        | {'segstream_role_ready{job="segstream", instance="b", role="trainer"}': "1x400"},
        labels={"role": "trainer"},
    ),
    Case(
        "SegstreamRoleFailed",
        "critical",
        one("role_failed", "_x55 1x1 stale", role="activity", error="TopicReplacedError"),
        one("role_failed", "_x40 1x1 stale", role="activity", error="TopicReplacedError"),
        labels={"role": "activity", "error": "TopicReplacedError"},
    ),
    Case(
        "SegstreamNobodyLeads",
        "critical",
        one("leader", "0x400", role="publisher"),
        one("leader", "0x400", role="publisher")
        | {'segstream_leader{job="segstream", instance="b", role="publisher"}': "1x400"},
        labels={"role": "publisher"},
    ),
    Case(
        "SegstreamNeighbourUnavailable",
        "warning",
        one("unavailable_total", "0+6x400", neighbour="store"),
        one("unavailable_total", "0x50 3x400", neighbour="store"),
        labels={"neighbour": "store"},
    ),
    Case(
        "SegstreamVersionsDiffer",
        "info",
        {'segstream_build_info{job="segstream", instance="b", version="2"}': "1x400"},
        {'segstream_build_info{job="segstream", instance="b", version="2"}': "_x100 1x400"},
        minute=120,
    ),
    Case(
        "SegstreamPartitionsUnowned",
        "critical",
        one("partitions_owned", "11x400"),
        one("partitions_owned", "6x400")
        | {'segstream_partitions_owned{job="segstream", instance="b"}': "6x400"},
    ),
    Case(
        "SegstreamLagHigh",
        "warning",
        one("lag_seconds", "90x400", partition="0"),
        # Who lost the partition in an outage is not believed.
        one("lag_seconds", "90x400", partition="0")
        | {'segstream_lag_seconds{job="segstream", instance="b", partition="0"}': "0x400"},
    ),
    Case(
        "SegstreamLagHigh",
        "critical",
        one("lag_seconds", "0+60x400", partition="0"),
        one("lag_seconds", "899x400", partition="0"),
    ),
    Case(
        "SegstreamCommitsStalled",
        "critical",
        one("commits_total", "0+600x40 24000x400", answer="ok"),
        # Nothing to read.
        one("commits_total", "0+600x40 24000x400", answer="ok")
        | one("lag_records", "0x400", topic="clicks", partition="0"),
    ),
    Case(
        "SegstreamSweepStale",
        "critical",
        one("sweep_age_seconds", "0+60x400"),
        # A worker that owns nothing.
        {
            'segstream_sweep_age_seconds{job="segstream", instance="b"}': "0+60x400",
            'segstream_partitions_owned{job="segstream", instance="b"}': "0x400",
        },
    ),
    Case(
        "SegstreamRejectsHigh",
        "warning",
        one("events_total", "0+600x400", result="rejected"),
        one("events_total", "0+240x400", result="rejected"),
    ),
    Case(
        "SegstreamRejectsHigh",
        "critical",
        one("reject_alert", "1x400"),
        one("reject_alert", "0x59 1x400"),
    ),
    Case(
        "SegstreamEventsMisplaced",
        "warning",
        one("misplaced_events_total", "0+3x400", topic="clicks"),
        one("misplaced_events_total", "8x400", topic="clicks"),
        labels={"topic": "clicks"},
    ),
    Case(
        "SegstreamRecordsUnaccounted",
        "warning",
        one("unaccounted_records", "3x55 8x400", partition="0"),
        one("unaccounted_records", "3x400", partition="0"),
    ),
    Case(
        "SegstreamIdsForgottenEarly",
        "info",
        one("ids_forgotten_early_total", "0+10x400"),
        one("ids_forgotten_early_total", "10x400"),
        minute=130,
    ),
    Case(
        "SegstreamClockJumped",
        "warning",
        one("clock_jump_seconds", "-3600x400"),
        one("clock_jump_seconds", "0x58 5 0x400"),
        labels={"instance": "a"},
    ),
    Case(
        "SegstreamStateLost",
        "critical",
        one("role_failed", "_x55 1x1 stale", role="activity", error="StateLostError"),
        one("role_failed", "_x55 1x1 stale", role="activity", error="TopicReplacedError"),
    ),
    Case(
        "SegstreamStateLost",
        "critical",
        # Accepted, so the role went on.
        one("commits_total", "0x55 1x400", answer="lost"),
        one("commits_total", "1x400", answer="lost"),
    ),
    Case(
        "SegstreamStoreRolledBack",
        "warning",
        one("commits_total", "0x55 2x400", answer="diverged"),
        one("commits_total", "2x400", answer="diverged"),
    ),
    Case(
        "SegstreamStoreFull",
        "warning",
        one("store_memory_bytes", "850x400"),
        # No limit.
        one("store_memory_bytes", "850x400") | one("store_memory_limit_bytes", "0x400"),
    ),
    Case(
        "SegstreamStoreFull",
        "critical",
        one("store_memory_bytes", "990x400"),
        one("store_memory_bytes", "940x400"),
    ),
    Case(
        "SegstreamStoreEvicting",
        "critical",
        one("store_evicted_keys", "7x55 9x400"),
        one("store_evicted_keys", "7x400"),
    ),
    Case(
        "SegstreamOutboxStuck",
        "critical",
        one("outbox_age_seconds", "0+60x400", partition="0"),
        one("outbox_age_seconds", "0x59 70x400", partition="0"),
    ),
    Case(
        "SegstreamOutputLacksChanges",
        "critical",
        one("output_lacks_changes", "0x50 1x400"),
        one("output_lacks_changes", "1x50 0x400"),
    ),
    Case("SegstreamFreshnessBudgetBurning", "critical", late(80), late(90), minute=90),
    Case("SegstreamFreshnessBudgetBurning", "warning", late(90), late(98), minute=390),
    Case(
        "SegstreamModelStale",
        "warning",
        one("trainer_round_seconds_count", "0+12x40 480x400"),
        # Nobody to learn from.
        one("trainer_round_seconds_count", "0+12x40 480x400")
        | one("partition_users", "0x400", partition="0"),
    ),
    Case(
        "SegstreamModelNotAdopted",
        "warning",
        one("model_epoch", "4x30 5x400")
        | {
            'segstream_model_epoch{job="segstream", instance="b"}': "4x400",
            'segstream_partitions_owned{job="segstream", instance="b"}': "1x400",
        },
        # A publisher has no model.
        {
            'segstream_model_epoch{job="segstream", instance="b"}': "0x400",
            'segstream_partitions_owned{job="segstream", instance="b"}': "0x400",
        },
    ),
    Case(
        "SegstreamSegmentsFlapping",
        "warning",
        one("segment_reversions_total", "0+5x400", segment="3"),
        # Few changes.
        one("segment_reversions_total", "0+0.4x400", segment="3")
        | one("segment_changes_total", "0+0.5x400", segment="3"),
        minute=140,
        labels={"segment": "3"},
    ),
    Case(
        "SegstreamSampleRatioOff",
        "warning",
        one("campaign_ratio_evidence", "0.4x50 2000x400", campaign="win-back"),
        one("campaign_ratio_evidence", "900x400", campaign="win-back"),
        labels={"campaign": "win-back"},
    ),
    Case(
        "SegstreamCampaignHarms",
        "warning",
        {f"segstream_campaign_effect{{{AT}, {HIGH}}}": "-0.01x400"},
        # Not yet known to harm: the interval reaches over 0.
        {f"segstream_campaign_effect{{{AT}, {HIGH}}}": "0.001x400"},
        labels={"campaign": "win-back", "arm": "coupon"},
    ),
    Case(
        "SegstreamControlUnreadable",
        "warning",
        one("campaign_control_unreadable_total", "0x55 2x400"),
        one("campaign_control_unreadable_total", "2x400"),
    ),
    Case(
        "SegstreamEndpointFailed",
        "warning",
        one("webhook_endpoint_failed", "1x400", endpoint="crm", partition="7"),
        one("webhook_endpoint_failed", "0x55 1x400", endpoint="crm", partition="7"),
        labels={"endpoint": "crm"},
    ),
    Case(
        "SegstreamDeliveriesFailing",
        "warning",
        one("webhook_attempts_total", "0+30x400", endpoint="crm", answer="none"),
        # Some requests fail everywhere.
        one("webhook_attempts_total", "0+10x400", endpoint="crm", answer="none"),
        labels={"endpoint": "crm"},
    ),
    Case(
        "SegstreamDeliveriesGivenUp",
        "warning",
        one("webhook_deliveries_total", "0x55 3x400", endpoint="crm", outcome="expired"),
        # Of users who were suppressed.
        one("webhook_deliveries_total", "0x55 3x400", endpoint="crm", outcome="dropped"),
        labels={"endpoint": "crm"},
    ),
]


def _evaluated(
    series: Series, test: dict[str, Any], folder: Path, *, alert: str = "", fails: bool = False
) -> str:
    """What promtool says to a test on the healthy series, with others in their place.

    Args:
        alert: of the rules only this one and what it reads, which is quicker; all without.
    """
    wanted = [rule for rule in rules() if alert in ("", rule.get("alert"))]
    read = set().union(*(names(rule["expr"]) for rule in wanted))
    recorded = [rule for rule in rules() if rule.get("record") in read]
    read = read.union(*(names(rule["expr"]) for rule in recorded))
    file = folder / "rules.yml"
    groups = [{"name": "recorded", "rules": recorded}, {"name": "wanted", "rules": wanted}]
    file.write_text(yaml.safe_dump({"groups": groups if alert else groups[1:]}))
    there = [
        {"series": name, "values": values}
        for name, values in (HEALTHY | series).items()
        if name.partition("{")[0] in read
    ]
    tests = [{"interval": "1m", "input_series": there, **test}]
    told = {"rule_files": [file.name], "evaluation_interval": "1m", "tests": tests}
    asked = folder / "test.yml"
    asked.write_text(yaml.safe_dump(told))
    return promtool("test", "rules", asked, fails=fails)


def _nothing(minute: int, asked: str = "") -> dict[str, Any]:
    """The test that no alert is firing."""
    query = f'ALERTS{{alertstate="firing"{asked}}}'
    return {"expr": query, "eval_time": f"{minute}m", "exp_samples": []}


def test_every_alert_has_a_case() -> None:
    told = {(rule["alert"], rule["labels"]["severity"]) for rule in ALERTS}
    assert {(case.alert, case.severity) for case in CASES} == told


def test_whoever_does_well_wakes_nobody(tmp_path: Path) -> None:
    quiet = {"promql_expr_test": [_nothing(minute) for minute in (10, 120, 380)]}
    _evaluated({}, quiet, tmp_path)


def _name(case: Case) -> str:
    return f"{case.alert}-{case.severity}"


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_an_alert_fires_and_what_it_says_can_be_read(case: Case, tmp_path: Path) -> None:
    asked = {"eval_time": f"{case.minute}m", "alertname": case.alert, "exp_alerts": []}
    # Nothing is expected, so promtool tells what it found instead.
    said = _evaluated(
        case.bad, {"alert_rule_test": [asked]}, tmp_path, alert=case.alert, fails=True
    )
    found = re.findall(r"Labels:(\{.*?\})\s*Annotations:(\{.*?\})\s*(?:\d+:|\]|$)", said, re.DOTALL)
    wanted = case.labels | {"severity": case.severity}
    fired = [
        told
        for labels, told in found
        if all(f'{name}="{value}"' in labels for name, value in wanted.items())
    ]
    assert fired, said
    assert not re.search(r"<no value>|<error|\{\{|%!|NaN", fired[0]), fired


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_what_is_nearly_so_does_not(case: Case, tmp_path: Path) -> None:
    quiet = _nothing(case.minute, f', severity="{case.severity}"')
    _evaluated(case.near, {"promql_expr_test": [quiet]}, tmp_path, alert=case.alert)
