"""Declares features: what a settings file may say, and the features there are without one.

Comes in: values of `[[features]]`. Goes out: features that fit together each; `table` compiles them.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, model_validator

from stream.features.aggregates import AGGREGATES
from stream.features.terms import BROWSE, PLACED, REFUNDED, Declared


def _is_known(name: str) -> str:
    if name not in AGGREGATES:
        *others, last = map(repr, AGGREGATES)
        raise ValueError(f"Input should be {', '.join(others)} or {last}")
    return name


class Feature(Declared):
    """One declared feature: which events, which aggregate, over what time."""

    aggregate: Annotated[str, AfterValidator(_is_known)]

    @model_validator(mode="after")
    def _fits_together(self) -> Feature:
        if self.half_life is not None and self.window is not None:
            raise ValueError(f"{self.name}: give half_life or window, not both")
        if self.minus and not self.on:
            raise ValueError(f"{self.name}: minus needs on: events to take away from")
        if self.of == "sessions" and (self.on or self.minus):
            raise ValueError(f"{self.name}: sessions are of all clicks; leave on and minus out")
        if self.window is not None and round(self.window * 1_000) % self.tiles:
            raise ValueError(f"{self.name}: window must be a whole number of tiles in milliseconds")
        AGGREGATES[self.aggregate].validate(self)
        return self


def _f(name: str, aggregate: Any, **rest: Any) -> Feature:
    return Feature(name=name, aggregate=aggregate, **rest)


_ORDER = (PLACED,)
_REFUND = (REFUNDED,)

DEFAULT_FEATURES: tuple[Feature, ...] = (
    _f("days_since_seen", "last", unit="days", words=("recent", "silent")),
    _f("days_since_order", "last", on=_ORDER, unit="days", absent=400.0,
       words=("ordered recently", "no recent order")),
    _f("tenure_days", "first", unit="days", weight=0.5, words=("newcomers", "long known")),
    _f("orders_30d", "count", on=_ORDER, minus=_REFUND, half_life="30d", unit="orders",
       words=("few orders lately", "ordering now")),
    _f("orders_180d", "count", on=_ORDER, minus=_REFUND, half_life="180d", unit="orders",
       words=("rare orders", "frequent")),
    _f("orders_total", "count", on=_ORDER, minus=_REFUND, unit="orders", weight=0),
    _f("revenue_30d", "sum", on=_ORDER, minus=_REFUND, of="value", half_life="30d",
       unit="money", weight=0.5, words=("low spend lately", "spending now")),
    _f("revenue_180d", "sum", on=_ORDER, minus=_REFUND, of="value", half_life="180d",
       unit="money", weight=0.5, words=("low value", "high value")),
    _f("basket_value", "mean", on=_ORDER, minus=_REFUND, of="value", half_life="180d",
       unit="money", weight=0.5, words=("small baskets", "big baskets")),
    _f("basket_items", "mean", on=_ORDER, minus=_REFUND, of="quantity", half_life="180d",
       unit="items", weight=0),
    _f("refunds_180d", "count", on=_REFUND, half_life="180d", unit="refunds", weight=0.25,
       words=("no refunds", "sends back")),
    _f("views_1h", "count", on=BROWSE, half_life="1h", unit="views", weight=0.25,
       words=("", "browsing now")),
    _f("views_1d", "count", on=BROWSE, half_life="1d", unit="views", weight=0.5,
       words=("", "browsed today")),
    _f("views_7d", "count", on=BROWSE, half_life="7d", unit="views", weight=0.5,
       words=("hardly browses", "browses a lot")),
    _f("browse_seconds_7d", "sum", on=BROWSE, of="browse_seconds", half_life="7d",
       unit="seconds", weight=0.25, words=("brief visits", "long visits")),
    _f("sessions_7d", "count", of="sessions", half_life="7d", unit="sessions", weight=0.5,
       words=("few visits", "many visits")),
    _f("sessions_30d", "count", of="sessions", half_life="30d", unit="sessions", weight=0.5,
       words=("few visits", "many visits")),
    _f("carts_7d", "count", on=("Product Added",), half_life="7d", unit="carts", weight=0.5,
       words=("empty cart", "fills carts")),
    _f("categories_7d", "distinct", on=BROWSE, of="category", half_life="7d",
       unit="categories", weight=0.5, words=("narrow taste", "broad taste")),
    _f("conversion_30d", "ratio", numerator="orders_30d", denominator="sessions_30d",
       unit="orders a session", weight=0.25, words=("looks only", "buys when visiting")),
)  # fmt: skip
