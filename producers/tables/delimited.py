"""Reads CSV and the like as people have it: title lines, any delimiter, quotes by several customs.

Comes in: lines of text. Goes out: a `Table`; a line that is no row costs that line only.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Callable, Collection, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from producers.mapped import UNREADABLE, Refusal, Row
from producers.mapping import Mapping, MappingError
from producers.tables.json_values import text_in
from producers.tables.table import BATCH_ROWS, Numbered, Refuse, Table
from producers.texts import FileError, advice, is_text

if TYPE_CHECKING:
    from collections.abc import Iterator

_DELIMITERS = ",;\t|"
_LONGEST_ROW_LINES = 1_000
"""A row of more lines than this has a quote that nobody closed."""
csv.field_size_limit(1 << 24)


class _Lines:
    """The lines of a file, one after another; those of a row can be given back.

    Attributes:
        number: of the line that was read last.
        above: rows that stand above the names of the columns.
        of_row: the lines of the row that was read last.
    """

    def __init__(self, stream: Iterator[str]) -> None:
        self._stream = stream
        self._again: deque[str] = deque()
        self.number = 0
        self.above = 0
        self.of_row: list[str] = []

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if len(self.of_row) == _LONGEST_ROW_LINES:
            raise csv.Error(_NO_END)
        line = self._again.popleft() if self._again else next(self._stream)
        self.number += 1
        self.of_row.append(line)
        return line

    def give_back(self, keep: int = 0) -> None:
        """Take the lines of the row to have not been read, but for the first `keep`."""
        self._again.extendleft(reversed(self.of_row[keep:]))
        self.number -= len(self.of_row) - keep
        del self.of_row[keep:]


def read_delimited(file: Path, stream: Iterator[str], mapping: Mapping, refuse: Refuse) -> Table:
    """A table of the lines of a file.

    Args:
        file: where they come from, for messages.
        stream: the lines.
        mapping: what it looks at, and how the file is written.
        refuse: is told of lines that are no rows.

    Raises:
        FileError: there is no line with the names of columns, or they cannot be told apart.
        MappingError: the file lacks a column that the mapping needs.
    """
    lines = _Lines(stream)
    delimiter = mapping.delimiter
    first = next(lines, "").strip().strip('"')
    if first[:4].lower() == "sep=" and len(first) == 5:
        # A line of Excel's own, not a header.
        delimiter = delimiter or first[4]
    else:
        lines.give_back()
    delimiter, header = _find_header(lines, delimiter, mapping)
    if isinstance(header, str):
        raise FileError(f"{file}: no line with the names of columns{header}")
    names, header_ends, above = header.names, lines.number, lines.above
    if not is_text("".join(names)):
        raise FileError(
            f"{file}: the names of its columns are not in {mapping.encoding}{advice(file)}"
        )
    columns, shape, pick = _read_from(file, mapping, names)
    encoding_advice: list[str] = []

    def refuse_line(number: int, why: str) -> None:
        if why == _NO_TEXT:
            if not encoding_advice:
                encoding_advice.append(advice(file))
            why = f"{why} in {mapping.encoding}{encoding_advice[0]}"
        refuse(Refusal(number, UNREADABLE, f"line {start}: {why}", {}))

    start = 0

    def batches() -> Iterator[list[Numbered]]:
        nonlocal start
        batch: list[Numbered] = []
        start = lines.number + 1
        for number, found in enumerate(_records(lines, delimiter, shape), 1):
            if isinstance(found, str):
                refuse_line(number, found)
            else:
                batch.append(Numbered(number, pick(found)))
                if len(batch) == BATCH_ROWS:
                    yield batch
                    batch = []
            start = lines.number + 1
        if batch:
            yield batch

    notes = list(header.notes)
    if above:
        notes.append(f"the names of its columns were found in line {header_ends}")
    return Table(columns, batches(), "; ".join(notes) or None)


def _read_from(
    file: Path, mapping: Mapping, names: list[str]
) -> tuple[tuple[str, ...], _Shape, Callable[[list[str]], Row]]:
    """Columns of a table, the shape of the file's rows, and what makes a row of the table of one.

    Raises:
        FileError: a column stands in the file twice.
        MappingError: it lacks one that the mapping needs.
    """
    inner = _inner_columns(mapping, names)
    _check(mapping, _reachable(mapping, names))
    columns = tuple(name for name in mapping.columns if name in names or name in inner)
    read_from = [inner.get(name, name) for name in columns]
    for name in dict.fromkeys(read_from):
        if names.count(name) > 1:
            raise FileError(f"{file}: has {names.count(name)} columns {name!r}; rename one")
    places = [names.index(name) for name in read_from]
    needed = [
        place for place, name in zip(places, columns, strict=True) if name not in mapping.optional
    ]
    shape = _Shape(len(names), 1 + max(needed, default=0))
    pick: Callable[[list[str]], Row] = (
        itemgetter(*places) if len(places) > 1 else lambda row: [row[places[0]]]
    )
    if inner:
        pick = partial(_reaching, pick, columns, read_from, mapping.number_columns)
    return columns, shape, pick


def _inner_columns(mapping: Mapping, names: Sequence[str]) -> dict[str, str]:
    """Columns of a mapping that are paths into JSON, which another column holds; with that column each."""
    found = {}
    for name in mapping.columns:
        outer = [name[:place] for place, sign in enumerate(name) if sign == "."]
        holding = [one for one in outer if one in names]
        if name not in names and holding:
            found[name] = holding[-1]
    return found


def _reachable(mapping: Mapping, names: Sequence[str]) -> list[str]:
    """Columns of a table, and those of the mapping that are in the JSON of one."""
    return [*names, *_inner_columns(mapping, names)]


def _reaching(
    pick: Callable[[list[str]], Row],
    columns: Sequence[str],
    outer: Sequence[str],
    numbers: Collection[str],
    row: list[str],
) -> Row:
    """A row, with what stands inside the JSON of its cells.

    Args:
        columns: of the row.
        outer: the column of the file that each is read from.
        numbers: columns of which numbers are read.
    """
    cells = list(pick(row))
    for place, name in enumerate(columns):
        cell = cells[place]
        if name != outer[place] and cell is not None:
            cells[place] = text_in(
                cell, name.removeprefix(outer[place] + ".").split("."), name in numbers
            )
    return cells


def _check(mapping: Mapping, names: list[str]) -> None:
    """Whether a table with these names has what the mapping needs.

    Raises:
        MappingError: it has not; tells what can be said of a file that begins with data.
    """
    try:
        mapping.check([name for name in names if name])
    except MappingError as error:
        if not any(map(_DATUM.fullmatch, names)):
            raise
        raise MappingError(
            f"{error}; if it has no line with the names of its columns, the mapping can say them: "
            'header = ["first", "second", ..]'
        ) from None


_DATUM = re.compile(r"[\d.,:/+\- ]*\d[\d.,:/+\- ]*")
"""A number or a date: no column is called so."""


class _Header(NamedTuple):
    """The names of the columns, in the mapping's spelling, and what to tell of them."""

    names: list[str]
    notes: list[str]


