"""Lag is 0 when caught up and grows whenever something stands still: here a clock, there servers."""

from __future__ import annotations

import json
import secrets
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from consumers import activity
from consumers.lag import QUESTIONS, EndsWatch, LagMeter
from ops.kafka.server import RealKafka
from producers.client import producer_options
from stream import metrics
from stream.config import Settings
from stream.servers import LocalStore, free_port
from stream.store.state import Answer, StoreUnavailableError
from tests.conftest import SettingsFor
from tests.consumers.scene import INPUTS, Scene, events, write
from tests.fakes import Clock
from tests.harness import Pipeline
from tests.strategies import START_MS, encoded

CLICKS, BUYS = INPUTS


class Bench:
    """A meter with one partition, and a broker that answers when it is told to."""

    def __init__(self, committed: int = 10) -> None:
        self.clock = Clock()
        self.meter = LagMeter(INPUTS, self.clock.wall_ms)
        self.meter.watch(0, [committed, 0])
        self.end = committed

    def ask(self) -> None:
        """A second passes, and the broker is asked where the topics end."""
        self.clock.advance(1.0)
        self.meter.ends(self.clock.wall_ms(), {(CLICKS, 0): self.end, (BUYS, 0): 0})

    def librdkafka(self, next_offset: int, queued: int = 0, *, high: int = 0) -> None:
        """The consumer's statistics arrive, as of now."""
        told = {"hi_offset": high, "next_offset": next_offset, "fetchq_cnt": queued}
        text = {
            "time": int(self.clock.time()),
            "topics": {CLICKS: {"partitions": {"0": told, "-1": {}}}},
        }
        self.meter.statistics(json.dumps(text))

    @property
    def seconds(self) -> float:
        (lag,) = self.meter.lags()
        return lag.seconds

    @property
    def records(self) -> int:
        (lag,) = self.meter.lags()
        return lag.records[CLICKS]


def test_whoever_is_caught_up_has_no_lag() -> None:
    bench = Bench()
    for _ in range(100):
        bench.ask()
        assert (bench.seconds, bench.records) == (0.0, 0)
        bench.clock.advance(0.9)
        assert bench.seconds == 0.0


def test_what_is_on_the_topic_and_not_read_is_lag_that_grows() -> None:
    bench = Bench()
    bench.ask()
    bench.end += 7
    for passed in range(1, 60):
        bench.ask()
        assert bench.records == 7
        assert bench.seconds == pytest.approx(passed, abs=0.01)
    bench.meter.committed(0, [15, 0])
    assert bench.records == 2
    assert bench.seconds == pytest.approx(59, abs=0.01), "nothing proves that the rest is younger"
    bench.meter.committed(0, [17, 0])
    assert (bench.seconds, bench.records) == (0.0, 0)


def test_a_broker_that_falls_silent_makes_the_lag_grow_from_its_last_word() -> None:
    bench = Bench()
    bench.ask()
    bench.clock.advance(2.9)
    assert bench.seconds == 0.0, "an answer may be late"
    bench.clock.advance(27.1)
    assert bench.seconds == pytest.approx(30, abs=0.01)
    bench.ask()
    assert bench.seconds == 0.0


def test_a_commit_that_is_stuck_makes_the_lag_grow_from_its_oldest_record() -> None:
    bench = Bench()
    bench.ask()
    bench.meter.taken(0, 0, bench.clock.wall_ms() - 200)
    bench.meter.taken(0, 0, bench.clock.wall_ms() - 100)
    assert bench.seconds == 0.0, "it was all there was, and is younger than the last question"
    bench.clock.advance(50)
    bench.meter.taken(0, 0, bench.clock.wall_ms())
    assert bench.seconds == pytest.approx(50, abs=0.01)
    bench.meter.committed(0, [12, 0])
    bench.end = 12
    bench.ask()
    assert bench.seconds == 0.0


def test_a_backlog_is_as_old_as_its_oldest_record() -> None:
    """Just taken over: nobody ever saw it caught up, but records tell their age."""
    bench = Bench()
    bench.end = 5_000
    bench.ask()
    assert bench.seconds == pytest.approx(1, abs=0.01), "since it was taken over"
    bench.meter.taken(0, 0, bench.clock.wall_ms() - 3_600_000)
    assert bench.seconds == pytest.approx(3_600, abs=0.01)
    bench.meter.committed(0, [4_000, 0])
    bench.meter.taken(0, 0, bench.clock.wall_ms() - 60_000)
    assert bench.seconds == pytest.approx(60, abs=0.01)
    bench.meter.committed(0, [5_000, 0])
    assert bench.seconds == 0.0


