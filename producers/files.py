"""Reads tables from files, and brings their events into the order of their times.

Comes in: CSV, JSON Lines or Parquet, gzipped or not. Goes out: rows of text, to be mapped, and
then the mapped events, sorted; `replay` sends them. DuckDB reads and sorts, so that a file may be
larger than memory. Nothing is guessed about types: every value is text until a mapping says more.
"""

from __future__ import annotations

import gzip
import json
import tempfile
import zlib
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import msgspec
import numpy as np

from producers.mapping import UNREADABLE, Event, Mapping, Refusal, Row, RowMapper

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

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

Refuse = Callable[[Refusal], None]


class FileError(Exception):
    """A file that cannot be read; the message names the file and what is wrong with it."""


class Numbered(NamedTuple):
    """A row and its number in the file, from 1."""

    number: int
    row: Row


class Table(NamedTuple):
    """An open table: the columns of its rows, and the rows in the order of the file."""

    columns: tuple[str, ...]
    batches: Iterator[list[Numbered]]


def stem(file: Path) -> str:
    """The file's name without folder and suffixes: ``orders`` of ``data/orders.csv.gz``."""
    name = file.name.removesuffix(".gz")
    return Path(name).stem


def kind_of_file(file: Path) -> str:
    """``csv``, ``jsonl`` or ``parquet``, by the name.

    Raises:
        FileError: the file does not exist, or its name says nothing.
    """
    if not file.is_file():
        raise FileError(f"{file}: {'this is a folder' if file.is_dir() else 'no such file'}")
    kind = _KINDS.get(Path(file.name.removesuffix(".gz")).suffix.lower())
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
        case "csv":
            with _database() as database, _explained(file):
                yield _csv(database, file, mapping, refuse)
        case _:
            with _database() as database, _plain(file) as plain, _explained(file):
                yield _parquet(database, plain, mapping)


# -- CSV and Parquet ---------------------------------------------------------------------------


def _csv(database: Any, file: Path, mapping: Mapping, refuse: Refuse) -> Table:
    options = "all_varchar = true, header = true, store_rejects = true, encoding = $encoding"
    values = {"file": _literal(file), "encoding": mapping.encoding}
    if mapping.delimiter is not None:
        options += ", delim = $delimiter"
        values["delimiter"] = mapping.delimiter
    source = f"read_csv($file, {options})"

    def batches() -> Iterator[list[Numbered]]:
        yield from _rows(database, file, query, values)
        bad = database.execute(
            "SELECT line, min(error_message) FROM reject_errors GROUP BY line ORDER BY line"
        )
        while found := bad.fetchmany(BATCH_ROWS):
            for line, message in found:
                why = f"line {line}: {str(message).splitlines()[0]}"
                if "unicode" in why.lower():
                    why += ' The mapping can say encoding = "latin-1".'
                refuse(Refusal(line, UNREADABLE, why, {}))

    available = _columns(database, source, values)
    mapping.check(available)
    columns = tuple(name for name in mapping.columns if name in available)
    query = f"SELECT {', '.join(map(_quoted, columns))} FROM {source}"  # noqa: S608 - quoted
    return Table(columns, batches())


def _parquet(database: Any, file: Path, mapping: Mapping) -> Table:
    source, values = "read_parquet($file)", {"file": _literal(file)}
    # A time with a zone is written as text in the zone of the session.
    database.execute("SET TimeZone = 'UTC'")
    available = _columns(database, source, values)
    found = {name: place for name in mapping.columns if (place := _place(name, available))}
    mapping.check({*available, *found})
    texts = [f"CAST({place} AS VARCHAR)" for place in found.values()]
    query = f"SELECT {', '.join(texts)} FROM {source}"  # noqa: S608 - quoted
    return Table(tuple(found), _rows(database, file, query, values))


def _place(name: str, available: dict[str, str]) -> str | None:
    """The SQL of a column, or of a field of a nested one (`a.b`); None if there is none."""
    if name in available:
        return _quoted(name)
    outer, dot, inner = name.partition(".")
    kind = available.get(outer, "")
    first = inner.split(".")[0]
    if dot and kind.startswith("STRUCT") and first.lower() in kind.lower():
        return ".".join(_quoted(part) for part in name.split("."))
    return None


def _columns(database: Any, source: str, values: dict[str, str]) -> dict[str, str]:
    """Name and type of each column."""
    rows = database.execute(f"DESCRIBE SELECT * FROM {source}", values).fetchall()  # noqa: S608
    return {row[0]: row[1] for row in rows}


def _rows(
    database: Any, file: Path, query: str, values: dict[str, str]
) -> Iterator[list[Numbered]]:
    with _explained(file):
        # A cursor of its own: the connection is asked other things while rows are drawn.
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
    if file.suffix != ".gz":
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="segstream-") as folder:
        plain = Path(folder) / "table"
        with plain.open("wb") as out:
            for block in _blocks(file):
                out.write(block)
        yield plain


def _blocks(file: Path) -> Iterator[bytes]:
    with _unpacked(file), gzip.open(file, "rb") as packed:
        while block := packed.read(1 << 20):
            yield block


