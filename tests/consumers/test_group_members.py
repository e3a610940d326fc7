"""Who is in a group is asked by a process of its own: whatever ends it, the worker goes on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from consumers.group_members import members_of

NOBODY = {"bootstrap.servers": "127.0.0.1:1", "client.id": "segstream"}
ROOT = Path(__file__).parents[2]
BY_THE_COORDINATOR = (
    "consumer_group_offsets(",
    "describe_consumer_groups(",
    "delete_consumer_groups(",
)


def test_no_broker_is_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert members_of("shop", NOBODY, 0.2) == []
    assert "members of group shop: " in caplog.text


@pytest.mark.parametrize("options", [{"no.such.option": "1"}, {"logger": object()}])
def test_options_that_cannot_be_are_no_answer(options: dict[str, object]) -> None:
    assert members_of("shop", NOBODY | options, 0.2) == []


def test_the_end_of_who_asked_is_no_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    ends = tmp_path / "python"
    ends.write_text("#!/bin/sh\nkill -ABRT $$\n")
    ends.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(ends))
    assert members_of("shop", NOBODY, 0.2) == []
    assert "SIGABRT" in caplog.text


def test_nobody_else_asks_the_coordinator() -> None:
    asking = {
        str(file.relative_to(ROOT))
        for folder in ("consumers", "producers", "stream")
        for file in (ROOT / folder).rglob("*.py")
        if any(call in file.read_text() for call in BY_THE_COORDINATOR)
    }
    assert asking == {"consumers/group_members.py"}
