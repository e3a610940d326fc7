"""Says of everybody which segment they are in now, for whoever missed how they came there.

Comes in: rows of a partition, and the model. Goes out: `MembershipRecord`s as JSON;
`producers.membership` sends them.

A membership has the version of the change that brought it about. So whoever listens to changes too
takes it in if they know no higher version of that user, and passes over it otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stream import records
from stream.events import Bools, Rows
from stream.model import Model
from stream.turns import kinds_told
from stream.units import iso, isos


class Membership(NamedTuple):
    """One user's membership, and its record."""

    id: str
    user: bytes
    kind: str
    record: bytes


@dataclass(frozen=True)
class Wanted:
    """Whose memberships are wanted; None is everybody's."""

    segment: int | None = None
    kind: str | None = None

    @property
    def everybody(self) -> bool:
        return self.segment is None and self.kind is None

    def among(self, rows: Rows, model: Model, kinds: Sequence[str]) -> Bools:
        """Which rows are wanted: of who is in a segment that the model knows.

        Args:
            kinds: names of the codes in rows, from 1 on.
        """
        ids = [one for one in model.by_id if self.segment in (None, one)]
        found: Bools = np.isin(rows["segment"], ids)
        if self.kind is not None:
            codes = [code for code, kind in enumerate(kinds, 1) if kind == self.kind]
            found &= np.isin(rows["kind"], codes)
        return found


def memberships(
    users: Sequence[bytes],
    rows: Rows,
    model: Model,
    wanted: Wanted,
    *,
    kinds: Sequence[str],
    incarnation: int,
    key: bytes,
    at_ms: int,
    run: str,
) -> list[Membership]:
    """The memberships of users of one partition.

    Args:
        rows: a row each.
        kinds: names of the codes in rows, from 1 on, as the partition has them.
        incarnation: of the partition's state.
        key: the namespace's secret.
        at_ms: as of when.
        run: what makes ids of this time differ from those of another.
    """
    at, known = iso(at_ms), model.by_id
    chosen = np.flatnonzero(wanted.among(rows, model, kinds))
    rows = rows[chosen]
    found = []
    for place, version, segment, kind, since, seen in zip(
        chosen.tolist(),
        rows["version"].tolist(),
        rows["segment"].tolist(),
        kinds_told(rows["kind"], kinds),
        isos(rows["since"]),
        isos(rows["seen"]),
        strict=True,
    ):
        user, there = users[place], known[segment]
        name = f"{records.change_id(user, key, incarnation, version)}-{run}"
        record = records.Membership(
            name,
            user.decode(),
            version,
            segment,
            there.name,
            kind,
            since,
            seen,
            at,
            model.name,
        )
        found.append(Membership(name, user, kind, records.encode(record)))
    return found
