"""Reads tables from files, and brings their events into the order of their times.

Comes in: CSV, JSON Lines or Parquet, gzipped or not. Goes out: rows of text, to be mapped, and
then the mapped events, sorted; `replay` sends them. DuckDB reads Parquet and sorts, so that a file
may be larger than memory. Nothing is guessed about types: every value is text until a mapping says
more.
"""

from __future__ import annotations

import csv
import json
import tempfile
from array import array
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import msgspec
import numpy as np

from producers.mapping import (
    BAD_CURRENCY,
    BAD_TIME,
    OUTLIER_TIME,
    UNREADABLE,
    Event,
    Mapping,
    MappingError,
    Refusal,
    Row,
    RowMapper,
)
from producers.texts import (
    FileError,
    advice,
    is_gzipped,
    is_text,
    is_utf8_after_all,
    open_bytes,
    open_lines,
    open_utf8_lines,
)
from stream.config import PLACEHOLDER_IDS
from stream.events import NativeLine, NoEvent
from stream.times import LATEST_MS
from stream.units import DAY_MS, iso

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from types import TracebackType

__all__ = ["EventSorter", "FileError", "Source", "open_table", "read_sources", "stage", "stem"]

BATCH_ROWS = 20_000
"""Rows in Python at once: large enough that calls do not count, a few megabytes."""
_MEMORY = "1GB"
"""What sorting may take before it goes to disk; a broker and a store may run beside it."""

_KINDS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_WORKBOOKS = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".numbers")
_AS_CSV = "open it and save the sheet as CSV (in Excel: Save As, CSV UTF-8)"

Refuse = Callable[[Refusal], None]
ReadNative = Callable[[Sequence[bytes]], Sequence[NativeLine | NoEvent]]
"""Reads lines that are messages; the worker's parser does, see `consumers.native`."""


class Source(NamedTuple):
    """A file and how it is read."""

    file: Path
    mapping: Mapping


class Numbered(NamedTuple):
    """A row and its number in the file, from 1."""

    number: int
    row: Row


class Table(NamedTuple):
    """An open table: the columns of its rows, the rows in the order of the file, and what to tell."""

    columns: tuple[str, ...]
    batches: Iterator[list[Numbered]]
    note: str | None = None


def stem(file: Path) -> str:
    """The file's name without folder and suffixes: ``orders`` of ``data/orders.csv.gz``."""
    return _unpacked(file).stem


def _unpacked(file: Path) -> Path:
    return Path(file.stem if is_gzipped(file) else file.name)


def kind_of_file(file: Path) -> str:
    """``csv``, ``jsonl`` or ``parquet``, by the name.

    Raises:
        FileError: the file does not exist, or its name says nothing.
    """
    if not file.is_file():
        raise FileError(f"{file}: {'this is a folder' if file.is_dir() else 'no such file'}")
    suffix = _unpacked(file).suffix.lower()
    if suffix in _WORKBOOKS:
        raise FileError(f"{file}: this is a workbook, which is not read; {_AS_CSV}")
    kind = _KINDS.get(suffix)
    if kind is None:
        raise FileError(
            f"{file}: cannot tell what this is; expected a name that ends in .csv, .tsv, .jsonl, "
            ".ndjson or .parquet, each with .gz or without"
        )
    return kind


@contextmanager
def open_table(file: Path, mapping: Mapping, refuse: Refuse) -> Iterator[Table]:
    """Open a file for the columns a mapping looks at.

    Args:
        file: the file.
        mapping: names the columns, and how CSV is written.
        refuse: is told of lines that are no rows.

    Raises:
        FileError: the file cannot be read. While rows are drawn too.
        MappingError: the file lacks a column that the mapping needs.
    """
    match kind_of_file(file):
        case "jsonl":
            yield Table(mapping.columns, _json_lines(file, mapping, refuse))
        case kind if mapping.each is not None:
            raise MappingError(f"mapping {mapping.name}: each is for JSON, and {file} is {kind}")
        case "csv":
            with open_bytes(file) as start:
                if start.read(4) == b"PK\x03\x04":
                    raise FileError(f"{file}: this is a workbook or a ZIP, not CSV; {_AS_CSV}")
            with open_lines(file, mapping.encoding) as lines:
                yield _csv(file, lines, mapping, refuse)
        case _:
            with _database() as database, _plain(file) as plain, _explained(file):
                yield _parquet(database, plain, mapping)


# -- CSV ---------------------------------------------------------------------------------------

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


