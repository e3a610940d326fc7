"""A history is folded to the same end however often, and by however many, it is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.kafka.server import RealKafka
from tests import harness
from tests.harness import SPRING, Reference

pytestmark = [pytest.mark.servers, pytest.mark.slow]


def test_one_worker_and_four_come_to_the_same(
    spring: Reference, kafka: RealKafka, redis_url: str, online_retail: Path, tmp_path: Path
) -> None:
    again = harness.fresh_history(kafka.bootstrap, online_retail.name, "online_retail", SPRING)
    assert again.inputs != spring.history.inputs
    with harness.pipeline_on(again, redis_url, tmp_path) as pipeline:
        pipeline.start(*["activity"] * 4, "trainer", "publisher")
        pipeline.finish(again.last_mark_ms)
        found = pipeline.outcome()
        harness.assert_clean(pipeline.audit())
        owners = [sum("taken over" in line for line in role.said().splitlines())
                  for role in pipeline.roles if role.name == "activity"]  # fmt: skip

    assert sum(count > 0 for count in owners) > 1, "the work was not shared"
    assert spring.outcome.differences(found) == []
    # Said once more without the helper, because it is the promise.
    assert found.users == spring.outcome.users
    assert found.models == spring.outcome.models
    assert found.changes == spring.outcome.changes
    assert len(found.users) > 2_000
    assert len(found.models) > 50
    assert len(found.changes) > 5_000
