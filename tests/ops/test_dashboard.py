"""The dashboard shows what the code measures, and all of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from stream.kinds import CHURN_RISK_KINDS
from stream.metrics import REGISTRY

ROOT = Path(__file__).parent.parent.parent
PROVISIONING = ROOT / "ops/grafana/provisioning"
DASHBOARD: dict[str, Any] = json.loads((PROVISIONING / "dashboards/segstream.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

NOT_SHOWN = {
    "process_virtual_memory_bytes": "address space; resident memory is what runs out",
    "process_start_time_seconds": "restarts show as gaps, and in the container's state",
    "process_open_fds": "a handful of connections, whose loss shows elsewhere",
    "process_max_fds": "a limit that never changes",
    "python_info": "the version, which never changes",
    "python_gc_objects_collected_total": "for whoever looks into the garbage collector",
    "python_gc_objects_uncollectable_total": "for whoever looks into the garbage collector",
    "python_gc_collections_total": "for whoever looks into the garbage collector",
}
ADDED_BY_PROMETHEUS = {"instance", "job", "role"}
OWN = {"up": ADDED_BY_PROMETHEUS}
"""Metrics that Prometheus makes itself."""


def _declared() -> dict[str, tuple[str, set[str]]]:
    """Every declared metric: its type and its labels."""
    declared = {}
    for collector in list(REGISTRY._collector_to_names):
        labels = set(getattr(collector, "_labelnames", ()))
        for family in collector.collect():
            name = family.name + ("_total" if family.type == "counter" else "")
            declared[name] = (family.type, labels)
    return declared


DECLARED = _declared()


def _series() -> dict[str, set[str]]:
    """Every series a query may name, and its labels."""
    series = dict(OWN)
    for name, (kind, labels) in DECLARED.items():
        there = labels | ADDED_BY_PROMETHEUS
        if kind == "histogram":
            series |= {f"{name}_bucket": there | {"le"}, f"{name}_sum": there}
            series[f"{name}_count"] = there
        else:
            series[name] = there
    return series


SERIES = _series()


def _queries() -> Iterator[tuple[str, str, str]]:
    """Title of the panel, query, legend."""
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"], target["legendFormat"]


QUERIES = list(_queries())


def _names(query: str) -> set[str]:
    """Series that a query reads."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(?:by|on|without)\s*\([^)]*\)", " ", query)
    words = re.findall(r"\b[a-z]\w*(?!\w|\s*\()", bare)
    return set(words) - {"and", "or", "unless", "by", "on"}


@pytest.mark.parametrize(("title", "query", "legend"), QUERIES)
def test_every_query_reads_what_is_measured(title: str, query: str, legend: str) -> None:
    del title, legend
    names = _names(query)
    assert names
    assert names <= SERIES.keys()


@pytest.mark.parametrize(("title", "query", "legend"), QUERIES)
def test_every_label_is_one_the_metric_has(title: str, query: str, legend: str) -> None:
    del title
    known = set.union(*(SERIES[name] for name in _names(query)))
    used = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", query))
    grouped = re.findall(r"\bby \(([^)]*)\)", query)
    kept = {label.strip() for group in grouped for label in group.split(",")}
    assert used | kept <= known
    assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= kept


def test_every_metric_is_shown_or_left_out_for_a_reason() -> None:
    read = set.union(*(_names(query) for _, query, _ in QUERIES))
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in read}
    shown = {name for name in DECLARED if name in shown or name in read}
    assert DECLARED.keys() - shown == NOT_SHOWN.keys()
    assert all(not name.startswith("segstream_") for name in NOT_SHOWN)


def test_quantiles_are_of_histograms() -> None:
    for title, query, _ in QUERIES:
        if "histogram_quantile" in query:
            assert re.search(r"sum by \(le\) \(rate\(segstream_\w+_bucket\[", query), title


def test_counters_are_read_as_rates() -> None:
    for title, query, _ in QUERIES:
        for name in _names(query):
            counts = DECLARED.get(name, ("", set()))[0] == "counter" or name.endswith("_bucket")
            assert not counts or re.search(rf"rate\({name}(\{{[^}}]*\}})?\[", query), title


@pytest.mark.parametrize(
    ("metric", "label"),
    [
        ("segstream_events_total", "result"),
        ("segstream_rejects_total", "reason"),
        ("segstream_commits_total", "answer"),
        ("segstream_changes_total", "cause"),
        ("segstream_changes_total", "kind_to"),
        ("segstream_segment_users", "segment"),
        ("segstream_lag_seconds", "partition"),
        ("segstream_lag_records", "topic"),
        ("segstream_lag_records", "partition"),
        ("segstream_leader", "role"),
        ("segstream_build_info", "version"),
    ],
)
def test_what_an_engineer_splits_is_split(metric: str, label: str) -> None:
    assert any(
        metric in _names(query) and re.search(rf"by \([^)]*\b{label}\b", query)
        for _, query, _ in QUERIES
    )