@contextmanager
def _unpacked(file: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FileError(f"{file}: broken or truncated gzip: {error}") from None
    except OSError as error:
        raise FileError(f"{file}: cannot be read: {error.strerror or error}") from None


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
    decode = msgspec.json.Decoder().decode
    seen: set[str] = set()
    others: set[str] = set()
    batch: list[Numbered] = []
    packed = file.suffix == ".gz"
    with _unpacked(file), gzip.open(file, "rb") if packed else file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                content = decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                refuse(Refusal(number, UNREADABLE, f"line {number}: {error}", {}))
                continue
            if not isinstance(content, dict):
                refuse(Refusal(number, UNREADABLE, f"line {number}: no JSON object", {}))
                continue
            try:
                row = [_reach(content, name, path) for name, path in paths]
            except (ValueError, RecursionError) as error:  # nothing that can be written as text
                refuse(Refusal(number, UNREADABLE, f"line {number}: {error}", {}))
                continue
            if len(seen) < len(paths):
                seen.update(name for (name, _), text in zip(paths, row, strict=True) if text)
                if len(others) < 50:  # only shown in a message
                    others.update(content)
            batch.append(Numbered(number, row))
            if len(batch) == BATCH_ROWS:
                yield batch
                batch = []
    if batch:
        yield batch
    # Only now is it known that a column is nowhere; nothing has been sent yet.
    if seen or others:
        mapping.check(seen | others)


def _reach(content: dict[str, Any], name: str, path: Sequence[str]) -> str | None:
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
    return json.dumps(value)


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
)
_NAMES = ", ".join(_quoted(name) for name in Event._fields)

# Sums in row order: floating point addition depends on order, and a replay must not.
_SORTED = f"""
CREATE TABLE sorted AS
SELECT * FROM (
  SELECT {_NAMES} FROM staged WHERE "order" IS NULL
  UNION ALL
  SELECT min(time_ms), min("row"), "user", event, "order", arg_min(id, "row"),
    arg_min(category, "row"), arg_min(session, "row"),
    sum(quantity ORDER BY "row"), min(price), sum(amount ORDER BY "row")
  FROM staged WHERE "order" IS NOT NULL GROUP BY "user", "order", event
) ORDER BY time_ms, "row"
"""  # noqa: S608 - names of our own


class EventSorter:
    """Takes events in any order, gives them back by time; ties keep the order of the file.

    Rows of one user, one order and one event come out as one event: summed quantity and amount,
    time, row, id, category and session of the first row. Lives in a temporary file.
    """

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="segstream-")
        self._open = _database(self._folder.name)
        self._database = self._open.__enter__()
        columns = ", ".join(f"{_quoted(name)} {kind}" for name, kind, _ in _STAGED)
        self._database.execute(f"CREATE TABLE staged ({columns})")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.__exit__(None, None, None)
        self._folder.cleanup()

    def add(self, events: Sequence[Event]) -> None:
        if not events:
            return
        columns = zip(_STAGED, zip(*events, strict=True), strict=True)
        batch = {name: _column(values, kind) for (name, _, kind), values in columns}
        self._database.register("batch", batch)
        self._database.execute(f"INSERT INTO staged SELECT {_NAMES} FROM batch")  # noqa: S608
        self._database.unregister("batch")

    def sort(self) -> int:
        """Bring everything into order; returns how many events there are."""
        self._database.execute(_SORTED)
        self._database.execute("DROP TABLE staged")
        return int(self._database.execute("SELECT count(*) FROM sorted").fetchone()[0])

    def batches(self) -> Iterator[list[Event]]:
        """The events in order, after `sort`."""
        answer = self._database.execute("SELECT * FROM sorted")
        while rows := answer.fetchmany(BATCH_ROWS):
            yield [Event(*row) for row in rows]


def _column(values: Sequence[Any], kind: Any) -> Any:
    """An array for DuckDB; what is absent is masked, because NaN would be a value."""
    if kind is not np.float64:
        return np.array(values, dtype=kind)
    absent = [value is None for value in values]
    filled = [0.0 if value is None else value for value in values]
    return np.ma.masked_array(np.array(filled, dtype=np.float64), mask=absent)


def stage(
    file: Path,
    mapping: Mapping,
    sorter: EventSorter,
    refuse: Refuse,
    read: Callable[[int], None] | None = None,
) -> int:
    """Map every row of a file into a sorter.

    Args:
        file: the file.
        mapping: how.
        sorter: takes the events.
        refuse: is told of each row that becomes no event.
        read: is told now and then how many rows have been read.

    Returns:
        Rows of the file, refused ones among them.

    Raises:
        FileError: the file cannot be read.
        MappingError: the file lacks a column that the mapping needs.
    """
    unreadable = 0

    def refuse_line(refusal: Refusal) -> None:
        nonlocal unreadable
        unreadable += 1
        refuse(refusal)

    rows = 0
    with open_table(file, mapping, refuse_line) as table:
        mapper = RowMapper(mapping, table.columns)
        for batch in table.batches:
            events: list[Event] = []
            for number, row in batch:
                mapped = mapper.map(number, row)
                if isinstance(mapped, Event):
                    events.append(mapped)
                else:
                    refuse(mapped)
            sorter.add(events)
            rows += len(batch)
            if read is not None:
                read(rows)
    return rows + unreadable
