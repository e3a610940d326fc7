"""The dashboards show what the code measures, and all of it, of the job one has chosen."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.grafana import CHOSEN, FOLDER, SOURCE, chosen, files
from ops.grafana.panels import DASHBOARDS, NEEDED
from stream.kinds import CHURN_RISK_KINDS
from stream.wiring.roles import ROLES
from tests.ops.queries import (
    ADDED_BY_PROMETHEUS,
    DECLARED,
    ROOT,
    SERIES,
    asked_labels,
    is_counter,
    kept_labels,
    names,
    promtool,
)

PROVISIONING = ROOT / "ops/grafana/provisioning"
BOARDS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))
}
PANELS = [panel for board in BOARDS.values() for panel in board["panels"] if panel["type"] != "row"]

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
ALERTS = {"ALERTS": {"alertname", "alertstate", "severity", *ADDED_BY_PROMETHEUS}}
KNOWN = SERIES | ALERTS


def _queries() -> Iterator[tuple[str, str, str]]:
    """Title of the panel, query without what chooses namespace and job, legend."""
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], _bare(target["expr"]), target["legendFormat"]


def _bare(query: str) -> str:
    return query.replace(f"{{{CHOSEN}}}", "").replace(f"{CHOSEN}, ", "")


QUERIES = list(_queries())


def test_the_files_are_those_that_are_declared() -> None:
    for path, text in files().items():
        assert path.read_text() == text, "write them anew: python -m ops.grafana"
    assert set(FOLDER.glob("*.json")) == set(files())


def test_every_series_is_asked_of_the_chosen_namespaces_and_jobs() -> None:
    assert chosen('a by (job) (up == 0) and segstream_x{role="up"}') == (
        f'a by (job) (up{{{CHOSEN}}} == 0) and segstream_x{{{CHOSEN}, role="up"}}'
    )
    for panel in PANELS:
        for target in panel["targets"]:
            read = [name for name in re.findall(r"[\w:]+", _bare(target["expr"])) if name in SERIES]
            assert target["expr"].count(CHOSEN) == len(read), target["expr"]
            assert 'job="' not in target["expr"]


@pytest.mark.parametrize(("title", "query", "legend"), QUERIES)
def test_every_query_reads_what_is_measured(title: str, query: str, legend: str) -> None:
    del title, legend
    read = names(query)
    assert read or "ALERTS" in query
    assert read <= KNOWN.keys()


@pytest.mark.parametrize(("title", "query", "legend"), QUERIES)
def test_every_label_is_one_the_metric_has(title: str, query: str, legend: str) -> None:
    del title
    read = [name for name in KNOWN if re.search(rf"\b{name}\b", query)]
    known = set.union(*(KNOWN[name] for name in read))
    kept = kept_labels(query) | (known if "by (" not in query else set())
    assert asked_labels(query) | kept_labels(query) <= known
    assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= kept


def test_every_metric_is_shown_or_left_out_for_a_reason() -> None:
    read = set.union(*(names(query) for _, query, _ in QUERIES))
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
        for name in names(query):
            assert not is_counter(name) or re.search(rf"rate\({name}(\{{[^}}]*\}})?\[", query), (
                title
            )


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
        metric in names(query) and re.search(rf"by \([^)]*\b{label}\b", query)
        for _, query, _ in QUERIES
    )


def _panels_of(metric: str) -> list[dict[str, Any]]:
    return [p for p in PANELS if any(metric in names(_bare(t["expr"])) for t in p["targets"])]


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
                _bare(target["expr"]),
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
    queries = [query for _, query, _ in QUERIES if metric in names(query)]
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
        read = set().union(*(names(_bare(target["expr"])) for target in panel["targets"]))
        timed = any(re.search(r"segstream_\w+_seconds(_bucket)?$", name) for name in read)
        assert timed == (panel["fieldConfig"]["defaults"]["unit"] == "s"), panel["title"]


@pytest.mark.parametrize("name", BOARDS)
def test_panels_do_not_cover_each_other(name: str) -> None:
    panels = BOARDS[name]["panels"]
    ids = [panel["id"] for panel in panels]
    assert len(set(ids)) == len(ids)
    for panel in panels:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    for one, other in combinations(panels, 2):
        a, b = one["gridPos"], other["gridPos"]
        apart = (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )
        assert apart, (one["title"], other["title"])


def test_a_number_is_of_now_and_absence_shows() -> None:
    """The last value of a range would stay when whoever told it is gone, and 0 is not nothing."""
    for panel in PANELS:
        for target in panel["targets"]:
            assert target["instant"] == (panel["type"] == "stat"), panel["title"]
            assert target["range"] != target["instant"]
        if panel["type"] == "stat":
            assert panel["fieldConfig"]["defaults"]["noValue"], panel["title"]
            assert panel["options"]["reduceOptions"]["calcs"] == ["last"]


def test_a_role_that_nothing_is_heard_of_counts() -> None:
    (panel,) = (panel for panel in PANELS if panel["title"] == "Roles without a ready process")
    assert set(NEEDED) <= set(ROLES)
    assert _bare(panel["targets"][0]["expr"]) == (
        f'{len(NEEDED)} - count(max by (role) (segstream_role_ready{{role=~"{"|".join(NEEDED)}"}}) == 1)'
        f" or vector({len(NEEDED)})"
    )


def test_nothing_is_only_counted_as_0_where_the_others_are_known() -> None:
    """`or vector(0)` shows that all is well where nobody is left to say so."""
    allowed = {"Alerts", "Workers behind the newest model"}
    assert {title for title, query, _ in QUERIES if "vector(0)" in query} == allowed


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_finds_its_source_and_lets_choose(name: str) -> None:
    (source,) = yaml.safe_load((PROVISIONING / "datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    variable, *others = BOARDS[name]["templating"]["list"]
    assert variable["type"] == "datasource"
    assert variable["query"] == source["type"] == "prometheus"
    assert source["isDefault"]
    assert source["url"] == "http://prometheus:9090"
    assert [other["name"] for other in others] == ["namespace", "job"]
    for other in others:
        assert (other["allValue"], other["includeAll"], other["multi"]) == (".*", True, True)
        assert "segstream_build_info" in other["definition"]
    for panel in BOARDS[name]["panels"]:
        for part in (panel, *panel["targets"]) if panel["type"] != "row" else ():
            assert part["datasource"] == SOURCE


def test_dashboards_are_told_apart() -> None:
    assert len({board["uid"] for board in BOARDS.values()}) == len(DASHBOARDS)
    assert len({board["title"] for board in BOARDS.values()}) == len(DASHBOARDS)


def test_grafana_finds_the_dashboards() -> None:
    (provider,) = yaml.safe_load((FOLDER / "segstream.yml").read_text())["providers"]
    there = provider["options"]["path"]
    assert there == "/etc/grafana/provisioning/dashboards"
    monitoring = yaml.safe_load((ROOT / "ops/compose/monitoring.yml").read_text())
    home = monitoring["services"]["grafana"]["environment"][
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"
    ]
    assert Path(home).parent == Path(there)
    assert Path(home).stem in BOARDS


def test_prometheus_reads_its_settings_and_rules() -> None:
    said = promtool("check", "config", ROOT / "ops/prometheus/prometheus.yml")
    assert re.search(r"SUCCESS: \d\d rules found", said)


def test_prometheus_understands_every_query(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:query{number}", "expr": target["expr"].replace("$__rate_interval", "1m")}
        for number, target in enumerate(t for panel in PANELS for t in panel["targets"])
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert "SUCCESS" in promtool("check", "rules", file)
