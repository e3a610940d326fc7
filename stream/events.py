"""The vocabulary: what comes in, what goes out, what each word means.

Comes in: `Track`, a Segment e-commerce v2 message. In between: `EventColumns`. Goes out:
`SegmentChange` and `PublishedModel`, the records strangers read. No topic and no store is
known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Annotated, Any, NamedTuple, NotRequired, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from stream.headers import schema_uri

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Hashes: TypeAlias = npt.NDArray[np.uint64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Codes: TypeAlias = npt.NDArray[np.uint32]
Rows: TypeAlias = npt.NDArray[np.void]
"""Users, one structured row each; `FeatureTable.dtype` declares the fields."""


ORDER_COMPLETED, ORDER_UPDATED = ORDER_EVENTS = ("Order Completed", "Order Updated")
ORDER_REFUNDED, ORDER_CANCELLED = REFUND_EVENTS = ("Order Refunded", "Order Cancelled")
"""The events of an order: those that say what it is, and those that take it back."""

_VERSION_1 = {
    "Completed Order": ORDER_COMPLETED,
    "Updated Order": ORDER_UPDATED,
    "Refunded Order": ORDER_REFUNDED,
    "Cancelled Order": ORDER_CANCELLED,
    "Canceled Order": ORDER_CANCELLED,
    "Order Canceled": ORDER_CANCELLED,
    "Viewed Product": "Product Viewed",
    "Clicked Product": "Product Clicked",
    "Added Product": "Product Added",
    "Removed Product": "Product Removed",
    "Viewed Product Category": "Product List Viewed",
    "Viewed Product List": "Product List Viewed",
    "Filtered Product List": "Product List Filtered",
    "Searched Products": "Products Searched",
    "Viewed Cart": "Cart Viewed",
    "Started Order": "Checkout Started",
    "Started Checkout": "Checkout Started",
    "Viewed Checkout Step": "Checkout Step Viewed",
    "Completed Checkout Step": "Checkout Step Completed",
    "Viewed Promotion": "Promotion Viewed",
    "Clicked Promotion": "Promotion Clicked",
    "Reviewed Product": "Product Reviewed",
}


def _spellings(name: str) -> tuple[str, ...]:
    """How a name is written by who writes no blanks: ``order_completed``, ``OrderCompleted`` and others."""
    return name.replace(" ", "_"), name.replace(" ", "-"), name.replace(" ", "")


ALIASES = _VERSION_1 | {
    spelling: name
    for said, name in (_VERSION_1 | {name: name for name in _VERSION_1.values()}).items()
    for spelling in _spellings(said)
}
"""Names of version 1 of Segment's e-commerce specification, and how else people write them, by what
version 2 calls the event."""


class Product(msgspec.Struct, gc=False, frozen=True):
    """A line of an order. What it says may be of any type: nobody may read it."""

    price: Any = None
    quantity: Any = None
    currency: Any = None


class Properties(msgspec.Struct, gc=False, frozen=True):
    """The properties of a `track` message that may be read, of any type: see `Product`."""

    category: Any = None
    quantity: Any = None
    price: Any = None
    revenue: Any = None
    total: Any = None
    value: Any = None
    subtotal: Any = None
    refund_amount: Any = None
    total_quantity: Any = None
    currency: Any = None
    order_id: Any = None
    orderId: Any = None  # noqa: N815 - version 1
    transaction_id: Any = None
    transactionId: Any = None  # noqa: N815 - as Google Analytics 4 has it in JavaScript
    products: list[Product] | None = None


NO_PROPERTIES = Properties()


class Track(msgspec.Struct, gc=False, tag_field="type", tag="track"):
    """A `track` message, only the fields that are needed."""

    event: str
    timestamp: str
    userId: str | None = None  # noqa: N815 - Segment's spelling
    anonymousId: str | None = None  # noqa: N815 - Segment's spelling
    messageId: str | None = None  # noqa: N815 - Segment's spelling
    properties: Properties | None = None


class Mark(msgspec.Struct, tag_field="type", tag="segstream-mark"):
    """A tick of the shop's clock, written into every partition by `replay` and the simulation.

    Attributes:
        timestamp: of the shop.
        sentAt: by the wall clock.
        signature: see `stream.marks`; a mark without one means nothing.
    """

    timestamp: str
    sentAt: str  # noqa: N815 - Segment's spelling
    signature: str = ""


class Reason(StrEnum):
    """Why a message was refused."""

    EMPTY = "empty"
    TOO_LARGE = "too_large"
    TRUNCATED = "truncated"
    NOT_JSON = "not_json"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    NO_USER = "no_user"
    PLACEHOLDER_USER = "placeholder_user"
    """Its user is what programs write where they know none, such as `null` or `undefined`."""
    BAD_TIME = "bad_time"
    BAD_NUMBER = "bad_number"
    """A text that is no number where one is read, such as `1,250.00`."""
    OUT_OF_RANGE = "out_of_range"
    UNKNOWN_CURRENCY = "unknown_currency"
    FORGED_MARK = "forged_mark"
    """What says that it is a mark, and is not signed for its place by who may write them."""
    MISPLACED = "misplaced"
    """It lies in another partition than its user's."""
    UNREADABLE = "unreadable"
    """A fault of the decoder itself, whose exception the details name."""


