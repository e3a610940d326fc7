"""Tells what a file is by its name, and opens it as a table.

Comes in: a file and a mapping. Goes out: a `Table`, by the module of its format.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from producers.mapping import Mapping, MappingError
from producers.tables.delimited import read_delimited
from producers.tables.json_lines import read_json_lines
from producers.tables.parquet import read_parquet
from producers.tables.table import Refuse, Table
from producers.texts import WORKBOOK_ADVICE, FileError, is_packed, open_lines, unpacked_name

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def stem(file: Path) -> str:
    """The file's name without folder and suffixes: ``orders`` of ``data/orders.csv.gz``."""
    return Path(file.stem if is_packed(file) else file.name).stem


def kind_of_file(file: Path) -> str:
    """``csv``, ``jsonl`` or ``parquet``, by the name.

    Raises:
        FileError: the file does not exist, or its name says nothing.
    """
    if not file.is_file():
        raise FileError(f"{file}: {'this is a folder' if file.is_dir() else 'no such file'}")
    if file.suffix.lower() in _WORKBOOKS:
        raise FileError(f"{file}: {WORKBOOK_ADVICE}")
    suffix = unpacked_name(file).suffix.lower()
    kind = _KINDS.get(suffix)
    if kind is None:
        raise FileError(
            f"{file}: cannot tell what this is; expected a name that ends in .csv, .tsv, .jsonl, "
            ".ndjson or .parquet, each with .gz or .zip or without"
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
            yield Table(mapping.columns, read_json_lines(file, mapping, refuse))
        case kind if mapping.each is not None:
            raise MappingError(f"mapping {mapping.name}: each is for JSON, and {file} is {kind}")
        case "csv":
            with open_lines(file, mapping.encoding) as lines:
                yield read_delimited(file, lines, mapping, refuse)
        case _:
            with read_parquet(file, mapping) as table:
                yield table
