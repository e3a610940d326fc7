"""Declares what a campaign is: whom a change must concern, and what holds a trigger back.

Comes in: tables of a settings file. Goes out: frozen `Campaign` and `Limits`, or a refusal that names
the key. `match` and `decide` are next.

A campaign's *version* is a digest of its declaration: whoever changes the declaration has made another
version, and cannot forget to say so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from enum import StrEnum
from hashlib import blake2b
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from stream.events import Cause
from stream.kinds import FALLBACK_KIND
from stream.populations import EVERYONE
from stream.units import milliseconds, parse_duration
from stream.zones import zone

CONTROL = "holdout"
EVERYWHERE = "global_holdout"
"""Arms that are never sent to: of one campaign, and of all of them."""
RESERVED_ARMS = (CONTROL, EVERYWHERE)
NAME = r"^[a-z0-9][a-z0-9_-]{0,63}$"
"""Of campaigns, arms and groups: they are headers, labels and parts of ids."""
MOST_CAMPAIGNS = 64
MOST_TRAITS = 8
"""Each has a bit of a user's row."""
MOST_SENDS = 16
"""The highest cap: so many times of past triggers are kept of each user."""
DAY_SECONDS = 86_400.0


class Trigger(StrEnum):
    """Causes of a change that may trigger a campaign. An erased user is never triggered for."""

    USER_MOVED = Cause.USER_MOVED.value
    TIME_PASSED = Cause.TIME_PASSED.value
    MODEL_MOVED = Cause.MODEL_MOVED.value
    SEGMENT_RETIRED = Cause.SEGMENT_RETIRED.value
    IDENTITY_MERGED = Cause.IDENTITY_MERGED.value
    SEGMENT_TURNED = Cause.SEGMENT_TURNED.value


OWN_MOVES = (Trigger.USER_MOVED, Trigger.TIME_PASSED)
"""Nobody gets a coupon because a centroid moved: other causes trigger only where they are asked for."""

LONGEST_SECONDS = 3_650 * DAY_SECONDS
Duration = Annotated[
    float, BeforeValidator(parse_duration), Field(ge=0, le=LONGEST_SECONDS, allow_inf_nan=False)
]
Period = Annotated[
    float, BeforeValidator(parse_duration), Field(gt=0, le=LONGEST_SECONDS, allow_inf_nan=False)
]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
SegmentId = Annotated[int, Field(ge=0, lt=1 << 31)]
Weight = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]

_TIME_OF_DAY = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")


def _as_moment(value: Any) -> Any:
    """A date is its first instant in UTC; so is a time without a zone in UTC."""
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, str):
        try:
            return _as_moment(datetime.fromisoformat(value))
        except ValueError:
            pass
    raise ValueError("expected a date such as 2026-11-26, or a time such as 2026-11-26T08:00:00Z")


Moment = Annotated[datetime, BeforeValidator(_as_moment)]


_KEPT = {"kept": True}
"""Context of declarations that were in force: they were checked when they were declared."""


def _is_zone(name: str, info: ValidationInfo) -> str:
    if not info.context:
        zone(name)
    return name


ZoneName = Annotated[str, AfterValidator(_is_zone)]


class _Declared(BaseModel):
    # In a settings file, quiet hours go `from` one time `to` another; neither is a name in Python.
    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)


class ScoreLimits(_Declared):
    """Limits on a score, both included. Who does not have the score is within none."""

    min: float | None = Field(default=None, allow_inf_nan=False)
    max: float | None = Field(default=None, allow_inf_nan=False)

    @model_validator(mode="after")
    def _fits_together(self) -> ScoreLimits:
        if self.min is None and self.max is None:
            raise ValueError("give min or max")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min: expected no more than max")
        return self

    def hold(self, value: float | None) -> bool:
        """Whether a value lies within them; None for a score that the user does not have."""
        return (
            value is not None
            and (self.min is None or value >= self.min)
            and (self.max is None or value <= self.max)
        )


