"""Audits everything that settings declare: the pipeline, and then the roles that have promises of their own.

Comes in: settings and a store. Goes out: one report; the command shows it, the demo counts by it.
"""

from __future__ import annotations

from collections.abc import Callable

from consumers.audit.report import AuditReport, Progress
from consumers.audit.run import audit as audit_pipeline
from consumers.webhook_audit import audit_webhooks
from stream.config import Settings
from stream.store.promises import ReaderStore
from stream.wiring import campaigns
from stream.wiring.roles import open_role_store
from stream.wiring.webhooks import WEBHOOKS


def audit(
    settings: Settings,
    store: ReaderStore,
    *,
    sample: float = 1.0,
    progress: Callable[[Progress], None] | None = None,
) -> AuditReport:
    """Hold pipeline, campaigns and deliveries to what they promise; see `consumers.audit.run.audit`.

    Raises:
        StoreUnavailableError, BrokerUnavailableError, TopicMissingError: as `consumers.audit.run.audit`.
    """
    report = audit_pipeline(settings, store, sample=sample, progress=progress)
    if settings.campaigns:
        report = report.with_checks(campaigns.audit(settings))
    if settings.endpoints:
        with open_role_store(settings, WEBHOOKS.name, serving=False) as role_store:
            checks = [audit_webhooks(role_store, settings.topics.partitions)]
        report = report.with_checks(checks)
    return report
