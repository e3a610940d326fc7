"""Reads what the role of campaigns keeps, for commands: what it has decided, and whether that is so.

Comes in: settings. Goes out: what is kept of each partition, and `Check`s of `consumers.campaign_audit`.
"""

from __future__ import annotations

from consumers.audit.report import Check
from consumers.campaign_audit import KeptPartition, audit_campaigns
from consumers.campaigns import CAMPAIGNS
from stream.campaigns.keep import Own, kept_by, read_own
from stream.config import Settings
from stream.wiring.roles import open_role_store, open_store


def state(settings: Settings) -> list[Own]:
    """What the role of campaigns keeps of its partitions; nothing of those that it has not begun.

    Raises:
        ConfigError, StoreUnavailableError: as `open_store`.
    """
    with open_role_store(settings, CAMPAIGNS.name, serving=False) as store:
        return kept_by(store, settings.topics.partitions)


def audit(settings: Settings) -> list[Check]:
    """Hold the role of campaigns to its topics; see `consumers.campaign_audit`.

    Raises:
        ConfigError, StoreUnavailableError: as `open_store`.
        BrokerUnavailableError: the broker does not answer.
    """
    with open_store(settings) as opened:
        key = opened.namespace_key()
    kept = []
    with open_role_store(settings, CAMPAIGNS.name, serving=False) as store:
        for number in range(settings.topics.partitions):
            before, own, after = store.position(number), store.own(number), store.position(number)
            while before != after:
                before, own, after = after, store.own(number), store.position(number)
            if before is not None and own:
                waiting = sum(store.outbox_sizes([number]))
                changes, _, told = before.offsets
                kept.append(
                    KeptPartition(number, changes, told, before.clock_ms, waiting, read_own(own))
                )
    return audit_campaigns(settings, key, kept)
