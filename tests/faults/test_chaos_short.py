"""A minute of `make chaos`: roll-backs, kills and cuts under live traffic leave nothing to find."""

from __future__ import annotations

import pytest

from ops.chaos.plan import ROLES, Kind, make_plan
from ops.chaos.run import run
from ops.kafka.server import why_unavailable
from stream.servers import redis_binary
from tests.conftest import unavailable

pytestmark = [pytest.mark.servers, pytest.mark.slow]

SEED, SECONDS, RATE = 4, 40.0, 800.0
KINDS = (
    Kind.LOSE_SECOND,
    Kind.LOSE_SECOND_UNACKNOWLEDGED,
    Kind.PUT_BACK,
    Kind.KILL_ROLE,
    Kind.KILL_STORE,
    Kind.CUT,
)


def test_a_minute_of_chaos_leaves_nothing_to_find() -> None:
    if why := why_unavailable():
        unavailable(why)
    if redis_binary() is None:
        unavailable("needs redis: apt-get install redis-server")
    plan = make_plan(SEED, SECONDS, KINDS)
    assert {fault.kind for fault in plan} == set(KINDS)
    assert sum(fault.target in ROLES or bool(fault.killed) for fault in plan) >= 2

    verdict = run(mode="live", seed=SEED, seconds=SECONDS, rate=RATE, kinds=KINDS)

    found = {check.promise: check.findings[:5] for check in verdict.checks if check.findings}
    assert found == {}, f"kept in {verdict.kept}"
    # It was live, and much was at stake.
    assert verdict.messages > 0.5 * RATE * SECONDS
    assert verdict.changes > 1_000