def _csv(file: Path, stream: Iterator[str], mapping: Mapping, refuse: Refuse) -> Table:
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
    names, header_ends = header, lines.number
    above = lines.above
    if not is_text("".join(names)):
        raise FileError(
            f"{file}: the names of its columns are not in {mapping.encoding}{advice(file)}"
        )
    mapping.check([name for name in names if name])
    columns = tuple(name for name in mapping.columns if name in names)
    for name in columns:
        if names.count(name) > 1:
            raise FileError(f"{file}: has {names.count(name)} columns {name!r}; rename one")
    places = [names.index(name) for name in columns]
    needed = [names.index(name) for name in columns if name not in mapping.optional]
    shape = _Shape(len(names), 1 + max(needed, default=0))
    pick: Callable[[list[str]], Row] = (
        itemgetter(*places) if len(places) > 1 else lambda row: [row[places[0]]]
    )
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

    note = f"the names of its columns were found in line {header_ends}" if above else None
    return Table(columns, batches(), note)


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
        if shape is not None and not (text := "".join(row)).isascii() and not is_text(text):
            yield _NO_TEXT
            continue
        yield row


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
) -> tuple[str, list[str] | str]:
    """The delimiter, and the names in the first row that has what the mapping looks for.

    If no row has all of it, the one counts that has most of it; a text says why that is none.
    """
    wanted = set(mapping.columns)
    best: tuple[str, list[str] | str] | None = None
    most = 0
    for above in range(_HEADER_WITHIN):
        sign = delimiter or _find_delimiter(lines, mapping)
        row = next(_records(lines, sign), None)
        if row is None:
            break
        header = row if isinstance(row, str) else [name.strip() for name in row]
        found = 0 if isinstance(header, str) else len(wanted.intersection(header))
        if best is None or found > most:
            best, most = (sign, header), found
        if not isinstance(header, str) and mapping.fits([name for name in header if name]):
            lines.above = above
            return sign, header
    return best or (delimiter or ",", "")


def _find_delimiter(lines: _Lines, mapping: Mapping) -> str:
    """The delimiter by which the next row has most of the columns that the mapping looks at."""
    wanted = set(mapping.columns)

    def fit(delimiter: str) -> tuple[int, int]:
        header = next(_records(lines, delimiter), "")
        lines.give_back()
        names = [] if isinstance(header, str) else [name.strip() for name in header]
        return len(wanted.intersection(names)), len(names)

    return max(_DELIMITERS, key=fit)


# -- Parquet -----------------------------------------------------------------------------------


def _parquet(database: Any, file: Path, mapping: Mapping) -> Table:
    source, values = "read_parquet($file)", {"file": _literal(file)}
    # A time with a zone is written as text in the zone of the session.
    database.execute("SET TimeZone = 'UTC'")
    available = _columns(database, f"SELECT * FROM {source}", values)  # noqa: S608 - fixed
    found = {name: place for name in mapping.columns if (place := _place(name, available))}
    mapping.check({*available, *found})
    selected = ", ".join(f"{place} AS c{n}" for n, place in enumerate(found.values()))
    types = _columns(database, f"SELECT {selected} FROM {source}", values)  # noqa: S608 - quoted
    texts = [
        _text_of(place, kind, is_number=name in mapping.number_columns)
        for (name, place), kind in zip(found.items(), types.values(), strict=True)
    ]
    query = f"SELECT {', '.join(texts)} FROM {source}"  # noqa: S608 - quoted
    return Table(tuple(found), _rows(database, file, query, values))


def _text_of(place: str, kind: str, *, is_number: bool) -> str:
    """The SQL of a column as text: a number that leaves no doubt, an id without its fraction."""
    text = f"CAST({place} AS VARCHAR)"
    if kind not in ("DOUBLE", "FLOAT") and not kind.startswith("DECIMAL"):
        return text
    if is_number:
        return f"CASE WHEN contains({text}, '.') AND NOT contains({text}, 'e') THEN {text} || 'e0' ELSE {text} END"
    whole = f"{place} = floor({place}) AND abs({place}) < {1 << 53}"
    return f"CASE WHEN {whole} THEN CAST(CAST({place} AS BIGINT) AS VARCHAR) ELSE {text} END"


def _place(name: str, available: dict[str, str]) -> str | None:
    """The SQL of a column, or of a field of a nested one (`a.b`); None if there is none."""
    if name in available:
        return _quoted(name)
    outer, dot, inner = name.partition(".")
    kind = available.get(outer, "")
    first = inner.split(".")[0]
    is_struct = kind.startswith("STRUCT") and not kind.endswith("]")
    if dot and is_struct and first.lower() in kind.lower():
        return ".".join(_quoted(part) for part in name.split("."))
    return None


def _columns(database: Any, query: str, values: dict[str, str]) -> dict[str, str]:
    """Name and type of each column."""
    rows = database.execute(f"DESCRIBE {query}", values).fetchall()
    return {row[0]: row[1] for row in rows}


