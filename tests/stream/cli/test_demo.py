"""The demo's live picture shows facts of a moment, safely; the rest is in `test_output`."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from stream.cli.demo import LiveScreen
from stream.features import DEFAULT_FEATURES, FeatureTable
from stream.insight.facts import MomentFacts
from tests.stream.cli.test_output import EVIL, change, segments


def drawn(moment: MomentFacts) -> str:
    """What stands on a terminal at that moment."""
    told = StringIO()
    console = Console(file=told, width=150, force_terminal=True, color_system=None)
    screen = LiveScreen(console, lambda _: None)
    with screen.watching(FeatureTable(DEFAULT_FEATURES)) as draw:
        draw(moment)
    screen.serving("http://127.0.0.1:8080")
    screen.kept(Path("demo.toml"))
    return told.getvalue()


MOMENT: MomentFacts = {
    "shop_time": "2025-09-23T06:30:00.000Z",
    "events": 12_345,
    "events_per_second": 678.4,
    "behind_seconds": 90.0,
    "changes": 42,
    "churn_risk_moves": 7,
    "last_moves": [],
    "segment_list": None,
}


def test_a_moment_is_drawn() -> None:
    shown = drawn(MOMENT)
    for words in (
        "2025-09-23 06:30",
        "12,345",
        "678",
        "42",
        "no model yet",
        "-c demo.toml segments",
    ):
        assert words in shown


@pytest.mark.parametrize(
    "bad", ["\x1b[2J", "\x1b]0;", "\x07", "\x9b", "\u202e", "\u2028", "\nFORGED"]
)
def test_nothing_in_a_picture_is_obeyed_by_a_terminal(bad: str) -> None:
    assert bad in EVIL
    listed: Any = segments()
    moment: MomentFacts = {**MOMENT, "last_moves": [change()], "segment_list": listed}
    shown = drawn(moment)
    assert r"mallory\x1b[2J" in shown
    assert bad not in shown
