"""What an audit says on the terminal while it reads, and of what it found."""

from __future__ import annotations

from io import StringIO
from typing import Any

from rich.console import Console

from consumers.audit.report import Progress
from stream.cli import auditing


def console(*, terminal: bool) -> Console:
    return Console(file=StringIO(), width=120, force_terminal=terminal, highlight=False)


def said(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_how_much_there_is_to_read_is_said_once_and_first() -> None:
    for terminal in (False, True):
        there = console(terminal=terminal)
        with auditing.progress(there, 0.25) as tell:
            for topic, total in (("clickstream", 1_234_567), ("segment-changes", 700_000)):
                tell(Progress(topic, 0, total, beforehand=True))
            assert "records to read" not in said(there)
            tell(Progress("partitions of the store", 0, 12))
            tell(Progress("clickstream", 2_000, 1_234_567))
            tell(Progress("clickstream", 1_234_567, 1_234_567))
        assert said(there).count("records to read") == 1
        told = "1,234,567 of clickstream, 700,000 of segment-changes; 0.25 of the users are judged"
        assert told in said(there)
    assert "1234567/1234567" in said(there)


def test_what_was_not_judged_has_a_column_only_if_there_is_any() -> None:
    check = {"name": "x", "ok": True, "counted": 3, "unjudged": 0, "note": "", "offenders": []}
    facts: dict[str, Any] = {"unjudged": 0, "checks": [check]}
    quiet, busy = console(terminal=False), console(terminal=False)
    auditing.show(quiet, facts)
    auditing.show(busy, {"unjudged": 1_234, "checks": [check | {"unjudged": 1_234}]})
    assert "not judged" not in said(quiet)
    assert "not judged" in said(busy)
    assert "1,234" in said(busy)
