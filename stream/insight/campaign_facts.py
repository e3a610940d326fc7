"""What campaigns have decided so far, and whether it helped: facts of all partitions together.

Comes in: what the role keeps of each partition (`stream.campaigns.keep.Own`), and settings. Goes out: facts, by
campaign and version; `cli.campaigns` shows them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from stream.campaigns.arms import arm_names
from stream.campaigns.declare import Campaign
from stream.campaigns.effect import Comparison, Difference, effect
from stream.campaigns.keep import Own
from stream.campaigns.windows import Sums
from stream.config import Settings
from stream.insight.facts import (
    ArmFacts,
    CampaignsFacts,
    CampaignState,
    ComparisonFacts,
    DifferenceFacts,
    EffectFacts,
)
from stream.told import ToldError


class NoCampaignError(ToldError):
    """There is no campaign of that name, neither declared nor known of before."""


def campaigns_facts(
    settings: Settings, owns: Sequence[Own], only: str | None = None
) -> CampaignsFacts:
    """Every campaign that is declared, and then those that were.

    Args:
        only: the name of the one that is asked for.

    Raises:
        NoCampaignError: there is none of that name.
    """
    known = dict.fromkeys(
        [one.name for one in settings.campaigns] + [name for own in owns for name in own.seen]
    )
    if only is not None and only not in known:
        raise NoCampaignError(
            f"there is no campaign {only!r}" + (f", but {', '.join(known)}" if known else "")
        )
    names = list(known) if only is None else [only]
    return {"campaigns": [_state(name, settings, owns) for name in names]}


def _state(name: str, settings: Settings, owns: Sequence[Own]) -> CampaignState:
    declared = next((one for one in settings.campaigns if one.name == name), None)
    outcomes: Counter[str] = Counter()
    for own in owns:
        outcomes.update(own.counts.get(name, {}))
    told = {outcome: count for outcome, count in outcomes.items() if count}
    return {
        "name": name,
        "version": None if declared is None else declared.version,
        "paused": any(name in own.paused for own in owns),
        "looked_at": sum(own.seen.get(name, 0) for own in owns),
        "outcomes": told,
        "effects": [
            _effect(version, owns, is_declared=version == declared)
            for version in _versions(name, declared, owns)
            if version.goal is not None
        ],
    }


def _versions(name: str, declared: Campaign | None, owns: Sequence[Own]) -> list[Campaign]:
    """Declarations of a campaign, the one in force first, then the newest."""
    found = {} if declared is None else {declared.version: declared}
    for own in owns:
        for text in reversed(own.versions):
            one = Campaign.from_kept(text)
            if one.name == name:
                found.setdefault(one.version, one)
    return list(found.values())


def _effect(campaign: Campaign, owns: Sequence[Own], *, is_declared: bool) -> EffectFacts:
    names = arm_names(campaign)
    sums: dict[str, Sums] = {}
    still_open: Counter[str] = Counter()
    for own in owns:
        for arm, of in own.sums.get(campaign.name, {}).get(campaign.version, {}).items():
            sums[arm] = sums.get(arm, Sums()) + of
        still_open.update(own.still_open.get(campaign.name, {}).get(campaign.version, {}))
    found = effect(campaign, {number: sums[arm] for number, arm in enumerate(names) if arm in sums})
    arms: list[ArmFacts] = [
        {
            "arm": arm,
            "users": of.users,
            "converted": of.converted,
            "active": of.active,
            "revenue": round(of.revenue, 2),
            "still_open": still_open[arm],
        }
        for arm in names
        if (of := sums.get(arm, Sums())).users or still_open[arm]
    ]
    assert campaign.goal is not None
    return {
        "version": campaign.version,
        "declared": is_declared,
        "within_seconds": campaign.goal.within,
        "hope": campaign.goal.hope,
        "arms": arms,
        "comparisons": list(map(_comparison, found.comparisons)) if campaign.holdout else [],
        "as_declared": found.as_declared,
        "ratio_evidence": min(found.ratio_evidence, 1e300),
    }


def _comparison(one: Comparison) -> ComparisonFacts:
    return {
        "arm": one.arm,
        "users": one.users,
        "held_out_users": one.held_out_users,
        "verdict": one.verdict,
        "missing": one.missing,
        "conversion": _difference(one.conversion),
        "revenue": _difference(one.revenue),
        "active": _difference(one.active),
    }


def _difference(one: Difference) -> DifferenceFacts:
    return {
        "treated": one.treated,
        "held_out": one.held_out,
        "difference": one.difference,
        "sequence": None if one.sequence is None else list(one.sequence),
        "plain": None if one.plain is None else list(one.plain),
    }