def test_history_is_not_older_than_its_arrival() -> None:
    bench = Bench()
    bench.ask()
    bench.end += 100
    bench.ask()
    bench.meter.taken(0, 0, START_MS)
    assert bench.seconds == pytest.approx(1, abs=0.01)


def test_a_timestamp_of_the_future_does_not_hide_that_a_commit_is_stuck() -> None:
    bench = Bench()
    bench.ask()
    bench.meter.taken(0, 0, bench.clock.wall_ms() + 3_600_000)
    bench.clock.advance(40)
    assert bench.seconds == pytest.approx(40, abs=0.01)


def test_one_topic_that_is_not_read_is_seen_behind_the_other() -> None:
    bench = Bench()
    bench.ask()
    for _ in range(30):
        bench.clock.advance(1)
        bench.end += 5
        bench.meter.ends(bench.clock.wall_ms(), {(CLICKS, 0): bench.end, (BUYS, 0): 3})
        bench.meter.committed(0, [bench.end, 0])
    assert bench.seconds == pytest.approx(30, abs=0.01)


def test_who_keeps_up_under_traffic_is_never_far_behind() -> None:
    bench = Bench()
    for _ in range(500):
        bench.end += 1_000
        bench.ask()
        bench.meter.taken(0, 0, bench.clock.wall_ms() - 40)
        assert bench.seconds <= 0.05 or not bench.meter._sources[0][0].known
        bench.meter.committed(0, [bench.end - 5, 0])
    bench.clock.advance(0.5)
    assert bench.seconds == pytest.approx(1.5, abs=0.01), "one question and a half ago"


def test_after_hours_behind_the_answer_is_still_near_the_truth() -> None:
    bench = Bench()
    bench.ask()
    hours = 4 * 3_600
    for _ in range(hours):
        bench.end += 1
        bench.ask()
    for caught_up in (0.25, 0.5, 0.9):
        bench.meter.committed(0, [10 + int(hours * caught_up), 0])
        truth = hours * (1 - caught_up)
        assert truth - 1 <= bench.seconds <= truth + 4 * hours / QUESTIONS


def test_marks_that_end_transactions_are_no_records() -> None:
    bench = Bench()
    bench.ask()
    bench.end += 1
    for _ in range(5):
        bench.ask()
    assert (bench.records, bench.seconds > 3) == (1, True)
    bench.librdkafka(next_offset=11, queued=1)
    bench.meter.read(0, [10, 0])
    assert bench.records == 1, "what is queued is not handed over"
    bench.librdkafka(next_offset=11)
    bench.meter.read(0, [11, 0])
    assert bench.records == 1, "a record was read, and is not committed"
    bench.librdkafka(next_offset=11)
    bench.meter.read(0, [10, 0])
    assert (bench.seconds, bench.records) == (0.0, 0)
    bench.meter.committed(0, [10, 0])
    assert bench.records == 0, "a commit does not take back what was passed"


def test_statistics_from_before_the_take_over_prove_nothing() -> None:
    bench = Bench()
    bench.end = 500
    bench.librdkafka(next_offset=500)
    bench.meter.read(0, [10, 0])
    bench.ask()
    assert bench.records == 490


def test_the_consumer_may_know_of_more_than_the_broker_says() -> None:
    """The local broker's answer to a question is behind what it hands over."""
    bench = Bench()
    bench.ask()
    bench.librdkafka(next_offset=10, high=60)
    assert bench.records == 50
    bench.meter.statistics("no statistics")
    assert bench.records == 50


def test_a_partition_that_somebody_else_commits_is_followed() -> None:
    bench = Bench()
    bench.meter.forget(0)
    assert list(bench.meter.lags()) == []
    bench.meter.stranded(0, [10, 0])
    bench.end = 30
    for _ in range(10):
        bench.ask()
    assert bench.records == 20
    assert bench.seconds == pytest.approx(10, abs=0.01)
    bench.meter.stranded(0, [30, 0])
    assert (bench.seconds, bench.records) == (0.0, 0)


