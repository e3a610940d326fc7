"""The words in which a feature is declared, and the events it may name.

Comes in: what a settings file says of a feature. Goes out: a `Declared`; `declare` sees that it fits
together.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from stream.kinds import Bounds
from stream.units import parse_duration

BROWSE = (
    "Product Viewed",
    "Product List Viewed",
    "Product Clicked",
    "Products Searched",
)

PLACED, UPDATED = "Order Completed", "Order Updated"
REFUNDED, CANCELLED = "Order Refunded", "Order Cancelled"
TAKES_BACK = (REFUNDED, CANCELLED)
FOLLOWS = {PLACED: UPDATED, REFUNDED: CANCELLED}
"""Where a feature names the one it means the other as well: an update corrects an order, and what is
cancelled is refunded."""
SHOP_EVENTS = (
    REFUNDED,
    CANCELLED,
    UPDATED,
    "Order Shipped",
    "Order Fulfilled",
    "Order Delivered",
)
"""What the shop does, not the customer; see `config.Worker.shop_events`."""

REVIEWED = "Product Reviewed"
ORDER_FAMILY = frozenset((PLACED, UPDATED, REFUNDED, CANCELLED))

OverTime = Literal["stays", "rises", "falls", "ages", "moves"]
"""How a feature goes on for somebody who does nothing: `ages` rises as the days of silence do, `falls` fades to
nothing, and `moves` goes either way."""

_Duration = Annotated[float, BeforeValidator(parse_duration), Field(gt=0)]


class Declared(BaseModel):
    """One feature as it is declared: which events, which aggregate, over what time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    aggregate: str
    on: tuple[str, ...] = Field((), description="event names; empty: every event any feature names")
    minus: tuple[str, ...] = Field((), description="event names that count negatively")
    of: (
        Literal["value", "quantity", "browse_seconds", "sessions", "category", "sentiment"] | None
    ) = None
    half_life: _Duration | None = Field(
        None, description="seconds; a decayed sum. With neither this nor a window: for life"
    )
    window: _Duration | None = Field(None, description="seconds; an exact rolling window")
    tiles: int = Field(28, ge=1, le=512, description="tiles a window is made of")
    numerator: str | None = None
    denominator: str | None = None
    absent: float = Field(0.0, description="value where there is nothing to tell")
    unit: str = ""
    weight: float = Field(
        1.0, ge=0, le=4, description="weight in distances; 0 only shows the feature"
    )
    words: tuple[str, str] = Field(("", ""), description="what a low and a high value is called")
    limits: tuple[dict[str, Bounds], dict[str, Bounds]] = Field(
        ({}, {}),
        description="what holds of whom the low and the high word names, in natural units: feature "
        "to limits, all of which must hold; a word without is never said",
    )

    def __hash__(self) -> int:
        """By what tells features of a table apart; limits are tables, which have no hash."""
        return hash((self.name, self.aggregate, self.on, self.half_life, self.window))

    @property
    def ratio_parts(self) -> tuple[str, ...]:
        return tuple(p for p in (self.numerator, self.denominator) if p is not None)

    @property
    def signed(self) -> bool:
        """Whether values may be negative."""
        return bool(self.minus)


def meant(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of events, and those that are meant with them; each once."""
    return tuple(dict.fromkeys((*names, *(FOLLOWS[n] for n in names if n in FOLLOWS))))
