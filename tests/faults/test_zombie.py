"""A worker frozen past its session and thawed after the takeover is fenced and writes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.kafka.server import RealKafka
from tests import harness
from tests.harness import SPRING, Pipeline, Reference

pytestmark = [pytest.mark.servers, pytest.mark.slow]


def test_a_zombie_is_fenced(
    spring: Reference,
    online_retail: Path,
    own_kafka: RealKafka,
    redis_url: str,
    tmp_path: Path,
) -> None:
    partitions = range(spring.settings.topics.partitions)
    history = spring.history
    own_kafka.start()
    settings = harness.watermark_settings(own_kafka.bootstrap, redis_url)
    with Pipeline(settings, tmp_path) as pipeline:
        pipeline.create_topics()
        pipeline.replay(online_retail, "online_retail", SPRING)
        zombie, trainer, _ = pipeline.start("activity", "trainer", "publisher")
        pipeline.wait_for_mark(history.mark(0.2))
        # Everybody now stands at a mark and waits for its round, the zombie with the events
        # behind it already read: it will want to go on the moment it wakes up.
        trainer.freeze()
        pipeline.wait("a common mark", lambda: len(set(marks(pipeline))) == 1)
        before = [pipeline.token(p) for p in partitions]
        zombie.freeze()

        (heir,) = pipeline.start("activity")
        pipeline.wait(
            "the takeover",
            lambda: all(pipeline.token(p) != before[p] for p in partitions),
        )
        trainer.thaw()
        pipeline.wait_for_mark(history.mark(0.3))

        # While the broker holds its breath nobody can tell the zombie that it has lost its
        # partitions. Only the store stands between it and them.
        own_kafka.pause()
        zombie.thaw()
        pipeline.wait("the fence", lambda: zombie.said().count("fenced") >= len(partitions))
        assert all(pipeline.token(p) != before[p] for p in partitions)
        own_kafka.resume()
        assert pipeline.mark() < history.last_mark_ms, "it woke up too late to matter"

        pipeline.finish(history.last_mark_ms)
        assert "Traceback" not in zombie.said()
        assert "diverged" not in heir.said()
        harness.assert_clean(pipeline.audit())
        assert spring.outcome.differences(pipeline.outcome()) == []


def marks(pipeline: Pipeline) -> list[int]:
    return [0 if p is None else p.mark_ms for p in pipeline.positions()]
