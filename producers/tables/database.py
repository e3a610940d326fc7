"""DuckDB: opened, limited, and its errors told in a sentence.

Comes in: a file's name for messages, or a folder. Goes out: a connection that is closed afterwards.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from producers.texts import FileError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MEMORY = "1GB"
"""What sorting may take before it goes to disk; a broker and a store may run beside it."""


@contextmanager
def database_of(folder: str | None = None) -> Iterator[Any]:
    """A database in memory, or in a folder.

    Raises:
        FileError: DuckDB is not installed.
    """
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


@contextmanager
def explained(file: Path) -> Iterator[None]:
    """Tell an error of the database as one of the file."""
    import duckdb  # noqa: PLC0415 - an extra

    try:
        yield
    except duckdb.Error as error:
        first = str(error).strip().splitlines()[0]
        raise FileError(f"{file}: cannot be read: {first}") from None


def quoted(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'
