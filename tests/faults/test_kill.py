"""kill -9 of each role, nine times each, at random moments of a replay: nothing shows."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests import harness
from tests.harness import Reference

pytestmark = [pytest.mark.servers, pytest.mark.slow]

TIMES = 9
LONGEST_STEP_SECONDS = 0.05
"""About what a mark takes, so that a kill may fall anywhere between two."""


@pytest.mark.parametrize("seed", [20_101_201])
def test_a_killed_role_loses_and_doubles_nothing(
    spring: Reference, redis_url: str, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    victims = ["activity", "trainer", "publisher"] * TIMES
    chance.shuffle(victims)
    # Two or three at almost the same time: what they hold up is waited for once.
    moments = sorted(chance.uniform(0.02, 0.95) for _ in range(len(victims) // 2))
    with harness.pipeline_on(spring.history, redis_url, tmp_path) as pipeline:
        running = {role.name: role for role in pipeline.start("activity", "trainer", "publisher")}
        pipeline.start("activity")
        for place, moment in enumerate(moments):
            pipeline.wait_for_mark(spring.history.mark(moment))
            for victim in victims[place :: len(moments)]:
                time.sleep(chance.uniform(0, LONGEST_STEP_SECONDS))  # where it hits is the test
                running[victim].kill()
                (running[victim],) = pipeline.start(victim)
        assert pipeline.mark() < spring.history.last_mark_ms, "the last kill came too late"
        pipeline.finish(spring.history.last_mark_ms)
        harness.assert_clean(pipeline.audit())
        assert spring.outcome.differences(pipeline.outcome()) == []
