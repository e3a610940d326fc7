"""A flood of refusals does what was chosen, seen from outside; what is below the limits does not."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

from consumers.decode import Reject
from consumers.rejects import RejectGuard, TooManyRejectsError
from stream.config import Topics, Worker
from stream.errors import BrokerUnavailableError
from stream.events import Reason
from stream.metrics import REGISTRY
from stream.units import DAY_MS
from tests.consumers.scene import EVERYTHING, Scene, assert_true
from tests.fakes import Clock, FakeMessage, mark_value
from tests.strategies import START_MS, encoded

BAD = b"poison"


def scene_of(
    monkeypatch: pytest.MonkeyPatch, pattern: str, mode: str = "live", **worker: Any
) -> Scene:
    """A worker that stops, and a partition whose clicks are good (g), bad (b) or marks (m)."""
    scene = Scene(monkeypatch, mode=mode, worker={"on_reject_flood": "stop"} | worker)
    day = 0
    for number, sort in enumerate(pattern):
        if sort == "m":
            for topic, partition in EVERYTHING:
                mark = mark_value(START_MS + day * DAY_MS, at=(topic, partition))
                scene.consumer.append(topic, partition, mark, START_MS, key=None)
            day += 1
            continue
        raw = BAD if sort == "b" else encoded(messageId=f"m{number}")
        scene.consumer.append("clickstream", 0, raw, START_MS)
    return scene


def stopped(scene: Scene) -> str:
    with pytest.raises(TooManyRejectsError) as caught:
        scene.run()
    return str(caught.value)


def committed(scene: Scene) -> int:
    position = scene.store.position(0)
    return 0 if position is None else position.offsets[0]


def filed(scene: Scene) -> Counter[int]:
    """Offsets of the messages that have a letter, and how many each has."""
    return Counter(letter.message.offset() for letter in scene.letters.filed)


def bad(pattern: str) -> list[int]:
    """Offsets of the bad ones of a partition's messages."""
    return [place for place, sort in enumerate(pattern) if sort == "b"]


# -- many in a row -------------------------------------------------------------------------------


@pytest.mark.parametrize("portion", [1, 3, 10, 1_000])
def test_a_run_of_refusals_stops_the_worker_before_it_drains_the_topic(
    monkeypatch: pytest.MonkeyPatch, portion: int
) -> None:
    scene = scene_of(monkeypatch, "g" * 20 + "b" * 500 + "g", reject_consecutive_limit=30)
    scene.consumer.portion = portion
    said = stopped(scene)
    assert "messages in a row were refused (worker.reject_consecutive_limit = 30)" in said
    assert "letters are on clickstream.dlq (see `segstream dlq list`)" in said
    assert committed(scene) < 20 + 30
    # Whoever looks finds the letters of what the message is about.
    found = filed(scene)
    assert set(range(20, 50)) <= set(found)
    assert f" {len(found)} not_json" in said
    # Started again, it stops again, and still has not drained the topic.
    stopped(scene)
    stopped(scene)
    assert committed(scene) < 20 + 3 * 30


def test_of_a_poisoned_topic_nothing_at_all_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = scene_of(monkeypatch, "b" * 100, reject_consecutive_limit=30)
    stopped(scene)
    assert committed(scene) == 0
    assert filed(scene) == Counter(range(100))


def test_letters_that_cannot_be_filed_stop_nobody_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = scene_of(monkeypatch, "b" * 100, reject_consecutive_limit=30)
    scene.letters.failures = 1
    with pytest.raises(BrokerUnavailableError):  # which asks to be started again
        scene.run()
    stopped(scene)
    assert filed(scene) == Counter(range(100))


@pytest.mark.parametrize("portion", [1, 7, 1_000])
def test_a_run_just_below_the_limit_does_not_stop(
    monkeypatch: pytest.MonkeyPatch, portion: int
) -> None:
    pattern = ("b" * 29 + "g") * 4
    scene = scene_of(monkeypatch, pattern, reject_consecutive_limit=30, reject_ratio_window=10_000)
    scene.consumer.portion = portion
    scene.run()
    assert committed(scene) == len(pattern)
    assert len(scene.letters.filed) == 4 * 29


def test_a_run_just_at_the_limit_stops_wherever_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    for pattern in ("b" * 30 + "g" * 50, "g" * 50 + "b" * 30, "g" * 25 + "b" * 30 + "g" * 25):
        scene = scene_of(monkeypatch, pattern, reject_consecutive_limit=30)
        assert "30 messages in a row" in stopped(scene)


def test_marks_between_refusals_are_no_good_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = scene_of(monkeypatch, "m" + "bbbm" * 40, mode="watermark", reject_consecutive_limit=30)
    assert "in a row" in stopped(scene)