class When(_Declared):
    """Which changes concern a campaign: every condition that is given must hold."""

    kind_to: tuple[str, ...] = Field(
        default=(), description="kinds of the segment after the change"
    )
    kind_from: tuple[str, ...] = Field(default=(), description="kinds of the segment before it")
    segment_to: tuple[SegmentId, ...] = Field(
        default=(), description="ids of segments after the change"
    )
    segment_from: tuple[SegmentId, ...] = Field(default=(), description="ids of segments before it")
    population_to: tuple[str, ...] = Field(
        default=(), description="populations of the segment after the change"
    )
    population_from: tuple[str, ...] = Field(
        default=(), description="populations of the segment before it"
    )
    scores: dict[str, ScoreLimits] = Field(
        default={},
        description="limits on scores at the time of the change; who has no such score is not meant",
    )
    cause: tuple[Trigger, ...] = Field(
        default=OWN_MOVES,
        min_length=1,
        description="causes; by default only what the user or silence did",
    )
    reasons: tuple[str, ...] = Field(
        default=(), description="features of which one at least must be among the change's reasons"
    )
    provisional: bool = Field(
        default=False, description="also users' first assignments, which have no segment before"
    )
    level: str | None = Field(
        default=None, description="crossings of this level, in place of changes of segments"
    )
    step_to: tuple[str, ...] = Field(default=(), description="steps of the level after a crossing")
    step_from: tuple[str, ...] = Field(default=(), description="steps of the level before it")
    steps: dict[str, tuple[str, ...]] = Field(
        default={},
        description="of any levels, steps on one of which the user must be, as they were told last",
    )

    @model_validator(mode="after")
    def _says_whom(self) -> When:
        of_segments = (
            *(self.kind_to, self.segment_to, self.population_to),
            *(self.kind_from, self.segment_from, self.population_from),
        )
        of_level = self.step_to or self.step_from
        if self.level is None:
            if of_level:
                raise ValueError("step_to and step_from are of a level: give level, too")
            if not any(of_segments):
                raise ValueError(
                    "give kind_to, segment_to or population_to, or one of them with _from, or level with "
                    "step_to or step_from: all changes are no condition, and a score is one only beside "
                    "where a user goes"
                )
        elif not of_level:
            raise ValueError("give step_to or step_from with level: all crossings are no condition")
        elif any(of_segments) or self.provisional:
            raise ValueError(
                "a crossing of a level is no change of segment: it has no kinds, no segments, no "
                "populations and no first assignment"
            )
        if empty := [name for name, steps in self.steps.items() if not steps]:
            raise ValueError(f"steps of {empty[0]!r}: give one at least, or leave the level out")
        return self

    @property
    def goes_somewhere(self) -> bool:
        """Whether there is a condition on where users go."""
        return bool(self.kind_to or self.segment_to or self.population_to or self.step_to)


class Quiet(_Declared):
    """Hours of the day in which nothing is sent, by the user's zone where it is known."""

    begin: str = Field(alias="from", description="first quiet minute, HH:MM")
    end: str = Field(alias="to", description="first minute that is not quiet any more, HH:MM")
    zone: ZoneName = Field(description="of users whose own zone is not known")
    then: Literal["wait", "drop"] = Field(
        default="wait", description="for the end of them, or not at all"
    )

    @field_validator("begin", "end")
    @classmethod
    def _is_a_time(cls, text: str) -> str:
        if _TIME_OF_DAY.fullmatch(text) is None:
            raise ValueError("expected a time of the day such as 21:00")
        return text

    @model_validator(mode="after")
    def _ends(self) -> Quiet:
        if self.begin == self.end:
            raise ValueError("from and to are the same: there would be no hour to send in, or none")
        return self

    @property
    def minutes(self) -> tuple[int, int]:
        """Begin and end in minutes since midnight."""
        first, last = (_TIME_OF_DAY.fullmatch(text) for text in (self.begin, self.end))
        assert first is not None
        assert last is not None
        return int(first[1]) * 60 + int(first[2]), int(last[1]) * 60 + int(last[2])


