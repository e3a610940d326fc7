"""What is asked of changes: their order, and which of them."""

from __future__ import annotations

from typing import Any

import pytest

from stream.insight import queries
from stream.units import iso


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
    found = [(one["user"], one["version"]) for one in queries.in_time_order(iter(MOVES), None)]
    assert found == [("b", 1), ("a", 1), ("b", 2), ("b", 3), ("a", 2)]
    for last in range(7):
        cut = [(one["user"], one["version"]) for one in queries.in_time_order(iter(MOVES), last)]
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
    assert iso(queries.since_ms(text, lambda: now_ms)) == at


@pytest.mark.parametrize("text", ["", "soon", "30", "30y", "2026-13-01", "2026", "Z"])
def test_what_is_neither_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=r"a time such as .*, or how long ago"):
        queries.since_ms(text, lambda: 0)


def test_only_changes_since_a_time_are_wanted() -> None:
    since = "2026-01-03T00:00:00.000Z"
    assert [one["version"] for one in MOVES if queries.wanted(one, None, None, since)] == [3, 2, 2]


KINDS_TOLD: dict[str, tuple[dict[str, Any], bool]] = {
    "a first kind": ({"kind_from": None, "kind_to": "new"}, True),
    "another kind": ({"kind_from": "new", "kind_to": "loyal"}, True),
    "the same kind elsewhere": ({"kind_from": "loyal", "kind_to": "loyal"}, False),
    "a turn of a segment, told to a member": (
        {"from": 3, "to": 3, "kind_from": "at_risk", "kind_to": "dormant"},
        True,
    ),
    "a turn of a segment, told of it": ({"event": "kind:at_risk->dormant", "segment": 3}, True),
    "another name": ({"event": "renamed", "segment": 3}, False),
    "a level": ({"level": "stage", "step_from": "low", "step_to": "high"}, False),
}


@pytest.mark.parametrize("what", KINDS_TOLD)
def test_only_what_tells_another_kind_may_be_wanted(what: str) -> None:
    told, another = KINDS_TOLD[what]
    record = {"at": "2026-01-01T00:00:00.000Z", "user": "a"} | told
    assert queries.wanted(record, None, None)
    assert queries.wanted(record, None, None, kinds_only=True) == another
