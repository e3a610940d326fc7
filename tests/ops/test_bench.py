"""`ops/bench`: its arithmetic and its arguments; and once, small, the whole of it."""

from __future__ import annotations

import json
import math
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from consumers.decode import Batch, Decoder
from consumers.live import LiveClock
from consumers.watermark import MarkClock
from ops.bench import __main__ as bench
from ops.bench import decode as decode_bench
from ops.bench.loops import STEPS, SWEEP, ClockedConsumer, step_of
from ops.bench.report import (
    HEADER,
    Latency,
    Round,
    Speed,
    append,
    medians,
    percentile,
    section,
    summary,
)
from ops.bench.stage import ROOT, BenchError, Child, await_that
from ops.kafka.server import why_unavailable
from stream.acting import act_together
from stream.config import Worker
from stream.features import DEFAULT_FEATURES, FeatureTable
from stream.partition import Partition
from stream.store.redis import RedisStore
from stream.store.redis_partitions import RedisPartitions
from tests.conftest import unavailable

WANTED = (
    "ceiling_events_per_second",
    "ceiling_ratio",
    "plain_loop_ratio",
    "events_per_second_per_core",
    "plain_loop_events_per_second",
    "change_latency_p50_seconds",
    "change_latency_p99_seconds",
    "redis_cpu_seconds_per_million",
    "worker_cpu_seconds_per_million",
    "rounds",
    "events",
    "machine",
)


def a_round(ceiling: float, plain: float, whole: float) -> Round:
    """A round of a thousand events that took so many seconds each."""
    return Round(
        Speed(1_000, ceiling, ceiling),
        Speed(1_000, plain, plain, 0.001),
        Speed(1_000, plain, plain, 0.001),
        Speed(1_000, whole, whole, 0.002),
    )


def facts() -> dict[str, Any]:
    return {
        "events": 1_000,
        "event_bytes": 245.0,
        "how": "alone",
        "machine": {"cpu": "a", "cores": 2, "versions": {"Python": "3"}},
    }


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([3, 1, 2], 50) == 2
    assert percentile(range(1, 101), 99) == 99
    assert percentile([7], 99) == 7
    assert percentile([1, 2], 1) == 1
    assert math.isnan(percentile([], 50))


def test_medians_are_taken_over_the_rounds_and_not_over_their_parts() -> None:
    # Ratios of the same round: 0.5, 0.1, 0.4. The ratio of the medians would be another.
    rounds = [a_round(1, 3, 2), a_round(1, 8, 10), a_round(4, 12, 10)]
    report = summary(rounds, [], {}, facts())
    assert report["ceiling_ratio"] == 0.4
    assert report["plain_loop_ratio"] == 1.2
    assert report["events_per_second_per_core"] == 100
    assert report["worker_cpu_seconds_per_million"] == 10_000
    assert report["redis_cpu_seconds_per_million"] == 2
    assert [row["ceiling_ratio"] for row in report["rounds"]] == [0.5, 0.1, 0.4]


def test_medians_of_no_rounds_are_none() -> None:
    assert medians([]) == {}


def test_a_number_that_a_round_does_not_have_is_nought() -> None:
    assert medians([{"a": 1.0}, {"a": 3.0, "b": 2.0}]) == {"a": 2.0, "b": 1.0}


def test_the_report_says_all_that_was_asked_for() -> None:
    latency = Latency([0.02, 0.03], 20_000, 0.001, {"activity": 0.3}, {"user_moved": 2})
    report = summary([a_round(1, 3, 2)], [latency], {"decode": 0.5}, facts())
    assert set(WANTED) <= set(report)
    assert json.loads(json.dumps(report)) == report
    text = section(report, datetime(2026, 11, 21, 9, 0, tzinfo=UTC))
    assert text.startswith("## 2026-11-21 09:00 UTC\n")
    assert "| whole job / ceiling | 0.500 | 0.500 |" in text
    assert "p50 20.0 ms (20.0), p99 30.0 ms (30.0)." in text
    assert "decode 50%" in text


def test_a_report_may_be_of_one_half_only() -> None:
    latency = Latency([0.02], 20_000, 0.001)
    for report in (
        summary([a_round(1, 3, 2)], [], {}, facts()),
        summary([], [latency], {}, facts()),
    ):
        assert section(report, datetime(2026, 11, 21, tzinfo=UTC))


def test_results_are_appended_under_one_heading(tmp_path: Path) -> None:
    file = tmp_path / "results" / "pipeline.md"
    append(file, "## one\n", HEADER)
    append(file, "## two\n", HEADER)
    assert file.read_text() == f"{HEADER}\n## one\n\n## two\n"


