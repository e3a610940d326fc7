"""A campaign that cannot mean what it says refuses, and names the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream import config, config_layers
from stream.campaigns.declare import Campaign
from tests.stream.campaigns.making import campaign

WHOLE = """
[[campaigns]]
name = "win-back"
when = { kind_to = ["at_risk"], kind_from = ["loyal", "champion"] }
settle = "2h"
holdout = 0.1
arms = { coupon = 1, letter = 1 }
cooldown = "30d"
valid_for = "24h"
quiet = { from = "21:00", to = "08:00", zone = "Europe/London", then = "wait" }
priority = 10
group = "retention"
start = 2026-11-26
goal = { event = "Order Completed", within = "14d", value = "revenue" }

[campaign_limits]
per_user = { day = 1, week = 3 }
global_holdout = 0.02
"""
RISK = """
[[levels]]
name = "purchase_stage"
of = "orders_total"
steps = [{name = "loyal", least = 5}, {name = "prospect"}]
[[campaigns]]
name = "drifting"
when = { level = "purchase_stage", step_to = ["loyal"], steps = { purchase_stage = ["loyal"] } }
"""


def load(tmp_path: Path, text: str) -> config.Settings:
    file = tmp_path / "shop.toml"
    file.write_text(text, encoding="utf-8")
    return config_layers.load(file, {})[0]


def test_a_campaign_is_declared_in_ten_lines_and_written_back_the_same(tmp_path: Path) -> None:
    settings = load(tmp_path, WHOLE)
    (declared,) = settings.campaigns
    assert (declared.settle, declared.cooldown, declared.valid_for) == (7_200, 2_592_000, 86_400)
    assert declared.start_ms == 1_795_651_200_000
    assert declared.quiet is not None
    assert declared.quiet.minutes == (21 * 60, 8 * 60)
    assert settings.campaign_limits.per_user.week == 3
    again = load(tmp_path, config_layers.as_file(settings))
    assert again == settings
    assert again.campaigns[0].version == declared.version
    rows = {row["key"]: row for row in config_layers.effective(settings, {})}
    assert rows["campaigns"]["value"][0]["start"] == "2026-11-26T00:00:00Z"
    assert rows["campaign_limits.global_holdout"]["value"] == 0.02


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("settle =", "setle =", "campaigns.0.setle"),
        ('"at_risk"]', '"at_rsk"]', "campaigns.0.when.kind_to: there is no kind 'at_rsk'"),
        ("kind_from", "kind_frm", "campaigns.0.when.kind_frm"),
        ('["loyal", "champion"]', '["loyal"], reasons = ["x"]', "campaigns.0.when.reasons: 'x' is"),
        ("Europe/London", "Europe/Londn", "campaigns.0.quiet.zone"),
        ("Europe/London", "../../etc/passwd", "campaigns.0.quiet.zone"),
        ("21:00", "24:00", "campaigns.0.quiet.from"),
        ("Europe/London", "localtime", "campaigns.0.quiet.zone"),
        ('"21:00"', '"21:00\\n"', "campaigns.0.quiet.from"),
        ('"08:00"', '"21:00"', "campaigns.0.quiet"),
        ("2026-11-26", '"some day"', "campaigns.0.start"),
        (
            "start = 2026-11-26",
            "start = 2026-11-26\nend = 2026-11-26",
            "end: expected later than start",
        ),
        ("holdout = 0.1", "holdout = 1", "campaigns.0.holdout"),
        ("coupon = 1,", "holdout = 1,", "campaigns.0.arms"),
        ("coupon = 1,", "coupon = 0,", "campaigns.0.arms.coupon"),
        ("arms = { coupon = 1, letter = 1 }", "arms = {}", "campaigns.0.arms"),
        ('settle = "2h"', 'settle = "24h"', "settle: expected less than valid_for"),
        ('"30d"', '"4000d"', "campaigns.0.cooldown"),
        ("coupon = 1,", f"{'c' * 65} = 1,", "campaigns.0.arms"),
        ('kind_to = ["at_risk"]', "segment_to = [-1]", "campaigns.0.when.segment_to.0"),
        ("day = 1, week = 3", "day = 3, week = 1", "day: expected no more than week"),
        ("day = 1", "day = 0", "campaign_limits.per_user.day"),
        ("day = 1", "hour = 1", "campaign_limits.per_user.hour"),
        (
            "global_holdout =",
            "suppress = { a = [] }\nglobal_holdout =",
            "campaign_limits.suppress.a",
        ),
        ("global_holdout =", "suppress = { a = [[1]] }\nglobal_holdout =", "a number or a text"),
        (
            "global_holdout =",
            "suppress = { a = nan }\nglobal_holdout =",
            "campaign_limits.suppress.a",
        ),
        ("global_holdout =", 'suppress = { "" = 1 }\nglobal_holdout =', "campaign_limits.suppress"),
        # Whoever writes an empty list means nobody, and would get everybody.
        ('kind_to = ["at_risk"]', "kind_to = []", "campaigns.0.when.kind_to: give one at least"),
        ("kind_from", "reasons = [], kind_from", "campaigns.0.when.reasons: give one at least"),
        ("kind_from", "scores = {}, kind_from", "campaigns.0.when.scores: give one at least"),
        ("kind_from", "segment_from = [], kind_from", "campaigns.0.when.segment_from: give"),
        # To Python, true is 1.
        ("day = 1", "day = true", "campaign_limits.per_user.day: expected a number, not true"),
        ('settle = "2h"', "settle = true", "campaigns.0.settle: expected a number"),
        ("coupon = 1,", "coupon = true,", "campaigns.0.arms.coupon: expected a number"),
        (
            'kind_to = ["at_risk"]',
            "segment_to = [2, true]",
            "campaigns.0.when.segment_to.1: expected",
        ),
        (
            "kind_from",
            "scores = { unusual = { min = false } }, kind_from",
            "campaigns.0.when.scores.unusual.min: expected a number",
        ),
        ("global_holdout =", 'suppress = ["a"]\nglobal_holdout =', "campaign_limits.suppress"),
        (
            "global_holdout =",
            f"suppress = {{ {', '.join(f't{n} = 1' for n in range(9))} }}\nglobal_holdout =",
            "campaign_limits.suppress",
        ),
        ("global_holdout =", 'zone_trait = ""\nglobal_holdout =', "campaign_limits.zone_trait"),
        ("Order Completed", "Order Complete", "campaigns.0.goal.event"),
        ('"2h"', '"soon"', "campaigns.0.settle"),
        ('cooldown = "30d"', "cooldown = nan", "campaigns.0.cooldown"),
        ("win-back", "Win back", "campaigns.0.name"),
        ("kind_from", "cause = ['erased'], kind_from", "campaigns.0.when.cause.0"),
        (
            "kind_from",
            'population_to = ["gone"], kind_from',
            "when.population_to: there is no popul",
        ),
        (
            "kind_from",
            'population_from = ["x"], kind_from',
            "when.population_from: there is no popu",
        ),
        (
            "kind_from",
            "scores = { buy = { min = 0.3 } }, kind_from",
            "when.scores: there is no score",
        ),
        (
            "kind_from",
            "scores = { unusual = { mim = 0.3 } }, kind_from",
            "campaigns.0.when.scores.unusual.mim",
        ),
        (
            "kind_from",
            "scores = { unusual = {} }, kind_from",
            "campaigns.0.when.scores.unusual = {}",
        ),
        (
            "kind_from",
            "scores = { unusual = { min = 0.3, max = 0.2 } }, kind_from",
            "min: expected no more than max",
        ),
        (
            'kind_to = ["at_risk"], kind_from = ["loyal", "champion"]',
            "scores = { unusual = { min = 0.3 } }",
            "a score is one only beside where a user goes",
        ),
        ('kind_to = ["at_risk"], kind_from = ["loyal", "champion"]', "", "campaigns.0.when"),
    ],
)
def test_what_cannot_be_meant_refuses_and_names_the_key(
    tmp_path: Path, before: str, after: str, told: str
) -> None:
    assert before in WHOLE
    with pytest.raises(config.ConfigError) as refused:
        load(tmp_path, WHOLE.replace(before, after, 1))
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (
            'level = "p',
            'level = "x',
            "campaigns.0.when.level: there is no level 'xurchase_stage'; on",
        ),
        (
            'step_to = ["loyal"]',
            'step_to = ["lost"]',
            "campaigns.0.when.step_to: 'purchase_stage' has no step 'lost', but loyal, prospect",
        ),
        (
            "step_to",
            'step_from = ["x"], step_to',
            "campaigns.0.when.step_from: 'purchase_stage' has",
        ),
        ("{ purchase_stage =", "{ tier =", "campaigns.0.when.steps: there is no level 'tier'"),
        ('purchase_stage = ["loyal"]', 'purchase_stage = ["x"]', "campaigns.0.when.steps: 'purch"),
        ('purchase_stage = ["loyal"]', "purchase_stage = []", "give one at least"),
        ('step_to = ["loyal"], ', "", "give step_to or step_from"),
        ('level = "purchase_stage", ', "", "give level, too"),
        ("step_to", 'kind_to = ["loyal"], step_to', "it has no kinds"),
        ("step_to", "provisional = true, step_to", "no first assignment"),
        ('level = "purchase_stage", step_to = ["loyal"], ', "", "all changes are no condition"),
    ],
)
def test_a_level_that_cannot_be_meant_refuses_and_names_the_key(
    tmp_path: Path, before: str, after: str, told: str
) -> None:
    load(tmp_path, RISK)
    assert before in RISK
    with pytest.raises(config.ConfigError) as refused:
        load(tmp_path, RISK.replace(before, after, 1))
    assert told in str(refused.value)


def test_a_campaign_on_a_level_needs_one(tmp_path: Path) -> None:
    when = '[[campaigns]]\nname = "a"\nwhen = { level = "churn_risk", step_to = ["high"] }\n'
    with pytest.raises(config.ConfigError, match="'churn_risk'; none is declared"):
        load(tmp_path, when)


def test_two_campaigns_of_one_name_refuse(tmp_path: Path) -> None:
    one = '[[campaigns]]\nname = "a"\nwhen = { kind_to = ["at_risk"] }\n'
    with pytest.raises(config.ConfigError, match=r"campaigns\.1\.name: 'a' is used twice"):
        load(tmp_path, one + one)


def test_any_change_of_a_declaration_is_another_version() -> None:
    declared = campaign(quiet={"from": "21:00", "to": "08:00", "zone": "UTC"})
    fields = declared.model_dump(mode="json")
    assert Campaign.model_validate(fields).version == declared.version
    others = {
        "settle": 60,
        "holdout": 0.5,
        "arms": {"a": 1},
        "priority": 1,
        "when": {"kind_to": ["dormant"]},
        "end": "2027-01-01",
        "goal": {},
    }
    versions = {
        Campaign.model_validate(fields | {key: value}).version for key, value in others.items()
    }
    assert len(versions | {declared.version}) == len(others) + 1