def _rows(
    database: Any, file: Path, query: str, values: dict[str, str]
) -> Iterator[list[Numbered]]:
    with _explained(file):
        answer = database.execute(query, values)
        number = 0
        while rows := answer.fetchmany(BATCH_ROWS):
            yield [Numbered(number + index, row) for index, row in enumerate(rows, 1)]
            number += len(rows)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(file: Path) -> str:
    """A path that DuckDB does not take for a pattern of many files."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in str(file))


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    import duckdb  # noqa: PLC0415 - an extra

    try:
        yield
    except duckdb.Error as error:
        first = str(error).strip().splitlines()[0]
        raise FileError(f"{file}: cannot be read: {first}") from None


@contextmanager
def _plain(file: Path) -> Iterator[Path]:
    """A gzipped file unpacked beside nothing of the user's; others as they are."""
    if not is_gzipped(file):
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="segstream-") as folder:
        plain = Path(folder) / "table"
        with plain.open("wb") as out, open_bytes(file) as packed:
            while block := packed.read(1 << 20):
                out.write(block)
        yield plain


@contextmanager
def _database(folder: str | None = None) -> Iterator[Any]:
    try:
        import duckdb  # noqa: PLC0415 - an extra
    except ImportError:
        raise FileError("reading files needs DuckDB: pip install 'segstream[files]'") from None
    database = duckdb.connect(":memory:" if folder is None else f"{folder}/events.duckdb")
    try:
        database.execute(f"SET memory_limit = '{_MEMORY}'")
        database.execute("SET enable_progress_bar = false")
        yield database
    finally:
        database.close()


# -- JSON Lines --------------------------------------------------------------------------------


def _json_lines(file: Path, mapping: Mapping, refuse: Refuse) -> Iterator[list[Numbered]]:
    paths = [(name, name.split(".")) for name in mapping.columns]
    seen: set[str] = set()
    others: set[str] = set()
    lists: list[str] = []
    batch: list[Numbered] = []
    numbers = mapping.number_columns
    with open_utf8_lines(file, mapping.encoding) as lines:
        objects = _objects(file, lines, mapping, refuse)
        if mapping.each is not None:
            objects = _entries(objects, mapping.each)
        for number, content in objects:
            try:
                row = [_reach(content, name, path, name in numbers) for name, path in paths]
            except (ValueError, RecursionError) as error:  # nothing that can be written as text
                refuse(Refusal(number, UNREADABLE, f"line {number}: {error}", {}))
                continue
            if len(seen) < len(paths):
                seen.update(name for (name, _), text in zip(paths, row, strict=True) if text)
                if len(others) < 50:  # only shown in a message
                    others.update(content)
                    lists = lists or [
                        key for key, found in content.items() if _is_of_objects(found)
                    ]
            batch.append(Numbered(number, row))
            if len(batch) == BATCH_ROWS:
                yield batch
                batch = []
    if batch:
        yield batch
    # Only now is it known that a column is nowhere; nothing has been sent yet.
    if seen or others:
        try:
            mapping.check(seen | others)
        except MappingError as error:
            raise MappingError(f"{error}{_list_advice(lists)}") from None


def _list_advice(lists: Sequence[str]) -> str:
    if not lists:
        return ""
    return (
        f'; {lists[0]!r} is a list of objects: the mapping can say each = "{lists[0]}", and '
        f'"{lists[0]}.x" for the x of its entries'
    )


