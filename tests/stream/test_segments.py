"""Who moves, how far is far enough, and why: by arithmetic on a line.

Two centroids lie at 0 and 1, so a user at x who is in the first segment has the margin
z = x - 1/2 towards the second: 0 on the border, 1/2 at the centroid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream.clustering import GRID, distances, on_grid, separated
from stream.events import CAUSES, Cause, Floats, Rows
from stream.features import DEFAULT_FEATURES, FeatureTable
from stream.segments import (
    EVIDENCE,
    Look,
    PublishRule,
    columns_of,
    contributions,
    look,
    published_now,
    published_then,
)
from stream.units import DAY_MS

TABLE = FeatureTable(DEFAULT_FEATURES)
ONE = np.ones(1)
LINE = np.array([[0.0], [1.0]])
IDS = np.array([7, 9], np.int32)
RULE = PublishRule(margin=0.2, provisional_looks=3, dwell_ms=0)
NOW = 1_000_000
NEARNESS = 0.25
"""Of the two on the line, where it matters: a rule with `apart` 8 asks for twice the margin."""
ACTED, TIME, MODEL = Cause.USER_MOVED, Cause.TIME_PASSED, Cause.MODEL_MOVED


def users(*segments: int) -> Rows:
    """Users settled in these segments (0: not yet in any)."""
    rows = TABLE.blank(len(segments))
    rows["segment"] = segments
    rows["version"] = [segment > 0 for segment in segments]
    rows["looks"] = 10
    return rows


def look_at(
    rows: Rows,
    places: Sequence[float],
    *,
    rule: PublishRule = RULE,
    cause: Cause = TIME,
    now: int = NOW,
    centroids: Floats = LINE,
    ids: Sequence[int] = (7, 9),
    nearness: float = 0.0,
    resting: Sequence[bool] | None = None,
    crossing: Sequence[bool] | None = None,
) -> Look:
    """Look once at users who stand at these places."""
    mapped = np.array(places, float)[:, None]
    return look(
        rows,
        distances(mapped, centroids, ONE),
        np.array(ids, np.int32),
        separated(centroids, ONE),
        rule,
        np.full(len(rows), CAUSES.index(cause), np.uint8),
        now,
        crossing=None if crossing is None else np.array(crossing),
        nearness=np.full((len(ids), len(ids)), nearness),
        resting=None if resting is None else np.array(resting),
    )


def moved(answer: Look) -> list[tuple[int, int, Cause]]:
    """(before, after, cause) of each move."""
    moves = answer.moves
    return [
        (b, a, CAUSES[c])
        for b, a, c in zip(
            moves.before.tolist(), moves.after.tolist(), moves.cause.tolist(), strict=True
        )
    ]


# -- the margin ----------------------------------------------------------------------------------


def test_the_border_moves_nobody_however_often() -> None:
    rows = users(7, 9)
    for _ in range(300):
        answer = look_at(rows, [0.5, 0.5])
        assert len(answer.moves) == 0
        assert len(answer.changed) == 0
    assert rows["segment"].tolist() == [7, 9]


def test_margins_add_up_from_act_to_act() -> None:
    rows = users(7)
    first = look_at(rows, [0.65], cause=ACTED)
    assert len(first.moves) == 0
    assert first.changed.tolist() == [0], "what it adds up to is kept"
    assert rows["candidate"].tolist() == [9]
    assert rows["evidence"].tolist() == [int(0.15 * EVIDENCE)]
    second = look_at(rows, [0.65], cause=ACTED, now=NOW + 5)
    assert moved(second) == [(7, 9, ACTED)]
    assert second.moves.margin.tolist() == pytest.approx([0.15])
    assert rows["segment"].tolist() == [9]
    assert rows["since"].tolist() == [NOW + 5]
    assert rows["version"].tolist() == [2]
    assert rows["candidate"].tolist() == rows["evidence"].tolist() == [0]


@pytest.mark.parametrize("cause", [TIME, MODEL])
def test_to_look_again_adds_nothing(cause: Cause) -> None:
    rows = users(7, 7)
    look_at(rows, [0.65, 0.65], cause=ACTED)
    for place in (0.65, 0.6, 0.699):
        before = rows.copy()
        assert len(look_at(rows, [place, place], cause=cause).moves) == 0
        assert rows.tobytes() == before.tobytes(), "and takes nothing away"
    assert moved(look_at(rows, [0.71, 0.6], cause=cause)) == [(7, 9, cause)]


def test_acts_close_together_are_one_sign() -> None:
    rule = replace(RULE, sign_gap_ms=1_000)
    rows = users(7)
    for after in (0, 10, 500, 999):
        assert len(look_at(rows, [0.65], rule=rule, cause=ACTED, now=NOW + after).moves) == 0
    assert rows["sign"].tolist() == [NOW], "nor does what adds nothing put off the next"
    assert moved(look_at(rows, [0.6], rule=rule, cause=ACTED, now=NOW + 1_000)) == [(7, 9, ACTED)]
    ahead = users(7)
    look_at(ahead, [0.65], rule=rule, cause=ACTED, now=NOW + 86_400_000)
    assert len(look_at(ahead, [0.65], rule=rule, cause=ACTED).moves) == 1, "a clock was ahead"


def test_many_small_margins_are_a_large_one() -> None:
    rows = users(7)
    acts = 0
    while rows["segment"][0] == 7:
        look_at(rows, [0.5 + 0.03], cause=ACTED)
        acts += 1
    assert acts == 7, "0.2 / 0.03, and one more"


def test_a_large_margin_moves_at_once() -> None:
    rows = users(7, 9)
    answer = look_at(rows, [0.85, 0.15])
    assert moved(answer) == [(7, 9, TIME), (9, 7, TIME)]
    assert answer.moves.margin.tolist() == pytest.approx([0.35, 0.35])
    assert (answer.moves.column_before.tolist(), answer.moves.column.tolist()) == ([0, 1], [1, 0])


def test_the_margin_at_the_new_centroid_is_a_half() -> None:
    assert look_at(users(7), [1.0]).moves.margin.tolist() == [0.5]


def test_a_margin_of_just_the_limit_is_not_over_it() -> None:
    rule = PublishRule(margin=0.25, provisional_looks=3, dwell_ms=0)
    for cause in (ACTED, TIME):
        assert len(look_at(users(7), [0.75], rule=rule, cause=cause).moves) == 0
    acting = users(7)
    look_at(acting, [0.75], rule=rule, cause=ACTED)
    assert len(look_at(acting, [0.75], rule=rule, cause=TIME).moves) == 0
    assert len(look_at(acting, [0.5 + 1 / GRID], rule=rule, cause=ACTED).moves) == 1


@pytest.mark.parametrize("cause", [ACTED, TIME, MODEL])
@pytest.mark.parametrize("pause", [0.5, 0.2])
def test_a_look_back_over_the_border_begins_anew(cause: Cause, pause: float) -> None:
    rows = users(7)
    look_at(rows, [0.65], cause=ACTED)
    assert look_at(rows, [pause], cause=cause).changed.tolist() == [0]
    assert rows["evidence"].tolist() == rows["candidate"].tolist() == [0]
    assert len(look_at(rows, [0.65], cause=ACTED).moves) == 0
    assert len(look_at(rows, [0.65], cause=ACTED).moves) == 1


def test_another_candidate_begins_anew() -> None:
    centroids, ids = np.array([[0.0], [1.0], [-1.0]]), (7, 9, 4)
    rows = users(7)
    for place in (0.65, -0.65, 0.65, -0.65):
        assert len(look_at(rows, [place], cause=ACTED, centroids=centroids, ids=ids).moves) == 0
    answer = look_at(rows, [-0.65], cause=ACTED, centroids=centroids, ids=ids)
    assert moved(answer) == [(7, 4, ACTED)]


# -- first, retired, dwelling --------------------------------------------------------------------


def test_a_first_assignment_goes_to_the_nearest_at_once() -> None:
    rows = users(0, 0)
    rows["looks"] = 0
    answer = look_at(rows, [0.49, 0.51], cause=ACTED)
    assert moved(answer) == [(0, 7, ACTED), (0, 9, ACTED)]
    assert np.isnan(answer.moves.margin).all()
    assert answer.moves.column_before.tolist() == [-1, -1]
    assert answer.moves.provisional.all()
    assert rows["version"].tolist() == [1, 1]


def test_a_retired_segment_is_left_at_once_and_says_so() -> None:
    rule = PublishRule(0.2, 3, dwell_ms=10**9)
    rows = users(5, 5)
    rows["since"] = NOW
    answer = look_at(rows, [0.5, 0.52], rule=rule, cause=MODEL)
    assert moved(answer) == [(5, 7, Cause.SEGMENT_RETIRED), (5, 9, Cause.SEGMENT_RETIRED)]
    assert np.isnan(answer.moves.margin).all()
    assert not answer.moves.provisional.any()


def test_a_user_stays_for_the_dwell_and_leaves_when_it_is_over() -> None:
    rule = PublishRule(0.2, 3, dwell_ms=1_000)
    rows = users(7, 7)
    rows["since"] = NOW
    for now in (NOW, NOW + 500, NOW + 999):
        assert len(look_at(rows, [0.71, 0.95], rule=rule, now=now).moves) == 0
    assert len(look_at(rows, [0.71, 0.95], rule=rule, now=NOW + 1_000).moves) == 2


def test_without_a_dwell_a_clock_that_was_ahead_keeps_nobody() -> None:
    rows = users(7)
    rows["since"], rows["previous"] = NOW + 86_400_000, 9
    answer = look_at(rows, [0.95])
    assert len(answer.moves) == 1
    assert not answer.moves.reverted.any(), "a rule that counts no one counts no one"


def test_a_user_is_provisional_for_the_first_looks_at_their_own_acts() -> None:
    rows = users(0)
    rows["looks"] = 0
    flags = []
    for step in range(6):
        here = float(step % 2)
        flags += look_at(rows, [here], cause=ACTED).moves.provisional.tolist()
        assert len(look_at(rows, [here], cause=TIME).moves) == 0
    assert flags == [True, True, True, False, False, False]
    assert rows["looks"].tolist() == [6]


def test_counters_stop_at_their_ends() -> None:
    rule = PublishRule(0.2, 3, dwell_ms=10**9)
    rows = users(7)
    rows["since"], rows["looks"] = NOW, 254
    for _ in range(300):
        look_at(rows, [0.9], rule=rule, cause=ACTED)
    assert rows["looks"].tolist() == [255]
    assert rows["evidence"].tolist() == [65_535]
    assert len(look_at(rows, [0.51], rule=rule, now=NOW + 10**9).moves) == 1


# -- silence ---------------------------------------------------------------------------------------

QUIET = replace(RULE, silence_margin=0.1)


def test_silence_moves_at_the_smaller_margin() -> None:
    rows = users(7, 7, 7)
    assert len(look_at(rows, [0.45, 0.45, 0.45], rule=QUIET, cause=ACTED).moves) == 0
    answer = look_at(rows, [0.59, 0.61, 0.61], rule=QUIET, cause=TIME)
    assert moved(answer) == [(7, 9, TIME)] * 2
    assert moved(look_at(rows, [0.61, 0.9, 0.9], rule=QUIET, cause=TIME)) == [(7, 9, TIME)]
    larger = replace(RULE, silence_margin=0.4)
    assert len(look_at(users(7), [0.71], rule=larger, cause=TIME).moves) == 1, "but never a larger"


@pytest.mark.parametrize("carrier", [ACTED, MODEL])
def test_whom_time_did_not_carry_over_needs_the_full_margin(carrier: Cause) -> None:
    rows = users(7)
    for cause, place in ((carrier, 0.65), (TIME, 0.65), (TIME, 0.69), (MODEL, 0.69), (TIME, 0.6)):
        assert len(look_at(rows, [place], rule=QUIET, cause=cause).moves) == 0, (cause, place)
    assert moved(look_at(rows, [0.71], rule=QUIET, cause=TIME)) == [(7, 9, TIME)]


@pytest.mark.parametrize("carrier", [ACTED, MODEL])
def test_who_was_near_the_border_then_is_carried_by_time_now(carrier: Cause) -> None:
    rows = users(7, 7)
    look_at(rows, [0.65, 0.55], rule=QUIET, cause=carrier)
    look_at(rows, [0.45, 0.55], rule=QUIET, cause=TIME)  # back behind the border is anew
    assert len(look_at(rows, [0.62, 0.62], rule=QUIET, cause=TIME).moves) == 2


def test_evidence_of_another_model_is_dropped_where_the_model_does_more() -> None:
    rows = users(7)
    look_at(rows, [0.55], rule=QUIET, cause=ACTED)
    look_at(rows, [0.65], rule=QUIET, cause=MODEL)
    assert (rows["candidate"].tolist(), rows["evidence"].tolist()) == ([9], [0])
    assert len(look_at(rows, [0.65], rule=QUIET, cause=TIME).moves) == 0
    assert len(look_at(rows, [0.65], rule=QUIET, cause=ACTED).moves) == 0
    assert moved(look_at(rows, [0.56], rule=QUIET, cause=ACTED)) == [(7, 9, ACTED)]


# -- causes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [TIME, MODEL, ACTED])
def test_a_move_has_the_cause_of_the_look_that_made_it(last: Cause) -> None:
    rows = users(7)
    look_at(rows, [0.6], cause=ACTED)
    assert moved(look_at(rows, [0.9], cause=last)) == [(7, 9, last)]


@pytest.mark.parametrize("last", [TIME, MODEL, ACTED])
def test_who_was_due_by_acts_and_had_to_stay_moves_by_acts(last: Cause) -> None:
    rule = PublishRule(0.2, 3, dwell_ms=1_000)
    rows = users(7, 7)
    rows["since"] = NOW
    look_at(rows, [0.75, 0.65], rule=rule, cause=ACTED)
    assert len(look_at(rows, [0.75, 0.65], rule=rule, cause=ACTED).moves) == 0
    answer = look_at(rows, [0.6, 0.6], rule=rule, cause=last, now=NOW + 1_000)
    assert moved(answer) == [(7, 9, ACTED), (7, 9, ACTED)]


@given(
    st.lists(
        st.tuples(st.sampled_from([0, 7, 8, 9]), st.floats(0, 1), st.integers(0, 2_000)),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from([TIME, MODEL]),
)
def test_a_look_leaves_alone_who_is_where_they_belong(
    standing: list[tuple[int, float, int]], cause: Cause
) -> None:
    rows = users(*(segment for segment, _, _ in standing))
    rows["evidence"] = [kept for _, _, kept in standing]
    rows["candidate"] = np.where(rows["evidence"] > 0, 9, 0)
    places = on_grid(np.array([place for _, place, _ in standing]))
    best = distances(places[:, None], LINE, ONE).argmin(axis=1)
    decided = (columns_of(rows["segment"], IDS) == best) & (rows["evidence"] == 0)
    before = rows.copy()
    answer = look_at(rows, places.tolist(), cause=cause)
    assert not decided[answer.changed].any()
    assert rows[decided].tobytes() == before[decided].tobytes()


# -- the whole rule, against a plain one ---------------------------------------------------------


@dataclass
class PlainUser:
    """The publish rule for one user on the line, in words that read like it."""

    segment: int = 0
    previous: int = 0
    since: int = 0
    candidate: int = 0
    evidence: Fraction = Fraction(0)
    sign: int | None = None
    version: int = 0
    models: bool = False
    """Whether the model carried them over the border, by more than silence needs."""

    def look(
        self, place: Fraction, cause: Cause, now: int, rule: PublishRule, *, resting: bool
    ) -> Cause | None:
        """The cause of the move, if there is one."""
        nearest = 7 if place <= Fraction(1, 2) else 9
        if self.segment == 0:
            return self.move(nearest, cause, now)
        margin = place - Fraction(1, 2) if self.segment == 7 else Fraction(1, 2) - place
        if margin <= 0:
            self.forget()
            return None
        soon = self.previous == nearest and now - self.since < rule.return_ms
        held = (soon or resting) and cause is not ACTED
        times = max(1.0, rule.apart * NEARNESS)
        asked, silence = (
            min(Fraction(one) * Fraction(times), max(Fraction(one), Fraction(0.45)))
            for one in (rule.margin, min(rule.silence_margin, rule.margin))
        )
        little = self.evidence <= silence
        if cause is ACTED and (self.sign is None or now - self.sign >= rule.sign_gap_ms):
            self.candidate, self.evidence, self.sign = nearest, self.evidence + margin, now
        by_acts = self.evidence > asked
        by_time = cause is TIME and little and not self.models
        due = by_acts or (not held and margin > (silence if by_time else asked))
        if due and now - self.since >= rule.dwell_ms:
            return self.move(nearest, ACTED if by_acts else cause, now)
        # What is kept is rounded down.
        self.evidence = Fraction(int(self.evidence * EVIDENCE), EVIDENCE)
        if not self.evidence:
            self.sign = None  # an act of which nothing is kept does not speak for the next one
        if cause is MODEL and margin > silence and little:
            self.forget()
            self.models, self.candidate = True, nearest
        elif self.evidence:
            self.models = False
        elif not self.models:
            self.forget()
        return None

    def forget(self) -> None:
        self.candidate, self.evidence, self.sign, self.models = 0, Fraction(0), None, False

    def move(self, to: int, cause: Cause, now: int) -> Cause:
        self.segment, self.previous, self.since = to, self.segment, now
        self.forget()
        self.version += 1
        return cause


_EXACT = PublishRule(
    margin=0.25, provisional_looks=3, dwell_ms=50, sign_gap_ms=25, silence_margin=0.125
)
_RULES = (
    _EXACT,
    replace(_EXACT, return_ms=100),
    replace(_EXACT, return_ms=200, dwell_ms=0),
    replace(_EXACT, apart=5.0),
    replace(_EXACT, apart=32.0, return_ms=100),
)
_PLACES = st.one_of(
    st.sampled_from([0.0, 0.25, 0.375, 0.5, 0.625, 0.6875, 0.75, 0.8125, 1.0]),
    st.integers(0, int(GRID)).map(lambda steps: steps / GRID),
)


@given(
    st.lists(
        st.tuples(_PLACES, st.sampled_from([ACTED, TIME, MODEL]), st.integers(0, 60)), max_size=30
    ),
    st.sampled_from(_RULES),
    st.lists(st.booleans(), min_size=30, max_size=30),
)
@example(
    [(0.0, ACTED, 0), (0.0, ACTED, 50), (0.6875, TIME, 0), (0.0, MODEL, 0), (0.5, ACTED, 0)],
    _EXACT,
    [False] * 30,
)
@example(
    [(0.0, ACTED, 0), (0.6875, MODEL, 50), (0.5 + 1 / GRID, ACTED, 0), (0.625, ACTED, 10)],
    _EXACT,
    [False] * 30,
)
@settings(max_examples=200, deadline=None)
def test_the_rule_is_the_plain_one(
    looks: list[tuple[float, Cause, int]], rule: PublishRule, rests: list[bool]
) -> None:
    rows, plain, now = users(0), PlainUser(), NOW
    for (place, cause, wait), resting in zip(looks, rests, strict=False):
        now += wait
        before = rows.copy()
        answer = look_at(
            rows, [place], rule=rule, cause=cause, now=now, nearness=NEARNESS, resting=[resting]
        )
        told = plain.look(Fraction(place), cause, now, rule, resting=resting)
        assert [c for _, _, c in moved(answer)] == ([] if told is None else [told])
        assert rows["segment"].tolist() == [plain.segment]
        assert rows["version"].tolist() == [plain.version]
        assert rows["candidate"].tolist() == [plain.candidate]
        if rows["segment"][0] and plain.version:
            assert rows["since"].tolist() == [plain.since]
        assert rows["evidence"].tolist() == [int(plain.evidence * EVIDENCE)]
        assert rows["sign"].tolist() == [plain.sign or 0]
        if rows.tobytes() != before.tobytes():
            assert answer.changed.tolist() == [0]


_NEAR = st.lists(st.integers(int(-0.19 * GRID), int(0.19 * GRID)), min_size=1, max_size=40)


@given(_NEAR)
@settings(max_examples=40, deadline=None)
def test_nobody_flaps_on_a_border_without_acting(steps: list[int]) -> None:
    rows = users(7, 9)
    for step in steps:
        place = 0.5 + step / GRID
        assert len(look_at(rows, [place, place], cause=TIME).moves) == 0
    assert rows["segment"].tolist() == [7, 9]


@given(_NEAR)
@settings(max_examples=40, deadline=None)
def test_each_move_near_a_border_is_earned(steps: list[int]) -> None:
    rows = users(7)
    moves = sum(len(look_at(rows, [0.5 + step / GRID], cause=ACTED).moves) for step in steps)
    assert moves * RULE.margin <= sum(map(abs, steps)) / GRID
    assert moves <= sum((a > 0) != (b > 0) for a, b in zip([-1, *steps], steps, strict=False))


def test_users_do_not_depend_on_their_neighbours() -> None:
    rng = np.random.default_rng(3)
    segments = rng.choice([0, 5, 7, 9], 50).tolist()
    together, apart = users(*segments), users(*segments)
    for _ in range(8):
        places = rng.uniform(0, 1, 50).tolist()
        all_moves = moved(look_at(together, places))
        each = [look_at(apart[i : i + 1], [place]) for i, place in enumerate(places)]
        assert all_moves == [move for one in each for move in moved(one)]
    assert together.tobytes() == apart.tobytes()


# -- rest ----------------------------------------------------------------------------------------


def test_only_acts_move_who_rests() -> None:
    for cause in (TIME, MODEL):
        rows = users(7, 7)
        assert moved(look_at(rows, [1.0, 1.0], cause=cause, resting=[True, False])) == [
            (7, 9, cause)
        ]
        assert rows["segment"].tolist() == [7, 9]
        assert moved(look_at(rows[:1], [1.0], cause=ACTED, resting=[True])) == [(7, 9, ACTED)]


def test_who_rests_leaves_a_segment_that_is_no_more() -> None:
    rows = users(5, 0)
    found = look_at(rows, [1.0, 1.0], cause=MODEL, resting=[True, True])
    assert moved(found) == [(5, 9, Cause.SEGMENT_RETIRED), (0, 9, MODEL)]


def test_crossing_a_rule_waits_for_no_rest_no_return_and_no_margin() -> None:
    rows = users(7, 7)
    rows["previous"], rows["since"] = 9, NOW - 1
    rule = replace(RULE, return_ms=DAY_MS)
    found = look_at(rows, [0.51, 0.51], rule=rule, resting=[True, True], crossing=[True, False])
    assert moved(found) == [(7, 9, TIME)]
    assert found.moves.index.tolist() == [0]


def test_rest_is_a_silence_that_is_usual_for_somebody() -> None:
    names = ("days_since_order", "order_gap_days", "orders_total")
    rule = replace(RULE, usual_gaps=1.5, return_ms=45 * DAY_MS)
    regulars = [(14.9, 10.0, 4), (15.0, 10.0, 4), (44.9, 300.0, 9), (45.0, 300.0, 9)]
    little_known = [(1.0, 10.0, 3), (1.0, 0.0, 1), (400.0, 0.0, 0)]
    people = [*regulars, *little_known]
    found = rule.resting(names, np.array(people))
    assert found is not None
    assert found.tolist() == [True, False, True, False, *[False] * 3]
    assert rule.resting(names[:1], np.array(people)) is None, "no feature tells"
    assert replace(rule, usual_gaps=0.0).resting(names, np.array(people)) is None


def test_a_shop_may_say_how_short_a_silence_means_nothing() -> None:
    names = ("days_since_order", "order_gap_days", "orders_total", "days_since_seen")
    by_both = replace(RULE, usual_gaps=1.5, return_ms=45 * DAY_MS, rest_ms=10 * DAY_MS)
    people = np.array([
        (14.0, 10.0, 4, 14.0),  # a regular, within their gaps
        (16.0, 10.0, 4, 16.0),
        (400.0, 0.0, 0, 9.9),  # never ordered, was here
        (16.0, 10.0, 4, 9.9),
        (400.0, 0.0, 0, 10.0),
    ])  # fmt: skip
    days = by_both.rest_days(names, people)
    assert days is not None
    assert days.tolist() == pytest.approx([1.0, -1.0, 0.1, 0.1, 0.0])
    by_seen = replace(by_both, usual_gaps=0.0).resting(names, people)
    assert by_seen is not None
    assert by_seen.tolist() == [False, False, True, True, False]
    assert by_both.resting(names[1:3], people[:, 1:3]) is None, "no feature tells"


def test_columns_are_found_whatever_the_order_of_ids() -> None:
    segments = np.array([4, 9, 0, 7, 100], np.int32)
    assert columns_of(segments, np.array([9, 4, 7], np.int32)).tolist() == [1, 0, -1, 2, -1]
    assert columns_of(segments[:0], IDS).tolist() == []


# -- why -----------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(1, 20))
@settings(deadline=None)
def test_contributions_add_up_to_the_difference_exactly(seed: int, features: int) -> None:
    rng = np.random.default_rng(seed)
    mapped, old, new = np.clip(on_grid(rng.normal(0, 2, (3, 4, features))), -4, 4)
    weights = rng.integers(0, 65, features) / 64
    parts = contributions(mapped, old, new, weights)
    for user in range(4):
        to_both = distances(mapped[user : user + 1], np.array([old[user], new[user]]), weights)[0]
        total = sum((Fraction(part) for part in parts[user].tolist()), Fraction(0))
        assert total == Fraction(to_both[0]) - Fraction(to_both[1])


# -- who will be where -----------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.sampled_from([0, 7, 9, 11, 5]), st.floats(-1, 3), st.booleans()), max_size=30
    )
)
def test_who_will_be_where_is_what_an_adoption_makes_of_them(
    people: list[tuple[int, float, bool]],
) -> None:
    # One in each segment to begin with: none is without anybody.
    settled = [(7, 0.0, False), (9, 1.0, False), (11, 2.0, False)]
    segments, places, rests = zip(*settled, *people, strict=True)
    rows = users(*segments)
    centroids, ids = np.array([[0.0], [1.0], [2.0]]), np.array([7, 9, 11], np.int32)
    squared = distances(np.array(places)[:, None], centroids, ONE)
    foretold = published_then(
        rows["segment"], ids, squared, separated(centroids, ONE), RULE, resting=np.array(rests)
    )
    answer = look_at(
        rows, places, cause=MODEL, centroids=centroids, ids=ids.tolist(), resting=rests
    )
    assert answer.columns.tolist() == foretold.tolist()
    assert published_now(rows["segment"], ids, squared).tolist() == foretold.tolist()


def test_a_segment_without_anybody_has_those_nearest_to_it() -> None:
    places = np.array([0.0, 0.6, 0.1])
    squared = distances(places[:, None], LINE, ONE)
    everyone = np.array([7, 7, 7], np.int32)
    assert published_now(everyone, IDS, squared).tolist() == [0, 1, 0]
    assert published_now(np.array([7, 7, 9], np.int32), IDS, squared).tolist() == [0, 0, 1]
