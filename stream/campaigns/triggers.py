"""Tells strangers what a campaign decided: the records of `campaign-triggers`.

Comes in: decisions to send. Goes out: records as JSON; an outbox is next.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, NotRequired

import msgspec
import numpy as np
from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from stream.campaigns.arms import arm_names
from stream.campaigns.decide import Decider, Decisions, Outcome
from stream.config import Settings
from stream.headers import event_source, schema_uri
from stream.records import change_id, is_of
from stream.roles.outlet import Outlet
from stream.units import iso

TRIGGERED = "segstream.campaign.triggered"
"""Type of the CloudEvents on `campaign-triggers`."""
TRIGGER_SCHEMA = schema_uri("campaign-trigger")
"""What their data keep to."""
ROLE = "campaigns"


def trigger_source(settings: Settings) -> str:
    """Source of the CloudEvents on `campaign-triggers`."""
    return event_source(settings.store.namespace, ROLE)


CampaignTrigger = TypedDict(
    "CampaignTrigger",
    {
        "id": Annotated[
            str, Field(description="the same for the same decision: campaign, version, change")
        ],
        "campaign": str,
        "version": Annotated[
            str, Field(description="tells this declaration of the campaign from any other")
        ],
        "arm": Annotated[str, Field(description="how the campaign treats this user")],
        "user": str,
        "change": Annotated[
            str, Field(description="id of the change, or crossing, that it was decided about")
        ],
        "changed_at": Annotated[str, Field(description="when the change happened")],
        "at": Annotated[str, Field(description="as of when it was decided")],
        "valid_until": Annotated[str, Field(description="later than this is too late")],
        "from": Annotated[int | None, Field(description="segment before the change")],
        "to": Annotated[
            int | None,
            Field(
                description="segment after it; null for a crossing of a level, as names and kinds"
            ),
        ],
        "name_from": str | None,
        "name_to": str | None,
        "kind_from": str | None,
        "kind_to": str | None,
        "cause": str,
        "level": NotRequired[
            Annotated[str, Field(description="of a crossing only: the level that was crossed")]
        ],
        "step_from": NotRequired[
            Annotated[str | None, Field(description="of a crossing only: the step before")]
        ],
        "step_to": NotRequired[
            Annotated[str | None, Field(description="of a crossing only: the step after")]
        ],
    },
)
"""A campaign decided that a user is to be treated."""

CAMPAIGN_TRIGGER: TypeAdapter[Any] = TypeAdapter(CampaignTrigger)
_encode = msgspec.json.Encoder().encode


def triggers_outlet(settings: Settings) -> Outlet:
    """Of the triggers of campaigns."""
    return Outlet(
        ROLE,
        settings.topics.triggers,
        trigger_source(settings),
        TRIGGERED,
        TRIGGER_SCHEMA,
        extensions={"campaign": "campaign", "arm": "arm"},
        retention_seconds=settings.topics.triggers_retention_seconds,
    )


def triggers(decider: Decider, decisions: Decisions, key: bytes) -> Iterable[CampaignTrigger]:
    """A record for each decision to send.

    Args:
        key: the namespace's secret, which makes the ids of changes.
    """
    for place in np.flatnonzero(decisions.outcome == int(Outcome.SENT)).tolist():
        version = int(decisions.version[place])
        campaign = decider.book.versions[version]
        user = decider.users.names[int(decisions.slot[place])]
        move = decider.moves[int(decisions.move[place])]
        change = change_id(
            user.encode(),
            key,
            int(decisions.incarnation[place]),
            int(decisions.number[place]),
        )
        changed_ms = int(decisions.changed_ms[place])
        record: CampaignTrigger = {
            "id": f"{campaign.name}-{campaign.version}-{change}",
            "campaign": campaign.name,
            "version": campaign.version,
            "arm": arm_names(campaign)[int(decisions.arm[place])],
            "user": user,
            "change": change,
            "changed_at": iso(changed_ms),
            "at": iso(int(decisions.at_ms[place])),
            "valid_until": iso(changed_ms + int(decider.book.valid_ms[version])),
            "from": move.segment_from,
            "to": move.segment_to,
            "name_from": move.name_from,
            "name_to": move.name_to,
            "kind_from": move.kind_from,
            "kind_to": move.kind_to,
            "cause": move.cause,
        }
        if move.level is not None:
            record["level"] = move.level
            record["step_from"], record["step_to"] = move.step_from, move.step_to
        yield record


def is_sent(name: str, campaign: str, version: str, change: str, user: str, key: bytes) -> bool:
    """Whether the role of campaigns in this namespace can have sent a trigger.

    Args:
        name: its id.
        change: that it names.
        key: the namespace's secret.
    """
    return name == f"{campaign}-{version}-{change}" and is_of(change, user, key)


def encoded(record: CampaignTrigger) -> bytes:
    """A record as it is written."""
    return _encode(record)
