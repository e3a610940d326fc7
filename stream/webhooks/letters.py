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
from stream.roles.outlet import Outlet

PARKED = "segstream.webhook.parked"
REPLAY = "segstream.webhook.replay"
ENABLE = "segstream.webhook.enable"
"""Types of the CloudEvents on the topic of parked deliveries."""
ROLE = "webhooks"
SOURCE = "/segstream/webhooks"


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
        SOURCE,
        PARKED,
        extensions={"endpoint": "endpoint"},
        retention_seconds=settings.topics.triggers_retention_seconds,
    )
