"""The JSON Schemas of what segstream publishes, written from the types that publish it.

Comes in: the record types of `stream.events` and of campaigns. Goes out: a file each beside this one, for consumers
who are not written in Python. ``python -m ops.schemas`` writes them anew after a type was changed.

Fields a schema does not name are allowed: a consumer that ignores them reads later versions too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from stream.campaigns.control import CONTROL_RECORD
from stream.campaigns.triggers import CAMPAIGN_TRIGGER
from stream.events import LINEAGE_RECORD, MEMBERSHIP_RECORD, PUBLISHED_MODEL, SEGMENT_CHANGE
from stream.webhooks.letters import WEBHOOK_LETTER

FOLDER = Path(__file__).parent

RECORDS: dict[str, tuple[str, TypeAdapter[Any]]] = {
    "segment-change": ("The value of a record on the topic segment-changes.", SEGMENT_CHANGE),
    "segment-lineage": (
        "The value of a record on the topic segment-changes that tells what became of a segment.",
        LINEAGE_RECORD,
    ),
    "segment-membership": (
        "The value of a record on the topic segment-changes that tells again where a user is.",
        MEMBERSHIP_RECORD,
    ),
    "campaign-trigger": (
        "The value of a record on the topic campaign-triggers.",
        CAMPAIGN_TRIGGER,
    ),
    "campaign-control": (
        "The value of a record on the topic campaign-control.",
        CONTROL_RECORD,
    ),
    "webhook-letter": (
        "The value of a record on the topic campaign-triggers.dlq that tells of a delivery given up.",
        WEBHOOK_LETTER,
    ),
    "published-model": ("The value of a record on the topic segment-models.", PUBLISHED_MODEL),
}
"""Name of the schema, its meaning, and the type it describes."""


class _Plain(GenerateJsonSchema):
    """Without a title a field: it would only repeat the field's name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        del schema
        return False


def schemas() -> dict[Path, str]:
    """The text of every schema file, by path."""
    texts = {}
    for name, (meaning, adapter) in RECORDS.items():
        schema = adapter.json_schema(schema_generator=_Plain, mode="serialization")
        head = {
            "$schema": GenerateJsonSchema.schema_dialect,
            "$id": f"urn:segstream:schema:{name}",
            "title": schema.pop("title"),
            "description": meaning,
        }
        schema.pop("description", None)
        texts[FOLDER / f"{name}.json"] = json.dumps(head | schema, indent=2) + "\n"
    return texts
