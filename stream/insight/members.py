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

import msgspec
import numpy as np

from stream.config import Settings
from stream.events import Bools, Floats, Rows
from stream.features import FeatureTable
from stream.insight.queries import stored_partitions
from stream.membership import Wanted
from stream.model import Model
from stream.partition import SchemaMismatchError
from stream.rows import RowFormatError
from stream.store.promises import ReaderStore
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
    column = next((table.names.index(name) for name in VALUES if name in table.names), None)
    names = {segment: known.name for segment, known in model.by_id.items()}
    for number, position, portions in stored_partitions(settings, table, store):
        for portion in portions:
            try:
                rows = table.unpacked(b"".join(row for _, row in portion))
            except RowFormatError as error:
                raise SchemaMismatchError(f"partition {number}: {error}") from None
            chosen = np.flatnonzero(wanted.among(rows, model, position.kinds))
            if len(chosen):
                rows = rows[chosen]
                users = [portion[place][0].decode() for place in chosen.tolist()]
                worth = None if column is None else table.vectors(rows, at_ms)[:, column]
                yield _members(users, rows, names, position.kinds, worth)


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
