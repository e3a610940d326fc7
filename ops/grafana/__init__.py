"""Grafana's dashboards, written from what is declared here.

Comes in: panels as values. Goes out: a JSON file a dashboard under `provisioning/dashboards`, which
Grafana reads when it starts; ``python -m ops.grafana`` writes them anew. Every query is asked of the
chosen namespaces and jobs, so no panel names a job.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ops.grafana.panels import DASHBOARDS, Dashboard, Panel, Row

FOLDER = Path(__file__).parent / "provisioning" / "dashboards"
CHOSEN = 'namespace=~"$namespace", job=~"$job"'
"""What every series is asked with."""
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24
HEIGHTS = {"stat": 4, "timeseries": 8}

_METRIC = re.compile(r"\b((?:segstream|process|namespace_job:segstream)_?[\w:]*\w|up)\b(\{)?")
_NOT_METRICS = re.compile(r'"[^"]*"|\b(?:by|on)\s*\([^)]*\)')


def chosen(query: str) -> str:
    """A query, asked of the chosen namespaces and jobs alone."""
    pieces, end = [], 0
    # Texts in quotes and lists of labels are left as they are.
    for kept in [*_NOT_METRICS.finditer(query), None]:
        start = len(query) if kept is None else kept.start()
        pieces.append(_METRIC.sub(_asked, query[end:start]))
        if kept is not None:
            pieces.append(kept[0])
            end = kept.end()
    return "".join(pieces)


def _asked(metric: re.Match[str]) -> str:
    return f"{metric[1]}{{{CHOSEN}, " if metric[2] else f"{metric[1]}{{{CHOSEN}}}"


def files() -> dict[Path, str]:
    """The text of every dashboard, by path."""
    return {
        FOLDER / f"{board.name}.json": json.dumps(_dashboard(board), indent=1) + "\n"
        for board in DASHBOARDS
    }


@dataclass
class _Cursor:
    """Where the next panel goes: side by side, and on to the next line where one is full."""

    x: int = 0
    y: int = 0
    height: int = 0

    def place(self, width: int, height: int) -> dict[str, int]:
        if self.x + width > WIDTH:
            self.line()
        where = {"x": self.x, "y": self.y, "w": width, "h": height}
        self.x, self.height = self.x + width, max(self.height, height)
        return where

    def line(self) -> None:
        self.x, self.y, self.height = 0, self.y + self.height, 0


def _dashboard(board: Dashboard) -> dict[str, Any]:
    panels: list[dict[str, Any]] = []
    cursor = _Cursor()
    for row in board.rows:
        cursor.line()
        panels.append(_row(row, cursor.place(WIDTH, 1), len(panels) + 1))
        panels += [
            _panel(panel, cursor.place(panel.width, HEIGHTS[panel.kind]), len(panels) + number)
            for number, panel in enumerate(row.panels, 1)
        ]
    return {
        "uid": f"segstream-{board.name}",
        "title": board.title,
        "description": board.meaning,
        "tags": ["segstream"],
        "schemaVersion": 41,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "annotations": {"list": []},
        "links": [
            {
                "type": "dashboards",
                "title": "segstream",
                "tags": ["segstream"],
                "keepTime": True,
                "includeVars": True,
                "asDropdown": False,
            }
        ],
        "templating": {"list": _variables()},
        "panels": panels,
    }


def _variables() -> list[dict[str, Any]]:
    def values(name: str, label: str, query: str) -> dict[str, Any]:
        return {
            "name": name,
            "label": label,
            "type": "query",
            "datasource": SOURCE,
            "definition": query,
            "query": {"query": query, "refId": name},
            # With the time range, so that a job that is gone can still be looked at.
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            # Matches series without the label as well: outside Kubernetes there is no namespace.
            "allValue": ".*",
            "current": {"text": ["All"], "value": ["$__all"]},
            "hide": 0,
            "regex": "",
            "options": [],
        }

    source = {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "refresh": 1,
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "regex": "",
        "options": [],
        "current": {},
    }
    return [
        source,
        values("namespace", "Namespace", "label_values(segstream_build_info, namespace)"),
        values("job", "Job", 'label_values(segstream_build_info{namespace=~"$namespace"}, job)'),
    ]


def _row(row: Row, where: dict[str, int], number: int) -> dict[str, Any]:
    return {
        "id": number,
        "type": "row",
        "title": row.title,
        "gridPos": where,
        "collapsed": False,
        "panels": [],
    }


def _panel(panel: Panel, where: dict[str, int], number: int) -> dict[str, Any]:
    stat = panel.kind == "stat"
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.meaning,
        "datasource": SOURCE,
        "gridPos": where,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _STAT_OPTIONS if stat else _SERIES_OPTIONS,
        "targets": [
            {
                "datasource": SOURCE,
                "editorMode": "code",
                "expr": chosen(query),
                "legendFormat": legend,
                # The last value of a range would stay on the screen when whoever told it is gone.
                "instant": stat,
                "range": not stat,
                "refId": chr(ord("A") + place),
            }
            for place, (query, legend) in enumerate(panel.queries)
        ],
    }


_STAT_OPTIONS = {
    "reduceOptions": {"calcs": ["last"], "fields": "", "values": False},
    "colorMode": "value",
    "graphMode": "none",
    "textMode": "auto",
    "justifyMode": "auto",
    "orientation": "auto",
}
_SERIES_OPTIONS = {
    "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
    "tooltip": {"mode": "multi", "sort": "desc"},
}


def _defaults(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    steps += [
        {"color": colour, "value": value}
        for colour, value in zip(("orange", "red"), panel.limits, strict=False)
    ]
    assert all(low < high for low, high in pairwise(panel.limits))
    told: dict[str, Any] = {
        "unit": panel.unit,
        "thresholds": {"mode": "absolute", "steps": steps},
    }
    if panel.from_zero:
        told["min"] = 0
    if panel.absent:
        told["noValue"] = panel.absent
    if panel.kind == "stat":
        told["color"] = {"mode": "thresholds"}
        return told
    told["color"] = {"mode": "palette-classic"}
    told["custom"] = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 30 if panel.stacked else 8,
        "showPoints": "never",
        # Where there is nothing, nothing is drawn.
        "spanNulls": False,
        "stacking": {"group": "A", "mode": "normal" if panel.stacked else "none"},
    }
    return told
