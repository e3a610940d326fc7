"""Makes endpoints, triggers and rules for the tests of webhooks."""

from __future__ import annotations

import base64
from typing import Any

from stream.campaigns.triggers import CampaignTrigger
from stream.records import change_id
from stream.units import iso
from stream.webhooks.declare import Endpoint
from stream.webhooks.rules import Rules

NOW_MS = 1_780_000_000_000
DAY_MS = 86_400_000
SECRET = "whsec_" + base64.b64encode(b"x" * 24).decode()
OTHER_SECRET = "whsec_" + base64.b64encode(b"y" * 32).decode()
RETRIES_MS = (5_000, 60_000, 300_000)
RULES = Rules(RETRIES_MS, open_after=3, open_ms=5_000, most_open_ms=20_000, waiting=100, share=1.0)


def endpoint(name: str = "crm", **fields: Any) -> Endpoint:
    """One that gets everything, unless something else is said."""
    told = {"name": name, "url": "https://crm.example/hooks", "secrets": ["env:SECRET"]}
    return Endpoint.model_validate(told | fields)


def trigger(number: int = 1, key: bytes | None = None, **fields: Any) -> CampaignTrigger:
    """A trigger of its own user for each number, unless something else is said.

    Args:
        key: of the namespace, by which its ids are; None takes plain ones, which only the role minds.
    """
    told: Any = {
        "id": f"win-back-0a1b2c3d-{number:016x}-1-1",
        "campaign": "win-back",
        "version": "0a1b2c3d",
        "arm": "coupon",
        "user": f"u{number}",
        "change": f"{number:016x}-1-1",
        "changed_at": iso(NOW_MS - 1_000),
        "at": iso(NOW_MS),
        "valid_until": iso(NOW_MS + DAY_MS),
        "from": 2,
        "to": 1,
        "name_from": "Loyal",
        "name_to": "At risk",
        "kind_from": "loyal",
        "kind_to": "at_risk",
        "cause": "time_passed",
    } | fields
    if key is not None:
        told["change"] = change_id(told["user"].encode(), key, 1, number)
        told["id"] = f"{told['campaign']}-{told['version']}-{told['change']}"
    made: CampaignTrigger = told
    return made
