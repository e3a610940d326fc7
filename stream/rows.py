"""The one place that says what a user's row is made of.

Comes in: what the features of a table keep. Goes out: the type of a row, which is what is folded, what is
packed into the store and what is read there. A row is the same in memory and in the store, byte for byte,
so whatever changes a field, or adds one, makes rows of another schema; nothing is migrated by guessing.
The library's rows are the published group alone.

========== =====================================================================================
group      who writes it, and what it is for
========== =====================================================================================
identity   the fold: when the user was first and last seen; and which format the row has
published  the publish rule: where the user is, and what speaks for another segment
told       turns: which kind the user was told of last
folded     the fold: what features are read from; the parts of the features follow these
levels     `stream.levels`: the step of each level that the user was told last, where any is declared
========== =====================================================================================

A thing known of a user that is neither folded from their events nor decided by the publish rule is a group of
its own behind these, as levels are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from stream.events import Ints, Rows

ROW_FORMAT = 6
"""Of what stands here and of `orders.PACKED`; what features keep is told apart by `FeatureTable.schema`."""
Group: TypeAlias = Literal["identity", "published", "told", "folded"]
Layout: TypeAlias = tuple[str, str, tuple[int, ...]]
"""Name, type and shape of a field."""


class Field(NamedTuple):
    """A field that every row has, whatever the features are.

    Attributes:
        shape: of its values; one value if it is empty.
    """

    name: str
    type: str
    group: Group
    meaning: str
    shape: tuple[int, ...] = ()


FIELDS: tuple[Field, ...] = (
    Field("version", "<u4", "published", "changes told of the user so far"),
    Field("segment", "<i4", "published", "where they are; 0 for nowhere"),
    Field("previous", "<i4", "published", "where they were before; 0 for nowhere"),
    Field("candidate", "<i4", "published", "segment that something speaks for; 0 for none"),
    Field(
        "evidence",
        "<u2",
        "published",
        "how much their acts do, in parts of a margin; see segments.EVIDENCE",
    ),
    Field("looks", "u1", "published", "looks at them because they acted, up to 255"),
    Field("format", "u1", "identity", "ROW_FORMAT"),
    Field("kind", "u1", "told", "code of the kind told last, see turns.KindBook; 0 for none"),
    Field("kind_since", "<i8", "told", "when that was told first, ms"),
    Field("since", "<i8", "published", "when they came to their segment, ms"),
    Field("sign", "<i8", "published", "newest act that counts as evidence, ms; 0 for none"),
    Field("seen", "<i8", "identity", "newest event of theirs, ms; 0 if only the shop has acted"),
    Field("first", "<i8", "identity", "oldest event of theirs, ms; 0 if only the shop has acted"),
    Field("click", "<i8", "folded", "newest click, ms: what a session goes on from"),
    Field("as_of", "<i8", "folded", "time that sums and windows are of, ms; 0 for none yet"),
    Field("arrivals", "<u4", "folded", "messages by input topic, repeats too", (2,)),
)
"""In the order in which they lie in a row."""


class RowFormatError(Exception):
    """Bytes are no rows of this type; the message says how they differ."""


def row_type(parts: Sequence[Layout]) -> np.dtype[np.void]:
    """The type of rows whose features keep these parts."""
    fields: list[tuple[str, str] | Layout] = [
        (field.name, field.type, field.shape) if field.shape else (field.name, field.type)
        for field in FIELDS
    ]
    return np.dtype([*fields, *parts])


def published_type() -> np.dtype[np.void]:
    """The type of rows that have what the publish rule writes, and nothing else: the library's."""
    return np.dtype([(field.name, field.type) for field in FIELDS if field.group == "published"])


def blank_rows(users: int, kind: np.dtype[np.void]) -> Rows:
    """Rows of users who have done nothing yet."""
    rows = np.zeros(users, dtype=kind)
    rows["format"] = ROW_FORMAT
    return rows


def rows_at(rows: Rows, places: Ints) -> Rows:
    """Copies of the rows at some places.

    numpy copies rows that are indexed by places a field at a time, and `take` as they lie in memory.
    This is in the path of every event.
    """
    found: Rows = rows.take(places)
    return found


def put_rows(rows: Rows, places: Ints, those: Rows) -> None:
    """Write rows to places, as they lie in memory; see `rows_at`."""
    whole(rows)[places] = whole(those)


def whole(column: npt.NDArray[Any]) -> Rows:
    """The same memory, of which numpy copies each entry at once, and not a field at a time."""
    entries: Rows = column.view(np.dtype((np.void, column.dtype.itemsize)))
    return entries


def unpacked(packed: bytes, kind: np.dtype[np.void]) -> Rows:
    """Rows as the store has them, one after the other; to look at, not to change.

    Raises:
        RowFormatError: they are of another length or format.
    """
    if len(packed) % kind.itemsize:
        raise RowFormatError(f"{len(packed)} bytes are no rows of {kind.itemsize} each")
    rows = np.frombuffer(packed, dtype=kind)
    if (rows["format"] != ROW_FORMAT).any():
        raise RowFormatError(f"rows of another format than {ROW_FORMAT}")
    return rows
