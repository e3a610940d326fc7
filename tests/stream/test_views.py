"""What commands show people: words as they are, whatever is in them, on a terminal of any width."""

from __future__ import annotations

from io import StringIO
from typing import Any

import msgspec
import pytest
from rich.console import Console

from stream.cli import main, views
from stream.events import LINEAGE_EVENTS
from stream.features import DEFAULT_FEATURES, FeatureTable

TABLE = FeatureTable(DEFAULT_FEATURES)
ORDER = next(f for f in DEFAULT_FEATURES if f.name == "days_since_order")


def facts(name: str) -> dict[str, Any]:
    profile = [
        {"feature": f.name, "value": 1.0, "unit": f.unit, "z": 1.0} for f in DEFAULT_FEATURES
    ]
    rates = {"changes_per_user_day": None, "reverted_share": None}
    return {
        "model": "1.0",
        "at": "2026-01-01T00:00:00.000Z",
        "users": 7,
        "inertia": 1.0,
        "silhouette": None,
        "lineage": [],
        "segments": [
            {"id": 4, "name": name, "kind": "new", "size": 7, "profile": profile, "flapping": rates}
        ],
    }


def console_of(columns: int) -> tuple[Console, StringIO]:
    """As the command's own, on a terminal so wide."""
    told = StringIO()
    shown = main.out
    return Console(
        file=told, width=columns, highlight=False, markup=shown._markup, emoji=shown._emoji
    ), told


@pytest.mark.parametrize("columns", [80, 250])
def test_a_name_is_shown_as_it_is(columns: int) -> None:
    console, told = console_of(columns)
    views.show_segments(console, facts("a [/red] [x] :smile:"), TABLE)
    assert "a [/red] [x] :smile:" in told.getvalue()
    assert "days_since_seen 1," in told.getvalue(), "what marks it is not cut into pieces"


def test_every_word_of_lineage_has_a_sentence() -> None:
    for word in LINEAGE_EVENTS:
        line = views.lineage_line({"event": word, "segment": 11, "others": [12]})
        assert line.startswith("11 ")
    turned = {"event": "kind:loyal->at_risk", "segment": 11, "others": []}
    assert views.lineage_line(turned) == "11 turned from loyal to at_risk"


@pytest.mark.parametrize(
    ("value", "text"),
    [(400.0, "never"), (399.0, "never"), (352.0, "mostly never"), (20.0, "20"), (1_381.8, "1,382")],
)
def test_never_is_said_of_what_never_was(value: float, text: str) -> None:
    assert views.reading(value, ORDER) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(400.0, "never"), (399.9, "400"), (352.0, "352"), (20.0, "20"), (1_381.8, "1,382")],
)
def test_of_one_user_never_is_said_only_if_it_never_was(value: float, text: str) -> None:
    assert views.exact(value, ORDER) == text


def test_a_segments_record_is_read_when_asked_for_and_told_in_a_line() -> None:
    record = {
        "id": "l-9.0-0", "event": "split", "segment": 11, "others": [4],
        "at": "2026-01-01T10:30:00.000Z", "model": "9.0", "name": "a [b]", "kind": "loyal",
        "users": 1_234,
    }  # fmt: skip
    raw = msgspec.json.encode(record)
    assert views.parse_record(raw) is None
    assert views.parse_record(raw, lineage=True) == record
    for nothing in (None, b"", b"[]", b"{", b"{}"):
        assert views.parse_record(nothing, lineage=True) is None
    console, told = console_of(200)
    console.print(views.record_line(record))
    assert told.getvalue() == (
        "2026-01-01 10:30  " + views.lineage_line(record) + "  a [b] (loyal), 1,234 users\n"
    )
    assert views.wanted(record, None, None)
    assert views.wanted(record, None, "loyal")
    assert not views.wanted(record, None, "new")
    assert not views.wanted(record, "u1", None)
