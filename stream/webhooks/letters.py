"""What is told of a delivery that was given up, and how somebody asks for another try.

Comes in: deliveries. Goes out: records on the topic of parked deliveries, and requests on the same topic;
the role of webhooks reads it and obeys the requests.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from stream.campaigns.triggers import CampaignTrigger
from stream.config import Settings
from stream.headers import event_source, schema_uri
from stream.roles.outlet import Outlet

PARKED = "segstream.webhook.parked"
REPLAY = "segstream.webhook.replay"
ENABLE = "segstream.webhook.enable"
"""Types of the CloudEvents on the topic of parked deliveries."""
ROLE = "webhooks"
LETTER_SCHEMA = schema_uri("webhook-letter")
REPLAY_SCHEMA = schema_uri("webhook-replay")
ENABLE_SCHEMA = schema_uri("webhook-enable")
"""What their data keep to."""


class Letter(TypedDict):
    """A delivery that was given up."""

    id: Annotated[str, Field(description="endpoint, id of the trigger, and round")]
    endpoint: str
    reason: Annotated[str, Field(description="exhausted, expired, gone, full or undeclared")]
    detail: Annotated[str, Field(description="what the last attempt came to")]
    attempts: Annotated[int, Field(description="made in this round")]
    round: Annotated[int, Field(description="how often it was replayed before")]
    at: Annotated[str, Field(description="when it was given up")]
    user: str
    campaign: str
    trigger: CampaignTrigger


class Replay(TypedDict):
    """Somebody asks to send what was given up."""

    id: str
    at: str
    letter: Letter
    late: Annotated[bool, Field(description="also after the trigger's valid_until")]


class Enable(TypedDict):
    """Somebody asks to try an endpoint again that wanted nothing any more."""

    id: str
    at: str
    endpoint: str


WEBHOOK_LETTER: TypeAdapter[Any] = TypeAdapter(Letter)
WEBHOOK_REPLAY: TypeAdapter[Any] = TypeAdapter(Replay)
WEBHOOK_ENABLE: TypeAdapter[Any] = TypeAdapter(Enable)


def letter_source(settings: Settings) -> str:
    """Source of the CloudEvents on the topic of parked deliveries."""
    return event_source(settings.store.namespace, ROLE)


def letter_id(endpoint: str, trigger: str, rounds: int) -> str:
    """One identity for one payload."""
    return f"{endpoint}/{trigger}/{rounds}"


def topic_of(settings: Settings) -> str:
    """Where parked deliveries are."""
    return settings.topics.dlq(settings.topics.triggers)


def letters_outlet(settings: Settings) -> Outlet:
    """Of deliveries that were given up."""
    return Outlet(
        ROLE,
        topic_of(settings),
        letter_source(settings),
        PARKED,
        LETTER_SCHEMA,
        extensions={"endpoint": "endpoint"},
        retention_seconds=settings.topics.triggers_retention_seconds,
    )
