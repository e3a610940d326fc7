"""Reads Parquet through DuckDB, so that a file may be larger than memory.

Comes in: a file. Goes out: a `Table` of text; numbers are written so that they leave no doubt.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from producers.mapping import Mapping
from producers.tables.database import database_of, explained, quoted
from producers.tables.table import BATCH_ROWS, Numbered, Table
from producers.texts import is_packed, open_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def read_parquet(file: Path, mapping: Mapping) -> Iterator[Table]:
    """The table in a file.

    Raises:
        FileError: the file cannot be read. While rows are drawn too.
        MappingError: the file lacks a column that the mapping needs.
    """
    with database_of() as database, _plain(file) as plain, explained(file):
        yield _table(database, plain, mapping)


def _table(database: Any, file: Path, mapping: Mapping) -> Table:
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
        return quoted(name)
    alike = [one for one in available if one.casefold() == name.casefold()]
    if len(alike) == 1:
        return quoted(alike[0])
    outer, dot, inner = name.partition(".")
    kind = available.get(outer, "")
    first = inner.split(".")[0]
    is_struct = kind.startswith("STRUCT") and not kind.endswith("]")
    if dot and is_struct and first.lower() in kind.lower():
        return ".".join(quoted(part) for part in name.split("."))
    if dot and kind.endswith("[]") and kind.startswith('STRUCT("key"'):
        return _entry(outer, inner, kind)
    return None


_VALUES = {
    "string_value": "VARCHAR", "int_value": "BIGINT", "float_value": "DOUBLE", "double_value": "DOUBLE",
}  # fmt: skip


def _entry(column: str, key: str, kind: str) -> str:
    """The SQL of what a list of entries with a key and a value says under a key, as BigQuery has parameters."""
    literal = key.replace("'", "''")
    value = f"[one.value FOR one IN {quoted(column)} IF one.key = '{literal}'][1]"
    fields = [name for name in _VALUES if name in kind]
    if not fields:
        return f"CAST({value} AS VARCHAR)"
    texts = [_text_of(f"{value}.{name}", _VALUES[name], is_number=True) for name in fields]
    return f"coalesce({', '.join(texts)})"


def _columns(database: Any, query: str, values: dict[str, str]) -> dict[str, str]:
    """Name and type of each column."""
    rows = database.execute(f"DESCRIBE {query}", values).fetchall()
    return {row[0]: row[1] for row in rows}


def _rows(
    database: Any, file: Path, query: str, values: dict[str, str]
) -> Iterator[list[Numbered]]:
    with explained(file):
        answer = database.execute(query, values)
        number = 0
        while rows := answer.fetchmany(BATCH_ROWS):
            yield [Numbered(number + index, row) for index, row in enumerate(rows, 1)]
            number += len(rows)


def _literal(file: Path) -> str:
    """A path that DuckDB does not take for a pattern of many files."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in str(file))


@contextmanager
def _plain(file: Path) -> Iterator[Path]:
    """A packed file unpacked beside nothing of the user's; others as they are."""
    if not is_packed(file):
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="segstream-") as folder:
        plain = Path(folder) / "table"
        with plain.open("wb") as out, open_bytes(file) as packed:
            while block := packed.read(1 << 20):
                out.write(block)
        yield plain
