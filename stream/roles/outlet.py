"""What is declared of the records that a role sends: their topic, and what strangers read of them.

A role's owners put records into its outbox, as JSON without line feeds; its publisher takes them from there
and sends them as CloudEvents, each on its partition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Outlet:
    """Where an outbox is emptied to.

    Every record has the fields ``id`` (one identity for one payload, so that a repeat is recognised) and
    ``at`` (ISO 8601).

    Attributes:
        role: whose it is; names the lease of its publisher, and labels metrics.
        source, kind: of the CloudEvents.
        schema: that the records keep to, see `stream.headers.schema_uri`; empty for none.
        subject: the field that is the subject, and the key of the record.
        extensions: further attributes: name of the attribute, and the field it repeats.
        retention_seconds: how long the topic keeps records; 0 for ever.
        remedy: what brings back what the topic has lost.
    """

    role: str
    topic: str
    source: str
    kind: str
    schema: str = ""
    subject: str = "user"
    extensions: Mapping[str, str] = field(default_factory=dict)
    retention_seconds: float = 0.0
    remedy: str = "What it had is not sent again"