class _Shape(NamedTuple):
    """How many fields rows have, and how many of those at the least: Excel leaves out empty ones at the end."""

    width: int
    least: int


_NO_TEXT = "a byte that is no text"
_NO_END = "a quote is never closed"


_HEADER_WITHIN = 30
"""Rows that may stand above the names of the columns: a title, who exported it and when."""


def _records(
    lines: _Lines, delimiter: str, shape: _Shape | None = None
) -> Iterator[list[str] | str]:
    """Rows of this shape, or why lines are none. Empty rows are passed over.

    A row that is wrong costs its first line only: what looks like more of it is read again.
    """
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    while True:
        lines.of_row.clear()
        wrong = None
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            wrong = _in_words(str(error))
            reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
            row = []
        else:
            if not row or not (row[0].strip() or any(map(str.strip, row))):
                continue
            if shape is not None and len(row) != shape.width:
                wrong = _fit(row, shape, delimiter)
        if wrong is not None:
            lines.give_back(keep=1)
            again = None if shape is None else _read_again(lines.of_row[0], delimiter, shape)
            if again is None:
                yield wrong
                continue
            row = again
        if shape is not None:
            text = "".join(row)
            if not text.isascii() and not is_text(text):
                yield _NO_TEXT
                continue
            if '="' in text:
                row = [_without_formula(cell) for cell in row]
        yield row


def _without_formula(cell: str) -> str:
    """What a cell says that is a formula for a text, as programs write ids for Excel: ``="00123"``."""
    bare = cell.strip()
    is_formula = len(bare) > 2 and bare.startswith('="') and bare.endswith('"')
    return bare[2:-1].replace('""', '"') if is_formula else cell


