"""Live mode: what has come is folded, who acted is looked at, everyone is swept."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from consumers import live as live_mode
from stream.learning.state import TrainerState
from stream.tuning import Tuning
from tests.consumers.scene import (
    INPUTS,
    PARTITIONS,
    TABLE,
    Scene,
    assert_chained,
    assert_true,
    write,
)
from tests.fakes import UnreliableStore
from tests.strategies import MESSAGES, START_MS


def test_live_the_log_becomes_rows_changes_and_counts(
    live: Scene, store: UnreliableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = Scene(monkeypatch, store=store, log=live.consumer.log)
    live.consumer.portion = 5
    assert_true(live.run())
    assert live.models[0] == "1.0"
    assert sum(len(live.changes(n)) for n in range(PARTITIONS)) >= 40
    assert all(live.position(n).model for n in range(PARTITIONS))
    rejected = sum(live.position(n).counts.rejected for n in range(PARTITIONS))
    assert len(live.letters.filed) == rejected >= 5


def test_live_every_known_kind_of_message_gets_its_fate(
    monkeypatch: pytest.MonkeyPatch, store: UnreliableStore
) -> None:
    scene = Scene(monkeypatch, store=store, worker={"reject_ratio_limit": 1.0})
    write(scene, [(START_MS, INPUTS[i % 2], 0, raw) for i, (raw, _, _) in enumerate(MESSAGES)
                  if raw is not None])  # fmt: skip
    scene.consumer.append(INPUTS[0], 0, None, START_MS)
    assert_true(scene.run())
    found = Counter(reject.reason for reject in scene.letters.filed)
    assert found == Counter(reason for _, _, reason in MESSAGES if reason)


def test_live_a_sweep_moves_who_is_silent(live: Scene) -> None:
    live.run()
    before = [len(live.changes(n)) for n in range(PARTITIONS)]
    live.clock.advance(200 * 86_400)
    live.run()
    assert_true(live)
    later = [c for n in range(PARTITIONS) for c in live.changes(n)[before[n] :]]
    assert {"time_passed", "model_moved"} & {c["cause"] for c in later}


def test_live_a_worker_that_starts_again_goes_on_where_it_was(live: Scene) -> None:
    half = {where: messages[: len(messages) // 2] for where, messages in live.consumer.log.items()}
    whole, live.consumer.log = live.consumer.log, half
    live.run()
    first = live.position(0)
    live.consumer.log = whole
    tried = len(live.store.commits)
    live.run()
    assert_true(live)
    again = [commit for number, commit, _ in live.store.commits[tried:] if number == 0]
    assert again[0].position.offsets[0] >= first.offsets[0]
    assert again[0].position.counts.consumed >= first.counts.consumed


def test_live_group_offsets_follow_for_lag_tools(live: Scene) -> None:
    live.run(idle=200)
    for number in range(PARTITIONS):
        for topic, offset in zip(INPUTS, live.position(number).offsets, strict=True):
            shown = live.consumer.group[topic, number]
            assert shown.offset == offset
            counts = live.position(number).counts
            assert shown.metadata == f"segstream/1/{counts.consumed + counts.marks}"


@pytest.mark.parametrize("taken_over", [False, True])
def test_what_was_applied_comes_to_a_partition_in_one_commit(
    live: Scene, monkeypatch: pytest.MonkeyPatch, *, taken_over: bool
) -> None:
    monkeypatch.setattr(live_mode, "SLICE", 1)
    live.run()
    learning = live.settings.learning.model_copy(update={"segments": 2})
    tuning = Tuning.of(live.settings.model_copy(update={"learning": learning}))
    cut_over = [0] * PARTITIONS

    def want() -> None:
        if live.store.wanted() is None:
            live.store.want(tuning.pack())
        found = live.store.model()
        assert found is not None
        model = TrainerState.unpack(found[1]).model
        assert model is not None
        for number in range(PARTITIONS):
            cut_over[number] += live.position(number).model == model.name and bool(model.tuning)

    def published() -> bool:
        found = live.store.model()
        return found is not None and TrainerState.unpack(found[1]).tuning == tuning

    if taken_over:
        live.run(want, until=published)
    live.run(want, until=lambda: all(cut_over), idle=10_000)
    state = live.store.model()
    assert state is not None
    model = TrainerState.unpack(state[1]).model
    assert model is not None
    assert model.tuning == tuning.id
    assert len(model.ids) == 2
    moved = 0
    for number in range(PARTITIONS):
        commits = {
            entry.id.split("-")[0]
            for entry in live.entries(number)
            for change in map(json.loads, entry.changes)
            if change["cause"] == "segment_retired" and change["model"] == f"{model.epoch}.0"
        }
        assert len(commits) <= 1
        moved += len(commits)
        rows = [np.frombuffer(raw, TABLE.dtype)[0] for raw in live.rows(number).values()]
        assert {int(row["segment"]) for row in rows} <= set(model.ids.tolist())
        assert_chained(live, number)
    assert moved