def test_a_raised_limit_lets_the_worker_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = "g" * 5 + "b" * 60 + "g" * 5
    scene = scene_of(monkeypatch, pattern, reject_consecutive_limit=30)
    stopped(scene)
    log = scene.consumer.log
    for worker in ({"on_reject_flood": "stop", "reject_consecutive_limit": 100}, {}):
        braver = Scene(monkeypatch, store=scene.store, log=log, worker=worker)
        braver.run()
        assert committed(braver) == len(pattern)


# -- a large share -------------------------------------------------------------------------------

_RATIO: dict[str, Any] = {
    "reject_ratio_window": 60,
    "reject_ratio_limit": 0.5,
    "reject_consecutive_limit": 1_000,
}


@pytest.mark.parametrize("portion", [1, 10, 1_000])
def test_a_large_share_of_refusals_stops_the_worker(
    monkeypatch: pytest.MonkeyPatch, portion: int
) -> None:
    scene = scene_of(monkeypatch, "gbb" * 200, **_RATIO)
    scene.consumer.portion = portion
    said = stopped(scene)
    assert "messages were refused (worker.reject_ratio_limit = 0.5)" in said
    assert committed(scene) <= 70
    assert set(bad("gbb" * 20)) <= set(filed(scene))


@pytest.mark.parametrize("portion", [1, 10, 1_000])
def test_a_smaller_share_does_not(monkeypatch: pytest.MonkeyPatch, portion: int) -> None:
    scene = scene_of(monkeypatch, "ggbgb" * 40, **_RATIO)
    scene.consumer.portion = portion
    scene.run()
    assert committed(scene) == 200
    assert len(scene.letters.filed) == 80


