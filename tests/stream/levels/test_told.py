"""Crossings of limits are told in the user's own chain: by acts, by time, and whoever owns the partition."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stream.delivered import Delivered
from stream.events import LEVEL_CHANGE, Cause, Floats
from stream.levels.book import LevelBook, count_codes, none_told
from stream.levels.steps import KnownLevel, KnownRule, KnownStep, Levels, Values
from stream.levels.told import crossings, reasons
from stream.oracle import Event
from stream.scores.model import NOTHING_FORETOLD, Scores
from stream.scores.unusual import learn
from stream.units import DAY_MS, HOUR_MS
from tests.strategies import START_MS
from tests.stream.levels.making import (
    BACK,
    LEVELS,
    RISK,
    SCORES,
    STAGE,
    TABLE,
    Shop,
    model,
    of_levels,
    order,
    view,
)

ACT, TIME, MODEL = Cause.USER_MOVED, Cause.TIME_PASSED, Cause.MODEL_MOVED


def days(seed: int, users: int = 12, length: int = 80) -> list[list[Event]]:
    """What users do on each day: some order often, some once, some never."""
    random = np.random.default_rng(seed)
    found, number = [], 0
    for day in range(length):
        here = []
        for user in range(users):
            for _ in range(int(random.random() < 0.5 / (1 + user))):
                number += 1
                at_ms = START_MS + day * DAY_MS + int(random.integers(DAY_MS // 2))
                what = order if random.random() < 0.5 else view
                here.append(what(f"user {user}", at_ms, number))
        found.append(sorted(here, key=lambda one: one.time_ms))
    return found


def play(shop: Shop, history: list[list[Event]], kill_on: int = -1) -> None:
    """Each day acts, a sweep and a commit; another model every tenth day."""
    for number, events in enumerate(history):
        now = START_MS + (number + 1) * DAY_MS
        if number % 10 == 5:
            lower = Levels.of(LEVELS.known, shifted(0.2 * np.sin(number)))
            shop.adopt(replace(model(number), levels=lower), now - 1)
        shop.act(events, now)
        if number == kill_on:
            shop.kill()
            shop.act(events, now)
        shop.sweep(now)
        shop.commit(now)


def shifted(by: float) -> Any:
    (score,) = SCORES.learned
    buy = (score.buy[0] + float(by), *score.buy[1:])
    return replace(SCORES, learned=(replace(score, buy=buy),))


# -- one look --------------------------------------------------------------------------------------


def test_a_first_order_takes_a_prospect_on_and_gives_a_risk() -> None:
    shop = Shop()
    shop.act([view("ann", START_MS, 1)], START_MS)
    shop.adopt(model(), START_MS)
    assert of_levels(shop.commit(START_MS)) == []
    shop.act([order("ann", START_MS + 1, 2)], START_MS + 1)
    found = of_levels(shop.commit(START_MS + 1))
    assert [(one["level"], one["step_from"], one["step_to"], one["cause"]) for one in found] == [
        ("churn_risk", None, "low", ACT),
        ("purchase_stage", "prospect", "first_time", ACT),
    ]
    assert [one["version"] for one in found] == [2, 3]
    for one in found:
        assert LEVEL_CHANGE.validate_python(one)
    risk, stage = found
    assert (risk["of"], risk["limit"]) == (BACK, 0.6)
    assert risk["value"] >= 0.6
    assert (stage["of"], stage["value"], stage["limit"]) == ("orders_total", 1.0, 1.0)
    assert stage["why"] == [{"feature": "orders_total", "value": 1.0, "contribution": None}]


def test_silence_raises_the_risk_step_by_step_with_reasons_that_add_up() -> None:
    shop = Shop()
    shop.act([order("ann", START_MS, 1)], START_MS)
    shop.adopt(model(), START_MS)
    shop.commit(START_MS)
    for day in range(1, 120):
        shop.sweep(START_MS + day * DAY_MS)
        shop.commit(START_MS + day * DAY_MS)
    risks = [one for one in of_levels(shop.records) if one["level"] == "churn_risk"]
    assert [(one["step_from"], one["step_to"]) for one in risks] == [
        (None, "low"),
        ("low", "medium"),
        ("medium", "high"),
    ]
    assert {one["cause"] for one in risks[1:]} == {TIME}
    for one in risks[1:]:
        assert one["value"] < one["limit"] * 0.9
        log_odds = np.log(one["value"] / (1 - one["value"]))
        told = sum(part["contribution"] for part in one["why"]) + one["rest"]
        assert told == pytest.approx(log_odds)
        assert one["why"][0]["feature"] == "days_since_order"


def test_whoever_stays_within_the_slack_is_told_nothing() -> None:
    values = {BACK: np.array([0.33, 0.27, 0.26, 0.34])}
    on_medium = RISK.now(values, places(1, 1, 1, 1), yes(4), no(4))
    assert on_medium.tolist() == [1, 1, 2, 1]
    on_high = RISK.now(values, places(2, 2, 2, 2), yes(4), no(4))
    assert on_high.tolist() == [1, 2, 2, 1]


SOON = "likely_soon"
EITHER = replace(
    RISK,
    steps=(*RISK.steps[:2], KnownStep("medium", SOON, 0.2, learned=True), RISK.steps[-1]),
)
"""Medium by either of two scores."""


def test_a_step_that_is_there_twice_is_reached_by_either_limit_and_lost_with_both() -> None:
    likely, soon = np.array([0.4, 0.1, 0.1, 0.7]), np.array([0.1, 0.3, 0.1, 0.1])
    values = {BACK: likely, SOON: soon}
    assert EITHER.now(values, places(-1, -1, -1, -1), yes(4), no(4)).tolist() == [1, 1, 3, 0]
    within = {BACK: np.full(3, 0.26), SOON: np.array([0.19, 0.17, 0.21])}
    assert EITHER.now(within, places(1, 1, 1), no(3), no(3)).tolist() == [1, 3, 1]
    assert EITHER.now(within, places(3, 3, 3), yes(3), no(3)).tolist() == [3, 3, 3]
    later = {BACK: np.array([0.26]), SOON: np.array([0.17])}
    now = {name: value[:1] for name, value in within.items()}
    assert not EITHER.stays(now, later, places(1), HOUR_MS, ())[0]


def test_whoever_goes_over_the_very_edge_of_a_rule_does_not_stay() -> None:
    """What a rule forgives for rounding is a share of its limit, and not of the lower edge of its band."""
    level = replace(RISK, rules=(KnownRule("high", (("orders_180d", 10.0, None),)),))
    here, there = places(2), np.ones(1, np.bool_)
    now, then = np.array([9.0 - 0.95e-8]), np.array([9.0 - 2e-8])
    likely = {BACK: np.array([0.1])}
    (rule,) = level.rules
    assert rule.holds({"orders_180d": now}, there, level.slack)[0]
    assert not rule.holds({"orders_180d": then}, there, level.slack)[0]
    values, later = ({"orders_180d": one, **likely} for one in (now, then))
    assert not level.stays(values, later, here, HOUR_MS, {"orders_180d"})[0]


def test_whoever_loses_a_score_by_time_does_not_stay() -> None:
    """As with `orders_total` of a window: behind it somebody is no customer any more."""
    now, then = {BACK: np.array([0.5])}, {BACK: np.array([np.nan])}
    for one_way in ((), (BACK,)):
        assert not RISK.stays(now, then, places(1), HOUR_MS, one_way)[0]
        assert RISK.stays(then, then, places(-1), HOUR_MS, one_way)[0]


def test_a_crossing_tells_the_limit_that_was_reached_by_more_or_lost_by_less() -> None:
    values = {BACK: np.array([0.4, 0.1, 0.25, 0.1]), SOON: np.array([0.1, 0.3, 0.1, 0.17])}
    before, after = places(3, 3, 1, 1), places(1, 1, 3, 3)
    found = EITHER.decided(before, after, values)
    assert [one.of for one in found] == [BACK, SOON, BACK, SOON]
    assert [one.limit for one in found] == [0.3, 0.2, 0.3, 0.2]


def test_a_book_has_one_code_for_a_step_that_is_there_twice() -> None:
    book = LevelBook({})
    book.take_in([EITHER])
    assert book.steps == {"churn_risk": ["low", "medium", "high"]}
    assert book.codes_of(EITHER).tolist() == [1, 2, 2, 3, 0]
    assert book.places_of(EITHER)[[1, 2, 3]].tolist() == [0, 1, 3]
    counts = none_told()
    count_codes(np.array([[2], [2], [3]], np.uint8), 1, counts)
    assert book.users([EITHER], counts) == {"churn_risk": {"low": 0, "medium": 2, "high": 1}}


def test_time_and_a_model_take_nobody_up_by_a_score_and_a_model_down_at_twice_the_slack() -> None:
    values = {BACK: np.full(3, 0.9)}
    assert RISK.now(values, places(2, 1, -1), no(3), no(3)).tolist() == [2, 1, 0]
    assert RISK.now(values, places(2, 1, -1), no(3), yes(3)).tolist() == [2, 1, 0]
    falls = {BACK: np.array([0.5, 0.47])}
    assert RISK.now(falls, places(0, 0), no(2), no(2)).tolist() == [1, 1]
    assert RISK.now(falls, places(0, 0), no(2), yes(2)).tolist() == [0, 1]


def test_what_is_of_a_feature_rises_with_time() -> None:
    silent = replace(
        STAGE,
        steps=(replace(STAGE.steps[0], of="days_since_seen", least=30.0), STAGE.steps[-1]),
    )
    assert silent.now({"days_since_seen": np.array([31.0])}, places(1), no(1), no(1)) == [0]


def test_a_rule_comes_before_all_steps_and_is_left_by_the_slack() -> None:
    rule = KnownRule("high", (("orders_total", 10.0, None), ("silence_in_gaps", 2.0, None)))
    level = replace(RISK, rules=(rule,))

    def step(orders: float, gaps: float, before: int) -> int:
        values = {
            BACK: np.array([0.9]),
            "orders_total": np.array([orders]),
            "silence_in_gaps": np.array([gaps]),
        }
        now = level.now(values, places(before), no(1), no(1))
        if now[0] != before:
            (by,) = level.decided(places(before), now, values)
            assert by == ("silence_in_gaps", 2.0)
        return int(now[0])

    assert [step(10, 1.9, 0), step(9, 2.1, 0), step(10, 2.1, 0)] == [0, 0, 2]
    assert [step(10, 1.9, 2), step(9.5, 1.9, 2)] == [2, 2]
    values = {BACK: np.array([0.9]), "orders_total": np.array([11.0])}
    back = level.now(values | {"silence_in_gaps": np.array([0.1])}, places(2), yes(1), no(1))
    assert back.tolist() == [0]


def test_who_crosses_a_limit_of_unusual_is_told_where_they_are_farthest() -> None:
    random = np.random.default_rng(3)
    names = ("money", "items", "carts", "views")
    vectors = random.lognormal(1.0, 0.5, (400, 4))
    ones = np.ones(400)
    people = learn(vectors, names, ones.astype(np.int64), ones, names)
    assert people is not None
    scores = NOTHING_FORETOLD.with_unusual("unusual", people)
    steps = (KnownStep("odd", "unusual", 0.9, True), KnownStep("usual"))
    watched = Levels.of([KnownLevel("watched", steps, 0.0, "", "", 0)], scores)
    book = LevelBook({})
    book.take_in(watched.known)
    looked_at = vectors * random.lognormal(0.0, 1.0, (400, 4))
    codes, causes = np.zeros((400, 1), np.uint8), np.zeros(400, np.uint8)
    found = crossings(watched, watched.values(looked_at, names), codes, causes, book)
    theirs = looked_at[found.index]
    odd = 0
    for told, vector, (why, rest) in zip(
        found.told, theirs, reasons(watched, found, theirs, names), strict=True
    ):
        far = scores.how_unusual(vector, names)
        assert far is not None
        farthest = sorted(far.parts, key=lambda name: (-far.parts[name], name))[:3]
        assert [one.feature for one in why] == farthest
        assert [one.value for one in why] == [vector[names.index(name)] for name in farthest]
        assert (rest, told.value, told.limit) == (None, far.value, 0.9)
        odd += told.step_to == "odd"
    assert 100 < odd < 400


def places(*these: int) -> Any:
    return np.array(these, np.int8)


def yes(users: int) -> Any:
    return np.ones(users, np.bool_)


def no(users: int) -> Any:
    return np.zeros(users, np.bool_)


def test_who_has_no_order_any_more_has_no_risk() -> None:
    shop = Shop()
    refund = Event("ann", 1, "Order Refunded", START_MS + 5, 2, 0.0, 0.0, 0, order=7, whole=True)
    shop.act([order("ann", START_MS, 1)._replace(order=7)], START_MS)
    shop.adopt(model(), START_MS)
    shop.commit(START_MS)
    shop.act([refund], START_MS + 5)
    found = of_levels(shop.commit(START_MS + 5))
    assert [(one["level"], one["step_to"], one["value"]) for one in found] == [
        ("churn_risk", None, None),
        ("purchase_stage", "prospect", 0.0),
    ]


# -- a history -------------------------------------------------------------------------------------


class Slowly:
    """Every crossing, user by user and look by look, as it is said in words.

    Attributes:
        events: of each user so far.
        levels: in force.
        told: user, level, steps before and after, and cause of each crossing.
    """

    def __init__(self) -> None:
        self.events: dict[str, list[Event]] = {}
        self.levels = Levels((), None)
        self.told: list[tuple[str, str, str | None, str | None, Cause]] = []
        self._on: dict[tuple[str, str], str | None] = {}

    def play(self, history: list[list[Event]]) -> None:
        for number, events in enumerate(history):
            now = START_MS + (number + 1) * DAY_MS
            if number % 10 == 5:
                self.levels = Levels.of(LEVELS.known, shifted(0.2 * np.sin(number)))
                self.look(list(self.events), now - 1, MODEL)
            for one in events:
                self.events.setdefault(one.user, []).append(one)
            self.look(sorted({one.user for one in events}), now, ACT)
            self.look(list(self.events), now, TIME)

    def look(self, users: list[str], now: int, cause: Cause) -> None:
        for user in users:
            orders = [one.time_ms for one in self.events[user] if one.topic == 1]
            vector = {
                "days_since_order": (now - max(orders)) / DAY_MS if orders else 400.0,
                "orders_total": float(len(orders)),
            }
            for level in self.levels.known:
                before = self._on.get((user, level.name), level.rest or None)
                after = self.step(level, before, vector, cause)
                if after != before:
                    self._on[user, level.name] = after
                    self.told.append((user, level.name, before, after, cause))

    def step(
        self, level: KnownLevel, before: str | None, vector: dict[str, float], cause: Cause
    ) -> str | None:
        values = [value_of(step.of, vector, self.levels) for step in level.steps[:-1]]
        place = None if before is None else level.names.index(before)
        if None in values:
            return None
        for number, (step, value) in enumerate(zip(level.steps, values, strict=False)):
            assert value is not None
            edge, band = step.least, step.least * level.slack
            if place is not None and place <= number:
                edge -= band * (2 if step.learned and cause == MODEL else 1)
            elif place is not None:
                edge += band
            may = place is None or place <= number or cause == ACT or not step.learned
            if may and value >= edge:
                return step.name
        return level.steps[-1].name


def value_of(of: str, vector: dict[str, float], levels: Levels) -> float | None:
    if of in vector:
        return vector[of]
    if not vector["orders_total"]:
        return None
    assert levels.scores is not None
    (score,) = levels.scores.learned
    z = [
        (np.log1p(vector[name]) - centre) / spread
        for name, centre, spread in zip(
            levels.scores.inputs, levels.scores.centre, levels.scores.spread, strict=True
        )
    ]
    z = np.clip(z, -4, 4)
    above = (np.maximum(z, 0) ** 2 - 0.5) / np.sqrt(1.25)
    below = (0.5 - np.minimum(z, 0) ** 2) / np.sqrt(1.25)
    log_odds = score.buy[0] + np.dot(score.buy[1:], np.concatenate([z, above, below]))
    return float(1 / (1 + np.exp(-log_odds)))


def key(one: dict[str, Any]) -> tuple[Any, ...]:
    return one["user"], one["level"], one["step_from"], one["step_to"], one["cause"]


@pytest.mark.parametrize("seed", range(3))
def test_a_history_is_told_as_one_goes_through_it_by_hand(seed: int) -> None:
    history = days(seed)
    shop = Shop()
    play(shop, history)
    slowly = Slowly()
    slowly.play(history)
    found = [key(one) for one in of_levels(shop.records)]
    assert len(found) > 30
    assert sorted(found, key=str) == sorted(slowly.told, key=str)
    assert {cause for *_, cause in found} == {ACT, TIME, MODEL}


@pytest.mark.parametrize("seed", range(3))
def test_versions_and_steps_make_one_chain_with_segments(seed: int) -> None:
    shop = Shop()
    play(shop, days(seed))
    versions: dict[str, int] = {}
    steps: dict[tuple[str, str], str | None] = {}
    for one in shop.records:
        assert one["version"] == versions.get(one["user"], 0) + 1
        versions[one["user"]] = one["version"]
        if "level" in one:
            here = one["user"], one["level"]
            assert one["step_from"] == steps.get(here, one["step_from"])
            assert one["step_from"] != one["step_to"]
            steps[here] = one["step_to"]
    rows = shop.steps()
    assert {(user, level) for user, told in rows.items() for level in told} == {
        here for here, step in steps.items() if step is not None
    }
    assert all(rows[user][level] == step for (user, level), step in steps.items() if step)


@pytest.mark.parametrize("kill_on", [3, 15, 47])
def test_whoever_takes_over_goes_on_as_if_nothing_had_happened(kill_on: int) -> None:
    one, other = Shop(), Shop()
    play(one, days(1))
    play(other, days(1), kill_on=kill_on)
    assert other.records == one.records
    assert other.steps() == one.steps()


def test_four_partitions_tell_what_one_does() -> None:
    one, four = Shop(), Shop(partitions=4)
    play(one, days(2))
    play(four, days(2))
    assert sorted(one.records, key=str) == sorted(four.records, key=str)
    assert one.steps() == four.steps()


def test_a_model_without_levels_changes_nothing() -> None:
    shop = Shop()
    for number, events in enumerate(days(1)):
        now = START_MS + (number + 1) * DAY_MS
        if number == 5:
            shop.adopt(replace(model(), levels=Levels((), None)), now)
        shop.act(events, now)
        shop.sweep(now)
        shop.commit(now)
    assert of_levels(shop.records) == []
    assert not any(row["levels"].any() for row in shop.parts[0].rows)


# -- what was delivered is true ----------------------------------------------------------------------


def test_a_crossing_that_was_delivered_and_lost_is_taken_from_the_output() -> None:
    shop = Shop()
    shop.act([order("ann", START_MS, 1)], START_MS)
    shop.adopt(model(), START_MS)
    version = shop.commit(START_MS)[-1]["version"]
    told = Delivered(
        "ann", 1, version + 1, 0, 0, START_MS + DAY_MS, "", steps=(("churn_risk", "high"),)
    )
    assert shop.take_delivered([told]) == 1
    shop.sweep(START_MS + 2 * DAY_MS)
    shop.commit(START_MS + 2 * DAY_MS)
    assert shop.steps()["ann"]["churn_risk"] == "high"
    row = shop.parts[0].rows[0]
    assert (row["version"], row["segment"]) == (version + 1, 1)


def test_of_several_delivered_the_segment_and_each_level_count() -> None:
    segment = Delivered("ann", 1, 5, 1, 2, START_MS + 1, "loyal")
    risk = Delivered("ann", 1, 6, 0, 0, START_MS + 2, "", steps=(("churn_risk", "low"),))
    stage = Delivered("ann", 1, 7, 0, 0, START_MS + 3, "", steps=(("purchase_stage", None),))
    whole = stage.after_all(risk.after_all(segment.after_all(None)))
    assert (whole.version, whole.after, whole.kind) == (7, 2, "loyal")
    assert whole.moved == (1, START_MS + 1)
    assert whole.steps == (("churn_risk", "low"), ("purchase_stage", None))
    later = Delivered("ann", 1, 8, 2, 3, START_MS + 4, "gone").after_all(
        stage.after_all(risk.after_all(None))
    )
    assert (later.after, later.steps) == (3, whole.steps)


def test_who_is_held_until_the_time_of_a_crossing_is_told_nothing_before() -> None:
    shop = Shop()
    shop.act([order("ann", START_MS, 1)], START_MS)
    shop.adopt(model(), START_MS)
    version = shop.commit(START_MS)[-1]["version"]
    at_ms = START_MS + 90 * DAY_MS
    told = Delivered("ann", 1, version + 2, 0, 0, at_ms, "", steps=(("churn_risk", "high"),))
    assert shop.take_delivered([told], in_time=True) == 1
    for day in range(10, 91, 10):
        shop.sweep(START_MS + day * DAY_MS)
    assert of_levels(shop.commit(at_ms)) == []
    assert shop.steps()["ann"]["churn_risk"] == "high"


# -- the book ---------------------------------------------------------------------------------------


def test_a_step_that_is_no_more_keeps_its_name_in_what_is_told_next() -> None:
    shop = Shop()
    shop.act([order("ann", START_MS, 1)], START_MS)
    shop.adopt(model(), START_MS)
    shop.commit(START_MS)
    renamed = replace(
        RISK, steps=tuple(replace(step, name=f"{step.name}_now") for step in RISK.steps)
    )
    shop.adopt(model(1, Levels.of((renamed, STAGE), SCORES)), START_MS + 1)
    (one,) = of_levels(shop.commit(START_MS + 1))
    assert (one["step_from"], one["step_to"]) == ("low", "low_now")


def test_a_ninth_level_takes_the_place_of_one_that_is_no_more() -> None:
    shop = Shop()
    shop.act([order("ann", START_MS, 1)], START_MS)
    eight = [replace(STAGE, name=f"stage_{number}") for number in range(8)]
    shop.adopt(model(0, Levels.of(eight, None)), START_MS)
    shop.commit(START_MS)
    shop.adopt(model(1, Levels.of([*eight[1:], replace(STAGE, name="ninth")], None)), START_MS)
    (one,) = of_levels(shop.commit(START_MS))
    assert (one["level"], one["step_from"], one["step_to"]) == ("ninth", "prospect", "first_time")
    assert shop.steps()["ann"].keys() == {"ninth", *(level.name for level in eight[1:])}


def test_values_are_those_of_the_scores() -> None:
    shop = Shop()
    shop.act([order("ann", START_MS, 1), view("bob", START_MS, 2)], START_MS)
    vectors: Floats = TABLE.vectors(shop.parts[0].rows, START_MS + DAY_MS)
    values = LEVELS.values(vectors, TABLE.names)
    assert LEVELS.inputs == (BACK, "orders_total")
    expected = SCORES.evaluate(vectors, TABLE.names)[:, 0]
    assert values[BACK].tolist() == pytest.approx(expected.tolist(), nan_ok=True)
    assert np.isnan(values[BACK]).tolist() == [False, True]
    assert values["orders_total"].tolist() == [1.0, 0.0]


# -- when the silent are looked at -------------------------------------------------------------------


FALLING = replace(
    SCORES,
    learned=(replace(SCORES.learned[0], buy=(0.3, -1.2, 0.5, -0.08, 0.0, -0.08, 0.0)),),
)


@pytest.mark.parametrize(
    ("scores", "sweep_ms", "sweeps", "looking", "share"),
    [
        (SCORES, 300_000, 12 * 8, 1.0, 0.6),
        (SCORES, 20_000, 3 * 90, 0.6, 0.25),
        (FALLING, 300_000, 12 * 8, 1.0, 0.4),
        (FALLING, 20_000, 3 * 90, 0.5, 0.1),
    ],
)
def test_the_silent_are_told_at_the_first_sweep_behind_a_limit(
    scores: Scores, sweep_ms: int, sweeps: int, looking: float, share: float
) -> None:
    """Whoever is left alone for a while is told nothing later than if everyone were looked at, nor otherwise.

    Args:
        looking: share of the sweeps that may look at anybody; somebody is near a limit at any time.
        share: of users, at the most, whose levels are evaluated in a sweep.
    """
    count = 40
    users = [f"user{number}" for number in range(count)]
    first = START_MS
    watched, naive = Shop(), Shop()
    for shop in (watched, naive):
        shop.act([order(one, first + n * 600_000, n) for n, one in enumerate(users)], first)
        shop.adopt(model(levels=Levels.of(LEVELS.known, scores)), first + count * 600_000)
        shop.commit(first)
    assert bool(scores.falling) == (scores is FALLING)
    crossed = 0
    for turn in range(1, 80 * 6):
        begin = first + turn * 4 * HOUR_MS
        watched.sweep(begin)
        naive.kill()
        naive.sweep(begin)
        crossed = len(of_levels(watched.commit(begin)))
        assert crossed == len(of_levels(naive.commit(begin)))
        if crossed:
            break
    looked, found = Counter[int](), []
    values = Levels.values

    def counted(self: Levels, vectors: Floats, features: Sequence[str]) -> Values:
        looked[now_ms] += len(vectors)
        return values(self, vectors, features)

    for step in range(1, sweeps):
        now_ms = begin + step * sweep_ms
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Levels, "values", counted)
            watched.sweep(now_ms)
        naive.kill()
        naive.sweep(now_ms)
        told = of_levels(watched.commit(now_ms))
        assert told == of_levels(naive.commit(now_ms))
        found += told
    assert {one["cause"] for one in found} == {"time_passed"}
    assert len({one["at"] for one in found}) > 5, "each at their own time"
    assert len(looked) < looking * sweeps
    assert looked.total() < share * count * sweeps, "few of them were looked at"


def test_who_acts_is_looked_at_again_at_the_next_sweep() -> None:
    shop = Shop()
    shop.act([order(user, START_MS, n) for n, user in enumerate(("ann", "bob"))], START_MS)
    shop.adopt(model(), START_MS)
    later = START_MS + 100 * DAY_MS
    for minute in range(3):
        shop.sweep(later + minute * 60_000)
    shop.commit(later)
    (part,) = shop.parts
    stored = part.rows.copy()
    stored["levels"] = 0
    # As if nobody had been told, and one of them had acted.
    slots = part.slots(["ann", "bob"])
    part.rows["levels"][slots] = 0
    part.put(slots[:1], stored[slots[:1]])
    shop.sweep(later + 180_000)
    assert {one["user"] for one in of_levels(shop.commit(later))} == {"ann"}
    shop.sweep(later + 3_600_000 + 60_000)
    assert {one["user"] for one in of_levels(shop.commit(later))} == {"bob"}


def test_a_clock_that_was_ahead_leaves_nobody_alone_when_it_is_put_back() -> None:
    shop = Shop()
    shop.act([order("ann", START_MS, 1)], START_MS)
    seen = replace(
        STAGE, steps=(KnownStep("gone", "days_since_seen", 5.0), KnownStep("here")), rest="here"
    )
    shop.adopt(model(levels=Levels.of((seen,), None)), START_MS)
    ahead = START_MS + 30 * DAY_MS
    for minute in range(3):
        shop.sweep(ahead + minute * 60_000)
    assert [one["step_to"] for one in of_levels(shop.commit(ahead))] == ["gone"]
    shop.sweep(START_MS + DAY_MS)
    assert [one["step_to"] for one in of_levels(shop.commit(START_MS + DAY_MS))] == ["here"]


def test_sweeps_far_apart_look_at_everyone_once() -> None:
    shop = Shop()
    shop.act([order(f"user{n}", START_MS, n) for n in range(20)], START_MS)
    shop.adopt(model(), START_MS)
    looked: list[int] = []
    values = Levels.values

    def counted(self: Levels, vectors: Floats, features: Sequence[str]) -> Values:
        looked.append(len(vectors))
        return values(self, vectors, features)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Levels, "values", counted)
        for day in range(1, 6):
            shop.sweep(START_MS + day * DAY_MS)
    assert looked == [20] * 5


def test_users_of_each_step_are_counted_behind_the_look_at_the_silent() -> None:
    shop = Shop()
    shop.act([order("ann", START_MS, 1), view("bob", START_MS, 2)], START_MS)
    shop.adopt(model(), START_MS)
    told = shop.parts[0].sweep(START_MS + 100 * DAY_MS, START_MS).levels
    assert told["churn_risk"]["high"] == 1
    assert sum(told["churn_risk"].values()) == 1
    assert told["purchase_stage"] == {"loyal": 0, "first_time": 1, "prospect": 1}


def test_other_limits_are_looked_at_at_once() -> None:
    shop = Shop()
    shop.act([order("ann", START_MS, 1)], START_MS)
    shop.adopt(model(), START_MS)
    shop.commit(START_MS)
    stage = replace(
        STAGE, steps=(*STAGE.steps[:1], replace(STAGE.steps[1], least=2.0), STAGE.steps[2])
    )
    shop.adopt(model(1, Levels.of((RISK, stage), SCORES)), START_MS + 1)
    assert [one["step_to"] for one in of_levels(shop.commit(START_MS + 1))] == ["prospect"]