def _in_words(error: str) -> str:
    if "expected after" in error:
        return "text behind a closing quote; a quote within quotes is written twice"
    return error.replace("unexpected end of data", _NO_END)


def _fit(row: list[str], shape: _Shape, delimiter: str) -> str | None:
    """Bring a row to its width, or say why it has none."""
    width = shape.width
    if len(row) > width:
        if any(map(str.strip, row[width:])):
            return (
                f"{len(row)} columns instead of {width}; a value with the delimiter {delimiter!r} or "
                "a quote in it must stand in quotes, and each column needs a name"
            )
        del row[width:]
    elif len(row) < shape.least:
        return (
            f"{len(row)} columns instead of {width}; the line ends early, or a value with a line "
            "end in it does not stand in quotes"
        )
    else:
        row += [""] * (width - len(row))
    return None


def _read_again(line: str, delimiter: str, shape: _Shape) -> list[str] | None:
    """A line by the two other customs for quotes, if it has the right width then; else None.

    Amazon and many databases write quotes as they are between tabs; MySQL sets a backslash before.
    """
    if delimiter == "\t" and len(row := line.rstrip("\r\n").split("\t")) == shape.width:
        return row
    if '\\"' in line:
        reader = csv.reader(
            [line], delimiter=delimiter, escapechar="\\", doublequote=False, strict=True
        )
        try:
            row = next(reader)
        except csv.Error:
            return None
        return row if len(row) == shape.width else None
    return None


def _find_header(
    lines: _Lines, delimiter: str | None, mapping: Mapping
) -> tuple[str, _Header | str]:
    """The delimiter, and the names in the first row that has what the mapping looks for.

    If no row has all of it, the one counts that has most of it; a text says why that is none.
    """
    if mapping.header:
        sign = delimiter or _delimiter_of_width(lines, len(mapping.header))
        first = next(_records(lines, sign), "")
        lines.give_back()
        names = [] if isinstance(first, str) else _header(first, mapping.columns).names
        if len(names) == len(mapping.header) and not mapping.fits(_reachable(mapping, names)):
            return sign, _Header(list(mapping.header), [])
    wanted = set(mapping.columns)
    best: tuple[str, _Header | str] | None = None
    most = 0
    for above in range(_HEADER_WITHIN):
        sign = delimiter or _find_delimiter(lines, mapping)
        row = next(_records(lines, sign), None)
        if row is None:
            break
        header = row if isinstance(row, str) else _header(row, mapping.columns)
        names = [] if isinstance(header, str) else [name for name in header.names if name]
        found = len(wanted.intersection(_reachable(mapping, names)))
        if best is None or found > most:
            best, most = (sign, header), found
        if isinstance(header, _Header) and mapping.fits(_reachable(mapping, names)):
            lines.above = above
            return sign, header
    return best or (delimiter or ",", "")


def _header(row: list[str], wanted: Sequence[str]) -> _Header:
    """The names in a row. One that differs from a wanted one only in case is that one, unless it is not alone."""
    # A byte order mark stands twice where a program has set one before another's.
    names = [name.strip().strip("\ufeff\u200b").strip() for name in row]
    notes = []
    for name in wanted:
        if name not in names:
            alike = [n for n in names if n.casefold() == name.casefold() and n not in wanted]
            if len(alike) == 1:
                names[names.index(alike[0])] = name
                notes.append(f"its column {alike[0]!r} was taken for {name!r}")
    return _Header(names, notes)


def _delimiter_of_width(lines: _Lines, width: int) -> str:
    """The delimiter by which the next row has this many columns, or about as many."""

    def distance(delimiter: str) -> int:
        row = next(_records(lines, delimiter), "")
        lines.give_back()
        return abs(width - (1 if isinstance(row, str) else len(row)))

    # Of two that fit alike the tab: it stands in no value.
    return min("\t" + _DELIMITERS, key=distance)


def _find_delimiter(lines: _Lines, mapping: Mapping) -> str:
    """The delimiter by which the next row has most of the columns that the mapping looks at."""
    wanted = set(mapping.columns)

    def fit(delimiter: str) -> tuple[int, int]:
        header = next(_records(lines, delimiter), "")
        lines.give_back()
        names = [] if isinstance(header, str) else _header(header, mapping.columns).names
        return len(wanted.intersection(_reachable(mapping, names))), len(names)

    return max(_DELIMITERS, key=fit)
