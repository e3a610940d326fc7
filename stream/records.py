"""The one builder of records that strangers read: changes, memberships, what became of segments.

Comes in: who is where, on which step of a level, and under which model. Goes out: records, each under its identity, and their JSON;
an outbox or a publisher is next. `events` declares the same records as types, for the schemas that
strangers get; a test holds the two together.
"""

from __future__ import annotations

import msgspec

from stream.events import LineageRecord
from stream.hashing import change_identity
from stream.model import Model

encode = msgspec.json.Encoder().encode


class Why(msgspec.Struct, gc=False):
    """`events.Contribution` as it is written."""

    feature: str
    value: float
    contribution: float | None


class Change(msgspec.Struct, gc=False, rename={"from_": "from"}):
    """`events.SegmentChange` as it is written: a struct is packed in half the time of a dict."""

    id: str
    user: str
    version: int
    from_: int | None
    to: int
    name_from: str | None
    name_to: str
    kind_from: str | None
    kind_to: str
    cause: str
    at: str
    last_event_at: str
    model: str
    margin: float | None
    provisional: bool
    why: list[Why] | tuple[()]
    rest: float | None
    population_from: str | None
    population_to: str
    scores: dict[str, float]


class LevelChange(msgspec.Struct, gc=False):
    """`events.LevelChange` as it is written."""

    id: str
    user: str
    version: int
    level: str
    step_from: str | None
    step_to: str | None
    of: str
    value: float | None
    limit: float
    cause: str
    at: str
    last_event_at: str
    model: str
    why: list[Why]
    rest: float | None
    scores: dict[str, float]


class Membership(msgspec.Struct, gc=False):
    """`events.MembershipRecord` as it is written."""

    id: str
    user: str
    version: int
    segment: int
    name: str
    kind: str
    since: str
    last_event_at: str
    at: str
    model: str


def change_id(user: bytes, key: bytes, incarnation: int, version: int) -> str:
    """The identity of a change: the same for whoever records it again.

    Args:
        key: the namespace's secret.
        incarnation: of the partition's state.
    """
    return f"{change_identity(user, key)}-{incarnation}-{version}"


def is_of(name: str, user: str, key: bytes) -> bool:
    """Whether a change of this identity is of a user of this namespace."""
    return name.rsplit("-", 2)[0] == change_identity(user.encode(), key)


def lineage_records(model: Model) -> list[LineageRecord]:
    """What became of segments with a model, one record each for all users it concerns."""
    return [
        {
            **told,
            "id": f"{model.name}-{number}",
            "name": model.by_id[told["segment"]].name,
            "kind": model.by_id[told["segment"]].kind,
            "users": model.by_id[told["segment"]].size,
        }
        for number, told in enumerate(model.lineage)
    ]
