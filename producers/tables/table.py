"""What an open table is, whatever its format.

Comes in: nothing; these are types. Goes out: what each format gives and `files` maps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from producers.mapped import Refusal, Row

if TYPE_CHECKING:
    from collections.abc import Iterator

BATCH_ROWS = 20_000
"""Rows in Python at once: large enough that calls do not count, a few megabytes."""

Refuse = Callable[[Refusal], None]
"""Is told of lines that are no rows."""


class Numbered(NamedTuple):
    """A row and its number in the file, from 1."""

    number: int
    row: Row


class Table(NamedTuple):
    """An open table: the columns of its rows, the rows in the order of the file, and what to tell."""

    columns: tuple[str, ...]
    batches: Iterator[list[Numbered]]
    note: str | None = None
