"""An audit of everything that is declared: campaigns are judged wherever there are any."""

from __future__ import annotations

from typing import Any

import pytest

from consumers.audit.report import AuditReport, Check
from stream.config import Settings
from stream.wiring import auditing, campaigns

CLEAN = AuditReport(True, [Check("users")], 0, 0, 0, 0, 0, 0, 0, 0, {}, {})
CAMPAIGN = {"name": "win-back", "when": {"kind_to": ["at_risk"]}}


@pytest.mark.parametrize(("declared", "ok"), [([], True), ([CAMPAIGN], False)])
def test_a_fault_of_campaigns_is_a_fault_where_there_are_any(
    monkeypatch: pytest.MonkeyPatch, declared: list[dict[str, Any]], ok: bool
) -> None:
    monkeypatch.setattr(auditing, "audit_pipeline", lambda *_, **__: CLEAN)
    monkeypatch.setattr(campaigns, "audit", lambda _: [Check("campaigns", ok=False)])
    settings = Settings.model_validate({"campaigns": declared})
    store: Any = None
    report = auditing.audit(settings, store)
    assert report.ok is ok
    assert [check.name for check in report.checks] == ["users", "campaigns"][: 1 + len(declared)]
