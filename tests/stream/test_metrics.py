"""Happenings become the metrics that are promised."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from importlib.metadata import version

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from stream import metrics
from stream.events import Cause, Counts, Reason
from stream.metrics import PartitionLag
from stream.store.state import Answer
from tests.fakes import Clock


def value(name: str, **labels: str) -> float:
    found = metrics.REGISTRY.get_sample_value(f"segstream_{name}", labels)
    return math.nan if found is None else found


def there(name: str, **labels: str) -> bool:
    return metrics.REGISTRY.get_sample_value(f"segstream_{name}", labels) is not None


def test_the_conservation_sum_is_counted_by_result() -> None:
    results = ("applied", "duplicate", "late", "ignored", "rejected")
    before = {result: value("events_total", result=result) for result in results}
    clamped, marks = value("events_clamped_total"), value("marks_total")
    metrics.events_consumed(Counts(5, 4, 3, 2, 1, clamped=7, marks=8))
    gained = [value("events_total", result=result) - before[result] for result in results]
    assert gained == [5, 4, 3, 2, 1]
    assert value("events_clamped_total") - clamped == 7
    assert value("marks_total") - marks == 8


def test_series_exist_before_anything_happens() -> None:
    for answer in Answer:
        assert there("commits_total", answer=answer.value)
    for reason in Reason:
        assert there("rejects_total", reason=reason.value)


def test_a_released_partition_leaves_no_series() -> None:
    metrics.partition_acquired(3, 100, 7, 5)
    assert value("partitions_owned") == 1
    assert value("partition_users", partition="3") == 100
    metrics.partition_released(3)
    assert value("partitions_owned") == 0
    assert not there("partition_users", partition="3")
    metrics.partition_released(3)


def test_a_retired_segment_leaves_no_series() -> None:
    metrics.segments_counted({(1, "loyal"): 10, (2, "at_risk"): 5})
    metrics.segments_counted({(1, "loyal"): 8, (2, "dormant"): 7})
    assert value("segment_users", segment="1", kind="loyal") == 8
    assert value("segment_users", segment="2", kind="dormant") == 7
    assert not there("segment_users", segment="2", kind="at_risk")


def test_a_population_that_is_no_more_leaves_no_series() -> None:
    metrics.populations_counted({"customers": (10, 1.5), "lapsed": (3, None)})
    assert value("population_users", population="lapsed") == 3
    assert value("population_inertia", population="customers") == 1.5
    assert not there("population_inertia", population="lapsed")
    metrics.populations_counted({"everyone": (13, 2.0)})
    assert not there("population_users", population="customers")


def test_changes_delivered_together_weigh_as_many() -> None:
    name = "change_delivery_seconds"
    count, total = value(f"{name}_count"), value(f"{name}_sum")
    low, high = value(f"{name}_bucket", le="0.01"), value(f"{name}_bucket", le="0.02")
    metrics.Outbox("publisher").delivered(1_000, 0.02)
    assert value(f"{name}_count") - count == 1_000
    assert value(f"{name}_sum") - total == pytest.approx(20)
    assert value(f"{name}_bucket", le="0.01") == low
    assert value(f"{name}_bucket", le="0.02") - high == 1_000


def test_ages_begin_with_the_first_time(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics.swept(0.1)
    age = value("sweep_age_seconds")
    assert 0 <= age < 60
    monkeypatch.setattr(metrics._sweep_age, "_clock", lambda: metrics._sweep_age._at + 90)
    assert value("sweep_age_seconds") == pytest.approx(90)


def test_lag_is_asked_for_when_it_is_scraped() -> None:
    now = [PartitionLag(3, 1.5, {"a": 7, "b": 0})]
    metrics.lag_told_by(lambda: now)
    try:
        assert value("lag_seconds", partition="3") == 1.5
        assert value("lag_records", topic="a", partition="3") == 7
        now[0] = PartitionLag(3, 2.5, {"a": 7, "b": 1})
        assert value("lag_seconds", partition="3") == 2.5
        assert value("lag_records", topic="b", partition="3") == 1
    finally:
        metrics.lag_told_by(None)
    assert not there("lag_seconds", partition="3")
    assert not there("lag_records", topic="a", partition="3")


def test_the_age_of_an_outbox_grows_while_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(metrics, "time", clock)
    metrics.Outbox("publisher").measured(1, 3, 0.5)
    metrics.Outbox("publisher").measured(2, 0, 0.0)
    clock.advance(60)
    assert value("outbox_age_seconds", partition="1") == pytest.approx(60.5, abs=0.01)
    assert value("outbox_age_seconds", partition="2") == 0
    metrics.Outbox("publisher").left()
    assert not there("outbox_age_seconds", partition="1")


def test_whoever_does_not_renew_a_lease_leads_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(metrics, "time", clock)
    metrics.lease_held("trainer", 5.0)
    metrics.lease_missed("publisher")
    assert (value("leader", role="trainer"), value("leader", role="publisher")) == (1, 0)
    clock.advance(6)
    assert value("leader", role="trainer") == 0
    metrics.lease_held("trainer", 5.0)
    assert value("leader", role="trainer") == 1
    metrics.lease_missed("trainer")
    assert value("leader", role="trainer") == 0


def test_roles_are_told_when_they_are_asked_for() -> None:
    ready = {"trainer": False}
    metrics.roles_told_by(lambda: ready)
    try:
        assert value("role_ready", role="trainer") == 0
        ready["trainer"] = True
        assert value("role_ready", role="trainer") == 1
    finally:
        metrics.roles_told_by(dict)
    assert not there("role_ready", role="trainer")


def test_what_is_not_known_is_no_number() -> None:
    metrics.model_judged(2.5, None)
    assert value("model_inertia") == 2.5
    assert math.isnan(value("model_silhouette"))
    metrics.model_judged(2.5, 0.3)
    assert value("model_silhouette") == 0.3


def test_what_the_alerts_go_by_is_told() -> None:
    metrics.partitions_declared(12)
    metrics.store_measured(700, 1_000, 3)
    metrics.role_failed("activity", "StateLostError")
    assert value("partitions") == 12
    told = [
        value(f"store_{name}") for name in ("memory_bytes", "memory_limit_bytes", "evicted_keys")
    ]
    assert told == [700, 1_000, 3]
    assert value("role_failed", role="activity", error="StateLostError") == 1
    metrics.partition_acquired(5, 1, 0, 0)
    metrics.records_accounted(5, 2)
    assert value("unaccounted_records", partition="5") == 2
    metrics.partition_released(5)
    assert not there("unaccounted_records", partition="5")


def test_what_runs_here_is_told() -> None:
    (sample,) = next(f for f in metrics.REGISTRY.collect() if f.name.endswith("build_info")).samples
    assert sample.value == 1
    assert sample.labels["version"] == version("segstream")
    assert all(sample.labels.values())


def test_every_other_happening_is_counted() -> None:
    labels = {"cause": "time_passed", "kind_from": "none", "kind_to": "at_risk"}
    changes = value("changes_total", **labels) if there("changes_total", **labels) else 0
    missed = value("unavailable_total", neighbour="store")
    metrics.commit_answered(Answer.FENCED)
    metrics.batch_committed(0.02)
    metrics.changes_committed(Cause.TIME_PASSED, None, "at_risk", 2)
    metrics.model_adopted(2, 7)
    metrics.Outbox("publisher").measured(1, 3, 0.5)
    metrics.delivery_retried()
    metrics.round_completed(0.1)
    metrics.refitted(1.0)
    metrics.store_missed()
    metrics.broker_missed()
    metrics.message_rejected(Reason.NO_USER)
    metrics.users_counted(1, 4, 2, 1)
    assert value("changes_total", **labels) == changes + 2
    assert (value("model_epoch"), value("model_version")) == (2, 7)
    assert value("unavailable_total", neighbour="store") == missed + 1


def test_names_carry_their_unit_and_every_metric_its_meaning() -> None:
    text = generate_latest(metrics.REGISTRY).decode()
    ours = [f for f in text_string_to_metric_families(text) if f.name.startswith("segstream_")]
    assert len(ours) > 20
    unit = re.compile(
        r"_(seconds|records|entries|users|owned|epoch|version|leader|info|lacks_changes|alert|ids|orders"
        r"|bytes|keys|deliveries|partitions|ready|failed|inertia|silhouette|auc|loss|error|labels|looks"
        r"|effect|evidence|readers)$"
    )
    for family in ours:
        assert family.documentation.endswith(".")
        # The parser takes _total off a counter's name.
        assert family.type == "counter" or unit.search(family.name), family.name


def test_importing_again_registers_nothing_twice() -> None:
    # In a process of its own: everyone else here holds on to the module's first series.
    again = "import importlib, stream.metrics; importlib.reload(stream.metrics)"
    subprocess.run([sys.executable, "-c", again], check=True)
