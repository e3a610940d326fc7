"""What may be asked of the API, declared once: paths, parameters, scopes and answers.

Comes in: nothing; these are declarations. Goes out: `OPERATIONS`. `application` routes by them and reads
parameters by them, `document` makes the OpenAPI document of them, and tests hold both to each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, WithJsonSchema
from typing_extensions import TypedDict

from stream.access import Scope
from stream.api.problems import Kind, ProblemError
from stream.campaigns.control import ControlRecord
from stream.events import Lineage
from stream.insight.facts import (
    CampaignsFacts,
    CampaignState,
    FlowsFacts,
    MapFacts,
    MembersFacts,
    ModelFacts,
    SegmentFacts,
    SegmentsFacts,
    StandingFacts,
    UserFacts,
    WhyFacts,
)
from stream.insight.queries import LONGEST_NAME

JSON = "application/json"
CSV = "text/csv; charset=utf-8"
EVENTS = "text/event-stream"


class Changes(TypedDict):
    """Changes, oldest first, as they are on the topic.

    `since` is the time of the oldest change that the API has in memory, None while it has none.
    """

    since: str | None
    changes: list[dict[str, Any]]


class LineageFacts(TypedDict):
    """What became of segments: of the model in force, and of those before as far as it is remembered."""

    model: str
    lineage: list[Lineage]
    records: list[dict[str, Any]]


class Renamed(TypedDict):
    """A segment and the name it has from the trainer's next round on."""

    segment: int
    before: str
    name: str


class Paused(TypedDict):
    """What was said of a campaign, and on how many partitions it stands."""

    record: ControlRecord
    partitions: int


class NewName(TypedDict):
    """What a segment is to be called."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]  # pydantic reads it here
    name: Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]


class Pause(TypedDict):
    """Whether a campaign is to be paused."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[misc]
    paused: bool


@dataclass(frozen=True)
class Parameter:
    """A parameter of a path or of a query.

    Attributes:
        kind: its type with its limits.
        default: None for none, then it may be left out.
    """

    name: str
    kind: Any
    meaning: str
    place: Literal["path", "query"] = "query"
    default: Any = None

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        return TypeAdapter(self.kind)

    def read(self, text: str) -> Any:
        """The value of a text.

        Raises:
            ProblemError: it is none.
        """
        try:
            return self.adapter.validate_strings(text)
        except ValidationError as error:
            why = error.errors()[0]["msg"]
            raise ProblemError(Kind.BAD_REQUEST, f"{self.name}: {why}") from None


@dataclass(frozen=True)
class Operation:
    """Something that may be asked.

    Attributes:
        name: of the operation, and of what answers it.
        answer: the type of the answer.
        body: the type of the request's body; None for none.
        media: what the answer is.
        refusals: kinds of problems beside those that everything has.
    """

    name: str
    method: Literal["GET", "PATCH", "PUT"]
    path: str
    meaning: str
    answer: Any
    scope: Scope = Scope.READ
    parameters: tuple[Parameter, ...] = ()
    body: Any = None
    media: str = JSON
    refusals: tuple[Kind, ...] = ()

    @cached_property
    def body_adapter(self) -> TypeAdapter[Any]:
        return TypeAdapter(self.body)

    @cached_property
    def by_name(self) -> Mapping[str, Parameter]:
        return {parameter.name: parameter for parameter in self.parameters}

    def read(self, path: Mapping[str, str], query: list[tuple[str, str]]) -> dict[str, Any]:
        """The values of all parameters, each by its name.

        Raises:
            ProblemError: one cannot be read, is unknown, or is given twice.
        """
        found: dict[str, Any] = {}
        known = self.by_name
        for name, text in (*path.items(), *query):
            if name not in known:
                raise ProblemError(Kind.BAD_REQUEST, f"there is no parameter {name!r}")
            if name in found:
                raise ProblemError(Kind.BAD_REQUEST, f"{name}: it is given twice")
            found[name] = known[name].read(text)
        return {name: one.default for name, one in known.items()} | found


Id: TypeAlias = Annotated[int, Field(ge=1, le=2**31 - 1)]
Moment: TypeAlias = Annotated[
    str,
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "format": "date-time"},
                {"type": "string", "format": "date"},
                {"type": "string", "pattern": "^[1-9][0-9]{0,4}[smhdw]$"},
            ],
            "examples": ["7d", "2026-01-31T12:00:00Z"],
        }
    ),
]
Cursor: TypeAlias = Annotated[str, Field(pattern=r"^[0-9]{1,4}-[0-9]{1,19}$")]

