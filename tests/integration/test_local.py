"""The whole pipeline in one process on the local broker and store, as on a laptop."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from producers.mapping import load_mapping
from producers.replay import replay
from stream.config import Settings
from stream.config_layers import as_file
from stream.units import DAY_MS
from tests import harness
from tests.harness import ROOT, Pipeline, clean_environment
from tests.integration.processes import left_behind

pytestmark = [pytest.mark.servers, pytest.mark.slow]

CHRISTMAS = datetime(2011, 1, 10, tzinfo=UTC)


def test_run_all_local(online_retail: Path, tmp_path: Path) -> None:
    # Names of their own would be in nobody's way: the servers end with the process.
    prepared = harness.watermark_settings("127.0.0.1:1", "redis://127.0.0.1:1/0")
    config = tmp_path / "shop.toml"
    config.write_text(as_file(prepared))
    log = tmp_path / "all.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "stream", "-c", str(config), "run", "all", "--local"],
            cwd=ROOT,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=clean_environment(),
        )
    try:
        settings = _with_addresses(prepared, process, log)
        report = replay(
            settings,
            online_retail,
            load_mapping("online_retail"),
            harness.signer_of(settings),
            until=CHRISTMAS,
        )
        last = int(CHRISTMAS.timestamp() * 1_000) // DAY_MS * DAY_MS
        with Pipeline(settings, tmp_path / "reader") as pipeline:
            pipeline.wait("the end of the history", lambda: pipeline.done(last))
            harness.assert_clean(pipeline.audit())
            outcome = pipeline.outcome()
        assert outcome.counts["applied"] == report.sent
        assert len(outcome.changes) >= len(outcome.users) > 500
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert left_behind(config) == []


def _with_addresses(prepared: Settings, process: subprocess.Popen[bytes], log: Path) -> Settings:
    """The settings with the addresses that the process says its servers have."""
    deadline = time.monotonic() + harness.DEADLINE_SECONDS
    said = None
    while said is None:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        said = re.search(r"local broker at (\S+), store at (\S+)", log.read_text())
        time.sleep(harness.POLL_SECONDS)
    return prepared.model_copy(
        update={
            "broker": prepared.broker.model_copy(update={"bootstrap": said[1]}),
            "store": prepared.store.model_copy(update={"url": said[2]}),
        }
    )
