"""The JSON Schemas of what segstream publishes and reads, made of the types that do.

Comes in: the record types of `stream.events`, of campaigns and of webhooks. Goes out: a schema each, for
programs that are not written in Python; ``segstream schemas`` writes them.

Fields a schema does not name are allowed: a consumer that ignores them reads later versions too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from stream.campaigns.control import CONTROL_RECORD
from stream.campaigns.triggers import CAMPAIGN_TRIGGER, TRIGGER_SCHEMA
from stream.events import (
    CHANGE_SCHEMA,
    LINEAGE_RECORD,
    LINEAGE_SCHEMA,
    MEMBERSHIP_RECORD,
    MEMBERSHIP_SCHEMA,
    MODEL_SCHEMA,
    PUBLISHED_MODEL,
    SEGMENT_CHANGE,
)
from stream.headers import schema_uri
from stream.webhooks.letters import (
    ENABLE_SCHEMA,
    LETTER_SCHEMA,
    REPLAY_SCHEMA,
    WEBHOOK_ENABLE,
    WEBHOOK_LETTER,
    WEBHOOK_REPLAY,
)

CONTROL_SCHEMA = schema_uri("campaign-control")


class Declared(NamedTuple):
    """A schema.

    Attributes:
        uri: its name, and the `dataschema` of CloudEvents that keep to it.
        meaning: of a record.
    """

    uri: str
    meaning: str
    adapter: TypeAdapter[Any]


RECORDS: Mapping[str, Declared] = {
    one.uri.split(":")[3]: one
    for one in (
        Declared(
            CHANGE_SCHEMA, "The value of a record on the topic segment-changes.", SEGMENT_CHANGE
        ),
        Declared(
            LINEAGE_SCHEMA,
            "The value of a record on the topic segment-changes that tells what became of a segment.",
            LINEAGE_RECORD,
        ),
        Declared(
            MEMBERSHIP_SCHEMA,
            "The value of a record on the topic segment-changes that tells again where a user is.",
            MEMBERSHIP_RECORD,
        ),
        Declared(
            TRIGGER_SCHEMA,
            "The value of a record on the topic campaign-triggers.",
            CAMPAIGN_TRIGGER,
        ),
        Declared(
            CONTROL_SCHEMA, "The value of a record on the topic campaign-control.", CONTROL_RECORD
        ),
        Declared(
            LETTER_SCHEMA,
            "The value of a record on the topic campaign-triggers.dlq that tells of a delivery given up.",
            WEBHOOK_LETTER,
        ),
        Declared(
            REPLAY_SCHEMA,
            "The value of a record on the topic campaign-triggers.dlq that asks for another delivery.",
            WEBHOOK_REPLAY,
        ),
        Declared(
            ENABLE_SCHEMA,
            "The value of a record on the topic campaign-triggers.dlq that asks to try an endpoint again.",
            WEBHOOK_ENABLE,
        ),
        Declared(
            MODEL_SCHEMA, "The value of a record on the topic segment-models.", PUBLISHED_MODEL
        ),
    )
}
"""Every schema, by the name of its file."""


class _Plain(GenerateJsonSchema):
    """Without a title a field: it would only repeat the field's name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        del schema
        return False


def schemas() -> dict[str, str]:
    """The text of every schema, by the name of its file."""
    texts = {}
    for name, (uri, meaning, adapter) in RECORDS.items():
        schema = adapter.json_schema(schema_generator=_Plain, mode="serialization")
        head = {
            "$schema": GenerateJsonSchema.schema_dialect,
            "$id": uri,
            "title": schema.pop("title"),
            "description": meaning,
        }
        schema.pop("description", None)
        texts[f"{name}.json"] = json.dumps(head | schema, indent=2) + "\n"
    return texts
