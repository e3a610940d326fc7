"""Reads values out of rows, and asks what a rule asks of them.

Comes in: places of columns, and tests as a mapping declares them. Goes out: functions of a row, or of a value;
`row_mapper` calls them for each row.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from functools import partial

from producers.amounts import NumberColumn
from producers.mapped import NoText, Row, UndecidedError
from producers.mapping import ColumnTest

Reader = Callable[[Row], str | None]
"""Gives a value of a row; None for nothing."""


def reader_of(places: Sequence[int]) -> Reader:
    """Reads the first of these values that is filled."""
    if not places:
        return read_nothing
    if len(places) == 1:
        only = places[0]

        def read(row: Row) -> str | None:
            value = row[only]
            return (value.strip() or None) if value else None

        return read

    def read_first(row: Row) -> str | None:
        for place in places:
            value = row[place]
            if value and (value := value.strip()):
                return value
        return None

    return read_first


def joined(reads: Sequence[Reader]) -> Reader:
    """Reads what several say, with a blank between; nothing where the first says nothing."""
    first, *others = reads
    if not others:
        return first

    def read(row: Row) -> str | None:
        text = first(row)
        if text is None:
            return None
        return " ".join([text, *(more for other in others if (more := other(row)) is not None)])

    return read


def together(reads: Sequence[Reader]) -> Reader:
    """Reads the texts of all that are filled, with a blank between; what is no text is left out."""
    if not reads:
        return read_nothing

    def read(row: Row) -> str | None:
        found = [text for one in reads if (text := one(row)) and not isinstance(text, NoText)]
        return " ".join(found) or None

    return read


def read_nothing(_row: Row) -> None:
    """Of what no column says."""


def condition_of(rule: ColumnTest, numbers: NumberColumn) -> Callable[[str], bool]:
    """Whether a value passes every test; an empty value is the empty text."""
    tests: list[Callable[[str], bool]] = []
    if rule.empty is not None:
        tests.append(operator.not_ if rule.empty else bool)
    if rule.equals is not None:
        tests.append(partial(operator.eq, rule.equals))
    if rule.not_equals is not None:
        tests.append(partial(operator.ne, rule.not_equals))
    if rule.one_of is not None:
        tests.append(frozenset(rule.one_of).__contains__)
    if rule.starts_with is not None:
        tests.append(operator.methodcaller("startswith", rule.starts_with))
    if rule.ends_with is not None:
        tests.append(operator.methodcaller("endswith", rule.ends_with))
    if rule.matches is not None:
        matches = re.compile(rule.matches).fullmatch
        tests.append(lambda text: matches(text) is not None)
    if rule.less_than is not None or rule.more_than is not None:
        low = -math.inf if rule.more_than is None else rule.more_than
        high = math.inf if rule.less_than is None else rule.less_than

        def between(text: str) -> bool:
            written = numbers.read(text) if text else None
            if written is None:
                return False
            value = numbers.value(written)
            if value is not None:
                return low < value < high
            either = {
                one is not None and low < one < high for one in (written.point, written.comma)
            }
            if len(either) > 1 and not numbers.is_settled:
                raise UndecidedError
            return either == {True}

        tests.append(between)
    if len(tests) == 1:
        return tests[0]
    return lambda text: all(test(text) for test in tests)
