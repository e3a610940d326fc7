"""What queries of rules and panels may read: the metrics that the code declares, and their labels."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from stream.metrics import REGISTRY
from tests.conftest import unavailable

ROOT = Path(__file__).parent.parent.parent
RULES = ROOT / "ops/prometheus/rules/segstream.yml"
ADDED_BY_PROMETHEUS = {"instance", "job", "namespace", "role"}
"""`namespace` on Kubernetes alone."""
OWN = {"up": ADDED_BY_PROMETHEUS}
"""Metrics that Prometheus makes itself."""
KEYWORDS = {"and", "or", "unless", "by", "on", "without", "group_left", "ignoring"}


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
    """Every series that is scraped, and its labels."""
    series = dict(OWN)
    for name, (kind, labels) in DECLARED.items():
        there = labels | ADDED_BY_PROMETHEUS
        if kind == "histogram":
            series |= {f"{name}_bucket": there | {"le"}, f"{name}_sum": there}
            series[f"{name}_count"] = there
        else:
            series[name] = there
    return series


def rules() -> list[dict[str, Any]]:
    """Every rule, recording or alert, in order."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


SCRAPED = _series()
RECORDED = {rule["record"]: {"namespace", "job"} for rule in rules() if "record" in rule}
SERIES = SCRAPED | RECORDED
"""Every series a query may name, and its labels."""


def names(query: str) -> set[str]:
    """Series that a query reads."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(?:by|on|without)\s*\([^)]*\)", " ", query)
    words = re.findall(r"\b[a-z][\w:]*(?![\w:]|\s*\()", bare)
    return set(words) - KEYWORDS


def kept_labels(query: str) -> set[str]:
    """Labels by which a query groups."""
    groups = re.findall(r"\b(?:by|on) \(([^)]*)\)", query)
    return {label.strip() for group in groups for label in group.split(",")}


def asked_labels(query: str) -> set[str]:
    """Labels that a query compares with something."""
    return set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", query))


def is_counter(name: str) -> bool:
    """Whether a series only rises, so that it is of use as a rate alone."""
    return DECLARED.get(name, ("", set()))[0] == "counter" or name.endswith(("_bucket", "_count"))


def promtool(*arguments: str | Path, fails: bool = False) -> str:
    """What promtool prints; skips where it is not installed."""
    program = shutil.which("promtool")
    if program is None:
        unavailable("needs promtool: apt-get install prometheus")
    done = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr
