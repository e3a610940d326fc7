"""A worker frozen past its session and thawed after the takeover is fenced and writes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import harness
from tests.harness import Pipeline, Reference

pytestmark = [pytest.mark.servers, pytest.mark.slow]


def test_a_zombie_is_fenced(spring: Reference, redis_url: str, tmp_path: Path) -> None:
    partitions = range(spring.settings.topics.partitions)
    with harness.pipeline_on(spring.history, redis_url, tmp_path) as pipeline:
        zombie, trainer, _ = pipeline.start("activity", "trainer", "publisher")
        pipeline.wait_for_mark(spring.history.mark(0.2))
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
        pipeline.wait_for_mark(spring.history.mark(0.3))
        zombie.thaw()
        # Whichever comes first: its commit is refused, or its group tells it what it has lost.
        pipeline.wait("the fence", lambda: "fenced" in zombie.said() or lost(zombie.said()))
        assert pipeline.mark() < spring.history.last_mark_ms, "it woke up too late to matter"

        pipeline.finish(spring.history.last_mark_ms)
        # Tokens are drawn anew at every takeover: under its old ones the zombie wrote nothing,
        # or a commit of somebody else would have been refused, and the fold be another.
        assert all(pipeline.token(p) != before[p] for p in partitions)
        assert "diverged" not in heir.said()
        harness.assert_clean(pipeline.audit())
        assert spring.outcome.differences(pipeline.outcome()) == []


def marks(pipeline: Pipeline) -> list[int]:
    return [0 if p is None else p.mark_ms for p in pipeline.positions()]


def lost(said: str) -> bool:
    """Whether a worker has joined again: it took partitions over after those of its start."""
    return said.count("taken over") > 4
