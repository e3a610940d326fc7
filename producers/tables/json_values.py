"""Reaches into objects of JSON, and writes what stands there as text.

Comes in: an object and a column's name, maybe a dotted path. Goes out: text, as cells of a table have it.

A part of a path is a key of an object or a place in a list. In a list of entries that have a `key` (or a
`name`) and a `value`, as Google Analytics has its parameters, it is such a key. ``*`` is every entry of
a list: numbers there add up. A text of JSON is what it says.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from producers.mapped import NoText

if TYPE_CHECKING:
    from collections.abc import Iterator

EVERY = "*"


def text_at(content: dict[str, Any], name: str, path: Sequence[str], is_number: bool) -> str | None:
    """The value under a name, or inside objects along a path, as text; None for nothing.

    Args:
        content: the object.
        name: of the column, which may be a key as it is.
        path: its parts.
        is_number: whether numbers of the column are read.

    Raises:
        ValueError: it cannot be written as text.
    """
    value = content.get(name)
    if value is None and len(path) > 1:
        if EVERY in path:
            found = [one for one in _each(content, path) if one not in (None, "")]
            value = _sum(found) if is_number else next(iter(found), None)
        else:
            value = _reach(content, path)
    if value is None or isinstance(value, str):
        return value
    text = json.dumps(value)
    if isinstance(value, bool | dict | list):
        return NoText(text)
    # A number that is one leaves no doubt about its decimal sign.
    return text + "e0" if is_number and isinstance(value, float) and "e" not in text else text


def text_in(cell: str, path: Sequence[str], is_number: bool) -> str | None:
    """What stands along a path in a text of JSON, as text; None for nothing.

    Where the text is no object and no list of JSON, it stands there itself in quotes, as what is no text.
    """
    if not cell.strip():
        return None
    content = _content_of(cell)
    if not isinstance(content, dict | list):
        return NoText(json.dumps(cell, ensure_ascii=False))  # in quotes even 7 is no number
    return text_at({_CELL: content}, "", [_CELL, *path], is_number)


_CELL = "cell"


@lru_cache(maxsize=16)
def _content_of(cell: str) -> Any:
    """What a text of JSON says; None if it is none. Several columns are read from one cell."""
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return None


def _reach(value: Any, path: Sequence[str]) -> Any:
    for part in path:
        if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
            value = _content_of(value)
        if isinstance(value, dict):
            value = value.get(part)
        elif not isinstance(value, list):
            return None
        elif part.isdecimal():
            value = value[int(part)] if int(part) < len(value) else None
        else:
            value = _entry(value, part)
    return value


def _entry(entries: list[Any], key: str) -> Any:
    """What entries of a key and a value say under a key; a value may be an object with one field for each type."""
    for entry in entries:
        if isinstance(entry, dict) and key in (entry.get("key"), entry.get("name")):
            value = entry.get("value")
            if isinstance(value, dict):
                return next((one for one in value.values() if one is not None), None)
            return value
    return None


def _each(value: Any, path: Sequence[str]) -> Iterator[Any]:
    """Values at the ends of a path that goes through every entry of a list."""
    if EVERY not in path:
        yield _reach(value, path)
        return
    place = path.index(EVERY)
    entries = _reach(value, path[:place])
    for entry in entries if isinstance(entries, list) else ():
        yield from _each(entry, path[place + 1 :])


def _sum(values: Sequence[Any]) -> Any:
    """Numbers added up, whatever they are written as; the first that is none, if there is one."""
    numbers: list[float] = []
    for value in values:
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            return value
        numbers.append(number)
    return math.fsum(numbers) if numbers else None
