"""Folds events into columns of users, and lets time roll them on.

Which features there are is declared, not coded: read `declare` for what may be said, `aggregates` for
what each kind of feature keeps, `table` for the row they make together, `batch` for what a fold is given.

A refund or a cancellation takes back what is left of its order: `orders` says what that is, and a
feature that has one of them in `minus` and orders in `on` counts what is left, at the order's time.
What the shop does (refund, cancel, ship) is folded, and is no sign of life: it moves no *days since
seen*, opens no session, and makes nobody known.
"""

from stream.features.aggregates import BUCKETS, SAME_OCCASION_DAYS, over_time
from stream.features.batch import SESSION_GAP_MS, OrderKinds, Shares, starts_of
from stream.features.declare import DEFAULT_FEATURES, REVIEW_FEATURES, Feature
from stream.features.table import FeatureTable
from stream.features.terms import BROWSE, SHOP_EVENTS

__all__ = [
    "BROWSE",
    "BUCKETS",
    "DEFAULT_FEATURES",
    "REVIEW_FEATURES",
    "SAME_OCCASION_DAYS",
    "SESSION_GAP_MS",
    "SHOP_EVENTS",
    "Feature",
    "FeatureTable",
    "OrderKinds",
    "Shares",
    "over_time",
    "starts_of",
]
