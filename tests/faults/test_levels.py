"""Levels through kill -9, a takeover and four workers: the same crossings, which an audit finds anew from the log."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from consumers.audit.report import AuditReport
from ops.kafka.server import RealKafka
from stream.levels.declare import USUAL_LEVELS, Level, Step
from tests import harness
from tests.harness import SPRING, History, Outcome, Sections

pytestmark = [pytest.mark.servers, pytest.mark.slow]

ODD = Level(
    name="oddness",
    of="unusual",
    slack=0.005,
    steps=(Step(name="unusual", least=0.98), Step(name="usual")),
)
LEVELS: Sections = {"levels": (*USUAL_LEVELS, ODD)}
"""Of features, of scores with rules, of shares of customers, and of how unusual somebody is."""
KILLS = 6


class Undisturbed(NamedTuple):
    """What one worker came to that nobody disturbed."""

    history: History
    outcome: Outcome


@pytest.fixture(scope="module")
def undisturbed(
    kafka: RealKafka, redis_url: str, online_retail: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Undisturbed]:
    found = harness.history(kafka.bootstrap, online_retail.name, "online_retail", SPRING)
    directory = tmp_path_factory.mktemp("levels")
    with harness.pipeline_on(found, redis_url, directory, LEVELS) as pipeline:
        pipeline.start("activity", "trainer", "publisher")
        pipeline.finish(found.last_mark_ms)
        assert_levels_are_judged(pipeline.audit())
        yield Undisturbed(found, pipeline.outcome())


def assert_levels_are_judged(report: AuditReport) -> None:
    harness.assert_clean(report)
    (levels,) = (check for check in report.checks if check.name == "levels_follow_the_log")
    assert levels.counted > 2_000, "everybody has to be judged for something to be found"


def test_the_history_takes_customers_over_limits_of_every_level(undisturbed: Undisturbed) -> None:
    """Or the tests below would hold nothing."""
    told = undisturbed.outcome.crossings
    assert {one["level"] for one in told} == {one.name for one in LEVELS["levels"]}
    causes = Counter(one["cause"] for one in told)
    assert min(causes[cause] for cause in ("user_moved", "time_passed", "model_moved")) > 20
    assert any(row["levels"].strip(b"\0") for row in undisturbed.outcome.users.values())


def test_killed_owners_and_a_takeover_tell_no_crossing_twice_and_lose_none(
    undisturbed: Undisturbed, redis_url: str, tmp_path: Path
) -> None:
    history, chance = undisturbed.history, random.Random(1_407)
    # From the first scores on, which is when most levels begin.
    moments = sorted(chance.uniform(0.3, 0.9) for _ in range(KILLS))
    with harness.pipeline_on(history, redis_url, tmp_path, LEVELS) as pipeline:
        owner, trainer, _ = pipeline.start("activity", "trainer", "publisher")
        for number, moment in enumerate(moments):
            pipeline.wait_for_mark(history.mark(moment))
            time.sleep(chance.uniform(0, 0.05))  # where it hits is the test
            if number % 3 == 2:
                trainer.kill()
                (trainer,) = pipeline.start("trainer")
            elif number == 0:
                # Another one takes over, and this one does not come back.
                (heir,) = pipeline.start("activity")
                owner.kill()
                owner = heir
            else:
                owner.kill()
                (owner,) = pipeline.start("activity")
        assert pipeline.mark() < history.last_mark_ms, "the last kill came too late"
        pipeline.finish(history.last_mark_ms)
        assert_levels_are_judged(pipeline.audit())
        assert undisturbed.outcome.differences(pipeline.outcome()) == []


def test_four_workers_and_another_replay_come_to_the_same_levels(
    undisturbed: Undisturbed,
    kafka: RealKafka,
    redis_url: str,
    online_retail: Path,
    tmp_path: Path,
) -> None:
    again = harness.fresh_history(kafka.bootstrap, online_retail.name, "online_retail", SPRING)
    with harness.pipeline_on(again, redis_url, tmp_path, LEVELS) as pipeline:
        pipeline.start(*["activity"] * 4, "trainer", "publisher")
        pipeline.finish(again.last_mark_ms)
        assert_levels_are_judged(pipeline.audit())
        found = pipeline.outcome()
    assert undisturbed.outcome.differences(found) == []
    assert found.crossings == undisturbed.outcome.crossings
