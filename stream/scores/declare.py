"""Declares scores: what a settings file may say, and the scores there are without one.

Comes in: values of `[[scores]]`. Goes out: scores, each with a horizon, and from how much
they are learned; `step` does that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

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


class Score(BaseModel):
    """One declared score: what is foretold, and for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    of: Literal["buy", "spend"] = Field(
        description="buy: probability of an order; spend: expected money, refunds taken off"
    )
    days: float = Field(gt=0, le=730, description="from now on, in which that happens")


DEFAULT_SCORES: tuple[Score, ...] = (
    Score(name="buy_probability_30d", of="buy", days=30),
    Score(name="buy_probability_90d", of="buy", days=90),
    Score(name="expected_spend_90d", of="spend", days=90),
)


@dataclass(frozen=True)
class Wanted:
    """What is to be learned, and from how much.

    Attributes:
        inputs: features that scores are computed from.
        users: customers who are looked at, at the most.
        look_days: days from one look at a customer to the next.
        least: labels of a horizon from which it has a score.
    """

    scores: tuple[Score, ...]
    inputs: tuple[str, ...]
    users: int
    look_days: int
    least: int

    @cached_property
    def days(self) -> tuple[float, ...]:
        """That scores look ahead, each once, ascending."""
        return tuple(sorted({score.days for score in self.scores}))

    @cached_property
    def meaning(self) -> str:
        """The same for the same inputs and horizons: what was learned holds for no others."""
        told = repr((self.inputs, self.days)).encode()
        return blake2b(told, digest_size=8).hexdigest()

    def readable(self, features: Sequence[str]) -> bool:
        """Whether there is anything to learn, and a feature table has all that is needed."""
        return bool(self.scores) and {*self.inputs, *NEEDED} <= set(features)


NOTHING_WANTED = Wanted((), (), 0, 1, 1)
