"""Says by which rates amounts of a partition were converted, and from where on.

Comes in: a partition's position, and the settings of money that are in force. Goes out: the list that the
position keeps; the audit reads the log with it. Rates are settings and change, and what they have converted
stays as it was: without the list nobody could find the state again from the log.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from stream.config import Money

MOST = 16
"""Changes of rates that a position keeps: it is written with every commit."""


class Priced(msgspec.Struct, frozen=True):
    """Rates that are in force from some offsets on.

    Attributes:
        offsets: first ones that they are for, by input topic.
        currency, default, rates: see `config.Money`.
    """

    offsets: list[int]
    currency: str = ""
    default: str = ""
    rates: dict[str, float] = {}

    @property
    def money(self) -> Money:
        return Money(currency=self.currency, default=self.default, rates=self.rates)


def priced(
    told: Sequence[Priced], offsets: list[int], first: list[int], money: Money
) -> list[Priced]:
    """The list of a partition that is taken over at some offsets.

    Args:
        told: what its position says.
        first: offsets at which its state began.
        money: the settings that convert from here on.

    Returns:
        Nothing where there has never been a rate.
    """
    if not money.rates and not told:
        return []
    now = Priced(list(offsets), money.currency, money.default, dict(money.rates))
    before = told or [Priced(list(first))]
    if before[-1].money == money:
        return list(before)
    # What was converted since the last change is no more: the store has lost it, or there was nothing.
    kept = [one for one in before if one.offsets != now.offsets]
    return [*kept, now][-MOST:]