class Goal(_Declared):
    """What a campaign is for, and how it is measured."""

    event: Literal["Order Completed"] = Field(
        default="Order Completed", description="what users should do"
    )
    within: Period = Field(
        default=14 * DAY_SECONDS, description="after the decision; in seconds, or as 14d"
    )
    value: Literal["revenue"] = Field(default="revenue", description="what else is measured of it")
    hope: float = Field(
        default=0.02,
        gt=0,
        lt=1,
        description="difference in conversion that one hopes for, as a share",
    )
    tuned_for: int = Field(
        default=5_000,
        ge=100,
        description="users, all arms together, at which the interval is narrowest; it holds at any",
    )


class Campaign(_Declared):
    """One campaign."""

    name: str = Field(pattern=NAME, description="for good: arms hang on it")
    when: When
    settle: Duration = Field(default=0.0, description="still true after this, or nothing is sent")
    holdout: Share = Field(
        default=0.0, description="share of users who are measured and never sent to"
    )
    arms: dict[str, Weight] = Field(
        default={"sent": 1.0},
        min_length=1,
        max_length=16,
        description="ways to treat users, by weight",
    )
    cooldown: Duration = Field(
        default=0.0, description="from one trigger to the next of the same user"
    )
    valid_for: Period = Field(
        default=DAY_SECONDS, description="a trigger later than this is not sent"
    )
    quiet: Quiet | None = Field(default=None, description="hours in which nothing is sent")
    priority: int = Field(
        default=0, ge=-1_000, le=1_000, description="who comes first; the highest"
    )
    group: str | None = Field(
        default=None,
        pattern=NAME,
        description="of several of a group that a change concerns, the first alone may be sent",
    )
    start: Moment | None = Field(default=None, description="nothing is sent before; a date is UTC")
    end: Moment | None = Field(
        default=None, description="nothing is sent from then on; a date is UTC"
    )
    goal: Goal | None = Field(default=None, description="what is measured; none measures nothing")

    @field_validator("arms")
    @classmethod
    def _are_names(cls, arms: dict[str, float]) -> dict[str, float]:
        for name in arms:
            if re.fullmatch(NAME, name) is None or name in RESERVED_ARMS:
                raise ValueError(f"{name!r} is no name for an arm")
        return arms

    @model_validator(mode="after")
    def _fits_together(self) -> Campaign:
        if self.settle >= self.valid_for:
            raise ValueError("settle: expected less than valid_for, or nothing is ever sent")
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ValueError("end: expected later than start")
        return self

    @staticmethod
    def from_kept(text: str) -> Campaign:
        """A declaration from the JSON that was kept of it, even if its zone is not known on this machine."""
        return Campaign.model_validate_json(text, context=_KEPT)

    @property
    def version(self) -> str:
        """What tells this declaration from any other of the same name."""
        told = self.model_dump_json(by_alias=True, exclude_defaults=True)
        return blake2b(told.encode(), digest_size=4, person=b"segstream campgn").hexdigest()

    @property
    def start_ms(self) -> int | None:
        return None if self.start is None else milliseconds(self.start)

    @property
    def end_ms(self) -> int | None:
        return None if self.end is None else milliseconds(self.end)


class PerUser(_Declared):
    """Triggers of one user over all campaigns at the most, in any 24 hours and in any seven days."""

    day: int | None = Field(default=None, ge=1, le=MOST_SENDS)
    week: int | None = Field(default=None, ge=1, le=MOST_SENDS)

    @model_validator(mode="after")
    def _fits_together(self) -> PerUser:
        if self.day is not None and self.week is not None and self.day > self.week:
            raise ValueError("day: expected no more than week")
        return self


def _as_values(told: Any) -> Any:
    values = told if isinstance(told, (list, tuple)) else [told]
    for value in values:
        if not isinstance(value, (bool, int, float, str)) or value != value:  # noqa: PLR0124 - NaN
            raise ValueError("expected true, false, a number or a text, or several of these")
    return values


