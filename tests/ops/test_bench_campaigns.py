"""`ops/bench/campaigns` and `webhooks`: what they tell; and once, small, the whole of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from ops.bench import campaigns, webhooks
from ops.kafka.server import why_unavailable
from tests.conftest import unavailable

AT = datetime(2026, 11, 26, tzinfo=UTC)


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_every_change_has_an_outcome_for_each_campaign(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--changes", "4000", "--users", "500", "--rounds", "1", "--latency-seconds", "0"]
    assert campaigns.main([*small, "--no-append", "--json"]) == 0
    report = told(capsys)
    assert sum(report["outcomes"].values()) == report["changes"] * report["campaigns"] == 40_000
    assert min(report["outcomes"][name] for name in ("sent", "holdout", "cooling", "capped")) > 0
    assert "p99" not in campaigns.section(report, AT)


def test_a_section_of_webhooks_tells_what_was_measured() -> None:
    report = {
        "webhooks": 20_000, "webhooks_per_second": 1_234.5, "role_cpu_seconds_per_thousand": 0.75,
        "role_webhooks_per_cpu_second": 1_333.3, "role_waited_for_core_seconds": 7.8, "seconds": 16.2,
        "endpoint_cpu_seconds_per_thousand": 0.31,
        "dead_seconds": 60, "triggers_per_second": 100, "lost": 1, "answered_twice": 2, "strangers": 3,
        "caught_up_after_seconds": 45.6, "wait_before_p50_seconds": 0.03,
        "wait_before_p99_seconds": 0.05, "wait_meanwhile_p50_seconds": 0.031,
        "wait_meanwhile_p99_seconds": 0.06,
    }  # fmt: skip
    section = webhooks.section(report, AT)
    for number in (
        "1,234",
        "0.75 s",
        "1,333",
        "0.31 s",
        "of 16.2 s",
        "7.8 s",
        "30 / 50 ms",
        "31 / 60 ms",
        "46 s",
        "| 1 |",
        "| 2 |",
        "| 3 |",
    ):
        assert number in section


@pytest.mark.servers
@pytest.mark.slow
def test_small_ones_run_to_their_end(capsys: pytest.CaptureFixture[str]) -> None:
    if why := why_unavailable():
        unavailable(why)
    ends = ["--no-append", "--json", "--partitions", "2"]
    assert webhooks.main(["--triggers", "200", "--rate", "20", "--dead", "3", *ends]) == 0
    report = told(capsys)
    assert (report["lost"], report["strangers"]) == (0, 0)
    assert report["webhooks_per_second"] > 0
    small = ["--changes", "4000", "--users", "500", "--rounds", "1"]
    load = ["--latency-rate", "50", "--latency-seconds", "3"]
    assert campaigns.main([*small, *load, *ends]) == 0
    report = told(capsys)
    assert report["latency_triggers"] > 10
    assert 0 < report["trigger_latency_p50_seconds"] <= report["trigger_latency_p99_seconds"]
    assert "ms (p99)" in campaigns.section(report, AT)
