"""Watermark mode: from mark to mark, and by events where a log has no marks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.watermark import time_reached
from stream.marks import MarkSigner
from stream.store.state import Answer
from stream.trainer import Trainer
from stream.units import DAY_MS
from tests.consumers.scene import (
    EVERYTHING,
    PARTITIONS,
    Scene,
    assert_chained,
    assert_true,
    events,
    write,
    write_marked,
)
from tests.fakes import Trouble, UnreliableStore, mark_value
from tests.strategies import START_MS, VIEW, encoded

YEARS = 5 * 365 * DAY_MS
GUARD = 3


def reached(times: list[int]) -> int:
    return time_reached(np.array(times, np.int64), GUARD)


def test_users_from_the_future_take_nobody_along_until_there_are_enough() -> None:
    times = [START_MS + hour * 3_600_000 for hour in range(24)]
    assert reached(times) == times[-GUARD]
    assert reached([*times, START_MS + YEARS]) == times[-GUARD + 1]
    assert reached([*times, *[START_MS + YEARS] * (GUARD - 1)]) == times[-1]
    assert reached([*times, *[START_MS + YEARS] * GUARD]) == START_MS + YEARS


def test_too_few_users_have_reached_no_time() -> None:
    for few in range(GUARD):
        assert reached([START_MS + YEARS] * few) == 0
    assert reached([START_MS] * GUARD) == START_MS


@given(
    st.lists(
        st.tuples(st.integers(0, 8), st.integers(START_MS, START_MS + YEARS)),
        min_size=1,
        max_size=40,
    ),
    st.randoms(use_true_random=False),
)
def test_more_events_never_take_it_back_and_portions_make_no_difference(
    log: list[tuple[int, int]], random: Random
) -> None:
    def after(events: list[tuple[int, int]]) -> int:
        newest: dict[int, int] = {}
        for user, time_ms in events:
            newest[user] = max(newest.get(user, 0), time_ms)
        return reached(list(newest.values()))

    times = [after(log[:count]) for count in range(1, len(log) + 1)]
    assert times == sorted(times)
    mixed = list(log)
    random.shuffle(mixed)
    assert after(mixed) == times[-1]


def test_a_replay_is_true_and_follows_the_marks(replayed: Scene) -> None:
    assert_true(replayed)
    last = START_MS + 29 * DAY_MS
    for number in range(PARTITIONS):
        position = replayed.position(number)
        assert position.mark_ms == position.clock_ms == last
        assert {c["at"][11:] for c in replayed.changes(number)} == {"00:00:00.000Z"}
    assert replayed.store.round() == last
    assert len(replayed.models) > 3
    causes = Counter(c["cause"] for n in range(PARTITIONS) for c in replayed.changes(n))
    assert causes["user_moved"] > 3
    assert causes["time_passed"] > 3
    assert causes["model_moved"] > 20


@pytest.mark.slow
@pytest.mark.parametrize("portion", [1, 7, 100])
@pytest.mark.parametrize("deferred", [False, True])
def test_a_replay_does_not_depend_on_the_portions_it_is_read_in(
    monkeypatch: pytest.MonkeyPatch, replayed: Scene, portion: int, deferred: bool
) -> None:
    store = UnreliableStore(deferred=deferred)
    scene = Scene(monkeypatch, mode="watermark", log=replayed.consumer.log, store=store)
    scene.consumer.portion = portion
    assert scene.run().everything() == replayed.everything()


@pytest.mark.slow
def test_a_replay_does_not_depend_on_the_order_topics_come_in(
    monkeypatch: pytest.MonkeyPatch, replayed: Scene
) -> None:
    scene = Scene(monkeypatch, mode="watermark", log=replayed.consumer.log)
    scene.consumer.then(scene.consumer.give(*reversed(EVERYTHING)))
    assert scene.run().everything() == replayed.everything()


@pytest.mark.slow
def test_a_replay_through_trouble_is_the_same_replay(
    monkeypatch: pytest.MonkeyPatch, replayed: Scene
) -> None:
    scene = Scene(monkeypatch, mode="watermark", log=replayed.consumer.log)
    troubles: list[Trouble] = ["mute", Answer.FULL, "down", Answer.DIVERGED, Answer.FENCED]
    due = [5]

    def something() -> None:
        if len(scene.store.commits) >= due[0]:
            due[0] += 7
            scene.store.trouble.append(troubles[due[0] // 7 % 5])

    scene.run(something, idle=1_000)
    answers = {answer for _, _, answer in scene.store.commits}
    assert answers >= {None, Answer.APPLIED, Answer.FENCED, Answer.DIVERGED, Answer.FULL}
    assert scene.everything() == replayed.everything()


@pytest.mark.slow
def test_a_replay_stopped_anywhere_and_gone_on_with_is_the_same_replay(
    monkeypatch: pytest.MonkeyPatch, replayed: Scene
) -> None:
    scene = Scene(monkeypatch, mode="watermark", log=replayed.consumer.log)
    scene.consumer.portion = 20
    rng = np.random.default_rng(6)
    for _ in range(25):
        enough = len(scene.store.commits) + int(rng.integers(1, 9))
        scene.run(until=lambda enough=enough: len(scene.store.commits) >= enough)  # type: ignore[misc]
        if rng.random() < 0.3:
            assert scene.trainer is not None
            scene.trainer.close()
            scene.trainer = Trainer(scene.settings, scene.store, scene._announce)
    assert scene.run().everything() == replayed.everything()


def test_a_replay_waits_for_the_round_of_its_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, mode="watermark", train=False)
    write_marked(scene, events(2))
    scene.run()
    assert [scene.position(n).mark_ms for n in range(PARTITIONS)] == [START_MS] * PARTITIONS
    scene.trainer = Trainer(scene.settings, scene.store, scene._announce)
    assert_true(scene.run())


def test_a_worker_taken_over_before_its_round_waits_for_it_still(
    monkeypatch: pytest.MonkeyPatch, replayed: Scene
) -> None:
    scene = Scene(monkeypatch, mode="watermark", log=replayed.consumer.log, train=False)
    for _ in range(3):
        scene.run()
    assert scene.position(0).mark_ms == START_MS
    scene.trainer = Trainer(scene.settings, scene.store, scene._announce)
    assert scene.run().everything() == replayed.everything()


def of_another_partition(mark: bytes, mark_ms: int, topic: str, number: int) -> bytes:
    """A genuine mark, in a place for which it was not signed."""
    del mark
    return mark_value(mark_ms, at=(topic, 1 - number))


def of_the_far_future(mark: bytes, mark_ms: int, topic: str, number: int) -> bytes:
    """A mark by who does not know the secret."""
    del mark, mark_ms
    forger = MarkSigner(b"a guess")
    return mark_value(START_MS + 20_000 * DAY_MS, at=(topic, number), signer=forger)


def of_yesterday(mark: bytes, mark_ms: int, topic: str, number: int) -> bytes:
    """A copy of an older mark, from the same place."""
    del mark
    return mark_value(max(mark_ms - DAY_MS, START_MS), at=(topic, number))


def again(mark: bytes, mark_ms: int, topic: str, number: int) -> bytes:
    """A copy of the mark before it."""
    del mark_ms, topic, number
    return mark


@pytest.mark.parametrize("made", [of_another_partition, of_the_far_future, of_yesterday, again])
@pytest.mark.parametrize("portion", [3, 1_000])
def test_marks_of_strangers_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
    replayed: Scene,
    made: Callable[[bytes, int, str, int], bytes],
    portion: int,
) -> None:
    scene = Scene(monkeypatch, mode="watermark", worker={"reject_ratio_limit": 1.0})
    scene.consumer.portion = portion
    for (topic, number), messages in replayed.consumer.log.items():
        for message in messages:
            raw, at = message.value(), message.timestamp()[1]
            scene.consumer.append(topic, number, raw, at, message.key())
            # What stands behind the last mark would wait for another one.
            if raw and b"segstream-mark" in raw and message is not messages[-1]:
                scene.consumer.append(topic, number, made(raw, at, topic, number), at)
    assert_true(scene.run())
    assert scene.models == replayed.models
    for number in range(PARTITIONS):
        assert scene.rows(number) == replayed.rows(number)
        assert scene.changes(number) == replayed.changes(number)
        assert scene.position(number).mark_ms == replayed.position(number).mark_ms
        forged = made in (of_another_partition, of_the_far_future)
        counts = scene.position(number).counts
        assert (counts.rejected > replayed.position(number).counts.rejected) == forged


def test_a_topic_that_runs_far_ahead_of_its_marks_is_paused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, mode="watermark", train=False, worker={"buffer_events": 1_000})
    for topic, number in EVERYTHING:
        scene.consumer.append(
            topic, number, mark_value(START_MS, at=(topic, number)), START_MS, key=None
        )
    for day in range(4):
        for i in range(600):
            raw = encoded(time_ms=START_MS + day * DAY_MS, messageId=f"{day} {i}", event=VIEW)
            scene.consumer.append("clickstream", 0, raw, START_MS + day * DAY_MS)
        mark = START_MS + (day + 1) * DAY_MS
        for topic, number in EVERYTHING:
            scene.consumer.append(
                topic, number, mark_value(mark, at=(topic, number)), mark, key=None
            )
    scene.consumer.portion = 100
    paused: list[bool] = []
    scene.run(lambda: paused.append(("clickstream", 0) in scene.consumer.paused))
    assert paused[-1], "the trainer is not there, so nothing more can be folded"
    assert scene.consumer.positions["clickstream", 0] < 1_500
    scene.trainer = Trainer(scene.settings, scene.store, scene._announce)
    assert_true(scene.run())


def test_without_marks_no_event_takes_the_shop_beyond_the_present(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, mode="watermark", clock={"mode": "watermark", "idle_seconds": 0.5})
    log = events(4)
    write(scene, log)
    for when in ("2090-01-01T00:00:00.000Z", "2099-12-31T23:59:59.999Z"):
        for number in range(PARTITIONS):
            raw = encoded(timestamp=when, messageId=when, userId=f"user {number}", event=VIEW)
            scene.consumer.append("clickstream", number, raw, -1)
    scene.run(idle=300)
    latest = scene.clock.wall_ms() + 300_000
    for number in range(PARTITIONS):
        assert START_MS < scene.position(number).clock_ms <= latest
        assert_chained(scene, number)


def test_a_log_without_marks_goes_by_its_own_events(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, mode="watermark", clock={"mode": "watermark", "idle_seconds": 0.5})
    log = events(4)
    write(scene, log)
    assert_true(scene.run(idle=300))
    reached = []
    for number in range(PARTITIONS):
        newest = sorted(user.seen_ms for user in scene.truth(number).users.values())
        reached.append(newest[-scene.settings.clock.guard_users])
    assert [scene.position(n).clock_ms for n in range(PARTITIONS)] == reached
    assert [scene.position(n).model for n in range(PARTITIONS)] == [scene.models[-1]] * PARTITIONS
    for number in range(PARTITIONS):
        assert len({c["user"] for c in scene.changes(number)}) == len(scene.rows(number)) > 10