TraitValue = bool | int | float | str
TraitValues = Annotated[tuple[TraitValue, ...], BeforeValidator(_as_values), Field(min_length=1)]
TraitName = Annotated[str, Field(min_length=1)]


def said_as(value: Any) -> str:
    """A trait's value as it is compared: programs write `true`, `True` and `"true"`, and mean the same."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip().casefold()


class Limits(_Declared):
    """What holds over all campaigns."""

    per_user: PerUser = Field(
        default=PerUser(), description="triggers of a user at the most: {day = 1, week = 3}"
    )
    global_holdout: Share = Field(
        default=0.0, description="share of users who get no campaign at all, to measure all of them"
    )
    suppress: dict[TraitName, TraitValues] = Field(
        default={},
        max_length=MOST_TRAITS,
        description="traits of users who get nothing, with their values: {unsubscribed = true}",
    )
    zone_trait: str | None = Field(
        default=None, min_length=1, description="trait that names the user's own zone"
    )

    def suppressing(self, traits: Mapping[str, Any]) -> dict[str, bool]:
        """Of what is told of a user, by trait that may suppress, whether it does."""
        return {
            name: traits[name] is not None and said_as(traits[name]) in map(said_as, values)
            for name, values in self.suppress.items()
            if name in traits
        }


def see_campaigns(
    campaigns: Sequence[Campaign],
    kinds: Iterable[str],
    features: Iterable[str],
    levels: Mapping[str, Sequence[str]],
    populations: Iterable[str],
    scores: Iterable[str],
) -> None:
    """Whether campaigns name only what there is.

    Args:
        levels: names of the steps of each.

    Raises:
        ValueError: they do not; the message names the key.
    """
    if len(campaigns) > MOST_CAMPAIGNS:
        raise ValueError(f"campaigns: {len(campaigns)} are more than {MOST_CAMPAIGNS}")
    known_kinds, known_features = {*kinds, FALLBACK_KIND}, set(features)
    known_populations, known_scores = {*populations} or {EVERYONE}, set(scores)
    seen: set[str] = set()
    for place, campaign in enumerate(campaigns):
        key = f"campaigns.{place}"
        if campaign.name in seen:
            raise ValueError(f"{key}.name: {campaign.name!r} is used twice")
        seen.add(campaign.name)
        when = campaign.when
        for field, names, what, known in (
            ("kind_to", when.kind_to, "kind", known_kinds),
            ("kind_from", when.kind_from, "kind", known_kinds),
            ("population_to", when.population_to, "population", known_populations),
            ("population_from", when.population_from, "population", known_populations),
            ("scores", when.scores, "score", known_scores),
        ):
            for name in names:
                if name not in known:
                    told = ", ".join(sorted(known)) or "none"
                    raise ValueError(f"{key}.when.{field}: there is no {what} {name!r}, but {told}")
        for feature in campaign.when.reasons:
            if feature not in known_features:
                raise ValueError(f"{key}.when.reasons: {feature!r} is no feature")
        _see_steps(f"{key}.when", campaign.when, levels)


def _see_steps(key: str, when: When, levels: Mapping[str, Sequence[str]]) -> None:
    named = [(f"{key}.steps", level, steps) for level, steps in when.steps.items()]
    if when.level is not None:
        named += [
            (f"{key}.level", when.level, ()),
            (f"{key}.step_to", when.level, when.step_to),
            (f"{key}.step_from", when.level, when.step_from),
        ]
    for field, level, steps in named:
        if level not in levels:
            told = f"only {', '.join(levels)}" if levels else "none is declared"
            raise ValueError(f"{field}: there is no level {level!r}; {told}")
        for step in steps:
            if step not in levels[level]:
                told = ", ".join(levels[level])
                raise ValueError(f"{field}: {level!r} has no step {step!r}, but {told}")
