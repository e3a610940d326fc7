"""Says which population a user belongs to: the first whose rule holds.

Comes in: declared rules, vectors in natural units, and the population each user is in. Goes out: a
column of populations, and the features that decided. `model` holds what was learned of each; `segments`
moves at once whoever belongs to another one.

A population is learned by itself: its users are asked other questions than those of the others. There
is always at least one, and the last has no rule, so that everyone is in exactly one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Annotated, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from stream.events import Bools, Floats, Ints
from stream.kinds import Bounds

EVERYONE = "everyone"
"""Name of the only population where none is declared."""
NONE = -1
"""Place of no population: whose user has not been in one yet."""
AUTO: Literal["auto"] = "auto"

Count: TypeAlias = Annotated[int, Field(ge=1, le=64)]


class Population(BaseModel):
    """Users that are learned together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    when: dict[str, Bounds] = Field(
        default={},
        description="feature to limits, in natural units; all must hold; none: everyone else",
    )
    segments: Count | Literal["auto"] | None = Field(
        default=None,
        description="number of segments (k); auto takes what the users suggest; none: "
        "learning.segments",
    )
    slack: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="share of a limit by which whoever is in may miss it; 0 for features that do not "
        "tremble, such as days since something",
    )


DEFAULT_POPULATIONS: tuple[Population, ...] = (
    Population(
        name="customers",
        when={"orders_total": Bounds(min=1), "days_since_seen": Bounds(max=120)},
        slack=0,
    ),
    Population(name="lapsed", when={"orders_total": Bounds(min=1)}, segments=2, slack=0),
    Population(name="visitors", segments=3),
)
"""Who have ordered and were here not so long ago, who have ordered and are gone, and who have not
ordered. 120 days is where the default kinds begin to say *dormant*: so no segment of customers is."""


def check(declared: Sequence[Population], features: Sequence[str]) -> None:
    """See that everyone is in exactly one of them, and that each can have somebody in it.

    Raises:
        ValueError: names the population, and what is wrong with it.
    """
    names = [one.name for one in declared]
    for place, one in enumerate(declared):
        if names.count(one.name) > 1:
            raise ValueError(f"populations: the name {one.name!r} is used twice")
        for feature, bounds in one.when.items():
            if feature not in features:
                raise ValueError(
                    f"populations: {one.name!r} looks at {feature!r}, which is no feature"
                )
            if bounds.min_times is not None or bounds.max_times is not None:
                raise ValueError(
                    f"populations: {one.name!r} looks at {feature!r} with min_times or max_times: a "
                    "usual value is one of a population, so there is none yet; give min or max"
                )
            if bounds.min is not None and bounds.max is not None and bounds.min > bounds.max:
                raise ValueError(
                    f"populations: nobody can be in {one.name!r}: {feature} is never "
                    f"{bounds.min:g} or more and {bounds.max:g} or less"
                )
        for before in declared[:place]:
            if _implies(one.when, before.when):
                raise ValueError(
                    f"populations: nobody can be in {one.name!r}: all whom its rule holds for are "
                    f"in {before.name!r}, which comes before it"
                )
    if declared and declared[-1].when:
        raise ValueError(
            f"populations: the last one takes everyone else, so {names[-1]!r} has no when; put "
            "another one without a rule behind it"
        )


def _implies(one: Mapping[str, Bounds], other: Mapping[str, Bounds]) -> bool:
    """Whether the other rule holds wherever the one does."""
    return all(
        feature in one and _within(one[feature], bounds) for feature, bounds in other.items()
    )


def _within(one: Bounds, other: Bounds) -> bool:
    """Whether every value that keeps the one limits keeps the others, too."""
    low = other.min is None or (one.min is not None and one.min >= other.min)
    return low and (other.max is None or (one.max is not None and one.max <= other.max))


@dataclass(frozen=True)
class Populations:
    """The populations there are, in the order in which their rules are asked.

    Attributes:
        declared: at least one, the last without a rule.
        features: names of the vectors' features.
    """

    declared: tuple[Population, ...]
    features: tuple[str, ...]

    @staticmethod
    def of(declared: Sequence[Population], features: Sequence[str]) -> Populations:
        """Those declared; everyone in one if there are none.

        Raises:
            ValueError: see `check`.
        """
        check(declared, features)
        return Populations(tuple(declared) or (Population(name=EVERYONE),), tuple(features))

    def __len__(self) -> int:
        return len(self.declared)

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.declared)

    @cached_property
    def digest(self) -> str:
        """The same for the same names and rules; how many segments each has is no part of it."""
        told = repr([(one.name, sorted(one.when.items()), one.slack) for one in self.declared])
        return blake2b(told.encode(), digest_size=8).hexdigest()

    @cached_property
    def _limits(self) -> tuple[tuple[tuple[int, float | None, float | None], ...], ...]:
        """Of each population, a column with its limits for each feature it looks at."""
        return tuple(
            tuple(
                (self.features.index(name), bounds.min, bounds.max)
                for name, bounds in one.when.items()
            )
            for one in self.declared
        )

    def divide(self, vectors: Floats, current: Ints) -> Ints:
        """Place of the population that each user belongs to, ``(n,)``.

        Args:
            vectors: ``(n, features)`` in natural units.
            current: ``(n,)`` place of the one they are in, whose limits are looser for them; `NONE`
                for none.
        """
        found = np.full(len(vectors), len(self) - 1)
        for place in range(len(self) - 2, -1, -1):
            found[self._holds(place, vectors, current == place)] = place
        return found

    def _holds(self, place: int, vectors: Floats, inside: Bools) -> Bools:
        slack = self.declared[place].slack
        holds = np.ones(len(vectors), np.bool_)
        for column, low, high in self._limits[place]:
            values = vectors[:, column]
            if low is not None:
                holds &= values >= (np.where(inside, low - slack * abs(low), low) if slack else low)
            if high is not None:
                holds &= values <= (
                    np.where(inside, high + slack * abs(high), high) if slack else high
                )
        return holds

    def reasons(self, before: int, after: int, vector: Sequence[float]) -> list[int]:
        """Columns of the features that took a user from one population to another, first the first.

        Args:
            before: place, `NONE` for one that is no more.
            vector: ``(features,)`` of the user, in natural units.
        """
        if after < before or before == NONE:
            entered = self._entrances[before, after]
            if entered:
                return entered
        # Who left for a later one keeps the rule no more: at least one of its limits is missed.
        left = before if NONE < before < after else 0
        missed = [
            column
            for column, low, high in self._limits[left]
            if (low is not None and vector[column] < low)
            or (high is not None and vector[column] > high)
        ]
        return missed or [column for column, _, _ in self._limits[left]]

    @cached_property
    def _entrances(self) -> dict[tuple[int, int], list[int]]:
        """`_entered` of all there are: of many users who cross, nobody's own values count in it."""
        places = range(len(self))
        return {
            (before, after): self._entered(before, after)
            for before in (NONE, *places)
            for after in places
        }

    def _entered(self, before: int, after: int) -> list[int]:
        """Columns of a population's rule: first what cannot have held before, last what must have."""
        when = self.declared[after].when
        held = {} if before == NONE else self.declared[before].when
        never = [
            next(iter(other.when.items()))
            for other in self.declared[: max(before, 0)]
            if len(other.when) == 1
        ]

        def order(name: str) -> int:
            if any(name == feature and _within(when[name], limits) for feature, limits in never):
                return 0
            return 2 if name in held and _within(held[name], when[name]) else 1

        return [self.features.index(name) for name in sorted(when, key=order)]
