"""A run's facts: each change once, how fast it goes, and whether all of it has come to its end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stream.events import Counts
from stream.features import DEFAULT_FEATURES, FeatureTable
from stream.insight.facts import MomentFacts, RunFacts
from stream.insight.run import LAST_MOVES, Arrivals, Audited, Run
from stream.learning.state import TrainerState
from stream.store.memory import MemoryStore
from stream.store.state import Commit, OutboxEntry, Position
from tests.stream.insight.test_facts import NOW_MS, STATE, fits

TABLE = FeatureTable(DEFAULT_FEATURES)
MODEL = STATE.model


def change(number: int, **rest: Any) -> dict[str, Any]:
    known = {"kind_from": "loyal", "kind_to": "at_risk", "cause": "time_passed", "from": 1}
    return {"id": f"c-{number}", "at": f"mark {number}", **known, **rest}


def store_of(*positions: Position, state: TrainerState | None = STATE) -> MemoryStore:
    store = MemoryStore()
    for partition, position in enumerate(positions):
        store.create(partition, "owner", position)
    if state is not None:
        store.lead("trainer")
        assert store.put_model("trainer", state.pack(TABLE), state.round_ms)
    return store


def position(**rest: Any) -> Position:
    assert MODEL is not None
    known: dict[str, Any] = {"model": MODEL.name, "mark_ms": NOW_MS} | rest
    return Position([0, 0], TABLE.schema, **known)


def test_a_change_that_arrives_again_counts_once() -> None:
    arrivals = Arrivals()
    for number in (0, 1, 1, 0, 2):
        arrivals.take(change(number), 10.0 + number)
    arrivals.take(change(2), None)
    arrivals.take(change(3, kind_to="loyal", cause="user_moved", **{"from": None}), None)
    assert len(arrivals) == 4
    assert arrivals.risk_moves == 3
    assert arrivals.causes == {"time_passed": 3, "user_moved": 1}
    assert [one["id"] for one in arrivals.last] == ["c-0", "c-1", "c-2"], "who came is no move"
    assert arrivals.latencies({"mark 1": 9.5, "mark 3": 1.0}) == [1.5]
    for number in range(4, 30):
        arrivals.take(change(number), None)
    assert len(arrivals.last) == LAST_MOVES


def test_a_moment_tells_how_fast_it_goes_and_how_far_it_is() -> None:
    store = store_of(position(clock_ms=NOW_MS, counts=Counts(applied=40)), state=None)
    run = Run(store, TABLE, 2)
    first = run.moment(NOW_MS + 3_000, 100.0)
    assert (first["events"], first["events_per_second"]) == (40, 0.0)
    assert first["behind_seconds"] == 3.0
    assert first["segment_list"] is None
    later = position(clock_ms=NOW_MS, counts=Counts(applied=100))
    store.commit(0, "owner", Commit(0, later))
    run.arrivals.take(change(1), 100.0)
    then = run.moment(NOW_MS, 102.0)
    assert (then["events"], then["events_per_second"], then["behind_seconds"]) == (100, 30.0, 0.0)
    assert (then["changes"], then["churn_risk_moves"]) == (1, 1)


@pytest.mark.parametrize(
    ("positions", "last_event_ms", "settled"),
    [
        ((position(), position()), NOW_MS - 1, True),
        ((position(), position()), NOW_MS, False),
        ((position(), position(mark_ms=NOW_MS - 1)), NOW_MS - 1, False),
        ((position(), position(model="0.1")), NOW_MS - 1, False),
        ((position(),), NOW_MS - 1, False),
    ],
    ids=["all", "a round is to come", "a mark is to come", "another model", "nobody yet"],
)
def test_all_is_settled_when_every_partition_is_at_the_last_mark(
    positions: tuple[Position, ...], last_event_ms: int, settled: bool
) -> None:
    run = Run(store_of(*positions, state=replace(STATE, round_ms=NOW_MS)), TABLE, 2)
    assert run.is_settled(last_event_ms) == settled


def test_nothing_is_settled_while_changes_wait_or_there_is_no_model() -> None:
    store = store_of(position(), state=replace(STATE, round_ms=NOW_MS))
    assert Run(store, TABLE, 1).is_settled(NOW_MS - 1)
    store.commit(0, "owner", Commit(0, position(), outbox=[OutboxEntry(0, (b"{}",), 1)]))
    assert not Run(store, TABLE, 1).is_settled(NOW_MS - 1)
    assert not Run(store_of(position(), state=None), TABLE, 1).is_settled(NOW_MS - 1)


def test_facts_at_the_end_are_of_what_arrived_and_what_was_audited() -> None:
    run = Run(store_of(position(counts=Counts(applied=50))), TABLE, 1)
    for number, arrived in enumerate((10.0, 11.0, 14.0)):
        run.arrivals.take(change(number), arrived)
    sent = {f"mark {number}": 9.0 for number in range(3)}
    audited = Audited(False, 1, 2, 3, [{"name": "a"}])
    facts = run.facts(sent, audited, 20.0, complete=True, caught_up=True)
    assert (facts["ok"], facts["lost"], facts["duplicated"], facts["rejected"]) == (False, 1, 2, 3)
    assert (facts["events"], facts["events_per_second"], facts["seconds"]) == (50, 2.5, 20.0)
    assert (facts["changes"], facts["changes_by_cause"]) == (3, {"time_passed": 3})
    assert facts["change_latency_p50_seconds"] == 2.0
    assert facts["checks"] == [{"name": "a"}]
    assert facts["segments"] == len(facts["segment_list"]["segments"]) > 0
    assert fits(facts, RunFacts)
    moment = run.moment(NOW_MS, 0.0)
    assert moment["segment_list"] is not None
    assert fits(moment, MomentFacts)


@pytest.mark.parametrize(
    ("complete", "caught_up", "ok"),
    [(True, True, True), (True, False, False), (False, False, True)],
)
def test_a_run_whose_roles_did_not_keep_up_is_not_well(
    complete: bool, caught_up: bool, ok: bool
) -> None:
    run = Run(store_of(position()), TABLE, 1)
    audited = Audited(True, 0, 0, 0, [])
    facts = run.facts({}, audited, 1.0, complete=complete, caught_up=caught_up)
    assert facts["ok"] is ok


def test_a_run_without_a_model_has_no_segments() -> None:
    run = Run(store_of(position(), state=None), TABLE, 1)
    facts = run.facts({}, Audited(True, 0, 0, 0, []), 1.0, complete=False, caught_up=False)
    assert (facts["users"], facts["segments"], "segment_list" in facts) == (0, 0, False)
    assert facts["change_latency_p50_seconds"] is None
    assert fits(facts, RunFacts)
    assert fits(run.moment(NOW_MS, 0.0), MomentFacts)
