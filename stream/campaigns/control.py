"""What people say of users and campaigns while the roles run: records of the topic `campaign-control`.

Comes in: bytes that a command or another program wrote, with the user for a key; a Segment `identify` message is
such a record, too. Goes out: `Told`, or None for what is no such record. The roles of campaigns and of webhooks obey;
the topic keeps who said what, and when.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType
from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from stream.events import Cause
from stream.records import is_of
from stream.unreadable import UNREADABLE


class Told(msgspec.Struct, forbid_unknown_fields=False):
    """Of a user: whether they get nothing, and their zone. Of a campaign: whether it is paused.

    Attributes:
        suppressed: None leaves it as it is.
        zone: of IANA; None for one that is not known; left as it is unless something is said.
        traits: of the user, those of which something is said.
        type, userId: as Segment has them.
    """

    user: str = ""
    suppressed: bool | None = None
    zone: str | UnsetType | None = UNSET
    campaign: str = ""
    paused: bool | None = None
    traits: dict[str, Any] | None = None
    type: str = ""
    userId: str | None = None  # noqa: N815 - Segment's spelling


class ControlRecord(TypedDict, total=False):
    """What is said of a user or of a campaign; a record of a campaign stands in every partition."""

    at: Annotated[str, Field(description="when it was said; ISO 8601")]
    by: Annotated[str, Field(description="who said it")]
    user: str
    suppressed: Annotated[bool, Field(description="true: the user gets nothing; false: does again")]
    zone: Annotated[str | None, Field(description="the user's own, such as Europe/London")]
    traits: Annotated[
        dict[str, Any],
        Field(
            description="of the user; see campaign_limits.suppress and campaign_limits.zone_trait"
        ),
    ]
    type: Annotated[str, Field(description="identify: a message of Segment's, of the user userId")]
    userId: str
    campaign: str
    paused: Annotated[bool, Field(description="true: nothing of it is sent; false: is again")]


CONTROL_RECORD: TypeAdapter[Any] = TypeAdapter(ControlRecord)

IDENTIFY = "identify"
_read = msgspec.json.Decoder(Told).decode


def read_told(value: bytes) -> Told | None:
    """What a record says; None if it is none.

    An `identify` message of who is not known yet, with an anonymousId alone, is one, and says nothing of any user.
    """
    try:
        told = _read(value)
    except UNREADABLE:
        return None
    if not told.user and told.type == IDENTIFY:
        told.user = told.userId or ""
        return told
    return told if told.user or told.campaign else None


class _Change(msgspec.Struct):
    id: str
    user: str
    cause: str


_read_change = msgspec.json.Decoder(_Change).decode
_ERASED = Cause.ERASED.value.encode()


def erased_user(value: bytes, key: bytes) -> str | None:
    """The user whose erasure a change tells of; None for every other change, and for what somebody else wrote.

    Args:
        key: the namespace's secret.
    """
    if _ERASED not in value:
        return None
    try:
        change = _read_change(value)
    except UNREADABLE:
        return None
    is_erased = change.cause == Cause.ERASED and is_of(change.id, change.user, key)
    return change.user if is_erased else None
