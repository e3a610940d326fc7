"""Says which campaigns a change concerns, and which it leaves true: once for each kind of move.

Comes in: moves, from one segment to another for a cause. Goes out: tables of yes and no by campaign and
move; `decide` looks them up for whole columns. A shop makes millions of changes and a few thousand
different moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stream.campaigns.declare import When
from stream.events import Bools, Cause
from stream.kinds import CHURN_RISK_KINDS

Codes = npt.NDArray[np.int32]
_FIRST_ROOM = 64


class Move(NamedTuple):
    """What many changes have in common; segment, name and kind before are None for a first one."""

    segment_from: int | None
    segment_to: int
    name_from: str | None
    name_to: str
    kind_from: str | None
    kind_to: str
    cause: str
    provisional: bool


def concerns(when: When, move: Move) -> bool:
    """Whether a move fulfils all conditions but the reasons, which are each change's own."""
    return (
        move.cause in when.cause
        and (when.provisional or not move.provisional)
        and (not when.kind_from or move.kind_from in when.kind_from)
        and (not when.segment_from or move.segment_from in when.segment_from)
        and _arrives(when, move)
    )


def leaves_true(when: When, move: Move) -> bool:
    """Whether what was decided for a user before still holds where this move takes them.

    Without a condition on where users go, what was decided hangs on where they were taken: any move
    ends it.
    """
    return bool(when.kind_to or when.segment_to) and _arrives(when, move)


def _arrives(when: When, move: Move) -> bool:
    return (not when.kind_to or move.kind_to in when.kind_to) and (
        not when.segment_to or move.segment_to in when.segment_to
    )


class Moves:
    """Numbers of moves, and what each means to each declaration.

    Args:
        book: declarations, by version.
    """

    def __init__(self, book: Sequence[When] = ()) -> None:
        self._book = list(book)
        self._codes: dict[Move, int] = {}
        self._moves: list[Move] = []
        self.concerned: Bools = np.zeros((len(self._book), _FIRST_ROOM), np.bool_)
        """``(versions, moves)``: the move fulfils the conditions."""
        self.still: Bools = np.zeros_like(self.concerned)
        """``(versions, moves)``: the move leaves true what was decided."""
        self.erased: Bools = np.zeros(_FIRST_ROOM, np.bool_)
        """``(moves,)``: the user is no more."""
        self.at_risk: Bools = np.zeros(_FIRST_ROOM, np.bool_)
        """``(moves,)``: the user is in a kind of churn risk now."""

    def __getitem__(self, code: int) -> Move:
        return self._moves[code]

    def __len__(self) -> int:
        return len(self._moves)

    def code(self, move: Move) -> int:
        """The number of a move, which is taken in if it is new."""
        code = self._codes.get(move)
        if code is None:
            code = self._codes[move] = len(self._moves)
            self._moves.append(move)
            if code == len(self.erased):
                wider = ((0, 0), (0, code))
                self.concerned, self.still = (
                    np.pad(self.concerned, wider),
                    np.pad(self.still, wider),
                )
                self.erased = np.pad(self.erased, wider[1])
                self.at_risk = np.pad(self.at_risk, wider[1])
            self.concerned[:, code] = [concerns(when, move) for when in self._book]
            self.still[:, code] = [leaves_true(when, move) for when in self._book]
            self.erased[code] = move.cause == Cause.ERASED
            self.at_risk[code] = move.kind_to in CHURN_RISK_KINDS
        return code
