"""Holds the time of live mode to what it promises, whatever is done to the wall clock."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.clock import CONFIRM_SECONDS, JUMP_MS, SteadyClock
from stream import metrics
from stream.units import DAY_MS
from tests.strategies import START_MS

HOUR_MS = 3_600_000


class Machine:
    """A wall clock that is set, and one that is not."""

    def __init__(self) -> None:
        self.wall = START_MS
        self.passed = 1_000.0
        self.clock = SteadyClock(lambda: self.wall, lambda: self.passed)

    def wait(self, seconds: float) -> None:
        self.passed += seconds
        self.wall += round(seconds * 1_000)

    def told(self) -> int:
        """Time since the beginning."""
        return self.clock.now_ms() - START_MS


def jump() -> float:
    found = metrics.REGISTRY.get_sample_value("segstream_clock_jump_seconds")
    assert found is not None
    return found


def test_time_is_the_wall_clocks() -> None:
    machine = Machine()
    for seconds in (0.001, 1, 3_600, 86_400):
        machine.wait(seconds)
        assert machine.clock.now_ms() == machine.wall == machine.clock.latest_ms()


@pytest.mark.parametrize("step", [JUMP_MS, 1, -1, -JUMP_MS])
def test_a_small_step_is_followed_at_once_but_never_back(step: int) -> None:
    machine = Machine()
    machine.wait(100)
    assert machine.told() == 100_000
    machine.wall += step
    assert machine.told() == 100_000 + max(step, 0)
    machine.wait(100)
    assert machine.told() == 200_000 + step


@pytest.mark.parametrize("by", [DAY_MS, 2 * HOUR_MS, -2 * HOUR_MS, -400 * DAY_MS])
def test_a_jump_that_is_taken_back_was_none(by: int) -> None:
    machine = Machine()
    machine.wait(100)
    machine.told()
    machine.wall += by
    for _ in range(5):
        machine.wait(60)
        assert machine.clock.now_ms() == machine.wall - by
        assert jump() == pytest.approx(by / 1_000)
    machine.wall -= by
    assert machine.clock.now_ms() == machine.wall
    assert jump() == 0


@pytest.mark.parametrize("by", [DAY_MS, 2 * HOUR_MS])
def test_a_machine_that_slept_is_followed_after_a_while(by: int) -> None:
    machine = Machine()
    machine.told()
    machine.wall += by
    machine.wait(1)
    assert machine.told() == 1_000
    assert machine.clock.latest_ms() == machine.wall, "what was written meanwhile is no future"
    machine.wait(CONFIRM_SECONDS)
    assert machine.clock.now_ms() == machine.wall
    assert jump() == 0


def test_a_clock_that_stays_back_is_waited_for() -> None:
    machine = Machine()
    machine.wait(100)
    machine.told()
    machine.wall -= 2 * HOUR_MS
    machine.wait(1)
    assert machine.told() == 101_000
    machine.wait(CONFIRM_SECONDS)
    assert machine.told() == 101_000
    machine.wait(3_600)
    assert machine.told() == 101_000
    assert machine.clock.latest_ms() == START_MS + 101_000
    machine.wait(2 * 3_600)
    assert machine.clock.now_ms() == machine.wall


def test_a_second_jump_is_confirmed_anew() -> None:
    machine = Machine()
    machine.told()
    machine.wall += DAY_MS
    machine.wait(CONFIRM_SECONDS - 1)
    machine.told()
    machine.wall += DAY_MS
    machine.wait(2)
    assert machine.told() == (CONFIRM_SECONDS + 1) * 1_000
    machine.wait(CONFIRM_SECONDS)
    assert machine.clock.now_ms() == machine.wall


@given(st.lists(st.tuples(st.floats(0, 2_000), st.integers(-2 * DAY_MS, 2 * DAY_MS)), max_size=30))
def test_it_never_goes_back(steps: list[tuple[float, int]]) -> None:
    machine = Machine()
    told = [machine.clock.now_ms()]
    for seconds, step in steps:
        machine.wait(seconds)
        machine.wall += step
        told.append(machine.clock.now_ms())
        assert machine.clock.latest_ms() >= max(machine.wall, told[-1])
    assert all(a <= b for a, b in pairwise(told))
