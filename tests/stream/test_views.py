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
from stream.units import iso

TABLE = FeatureTable(DEFAULT_FEATURES)
ORDER = next(f for f in DEFAULT_FEATURES if f.name == "days_since_order")


def facts(name: str) -> dict[str, Any]:
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


def moved(user: str, version: int, at: str) -> dict[str, Any]:
    return {"user": user, "version": version, "at": at, "kind_to": "new"}


MOVES = [
    moved("b", 1, "2026-01-01T00:00:00.000Z"),
    moved("b", 3, "2026-01-03T00:00:00.000Z"),
    moved("b", 2, "2026-01-03T00:00:00.000Z"),
    moved("a", 1, "2026-01-02T00:00:00.000Z"),
    moved("a", 2, "2026-01-04T00:00:00.000Z"),
]


def test_changes_of_all_partitions_come_in_the_order_of_their_time() -> None:
    found = [(one["user"], one["version"]) for one in views.in_time_order(iter(MOVES), None)]
    assert found == [("b", 1), ("a", 1), ("b", 2), ("b", 3), ("a", 2)]
    for last in range(7):
        cut = [(one["user"], one["version"]) for one in views.in_time_order(iter(MOVES), last)]
        assert cut == found[max(len(found) - last, 0) :]


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-01-02", "2026-01-02T00:00:00.000Z"),
        ("2026-01-02T03:04", "2026-01-02T03:04:00.000Z"),
        ("2026-01-02T03:04:05.678Z", "2026-01-02T03:04:05.678Z"),
        ("2026-01-02T03:04+02:00", "2026-01-02T01:04:00.000Z"),
        ("30d", "2025-12-02T00:00:00.000Z"),
        (" 90s", "2025-12-31T23:58:30.000Z"),
        (f"{10**400}d", "1970-01-01T00:00:00.000Z"),
    ],
)
def test_since_is_a_time_or_how_long_ago(text: str, at: str) -> None:
    now_ms = 1_767_225_600_000
    assert iso(views.since_ms(text, lambda: now_ms)) == at


@pytest.mark.parametrize("text", ["", "soon", "30", "30y", "2026-13-01", "2026", "Z"])
def test_what_is_neither_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="expected a"):
        views.since_ms(text, lambda: 0)


def test_only_changes_since_a_time_are_wanted() -> None:
    since = "2026-01-03T00:00:00.000Z"
    assert [one["version"] for one in MOVES if views.wanted(one, None, None, since)] == [3, 2, 2]