def test_who_is_ended_by_an_outage_leaves_a_lag_that_grows() -> None:
    bench = Bench()
    bench.ask()
    bench.meter.leave_behind()
    bench.meter.forget(0)
    bench.clock.advance(100)
    assert bench.seconds == pytest.approx(100, abs=0.01)


class Brokers:
    """Answers, fails or gives half an answer, in turn."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[list[TopicPartition]] = []

    def offsets_for_times(
        self, partitions: list[TopicPartition], timeout: float = 0.0
    ) -> list[TopicPartition]:
        assert timeout <= 1.0
        self.asked.append(partitions)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return [TopicPartition(p.topic, p.partition, answer) for p in partitions]


def test_only_an_answer_counts() -> None:
    bench = Bench()
    brokers = Brokers(10, KafkaException(KafkaError(KafkaError._TIMED_OUT)), -1, 10)
    watch = EndsWatch(brokers, bench.meter, bench.clock.wall_ms)
    lags = []
    for _ in range(4):
        watch.ask()
        bench.meter.committed(0, [10, 10])
        lags.append(bench.seconds)
        bench.clock.advance(4)
    assert lags == [0.0, pytest.approx(4, abs=0.01), pytest.approx(8, abs=0.01), 0.0]
    bench.meter.forget(0)
    watch.ask()
    assert len(brokers.asked) == 4, "who owns nothing asks nothing"


# -- the worker ----------------------------------------------------------------------------------


class Watched:
    """A scene whose broker is asked at every turn, instead of once a second on a thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **more: Any) -> None:
        self.watches: list[EndsWatch] = []
        self.silent = False

        def watch(*arguments: Any) -> EndsWatch:
            made = EndsWatch(*arguments)
            monkeypatch.setattr(made, "start", lambda: None)
            self.watches.append(made)
            return made

        monkeypatch.setattr(activity, "EndsWatch", watch)
        self.scene = Scene(monkeypatch, **more)
        self.seen: list[tuple[float, float, float]] = []

    def turn(self) -> None:
        if not self.silent:
            self.watches[-1].ask()
        told = metrics.REGISTRY.get_sample_value
        seconds = told("segstream_lag_seconds", {"partition": "0"})
        records = told("segstream_lag_records", {"topic": CLICKS, "partition": "0"})
        if seconds is not None and records is not None:
            self.seen.append((self.scene.clock.seconds, seconds, records))


