"""The demo from outside: what it prints, how it ends, and what it leaves behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.harness import DEADLINE_SECONDS, ROOT, clean_environment
from tests.integration.processes import left_behind, segstream

pytestmark = [pytest.mark.servers, pytest.mark.slow]

KEYS = {
    "events",
    "users",
    "segments",
    "changes",
    "churn_risk_moves",
    "events_per_second",
    "change_latency_p50_seconds",
    "change_latency_p99_seconds",
    "lost",
    "duplicated",
    "rejected",
}


def test_the_demo_ends_by_itself(tmp_path: Path) -> None:
    said = segstream("demo", "--seconds", "8", "--json", seconds=200, TMPDIR=str(tmp_path))
    assert said.code == 0, said.err
    assert len(said.out.splitlines()) == 1
    facts = said.facts
    assert set(facts) >= KEYS
    assert (facts["lost"], facts["duplicated"]) == (0, 0)
    assert facts["ok"]
    assert facts["complete"]
    assert facts["caught_up"]
    assert [check["name"] for check in facts["checks"] if not check["ok"]] == []
    assert any(check["name"].startswith("campaigns: ") for check in facts["checks"])
    assert facts["rejected"] > 0  # the simulated shop sends some garbage
    for key in ("events", "users", "segments", "changes", "churn_risk_moves"):
        assert facts[key] > 0, key
    assert 0 < facts["change_latency_p50_seconds"] <= facts["change_latency_p99_seconds"]
    assert [one["campaign"] for one in facts["effects"]] == ["coupon", "postcard"]
    assert left_behind(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def started(tmp_path: Path, seconds: int) -> subprocess.Popen[str]:
    """A demo in a group of its own: a signal to all of it is what a Ctrl-C in a terminal is."""
    return subprocess.Popen(
        [sys.executable, "-m", "stream", "demo", "--seconds", str(seconds), "--json"],
        cwd=ROOT,
        env=clean_environment() | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def test_ctrl_c_ends_it_cleanly(tmp_path: Path) -> None:
    process = started(tmp_path, 60)
    try:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not any("run publisher" in line for line in left_behind(tmp_path)):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(3)  # somewhere in the middle, as people do
        # Once to the whole group, as a terminal does.
        subprocess.run(["kill", "-INT", "--", f"-{process.pid}"], check=True)
        out, err = process.communicate(timeout=90)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
    assert "Traceback" not in err
    assert process.returncode == 0, err
    facts = json.loads(out.splitlines()[-1])
    assert facts["complete"] is False
    assert (facts["lost"], facts["duplicated"]) == (0, 0)
    assert left_behind(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_during_the_audit(tmp_path: Path) -> None:
    process = started(tmp_path, 8)
    try:
        # The roles have come and gone: what is left is the audit.
        for there in (True, False):
            deadline = time.monotonic() + DEADLINE_SECONDS
            while any(" run " in line for line in left_behind(tmp_path)) != there:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
        subprocess.run(["kill", "-INT", "--", f"-{process.pid}"], check=True)
        out, err = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
    assert "Traceback" not in err
    assert "Error" not in err
    assert (process.returncode, out) == (130, "")
    assert left_behind(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