USER = Parameter(
    "user",
    Annotated[str, Field(min_length=1, max_length=1_000)],
    "the user's id, as in userId, percent-encoded",
    "path",
)
SEGMENT = Parameter("segment", Id, "id of the segment", "path")
CAMPAIGN = Parameter(
    "campaign", Annotated[str, Field(min_length=1, max_length=200)], "its name", "path"
)
KIND = Parameter(
    "kind", Annotated[str, Field(max_length=200)], "only of this kind, such as at_risk"
)
SINCE = Parameter("since", Moment, "only from a time on, or so long ago")
LATEST = Parameter(
    "limit", Annotated[int, Field(ge=1, le=10_000)], "only so many of the latest", default=100
)
OF_SEGMENT = Parameter("segment", Id, "only of this segment")
OF_POPULATION = Parameter(
    "population",
    Annotated[str, Field(max_length=200)],
    "only who is in a segment of this population",
)
MEMBER_FILTERS = (OF_SEGMENT, KIND, OF_POPULATION, SINCE)

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "user",
        "GET",
        "/v1/users/{user}",
        "A user: features now, segment, since when, scores, distances, the last changes and why.",
        UserFacts,
        parameters=(USER,),
        refusals=(Kind.NOT_THERE,),
    ),
    Operation(
        "why",
        "GET",
        "/v1/users/{user}/why",
        "What holds a user where they are, what would move them, and what comes next by silence. "
        "Null while the user is in no segment.",
        WhyFacts | None,
        parameters=(USER,),
        refusals=(Kind.NOT_THERE,),
    ),
    Operation(
        "user_changes",
        "GET",
        "/v1/users/{user}/changes",
        "The changes of a user that the API has in memory, and their crossings of levels.",
        Changes,
        parameters=(USER, LATEST),
    ),
    Operation(
        "segments",
        "GET",
        "/v1/segments",
        "All segments: name, kind, size, what marks them, what is foretold of them.",
        SegmentsFacts,
        refusals=(Kind.NO_MODEL,),
    ),
    Operation(
        "segment",
        "GET",
        "/v1/segments/{segment}",
        "A segment.",
        SegmentFacts,
        parameters=(SEGMENT,),
        refusals=(Kind.NOT_THERE,),
    ),
    Operation(
        "rename",
        "PATCH",
        "/v1/segments/{segment}",
        "Give a segment a name that stays with its id.",
        Renamed,
        Scope.RENAME,
        parameters=(SEGMENT,),
        body=NewName,
        refusals=(Kind.NOT_THERE, Kind.CONFLICT),
    ),
    Operation(
        "members",
        "GET",
        "/v1/members",
        "Some members of segments, in no order. `next` is the cursor to go on with, null at the end. Who "
        "is there all the time comes once at least.",
        MembersFacts,
        parameters=(
            *MEMBER_FILTERS,
            Parameter("cursor", Cursor, "`next` of the page before"),
            Parameter(
                "limit",
                Annotated[int, Field(ge=1, le=10_000)],
                "about so many at a time; there may be a few more, or fewer",
                default=1_000,
            ),
        ),
        refusals=(Kind.NOT_THERE,),
    ),
    Operation(
        "members_table",
        "GET",
        "/v1/members.csv",
        "All members as a table.",
        str,
        parameters=MEMBER_FILTERS,
        media=CSV,
        refusals=(Kind.NOT_THERE,),
    ),
    Operation(
        "model",
        "GET",
        "/v1/model",
        "The model in force: how good it is, its populations and scores.",
        ModelFacts,
        refusals=(Kind.NO_MODEL,),
    ),
    Operation(
        "lineage",
        "GET",
        "/v1/lineage",
        "What became of segments, oldest first.",
        LineageFacts,
        refusals=(Kind.NO_MODEL,),
    ),
    Operation(
        "campaigns",
        "GET",
        "/v1/campaigns",
        "Campaigns: what they have decided, and whether it helped, with intervals.",
        CampaignsFacts,
    ),
    Operation(
        "campaign",
        "GET",
        "/v1/campaigns/{campaign}",
        "A campaign.",
        CampaignState,
        parameters=(CAMPAIGN,),
        refusals=(Kind.NOT_THERE,),
    ),
    Operation(
        "pause",
        "PUT",
        "/v1/campaigns/{campaign}/paused",
        "Send nothing of a campaign any more, or let it go on.",
        Paused,
        Scope.PAUSE,
        parameters=(CAMPAIGN,),
        body=Pause,
        refusals=(Kind.NOT_THERE,),
    ),
    Operation(
        "changes",
        "GET",
        "/v1/changes",
        "The newest changes that the API has in memory.",
        Changes,
        parameters=(KIND, SINCE, LATEST),
        refusals=(Kind.NOT_THERE,),
    ),
    Operation(
        "change_events",
        "GET",
        "/v1/changes/events",
        "Changes as they come, as server-sent events: `id` is the change's, and with `Last-Event-ID` a reader "
        "goes on behind it. `event: gap` says that changes between are missed. A reader who does not keep "
        "up is dropped, with a comment that says so.",
        str,
        parameters=(KIND,),
        media=EVENTS,
        refusals=(Kind.NOT_THERE,),
    ),
    Operation(
        "flows",
        "GET",
        "/v1/flows",
        "How many users went from one kind to another within a time, as far as the API remembers.",
        FlowsFacts,
        parameters=(
            Parameter(
                "within",
                Literal["1h", "1d", "7d"],
                "how long ago by the clock in use",
                default="1d",
            ),
        ),
    ),
    Operation(
        "map",
        "GET",
        "/v1/map",
        "Some shoppers and all centroids in the plane in which the centroids lie farthest apart. The shoppers are "
        "the same each time, so they move as the stream moves.",
        MapFacts,
        parameters=(
            Parameter(
                "limit",
                Annotated[int, Field(ge=1, le=2_000)],
                "about so many shoppers",
                default=400,
            ),
        ),
        refusals=(Kind.NO_MODEL,),
    ),
    Operation(
        "standing",
        "GET",
        "/v1/standing",
        "Whether the pipeline is well: how far behind, what waits, how old the model is.",
        StandingFacts,
    ),
)
