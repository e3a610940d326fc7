"""The AsyncAPI 3 document: every topic, what lies on it, with which headers, and who reads and writes it.

Comes in: settings, the topic plan, the outlets and the record types. Goes out: the document; ``segstream
schemas`` writes it beside the schemas that it refers to.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from producers import topics
from producers.cloudevents import cloud_event
from producers.outbox import changes_outlet
from stream.campaigns.triggers import TRIGGERED, trigger_source, triggers_outlet
from stream.config import Settings
from stream.events import (
    CHANGED,
    LETTER_ID,
    LETTER_ORIGINAL,
    LETTER_RECEIPT,
    LETTER_REPLAYED_FROM,
    LETTER_TRUNCATED,
    LINEAGE,
    MEMBERSHIP,
    NAMESPACE_HEADER,
    ORIGIN_HEADER,
    Reason,
)
from stream.headers import event_source
from stream.schemas import RECORDS
from stream.webhooks.letters import ENABLE, PARKED, REPLAY, letter_source, letters_outlet

TEXT = {"type": "string"}
SEND, RECEIVE = "send", "receive"


class Event(NamedTuple):
    """A type of CloudEvents; the name of its schema is the name of the message, too.

    Attributes:
        part: of the pipeline that sends it, see `stream.headers.event_source`.
        key: of the record.
        extensions: further attributes.
    """

    kind: str
    part: str
    meaning: str
    key: str = "the user"
    extensions: tuple[str, ...] = ()


def events(settings: Settings) -> dict[str, Event]:
    """Every type of CloudEvents that segstream sends, by the name of its schema."""
    changes, triggers = changes_outlet(settings), triggers_outlet(settings)
    letters = letters_outlet(settings)
    return {
        "segment-change": Event(
            CHANGED,
            changes.source,
            "A user's move from one segment to another.",
            extensions=tuple(changes.extensions),
        ),
        "segment-lineage": Event(
            LINEAGE,
            event_source(settings.store.namespace, "trainer"),
            "What became of a segment in a refit.",
            "the segment",
        ),
        "segment-membership": Event(
            MEMBERSHIP,
            event_source(settings.store.namespace, "republish"),
            "Where a user is, told again by `segstream republish`.",
            extensions=("kind",),
        ),
        "campaign-trigger": Event(
            TRIGGERED,
            trigger_source(settings),
            "A campaign decided that a user is to be treated.",
            extensions=tuple(triggers.extensions),
        ),
        "webhook-letter": Event(
            PARKED,
            letters.source,
            "A trigger that an endpoint was given up for.",
            extensions=tuple(letters.extensions),
        ),
        "webhook-replay": Event(
            REPLAY,
            letter_source(settings),
            "`segstream webhooks replay` asks for another delivery; the role of webhooks obeys.",
        ),
        "webhook-enable": Event(
            ENABLE,
            letter_source(settings),
            "The same asks to try an endpoint again that wanted nothing any more; in every partition.",
            "the endpoint",
        ),
    }


CONTROL = "campaign-control"


class Channel(NamedTuple):
    """What is on a topic.

    Attributes:
        actions: what segstream does with it.
    """

    messages: tuple[str, ...]
    meaning: str
    actions: tuple[str, ...]


def document(settings: Settings, version: str) -> dict[str, Any]:
    """What is on the topics of these settings.

    Args:
        version: of the software, and so of the contract.
    """
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for plan in topics.plan(settings, [triggers_outlet(settings), letters_outlet(settings)]):
        channel = _channel(settings, plan.name)
        channels[plan.name] = {
            "address": plan.name,
            "description": channel.meaning,
            "messages": {name: _ref("messages", name) for name in channel.messages},
            "bindings": {
                "kafka": {
                    "partitions": plan.partitions,
                    "replicas": plan.replication,
                    "bindingVersion": "0.5.0",
                }
            },
        }
        for action in channel.actions:
            operations[f"{action}-{plan.name}"] = {
                "action": action,
                "channel": {"$ref": f"#/channels/{plan.name}"},
                "summary": channel.meaning,
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


def _channel(settings: Settings, name: str) -> Channel:
    names = settings.topics
    inputs = dict(zip(names.inputs, ("browsing", "orders and refunds"), strict=True))
    letters = {names.dlq(one): one for one in inputs}
    known = {
        names.changes: Channel(
            ("segment-change", "segment-lineage", "segment-membership"),
            "Who moved where and why, by user; told apart by ce_type. Campaigns read it.",
            (SEND, RECEIVE),
        ),
        names.triggers: Channel(
            ("campaign-trigger",),
            "What campaigns decided to send, by user. Webhooks read it.",
            (SEND, RECEIVE),
        ),
        names.control: Channel(
            (CONTROL,), "What people say of users and campaigns, by user.", (SEND, RECEIVE)
        ),
        names.dlq(names.triggers): Channel(
            ("webhook-letter", "webhook-replay", "webhook-enable"),
            "Triggers that endpoints did not take, and what was asked about them, by user; told apart by"
            " ce_type.",
            (SEND, RECEIVE),
        ),
        names.models: Channel(
            ("published-model",),
            "Every published model; compacted. Workers read it.",
            (SEND, RECEIVE),
        ),
    }
    if name in inputs:
        meaning = f"Events of {inputs[name]}, keyed by user, placed by murmur2."
        return Channel(("track", "mark"), meaning, (RECEIVE,))
    if name in letters:
        meaning = f"What was refused of {letters[name]}, its bytes untouched."
        return Channel(("dead-letter", "dead-letter-receipt"), meaning, (SEND, RECEIVE))
    return known[name]


def _messages(settings: Settings) -> dict[str, Any]:
    found: dict[str, Any] = {
        "track": {
            "title": "A track message",
            "summary": "Segment's e-commerce specification, version 2, as JSON.",
            "contentType": "application/json",
            "headers": {
                "type": "object",
                "properties": {
                    LETTER_REPLAYED_FROM: {
                        "type": "string",
                        "description": "of a message sent again by `segstream dlq replay`: its letter",
                    }
                },
            },
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
        },
        "mark": {
            "title": "A tick of the shop's clock",
            "summary": "Written into every partition by `segstream replay`; only a signed one counts.",
            "contentType": "application/json",
            "payload": {
                "type": "object",
                "required": ["type", "timestamp", "sentAt", "signature"],
                "properties": {
                    "type": {"const": "segstream-mark"},
                    "timestamp": TEXT,
                    "sentAt": TEXT,
                    "signature": TEXT,
                },
            },
            "bindings": {"kafka": {"bindingVersion": "0.5.0"}},
        },
    }
    for name, event in events(settings).items():
        more = dict.fromkeys(event.extensions, "")
        fixed = dict(cloud_event("", event.part, event.kind, "", "", RECORDS[name].uri, **more))
        told = {key: _text(value) for key, value in fixed.items() if value}
        found[name] = {
            "title": name,
            "summary": event.meaning,
            "contentType": "application/json",
            "headers": _headers(list(fixed), told),
            "payload": {"$ref": f"./{name}.json"},
            "bindings": _keyed(event.key),
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
        "headers": _headers(
            [NAMESPACE_HEADER, ORIGIN_HEADER], {NAMESPACE_HEADER: settings.store.namespace}
        ),
        "payload": {"$ref": "./published-model.json"},
        "bindings": _keyed("always current"),
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
    found["dead-letter-receipt"] = {
        "title": "dead-letter-receipt",
        "summary": "Letters whose messages `segstream dlq replay` has sent again, by their ids.",
        "contentType": "application/json",
        "headers": _headers([LETTER_RECEIPT]),
        "payload": {"type": "array", "items": TEXT},
        "bindings": {"kafka": {"bindingVersion": "0.5.0"}},
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


def _text(value: str | bytes | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""


def _keyed(meaning: str) -> dict[str, Any]:
    return {"kafka": {"key": {"type": "string", "description": meaning}, "bindingVersion": "0.5.0"}}


def _ref(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}
