"""A segment's name reads well, says what marks it, and is true of its members."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.config import Learning
from stream.events import Floats
from stream.features import DEFAULT_FEATURES, Feature, FeatureTable
from stream.kinds import DEFAULT_KINDS, FALLBACK_KIND, Bounds, KindRule, Members
from stream.model import Segment
from stream.naming import (
    FEW,
    FEWEST,
    KEPT_AT,
    SAID_AT,
    Truth,
    belied,
    kept_by,
    never_said,
    propose_names,
    words_of,
)

TABLE = FeatureTable(DEFAULT_FEATURES)
WEIGHTS = np.array([feature.weight for feature in DEFAULT_FEATURES])
SHARE = Learning().word_share
NOTHING = dict.fromkeys(TABLE.names, 0.0)
PLAIN = NOTHING | {"days_since_seen": 20.0, "days_since_order": 40.0, "tenure_days": 100.0}


def vector(**values: float) -> Floats:
    return np.array([(PLAIN | values)[name] for name in TABLE.names])


def truth_of(*groups: list[Floats], table: FeatureTable = TABLE) -> Truth:
    """Segments with these members."""
    labels = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    vectors = np.array([one for group in groups for one in group])
    return Truth(table, Members(vectors, labels, table.names, len(groups)), SHARE)


def alike(*profiles: dict[str, float]) -> Truth:
    """Segments whose members are all the same."""
    return truth_of(*([vector(**profile)] * FEWEST for profile in profiles))


def centroids_of(truth: Truth) -> Floats:
    """Typical members on a common scale."""
    typical = truth.members.typical
    spread = typical.std(axis=0)
    centroids: Floats = (typical - typical.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return centroids


def names_of(truth: Truth, kinds: list[str], **more: object) -> list[str]:
    return propose_names(centroids_of(truth), WEIGHTS, truth, kinds, **more)  # type: ignore[arg-type]


SILENT = {"days_since_seen": 60.0}
RECENT = {"days_since_seen": 2.0}
NEWCOMERS, LONG_KNOWN = {"tenure_days": 10.0}, {"tenure_days": 900.0}


def test_a_name_tells_what_marks_the_segment() -> None:
    assert names_of(alike(SILENT, RECENT), ["browsing", "loyal"]) == [
        "Browsing: silent",
        "Loyal: recent",
    ]


def test_a_word_is_not_said_of_whom_its_limits_do_not_hold() -> None:
    # Three times as recent as the others, and yet not recent.
    truth = alike({"days_since_seen": 8.0}, {"days_since_seen": 24.0})
    assert names_of(truth, ["loyal", "loyal"]) == ["Loyal", "Loyal (2)"]


def test_what_time_makes_false_before_the_next_look_is_not_said() -> None:
    truth = alike(SILENT, RECENT)
    was = [None, Segment(2, "Loyal: recent", "loyal", 1, "1.0")]
    for again_days, name in ((7.0, "Loyal: recent"), (7.1, "Loyal")):
        later = replace(truth, again_days=again_days)
        assert names_of(later, ["browsing", "loyal"]) == ["Browsing: silent", name]
        assert belied(was, later, ["browsing", "loyal"]) == [False, name == "Loyal"]


def test_names_are_looked_at_as_often_as_there_are_samples() -> None:
    assert Learning(refit_seconds=3 * 86_400.0, alarm_share=0.5).named_again_days == 1.5


def test_a_word_has_to_hold_of_nearly_all_members() -> None:
    least = SHARE + (1 - SHARE) * SAID_AT + FEW / 10
    few, enough = ceil(100 * least) - 1, ceil(100 * least)
    for silent, said in ((few, False), (enough, True)):
        mixed = [vector(**SILENT)] * silent + [vector(days_since_seen=29.0)] * (100 - silent)
        truth = truth_of(mixed, [vector(**RECENT)] * FEWEST)
        name, _ = names_of(truth, ["browsing", "loyal"])
        assert name == ("Browsing: silent" if said else "Browsing")


def test_a_word_stays_a_little_longer_than_it_takes_to_be_said_and_never_below_the_share() -> None:
    was = [Segment(1, "Browsing: silent", "browsing", 1, "1.0"), None]

    def stale(silent: int) -> bool:
        mixed = [vector(**SILENT)] * silent + [vector(days_since_seen=29.0)] * (100 - silent)
        truth = truth_of(mixed, [vector(**RECENT)])
        return belied(was, truth, ["browsing", "loyal"])[0]

    kept = ceil(100 * (SHARE + (1 - SHARE) * KEPT_AT + FEW / 10))
    assert not stale(kept)
    assert stale(kept - 1)


def test_a_limit_may_look_at_other_features() -> None:
    # Much money of three months ago is not spent now.
    spent = {"revenue_30d": 500.0, "days_since_order": 90.0}
    now = {"revenue_30d": 500.0, "days_since_order": 9.0}
    other = {"revenue_30d": 50.0}
    assert "spending now" not in words_of(names_of(alike(spent, other), ["browsing"] * 2)[0])
    assert "spending now" in words_of(names_of(alike(now, other), ["loyal"] * 2)[0])


def test_money_is_much_or_little_beside_what_is_usual_in_the_shop() -> None:
    baskets = [[vector(basket_value=value)] * FEWEST for value in (10.0, 100.0, 100.0, 200.0)]
    names = names_of(truth_of(*baskets), ["promising"] * 4)
    assert names == [
        "Promising: small baskets",
        "Promising",
        "Promising (2)",
        "Promising: big baskets",
    ]


def test_a_kind_with_limits_of_a_shops_own_is_named_as_truly() -> None:
    when = {"days_since_seen": Bounds(min=7)}
    own = [KindRule(kind="at_risk", when=when), KindRule(kind="asleep", when=when)]
    assert never_said("at_risk", own) == never_said("at_risk", DEFAULT_KINDS)
    assert never_said("asleep", own) == set()
    told = [KindRule(kind="at_risk", when=when, never_said=("Recent",))]
    assert never_said("at_risk", told) == {"recent"}


def test_a_word_of_a_feature_without_limits_is_never_said() -> None:
    seen = {"name": "days_since_seen", "aggregate": "last", "words": ("recent", "silent")}
    tenure = {
        "name": "tenure_days", "aggregate": "first", "words": ("newcomers", "long known"),
        "limits": ({"tenure_days": {"max": 30}}, {}),
    }  # fmt: skip
    table = FeatureTable([Feature.model_validate(seen), Feature.model_validate(tenure)])
    groups = [[np.array([2.0, 900.0])] * FEWEST, [np.array([90.0, 3.0])] * FEWEST]
    truth = truth_of(*groups, table=table)
    names = propose_names(centroids_of(truth), np.ones(2), truth, ["loyal", "loyal"])
    assert names == ["Loyal", "Loyal: newcomers"]


def test_a_word_never_speaks_against_the_kind() -> None:
    truth = alike(RECENT, SILENT)
    assert names_of(truth, ["at_risk", "champion"], rules=DEFAULT_KINDS) == ["At risk", "Champion"]
    assert "recent" in never_said("at_risk", DEFAULT_KINDS)
    # Nor does it stay when the segment turns.
    was = [Segment(1, "Browsing: recent", "browsing", 1, "1.0")]
    assert belied(was, alike(RECENT), ["at_risk"], DEFAULT_KINDS) == [True]
    assert belied(was, alike(RECENT), ["browsing"], DEFAULT_KINDS) == [False]


def test_every_word_of_every_default_feature_has_limits() -> None:
    for feature in DEFAULT_FEATURES:
        for word, limits in zip(feature.words, feature.limits, strict=True):
            assert bool(word) == bool(limits), feature.name


@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
@settings(max_examples=30, deadline=None)
def test_no_proposed_word_is_false_of_its_members(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    scale = rng.choice([0.05, 1.0, 20.0, 300.0], (k, len(TABLE.names)))
    groups = [list(rng.lognormal(0, 0.7, (40, len(TABLE.names))) * one) for one in scale]
    truth = truth_of(*groups)
    kinds = rng.choice(["at_risk", "loyal", "dormant"], k).tolist()
    names = names_of(truth, kinds, rules=DEFAULT_KINDS)
    assert len(set(names)) == k
    for column, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        here = truth.members.vectors[truth.members.labels == column]
        for word in words_of(name):
            if word not in truth.claims:
                continue
            # Word by word, member by member, from the declared limits.
            kept = np.zeros(len(here), np.bool_)
            for limits in truth.claims[word]:
                kept |= kept_by(limits, here, truth.members)
            assert kept.mean() >= SHARE
            assert word not in never_said(kind, DEFAULT_KINDS)


def test_limits_are_kept_as_they_are_written() -> None:
    truth = alike(SILENT, RECENT)
    vectors = np.array([vector(days_since_seen=days) for days in (29.9, 30.0, 31.0)])
    assert kept_by({"days_since_seen": Bounds(min=30)}, vectors, truth.members).tolist() == [
        False, True, True,
    ]  # fmt: skip
    assert not kept_by({}, vectors, truth.members).any()
    # Nobody has refunds: what is usual is not known, so nothing is proven by it.
    assert not kept_by({"refunds_180d": Bounds(max_times=1)}, vectors, truth.members).any()


def test_a_name_does_not_say_the_same_twice() -> None:
    ordering = {"orders_30d": 3.0, "days_since_order": 3.0, "basket_value": 300.0}
    truth = alike(
        ordering | {"orders_180d": 9.0},
        {"orders_30d": 0.1, "orders_180d": 0.5, "basket_value": 300.0},
        {"orders_30d": 2.0, "orders_180d": 6.0, "basket_value": 90.0, "days_since_order": 3.0},
        {"orders_30d": 0.0, "orders_180d": 0.3, "basket_value": 90.0},
    )
    first, *_ = names_of(truth, ["loyal"] * 4)
    said = words_of(first)
    assert len(said) == 2
    assert not {"ordering now", "frequent"} <= set(said)


def test_a_kind_that_tells_nobody_anything_is_left_out() -> None:
    truth = alike(SILENT, RECENT | LONG_KNOWN, NEWCOMERS)
    assert names_of(truth, [FALLBACK_KIND] * 3) == ["Silent", "Recent, long known", "Newcomers"]
    some = names_of(truth, [FALLBACK_KIND, "loyal", FALLBACK_KIND])
    assert some == ["Occasional: silent", "Loyal: recent, long known", "Occasional: newcomers"]
    assert names_of(alike({}, {}), [FALLBACK_KIND] * 2) == ["Average", "Average (2)"]


@pytest.mark.parametrize("kind", ["loyal", FALLBACK_KIND])
def test_the_same_two_words_the_other_way_round_are_the_same_name(kind: str) -> None:
    truth = alike(
        {"days_since_seen": 60.0, "tenure_days": 900.0}, {"days_since_seen": 90.0, "tenure_days": 500.0},
        {"days_since_seen": 1.0, "tenure_days": 3.0}, PLAIN,
    )  # fmt: skip
    names = names_of(truth, [kind] * 4)
    said = [frozenset(words_of(name)) for name in names]
    assert said[0] == {"silent", "long known"}
    assert len(set(names)) == 4
    # The same as what is kept, however that is written.
    again = names_of(truth, [kind] * 4, kept=[None, names[0], *names[2:]])
    assert again[0] == f"{names[0]} (2)"


@pytest.mark.parametrize("kind", ["loyal", FALLBACK_KIND])
def test_a_name_is_belied_when_it_is_no_longer_so(kind: str) -> None:
    one, other = SILENT | LONG_KNOWN, RECENT | NEWCOMERS
    names = names_of(alike(one, other), [kind] * 2)
    was = [Segment(1, names[0], kind, 1, "1.0"), Segment(2, names[1] + " (2)", kind, 1, "1.0")]
    kinds = [kind] * 2
    assert belied(was, alike(one, other), kinds) == [False, False]
    assert belied(was, alike(other, one), kinds) == [True, True]
    # Nothing marks it any more, and yet it is so.
    assert belied(was[:1], alike(one), kinds[:1]) == [False]
    named = [replace(segment, name="Big spenders") for segment in was]
    assert belied(named, alike(other, one), kinds) == [False, False]
    assert belied([None, None], alike(one, other), kinds) == [False, False]


def test_a_name_does_not_say_what_its_kind_is_known_by() -> None:
    truth = alike(
        {"tenure_days": 5.0, "basket_value": 10.0}, {"tenure_days": 500.0, "basket_value": 100.0}
    )
    names = names_of(truth, ["new", "loyal"], rules=DEFAULT_KINDS)
    assert names == ["New: small baskets", "Loyal: long known, big baskets"]


@pytest.mark.parametrize("k", [1, 4])
def test_equal_segments_get_a_plain_name_and_a_number(k: int) -> None:
    assert names_of(alike(*[{}] * k), ["new"] * k) == [
        "New",
        *(f"New ({n})" for n in range(2, k + 1)),
    ]


def test_the_fewer_members_the_more_of_them_a_word_has_to_hold_for() -> None:
    for members, said in ((20, False), (400, True)):
        silent = round(0.97 * members)
        mixed = [vector(**SILENT)] * silent + [vector(days_since_seen=29.0)] * (members - silent)
        name, _ = names_of(truth_of(mixed, [vector(**RECENT)] * FEWEST), ["browsing", "loyal"])
        assert name == ("Browsing: silent" if said else "Browsing")


def test_of_a_handful_nothing_is_said() -> None:
    for members, said in ((FEWEST - 1, False), (FEWEST, True)):
        truth = truth_of([vector(**SILENT)] * members, [vector(**RECENT)] * FEWEST)
        name, _ = names_of(truth, ["browsing", "loyal"])
        assert name == ("Browsing: silent" if said else "Browsing")
        was = [Segment(1, "Browsing: silent", "browsing", 1, "1.0"), None]
        assert belied(was, truth, ["browsing", "loyal"])[0] is not said