class NativeLine(NamedTuple):
    """Where a line that is a message belongs: its time, its user and its event.

    Attributes:
        id: of the message, if it has one.
        currency: of its amount, where one is read and it names one.
    """

    time_ms: int
    user: str
    event: str
    id: str | None
    currency: str | None = None


class NoEvent(NamedTuple):
    """Why a line is none that can be sent."""

    reason: str
    why: str


LETTER_ID = "segstream-id"
"""Header of a dead letter: its message, as topic/partition/offset. A letter filed twice has one id."""
LETTER_ORIGINAL = "segstream-original-"
"""What the names of the message's own headers begin with on its letter."""
LETTER_RECEIPT = "segstream-replayed"
"""Header of a record among dead letters that is none: it has ids of messages that were sent again."""
LETTER_REPLAYED_FROM = "segstream-replayed-from"
"""Header of a message that was sent again: the id of its letter."""
LETTER_TRUNCATED = "segstream-truncated"
"""Header of a dead letter that has only the head of a refused value: how many bytes that had."""
LETTER_HEAD_BYTES = 1 << 16
"""The shortest such head. All have a power of two of bytes, so that few can be the right one."""


class Cause(StrEnum):
    """Why a user is in another segment than before, or their segment is another."""

    USER_MOVED = "user_moved"
    TIME_PASSED = "time_passed"
    MODEL_MOVED = "model_moved"
    SEGMENT_RETIRED = "segment_retired"
    IDENTITY_MERGED = "identity_merged"
    ERASED = "erased"
    SEGMENT_TURNED = "segment_turned"
    """The segment has become one of another kind, with the user in it."""


CAUSES: tuple[Cause, ...] = tuple(Cause)


@dataclass(frozen=True)
class Reviews:
    """What the reviews among a batch of events say; of the text, its hashed words are all there is.

    Attributes:
        places: of these events in the batch, ascending.
        rating: of each, from -1 for the worst to 1 for the best; NaN where none is said.
        words: of each text, see `reviews.words`; none where there is no text.
    """

    places: Ints
    rating: Floats
    words: tuple[Ints, ...]

    @staticmethod
    def of(places: Ints, rating: Floats, words: Sequence[Ints]) -> Reviews | None:
        """None where there are none, as in most batches."""
        return Reviews(places, rating, tuple(words)) if len(places) else None

    def where(self, picked: Ints) -> Reviews | None:
        """Those among the events at some places, in that order."""
        at = np.minimum(np.searchsorted(self.places, picked), len(self.places) - 1)
        here = np.flatnonzero(self.places[at] == picked)
        return Reviews.of(here, self.rating[at[here]], [self.words[one] for one in at[here]])

    @staticmethod
    def concatenate(parts: Sequence[tuple[Reviews | None, int]]) -> Reviews | None:
        """Those of batches that come one after the other.

        Args:
            parts: reviews of each, and how many events it has.
        """
        found, begin = [], 0
        for reviews, count in parts:
            if reviews is not None:
                found.append((reviews, begin))
            begin += count
        if not found:
            return None
        return Reviews(
            np.concatenate([reviews.places + begin for reviews, begin in found]),
            np.concatenate([reviews.rating for reviews, _ in found]),
            tuple(words for reviews, _ in found for words in reviews.words),
        )


def code_of_currency(code: str) -> int:
    """What stands for a currency in a column: the letters of its ISO 4217 code."""
    return int.from_bytes(code.encode())