@pytest.mark.parametrize("mode", ["live", "watermark"])
def test_a_worker_that_has_read_everything_has_no_lag(
    monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    watched = Watched(monkeypatch, mode=mode, clock={"mode": mode, "idle_seconds": 0.1})
    write(watched.scene, events(1)[:200])
    watched.scene.consumer.portion = 2
    watched.scene.run(watched.turn)
    assert max(records for _, _, records in watched.seen) > 0
    assert watched.seen[-1][1:] == (0.0, 0)
    assert metrics.REGISTRY.get_sample_value("segstream_lag_seconds", {"partition": "0"}) is None


def test_a_partition_that_is_owned_and_not_read_lags(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    scene = watched.scene

    def pause() -> None:
        scene.consumer.paused.add((CLICKS, 0))
        write(scene, [(START_MS, CLICKS, 0, encoded())] * 9)

    idle: list[object] = [lambda: None] * 40
    scene.consumer.then(scene.consumer.give((CLICKS, 0), (BUYS, 0)), *idle, pause)  # type: ignore[arg-type]
    scene.run(watched.turn, until=lambda: len(watched.seen) > 150, idle=10_000)
    began = next(n for n, (_, _, records) in enumerate(watched.seen) if records)
    assert watched.seen[began - 1][1] == 0.0
    (then, first, nine), (now, last, still) = watched.seen[began], watched.seen[-1]
    assert (nine, still) == (9, 9)
    assert last - first == pytest.approx(now - then, abs=0.01)
    assert last > 1


def test_a_fenced_worker_shows_how_far_the_partition_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another owner holds the token; the group still says that the partition is ours."""
    watched = Watched(monkeypatch, broker={"session_timeout_seconds": 60.0})
    scene = watched.scene
    write(scene, events(1)[:200])
    ours = len(scene.consumer.log[CLICKS, 0])
    scene.store.trouble.extend([Answer.FENCED] * 10_000)
    scene.run(watched.turn, until=lambda: len(watched.seen) > 400, idle=10_000)
    (_, seconds, records) = watched.seen[-1]
    assert records == ours
    assert seconds > 1


def test_an_outage_that_ends_a_worker_does_not_end_its_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch, store_section={"commit_deadline_seconds": 0.2})
    scene = watched.scene
    write(scene, events(1)[:200])
    scene.store.trouble.extend(["down"] * 10_000)
    with pytest.raises(StoreUnavailableError):
        scene.run(watched.turn, idle=10_000)

    def told() -> float | None:
        return metrics.REGISTRY.get_sample_value("segstream_lag_seconds", {"partition": "0"})

    left = told()
    assert left is not None
    scene.clock.advance(60)
    assert told() == pytest.approx(left + 60, abs=0.01)
    scene.store.trouble.clear()
    scene.run(watched.turn)
    assert told() is None, "it ended as it should"
    assert watched.seen[-1][1:] == (0.0, 0)


# -- servers -------------------------------------------------------------------------------------


def scrape(port: int, name: str) -> dict[tuple[str, ...], float]:
    """A metric's series, by the values of their labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        tuple(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


@pytest.mark.servers
def test_lag_of_a_worker_on_real_servers(settings_for: SettingsFor, tmp_path: Path) -> None:
    """0 when caught up; growing while the store, or the broker, stands still."""
    port = free_port()
    with RealKafka() as kafka, LocalStore(appendonly=True) as store:
        settings = settings_for(
            kafka.bootstrap,
            store.url,
            # Long enough for the worker to give up and begin again.
            store={"timeout_seconds": 1.0, "commit_deadline_seconds": 2.0},
            metrics={"port": port},
            publisher={"lease_seconds": 1.0},
        )
        with Pipeline(settings, tmp_path) as pipeline:
            pipeline.create_topics()
            (worker,) = pipeline.start("activity")
            partitions = settings.topics.partitions

            def lag() -> float:
                try:
                    found = scrape(port, "segstream_lag_seconds")
                except OSError:
                    return -1.0
                return max(found.values()) if len(found) == partitions else -1.0

            def records() -> float:
                return sum(scrape(port, "segstream_lag_records").values())

            def caught_up() -> bool:
                return lag() == 0.0 and records() == 0.0

            pipeline.wait("no lag before anything came", caught_up)
            produce(settings, 40)
            pipeline.wait("everything is committed", lambda: applied(pipeline) == 40)
            pipeline.wait("no lag", caught_up)
            assert len(scrape(port, "segstream_lag_records")) == 2 * partitions

            # What ends a transaction has an offset, and is no record: nobody waits for it.
            transact(settings)
            pipeline.wait("the transaction is committed", lambda: applied(pipeline) == 41)
            pipeline.wait("no lag", caught_up)

            store.pause()
            produce(settings, 40)
            pipeline.wait("lag, the store paused", lambda: lag() > 1.0 and records() >= 40.0)
            pipeline.wait("it gives up", lambda: worker.said().count("trying again") > 1)
            before = lag()
            pipeline.wait("lag all the same", lambda: lag() > before + 2.0)
            store.resume()
            pipeline.wait("no lag", caught_up)

            kafka.pause()
            pipeline.wait("lag, the broker paused", lambda: lag() > 4.0)
            kafka.resume()
            pipeline.wait("no lag", caught_up)
            assert applied(pipeline) == 81


def applied(pipeline: Pipeline) -> int:
    return sum(0 if p is None else p.counts.applied for p in pipeline.positions())


def produce(settings: Settings, clicks: int) -> None:
    producer = Producer(producer_options(settings.broker))
    for number in range(clicks):
        producer.produce(settings.topics.clickstream, click(number), f"user {number}".encode())
    assert producer.flush(30) == 0


def transact(settings: Settings) -> None:
    """One click in a transaction, and one in a transaction that is given up."""
    options = producer_options(settings.broker, deliver_seconds=30)
    producer = Producer(options | {"transactional.id": settings.broker.group})
    producer.init_transactions(30)
    for end in (producer.commit_transaction, producer.abort_transaction):
        producer.begin_transaction()
        producer.produce(settings.topics.clickstream, click(0), b"user 0")
        assert producer.flush(30) == 0
        end(30)


def click(number: int) -> bytes:
    now = time.time_ns() // 1_000_000
    return encoded(time_ms=now, userId=f"user {number}", messageId=secrets.token_hex(8))
