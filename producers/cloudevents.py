"""Writes the headers of a CloudEvent (1.0, Kafka binding, binary mode), in one place.

Comes in: what a record is and where it is from. Goes out: its headers; whoever delivers is next.
"""

from __future__ import annotations

from producers.delivery import Headers
from stream.headers import SPEC_VERSION, attribute


def cloud_event(
    name: str,
    source: str,
    kind: str,
    time: str,
    subject: str,
    /,
    dataschema: str = "",
    **extensions: str,
) -> Headers:
    """Headers of a JSON event.

    Args:
        name: its id.
        source: see `stream.headers.event_source`.
        kind: its type.
        time: ISO 8601.
        dataschema: see `stream.headers.schema_uri`; empty for a record that has none.
        extensions: further attributes, by their names.
    """
    attributes = {
        "specversion": SPEC_VERSION,
        "id": name,
        "source": source,
        "type": kind,
        "time": time,
        "subject": subject,
        **({"dataschema": dataschema} if dataschema else {}),
        **extensions,
    }
    headers: Headers = [(attribute(named), value) for named, value in attributes.items()]
    return [*headers, ("content-type", "application/json")]
