"""Broker and store away, at the start and while running: a clear word, and on by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from consumers.client import reader_options
from ops.kafka.server import RealKafka
from producers import topics as topic_plans
from stream.servers import LocalStore
from tests import harness
from tests.harness import SPRING, Pipeline, Reference, Sections

pytestmark = [pytest.mark.servers, pytest.mark.slow]

IMPATIENT: Sections = {"store": {"timeout_seconds": 1.0}}


def test_outages_pass_by_themselves(
    spring: Reference,
    online_retail: Path,
    own_kafka: RealKafka,
    own_store: LocalStore,
    tmp_path: Path,
) -> None:
    """One history through all of them, by the same processes from beginning to end."""
    history = spring.history
    settings = harness.watermark_settings(own_kafka.bootstrap, own_store.url, IMPATIENT)
    with Pipeline(settings, tmp_path) as pipeline:
        worker, trainer, publisher = roles = pipeline.start("activity", "trainer", "publisher")

        # Neither is there at the start. Each role says so in a line, and tries again.
        pipeline.wait("complaints", lambda: all(role.said("trying again") for role in roles))
        assert "no broker" in worker.said("trying again")
        assert own_kafka.bootstrap in worker.said("trying again")
        assert own_store.address in trainer.said("trying again")
        assert own_store.address in publisher.said("trying again")

        # The broker first: the worker gets as far as the store, and says that.
        own_kafka.start()
        pipeline.create_topics()
        pipeline.wait("the worker misses the store", lambda: own_store.address in worker.said())
        own_store.start()
        pipeline.replay(online_retail, "online_retail", SPRING)

        pipeline.wait_for_mark(history.mark(0.15))
        own_store.restart()
        pipeline.wait_for_mark(history.mark(0.3))
        own_store.restart(kill=True)
        pipeline.wait_for_mark(history.mark(0.45))
        missed = trainer.said().count("trying again")
        own_store.pause()
        pipeline.wait("a time-out", lambda: trainer.said().count("trying again") > missed)
        own_store.resume()
        pipeline.wait_for_mark(history.mark(0.6))
        own_kafka.restart()
        pipeline.wait_for_mark(history.mark(0.75))
        own_kafka.restart(kill=True)

        pipeline.finish(history.last_mark_ms)
        for role in roles:
            assert "Traceback" not in role.said()
        harness.assert_clean(pipeline.audit())
        assert spring.outcome.differences(pipeline.outcome()) == []


@pytest.mark.parametrize("waiting", [False, True], ids=["working", "awaiting a round"])
def test_a_store_that_forgot_everything_stops_the_worker(
    spring: Reference, own_store: LocalStore, tmp_path: Path, waiting: bool
) -> None:
    own_store.start()
    history = spring.history
    with harness.pipeline_on(history, own_store.url, tmp_path) as pipeline:
        worker, trainer, _ = pipeline.start("activity", "trainer", "publisher")
        pipeline.wait_for_mark(history.mark(0.3))
        # What was served is witnessed by group offsets, written once a second.
        pipeline.wait("a witness", lambda: witnessed(pipeline))
        if waiting:
            trainer.freeze()
            pipeline.wait(
                "a common mark", lambda: len({p and p.mark_ms for p in pipeline.positions()}) == 1
            )
        pipeline.store._client.flushall()
        trainer.thaw()

        assert worker.exit_code() == 1
        assert "no state in the store" in worker.said("segstream:")
        assert "store.accept_loss" in worker.said("segstream:")
        assert "Traceback" not in worker.said()
        assert trainer.running

        # Started again, it finds nothing and says the same instead of beginning anew.
        (again,) = pipeline.start("activity")
        assert again.exit_code() == 1
        assert "store.accept_loss" in again.said("segstream:")
        assert all(position is None for position in pipeline.positions())


def witnessed(pipeline: Pipeline) -> bool:
    """Whether the group has an offset for every partition of the input."""
    settings = pipeline.settings
    consumer = Consumer(reader_options(settings.broker) | {"group.id": settings.broker.group})
    try:
        where = [
            TopicPartition(topic, partition)
            for topic in settings.topics.inputs
            for partition in range(settings.topics.partitions)
        ]
        return all(found.offset >= 0 for found in consumer.committed(where, timeout=10))
    finally:
        consumer.close()


def test_a_missing_topic_is_waited_for(
    own_store: LocalStore, own_kafka: RealKafka, tmp_path: Path
) -> None:
    own_store.start()
    own_kafka.start()
    settings = harness.watermark_settings(own_kafka.bootstrap, own_store.url)
    with Pipeline(settings, tmp_path) as pipeline:
        (worker,) = pipeline.start("activity")
        pipeline.wait("a complaint", lambda: "topics apply" in worker.said())
        assert topic_plans.apply(settings, create=True) == []
        pipeline.wait("its partitions", lambda: worker.said().count("taken over") >= 4)
        assert worker.end() == 0