def test_a_few_messages_tell_no_share(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = scene_of(monkeypatch, "b" * 40 + "g" * 10, **_RATIO)
    scene.run()
    assert committed(scene) == 50


def test_a_share_that_rises_late_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = scene_of(monkeypatch, "g" * 900 + "gbb" * 200, **_RATIO)
    assert "of the last" in stopped(scene)
    assert committed(scene) < 1_100


# -- going on, with an alert -----------------------------------------------------------------------


def metric(name: str) -> float:
    return REGISTRY.get_sample_value(f"segstream_{name}") or 0.0


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the guard said."""
    return [r.getMessage() for r in caplog.records if r.name == "consumers.rejects"]


@pytest.mark.parametrize("mode", ["live", "watermark"])
def test_a_flood_stops_nobody_by_default(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    pattern = "g" * 20 + "b" * 3_000 + "gb" * 50 + "g" * 500
    marked = pattern if mode == "live" else f"m{pattern}m"
    limits = {"reject_consecutive_limit": 100, "reject_ratio_window": 200}
    scene = scene_of(monkeypatch, marked, mode, on_reject_flood="alert", **limits)
    scene.consumer.portion = 50
    alerts: list[float] = []
    with caplog.at_level(logging.INFO):
        assert_true(scene.run(lambda: alerts.append(metric("reject_alert"))))
    assert filed(scene) == Counter(bad(marked))
    assert 1.0 in alerts
    assert alerts[-1] == 0.0
    first, *_, last = warnings(caplog)
    assert "messages in a row were refused (worker.reject_consecutive_limit = 100)" in first
    assert "not_json" in first
    assert "clickstream.dlq" in first
    assert "going on" in first
    assert last == "refusals are below their limits again"
    assert len(warnings(caplog)) < 8


def test_letters_are_filed_no_faster_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, worker={"letters_per_second": 100.0})
    for number in range(2_000):
        scene.consumer.append("clickstream", 0, BAD, START_MS)
        raw = encoded(messageId=f"m{number}", userId=f"user {number % 30}")
        scene.consumer.append("clickstream", 1, raw, START_MS)
        scene.consumer.append("purchases", 0, raw, START_MS)
    scene.consumer.portion = 100
    begun, pauses = scene.clock.seconds, metric("reject_pauses_total")
    rates: list[tuple[float, int]] = []
    others: list[float] = []

    def watch() -> None:
        passed = scene.clock.seconds - begun
        rates.append((passed, len(scene.letters.filed)))
        if not others and scene.store.position(1) is not None:
            done = [scene.position(1).offsets[0], scene.position(0).offsets[1]]
            if done == [2_000, 2_000]:
                others.append(passed)

    scene.run(watch, idle=3_000)
    assert_true(scene)
    assert filed(scene) == Counter(range(2_000)), "none is dropped"
    # A second's worth and a block may come at once.
    assert all(letters <= 100 * passed + 100 + 1_000 for passed, letters in rates)
    slowest = next(passed for passed, letters in rates if letters == 2_000)
    assert slowest > 15.0
    assert others[0] < 3.0, "neither the other partition nor the other topic waits"
    assert metric("reject_pauses_total") > pauses


def test_a_paused_partition_is_read_on_after_it_came_back(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, worker={"letters_per_second": 50.0})
    for _ in range(1_000):
        scene.consumer.append("clickstream", 0, BAD, START_MS)
    scene.consumer.portion = 100
    scene.consumer.then(
        scene.consumer.give(*EVERYTHING), *[lambda: None] * 40, scene.consumer.take(*EVERYTHING),
        scene.consumer.give(*EVERYTHING),
    )  # fmt: skip
    scene.run(idle=3_000)
    assert set(filed(scene)) == set(range(1_000))
    assert scene.position(0).offsets[0] == 1_000


def test_letters_that_wait_for_a_mark_are_not_kept_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, mode="watermark", worker={"letters_per_second": 1e6})
    for topic, partition in EVERYTHING:
        mark = mark_value(START_MS, at=(topic, partition))
        scene.consumer.append(topic, partition, mark, START_MS, key=None)
    for _ in range(3_000):
        scene.consumer.append("clickstream", 0, BAD, START_MS)
    scene.run()
    assert scene.position(0).offsets[0] == 1, "the next mark is not there"
    assert len(scene.letters.filed) == 3_000


# -- the guard by itself -------------------------------------------------------------------------

TOPICS = Topics()


def guard_of(**worker: Any) -> RejectGuard:
    return RejectGuard(Worker(**worker), TOPICS, Clock().monotonic)


def feed(guard: RejectGuard, blocks: Iterable[tuple[int, int]]) -> list[str]:
    """What is said of blocks, each a stretch: how many messages, how many refused."""
    said = []
    for messages, rejected in blocks:
        refused = [Reject(Reason.NOT_JSON, "", FakeMessage(b"x"))] * rejected
        said.append(guard.saw([(messages, rejected)], refused))
    return [flood for flood in said if flood is not None]


def test_old_blocks_are_forgotten() -> None:
    guard = guard_of(reject_ratio_window=100, reject_ratio_limit=0.5, reject_consecutive_limit=999)
    assert not feed(guard, [(40, 40), *[(50, 0)] * 20, (40, 40)])
    [said] = feed(guard, [(40, 40)])
    assert "of the last" in said


def test_a_good_message_ends_a_run_and_a_block_of_refusals_goes_on_with_it() -> None:
    guard = guard_of(reject_consecutive_limit=10)
    assert not feed(guard, [(9, 9), (5, 4), (5, 5)])
    [said] = feed(guard, [(1, 1)])
    assert "10 messages in a row" in said


def test_a_run_of_exactly_the_limit_in_pieces_stops() -> None:
    guard = guard_of(reject_consecutive_limit=10)
    assert not feed(guard, [(1, 1)] * 9)
    assert feed(guard, [(1, 1)])


def test_the_three_commonest_reasons_are_told_and_where_the_letters_are() -> None:
    guard = guard_of(reject_consecutive_limit=10)
    reasons = {Reason.NOT_JSON: 4, Reason.BAD_TIME: 3, Reason.EMPTY: 2, Reason.NO_USER: 1}
    refused = [
        Reject(reason, "", FakeMessage(b"x", topic_name=topic))
        for reason, times in reasons.items()
        for topic in ["purchases", "clickstream"] * times
    ]
    said = guard.saw([(20, 20)], refused)
    assert said is not None
    assert ": 8 not_json, 6 bad_time, 4 empty; their letters are on clickstream.dlq and" in said
    assert "purchases.dlq" in said


def test_a_flood_is_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    guard = RejectGuard(Worker(), TOPICS, clock.monotonic)
    for _ in range(300):
        guard.alert("so many")
        clock.advance(1.0)
    assert len(warnings(caplog)) == 5
    guard.alert(None)
    guard.alert(None)
    guard.alert("again")
    assert warnings(caplog)[-2:] == [
        "refusals are below their limits again",
        "again; going on (worker.on_reject_flood = alert)",
    ]


def test_a_flood_that_is_followed_by_nothing_ends(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    guard = RejectGuard(Worker(), TOPICS, clock.monotonic)
    guard.alert("so many")
    clock.advance(59.0)
    guard.calm()
    assert metric("reject_alert") == 1.0
    clock.advance(2.0)
    guard.calm()
    assert metric("reject_alert") == 0.0
    assert warnings(caplog)[-1] == "refusals are below their limits again"


def test_letters_are_paid_for_in_time() -> None:
    clock = Clock(1_000.0)
    guard = RejectGuard(Worker(letters_per_second=10.0), TOPICS, lambda: clock.seconds)
    assert guard.wait_for(10) == 1_000.0, "a second's worth is free"
    assert guard.wait_for(10) == 1_001.0
    assert guard.wait_for(25) == 1_003.5
    clock.advance(100.0)
    assert guard.wait_for(20) == 1_101.0
