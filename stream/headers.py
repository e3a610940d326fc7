"""Reads the headers of a Kafka record, whatever a stranger put there, and names those of a CloudEvent.

Comes in: a record. Goes out: its headers as pairs, or None where the client cannot tell them. Who
read them here once must keep them: to read them again may crash the interpreter.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import methodcaller
from typing import Any, Protocol

SPEC_VERSION = "1.0"
"""Of CloudEvents, as `producers.cloudevents` writes them."""


def attribute(name: str) -> str:
    """The header that has an attribute of a CloudEvent (Kafka binding, binary mode)."""
    return f"ce_{name}"


EVENT_ID, EVENT_TYPE, EVENT_SPEC, EVENT_SOURCE, EVENT_SCHEMA = map(
    attribute, ("id", "type", "specversion", "source", "dataschema")
)


def event_source(namespace: str, part: str) -> str:
    """Source of the CloudEvents that a part of a pipeline sends: two pipelines may share a topic."""
    return f"/segstream/{namespace}/{part}"


def schema_uri(name: str, version: int = 1) -> str:
    """Name of a JSON Schema, and `dataschema` of the CloudEvents that keep to it.

    Args:
        name: of its file, without the ending.
        version: goes up when readers of the version before would misread a record. A field more is
            no other version: readers ignore what they do not know.
    """
    return f"urn:segstream:schema:{name}:{version}"


class WithHeaders(Protocol):
    """What is needed of a Kafka record."""

    def headers(self) -> Any: ...


def headers_of(record: WithHeaders) -> list[tuple[str, bytes | None]] | None:
    """Names and values in their order; None if a name is no UTF-8.

    confluent-kafka then gives a list with holes in the memory, which nobody may touch. The first
    time it fails besides, but only whoever looks notices.
    """
    try:
        found = _ask(record)
    except (SystemError, UnicodeDecodeError):
        return None
    return [(name, _bytes(value)) for name, value in found or ()]


def event_type(record: WithHeaders) -> str:
    """The type of a CloudEvent; empty for a record that names none."""
    return (dict(headers_of(record) or ()).get(EVENT_TYPE) or b"").decode(errors="replace")


_ask: Callable[[WithHeaders], Any] = methodcaller("headers")
"""Calls a record's method. Written as a call, CPython 3.11 and later, once they have made it often
enough, would not look any more whether it failed."""


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
