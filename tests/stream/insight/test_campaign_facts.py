"""Facts of campaigns: partitions add up, versions stay apart, and the effect is that of the sums."""

from __future__ import annotations

from typing import Any

import pytest

from stream.campaigns.declare import Campaign
from stream.campaigns.effect import effect
from stream.campaigns.keep import Own
from stream.campaigns.windows import Sums
from stream.config import Settings
from stream.insight.campaign_facts import NoCampaignError, campaigns_facts
from tests.stream.campaigns.making import campaign

GOAL: dict[str, Any] = {"holdout": 0.5, "goal": {"within": "7d", "hope": 0.05}}
HELD = Sums(1_000, 50, 600, 900.0, 9_000.0)
SENT = Sums(1_000, 120, 700, 2_000.0, 20_000.0)


def text(one: Campaign) -> str:
    return one.model_dump_json(by_alias=True, exclude_defaults=True)


def settings_of(*declared: Campaign) -> Settings:
    return Settings().model_copy(update={"campaigns": declared})


def own(one: Campaign, sums: dict[str, Sums], **fields: Any) -> Own:
    return Own(
        [text(one)],
        seen={one.name: 10},
        counts={one.name: {"sent": 6, "holdout": 4, "capped": 0}},
        sums={one.name: {one.version: sums}},
        still_open={one.name: {one.version: {"holdout": 2}}},
        **fields,
    )


def test_partitions_add_up_to_the_effect_of_all() -> None:
    one = campaign(**GOAL)
    owns = [own(one, {"holdout": HELD}), own(one, {"holdout": HELD, "sent": SENT + SENT})]
    (found,) = campaigns_facts(settings_of(one), owns)["campaigns"]
    assert (found["name"], found["version"], found["paused"]) == ("win-back", one.version, False)
    assert (found["looked_at"], found["outcomes"]) == (20, {"sent": 12, "holdout": 8})
    (effects,) = found["effects"]
    assert effects["declared"]
    assert [(arm["arm"], arm["users"], arm["still_open"]) for arm in effects["arms"]] == [
        ("holdout", 2_000, 4),
        ("sent", 2_000, 0),
    ]
    (comparison,) = effects["comparisons"]
    (expected,) = effect(one, {0: HELD + HELD, 2: SENT + SENT}).comparisons
    assert comparison["verdict"] == expected.verdict == "helps"
    assert expected.conversion.sequence is not None
    assert comparison["conversion"]["sequence"] == list(expected.conversion.sequence)
    assert comparison["revenue"]["difference"] == pytest.approx(1.1)
    assert effects["as_declared"]


def test_users_who_do_not_stand_as_declared_are_told() -> None:
    one = campaign(**GOAL)
    owns = [own(one, {"holdout": HELD, "sent": SENT + SENT + SENT})]
    (found,) = campaigns_facts(settings_of(one), owns)["campaigns"]
    assert not found["effects"][0]["as_declared"]


def test_what_was_declared_before_is_told_apart_and_behind() -> None:
    one, before = campaign(**GOAL), campaign(**GOAL, cooldown="1d")
    owns = [own(before, {"holdout": HELD, "sent": SENT}, paused=["win-back"])]
    (found,) = campaigns_facts(settings_of(one), owns)["campaigns"]
    assert found["paused"]
    assert [(of["version"], of["declared"]) for of in found["effects"]] == [
        (one.version, True),
        (before.version, False),
    ]
    assert found["effects"][0]["comparisons"][0]["verdict"] == "not_enough_yet"
    assert found["effects"][0]["comparisons"][0]["missing"] is None


def test_campaigns_that_are_declared_no_more_come_last() -> None:
    facts = campaigns_facts(settings_of(campaign("new")), [own(campaign(**GOAL), {})])
    assert [(one["name"], one["version"] is None) for one in facts["campaigns"]] == [
        ("new", False),
        ("win-back", True),
    ]
    assert facts["campaigns"][0]["effects"] == []


def test_without_a_holdout_nothing_is_compared() -> None:
    one = campaign(goal={})
    (found,) = campaigns_facts(settings_of(one), [own(one, {"sent": SENT})])["campaigns"]
    assert found["effects"][0]["comparisons"] == []


def test_one_is_asked_for_by_its_name() -> None:
    settings = settings_of(campaign(), campaign("b"))
    assert [one["name"] for one in campaigns_facts(settings, [], "b")["campaigns"]] == ["b"]
    with pytest.raises(NoCampaignError, match="no campaign 'c', but win-back, b"):
        campaigns_facts(settings, [], "c")