def _objects(
    file: Path, lines: Iterator[bytes], mapping: Mapping, refuse: Refuse
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file and their numbers: one a line, in one array, or one after another."""
    encoding_advice: list[str] = []
    whole, numbered = _numbered(lines)
    if whole is not None:
        try:
            found = msgspec.json.decode(whole)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            found = None
        if isinstance(found, list):
            yield from _objects_of_array(found, refuse)
            return
        numbered = _values(file, whole)
    what = "line" if whole is None else "entry"
    for number, line in numbered:
        try:
            content = _decoded(line)
        except UnicodeDecodeError as error:
            if not encoding_advice:
                encoding_advice.append(advice(file))
            why = f"{what} {number}: not in {mapping.encoding}: {error}{encoding_advice[0]}"
            refuse(Refusal(number, UNREADABLE, why, {}))
        except (ValueError, RecursionError) as error:
            refuse(Refusal(number, UNREADABLE, f"{what} {number}: {error}", {}))
        else:
            if isinstance(content, dict):
                yield number, content
            else:
                refuse(Refusal(number, UNREADABLE, f"{what} {number}: no JSON object", {}))


_decode = msgspec.json.Decoder().decode


def _decoded(line: bytes) -> Any:
    """A value, as Python writes it too: with NaN for nothing. Lines of an array end in a comma."""
    try:
        return _decode(line)
    except msgspec.DecodeError:
        bare = line.strip().removesuffix(b",")
        if b"NaN" in bare or b"Infinity" in bare:
            return json.loads(bare, parse_constant=lambda _: None)
        if bare.endswith(b"}") and len(bare) < len(line.strip()):
            return _decode(bare)
        raise


def _numbered(lines: Iterator[bytes]) -> tuple[bytes | None, Iterator[tuple[int, bytes]]]:
    """Lines that are filled, with their numbers from 1; or all as one, if values run over several."""
    numbered = ((n, line) for n, line in enumerate(lines, 1) if not line.isspace())
    first = next(numbered, None)
    if first is None:
        return None, numbered
    bare = first[1].strip()
    if bare.startswith(b"["):
        return b"".join([first[1], *(line for _, line in numbered)]), iter(())
    if not bare.startswith(b"{") or bare.endswith((b"}", b"},")):
        return None, chain([first], numbered)
    second = next(numbered, None)
    if second is not None and second[1].lstrip().startswith(b"{"):
        return None, chain([first, second], numbered)  # a broken line, and the next one
    following = [] if second is None else [second[1]]
    return b"".join([first[1], *following, *(line for _, line in numbered)]), iter(())


def _is_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _entries(
    objects: Iterator[tuple[int, dict[str, Any]]], each: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """For each entry of a list in each object the object, with the entry in the list's place."""
    number = 0
    for _, content in objects:
        entries = content.get(each)
        for entry in entries if isinstance(entries, list) else ():
            number += 1
            yield number, content | {each: entry}


def _objects_of_array(found: list[Any], refuse: Refuse) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, content in enumerate(found, 1):
        if isinstance(content, dict):
            yield number, content
        else:
            refuse(Refusal(number, UNREADABLE, f"entry {number}: no JSON object", {}))


def _reach(content: dict[str, Any], name: str, path: Sequence[str], is_number: bool) -> str | None:
    """The value under a name, or inside objects along a dotted path, as text."""
    value = content.get(name)
    if value is None and len(path) > 1:
        value = content
        for part in path:
            if isinstance(value, dict):
                value = value.get(part)
            elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
                value = value[int(part)]
            else:
                return None
    if value is None or isinstance(value, str):
        return value
    text = json.dumps(value)
    # A number that is one leaves no doubt about its decimal sign.
    return text + "e0" if is_number and isinstance(value, float) and "e" not in text else text


_BLANKS = frozenset(" \t\r\n")


# -- into order --------------------------------------------------------------------------------

_STAGED = (
    ("time_ms", "BIGINT", np.int64),
    ("row", "BIGINT", np.int64),
    ("user", "VARCHAR", object),
    ("event", "VARCHAR", object),
    ("order", "VARCHAR", object),
    ("id", "VARCHAR", object),
    ("category", "VARCHAR", object),
    ("session", "VARCHAR", object),
    ("quantity", "DOUBLE", np.float64),
    ("price", "DOUBLE", np.float64),
    ("amount", "DOUBLE", np.float64),
    ("worth", "DOUBLE", np.float64),
    ("currency", "VARCHAR", object),
    ("refunded", "BOOLEAN", np.bool_),
    ("refund_amount", "DOUBLE", np.float64),
    ("refund_ms", "BIGINT", np.int64),
    ("names_order", "BOOLEAN", np.bool_),
    ("part", "BIGINT", np.int64),
    ("file", "BIGINT", np.int64),
    ("raw", "VARCHAR", object),
)
_NAMES = ", ".join(_quoted(name) for name in Event._fields)

# Sums in row order: floating point addition depends on order, and a replay must not.
_WHOLE = f"""
CREATE TABLE whole AS
SELECT {_NAMES}, 1 AS currencies, order_rows, 1 AS amounts, false AS alike
FROM staged WHERE "order" IS NULL
UNION ALL
SELECT min(time_ms), min("row"), "user", event, "order", arg_min(id, "row"),
  arg_min(category, "row"), arg_min(session, "row"),
  CASE order_rows WHEN 'repeats' THEN arg_min(quantity, "row") ELSE sum(quantity ORDER BY "row") END,
  min(price),
  CASE order_rows WHEN 'lines' THEN sum(amount ORDER BY "row") ELSE arg_min(amount, "row") END,
  CASE order_rows WHEN 'repeats' THEN arg_min(worth, "row") ELSE sum(worth ORDER BY "row") END,
  arg_min(currency, "row"), bool_or(refunded), arg_min(refund_amount, "row"),
  arg_min(refund_ms, "row"), bool_and(names_order), 0, file, NULL,
  count(DISTINCT currency), order_rows, count(amount),
  count(amount) = count(*) AND min(amount) = max(amount)
FROM staged WHERE "order" IS NOT NULL GROUP BY file, order_rows, "user", "order", event
"""  # noqa: S608 - names of our own

_MONEY = "coalesce(amount, worth)"

# Lines without an amount, of an order whose total is in another file.
_SAME_ORDER = (
    'total."user" = further."user" AND total."order" = further."order" AND '
    "total.event = further.event AND total.order_rows = 'total' AND total.amounts > 0"
)
_FURTHER_LINES = f"""
CREATE TABLE further AS SELECT * FROM whole AS further
WHERE order_rows = 'total' AND amounts = 0 AND EXISTS (SELECT 1 FROM whole AS total WHERE {_SAME_ORDER})
"""  # noqa: S608 - names of our own
_ADD_FURTHER_LINES = f"""
UPDATE whole AS total SET quantity = coalesce(total.quantity, 0) + further.pieces
FROM (
  SELECT "user", "order", event, sum(quantity) AS pieces FROM further GROUP BY ALL
) AS further WHERE {_SAME_ORDER}
"""  # noqa: S608 - names of our own
_TOLD_DIFFERENTLY = f"""
SELECT count(*) FROM (
  SELECT 1 FROM whole WHERE "order" IS NOT NULL AND event = 'Order Completed'
  GROUP BY "user", "order" HAVING count(DISTINCT file) > 1 AND count(DISTINCT {_MONEY}) > 1
)
"""  # noqa: S608 - names of our own
_SORTED = f"""
CREATE TABLE sorted AS
SELECT * FROM (
  SELECT time_ms, "row", "user", event, "order", id, category, session, quantity, price,
    {_MONEY} AS amount, NULL::DOUBLE AS worth, currency, refunded, refund_amount, refund_ms,
    names_order, part, file, raw
  FROM whole WHERE currencies <= 1
  UNION ALL
  SELECT coalesce(refund_ms, time_ms), "row", "user", 'Order Refunded', "order", id, category,
    session, CASE WHEN refund_amount IS NULL THEN quantity END, NULL,
    coalesce(refund_amount, {_MONEY}), NULL, currency, false, NULL, NULL, true, 1, file, NULL
  FROM whole WHERE currencies <= 1 AND refunded
) ORDER BY time_ms, file, "row", part
"""  # noqa: S608 - names of our own

_FEWEST_BESIDE_OUTLIERS = 20
"""Of fewer events nobody can say which of them stand apart."""
_OUTLIER_SHARE = 1_000
"""One in so many may be an outlier, at either end, and one in any case."""
_OUTLIER_GAP_MS = 180 * DAY_MS
"""Outliers are further than this from all others, and further than these from each other."""


class EventSorter:
    """Takes events in any order, gives them back by time; ties keep the order of the file.

    Rows of one user, one order and one event come out as one event: time, row, id, category and
    session of the first row, quantity and amount as `Mapping.order_rows` says. An order that was
    given back afterwards is followed by its refund. Lives in a temporary file.

    Attributes:
        notes: what to tell of the events, after `sort`.
    """

    def __enter__(self) -> Self:
        self.notes: list[str] = []
        self._folder = tempfile.TemporaryDirectory(prefix="segstream-")
        self._open = _database(self._folder.name)
        self._database = self._open.__enter__()
        columns = ", ".join(f"{_quoted(name)} {kind}" for name, kind, _ in _STAGED)
        self._database.execute(f"CREATE TABLE staged ({columns}, order_rows VARCHAR)")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.__exit__(None, None, None)
        self._folder.cleanup()

    def add(self, events: Sequence[Event], order_rows: str = "lines") -> None:
        if not events:
            return
        columns = zip(_STAGED, zip(*events, strict=True), strict=True)
        batch = {name: _column(values, kind) for (name, _, kind), values in columns}
        self._database.register("batch", batch)
        self._database.execute(
            f"INSERT INTO staged SELECT {_NAMES}, $rows FROM batch",  # noqa: S608
            {"rows": order_rows},
        )
        self._database.unregister("batch")

    def sort(
        self, refuse: Callable[[Event, str, str], None] | None = None, *, keep_outliers: bool = True
    ) -> int:
        """Bring everything into order; returns how many events there are.

        Args:
            refuse: is told of events that are left out, with a reason and why: orders in two
                currencies, and outliers in time.
            keep_outliers: whether the latter stay in.
        """
        run = self._database.execute
        run(_WHOLE)
        run("DROP TABLE staged")
        for row in run(f"SELECT {_NAMES} FROM whole WHERE currencies > 1").fetchall():  # noqa: S608
            if refuse is not None:
                refuse(Event(*row), BAD_CURRENCY, "the rows of the order are in two currencies")
        self._join_what_files_split()
        self._look_for_totals()
        self._look_for_lost_orders()
        self._look_for_letter_cases()
        run(_SORTED)
        run("DROP TABLE whole")
        if refuse is not None and not keep_outliers:
            self._leave_out_outliers(refuse)
        return self.count

    @property
    def count(self) -> int:
        """How many events there are, after `sort`."""
        return int(self._database.execute("SELECT count(*) FROM sorted").fetchone()[0])

    def names(self) -> Counter[str]:
        """How many events of each name there are, after `sort`."""
        return Counter(
            dict(self._database.execute("SELECT event, count(*) FROM sorted GROUP BY 1").fetchall())
        )

    def before(self, time_ms: int) -> int:
        """How many events there are before a time, after `sort`."""
        query = "SELECT count(*) FROM sorted WHERE time_ms < $time_ms"
        return int(self._database.execute(query, {"time_ms": time_ms}).fetchone()[0])

    def batches(self, from_ms: int = 0) -> Iterator[list[Event]]:
        """The events in order, after `sort`, from a time on."""
        answer = self._database.cursor().execute(
            "SELECT * FROM sorted WHERE time_ms >= $from_ms", {"from_ms": from_ms}
        )
        while rows := answer.fetchmany(BATCH_ROWS):
            yield [Event(*row) for row in rows]

    def _join_what_files_split(self) -> None:
        """Tell of orders in several files, of which the last counts as a correction.

        Further lines of an order whose total stands in the file before are no correction: an export
        was cut in two there.
        """
        run = self._database.execute
        if not run("SELECT max(file) FROM whole").fetchone()[0]:
            return
        run(_FURTHER_LINES)
        run(_ADD_FURTHER_LINES)
        run(
            "DELETE FROM whole USING further "
            'WHERE whole.file = further.file AND whole."row" = further."row"'
        )
        run("DROP TABLE further")
        (several,) = run(_TOLD_DIFFERENTLY).fetchone()
        if several:
            self.notes.append(
                f"{several:,} orders are in several files with different amounts, and the last one "
                "counts; if their rows were divided among the files, make one file of them"
            )

    def _look_for_totals(self) -> None:
        """Tell of orders whose rows all say one amount: it may have been the whole order's."""
        several, alike = self._database.execute(
            "SELECT count(*), count(*) FILTER (WHERE alike) FROM whole "
            "WHERE order_rows = 'lines' AND amounts > 1"
        ).fetchone()
        if alike >= 3 and alike > 0.9 * several:
            self.notes.append(
                f"{alike:,} of {several:,} orders of several rows say the same amount in each, and it "
                'was added up; if it is the whole order\'s, the mapping can say order_rows = "total"'
            )

    def _look_for_lost_orders(self) -> None:
        """Tell of refunds whose order is not in the files: their rows may be orders themselves."""
        (lost,) = self._database.execute(
            "SELECT count(*) FROM whole WHERE event = 'Order Refunded' AND \"order\" IS NOT NULL "
            "AND names_order AND NOT EXISTS (SELECT 1 FROM whole AS other WHERE "
            'other.event = \'Order Completed\' AND other."order" = whole."order")'
        ).fetchone()
        if lost:
            self.notes.append(
                f"{lost:,} refunds are of orders that are not in the files; if those rows are orders "
                "that were given back later, tell them by the mapping's key refund instead of a rule; "
                'if the refund has a number of its own, by refund_numbers = "own"'
            )

    def _look_for_letter_cases(self) -> None:
        """Tell of addresses that are one person's, most likely, and two users."""
        found = self._database.execute(
            'SELECT count(*), min(first), min(last) FROM (SELECT min("user") AS first, '
            'max("user") AS last FROM whole WHERE contains("user", \'@\') '
            'GROUP BY lower("user") HAVING first <> last)'
        ).fetchone()
        if found[0]:
            self.notes.append(
                f"{found[0]:,} addresses are written in several ways, such as {found[1]!r} and "
                f"{found[2]!r}: these are different users here; write them alike in the file"
            )

    def _leave_out_outliers(self, refuse: Callable[[Event, str, str], None]) -> None:
        run = self._database.execute
        count = self.count
        most = max(1, count // _OUTLIER_SHARE)
        if count < 2 * most + _FEWEST_BESIDE_OUTLIERS:
            return

        def ends(direction: str) -> list[int]:
            query = f"SELECT time_ms FROM sorted ORDER BY time_ms {direction} LIMIT {most + 1}"  # noqa: S608
            return [row[0] for row in run(query).fetchall()]

        first, last = ends("ASC"), ends("DESC")
        gap_ms = max(_OUTLIER_GAP_MS, last[most] - first[most])
        apart = range(most, 0, -1)
        low = next((first[n] for n in apart if first[n] - first[n - 1] > gap_ms), first[0])
        high = next((last[n] for n in apart if last[n - 1] - last[n] > gap_ms), last[0])
        values = {"low": low, "high": high}
        outside = "WHERE time_ms < $low OR time_ms > $high"
        why = (
            f"is over {gap_ms // DAY_MS:,} days away from all others, which are from {iso(low)[:10]} "
            f"to {iso(high)[:10]}; --keep-outliers keeps it"
        )
        for row in run(f"SELECT * FROM sorted {outside}", values).fetchall():  # noqa: S608
            event = Event(*row)
            refuse(event, OUTLIER_TIME, f"{iso(event.time_ms)} {why}")
        run(f"DELETE FROM sorted {outside}", values)  # noqa: S608


def _column(values: Sequence[Any], kind: Any) -> Any:
    """An array for DuckDB; what is absent is masked, because NaN would be a value."""
    if kind is object:
        return np.array(values, dtype=kind)
    if kind is np.float64:
        numbers = np.array(values, dtype=kind)  # with NaN for None; no mapping lets another pass
        return np.ma.masked_array(numbers, mask=np.isnan(numbers))
    if None not in values:
        return np.array(values, dtype=kind)
    absent = [value is None for value in values]
    filled = [0 if value is None else value for value in values]
    return np.ma.masked_array(np.array(filled, dtype=kind), mask=absent)


def stage(
    file: Path,
    mapping: Mapping,
    sorter: EventSorter,
    refuse: Refuse,
    read: Callable[[int], None] | None = None,
    *,
    latest_ms: int = LATEST_MS,
    placeholders: Collection[str] = PLACEHOLDER_IDS,
    place: int = 0,
    native: ReadNative | None = None,
) -> int:
    """Map every row of a file into a sorter.

    A file is read twice if a number can mean two and other rows may tell which.

    Args:
        file: the file.
        mapping: how.
        sorter: takes the events, and notes of what they were read from.
        refuse: is told of each row that becomes no event.
        read: is told now and then how many rows have been read.
        latest_ms: later times have not come yet.
        placeholders: ids that name nobody and no order, whatever their case.
        place: of the file, among those that go into the sorter.
        native: reads lines that are messages, where the mapping says that they are.

    Returns:
        Rows of the file, refused ones among them.

    Raises:
        FileError: the file cannot be read.
        MappingError: the file lacks a column that the mapping needs.
    """
    unreadable = 0

    def refuse_row(refusal: Refusal) -> None:
        refuse(refusal._replace(file=file.name))

    if native is not None and mapping.native and kind_of_file(file) == "jsonl":
        return _stage_native(file, mapping, native, sorter, refuse_row, read, latest_ms, place)

    def refuse_line(refusal: Refusal) -> None:
        nonlocal unreadable
        unreadable += 1
        refuse_row(refusal)

    rows = 0
    undecided = array("q")
    with open_table(file, mapping, refuse_line) as table:
        mapper = RowMapper(mapping, table.columns, latest_ms, placeholders)
        for batch in table.batches:
            events: list[Event] = []
            for number, row in batch:
                mapped = mapper.try_map(number, row)
                if isinstance(mapped, Event):
                    events.append(mapped if place == 0 else mapped._replace(file=place))
                elif mapped is None:
                    undecided.append(number)
                else:
                    refuse_row(mapped)
            sorter.add(events, mapping.order_rows)
            rows += len(batch)
            if read is not None:
                read(rows)
    notes = [] if table.note is None else [table.note]
    notes += mapper.notes()
    if kind_of_file(file) != "parquet" and is_utf8_after_all(file, mapping.encoding):
        notes.append(f"is UTF-8, but was read as the mapping says: encoding = {mapping.encoding!r}")
    sorter.notes += [f"{file.name}: {note}" for note in notes]
    if undecided:
        mapper.settle()
        with open_table(file, mapping, lambda _: None) as table:
            waiting = iter([*undecided, 0])
            next_number = next(waiting)
            for batch in table.batches:
                events = []
                for number, row in batch:
                    mapped = mapper.map(number, row)
                    if number != next_number:
                        continue  # mapped for what it says of the lines below
                    next_number = next(waiting)
                    if isinstance(mapped, Event):
                        events.append(mapped if place == 0 else mapped._replace(file=place))
                    else:
                        refuse_row(mapped)
                sorter.add(events, mapping.order_rows)
    return rows + unreadable


def _stage_native(
    file: Path,
    mapping: Mapping,
    native: ReadNative,
    sorter: EventSorter,
    refuse: Refuse,
    read: Callable[[int], None] | None,
    latest_ms: int,
    place: int,
) -> int:
    """The same of lines that are messages; they go into the sorter as they are."""
    rows = 0
    batch: list[tuple[int, bytes]] = []

    def settle() -> None:
        events: list[Event] = []
        found = native([line for _, line in batch])
        for (number, line), one in zip(batch, found, strict=True):
            if isinstance(one, NoEvent):
                refuse(Refusal(number, one.reason, f"line {number}: {one.why}", {}))
            elif one.time_ms > latest_ms:
                why = f"line {number}: {iso(one.time_ms)} has not come yet"
                refuse(Refusal(number, BAD_TIME, why, {"user": one.user}))
            else:
                events.append(_message_event(one, number, line.decode(), place))
        sorter.add(events, mapping.order_rows)
        batch.clear()

    with open_utf8_lines(file, mapping.encoding) as lines:
        for number, line in _messages(file, lines):
            batch.append((number, line))
            rows += 1
            if len(batch) == BATCH_ROWS:
                settle()
                if read is not None:
                    read(rows)
    settle()
    if read is not None:
        read(rows)
    return rows


def _messages(file: Path, lines: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """Messages and their numbers: one a line, in one array, or one after another."""
    whole, numbered = _numbered(lines)
    for number, message in numbered if whole is None else _values(file, whole):
        yield number, message.strip()


def _values(file: Path, content: bytes) -> Iterator[tuple[int, bytes]]:
    """The entries of an array, or values one after another, as they are written."""
    decode = json.JSONDecoder().raw_decode
    try:
        text = content.decode()
        place = _behind_blanks(text, 0)
        is_array = text[place] == "["
        place += is_array
        number = 0
        while (place := _behind_blanks(text, place)) < len(text):
            if is_array and text[place] == "]":
                return
            _, end = decode(text, place)
            number += 1
            yield number, text[place:end].encode()
            place = _behind_blanks(text, end)
            if text[place : place + 1] == ",":
                place += 1
            elif is_array and text[place : place + 1] != "]":
                raise ValueError(f"no comma behind entry {number}")
        if is_array:
            raise ValueError("the array does not end")
    except (ValueError, RecursionError) as error:
        raise FileError(f"{file}: is neither JSON Lines nor one JSON array: {error}") from None


def _behind_blanks(text: str, start: int) -> int:
    while text[start : start + 1] in _BLANKS:
        start += 1
    return start


def _message_event(line: NativeLine, number: int, message: str, place: int) -> Event:
    """An event whose message stands already."""
    return Event(
        line.time_ms, number, line.user, line.event, None, line.id, *(None,) * 5, file=place,
        raw=message.removeprefix("\ufeff"),
    )  # fmt: skip


def read_sources(
    sources: Sequence[Source],
    sorter: EventSorter,
    refuse: Refuse,
    read: Callable[[int], None] | None = None,
    *,
    latest_ms: int = LATEST_MS,
    placeholders: Collection[str] = PLACEHOLDER_IDS,
    keep_outliers: bool = False,
    native: ReadNative | None = None,
) -> tuple[int, int]:
    """Read files into a sorter, and bring their events into one order of time.

    Args:
        sources: the files; an event's `Event.file` is its place among them.
        sorter: gives the events back afterwards.
        refuse: is told of each row, and each order, that becomes no event.
        read: is told now and then how many rows have been read.
        latest_ms: later times have not come yet.
        placeholders: ids that name nobody and no order, whatever their case.
        keep_outliers: whether events far from all others stay in.
        native: see `stage`.

    Returns:
        Rows of all files, refused ones among them, and events.

    Raises:
        FileError: a file cannot be read, or two have the same name.
        MappingError: a file lacks a column that its mapping needs.
    """
    names = [stem(source.file) for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise FileError(
                f"two of the files are called {name}: ids of their messages would be the same; "
                "rename one"
            )
    rows = 0

    def told(done: int) -> None:
        if read is not None:
            read(rows + done)

    for place, (file, mapping) in enumerate(sources):
        rows += stage(
            file,
            mapping,
            sorter,
            refuse,
            told,
            latest_ms=latest_ms,
            placeholders=placeholders,
            place=place,
            native=native,
        )

    def refuse_event(event: Event, reason: str, why: str) -> None:
        shown = {"user": event.user, "order": event.order}
        refuse(Refusal(event.row, reason, why, shown, sources[event.file].file.name))

    return rows, sorter.sort(refuse_event, keep_outliers=keep_outliers)