def test_arguments_have_defaults_and_limits(capsys: pytest.CaptureFixture[str]) -> None:
    wanted = bench.parse([])
    assert (wanted.rounds, wanted.events, wanted.users) == (5, 3_000_000, 50_000)
    assert wanted.append
    assert not wanted.json
    wanted = bench.parse(["--json", "--no-append", "--events", "300,000", "--rounds", "0"])
    assert (wanted.events, wanted.rounds, wanted.append, wanted.json) == (300_000, 0, False, True)
    for wrong in (["--events", "0"], ["--rounds", "-1"], ["--users", "many"]):
        with pytest.raises(SystemExit) as ended:
            bench.parse(wrong)
        assert ended.value.code == 2
    assert "'many' is no number" in capsys.readouterr().err


def test_the_steps_of_the_profile_are_names_of_the_code() -> None:
    stores, clocks = (RedisStore, RedisPartitions), (LiveClock, MarkClock)
    classes = (ClockedConsumer, *clocks, Decoder, Batch, FeatureTable, Partition, *stores)
    known: dict[str, Any] = {one.__qualname__: one for one in (*classes, act_together)}
    for name in [*STEPS, SWEEP]:
        owner, _, method = name.partition(".")
        assert hasattr(known[owner], method or "__init__"), name


def test_the_profile_takes_the_innermost_step_and_knows_a_sweep() -> None:
    def here() -> FrameType:
        return sys._getframe(1)

    class FeatureTable:
        def fold(self) -> str:
            return step_of(here())

        def vectors(self) -> str:
            return step_of(here())

    class Partition:
        def sweep_on(self) -> str:
            return FeatureTable().vectors()

    # Nested names have a prefix; give the code objects the names that real ones have.
    for cls in (FeatureTable, Partition):
        for method in [m for m in vars(cls).values() if callable(m)]:
            name = f"{cls.__name__}.{method.__name__}"
            method.__code__ = method.__code__.replace(co_qualname=name)
    assert FeatureTable().fold() == "fold"
    assert FeatureTable().vectors() == "look"
    assert Partition().sweep_on() == "sweep"
    assert step_of(here()) == "other"


def test_a_child_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such thing')"]
    with Child("loop", command, tmp_path / "log", None) as child:
        with pytest.raises(BenchError, match="loop ended with 1:\nno such thing"):
            child.wait(20)
        with pytest.raises(BenchError, match="loop ended with 1"):
            await_that(lambda: False, 20, child)


def test_waiting_has_an_end(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with Child("loop", command, tmp_path / "log", None) as child:
        with pytest.raises(BenchError, match="waiting for loop"):
            await_that(lambda: False, 0.05, child)
        with pytest.raises(BenchError, match="did not end"):
            child.wait(0.05)


def test_decoding_is_measured_in_every_way(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("numba", reason="needs the extra segstream[fast]")
    results = tmp_path / "decode.md"
    monkeypatch.setattr(decode_bench, "RESULTS", results)
    assert decode_bench.main(["--json", "--events", "2500", "--rounds", "2"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    ways = {"plain", "compiled", "msgspec, to Track", "msgspec, skipping"}
    assert report["events"] == 2_500
    assert report["microseconds"].keys() == report["rounds"].keys() == ways
    assert all(len(costs) == 2 and min(costs) > 0 for costs in report["rounds"].values())
    text = results.read_text()
    assert text.startswith(f"{decode_bench.HEADER}\n## ")
    assert text.count("\n| ") == 1 + len(ways)
    assert decode_bench.main(["--no-append", "--events", "100", "--rounds", "1"]) == 0
    assert results.read_text() == text


def test_decoding_that_differs_ends_the_benchmark() -> None:
    [one], [other] = decode_bench.messages_of(10), decode_bench.messages_of(11)
    decoder = Decoder(FeatureTable(DEFAULT_FEATURES), Worker(decoder="plain"))
    decode_bench.verify(decoder.decode(one), decoder.decode(one))
    with pytest.raises(SystemExit, match="differ in kind"):
        decode_bench.verify(decoder.decode(one), decoder.decode(other))


def test_without_numba_there_is_nothing_to_compare(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "consumers.compiled", None)
    assert decode_bench.main(["--no-append", "--events", "100"]) == 1
    assert "segstream[fast]" in capsys.readouterr().err


@pytest.mark.servers
@pytest.mark.slow
def test_a_small_benchmark_runs_to_its_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if why := why_unavailable():
        unavailable(why)
    results = tmp_path / "pipeline.md"
    monkeypatch.setattr(bench, "RESULTS", results)
    small = "--json --events 60000 --rounds 1 --users 5000 --latency-rounds 1"
    more = "--latency-seconds 2 --latency-warmup 2 --latency-rate 2000 --heap 512m"
    assert bench.main([*small.split(), *more.split()]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(WANTED) <= set(report)
    assert report["events"] == report["rounds"][0]["worker"]["events_applied"] == 60_000
    assert report["rounds"][0]["worker"]["changes"] > 0
    assert report["ceiling_ratio"] > 0
    assert report["latency_changes"] > 0
    assert report["time_split"]["decode"] > 0
    assert sum(report["time_split"].values()) == pytest.approx(1.0, abs=0.1)
    assert results.read_text().startswith(HEADER)
    assert str(ROOT) not in results.read_text()