@dataclass(frozen=True)
class EventColumns:
    """A batch of events of one partition, a column a field, all of one length.

    Within a topic the events stand in offset order. `slot` is the user's place in the owner's
    table, `topic` 0 for clickstream and 1 for purchases, `kind` a code of
    `FeatureTable.codes`, `id`, `category` and `order` stable 64-bit hashes. An `id` of 0 is none:
    such an event always counts; so are a `category` and an `order` of 0. `whole` says of a refund
    or a cancellation that it names no amount: it takes back what is left of its order; and of an
    order that it says no value: where the order is known, it corrects none.
    `rate` is what a unit of the event's money is worth in the reporting currency, and less than 0 where it
    names no currency: then its money is in that of its order. It is 1 where there is one currency only.
    `currency` stands for the one that `rate` is of (see `code_of_currency`), 0 where it is of a sum in
    several, or where there is one only.
    `recorded_ms` is the time of the record in the log. Of a refund or a cancellation, `value` and
    `quantity` are never negative. `reviews` is no column: few events have any.
    """

    slot: npt.NDArray[np.int64]
    topic: npt.NDArray[np.uint8]
    kind: npt.NDArray[np.uint8]
    time_ms: Ints
    id: Hashes
    value: Floats
    quantity: Floats
    category: Hashes
    order: Hashes
    whole: Bools
    rate: Floats
    currency: Codes
    recorded_ms: Ints
    reviews: Reviews | None = None

    def __len__(self) -> int:
        return len(self.slot)

    def where(self, keep: npt.NDArray[Any]) -> EventColumns:
        """The events a mask or an index picks, in that order."""
        reviews = self.reviews
        if reviews is not None:
            reviews = reviews.where(np.arange(len(self))[keep])
        columns: dict[str, Any] = {name: getattr(self, name)[keep] for name in _COLUMNS}
        return EventColumns(**columns, reviews=reviews)

    @staticmethod
    def concatenate(parts: list[EventColumns]) -> EventColumns:
        """All events, in the order given; no parts make no events."""
        if not parts:
            return NO_EVENTS
        columns: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS
        }
        reviews = Reviews.concatenate([(part.reviews, len(part)) for part in parts])
        return EventColumns(**columns, reviews=reviews)


_COLUMNS = tuple(field.name for field in fields(EventColumns) if field.name != "reviews")
NO_EVENTS = EventColumns(
    np.empty(0, np.int64),
    np.empty(0, np.uint8),
    np.empty(0, np.uint8),
    np.empty(0, np.int64),
    np.empty(0, np.uint64),
    np.empty(0, np.float64),
    np.empty(0, np.float64),
    np.empty(0, np.uint64),
    np.empty(0, np.uint64),
    np.empty(0, np.bool_),
    np.empty(0, np.float64),
    np.empty(0, np.uint32),
    np.empty(0, np.int64),
)


@dataclass
class Counts:
    """What became of consumed messages: consumed is the sum of the others.

    `clamped` counts applied events whose time was cut back from the future; `marks` are ticks
    of the shop's clock and no events; neither is part of the sum.
    """

    applied: int = 0
    duplicate: int = 0
    late: int = 0
    ignored: int = 0
    rejected: int = 0
    clamped: int = 0
    marks: int = 0

    @property
    def consumed(self) -> int:
        return self.applied + self.duplicate + self.late + self.ignored + self.rejected

    def add(self, other: Counts) -> None:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


def _described(meaning: str) -> Any:
    return Field(description=meaning)


_Foretold = Annotated[
    dict[str, float],
    _described(
        "each score that the user has at that time, to four decimals: of who has not ordered, none "
        "that foretells orders"
    ),
]


class Contribution(TypedDict):
    """One feature's part in a move."""

    feature: Annotated[str, _described("name of the feature")]
    value: Annotated[float, _described("the user's value at that time, in natural units")]
    contribution: Annotated[
        float | None,
        _described(
            "this feature's part of the margin; all features' parts add up to it; null where the "
            "rule of a population moved the user, which looks at this feature"
        ),
    ]


