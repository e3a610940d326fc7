"""Workers come and go during a replay, in both kinds of group: nothing differs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import harness
from tests.harness import Reference

pytestmark = [pytest.mark.servers, pytest.mark.slow]


@pytest.mark.parametrize(
    ("protocol", "workers"), [("consumer", 2), ("consumer", 4), ("classic", 4)]
)
def test_one_joins_and_one_leaves(
    spring: Reference, redis_url: str, tmp_path: Path, protocol: str, workers: int
) -> None:
    history = spring.history
    group = {"broker": {"group_protocol": protocol}}
    with harness.pipeline_on(history, redis_url, tmp_path, group) as pipeline:
        first, *_ = pipeline.start(*["activity"] * workers, "trainer", "publisher")
        pipeline.wait_for_mark(history.mark(0.1))
        (joined,) = pipeline.start("activity")
        if workers < harness.PARTITIONS:
            pipeline.wait("the newcomer's first partition", lambda: "taken over" in joined.said())
        else:
            pipeline.wait_for_mark(history.mark(0.5))
        assert pipeline.mark() < history.last_mark_ms, "it joined too late to matter"
        assert first.end() == 0
        pipeline.finish(history.last_mark_ms)
        harness.assert_clean(pipeline.audit())
        assert spring.outcome.differences(pipeline.outcome()) == []
