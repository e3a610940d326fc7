"""`ops/chaos/plan.py`: a seed is a plan, and nothing that can go wrong is left out."""

from __future__ import annotations

import pytest

from ops.chaos.plan import (
    ANEW_SECONDS,
    CALM_SECONDS,
    LEAST_SECONDS,
    ROLES,
    SHAPES,
    WARM_UP_SECONDS,
    Kind,
    make_plan,
)


def test_a_seed_is_a_plan() -> None:
    assert make_plan(7, 300.0) == make_plan(7, 300.0)
    assert make_plan(7, 300.0) != make_plan(8, 300.0)


def test_a_longer_plan_begins_like_a_shorter_one() -> None:
    short, long = make_plan(3, 60.0), make_plan(3, 600.0)
    assert long[: len(short)] == short
    assert len(long) > len(short)


@pytest.mark.parametrize("seed", range(1, 11))
def test_in_ten_minutes_everything_happens(seed: int) -> None:
    plan = make_plan(seed, 600.0)
    assert {fault.kind for fault in plan} == set(Kind)
    assert any(fault.killed for fault in plan)


@pytest.mark.parametrize("seed", range(5))
def test_faults_keep_to_their_shapes_and_to_the_time(seed: int) -> None:
    plan = make_plan(seed, 600.0)
    for fault in plan:
        shape = SHAPES[fault.kind]
        assert fault.target in shape.targets
        assert shape.seconds[0] <= fault.seconds <= shape.seconds[1]
        assert fault.amount <= shape.amount[1]
        if not fault.kind.startswith("put_back"):
            assert fault.amount >= shape.amount[0]
        assert fault.killed in ("", *ROLES)
        assert fault.killed != fault.target
        assert WARM_UP_SECONDS <= fault.at_seconds < 600.0 - CALM_SECONDS
    ends = [fault.at_seconds + fault.seconds for fault in plan]
    assert all(after.at_seconds > end for end, after in zip(ends, plan[1:], strict=False))


@pytest.mark.parametrize("seed", range(5))
def test_no_copy_is_older_than_the_time_since_the_last_was_put_back(seed: int) -> None:
    kinds = (Kind.PUT_BACK, Kind.PUT_BACK_UNACKNOWLEDGED, Kind.KILL_ROLE)
    put_back = [f for f in make_plan(seed, 300.0, kinds) if f.kind is not Kind.KILL_ROLE]
    assert len(put_back) > 10
    last = 0.0
    for fault in put_back:
        assert 0.0 < fault.amount <= fault.at_seconds - last + 0.02
        last = fault.at_seconds


@pytest.mark.parametrize("seed", range(5))
def test_what_was_before_a_total_loss_is_not_put_back(seed: int) -> None:
    lost = -1_000.0
    for fault in make_plan(seed, 600.0, (Kind.PUT_BACK, Kind.LOSE_EVERYTHING, Kind.FREEZE_ROLE)):
        if fault.kind is Kind.LOSE_EVERYTHING:
            lost = fault.at_seconds
        elif fault.kind is Kind.PUT_BACK:
            assert fault.amount <= max(fault.at_seconds - lost - ANEW_SECONDS, LEAST_SECONDS) + 0.02


def test_only_the_wanted_kinds_come_each_before_any_again() -> None:
    wanted = (Kind.KILL_ROLE, Kind.LOSE_SECOND, Kind.CUT)
    kinds = [fault.kind for fault in make_plan(1, 120.0, wanted)]
    assert len(kinds) >= 2 * len(wanted)
    for start in range(0, len(kinds) - len(wanted) + 1, len(wanted)):
        assert set(kinds[start : start + len(wanted)]) == set(wanted)


def test_every_role_is_hit_in_ten_minutes() -> None:
    hit = {name for fault in make_plan(1, 600.0) for name in (fault.target, fault.killed)}
    assert set(ROLES) <= hit


def test_a_time_too_short_has_no_faults() -> None:
    assert make_plan(1, WARM_UP_SECONDS + CALM_SECONDS) == []
