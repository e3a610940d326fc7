"""Who leaves and soon goes back is counted, once, whoever owns the partition; and moves nobody."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.config import Settings
from stream.events import Cause, Counts
from stream.flapping import Flapping, Rates, Tally, together
from stream.kinds import DEFAULT_KINDS
from stream.learning.rounds import learn
from stream.learning.state import TrainerState
from stream.learning.statistics import PartitionStatistics
from stream.model import Model
from stream.partition import Partition
from stream.segments import PublishRule
from stream.store.state import Position
from stream.units import DAY_MS, iso
from tests.stream.test_metrics import value
from tests.stream.test_partition import EVERYONE, LEARNING, RULE, TABLE, act, batch, history, models
from tests.stream.test_segments import ACTED, NOW, TIME, look_at, moved, users

WEEK, SEASON = 7 * DAY_MS, 60 * DAY_MS
COUNTING = replace(RULE, revert_ms=WEEK)
SEASONAL = replace(RULE, revert_ms=SEASON)


# -- the rule ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wait_ms", "back"), [(0, True), (WEEK - 1, True), (WEEK, False), (9 * WEEK, False)]
)
def test_who_goes_back_in_time_has_flapped(wait_ms: int, back: bool) -> None:
    rows = users(7)
    there = look_at(rows, [0.9], rule=COUNTING)
    assert there.moves.reverted.tolist() == [False]
    assert rows["previous"].tolist() == [7]
    again = look_at(rows, [0.1], rule=COUNTING, now=NOW + wait_ms)
    assert moved(again) == [(9, 7, TIME)]
    assert again.moves.reverted.tolist() == [back]
    assert rows["previous"].tolist() == [9]


def test_who_goes_on_to_a_third_has_not() -> None:
    centroids, ids = np.array([[0.0], [1.0], [2.0]]), (7, 9, 4)
    rows = users(0)
    answers = [
        look_at(rows, [place], rule=COUNTING, centroids=centroids, ids=ids, cause=ACTED)
        for place in (0.0, 1.0, 2.0, 1.0)
    ]
    assert [answer.moves.reverted.tolist() for answer in answers] == [
        [False], [False], [False], [True],
    ]  # fmt: skip


def test_without_the_time_nobody_flaps() -> None:
    rows = users(7)
    look_at(rows, [0.9])
    assert look_at(rows, [0.1]).moves.reverted.tolist() == [False]


@given(st.lists(st.floats(0, 1), max_size=30), st.integers(0, 2 * WEEK))
@settings(max_examples=50, deadline=None)
def test_what_is_counted_moves_nobody(places: list[float], revert_ms: int) -> None:
    one, other = users(0), users(0)
    for step, place in enumerate(places):
        now = NOW + step * DAY_MS
        first = look_at(one, [place], now=now)
        second = look_at(other, [place], rule=replace(RULE, revert_ms=revert_ms), now=now)
        assert moved(first) == moved(second)
    assert one.tobytes() == other.tobytes()


def test_the_setting_reaches_the_rule() -> None:
    settings = Settings.model_validate({"publish": {"revert_seconds": "2d"}})
    assert settings.publish.rule().revert_ms == 2 * DAY_MS
    usual = Settings().publish.rule()
    assert usual == replace(
        RULE, revert_ms=WEEK, sign_gap_ms=1_800_000, silence_margin=0.1, apart=25.0,
        return_ms=45 * DAY_MS, usual_gaps=1.5,
    )  # fmt: skip
    told = {"publish": {"apart": 4.0, "return_seconds": "5d", "usual_gaps": 2}}
    rule = Settings.model_validate(told).publish.rule()
    assert (rule.apart, rule.return_ms, rule.usual_gaps) == (4.0, 5 * DAY_MS, 2.0)


# -- the tallies ---------------------------------------------------------------------------------


def test_changes_by_the_days_spent() -> None:
    start = 100 * DAY_MS
    found = Flapping().swept({5: 10, 7: 40}, start, 0)
    assert found.tallies[5].rates() == Rates(None, None)
    found = found.moved({5: 3, 7: 1}, {5: 2}, start + DAY_MS, 0)
    found = found.swept({5: 10, 7: 40}, start + 2 * DAY_MS, 0)
    assert found.tallies == {5: Tally(3, 2, 20), 7: Tally(1, 0, 80)}
    assert found.tallies[5].rates() == Rates(0.15, 2 / 3)
    assert found.tallies[7].rates() == Rates(1 / 80, 0.0)


def test_the_past_fades_by_its_age() -> None:
    start = 100 * DAY_MS
    found = Flapping().swept({5: 1}, start, WEEK)
    found = found.moved({5: 8}, {5: 4}, start + 3 * DAY_MS, WEEK)
    found = found.swept({5: 1}, start + 3 * DAY_MS, WEEK)
    assert found.tallies[5].changes == pytest.approx(8)
    assert found.tallies[5].user_days == pytest.approx(3)
    found = found.swept({5: 0}, start + 10 * DAY_MS, WEEK)
    assert found.tallies[5].changes == pytest.approx(4)
    assert found.tallies[5].reverted == pytest.approx(2)
    assert found.tallies[5].user_days == pytest.approx(1.5)


def test_a_long_silence_of_the_worker_is_survived() -> None:
    found = Flapping().swept({5: 1}, DAY_MS, 1)
    found = found.moved({5: 1}, {}, 900 * DAY_MS, 1).swept({5: 1}, 900 * DAY_MS, 1)
    assert found.tallies[5].changes == pytest.approx(1)


def test_time_that_goes_back_is_no_time() -> None:
    found = Flapping().swept({5: 1}, 9 * DAY_MS, WEEK)
    assert found.swept({5: 1}, 8 * DAY_MS, WEEK) == found


def test_a_retired_segment_takes_its_tally_with_it() -> None:
    found = Flapping().moved({5: 3}, {}, 1, 0).swept({7: 1}, DAY_MS, 0)
    assert found.tallies == {7: Tally()}


def test_partitions_add_up() -> None:
    assert together([{5: Tally(1, 1, 2)}, {7: Tally(3)}, {5: Tally(1, 0, 8)}]) == {
        5: Tally(2, 1, 10),
        7: Tally(3),
    }


# -- the partition and the trainer ---------------------------------------------------------------


def played(
    rule: PublishRule = SEASONAL, applied: PublishRule | None = None
) -> tuple[Partition, PartitionStatistics]:
    """The history under a rule that counts; and the statistics of its last sweep.

    Args:
        applied: a rule that a person applied, which comes with the models.
    """
    partition = Partition(0, TABLE, rule, Position([0, 0], TABLE.schema), 0)
    statistics = None
    for step in history():
        events = batch(partition, step.events)
        if step.adopt is not None:
            partition.adopt(replace(models()[step.adopt], rule=applied), step.now_ms, 0)
        elif step.sweep:
            touched, _ = partition.fold(events)
            statistics = partition.sweep(step.now_ms, 0, acted=touched, sample=EVERYONE)
        else:
            act(partition, events, step.now_ms, 0)
    assert statistics is not None
    return partition, statistics


def living() -> Model:
    return models()[-1]


def test_the_tallies_are_those_of_the_records() -> None:
    """Recounted from the records alone, each with the weight of its age."""
    before = {s: value("segment_changes_total", segment=str(s)) for s in living().ids.tolist()}
    partition, statistics = played()
    commit = partition.commit([0, 0], Counts(), 0)
    records = [json.loads(change) for entry in commit.outbox for change in entry.changes]
    now = statistics.at_ms
    changes: dict[int, float] = defaultdict(float)
    reverted: dict[int, float] = defaultdict(float)
    left: Counter[int] = Counter()
    last: dict[str, tuple[int, int | None]] = {}
    times = {iso(step.now_ms): step.now_ms for step in history()}
    for record in records:
        at, origin = times[record["at"]], record["from"]
        if record["cause"] == Cause.SEGMENT_TURNED:
            continue  # nobody leaves
        if origin is not None:
            weight = 2.0 ** (-(now - at) / SEASON)
            changes[origin] += weight
            left[origin] += 1
            when, previous = last[record["user"]]
            if record["to"] == previous and at - when < SEASON:
                reverted[origin] += weight
        last[record["user"]] = (at, origin)
    assert sum(left.values()) > 30
    assert sum(reverted.values()) > 0
    assert statistics.flapping == commit.position.flapping.tallies
    assert list(statistics.flapping) == living().ids.tolist()
    for segment, tally in statistics.flapping.items():
        assert tally.changes == pytest.approx(changes[segment])
        assert tally.reverted == pytest.approx(reverted[segment])

    def gained() -> dict[int, float]:
        now = {s: value("segment_changes_total", segment=str(s)) for s in before}
        return {s: float(np.nan_to_num(now[s]) - np.nan_to_num(before[s])) for s in before}

    assert not any(gained().values()), "the store may refuse the commit"
    partition.committed(commit)
    assert gained() == {segment: left[segment] for segment in before}


def test_what_a_person_applied_counts_and_forgets_in_its_own_time() -> None:
    usual, applied = (played(rule, SEASONAL)[1].flapping for rule in (SEASONAL, COUNTING))
    assert applied == usual != played(COUNTING)[1].flapping


def test_the_trainer_tells_of_all_partitions() -> None:
    _, statistics = played()
    assert PartitionStatistics.unpack(statistics.pack()).flapping == statistics.flapping
    state = TrainerState(model=living(), next_id=50)
    state = learn(state, [statistics], statistics.at_ms, TABLE, LEARNING, DEFAULT_KINDS)
    assert state.flapping == statistics.flapping
    again = TrainerState.unpack(state.pack(TABLE))
    assert again.flapping == state.flapping
    assert state.model is not None
    assert state.model is not living(), "the refit that was due"
    told = state.model.published(TABLE)["segments"]
    for segment in told:
        tally = statistics.flapping.get(segment["id"], Tally())
        assert Rates(**segment["flapping"]) == tally.rates()
    assert Model.from_published(state.model.published(TABLE)).segments == state.model.segments


def test_a_record_from_before_there_was_flapping_is_read() -> None:
    old = living().published(TABLE)
    for segment in old["segments"]:
        del segment["flapping"]  # type: ignore[misc]
    assert Model.from_published(old).segments[0].flapping == Rates()
