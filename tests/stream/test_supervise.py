"""What passes by itself is waited out; what does not reaches a person."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from threading import Event

import pytest

from stream.errors import BrokerUnavailableError, OffsetOutOfRangeError, TopicMissingError
from stream.health import Health
from stream.metrics import REGISTRY
from stream.store.state import StoreUnavailableError
from stream.supervise import HEALTHY_SECONDS
from stream.supervise import keep_going as supervised
from tests.fakes import Clock


class PatientEvent(Event):
    """A stop event that notes how long it was waited on, and lets nobody wait."""

    def __init__(self, set_after: int | None = None) -> None:
        super().__init__()
        self.waits: list[float] = []
        self._set_after = set_after

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        if self._set_after is not None and len(self.waits) >= self._set_after:
            self.set()
        return self.is_set()


class Work:
    """Fails as scripted, then returns."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = deque(errors)
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1
        if self._errors:
            raise self._errors.popleft()


def keep_going(
    role: str,
    work: Callable[[], None],
    stop: Event,
    health: Health | None = None,
    clock: Clock | None = None,
) -> None:
    """With somebody to be told of its health, and a clock of its own."""
    clock = clock or Clock()
    health = health or Health(clock.monotonic)
    supervised(role, work, stop, health, health.alive(role, 60.0), clock.monotonic)


def test_work_that_ends_is_not_called_again() -> None:
    work, stop = Work(), PatientEvent()
    keep_going("trainer", work, stop)
    assert (work.calls, stop.waits) == (1, [])


def test_what_passes_is_waited_out_with_a_line_a_time(caplog: pytest.LogCaptureFixture) -> None:
    work = Work(
        StoreUnavailableError("the store is loading"),
        BrokerUnavailableError("nobody answers"),
        TopicMissingError("no such topic"),
    )
    stop = PatientEvent()
    with caplog.at_level(logging.WARNING, "stream.supervise"):
        keep_going("activity", work, stop)
    assert work.calls == 4
    assert [record.getMessage().split("; trying again in ")[0] for record in caplog.records] == [
        "activity: the store is loading",
        "activity: nobody answers",
        "activity: no such topic",
    ]


def test_waits_grow_and_stay_within_ten_seconds() -> None:
    work, stop = Work(*[BrokerUnavailableError("away")] * 60), PatientEvent()
    keep_going("publisher", work, stop)
    assert work.calls == 61
    assert len(stop.waits) == 60
    assert all(wait <= 0.5 * 2**turn for turn, wait in enumerate(stop.waits[:4]))
    assert 1.0 < max(stop.waits) <= 10.0


def test_store_and_broker_are_counted_apart() -> None:
    def missed(neighbour: str) -> float:
        labels = {"neighbour": neighbour}
        return REGISTRY.get_sample_value("segstream_unavailable_total", labels) or 0.0

    before = missed("store"), missed("broker")
    keep_going("x", Work(*[StoreUnavailableError("")] * 2, BrokerUnavailableError("")),
               PatientEvent())  # fmt: skip
    assert missed("store") - before[0] == 2
    assert missed("broker") - before[1] == 1


@pytest.mark.parametrize("error", [OffsetOutOfRangeError("gone"), ValueError("bug"), KeyError(1)])
def test_what_does_not_pass_is_raised_at_once(error: Exception) -> None:
    work, stop = Work(StoreUnavailableError("away"), error), PatientEvent()
    with pytest.raises(type(error)) as caught:
        keep_going("activity", work, stop)
    assert caught.value is error
    assert work.calls == 2


def test_told_to_stop_while_waiting_it_stops_without_an_error() -> None:
    work, stop = Work(*[StoreUnavailableError("away")] * 100), PatientEvent(set_after=3)
    keep_going("activity", work, stop)
    assert work.calls <= 4


def test_told_to_stop_while_failing_it_does_not_wait() -> None:
    stop = PatientEvent()

    def work() -> None:
        stop.set()
        raise BrokerUnavailableError("away")

    keep_going("activity", work, stop)
    assert stop.waits == []


def test_while_it_waits_it_is_alive_and_not_ready() -> None:
    clock = Clock()
    health = Health(clock.monotonic)
    seen: list[tuple[bool, bool, list[str]]] = []

    class Waiting(PatientEvent):
        def wait(self, timeout: float | None = None) -> bool:
            clock.advance(50.0)
            ready, reasons = health.readiness()
            seen.append((health.liveness()[0], ready, reasons))
            return super().wait(timeout)

    health.ready(True, part="trainer")
    work = Work(*[StoreUnavailableError("the store is loading")] * 4)
    keep_going("trainer", work, Waiting(), health, clock)
    assert seen == [(True, False, ["trainer: the store is loading"])] * 4
    assert health.liveness()[0]


def test_after_work_that_went_well_the_waits_begin_small_again() -> None:
    clock, stop = Clock(), PatientEvent()
    errors = Work(*[BrokerUnavailableError("away")] * 60)

    def work() -> None:
        if errors.calls % 2:
            clock.advance(HEALTHY_SECONDS + 1.0)
        errors()

    keep_going("activity", work, stop, clock=clock)
    assert len(stop.waits) == 60
    assert max(stop.waits) <= 1.0
