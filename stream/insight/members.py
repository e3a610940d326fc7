"""Lists the members of segments: who they are, since when, what they are worth, when last seen.

Comes in: the store, read in portions, and whose members are wanted. Goes out: portions of typed rows,
for a command or an export. Owners are not asked: the store gives a page of rows at a time, and between two
pages it answers whoever waits.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np

from stream.config import Settings
from stream.events import Bools, Floats, Rows
from stream.features import FeatureTable
from stream.insight.queries import see_schema, stored_partitions
from stream.membership import Wanted
from stream.model import Model
from stream.partition import SchemaMismatchError
from stream.rows import RowFormatError
from stream.store.promises import ReaderStore
from stream.store.state import Position
from stream.turns import kinds_told
from stream.units import isos

VALUES = ("revenue_total", "revenue_180d")
"""Features that say what a member is worth; the first one that is declared."""


class Member(msgspec.Struct, frozen=True, gc=False):
    """One member.

    Attributes:
        kind: that they were told last.
        since: when they came to the segment.
        kind_since: when they were told the kind.
        value: of the first of `VALUES` that is declared, as of now; None if none is.
    """

    user: str
    segment: int
    name: str
    kind: str
    since: str
    kind_since: str
    last_seen: str
    value: float | None


@dataclass(frozen=True)
class WantedMembers:
    """Whose members are wanted; None is everybody's.

    Attributes:
        segments: ids.
        kind: that they were told last.
        since_ms: only who came to the segment from here on; or was told the kind, if one is wanted.
        population: that the segment is of.
    """

    segments: Sequence[int] | None = None
    kind: str | None = None
    since_ms: int = 0
    population: str | None = None

    def among(self, rows: Rows, model: Model, kinds: Sequence[str]) -> Bools:
        """Which rows are wanted: of who is in a segment that the model knows."""
        segments = model.by_id.values()
        known = [one.id for one in segments if self.population in (None, one.population)]
        ids = known if self.segments is None else [one for one in self.segments if one in known]
        found: Bools = np.isin(rows["segment"], ids)
        found &= Wanted(kind=self.kind).among(rows, model, kinds)
        if self.since_ms:
            found &= rows["since" if self.kind is None else "kind_since"] >= self.since_ms
        return found


def members(
    settings: Settings,
    table: FeatureTable,
    store: ReaderStore,
    model: Model,
    wanted: WantedMembers,
    at_ms: int,
) -> Iterator[list[Member]]:
    """Members, some at a time, in no order.

    A user whom an owner writes meanwhile is given as before or as after, and perhaps twice if the
    store makes room: `once` leaves the second time out.

    Args:
        at_ms: as of when they are worth something.

    Raises:
        SchemaMismatchError: the rows were written by another feature table.
    """
    show = _Show.of(table, model)
    for number, position, portions in stored_partitions(settings, table, store):
        for portion in portions:
            if found := show.chosen(number, position, portion, wanted, at_ms):
                yield found


LOOKED_AT = 50_000
"""A page ends when it has looked at so many users, even if few of them were wanted."""
MOST_AT_ONCE = 5_000
"""As many rows are asked for at once, so that whoever else waits for the store is answered soon."""


class Page(NamedTuple):
    """Some members, and the place to go on from: partition and cursor of the store; None at the end."""

    members: list[Member]
    next: tuple[int, int] | None


def page(
    settings: Settings,
    table: FeatureTable,
    store: ReaderStore,
    model: Model,
    wanted: WantedMembers,
    at_ms: int,
    place: tuple[int, int],
    about: int,
) -> Page:
    """About so many members from a place on; (0, 0) is the beginning.

    From the beginning to the end everybody comes who is there all the time, some perhaps twice.

    Raises:
        SchemaMismatchError: the rows were written by another feature table.
    """
    show, found, looked_at = _Show.of(table, model), list[Member](), 0
    number, cursor = place
    while number < settings.topics.partitions:
        position = store.position(number)
        if position is not None:
            see_schema(number, position, table)
            at_once = min(max(about, 10), MOST_AT_ONCE)
            cursor, portion = store.page(number, cursor, at_once)
            found += show.chosen(number, position, portion, wanted, at_ms)
            looked_at += len(portion)
        if position is None or cursor == 0:
            number, cursor = number + 1, 0
        if len(found) >= about or looked_at >= LOOKED_AT:
            break
    return Page(found, (number, cursor) if number < settings.topics.partitions else None)


@dataclass(frozen=True)
class _Show:
    """Makes members of rows."""

    table: FeatureTable
    model: Model
    column: int | None
    names: dict[int, str]

    @staticmethod
    def of(table: FeatureTable, model: Model) -> _Show:
        column = next((table.names.index(name) for name in VALUES if name in table.names), None)
        return _Show(table, model, column, {id_: one.name for id_, one in model.by_id.items()})

    def chosen(
        self,
        number: int,
        position: Position,
        portion: Sequence[tuple[bytes, bytes]],
        wanted: WantedMembers,
        at_ms: int,
    ) -> list[Member]:
        """Those of a portion who are wanted."""
        try:
            rows = self.table.unpacked(b"".join(row for _, row in portion))
        except RowFormatError as error:
            raise SchemaMismatchError(f"partition {number}: {error}") from None
        chosen = np.flatnonzero(wanted.among(rows, self.model, position.kinds))
        if not len(chosen):
            return []
        rows = rows[chosen]
        users = [portion[place][0].decode() for place in chosen.tolist()]
        column = self.column
        worth = None if column is None else self.table.vectors(rows, at_ms)[:, column]
        return _members(users, rows, self.names, position.kinds, worth)


def _members(
    users: Sequence[str],
    rows: Rows,
    names: dict[int, str],
    kinds: Sequence[str],
    worth: Floats | None,
) -> list[Member]:
    segments = rows["segment"].tolist()
    return list(
        map(
            Member,
            users,
            segments,
            [names[segment] for segment in segments],
            kinds_told(rows["kind"], kinds),
            isos(rows["since"]),
            isos(rows["kind_since"]),
            isos(rows["seen"]),
            [None] * len(users) if worth is None else np.round(worth, 2).tolist(),
        )
    )


def once(portions: Iterable[list[Member]]) -> Iterator[list[Member]]:
    """The same without those who came before."""
    seen: set[str] = set()
    for portion in portions:
        fresh = {member.user: member for member in portion if member.user not in seen}
        seen.update(fresh)
        if fresh:
            yield list(fresh.values())


def as_csv(portion: Sequence[Member]) -> str:
    """Lines of a table, without its head; see `CSV_HEAD`."""
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows(
        (m.user, m.segment, m.name, m.kind, m.since, m.kind_since, m.last_seen,
         "" if m.value is None else m.value)
        for m in portion
    )  # fmt: skip
    return lines.getvalue()


CSV_HEAD = ",".join(Member.__struct_fields__) + "\n"


def as_jsonl(portion: Sequence[Member]) -> str:
    """A JSON object a line."""
    return msgspec.json.Encoder().encode_lines(portion).decode()
