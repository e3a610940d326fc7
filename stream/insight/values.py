"""Writes a feature's value as a person would say it.

Comes in: a number in natural units, and the feature. Goes out: a short text, for tables and pages.
"""

from __future__ import annotations

from stream.features import Feature


def natural(value: float) -> str:
    """A value in natural units, to three digits; what would show as nothing is 0."""
    if abs(value) < 0.005:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def exact(value: float, feature: Feature) -> str:
    """One user's value of a feature; "never" only if the event it waits for has not been seen."""
    never = feature.aggregate == "last" and 0 < feature.absent == value
    return "never" if never else natural(value)


def reading(value: float, feature: Feature) -> str:
    """A segment's typical value of a feature, which lies between what its users have.

    "Never" where next to none of them has seen the event that the feature waits for.
    """
    if feature.aggregate == "last" and feature.absent > 0:
        if abs(value - feature.absent) <= 0.01 * feature.absent:
            return "never"
        if 0.75 * feature.absent < value < feature.absent:
            return "mostly never"
    return natural(value)
