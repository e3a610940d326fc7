"""What is held and set aside: back-pressure, and letters before offsets."""

from __future__ import annotations

import pytest

from stream.errors import BrokerUnavailableError
from stream.store.state import Answer
from tests.consumers.scene import (
    PARTITIONS,
    Scene,
    ahead,
    assert_true,
    crowded,
)
from tests.fakes import Trouble


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "marks", "trouble"),
    [
        ("live", False, Answer.FULL),
        ("live", False, "down"),
        ("watermark", False, Answer.FULL),
        ("watermark", True, Answer.FULL),
    ],
)
def test_while_a_commit_waits_no_more_is_held_than_allowed(
    monkeypatch: pytest.MonkeyPatch, mode: str, marks: bool, trouble: Trouble
) -> None:
    scene = crowded(monkeypatch, mode, marks)
    scene.store.trouble.extend([trouble] * 10_000)
    held: list[int] = []

    def watch() -> None:
        held.append(ahead(scene))
        if len(held) == 60:
            scene.store.trouble.clear()

    scene.run(watch, idle=1_000)
    # Those of the waiting commit, of a full buffer, and of the turn that filled it.
    assert 1_000 < max(held[:60]) < 2_500
    assert_true(scene)
    assert not ahead(scene)
    assert not scene.consumer.paused


def test_what_was_paused_when_it_was_taken_away_is_read_when_it_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = crowded(monkeypatch, "live")
    consumer = scene.consumer
    zero = [("clickstream", 0), ("purchases", 0)]
    scene.store.trouble.extend([Answer.FULL] * 10_000)
    seen: list[set[tuple[str, int]]] = []

    def watch() -> None:
        if not seen and set(zero) <= consumer.paused:
            seen.append(set(consumer.paused))
            consumer.then(consumer.take(*zero), scene.store.trouble.clear, consumer.give(*zero))

    assert_true(scene.run(watch))
    assert seen


def test_dead_letters_that_cannot_be_filed_hold_the_offsets(live: Scene) -> None:
    live.letters.failures = 1
    with pytest.raises(BrokerUnavailableError):
        live.run()
    filed = sum(live.position(n).counts.rejected for n in range(PARTITIONS))
    assert filed == len(live.letters.filed) == 0
    assert_true(live.run())
