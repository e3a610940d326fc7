"""Scores are learned in rounds, published with the model, and the same however they came about."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from stream.config import Learning
from stream.learning.rounds import SAMPLES_A_TOTAL, learn
from stream.learning.state import TrainerState
from stream.learning.statistics import PartitionStatistics, Sample
from stream.model import GivenAxes, Model
from stream.scores.declare import Score, Wanted
from stream.scores.looks import Looks
from stream.scores.step import came_back
from stream.sweeps import SampleRequest
from stream.units import DAY_MS
from tests.stream.scores.making import FEATURES, START_MS, WANTED, Crowd

AXES = GivenAxes(
    names=FEATURES,
    units=("",) * 4,
    words=(("", ""),) * 4,
    limits=(({}, {}),) * 4,
    weights=np.ones(4),
    schema="vectors",
)
LEARNING = Learning(
    segments=2, starts=2, first_model_users=50, refit_seconds=20 * 86_400, alarm_share=0.05
)
LAST = 55


@pytest.fixture(scope="module")
def crowd() -> Crowd:
    return Crowd.random(200, seed=2)


def told(
    sample: Sample, model: Model | None, workers: int, *, sampled: bool = True
) -> list[PartitionStatistics]:
    """What so many owners tell; each counts its users in the nearest segment."""
    parts = []
    for worker in range(workers):
        mine = sample.hashes % np.uint64(workers) == worker
        part = PartitionStatistics(sample.at_ms, "", int(mine.sum()))
        if sampled:
            part.sample_hashes = sample.hashes[mine].tobytes()
            part.sample_vectors = sample.vectors[mine].tobytes()
        if model is not None:
            part.model = model.name
            columns = model.place(sample.vectors[mine], np.zeros(mine.sum(), np.int32))
            nearest = columns.squared.argmin(axis=1)
            if sampled:
                part.sample_segments = model.ids[nearest].tobytes()
            if model.scores is not None:
                segments = len(model.ids)
                totals = model.scores.totals(sample.vectors[mine], FEATURES, nearest, segments)
                part.scored = totals.tobytes()
        parts.append(part)
    return parts


def after(
    crowd: Crowd,
    days: range,
    state: TrainerState | None = None,
    workers: int = 1,
    wanted: Wanted = WANTED,
) -> TrainerState:
    state = state or TrainerState()
    for day in days:
        sample = crowd.sample(day)
        parts = told(sample, state.model, workers)
        state = learn(state, parts, sample.at_ms, AXES, LEARNING, (), scores=wanted)
    return state


@pytest.fixture(scope="module")
def learned(crowd: Crowd) -> TrainerState:
    return after(crowd, range(1, LAST))


def told_whole(state: TrainerState) -> tuple[bytes, bytes]:
    return state.pack(AXES), state.looks.pack()


def test_they_are_published_with_the_model(learned: TrainerState) -> None:
    model = learned.model
    assert model is not None
    assert model.scores is not None
    assert model.scores.names == ("soon", "later", "money")
    again = Model.from_published(msgspec.json.decode(msgspec.json.encode(model.published(AXES))))
    assert again.scores == model.scores


def test_a_model_without_scores_says_nothing_of_them(crowd: Crowd) -> None:
    state = after(crowd, range(1, 8))
    assert state.model is not None
    assert state.model.scores is None
    assert "scores" not in state.model.published(AXES)["geometry"]


UNUSUAL = Score(name="odd", of="unusual")
WITH_UNUSUAL = replace(
    WANTED, scores=(*WANTED.scores, UNUSUAL), habits=("orders_total", "revenue_total", "lucky")
)


def test_who_is_unusual_is_known_before_anything_is_foretold(crowd: Crowd) -> None:
    """It needs no label, but segments: so from the second day on."""
    state = after(crowd, range(1, 8), wanted=WITH_UNUSUAL)
    assert state.model is not None
    scores = state.model.scores
    assert scores is not None
    assert scores.names == ("odd",)
    again = Model.from_published(
        msgspec.json.decode(msgspec.json.encode(state.model.published(AXES)))
    )
    assert again.scores == scores
    customers, users, total = np.sum(list(state.scored.values()), axis=0).tolist()
    assert customers == 0
    assert 0 < total < users
    assert told_whole(after(crowd, range(1, 8), workers=4, wanted=WITH_UNUSUAL)) == told_whole(
        state
    )
    raw, looks = told_whole(after(crowd, range(1, 5), wanted=WITH_UNUSUAL))
    taken = replace(TrainerState.unpack(raw), looks=Looks.unpack(looks))
    assert told_whole(after(crowd, range(5, 8), taken, wanted=WITH_UNUSUAL)) == told_whole(state)


def test_it_stands_beside_what_is_foretold_and_goes_when_it_is_not_wanted(
    crowd: Crowd, learned: TrainerState
) -> None:
    both = after(crowd, range(LAST, LAST + 2), learned, wanted=WITH_UNUSUAL)
    assert both.model is not None
    assert both.model.scores is not None
    assert both.model.scores.names == ("soon", "later", "money", "odd")
    rid = after(crowd, range(LAST + 2, LAST + 4), both)
    assert rid.model is not None
    assert rid.model.scores is not None
    assert rid.model.scores.names == ("soon", "later", "money")
    assert rid.model.scores.people is None
    alone = replace(WITH_UNUSUAL, scores=(UNUSUAL,))
    odd = after(crowd, range(LAST + 2, LAST + 4), both, wanted=alone)
    assert odd.model is not None
    assert odd.model.scores is not None
    assert odd.model.scores.names == ("odd",)
    assert not len(odd.looks), "nothing waits for a label"


def test_what_was_learned_today_is_a_new_version(crowd: Crowd, learned: TrainerState) -> None:
    later = after(crowd, range(LAST, LAST + 2), learned)
    assert learned.model is not None
    assert later.model is not None
    assert later.model.number > learned.model.number
    assert later.model.scores != learned.model.scores


def test_four_workers_come_to_the_same_as_one(crowd: Crowd, learned: TrainerState) -> None:
    assert told_whole(after(crowd, range(1, LAST), workers=4)) == told_whole(learned)


def test_a_takeover_changes_no_bit(crowd: Crowd, learned: TrainerState) -> None:
    before = after(crowd, range(1, 20))
    raw, looks = told_whole(before)
    taken = TrainerState.unpack(raw)
    assert not len(taken.looks), "they are stored beside the rest"
    taken = replace(taken, looks=Looks.unpack(looks))
    assert told_whole(after(crowd, range(20, LAST), taken)) == told_whole(learned)


def test_a_round_without_a_sample_learns_nothing_and_keeps_them(
    crowd: Crowd, learned: TrainerState
) -> None:
    sample = crowd.sample(LAST)
    parts = told(sample, learned.model, 1, sampled=False)
    later = learn(learned, parts, sample.at_ms, AXES, LEARNING, (), scores=WANTED)
    assert later.looks is learned.looks
    assert later.model is learned.model


def test_what_they_come_to_in_each_segment_is_added_up(learned: TrainerState) -> None:
    model = learned.model
    assert model is not None
    assert learned.scored.keys() == set(model.ids.tolist())
    customers, users, soon, _, money = np.sum(list(learned.scored.values()), axis=0).tolist()
    assert 150 < customers <= users
    assert 0.2 < soon / customers < 0.7
    assert money > 0


def test_what_came_of_it_is_stored_with_the_state(learned: TrainerState) -> None:
    assert learned.came == came_back(learned.looks, WANTED)
    assert learned.came
    assert TrainerState.unpack(learned.pack(AXES)).came == learned.came
    assert learn(learned, [], learned.round_ms + 1, AXES, LEARNING, ()).came == learned.came


def test_as_long_as_an_owner_has_not_told_it_is_as_it_was(
    crowd: Crowd, learned: TrainerState
) -> None:
    sample = crowd.sample(LAST)
    parts = told(sample, learned.model, 2)
    for of_another_version in (b"", bytes(8)):
        parts[1].scored = of_another_version
        later = learn(learned, parts, sample.at_ms, AXES, LEARNING, (), scores=WANTED)
        assert later.scored == learned.scored


def test_they_are_added_up_with_some_samples_only_but_at_once_where_nothing_is_known(
    crowd: Crowd, learned: TrainerState
) -> None:
    """What they come to costs owners half a look."""
    sample = crowd.sample(LAST)

    def looked(state: TrainerState, *totals: bool) -> TrainerState:
        """After a sample of two owners, each with what scores come to or without."""
        parts = told(sample, state.model, len(totals))
        for part, brings in zip(parts, totals, strict=True):
            part.scored = part.scored if brings else b""
        due = replace(state, sample_due_ms=0)
        return learn(due, parts, sample.at_ms, AXES, LEARNING, (), scores=WANTED)

    def wants_totals(state: TrainerState) -> bool:
        request = SampleRequest.of(state.owner_view, sample.at_ms + DAY_MS, 9)
        return request is not None and request.totals

    state = looked(learned, True, True)
    assert state.totals_in == SAMPLES_A_TOTAL - 1
    for _ in range(SAMPLES_A_TOTAL - 1):
        assert not wants_totals(state)
        state = looked(state, False, False)
    assert wants_totals(state)
    assert wants_totals(looked(state, True, False)), "all have to tell it"
    assert not wants_totals(looked(state, True, True))
    first, *_ = learned.scored
    fewer = {segment: sums for segment, sums in learned.scored.items() if segment != first}
    assert wants_totals(looked(replace(learned, scored=fewer, totals_in=5), False, False))


def test_totals_of_other_scores_are_never_taken_for_those_of_these(
    crowd: Crowd, learned: TrainerState
) -> None:
    """The same scores in another order: nothing is learned anew, but each has another column."""
    wanted = replace(WANTED, scores=tuple(reversed(WANTED.scores)))
    state = replace(learned, totals_in=9)
    for day in (LAST, LAST + 1):
        sample = crowd.sample(day)
        parts = told(sample, state.model, 1)
        parts[0].scored = b""
        due = replace(state, sample_due_ms=0)
        state = learn(due, parts, sample.at_ms, AXES, LEARNING, (), scores=wanted)
    assert state.model is not None
    assert state.model.scores is not None
    assert state.model.scores.names == ("money", "later", "soon")
    assert state.scored == {}
    assert state.totals_in == 0


def test_a_table_that_cannot_tell_has_none(crowd: Crowd) -> None:
    axes = GivenAxes(("a", "b", "c", "d"), *(getattr(AXES, name) for name in (
        "units", "words", "limits", "weights", "schema")))  # fmt: skip
    state, sample = TrainerState(), crowd.sample(30)
    for day in range(2):
        part = told(sample, None, 1)[0]
        part.at_ms = START_MS + day * DAY_MS
        state = learn(state, [part], part.at_ms, axes, LEARNING, (), scores=WANTED)
    assert state.model is not None
    assert state.model.scores is None
    assert not len(state.looks)
