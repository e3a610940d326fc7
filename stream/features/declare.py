"""Declares features: what a settings file may say, and the features there are without one.

Comes in: values of `[[features]]`. Goes out: features that fit together each; `table` compiles them.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, model_validator

from stream.features.aggregates import AGGREGATES
from stream.features.terms import BROWSE, PLACED, REFUNDED, REVIEWED, Declared
from stream.kinds import Bounds


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


def _least(**lows: float) -> dict[str, Bounds]:
    """Limits from below, by feature."""
    return {name: Bounds(min=low) for name, low in lows.items()}


def _most(**highs: float) -> dict[str, Bounds]:
    """Limits from above, by feature."""
    return {name: Bounds(max=high) for name, high in highs.items()}


_ORDER = (PLACED,)
_REFUND = (REFUNDED,)
_SPENT = Bounds(min=0.01)
"""More than nothing: what is said of money is said of who spends it."""

DEFAULT_FEATURES: tuple[Feature, ...] = (
    _f("days_since_seen", "last", unit="days", words=("recent", "silent"),
       limits=(_most(days_since_seen=7), _least(days_since_seen=30))),
    _f("days_since_order", "last", on=_ORDER, unit="days", absent=400.0,
       words=("ordered recently", "no recent order"),
       limits=(_most(days_since_order=21), _least(days_since_order=60))),
    _f("tenure_days", "first", unit="days", weight=0.5, words=("newcomers", "long known"),
       limits=(_most(tenure_days=30), _least(tenure_days=180))),
    _f("orders_30d", "count", on=_ORDER, minus=_REFUND, half_life="30d", unit="orders",
       words=("few orders lately", "ordering now"),
       limits=(_most(orders_30d=0.5), _least(orders_30d=1) | _most(days_since_order=21))),
    _f("orders_180d", "count", on=_ORDER, minus=_REFUND, half_life="180d", unit="orders",
       words=("rare orders", "frequent"),
       limits=(_most(orders_180d=1), _least(orders_180d=3))),
    _f("orders_total", "count", on=_ORDER, minus=_REFUND, unit="orders", weight=0),
    _f("revenue_total", "sum", on=_ORDER, minus=_REFUND, of="value", unit="money", weight=0),
    _f("order_gap_days", "gap", on=_ORDER, half_life="365d", unit="days", weight=0),
    _f("silence_in_gaps", "ratio", numerator="days_since_order", denominator="order_gap_days",
       unit="gaps", weight=0),
    _f("revenue_30d", "sum", on=_ORDER, minus=_REFUND, of="value", half_life="30d",
       unit="money", weight=0.5, words=("low spend lately", "spending now"),
       limits=({"revenue_30d": Bounds(max_times=0.5)},
               {"revenue_30d": Bounds(min=0.01, min_times=1)} | _most(days_since_order=21))),
    _f("revenue_180d", "sum", on=_ORDER, minus=_REFUND, of="value", half_life="180d",
       unit="money", weight=0.5, words=("low value", "high value"),
       limits=({"revenue_180d": Bounds(max_times=0.5)},
               {"revenue_180d": Bounds(min=0.01, min_times=2)})),
    _f("basket_value", "mean", on=_ORDER, minus=_REFUND, of="value", half_life="180d",
       unit="money", weight=0.5, words=("small baskets", "big baskets"),
       limits=({"basket_value": Bounds(min=0.01, max_times=0.7)},
               {"basket_value": Bounds(min=0.01, min_times=1.5)})),
    _f("basket_items", "mean", on=_ORDER, minus=_REFUND, of="quantity", half_life="180d",
       unit="items", weight=0),
    _f("refunds_180d", "count", on=_REFUND, half_life="180d", unit="refunds", weight=0.25,
       words=("no refunds", "sends back"),
       limits=(_most(refunds_180d=0.02) | _least(orders_180d=0.5), _least(refunds_180d=0.5))),
    _f("views_1h", "count", on=BROWSE, half_life="1h", unit="views", weight=0.25,
       words=("", "browsing now"),
       limits=({}, _least(views_1h=0.5) | _most(days_since_seen=0.05))),
    _f("views_1d", "count", on=BROWSE, half_life="1d", unit="views", weight=0.5,
       words=("", "browsed today"),
       limits=({}, _least(views_1d=0.5) | _most(days_since_seen=1))),
    _f("views_7d", "count", on=BROWSE, half_life="7d", unit="views", weight=0.5,
       words=("hardly browses", "browses a lot"),
       limits=(_most(views_7d=0.5), _least(views_7d=10) | _most(days_since_seen=14))),
    _f("browse_seconds_7d", "sum", on=BROWSE, of="browse_seconds", half_life="7d",
       unit="seconds", weight=0.25, words=("little time browsing", "much time browsing"),
       limits=(_most(browse_seconds_7d=60), _least(browse_seconds_7d=1_200))),
    _f("sessions_7d", "count", of="sessions", half_life="7d", unit="sessions", weight=0.5,
       words=("few visits", "many visits"),
       limits=(_most(sessions_7d=0.5), _least(sessions_7d=4) | _most(days_since_seen=14))),
    _f("sessions_30d", "count", of="sessions", half_life="30d", unit="sessions", weight=0.5,
       words=("few visits", "many visits"),
       limits=(_most(sessions_30d=1), _least(sessions_30d=8) | _most(days_since_seen=30))),
    _f("carts_7d", "count", on=("Product Added",), half_life="7d", unit="carts", weight=0.5,
       words=("nothing in carts lately", "fills carts"),
       limits=(_most(carts_7d=0.1), _least(carts_7d=2) | _most(days_since_seen=14))),
    _f("categories_7d", "distinct", on=BROWSE, of="category", half_life="7d",
       unit="categories", weight=0.5, words=("narrow taste", "broad taste"),
       limits=({"categories_7d": Bounds(min=0.3, max=1.5)}, _least(categories_7d=4))),
    _f("conversion_30d", "ratio", numerator="orders_30d", denominator="sessions_30d",
       unit="orders a session", weight=0.25, words=("looks only", "buys when visiting"),
       limits=(_least(sessions_30d=1) | _most(orders_30d=0.05),
               _least(conversion_30d=0.5, orders_30d=0.5))),
)  # fmt: skip

_REVIEW = (REVIEWED,)
_SOME_REVIEW = Bounds(min=0.25)
"""One of them within a year: what is said of a mean is said of who has one."""

REVIEW_FEATURES: tuple[Feature, ...] = (
    _f("reviews_180d", "count", on=_REVIEW, half_life="180d", unit="reviews", weight=0.25,
       words=("", "writes reviews"), limits=({}, _least(reviews_180d=1))),
    _f("sentiment_90d", "mean", on=_REVIEW, of="sentiment", half_life="90d", unit="from -1 to 1",
       weight=0.25, words=("unhappy", "happy"),
       limits=({"reviews_180d": _SOME_REVIEW} | _most(sentiment_90d=-0.25),
               {"reviews_180d": _SOME_REVIEW} | _least(sentiment_90d=0.5))),
)  # fmt: skip
"""Of a shop that has reviews; see `config.Reviews`."""
