"""A position says by which rates its amounts were converted, as long as that is asked."""

from __future__ import annotations

from stream.config import Money
from stream.priced import MOST, Priced, priced

EUROS = Money(currency="EUR")
FIRST = Money(currency="EUR", rates={"USD": 0.9})
LATER = Money(currency="EUR", rates={"USD": 1.1}, default="USD")


def test_without_rates_nothing_is_kept() -> None:
    for money in (Money(), EUROS):
        assert priced([], [5, 7], [0, 0], money) == []


def test_rates_are_kept_from_where_they_are_in_force() -> None:
    begun = priced([], [2, 3], [2, 3], FIRST)
    assert [(one.offsets, one.money) for one in begun] == [([2, 3], FIRST)]
    assert priced(begun, [10, 20], [2, 3], FIRST) == begun
    then = priced(begun, [10, 20], [2, 3], LATER)
    assert [(one.offsets, one.money) for one in then] == [([2, 3], FIRST), ([10, 20], LATER)]
    gone = priced(then, [30, 30], [2, 3], EUROS)
    assert [one.money for one in gone] == [FIRST, LATER, EUROS]


def test_rates_that_were_declared_later_leave_what_was_before_without() -> None:
    found = priced([], [10, 20], [2, 3], FIRST)
    assert [(one.offsets, one.money) for one in found] == [([2, 3], Money()), ([10, 20], FIRST)]


def test_rates_that_have_converted_nothing_are_not_kept() -> None:
    begun = priced([], [2, 3], [2, 3], FIRST)
    assert [one.money for one in priced(begun, [2, 3], [2, 3], LATER)] == [LATER]


def test_the_newest_are_kept_of_many() -> None:
    told: list[Priced] = []
    for day in range(MOST + 5):
        told = priced(told, [day, day], [0, 0], Money(currency="EUR", rates={"USD": 1.0 + day}))
    assert len(told) == MOST
    assert told[-1].rates == {"USD": MOST + 5.0}
