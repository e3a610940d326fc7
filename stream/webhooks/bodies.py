"""Writes a trigger as each receiver understands it.

Comes in: a trigger's record, and the secrets of its endpoint. Goes out: a body, and headers without the
signature, which hangs on the time of the attempt (`producers.webhooks`).

Every format says the trigger's id where its receiver looks for repeats: a trigger that arrives twice is one.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from stream.campaigns.triggers import TRIGGER_SCHEMA, TRIGGERED, CampaignTrigger
from stream.headers import SPEC_VERSION
from stream.webhooks.declare import Format

KLAVIYO_REVISION = "2025-01-15"
"""Of Klaviyo's interface; a revision is served for two years and longer."""
SEGMENT_FROM, SEGMENT_TO = "Audience Exited", "Audience Entered"

_encode = msgspec.json.Encoder().encode


class Body(NamedTuple):
    """What is sent: headers beside those of every request, and bytes."""

    headers: dict[str, str]
    content: bytes


def body(form: Format, trigger: CampaignTrigger, secrets: Sequence[str], source: str) -> Body:
    """A trigger as a format has it.

    Args:
        secrets: of the endpoint, the newest first.
        source: of a CloudEvent, see `triggers.trigger_source`.
    """
    kind, told = _FORMATS[form](trigger, source)
    headers = {"content-type": kind} | _credentials(form, secrets)
    return Body(headers, _encode(told))


def _standard(trigger: CampaignTrigger, _: str) -> tuple[str, Any]:
    return "application/json", {
        "type": TRIGGERED,
        "timestamp": trigger["at"],
        "data": dict(trigger),
    }


def _cloudevents(trigger: CampaignTrigger, source: str) -> tuple[str, Any]:
    return "application/cloudevents+json", {
        "specversion": SPEC_VERSION,
        "id": trigger["id"],
        "source": source,
        "type": TRIGGERED,
        "dataschema": TRIGGER_SCHEMA,
        "subject": trigger["user"],
        "time": trigger["at"],
        "datacontenttype": "application/json",
        "campaign": trigger["campaign"],
        "arm": trigger["arm"],
        "data": dict(trigger),
    }


def _segment(trigger: CampaignTrigger, _: str) -> tuple[str, Any]:
    """A batch: the user leaves one audience, enters another, and has traits that say so.

    The audiences are the kinds of the segments, which outlive every model, or the steps of the level.
    """
    left, entered = _audiences(trigger)
    calls: list[dict[str, Any]] = []
    traits = _where(trigger) | {
        "segstream_campaign": trigger["campaign"],
        "segstream_arm": trigger["arm"],
    }
    if left is not None and left != entered:
        traits[left] = False
        calls.append(_membership(trigger, SEGMENT_FROM, left, is_in=False))
    if entered is not None:
        traits[entered] = True
        calls.append(_membership(trigger, SEGMENT_TO, entered, is_in=True))
    calls.append(_call(trigger, "identify", "identify") | {"traits": traits})
    return "application/json", {"batch": calls}


def _audiences(trigger: CampaignTrigger) -> tuple[str | None, str | None]:
    """Of the kind or step before, and of that after; None for none."""
    before, after = trigger["kind_from"], trigger["kind_to"]
    level = trigger.get("level")
    if level is not None:
        before, after = (
            None if step is None else f"{level} {step}"
            for step in (trigger.get("step_from"), trigger.get("step_to"))
        )
    return None if before is None else audience(before), None if after is None else audience(after)


def _where(trigger: CampaignTrigger) -> dict[str, Any]:
    """Traits that say where the user is now: the segment's name, or the step of the level."""
    if "level" in trigger:
        return {audience(trigger["level"]): trigger.get("step_to")}
    return {"segstream_segment": trigger["name_to"]}


def _membership(trigger: CampaignTrigger, event: str, key: str, *, is_in: bool) -> dict[str, Any]:
    properties = {
        "audience_key": key,
        key: is_in,
        "campaign": trigger["campaign"],
        "arm": trigger["arm"],
    }
    last = "entered" if is_in else "exited"
    return _call(trigger, "track", last) | {"event": event, "properties": properties}


def _call(trigger: CampaignTrigger, kind: str, last: str) -> dict[str, Any]:
    return {
        "type": kind,
        "userId": trigger["user"],
        "messageId": f"{trigger['id']}-{last}",
        "timestamp": trigger["at"],
    }


def audience(kind: str) -> str:
    """The key of the audience of a kind of segment, or of a step of a level."""
    return "segstream_" + re.sub(r"[^a-z0-9]+", "_", kind.lower())


def _klaviyo(trigger: CampaignTrigger, _: str) -> tuple[str, Any]:
    attributes = {
        "unique_id": trigger["id"],
        "time": trigger["at"],
        "properties": {key: value for key, value in trigger.items() if value is not None},
        "metric": {
            "data": {
                "type": "metric",
                "attributes": {"name": f"segstream {trigger['campaign']}"},
            }
        },
        "profile": {"data": {"type": "profile", "attributes": {"external_id": trigger["user"]}}},
    }
    return "application/vnd.api+json", {"data": {"type": "event", "attributes": attributes}}


def _dittofeed(trigger: CampaignTrigger, _: str) -> tuple[str, Any]:
    track = _call(trigger, "track", "track") | {
        "event": f"segstream {trigger['campaign']}",
        "properties": dict(trigger),
    }
    identify = _call(trigger, "identify", "identify") | {
        "traits": _where(trigger)
        | ({} if "level" in trigger else {"segstream_kind": trigger["kind_to"]})
    }
    return "application/json", {"batch": [identify, track]}


_FORMATS = {
    Format.STANDARD: _standard,
    Format.CLOUDEVENTS: _cloudevents,
    Format.SEGMENT: _segment,
    Format.KLAVIYO: _klaviyo,
    Format.DITTOFEED: _dittofeed,
}


def _credentials(form: Format, secrets: Sequence[str]) -> dict[str, str]:
    """What the receiver is shown; nothing where secrets sign."""
    if form is Format.SEGMENT:
        return {"authorization": "Basic " + base64.b64encode(f"{secrets[0]}:".encode()).decode()}
    if form is Format.KLAVIYO:
        return {
            "authorization": f"Klaviyo-API-Key {secrets[0]}",
            "revision": KLAVIYO_REVISION,
            "accept": "application/vnd.api+json",
        }
    if form is Format.DITTOFEED:
        # Its dashboard shows the key with the scheme before it.
        return {"authorization": secrets[0] if " " in secrets[0] else f"Bearer {secrets[0]}"}
    return {}
