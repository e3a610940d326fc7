"""An audit of everything that is declared: campaigns and deliveries are judged wherever there are any."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

from consumers.audit.report import AuditReport, Check
from stream.config import Settings
from stream.wiring import auditing, campaigns

CLEAN = AuditReport(True, [Check("users")], 0, 0, 0, 0, 0, 0, 0, 0, {}, {})
CAMPAIGN = {"campaigns": [{"name": "win-back", "when": {"kind_to": ["at_risk"]}}]}
ENDPOINT = {"endpoints": [{"name": "crm", "url": "https://crm.example/", "secrets": ["env:S"]}]}


@pytest.mark.parametrize(
    ("declared", "judged"),
    [
        ({}, ["users"]),
        (CAMPAIGN, ["users", "campaigns"]),
        (CAMPAIGN | ENDPOINT, ["users", "campaigns", "webhooks"]),
    ],
)
def test_a_fault_of_whatever_is_declared_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, declared: dict[str, Any], judged: list[str]
) -> None:
    monkeypatch.setattr(auditing, "audit_pipeline", lambda *_, **__: CLEAN)
    monkeypatch.setattr(campaigns, "audit", lambda _: [Check("campaigns", ok=False)])
    monkeypatch.setattr(auditing, "open_role_store", lambda *_, **__: nullcontext())
    monkeypatch.setattr(auditing, "audit_webhooks", lambda *_: Check("webhooks", ok=False))
    store: Any = None
    report = auditing.audit(Settings.model_validate(declared), store)
    assert [check.name for check in report.checks] == judged
    assert report.ok is (judged == ["users"])