# "from" is a keyword, so the type is spelled as a call.
SegmentChange = TypedDict(
    "SegmentChange",
    {
        "id": Annotated[str, _described("identity of the change: user, incarnation, version")],
        "user": Annotated[str, _described("the user who moved")],
        "version": Annotated[int, _described("1 for a user's first change, then + 1 each")],
        "from": Annotated[int | None, _described("segment before; null for the first change")],
        "to": Annotated[int, _described("segment after")],
        "name_from": Annotated[str | None, _described("name of the segment before")],
        "name_to": Annotated[str, _described("name of the segment after")],
        "kind_from": Annotated[
            str | None, _described("kind that the user was told before; null for the first change")
        ],
        "kind_to": Annotated[
            str,
            _described(
                "kind of the user now, such as at_risk: that of the segment after, but nobody rises "
                "without an act, or becomes new who is known"
            ),
        ],
        "cause": Annotated[Cause, _described("why: the user, time, or the model")],
        "at": Annotated[str, _described("when, by the clock in use; ISO 8601")],
        "last_event_at": Annotated[str, _described("time of the user's newest event; ISO 8601")],
        "model": Annotated[str, _described("epoch.version of the model that decided")],
        "margin": Annotated[
            float | None,
            _described(
                "z: 0 on the border, .5 at the new centroid; null for a first assignment, and for a "
                "move to another population"
            ),
        ],
        "provisional": Annotated[bool, _described("true for a user's first assignment")],
        "why": Annotated[
            list[Contribution],
            _described(
                "the features that contributed most to the margin; of a move to another population "
                "those of its rule, the one that decided first"
            ),
        ],
        "rest": Annotated[
            float | None, _described("what all other features contributed; null without a margin")
        ],
        # Records of before have none of these.
        "population_from": NotRequired[
            Annotated[str | None, _described("population of the segment before")]
        ],
        "population_to": NotRequired[Annotated[str, _described("population of the segment after")]],
        "scores": NotRequired[_Foretold],
    },
)
SEGMENT_CHANGE: TypeAdapter[Any] = TypeAdapter(SegmentChange)
NAMESPACE_HEADER = "segstream-namespace"
"""Header of a published model: whose it is."""
ORIGIN_HEADER = "segstream-origin"
"""Header of a published model: what its trainer began with, as `stream.trainer.Origin` in JSON."""


class LevelChange(TypedDict):
    """A user's crossing from one step of a level to another."""

    id: Annotated[str, _described("identity of the change: user, incarnation, version")]
    user: Annotated[str, _described("the user who crossed a limit")]
    version: Annotated[
        int, _described("goes on from the user's change before, of a segment or of a level")
    ]
    level: Annotated[str, _described("name of the level, such as churn_risk")]
    step_from: Annotated[
        str | None, _described("step before; null for none, such as before the first order")
    ]
    step_to: Annotated[
        str | None, _described("step after; null for none, as when the only order is taken back")
    ]
    of: Annotated[str, _described("feature or score whose limit was crossed")]
    value: Annotated[
        float | None, _described("of that, at the crossing; null where the user has none any more")
    ]
    limit: Annotated[
        float,
        _described("that was crossed; by the level's slack, if the user was on a step before"),
    ]
    cause: Annotated[Cause, _described("why: the user, time, or the model")]
    at: Annotated[str, _described("when, by the clock in use; ISO 8601")]
    last_event_at: Annotated[str, _described("time of the user's newest event; ISO 8601")]
    model: Annotated[str, _described("epoch.version of the model that decided")]
    why: Annotated[
        list[Contribution],
        _described(
            "of a score, the features that carry it most in the direction of the crossing, in "
            "log-odds of an order; of a feature, that one, with null"
        ),
    ]
    rest: Annotated[
        float | None,
        _described(
            "log-odds that all else comes to: with the parts, those of an order; null of a feature"
        ),
    ]
    # Records of before have none.
    scores: NotRequired[_Foretold]


LEVEL_CHANGE: TypeAdapter[Any] = TypeAdapter(LevelChange)
LEVEL_CHANGED = "segstream.level.changed"
"""Type of the CloudEvents that tell of a user's crossing from one step of a level to another."""
CHANGED = "segstream.segment.changed"
LINEAGE = "segstream.segment.lineage"
MEMBERSHIP = "segstream.segment.membership"
"""Types of the CloudEvents on `segment-changes`: a user's move, what became of a segment, and where
a user is, told again."""
CHANGE_SCHEMA = schema_uri("segment-change")
LEVEL_SCHEMA = schema_uri("level-change")
LINEAGE_SCHEMA = schema_uri("segment-lineage")
MEMBERSHIP_SCHEMA = schema_uri("segment-membership")
"""What their data keep to."""
MODEL_SCHEMA = schema_uri("published-model")
"""The same of a published model."""


class Profile(TypedDict):
    """One feature of a segment."""

    feature: str
    value: Annotated[float, _described("of the typical member, in natural units")]
    unit: str
    z: Annotated[
        float,
        _described("of the centroid, in standard deviations over the users of its population"),
    ]


