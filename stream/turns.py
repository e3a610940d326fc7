"""Tells users of what kind they are, and when their segment has turned into another one.

Comes in: of users looked at, the kind that each was told last, and that of their segment now. Goes out:
the kind to tell each of them; and who is to be told although they stay where they are. `partition`
writes the records.

What a user was told last is part of their row, so it is committed with the record that tells it: whoever
is not told when a process dies differs from their segment still, and is found by the next sweep.

Two things nobody is told: that they have become better without having done anything, and that they are
new when they were told another kind before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream.events import Bools, Ints, Rows
from stream.model import Model

Codes = npt.NDArray[np.uint8]
MOST_CODES = 255
BURST_MS = 10_000
"""Of the time in which nobody was to be told, so much counts later: a quiet night brings no flood."""

JUST_NOW_MS = 300_000
"""An act may come so late, and is looked at all the same as one of now."""


def kinds_told(codes: Codes, names: Sequence[str]) -> list[str]:
    """The kind that each user was told last; empty for none.

    Args:
        codes: as rows have them.
        names: as the partition's position has them.
    """
    by_code = ["", *names]
    return [by_code[code] for code in codes.tolist()]


class KindBook:
    """Codes of kinds, as a partition's rows have them; 0 is none.

    Args:
        names: of the codes 1, 2, ..; as the partition has them.
    """

    def __init__(self, names: list[str]) -> None:
        self.names = list(names)

    def code(self, kind: str, used: Callable[[], Codes]) -> int:
        """The kind's code, which is made if it has none.

        Args:
            used: gives the codes that rows have: when all are given out, others may be given anew.
        """
        if kind in self.names:
            return self.names.index(kind) + 1
        if len(self.names) < MOST_CODES:
            self.names.append(kind)
            return len(self.names)
        free = np.setdiff1d(np.arange(1, MOST_CODES + 1), used())
        if not len(free):
            raise ValueError(f"kinds: rows hold {MOST_CODES} kinds already; {kind!r} is one more")
        self.names[int(free[0]) - 1] = kind
        return int(free[0])


def recoded(rows: Rows, names: Sequence[str], book: KindBook) -> Rows:
    """Copies of rows of a partition, with the codes of another book.

    Args:
        names: as the partition's position has them.
    """
    codes = [0, *(book.code(name, lambda: np.empty(0, np.uint8)) for name in names)]
    found = rows.copy()
    found["kind"] = np.array(codes, np.uint8)[rows["kind"]]
    return found


@dataclass(frozen=True)
class Scale:
    """A model's kinds by code.

    Attributes:
        kinds: code of each segment's, by column.
        rank, instead: by code, see `kinds.Rung`; 0 for none.
    """

    kinds: Codes
    rank: npt.NDArray[np.int64]
    instead: Codes

    @staticmethod
    def of(model: Model, book: KindBook, used: Callable[[], Codes]) -> Scale:
        kinds = [book.code(segment.kind, used) for segment in model.segments]
        rungs = [(book.code(rung.kind, used), rung) for rung in model.ladder]
        rank, instead = np.zeros(MOST_CODES + 1, np.int64), np.zeros(MOST_CODES + 1, np.uint8)
        for code, rung in rungs:
            rank[code] = rung.rank
            instead[code] = book.code(rung.instead, used) if rung.instead else 0
        return Scale(np.array(kinds, np.uint8), rank, instead)


def tell_kind(rows: Rows, kinds: Codes, now_ms: int) -> None:
    """Rows of users who are told of what kind they are; they change in place."""
    rows["kind_since"] = np.where(rows["kind"] == kinds, rows["kind_since"], now_ms)
    rows["kind"] = kinds


def did_something(rows: Rows, now_ms: int, mark_ms: int) -> Bools:
    """Who of those looked at has done something: what the shop does is no act of theirs.

    Args:
        mark_ms: the mark before, from which on acts are looked at (watermark mode); 0 for none.
    """
    since_ms = mark_ms or now_ms - JUST_NOW_MS
    found: Bools = (rows["seen"] > rows["kind_since"]) & (rows["seen"] >= since_ms)
    return found


def to_tell(told: Codes, kinds: Codes, acted: Bools, scale: Scale) -> Codes:
    """The kind that each user is told from now on.

    Args:
        told: what each was told last; 0 for nothing.
        kinds: of each one's segment.
        acted: whether they did something.
    """
    known = (told > 0) & (told != kinds)
    wanted = np.where(known & (scale.instead[kinds] > 0), scale.instead[kinds], kinds)
    rises = (scale.rank[told] > 0) & (scale.rank[wanted] > scale.rank[told])
    found: Codes = np.where(known & rises & ~acted, told, wanted).astype(np.uint8)
    return found


def wanted_kinds(told: Codes, columns: Ints, acted: Bools, scale: Scale) -> Codes:
    """The kind that each user is to know: what they were told, where there is nothing to tell.

    Args:
        columns: of each one's segment; -1 for none that the model has.
    """
    here = (columns >= 0) & (told > 0)
    kinds = np.where(here, scale.kinds[np.maximum(columns, 0)], told)
    return to_tell(told, kinds, acted, scale)


def allowed(now_ms: int, paid_ms: int, mark_ms: int, per_second: float) -> int:
    """How many users may be told of a turn now.

    Args:
        paid_ms: up to when the allowance is used up, see `paid`.
        mark_ms: the mark before, from which on all time counts (watermark mode); 0 for none.
    """
    counts_ms = now_ms - max(paid_ms, _since(now_ms, mark_ms))
    return max(int(counts_ms * per_second / 1_000), 0)


def paid(users: int, now_ms: int, paid_ms: int, mark_ms: int, per_second: float) -> int:
    """Up to when the allowance is used up, after so many users were told."""
    return max(paid_ms, _since(now_ms, mark_ms)) + math.ceil(users * 1_000 / per_second)


def _since(now_ms: int, mark_ms: int) -> int:
    """From when on time counts that nobody was told in."""
    return min(mark_ms, now_ms - BURST_MS) if mark_ms else now_ms - BURST_MS
