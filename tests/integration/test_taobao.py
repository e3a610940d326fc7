"""Nine days of clicks of 814 real shoppers, of whom nobody leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.kafka.server import RealKafka
from tests import harness
from tests.harness import TAOBAO
from tests.integration.conftest import file

pytestmark = [pytest.mark.servers, pytest.mark.slow]

TWICE_A_DAY = {
    "clock": {"mark_seconds": 12 * 3_600.0},
    "learning": {"refit_seconds": 86_400.0},
}


def test_nine_days_of_clicks(kafka: RealKafka, redis_url: str, tmp_path: Path) -> None:
    found = harness.fresh_history(kafka.bootstrap, file(TAOBAO).name, "taobao", None, TWICE_A_DAY)
    with harness.pipeline_on(found, redis_url, tmp_path, TWICE_A_DAY) as pipeline:
        pipeline.start("all")
        pipeline.finish(found.last_mark_ms)
        report, outcome = pipeline.audit(), pipeline.outcome()
    harness.assert_clean(report)
    assert report.users == 814
    assert report.rejected == 0
    assert report.counts["consumed"] == found.report.sent

    last = list(outcome.models.values())[-1]
    kinds = {segment["kind"] for segment in last["segments"]}
    # Everybody came less than two weeks ago and was here within the last two days: some buy and
    # some only look around; nobody is at risk.
    assert "browsing" in kinds
    assert kinds & {"new", "champion"}
    assert kinds <= {"new", "champion", "loyal", "promising", "browsing"}
    views, orders = (
        [
            entry["value"]
            for segment in last["segments"]
            for entry in segment["profile"]
            if entry["feature"] == feature
        ]
        for feature in ("views_7d", "orders_30d")
    )
    assert max(views) > 3 * min(views)
    assert max(orders) > 3 * min(orders)
    assert {c["cause"] for c in outcome.changes} >= {"user_moved", "time_passed"}
