"""What commands show people: words as they are, whatever is in them, on a terminal of any width."""

from __future__ import annotations

from io import StringIO
from typing import Any

import msgspec
import pytest
from rich.console import Console

from consumers.change_log import parse_record
from stream.cli import views
from stream.cli.invocation import invocation
from stream.events import LINEAGE_EVENTS
from stream.features import DEFAULT_FEATURES, FeatureTable
from stream.insight.queries import wanted

TABLE = FeatureTable(DEFAULT_FEATURES)


def facts(name: str) -> Any:
    profile = [
        {"feature": f.name, "value": 1.0, "unit": f.unit, "z": 1.0} for f in DEFAULT_FEATURES
    ]
    rates = {"changes_per_user_day": None, "reverted_share": None, "user_days": 0.0}
    return {
        "model": "1.0",
        "at": "2026-01-01T00:00:00.000Z",
        "users": 7,
        "inertia": 1.0,
        "silhouette": None,
        "lineage": [],
        "levels": [],
        "scores": [],
        "segments": [
            {
                "id": 4,
                "name": name,
                "kind": "new",
                "size": 7,
                "profile": profile,
                "flapping": rates,
                "population": "everyone",
                "scores": [],
            }
        ],
        "populations": [
            {"name": "everyone", "when": {}, "users": 7, "segments": [4], "choice": "declared"}
        ],
    }


def console_of(columns: int) -> tuple[Console, StringIO]:
    """As the command's own, on a terminal so wide."""
    told = StringIO()
    shown = invocation.out
    return Console(
        file=told, width=columns, highlight=False, markup=shown._markup, emoji=shown._emoji
    ), told


@pytest.mark.parametrize("columns", [80, 250])
def test_a_name_is_shown_as_it_is(columns: int) -> None:
    console, told = console_of(columns)
    views.show_segments(console, facts("a [/red] [x] :smile:"), TABLE)
    assert "a [/red] [x] :smile:" in told.getvalue()
    assert "days_since_seen 1," in told.getvalue(), "what marks it is not cut into pieces"


@pytest.mark.parametrize(("user_days", "told"), [(6.9, False), (7.0, True)])
def test_what_leaves_a_segment_a_day_is_told_after_a_day(user_days: float, told: bool) -> None:
    shop = facts("seven")
    shop["segments"][0]["flapping"] = {
        "changes_per_user_day": 31.4, "reverted_share": 0.5, "user_days": user_days,
    }  # fmt: skip
    console, shown = console_of(250)
    views.show_segments(console, shop, TABLE)
    assert ("50 %" in shown.getvalue()) is told


def test_every_word_of_lineage_has_a_sentence() -> None:
    for word in LINEAGE_EVENTS:
        line = views.lineage_line({"event": word, "segment": 11, "others": [12]})
        assert line.startswith("11 ")
    turned = {"event": "kind:loyal->at_risk", "segment": 11, "others": []}
    assert views.lineage_line(turned) == "11 turned from loyal to at_risk"


def test_a_segments_record_is_read_when_asked_for_and_told_in_a_line() -> None:
    record = {
        "id": "l-9.0-0", "event": "split", "segment": 11, "others": [4],
        "at": "2026-01-01T10:30:00.000Z", "model": "9.0", "name": "a [b]", "kind": "loyal",
        "users": 1_234,
    }  # fmt: skip
    raw = msgspec.json.encode(record)
    assert parse_record(raw) is None
    assert parse_record(raw, lineage=True) == record
    nameless = msgspec.json.encode({name: value for name, value in record.items() if name != "id"})
    for nothing in (None, b"", b"[]", b"{", b"{}", nameless):
        assert parse_record(nothing, lineage=True) is None
    console, told = console_of(200)
    console.print(views.record_line(record))
    assert told.getvalue() == (
        "2026-01-01 10:30  " + views.lineage_line(record) + "  a [b] (loyal), 1,234 users\n"
    )
    assert wanted(record, None, None)
    assert wanted(record, None, "loyal")
    assert not wanted(record, None, "new")
    assert not wanted(record, "u1", None)
