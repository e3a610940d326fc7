"""The commit under way: what each answer of the store means for a partition."""

from __future__ import annotations

import copy
import json
from collections import Counter, defaultdict
from typing import Any

import pytest

from consumers.owner import StateLostError
from stream.store.state import Answer, Position, StoreUnavailableError
from tests.consumers.scene import (
    PARTITIONS,
    SETTLED,
    Scene,
    assert_true,
    events,
    write,
    write_marked,
)
from tests.fakes import UnreliableStore


def test_fenced_it_drops_everything_and_takes_over_again_after_a_session(live: Scene) -> None:
    def steal() -> None:
        live.store.acquire(0, "another")

    live.store.trouble.extend([lambda: None] * 3 + [steal])
    live.run()
    assert_true(live)
    answers = [(number, answer) for number, _, answer in live.store.commits]
    assert answers.count((0, Answer.FENCED)) == 1
    fenced = answers.index((0, Answer.FENCED))
    after = live.store.commits[fenced + 1 :]
    assert any(number == 0 and answer is Answer.OK for number, _, answer in after)


def test_fenced_it_waits_a_session_before_it_takes_over(live: Scene) -> None:
    live.store.trouble.append(Answer.FENCED)
    fenced_at: list[float] = []

    def watch() -> None:
        if not fenced_at and any(a is Answer.FENCED for _, _, a in live.store.commits):
            fenced_at.append(live.clock.seconds)
            live.store.acquire = record  # type: ignore[method-assign]

    taken_at: list[float] = []
    acquire = live.store.acquire

    def record(partition: int, token: str) -> tuple[int, Position] | None:
        taken_at.append(live.clock.seconds)
        return acquire(partition, token)

    live.run(watch)
    assert taken_at[0] - fenced_at[0] >= 0.4
    assert_true(live)


def test_diverged_it_replays_from_what_the_store_has(live: Scene) -> None:
    kept: list[Any] = []

    def roll_back() -> None:
        live.store._partitions[0] = kept[0]

    def watch() -> None:
        if not kept and len(live.store.commits) > 4:
            kept.append(copy.deepcopy(live.store._partitions[0]))
            live.store.trouble.extend([lambda: None, lambda: None, lambda: None, roll_back])

    live.run(watch, idle=SETTLED)
    assert any(answer is Answer.DIVERGED for _, _, answer in live.store.commits)
    assert_true(live)


def test_full_it_waits_and_goes_on_with_the_same_commit(
    monkeypatch: pytest.MonkeyPatch, store: UnreliableStore
) -> None:
    store._cap = 1
    # So short that each portion is a step of its own, and there are many.
    scene = Scene(monkeypatch, store=store, worker={"batch_seconds": 0.001})
    scene.consumer.portion = 2
    write(scene, events(1))
    delivered: dict[int, list[bytes]] = defaultdict(list)
    due = [0.0]

    def publish() -> None:
        if scene.clock.seconds < due[0]:
            return
        due[0] = scene.clock.seconds + 0.2
        for number in range(PARTITIONS):
            scene.store.take_outbox(number, "p")
            for entry in scene.entries(number):
                delivered[number].extend(entry.changes)
                scene.store.acknowledge(number, "p", [entry.id], 0)

    scene.run(publish, idle=300)
    assert Counter(a for _, _, a in store.commits)[Answer.FULL] > 2
    ids: dict[str, list[Answer | None]] = defaultdict(list)
    for _, commit, answer in store.commits:
        ids[commit.id].append(answer)
    for answers in ids.values():
        assert answers[:-1] == [Answer.FULL] * (len(answers) - 1)
    assert any(len(answers) > 1 for answers in ids.values())
    monkeypatch.setattr(
        scene, "changes", lambda n: [
            json.loads(c)
            for c in [*delivered[n], *(c for e in scene.entries(n) for c in e.changes)]
        ]
    )  # fmt: skip
    assert_true(scene)


def test_full_the_worker_is_alive_and_polls_on(live: Scene) -> None:
    live.store._cap = 0
    beats: list[tuple[bool, list[str]]] = []
    live.run(lambda: beats.append(live.health.liveness()), until=lambda: len(beats) > 600)
    assert all(alive for alive, _ in beats)
    assert sum(answer is Answer.FULL for _, _, answer in live.store.commits) > 10
    assert live.consumer.idle > 10


def test_lost_it_stops_and_says_what_can_be_done(live: Scene) -> None:
    live.store.trouble.extend([lambda: None, live.store._partitions.clear])
    with pytest.raises(StateLostError, match=r"set store\.accept_loss"):
        live.run()


@pytest.mark.parametrize("mode", ["live", "watermark"])
def test_a_loss_that_is_accepted_meanwhile_stops_nobody(
    monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    scene = Scene(monkeypatch, mode=mode, store_section={"accept_loss": True})
    if mode == "live":
        write(scene, events(1))
    else:
        write_marked(scene, events(1))
    lost: list[int] = []

    def watch() -> None:
        if not lost and len(scene.store.commits) > 12 and scene.consumer.group:
            lost.append(len(scene.store.commits))
            scene.store._partitions.clear()

    scene.run(watch, idle=5 * SETTLED)
    assert lost
    assert_true(scene)
    assert {scene.position(number).incarnation for number in range(PARTITIONS)} == {2}


def test_an_outage_is_waited_out_under_the_same_commit_id(live: Scene) -> None:
    live.store.trouble.extend([lambda: None, lambda: None, "down", "down", "mute", "down"])
    ready: list[bool] = []
    live.run(lambda: ready.append(live.health.readiness()[0]))
    assert_true(live)
    missed = [commit.id for _, commit, answer in live.store.commits if answer is None]
    assert len(missed) == 4
    final = {commit.id: answer for _, commit, answer in live.store.commits}
    assert {final[identity] for identity in missed} <= {Answer.OK, Answer.APPLIED}
    assert Answer.APPLIED in final.values()
    assert False in ready
    assert ready[-1]


def test_an_outage_beyond_the_deadline_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, store: UnreliableStore
) -> None:
    scene = Scene(monkeypatch, store=store, store_section={"commit_deadline_seconds": 3.0})
    write(scene, events(1))
    scene.store.trouble.extend(["down"] * 5_000)
    began = scene.clock.seconds
    with pytest.raises(StoreUnavailableError):
        scene.run(idle=10_000)
    assert 3.0 <= scene.clock.seconds - began <= 4.0
    scene.store.trouble.clear()
    assert_true(scene.run())
