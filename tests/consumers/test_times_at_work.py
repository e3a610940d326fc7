"""The worker among wrong clocks: producers ahead, a log from the future, a wall clock that is set."""

from __future__ import annotations

import numpy as np
import pytest

from stream.features import DEFAULT_FEATURES, FeatureTable
from stream.units import DAY_MS
from tests.consumers.scene import (
    INPUTS,
    PARTITIONS,
    Scene,
    assert_chained,
    assert_true,
    events,
    write,
)
from tests.strategies import VIEW, encoded

TABLE = FeatureTable(DEFAULT_FEATURES)
YEARS = 5 * 365 * DAY_MS


def feature(scene: Scene, user: str, name: str, now_ms: int) -> float:
    raw = next(
        rows[user.encode()] for n in range(PARTITIONS) if user.encode() in (rows := scene.rows(n))
    )
    vector = TABLE.vectors(np.frombuffer(raw, TABLE.dtype), now_ms)[0]
    return float(vector[TABLE.names.index(name)])


def last_seen(scene: Scene) -> dict[str, list[int]]:
    return {
        user.decode(): np.frombuffer(raw, TABLE.dtype)["seen"].tolist()
        for number in range(PARTITIONS)
        for user, raw in scene.rows(number).items()
    }


# -- live ----------------------------------------------------------------------------------------


def test_a_producer_a_year_ahead_does_not_silence_honest_views(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch)
    now = scene.clock.wall_ms()
    ahead = now + 365 * DAY_MS
    write(scene, [(ahead, INPUTS[0], 0, encoded(time_ms=ahead, event=VIEW, userId="u"))])
    for minute in range(20):
        time_ms = now + minute * 60_000
        raw = encoded(time_ms=time_ms, event=VIEW, userId="u", messageId=f"honest {minute}")
        write(scene, [(time_ms, INPUTS[0], 0, raw)])
    scene.clock.advance(1_200)
    scene.run()
    counts = scene.position(0).counts
    assert (counts.applied, counts.clamped) == (21, 1)
    later = now + 20 * 60_000
    assert feature(scene, "u", "views_1h", later) > 15
    assert feature(scene, "u", "days_since_seen", later + 200 * DAY_MS) == pytest.approx(200, abs=1)


def test_records_of_today_in_seconds_limit_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    log = events(1)
    honest = Scene(monkeypatch)
    write(honest, log)
    honest.run()
    scene = Scene(monkeypatch)
    write(scene, [(t // 1_000, topic, number, raw) for t, topic, number, raw in log])
    assert_true(scene.run())
    assert last_seen(scene) == last_seen(honest)


@pytest.mark.parametrize("by_days", [-2, 2])
def test_a_wall_clock_that_is_set_moves_nobody(
    monkeypatch: pytest.MonkeyPatch, by_days: int
) -> None:
    scene = Scene(monkeypatch)
    scene.consumer.portion = 5
    write(scene, events(1))
    true, off = scene.clock.wall_ms, 0
    monkeypatch.setattr(scene.clock, "wall_ms", lambda: true() + off)
    turns = 0

    def set_the_clock() -> None:
        nonlocal turns, off
        turns += 1
        off = by_days * DAY_MS if 40 < turns < 400 else 0

    scene.run(set_the_clock, until=lambda: turns > 500)
    assert_true(scene)
    for number in range(PARTITIONS):
        assert scene.position(number).clock_ms <= true()


def test_a_worker_whose_clock_is_behind_the_last_ones_goes_on_from_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch)
    write(scene, events(1))
    scene.run()
    before = [scene.position(n).clock_ms for n in range(PARTITIONS)]
    scene.clock.seconds -= 2 * 86_400
    now = scene.clock.wall_ms()
    write(scene, [(now, INPUTS[0], n, encoded(time_ms=now, userId=f"new {n}")) for n in (0, 1)])
    tried = len(scene.store.commits)
    scene.run()
    for number, commit, _ in scene.store.commits[tried:]:
        assert commit.position.clock_ms >= before[number]
    for number in range(PARTITIONS):
        told = [change["at"] for change in scene.changes(number)]
        assert told == sorted(told), "no change is told as of a time before the last"
        assert_chained(scene, number)


# -- a log without marks -------------------------------------------------------------------------


def by_events(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch, mode="watermark", clock={"mode": "watermark", "idle_seconds": 0.5})


@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize("ahead", [20 * DAY_MS, YEARS])
def test_one_record_from_the_future_takes_nobody_along(
    monkeypatch: pytest.MonkeyPatch, place: str, ahead: int
) -> None:
    log = events(4)
    honest = by_events(monkeypatch)
    write(honest, log)
    honest.run(idle=300)
    scene = by_events(monkeypatch)
    odd = []
    for number in range(PARTITIONS):
        time_ms = log[0][0] + ahead
        raw = encoded(time_ms=time_ms, event=VIEW, userId=f"odd {number}", messageId="odd")
        odd.append((time_ms, INPUTS[0], number, raw))
    write(scene, [*odd, *log] if place == "first" else [*log, *odd])
    scene.run(idle=300)
    for number in range(PARTITIONS):
        clock, expected = scene.position(number).clock_ms, honest.position(number).clock_ms
        assert expected <= clock < expected + DAY_MS
        assert_chained(scene, number)
    dormant = [c for n in range(PARTITIONS) for c in scene.changes(n) if c["kind_to"] == "dormant"]
    assert not dormant


@pytest.mark.parametrize("portion", [1, 1_000])
def test_time_by_events_does_not_depend_on_the_portions(
    monkeypatch: pytest.MonkeyPatch, portion: int
) -> None:
    found = []
    for asked in (portion, 100):
        scene = by_events(monkeypatch)
        scene.consumer.portion = asked
        write(scene, events(4))
        scene.run(idle=300)
        found.append([scene.position(number).clock_ms for number in range(PARTITIONS)])
    assert found[0] == found[1]
