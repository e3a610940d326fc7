"""Tells Prometheus whether campaigns help, of all partitions together: no process has more than its own.

Comes in: what the role of campaigns keeps of every partition. Goes out: metrics. The role calls it from time to
time (`stream.wiring.roles.owning`), in each of its processes, which all say the same.
"""

from __future__ import annotations

from stream import metrics
from stream.campaigns.keep import kept_by
from stream.config import Settings
from stream.insight.campaign_facts import campaigns_facts
from stream.insight.facts import CampaignsFacts, DifferenceFacts
from stream.roles.redis import RedisRoleStore


def tell(settings: Settings, store: RedisRoleStore) -> None:
    """Work out the effects anew.

    Raises:
        StoreUnavailableError: the store does not answer.
    """
    facts = campaigns_facts(settings, kept_by(store, settings.topics.partitions))
    metrics.campaign_effects(effects_of(facts))


def effects_of(facts: CampaignsFacts) -> metrics.Effects:
    """The effects of the declarations in force."""
    compared: dict[tuple[str, str, str, str], float] = {}
    evidence: dict[str, float] = {}
    for campaign in facts["campaigns"]:
        for effect in campaign["effects"]:
            if not effect["declared"]:
                continue
            evidence[campaign["name"]] = effect["ratio_evidence"]
            for one in effect["comparisons"]:
                differences: dict[str, DifferenceFacts] = {
                    "conversion": one["conversion"],
                    "active": one["active"],
                    "revenue": one["revenue"],
                }
                for what, difference in differences.items():
                    if difference["sequence"] is not None:
                        low, high = difference["sequence"]
                        values = {"difference": difference["difference"], "low": low, "high": high}
                        for name, value in values.items():
                            compared[campaign["name"], one["arm"], what, name] = value
    return metrics.Effects(compared, evidence)
