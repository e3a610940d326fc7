"""Declares scores: what a settings file may say, and the scores there are without one.

Comes in: values of `[[scores]]`. Goes out: scores, each with a horizon, and from how much
they are learned; `step` does that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stream.features.terms import OverTime
from stream.levels.declare import Level

ORDERS, REVENUE, SILENCE = "orders_total", "revenue_total", "days_since_order"
"""Features that tell what came of a look: orders ever, money ever, and days since the last order."""
NEEDED = (ORDERS, REVENUE, SILENCE)
INPUTS = (
    "days_since_order",
    "days_since_seen",
    "tenure_days",
    "orders_30d",
    "orders_180d",
    "orders_total",
    "revenue_180d",
    "revenue_total",
    "basket_value",
    "order_gap_days",
    "silence_in_gaps",
)
"""Features that scores are computed from, where the settings name no others."""
HABITS = (
    "orders_30d",
    "orders_180d",
    "revenue_180d",
    "basket_value",
    "basket_items",
    "refunds_180d",
    "views_7d",
    "browse_seconds_7d",
    "sessions_30d",
    "carts_7d",
    "categories_7d",
)
"""Features in which somebody may be unusual, where the settings name no others: what people do and not for
how long they are known or silent. With those of the last hour and day, too, 53 of 100 serial returners of
the simulated shop are among the farthest hundredth, without them 88."""


class Score(BaseModel):
    """One declared score: what is foretold, and for how long; or how unusual somebody is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    of: Literal["buy", "spend", "unusual"] = Field(
        description="buy: probability of an order; spend: expected money, refunds taken off; unusual: "
        "share of all who are less far from what people like them do"
    )
    days: float | None = Field(
        default=None,
        gt=0,
        le=730,
        description="from now on, in which that happens; none of unusual, which is of today",
    )

    @model_validator(mode="after")
    def _has_a_horizon_or_none(self) -> Score:
        if self.of == "unusual" and self.days is not None:
            raise ValueError(f"{self.name}: unusual has no days, for it is of today")
        if self.of != "unusual" and self.days is None:
            raise ValueError(f"{self.name}: give days, in which it is to happen")
        return self


DEFAULT_SCORES: tuple[Score, ...] = (
    Score(name="buy_probability_30d", of="buy", days=30),
    Score(name="buy_probability_90d", of="buy", days=90),
    Score(name="expected_spend_90d", of="spend", days=90),
    Score(name="unusual", of="unusual"),
)


@dataclass(frozen=True)
class Wanted:
    """What is to be learned, and from how much.

    Attributes:
        inputs: features that scores are computed from.
        users: customers who are looked at, at the most.
        look_days: days from one look at a customer to the next.
        least: labels of a horizon from which it has a score.
        habits: features that unusual is computed from.
        levels: that are to be made of scores and features.
        absent: of each feature, the value of whoever has done nothing; levels begin there.
        over_time: how each feature goes on for somebody who does nothing; `moves` where it is not told.
        falls: whether scores of such a one are bound to fall.
    """

    scores: tuple[Score, ...]
    inputs: tuple[str, ...]
    users: int
    look_days: int
    least: int
    habits: tuple[str, ...] = ()
    levels: tuple[Level, ...] = ()
    absent: Mapping[str, float] = field(default_factory=dict)
    over_time: Mapping[str, OverTime] = field(default_factory=dict)
    falls: bool = True

    @cached_property
    def turns(self) -> tuple[OverTime, ...]:
        """How each input goes on for somebody who does nothing."""
        return tuple(self.over_time.get(name, "moves") for name in self.inputs)

    @cached_property
    def days(self) -> tuple[float, ...]:
        """That scores look ahead, each once, ascending."""
        return tuple(sorted({score.days for score in self.scores if score.days is not None}))

    @property
    def unusual(self) -> str | None:
        """Name of the score that says how unusual somebody is; None if it is not wanted."""
        return next((score.name for score in self.scores if score.of == "unusual"), None)

    @cached_property
    def meaning(self) -> str:
        """The same for the same inputs and horizons: what was learned holds for no others."""
        told = repr((self.inputs, self.days, self.turns, self.falls)).encode()
        return blake2b(told, digest_size=8).hexdigest()

    def readable(self, features: Sequence[str]) -> bool:
        """Whether there is anything to foretell, and a feature table has all that is needed."""
        return bool(self.days) and {*self.inputs, *NEEDED} <= set(features)


NOTHING_WANTED = Wanted((), (), 0, 1, 1)
