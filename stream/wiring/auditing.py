"""Audits everything that settings declare: the pipeline, and then the roles that have promises of their own.

Comes in: settings and a store. Goes out: one report; the command shows it, the demo counts by it.
"""

from __future__ import annotations

from collections.abc import Callable

from consumers.audit.report import AuditReport, Progress
from consumers.audit.run import audit as audit_pipeline
from stream.config import Settings
from stream.store.promises import ReaderStore
from stream.wiring import campaigns


def audit(
    settings: Settings,
    store: ReaderStore,
    *,
    sample: float = 1.0,
    progress: Callable[[Progress], None] | None = None,
) -> AuditReport:
    """Hold the pipeline and its campaigns to their topics; see `consumers.audit.run.audit`.

    Raises:
        StoreUnavailableError, BrokerUnavailableError, TopicMissingError: as `consumers.audit.run.audit`.
    """
    report = audit_pipeline(settings, store, sample=sample, progress=progress)
    return report.with_checks(campaigns.audit(settings)) if settings.campaigns else report
