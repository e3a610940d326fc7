"""`ops/bench/readers`: its crowd reads what is told, and its section says what was measured."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from ops.bench import readers
from ops.bench.readers import Crowd, Turn
from stream.store.memory import MemoryStore
from tests.stream.api.serving import SECONDS, change, serving, settings_of


def test_everybody_reads_everything_but_who_reads_nothing() -> None:
    with (
        serving(settings_of(), MemoryStore(), clients=()) as served,
        Crowd(served.port, 5) as crowd,
    ):
        for portion in range(4):
            served.feed.tell([change(portion * 100 + one, filler="x" * 700) for one in range(100)])
        deadline = time.monotonic() + SECONDS
        while min(crowd.read) < 400:
            assert time.monotonic() < deadline, crowd.read
            time.sleep(0.01)
        assert crowd.read == (400,) * 5


def test_a_section_tells_what_was_measured() -> None:
    report = {
        "readers": 100, "rate": 1_000, "rounds": 3, "read": [4_200, 4_321],
        "without_ms": [20.04, 51.0], "with_ms": [21.0, 60.26],
        "without_cores": {"activity": 0.251}, "with_cores": {"activity": 0.26, "api": 0.5},
    }  # fmt: skip
    section = readers.section(report, datetime(2026, 11, 26, tzinfo=UTC))
    for words in (
        "| nobody | 20.0 ms | 51.0 ms | activity 0.25 |",
        "| 100, and one who reads nothing | 21.0 ms | 60.3 ms | activity 0.26, api 0.50 |",
        "4,200 to 4,321 changes",
        "1,000 events a second, 3 turns",
    ):
        assert words in section


def test_each_number_is_the_median_over_turns() -> None:
    turns = [Turn([wait / 1e3] * 3, (), {"activity": wait}) for wait in (1.0, 9.0, 2.0)]
    assert readers._waits(turns) == [2.0, 2.0]
    assert readers._cores(turns) == {"activity": 2.0}
