"""The limits that stop a worker do stop it, seen from outside; what is below them does not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from consumers.rejects import RejectGuard, TooManyRejectsError
from stream.config import Worker
from stream.units import DAY_MS
from tests.consumers.test_activity import EVERYTHING, Scene
from tests.fakes import mark_value
from tests.strategies import START_MS, encoded

BAD = b"poison"


def scene_of(
    monkeypatch: pytest.MonkeyPatch, pattern: str, mode: str = "live", **worker: Any
) -> Scene:
    """A worker and a partition whose clicks are good (g), bad (b) or marks (m)."""
    scene = Scene(monkeypatch, mode=mode, worker=worker)
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


# -- many in a row -------------------------------------------------------------------------------


@pytest.mark.parametrize("portion", [1, 3, 10, 1_000])
def test_a_run_of_refusals_stops_the_worker_before_it_drains_the_topic(
    monkeypatch: pytest.MonkeyPatch, portion: int
) -> None:
    scene = scene_of(monkeypatch, "g" * 20 + "b" * 500 + "g", reject_consecutive_limit=30)
    scene.consumer.portion = portion
    said = stopped(scene)
    assert "messages in a row were refused (worker.reject_consecutive_limit = 30)" in said
    assert "look at the dead-letter topic" in said
    assert committed(scene) < 20 + 30
    assert len(scene.letters.filed) < 30
    # Started again, it stops again, and still has not drained the topic.
    stopped(scene)
    stopped(scene)
    assert committed(scene) < 20 + 3 * 30
    assert len(scene.letters.filed) < 3 * 30


def test_of_a_poisoned_topic_nothing_at_all_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = scene_of(monkeypatch, "b" * 100, reject_consecutive_limit=30)
    stopped(scene)
    assert committed(scene) == 0
    assert scene.letters.filed == []


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
    assert len(scene.letters.filed) <= 30


def test_a_raised_limit_lets_the_worker_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = "g" * 5 + "b" * 60 + "g" * 5
    scene = scene_of(monkeypatch, pattern, reject_consecutive_limit=30)
    stopped(scene)
    log = scene.consumer.log
    braver = Scene(
        monkeypatch, store=scene.store, log=log, worker={"reject_consecutive_limit": 100}
    )
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
    assert len(scene.letters.filed) <= 50


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


# -- the guard by itself -------------------------------------------------------------------------


def feed(guard: RejectGuard, blocks: Iterable[tuple[int, int, int]]) -> None:
    for block in blocks:
        guard.saw(*block)


def test_old_blocks_are_forgotten() -> None:
    worker = Worker(reject_ratio_window=100, reject_ratio_limit=0.5, reject_consecutive_limit=999)
    guard = RejectGuard(worker)
    feed(guard, [(40, 40, 40)])
    feed(guard, [(50, 0, 0)] * 20)
    feed(guard, [(40, 40, 40)])
    with pytest.raises(TooManyRejectsError, match="of the last"):
        feed(guard, [(40, 40, 40)])


def test_a_good_message_ends_a_run_and_a_block_of_refusals_goes_on_with_it() -> None:
    guard = RejectGuard(Worker(reject_consecutive_limit=10))
    feed(guard, [(9, 9, 9), (5, 4, 4), (5, 5, 5)])
    with pytest.raises(TooManyRejectsError, match="10 messages in a row"):
        feed(guard, [(1, 1, 1)])


def test_a_run_of_exactly_the_limit_in_pieces_stops() -> None:
    guard = RejectGuard(Worker(reject_consecutive_limit=10))
    feed(guard, [(1, 1, 1)] * 9)
    with pytest.raises(TooManyRejectsError):
        feed(guard, [(1, 1, 1)])