class SegmentFlapping(TypedDict):
    """How often users leave a segment, and go back; recent days count most."""

    changes_per_user_day: Annotated[
        float | None, _described("changes out of it by the days users spent in it; null for none")
    ]
    reverted_share: Annotated[
        float | None,
        _described("of these changes, those back to the segment before, soon; null for none"),
    ]


class PublishedSegment(TypedDict):
    """A segment as `segment-models` and people see it."""

    id: int
    name: str
    kind: str
    population: Annotated[str, _described("name of the population it is of")]
    size: Annotated[int, _described("users assigned when the model was published")]
    born: Annotated[str, _described("epoch.version that minted the id")]
    flapping: Annotated[SegmentFlapping, _described("as of when the model was published")]
    profile: list[Profile]


class RetiredSegment(TypedDict):
    """A segment that is no more; its id is not used again."""

    id: int
    name: str
    kind: str
    size: Annotated[int, _described("users assigned when it ended")]
    born: str
    population: Annotated[str, _described("name of the population it was of")]


LINEAGE_EVENTS = (
    "born",
    "split",
    "succeeded",
    "absorbed",
    "emerged",
    "dissolved",
    "ceded",
    "renamed",
)


class Lineage(TypedDict):
    """What happened to an id between two epochs."""

    event: Annotated[
        str,
        _described(f"{', '.join(LINEAGE_EVENTS)}, or kind:<old>-><new>"),
    ]
    segment: int
    others: Annotated[list[int], _described("the ids it came from or went to")]
    at: str
    model: str


class LineageRecord(Lineage):
    """What happened to a segment, as one record for all of its users on `segment-changes`."""

    id: Annotated[str, _described("identity of the record")]
    name: Annotated[str, _described("name of the segment, its last if it is no more")]
    kind: Annotated[str, _described("kind of the segment, its last if it is no more")]
    users: Annotated[int, _described("users in it, as of the trainer's last round")]


LINEAGE_RECORD: TypeAdapter[Any] = TypeAdapter(LineageRecord)


class MembershipRecord(TypedDict):
    """Where a user is, told again; whoever knows a higher version of the user passes over it."""

    id: Annotated[str, _described("identity of the record")]
    user: Annotated[str, _described("the user")]
    version: Annotated[int, _described("of the change that brought them there")]
    segment: Annotated[int, _described("where they are")]
    name: Annotated[str, _described("name of the segment")]
    kind: Annotated[str, _described("kind that the user was told last, such as at_risk")]
    since: Annotated[str, _described("when they came there; ISO 8601")]
    last_event_at: Annotated[str, _described("time of the user's newest event; ISO 8601")]
    at: Annotated[str, _described("as of when this is told; ISO 8601")]
    model: Annotated[str, _described("epoch.version of the model that names the segment")]


MEMBERSHIP_RECORD: TypeAdapter[Any] = TypeAdapter(MembershipRecord)


class PublishedPopulation(TypedDict):
    """Users that are learned by themselves, as `segment-models` and people see them."""

    name: str
    users: Annotated[int, _described("in the population when the model was published")]
    segments: Annotated[list[int], _described("ids of its segments")]
    inertia: Annotated[float, _described("mean squared distance of its users, in sd squared")]
    silhouette: Annotated[float | None, _described("on its sample, at its last refit")]
    choice: Annotated[
        str,
        _described(
            "how its number of segments came about: declared; or suggested by its users, then firm, "
            "open, chosen or loose"
        ),
    ]


class PublishedModel(TypedDict):
    """A model as published on `segment-models`."""

    model: Annotated[str, _described("epoch.version")]
    epoch: int
    version: int
    at: Annotated[str, _described("by the clock in use; ISO 8601")]
    users: int
    inertia: Annotated[float, _described("mean squared distance over the sample, in sd squared")]
    silhouette: Annotated[float | None, _described("on the sample, at the last refit")]
    populations: Annotated[
        list[PublishedPopulation], _described("those with users enough to be learned")
    ]
    segments: Annotated[list[PublishedSegment], _described("of all populations")]
    lineage: Annotated[list[Lineage], _described("events of this model, not of earlier ones")]
    retired: Annotated[list[RetiredSegment], _described("segments there were, oldest first")]
    geometry: Annotated[
        dict[str, Any], _described("of each population the rule, map and centroids, for owners")
    ]


PUBLISHED_MODEL: TypeAdapter[Any] = TypeAdapter(PublishedModel)
