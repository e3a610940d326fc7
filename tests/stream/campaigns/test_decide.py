"""Decisions: the columns are held to a slow twin, and each step to what it promises."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.campaigns.decide import LAST, Decider, Outcome
from stream.campaigns.declare import Campaign, Limits
from stream.campaigns.oracle import Oracle, Told
from stream.units import DAY_MS, iso
from tests.stream.campaigns import making
from tests.stream.campaigns.making import (
    HOUR_MS,
    LEVELS,
    START_MS,
    campaign,
    change,
    crossing,
    encoded,
    told,
)

LIMITS = st.sampled_from(
    [
        Limits(),
        Limits.model_validate({"per_user": {"day": 1}}),
        Limits.model_validate({"per_user": {"day": 1, "week": 2}, "global_holdout": 0.2}),
        Limits.model_validate({"per_user": {"week": 1}}),
        Limits.model_validate({"suppress": {"unsubscribed": True, "country": ["de", "Fr"]}}),
    ]
)
TRAITS: list[dict[str, Any]] = [
    {}, {"unsubscribed": True}, {"unsubscribed": False, "country": "DE"}, {"unsubscribed": "true "},
    {"country": "at"}, {"country": None, "other": True}, {"unsubscribed": 1},
]  # fmt: skip
KEY = b"a key"


def outcomes(
    campaigns: list[Campaign],
    changes: list[dict[str, Any]],
    until_ms: int | None = None,
    limits: Limits | None = None,
) -> list[tuple[str, str, int]]:
    """Campaign, outcome and hours since the start of each decision, in the order of times."""
    decider = Decider(campaigns, limits or Limits(), KEY, levels=LEVELS)
    found = told(decider, decider.decide(decider.reader.decode(encoded(changes))))
    if until_ms is not None:
        found += told(decider, decider.advance(until_ms))
    shown = [(t.at_ms, t.campaign, t.outcome) for t in found.elements()]
    rank = {outcome.name.lower(): outcome for outcome in Outcome}
    return [
        (name, outcome, (at - START_MS) // HOUR_MS)
        for at, name, outcome in sorted(shown, key=lambda one: (one[0], one[1], rank[one[2]]))
    ]


@settings(max_examples=100, deadline=None)
@given(making.campaigns(), making.histories(), LIMITS, st.data())
def test_columns_decide_as_one_change_at_a_time(
    campaigns: list[Campaign], changes: list[dict[str, Any]], limits: Limits, data: st.DataObject
) -> None:
    decider, oracle = Decider(campaigns, limits, KEY, levels=LEVELS), Oracle(campaigns, limits, KEY)
    for user in ("a", "b"):
        zone = data.draw(st.sampled_from([None, "Europe/London", "Australia/Lord_Howe"]))
        decider.set_zone(user, zone)
        oracle.set_zone(user, zone)
    if data.draw(st.integers(0, 9)) == 0:
        decider.suppress("c")
        oracle.suppress("c")
    for user in ("a", "b", "a"):
        traits = data.draw(st.sampled_from(TRAITS))
        decider.tell_traits(user, limits.suppressing(traits))
        oracle.tell_traits(user, traits)
    done, wall = 0, None
    live = data.draw(st.booleans())
    while done < len(changes):
        size = data.draw(st.integers(1, 9))
        batch = changes[done : done + size]
        done += size
        if live:
            wall = _time(batch[-1]) + data.draw(st.sampled_from([0, 20, HOUR_MS, 30 * HOUR_MS]))
        found = told(decider, decider.decide(decider.reader.decode(encoded(batch)), wall))
        expected: Counter[Told] = Counter()
        for one in batch:
            expected.update(oracle.change(one, wall))
        assert found == expected
        if data.draw(st.booleans()):
            now = _time(batch[-1])
            assert told(decider, decider.advance(now, wall)) == Counter(oracle.advance(now, wall))
        _see_conservation(decider, oracle)
    end = START_MS + 60 * DAY_MS
    assert told(decider, decider.advance(end)) == Counter(oracle.advance(end))
    _see_conservation(decider, oracle)


def _time(one: dict[str, Any]) -> int:
    return int(np.datetime64(one["at"].removesuffix("Z"), "ms").astype(int))


def _see_conservation(decider: Decider, oracle: Oracle) -> None:
    assert (decider.counts >= 0).all()
    assert decider.counts.sum(axis=1).tolist() == decider.pairs_seen.tolist()
    for name, counts in decider.tally().items():
        for outcome, count in counts.items():
            assert count == oracle.counts[name, outcome], (name, outcome)


@settings(max_examples=40, deadline=None)
@given(making.campaigns(), making.histories(), LIMITS, st.integers(1, 25))
def test_batches_and_ticks_change_nothing(
    campaigns: list[Campaign], changes: list[dict[str, Any]], limits: Limits, size: int
) -> None:
    """A year in one batch, and the same year in small ones with the clock going on between."""
    changes = sorted(changes, key=_time)
    whole, cut = (
        Decider(campaigns, limits, KEY, levels=LEVELS),
        Decider(campaigns, limits, KEY, levels=LEVELS),
    )
    end = START_MS + 60 * DAY_MS
    at_once = told(whole, whole.decide(whole.reader.decode(encoded(changes))))
    at_once += told(whole, whole.advance(end))
    in_parts: Counter[Told] = Counter()
    for first in range(0, len(changes), size):
        batch = changes[first : first + size]
        in_parts += told(cut, cut.advance(_time(batch[0]) - 1))
        in_parts += told(cut, cut.decide(cut.reader.decode(encoded(batch))))
    in_parts += told(cut, cut.advance(end))
    assert in_parts == at_once
    assert (cut.counts == whole.counts).all()
    assert set(np.flatnonzero(cut.counts.sum(axis=0)).tolist()) <= {int(one) for one in LAST}


def test_only_what_a_user_or_silence_did_triggers_unless_asked() -> None:
    changes = [
        change("a", number=1, cause="model_moved"),
        change("b", number=1, cause="segment_retired"),
        change("c", number=1, provisional=True, kind_from=None),
        change("d", number=1, cause="user_moved"),
        change("e", number=1),
    ]
    assert [one[1] for one in outcomes([campaign()], changes)] == ["sent", "sent"]
    asked = campaign(when={"kind_to": ["at_risk"], "cause": ["model_moved"], "provisional": True})
    assert len(outcomes([asked], changes)) == 1


def test_scores_have_limits_and_who_has_none_is_within_none() -> None:
    rich = campaign(
        when={"kind_to": ["at_risk"], "scores": {"buy": {"min": 0.3}, "spend": {"max": 90}}}
    )
    scored: list[dict[str, float]] = [
        {"buy": 0.3, "spend": 90.0},
        {"buy": 0.2999, "spend": 10.0},
        {"buy": 0.9, "spend": 90.1},
        {"buy": 0.9},
        {},
    ]
    changes = [change(f"u{n}", scores=scores) for n, scores in enumerate(scored)]
    # Records of an earlier version tell no scores.
    changes.append(change("before"))
    decider = Decider([rich], Limits(), KEY)
    found = told(decider, decider.decide(decider.reader.decode(encoded(changes))))
    assert [one.user for one in found] == ["u0"]
    assert decider.reader.refused == 0


def test_what_settles_ends_with_a_score_that_is_no_longer_within_its_limits() -> None:
    rich = campaign(
        settle="2h", when={"kind_to": ["at_risk", "dormant"], "scores": {"buy": {"min": 0.3}}}
    )
    on = change("u", START_MS + HOUR_MS, 2, kind_to="dormant", scores={"buy": 0.4})
    off = change("u", START_MS + HOUR_MS, 2, kind_to="dormant", scores={"buy": 0.1})
    begun, end = change(scores={"buy": 0.5}), START_MS + DAY_MS
    assert ("win-back", "sent", 2) in outcomes([rich], [begun, on], end)
    assert outcomes([rich], [begun, off], end) == [
        ("win-back", "settling", 0),
        ("win-back", "undone", 1),
    ]


def test_a_crossing_of_a_level_has_limits_on_scores_too() -> None:
    worth = campaign(
        settle="2h",
        when={"level": "churn_risk", "step_to": ["high"], "scores": {"spend": {"min": 90}}},
    )
    changes = [
        making.crossing("a", scores={"spend": 90}),
        making.crossing("b", scores={"spend": 12.5}),
        making.crossing("c"),
        # A change of segment says nothing of what a campaign on a level listens to.
        change("a", START_MS + HOUR_MS, 2, scores={"spend": 1}),
    ]
    decider = Decider([worth], Limits(), KEY, levels=making.LEVELS)
    found = told(decider, decider.decide(decider.reader.decode(encoded(changes))))
    found += told(decider, decider.advance(START_MS + DAY_MS))
    assert sorted((one.user, one.outcome) for one in found) == [("a", "sent"), ("a", "settling")]


def test_a_population_is_a_condition_as_a_kind_is() -> None:
    lapse = campaign(
        settle="2h", when={"population_to": ["lapsed"], "population_from": ["customers"]}
    )
    lapsed: dict[str, Any] = {"population_from": "customers", "population_to": "lapsed"}
    changes = [
        change("a", **lapsed),
        change("b", population_from=None, population_to="lapsed"),
        change("c", population_from="customers", population_to="customers"),
        change("d"),
        change("e", **lapsed),
        # Another segment of the same population leaves it true, a customer again does not.
        change("a", START_MS + HOUR_MS, 2, population_from="lapsed", population_to="lapsed", to=3),
        change("e", START_MS + HOUR_MS, 2, population_from="lapsed", population_to="customers"),
    ]
    decider = Decider([lapse], Limits(), KEY)
    found = told(decider, decider.decide(decider.reader.decode(encoded(changes))))
    found += told(decider, decider.advance(START_MS + DAY_MS))
    assert sorted((one.user, one.outcome) for one in found) == [
        ("a", "sent"),
        ("a", "settling"),
        ("e", "settling"),
        ("e", "undone"),
    ]


def _between(before: int, after: int) -> dict[str, Any]:
    return {"from": before, "to": after}


def test_a_segment_that_turns_triggers_only_where_that_is_asked_for() -> None:
    turned = change(cause="segment_turned", kind_to="dormant", **_between(1, 1))
    when = {"kind_to": ["dormant"]}
    assert outcomes([campaign(when=when)], [turned]) == []
    asked = campaign(when=when | {"cause": ["segment_turned"]})
    assert outcomes([asked], [turned]) == [("win-back", "sent", 0)]


def test_what_is_bound_to_a_segment_ends_when_the_segment_splits_or_goes() -> None:
    bound = campaign(settle="2h", when={"segment_to": [1]})
    end = START_MS + DAY_MS
    for cause in ("model_moved", "segment_retired"):
        # The half that is a segment of its own now, or everyone of one that is no more.
        moved = change("u", START_MS + HOUR_MS, 2, **_between(1, 7), cause=cause)
        assert outcomes([bound], [change(), moved], end) == [
            ("win-back", "settling", 0),
            ("win-back", "undone", 1),
        ]
    # Who comes to it from one that was merged into it has done nothing.
    merged = change(cause="segment_retired", **_between(5, 1))
    assert outcomes([bound], [merged], end) == []


def test_settling_ends_when_the_user_moves_on() -> None:
    settling = campaign(settle="2h")
    back = change("u", START_MS + HOUR_MS, 2, to=2, kind_to="loyal")
    end = START_MS + DAY_MS
    assert outcomes([settling], [change(), back], end) == [
        ("win-back", "settling", 0),
        ("win-back", "undone", 1),
    ]
    assert outcomes([settling], [change()], end) == [
        ("win-back", "settling", 0),
        ("win-back", "sent", 2),
    ]
    another = change("u", START_MS + HOUR_MS, 2, to=5, cause="model_moved")
    assert outcomes([settling], [change(), another], end)[-1] == ("win-back", "sent", 2)


def test_of_a_group_the_first_is_sent_and_caps_hold_over_all() -> None:
    pair = [campaign("low", group="g"), campaign("high", group="g", priority=1)]
    assert outcomes(pair, [change()]) == [("high", "sent", 0), ("low", "outranked", 0)]
    alone = [campaign("low"), campaign("high", priority=1)]
    capped = Limits.model_validate({"per_user": {"day": 1}})
    assert outcomes(alone, [change()], limits=capped) == [("high", "sent", 0), ("low", "capped", 0)]
    later = change("u", START_MS + DAY_MS, 2)
    assert outcomes(alone, [change(), later], limits=capped)[2:] == [
        ("high", "sent", 24),
        ("low", "capped", 24),
    ]


def test_a_cap_reached_while_it_settles_holds() -> None:
    """Both may settle; the first one to be sent leaves no room for the other."""
    both = [campaign("one", settle="1h"), campaign("two", settle="2h")]
    capped = Limits.model_validate({"per_user": {"day": 1}})
    assert outcomes(both, [change()], START_MS + DAY_MS, capped) == [
        ("one", "settling", 0),
        ("two", "settling", 0),
        ("one", "sent", 1),
        ("two", "capped", 2),
    ]


def test_a_cooldown_counts_from_the_trigger() -> None:
    changes = [change("u", START_MS + hours * HOUR_MS, hours + 1) for hours in (0, 47, 48)]
    assert [one[1:] for one in outcomes([campaign(cooldown="2d")], changes)] == [
        ("sent", 0),
        ("cooling", 47),
        ("sent", 48),
    ]


@pytest.mark.parametrize(("then", "last"), [("wait", ("sent", 8)), ("drop", ("quiet", 0))])
def test_quiet_hours(then: str, last: tuple[str, int]) -> None:
    quiet = {"from": "21:00", "to": "08:00", "zone": "UTC", "then": then}
    assert outcomes([campaign(quiet=quiet)], [change()], START_MS + DAY_MS)[-1][1:] == last
    short = campaign(quiet=quiet | {"then": "wait"}, valid_for="7h")
    assert outcomes([short], [change()], START_MS + DAY_MS) == [("win-back", "expired", 0)]
    just = campaign(quiet=quiet | {"then": "wait"}, valid_for="8h")
    assert outcomes([just], [change()], START_MS + DAY_MS)[-1] == ("win-back", "sent", 8)


def test_a_campaign_has_its_time() -> None:
    limited = campaign(start="2025-11-02", end="2025-11-03")
    changes = [change("u", START_MS + hours * HOUR_MS, hours + 1) for hours in (23, 24, 47, 48)]
    assert [one[1] for one in outcomes([limited], changes)] == ["ended", "sent", "sent", "ended"]


def test_a_worker_that_comes_late_sends_nothing_late_quietly_or_over_a_cap() -> None:
    """By the wall clock a day has passed, whatever the changes say."""
    quiet = {"from": "21:00", "to": "08:00", "zone": "UTC", "then": "drop"}
    noon = START_MS + 12 * HOUR_MS
    late = Decider([campaign("late")], Limits(), KEY)
    late.decide(late.reader.read([change(at_ms=noon)]), noon + 25 * HOUR_MS)
    assert late.tally()["late"]["expired"] == 1
    night = Decider([campaign("night", quiet=quiet)], Limits(), KEY)
    night.decide(night.reader.read([change(at_ms=noon)]), noon + 10 * HOUR_MS)
    assert night.tally()["night"]["quiet"] == 1
    waiting = campaign("waiting", settle="2h", valid_for="3h")
    asleep = Decider([waiting], Limits(), KEY)
    asleep.decide(asleep.reader.read([change(at_ms=noon)]), noon)
    asleep.advance(noon + 4 * HOUR_MS, noon + 4 * HOUR_MS)
    assert asleep.tally()["waiting"]["expired"] == 1


def test_suppressed_users_get_nothing_not_even_what_is_under_way() -> None:
    decider = Decider([campaign(settle="2h")], Limits(), KEY)
    decider.decide(decider.reader.read([change()]))
    decider.suppress("u")
    decider.decide(decider.reader.read([change(number=2, at_ms=START_MS + DAY_MS)]))
    assert decider.tally()["win-back"]["suppressed"] == 2
    decider.suppress("u", suppressed=False)
    decider.decide(decider.reader.read([change(number=3, at_ms=START_MS + 2 * DAY_MS)]))
    assert decider.tally()["win-back"]["settling"] == 1


def test_who_is_measured_is_settled_before_anything_that_treatment_changes() -> None:
    """Once a user, treated and held out alike, whether or not anything is sent."""
    measured = campaign(goal={"within": "1d"}, holdout=0.5, cooldown="30d")
    decider = Decider([measured], Limits.model_validate({"per_user": {"week": 1}}), KEY)
    counted = 0
    for day in range(3):
        changes = [change(f"u{n}", START_MS + day * DAY_MS, day + 1) for n in range(400)]
        found = decider.decide(decider.reader.read(changes))
        counted += int(found.counted.sum())
    assert counted == 400
    held = decider.tally()["win-back"]["holdout"]
    assert held % 3 == 0
    assert 150 < held // 3 < 250


def test_what_is_no_change_is_counted_and_left_out() -> None:
    decider = Decider([campaign()], Limits(), KEY)
    values = [b"", b"{}", b'"x"', b"\xff", *encoded([change(), change(at="soon")])]
    # A time of nobody knows which zone, and ids that no row has room for.
    values += encoded([change(at="2025-11-01T00:00:00")])
    ids = ("x", "u-1", "u--1", f"u-{1 << 63}-1", f"u-1-{1 << 31}", f"u-1-{'9' * 5_000}")
    values += encoded([change(id=one) for one in ids])
    assert len(decider.reader.decode(values)) == 1
    assert decider.reader.refused == len(values) - 1


def test_a_pair_takes_64_bytes() -> None:
    from stream.campaigns.state import PAIR  # noqa: PLC0415 - the one test that needs it

    assert PAIR.itemsize == 64
    assert iso(START_MS) == "2025-11-01T00:00:00.000Z"


RISK = {"level": "churn_risk", "step_to": ["high"]}


def test_a_crossing_of_a_level_triggers_whoever_asks_for_it() -> None:
    changes = [
        crossing("a", cause="user_moved"),
        crossing("b", step_to="medium", step_from="low"),
        crossing("c", level="value_tier", step_from="regular"),
        crossing("d", cause="model_moved"),
        change("e"),
        crossing("f", step_from=None),
    ]
    assert len(outcomes([campaign(when=RISK)], changes)) == 2
    from_medium = campaign(when=RISK | {"step_from": ["medium"]})
    assert len(outcomes([from_medium], changes)) == 1
    assert len(outcomes([campaign()], changes)) == 1
    decider = Decider([campaign(when=RISK)], Limits(), KEY, levels=LEVELS)
    decider.decide(decider.reader.decode(encoded(changes)))
    assert decider.pairs_seen.tolist() == [6]
    assert decider.reader.refused == 0


def test_what_settles_is_undone_by_the_same_level_and_by_no_other_change() -> None:
    settling = campaign(when=RISK, settle="4h")
    hour = START_MS + HOUR_MS
    changes = [
        crossing("back"),
        crossing("back", hour, 2, step_from="high", step_to="medium"),
        crossing("moves"),
        change("moves", hour, 2, kind_to="dormant"),
        crossing("other"),
        crossing("other", hour, 2, level="value_tier", step_to="regular"),
        crossing("gone"),
        change("gone", hour, 2, cause="erased"),
    ]
    assert outcomes([settling], changes, START_MS + DAY_MS) == [
        ("win-back", "settling", 0),
        ("win-back", "settling", 0),
        ("win-back", "settling", 0),
        ("win-back", "settling", 0),
        ("win-back", "undone", 1),
        ("win-back", "undone", 1),
        ("win-back", "sent", 4),
        ("win-back", "sent", 4),
    ]
    of_kinds = campaign(settle="4h")
    changes = [change("u"), crossing("u", hour, 2)]
    assert outcomes([of_kinds], changes, START_MS + DAY_MS)[-1] == ("win-back", "sent", 4)


def test_a_condition_on_steps_is_of_where_the_user_stands_when_it_is_decided() -> None:
    best = campaign(when={"kind_to": ["at_risk"], "steps": {"value_tier": ["high"]}}, settle="4h")
    tier: dict[str, Any] = {"level": "value_tier", "step_from": "regular", "step_to": "high"}
    lost: dict[str, Any] = {"level": "value_tier", "step_from": "high", "step_to": "regular"}
    hour = START_MS + HOUR_MS
    changes = [
        change("never-told"),
        crossing("was", number=1, **tier),
        crossing("was", number=2, **lost),
        change("was", number=3),
        crossing("is", number=1, **tier),
        change("is", number=2),
        crossing("falls", number=1, **tier),
        change("falls", number=2),
        crossing("falls", hour, 3, **lost),
        crossing("gone", number=1, **tier),
        change("gone", number=2, cause="erased"),
        change("gone", hour, 3),
    ]
    assert outcomes([best], changes, START_MS + DAY_MS) == [
        ("win-back", "settling", 0),
        ("win-back", "settling", 0),
        ("win-back", "undone", 1),
        ("win-back", "sent", 4),
    ]


def test_a_crossing_leaves_alone_who_counts_as_at_risk() -> None:
    decider = Decider([campaign()], Limits(), KEY, levels=LEVELS)
    changes = [change("u"), crossing("u", number=2, step_to="low")]
    decider.decide(decider.reader.decode(encoded(changes)))
    assert decider.users.at_risk[0]


@pytest.mark.parametrize("missing", ["to", "name_to", "kind_to", "provisional"])
def test_half_a_change_is_none(missing: str) -> None:
    decider = Decider([campaign(when=RISK)], Limits(), KEY, levels=LEVELS)
    record = {name: value for name, value in change().items() if name != missing}
    assert len(decider.reader.decode(encoded([record, change() | crossing()]))) == 0
    assert decider.reader.refused == 2
