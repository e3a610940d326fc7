"""The AsyncAPI 3 document: every topic, what lies on it, and with which headers.

Comes in: the topic plan, the outlets and the record types. Goes out: ``asyncapi.yaml`` beside
this file; ``python -m ops.schemas`` writes it. Topics are named as by default.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from producers import topics
from producers.cloudevents import cloud_event
from producers.outbox import changes_outlet
from stream.campaigns.triggers import TRIGGERED, triggers_outlet
from stream.config import Settings
from stream.events import (
    CHANGED,
    LETTER_ID,
    LETTER_ORIGINAL,
    LETTER_TRUNCATED,
    LINEAGE,
    MEMBERSHIP,
    NAMESPACE_HEADER,
    ORIGIN_HEADER,
    Reason,
)
from stream.webhooks.letters import PARKED, letters_outlet

FILE = Path(__file__).parent / "asyncapi.yaml"
TEXT = {"type": "string"}
DATA: dict[str, tuple[str, str]] = {
    "segment-change": (CHANGED, "A user's move from one segment to another."),
    "segment-lineage": (LINEAGE, "What became of a segment in a refit."),
    "segment-membership": (MEMBERSHIP, "Where a user is, told again by `segstream republish`."),
}
"""CloudEvents on the topic of changes: their schema, type and meaning."""
TRIGGERS = {"campaign-trigger": (TRIGGERED, "A campaign decided that a user is to be treated.")}
"""The same of the topic of triggers."""
PARKED_DELIVERIES = {"webhook-letter": (PARKED, "A trigger that an endpoint was given up for.")}
"""The same of the topic of parked deliveries."""
CONTROL = "campaign-control"


def document(settings: Settings, version: str) -> dict[str, Any]:
    """What is on the topics of these settings.

    Args:
        version: of the software, and so of the contract.
    """
    names = settings.topics
    inputs = dict(zip(names.inputs, ("browsing", "orders and refunds"), strict=True))
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for plan in topics.plan(settings, [triggers_outlet(settings), letters_outlet(settings)]):
        messages, meaning, action = _channel(settings, plan.name, inputs)
        channels[plan.name] = {
            "address": plan.name,
            "description": meaning,
            "messages": {name: _ref("messages", name) for name in messages},
            "bindings": {
                "kafka": {
                    "partitions": plan.partitions,
                    "replicas": plan.replication,
                    "bindingVersion": "0.5.0",
                }
            },
        }
        operations[f"{action}-{plan.name}"] = {
            "action": action,
            "channel": {"$ref": f"#/channels/{plan.name}"},
            "summary": meaning,
        }
    return {
        "asyncapi": "3.0.0",
        "id": "urn:segstream",
        "info": {
            "title": "segstream",
            "version": version,
            "description": "Live segmentation of shoppers: what comes in, what goes out, what is refused."
            " Readers ignore fields and headers that they do not know.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": _messages(settings)},
    }


def _channel(settings: Settings, name: str, inputs: dict[str, str]) -> tuple[list[str], str, str]:
    """Messages on a topic, what it is, and what segstream does with it."""
    names = settings.topics
    if name in inputs:
        meaning = f"Events of {inputs[name]}, keyed by user, placed by murmur2."
        return ["track"], meaning, "receive"
    if name == names.changes:
        return list(DATA), "Who moved where and why, by user; told apart by ce_type.", "send"
    if name == names.triggers:
        return list(TRIGGERS), "What campaigns decided to send, by user.", "send"
    if name == names.control:
        return [CONTROL], "What people say of users and campaigns, by user.", "receive"
    if name == names.dlq(names.triggers):
        return list(PARKED_DELIVERIES), "Triggers that endpoints did not take, by user.", "send"
    if name == names.models:
        return ["published-model"], "Every published model; compacted.", "send"
    source = next(one for one in inputs if names.dlq(one) == name)
    return ["dead-letter"], f"What was refused of {source}, its bytes untouched.", "send"


def _messages(settings: Settings) -> dict[str, Any]:
    found: dict[str, Any] = {
        "track": {
            "title": "A track message",
            "summary": "Segment's e-commerce specification, version 2, as JSON.",
            "contentType": "application/json",
            "payload": {
                "type": "object",
                "required": ["type", "event"],
                "properties": {
                    "type": {"const": "track"},
                    "event": TEXT,
                    "userId": TEXT,
                    "anonymousId": TEXT,
                    "messageId": TEXT,
                    "timestamp": TEXT,
                    "properties": {"type": "object"},
                },
            },
            "bindings": _keyed("the user"),
        }
    }
    outlet = changes_outlet(settings)
    extensions = {
        "segment-change": outlet.extensions,
        "segment-membership": {"kind": "kind"},
        "campaign-trigger": triggers_outlet(settings).extensions,
        "webhook-letter": letters_outlet(settings).extensions,
    }
    for name, (kind, meaning) in (DATA | TRIGGERS | PARKED_DELIVERIES).items():
        more = dict.fromkeys(extensions.get(name, {}), "")
        headers = [header for header, _ in cloud_event("", "", kind, "", "", **more)]
        found[name] = {
            "title": name,
            "summary": meaning,
            "contentType": "application/json",
            "headers": _headers(headers, {"ce_specversion": "1.0", "ce_type": kind}),
            "payload": {"$ref": f"./{name}.json"},
            "bindings": _keyed("the segment" if kind == LINEAGE else "the user"),
        }
    found[CONTROL] = {
        "title": CONTROL,
        "summary": "Who gets nothing, in which zone a user is, which campaign is paused.",
        "contentType": "application/json",
        "payload": {"$ref": f"./{CONTROL}.json"},
        "bindings": _keyed("the user, or the campaign"),
    }
    found["published-model"] = {
        "title": "published-model",
        "summary": "A model in force from its publication on.",
        "contentType": "application/json",
        "headers": _headers([NAMESPACE_HEADER, ORIGIN_HEADER]),
        "payload": {"$ref": "./published-model.json"},
        "bindings": _keyed("model"),
    }
    letter = _headers(LETTER)
    letter["properties"]["segstream-reason"] = {"enum": [reason.value for reason in Reason]}
    letter["properties"][LETTER_TRUNCATED] = {
        "type": "string",
        "description": "of a value that was too large for the topic: its bytes; the head is kept",
    }
    letter["patternProperties"] = {
        f"^{LETTER_ORIGINAL}": {"description": "a header of the message, as it was"}
    }
    found["dead-letter"] = {
        "title": "dead-letter",
        "summary": "A message that was refused, its bytes untouched; the reason is in a header.",
        "contentType": "application/octet-stream",
        "headers": letter,
        "bindings": _keyed("as the message had it"),
    }
    return found


LETTER = (
    LETTER_ID,
    "segstream-topic",
    "segstream-partition",
    "segstream-offset",
    "segstream-timestamp",
    "segstream-reason",
    "segstream-detail",
)
"""Headers of every dead letter; a test holds them to what is filed."""


def _headers(
    names: list[str] | tuple[str, ...], fixed: dict[str, str] | None = None
) -> dict[str, Any]:
    fixed = fixed or {}
    known = {name: {"const": fixed[name]} if name in fixed else dict(TEXT) for name in names}
    return {"type": "object", "required": list(names), "properties": known}


def _keyed(meaning: str) -> dict[str, Any]:
    return {"kafka": {"key": {"type": "string", "description": meaning}, "bindingVersion": "0.5.0"}}


def _ref(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}


def text(version: str) -> str:
    """The file, whole."""

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            del data
            return True

    return yaml.dump(document(Settings(), version), Dumper=Plain, sort_keys=False, width=100)