def _panels_of(metric: str) -> list[dict[str, Any]]:
    return [p for p in PANELS if any(metric in _names(t["expr"]) for t in p["targets"])]


@pytest.mark.parametrize(
    "metric", ["segstream_lag_seconds", "segstream_lag_records", "segstream_leader"]
)
def test_a_state_is_shown_as_it_is_now(metric: str) -> None:
    """Not as a rate, a mean or the most of a while: 0 must show as 0, and nothing as nothing."""
    panels = _panels_of(metric)
    assert panels
    for panel in panels:
        for target in panel["targets"]:
            assert re.fullmatch(
                rf"max\(min by \(partition\) \({metric}\)\)"
                rf"|(min|max) by \([^)]*\) \({metric}\)",
                target["expr"],
            )
        assert panel["fieldConfig"]["defaults"]["min"] == 0
        assert not panel["fieldConfig"]["defaults"].get("custom", {}).get("spanNulls")


def test_lag_is_shown_at_a_glance_and_by_partition() -> None:
    glance, split = _panels_of("segstream_lag_seconds")
    assert (glance["type"], split["type"]) == ("stat", "timeseries")
    colours = {
        s["color"]: s["value"] for s in glance["fieldConfig"]["defaults"]["thresholds"]["steps"]
    }
    assert colours == {"green": None, "orange": 5, "red": 60}
    for panel in (glance, split):
        assert "0" in panel["description"]
        assert "batch" not in panel["description"], "it is no longer of the last batch"


@pytest.mark.parametrize("metric", ["segstream_lag_seconds", "segstream_lag_records"])
def test_whoever_lost_a_partition_in_an_outage_is_not_believed(metric: str) -> None:
    """It tells a lag that grows; whoever took the partition over knows better."""
    queries = [query for _, query, _ in QUERIES if metric in _names(query)]
    assert queries
    assert all(re.search(rf"min by \([^)]*\bpartition\) \({metric}\)", q) for q in queries)


def test_labels_of_our_own_are_not_renamed() -> None:
    """Prometheus calls a label that it adds itself by another name in what was scraped."""
    own = set().union(*(labels for _, labels in DECLARED.values()))
    (job,) = yaml.safe_load((ROOT / "ops/prometheus/prometheus.yml").read_text())["scrape_configs"]
    assert not own & ADDED_BY_PROMETHEUS or job["honor_labels"] is True


@pytest.mark.parametrize(
    "metric", ["segstream_batch_to_commit_seconds", "segstream_change_delivery_seconds"]
)
@pytest.mark.parametrize("quantile", ["0.5", "0.99"])
def test_latencies_are_shown_as_percentiles(metric: str, quantile: str) -> None:
    wanted = f"histogram_quantile({quantile}, sum by (le) (rate({metric}_bucket["
    assert any(wanted in query for _, query, _ in QUERIES)


def test_churn_risk_is_what_the_code_says() -> None:
    kinds = "|".join(CHURN_RISK_KINDS)
    assert any(f'kind_to=~"{kinds}"' in query for _, query, _ in QUERIES)


def test_every_panel_says_what_it_shows() -> None:
    titles = [panel["title"] for panel in PANELS]
    assert len(set(titles)) == len(titles)
    for panel in PANELS:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


def test_seconds_are_shown_as_seconds() -> None:
    for panel in PANELS:
        names = set.union(*(_names(target["expr"]) for target in panel["targets"]))
        timed = any(re.search(r"^segstream_.*_seconds(_bucket)?$", name) for name in names)
        assert timed == (panel["fieldConfig"]["defaults"]["unit"] == "s"), panel["title"]


def test_panels_do_not_cover_each_other() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in DASHBOARD["panels"]:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    for one, other in combinations(DASHBOARD["panels"], 2):
        a, b = one["gridPos"], other["gridPos"]
        apart = (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )
        assert apart, (one["title"], other["title"])


def test_the_dashboard_finds_its_source() -> None:
    (source,) = yaml.safe_load((PROVISIONING / "datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    (variable,) = DASHBOARD["templating"]["list"]
    assert variable["type"] == "datasource"
    assert variable["query"] == source["type"] == "prometheus"
    assert source["isDefault"]
    assert source["url"] == "http://prometheus:9090"
    for panel in PANELS:
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_grafana_finds_the_dashboard() -> None:
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards/segstream.yml").read_text())[
        "providers"
    ]
    assert provider["options"]["path"] == "/etc/grafana/provisioning/dashboards"


def _promtool(*arguments: str | Path) -> str:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("needs promtool: apt-get install prometheus")
    done = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_prometheus_reads_its_settings() -> None:
    assert "SUCCESS" in _promtool("check", "config", ROOT / "ops/prometheus/prometheus.yml")


def test_prometheus_understands_every_query(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:query{number}", "expr": query.replace("$__rate_interval", "1m")}
        for number, (_, query, _) in enumerate(QUERIES)
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert "SUCCESS" in _promtool("check", "rules", file)
