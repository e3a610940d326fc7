"""What needs attention is told, the worst first; and nothing where all is well."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stream.config import Settings
from stream.insight.facts import FeedState, StandingFacts
from stream.insight.health import standing
from stream.learning.state import TrainerState
from stream.store.memory import MemoryStore
from stream.store.state import Commit, OutboxEntry, Position
from tests.stream.insight.test_facts import STATE, fits

NOW_MS = STATE.round_ms + 1_000
CAP = 120


def settings(**sections: Any) -> Settings:
    return Settings.model_validate(
        {"topics": {"partitions": 2}, "store": {"outbox_cap": CAP}} | sections
    )


def a_store(begun: int = 2, waiting: int = 0) -> MemoryStore:
    store = MemoryStore(outbox_cap=CAP + 1)
    for number in range(begun):
        store.create(number, "a", Position([0, 0], "schema"))
    for sequence in range(waiting):
        entry = OutboxEntry(1_000, (b"{}",), 1)
        store.commit(0, "a", Commit(sequence, Position([1, 1], "schema"), outbox=[entry]))
    return store


def told(
    store: MemoryStore, state: TrainerState | None = STATE, feed: FeedState = "up", **sections: Any
) -> list[str]:
    facts = standing(settings(**sections), store, state, NOW_MS, feed, None)
    assert fits(facts, StandingFacts)
    return [one["what"] for one in facts["attention"]]


def test_nothing_is_said_where_all_is_well() -> None:
    assert told(a_store()) == []


@pytest.mark.parametrize(
    ("store", "state", "feed", "said"),
    [
        (a_store(0), STATE, "up", "No worker has begun yet"),
        (a_store(1), STATE, "up", "1 of 2 partitions have no owner yet"),
        (a_store(), None, "up", "There is no model yet"),
        (a_store(), STATE, "down", "The feed of changes is not read"),
        (a_store(waiting=100), STATE, "up", "Changes are delivered late"),
        (a_store(waiting=CAP), STATE, "up", "Workers wait: changes are not delivered"),
        (a_store(), replace(STATE, round_ms=NOW_MS - 600_000), "up", "The model stands still for 10 min"),
    ],
)  # fmt: skip
def test_each_thing_that_is_wrong_is_told(
    store: MemoryStore, state: TrainerState | None, feed: FeedState, said: str
) -> None:
    assert told(store, state, feed) == [said]


def test_the_worst_comes_first_and_a_replay_may_stand_still() -> None:
    store = a_store()
    store.note_output("id", "changes of partition 3")
    assert told(store, None, "down")[0] == "The output lacks changes: changes of partition 3"
    old = replace(STATE, round_ms=0)
    assert told(a_store(), old, clock={"mode": "watermark"}) == []
