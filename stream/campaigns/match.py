"""Says which campaigns a change concerns, and which it leaves true: once for each kind of move.

Comes in: moves, from one segment or step of a level to another for a cause. Goes out: tables of yes and no by campaign and
move; `decide` looks them up for whole columns. A shop makes millions of changes and a few thousand
different moves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stream.campaigns.declare import When
from stream.campaigns.state import NONE, Steps, step_code
from stream.events import Bools, Cause, Ints
from stream.kinds import CHURN_RISK_KINDS

Codes = npt.NDArray[np.int32]
_FIRST_ROOM = 64


class Move(NamedTuple):
    """What many changes have in common.

    What was before is None for a first change of segment, and populations are where the record is of a version
    that did not tell them. A crossing of a level has a level, and no segments.
    """

    segment_from: int | None
    segment_to: int | None
    name_from: str | None
    name_to: str | None
    kind_from: str | None
    kind_to: str | None
    cause: str
    provisional: bool
    level: str | None = None
    step_from: str | None = None
    step_to: str | None = None
    population_from: str | None = None
    population_to: str | None = None


def concerns(when: When, move: Move) -> bool:
    """Whether a move fulfils all conditions but those on reasons, scores and steps, which are each user's own."""
    return (
        move.cause in when.cause
        and move.level == when.level
        and (not when.step_from or move.step_from in when.step_from)
        and (when.provisional or not move.provisional)
        and (not when.kind_from or move.kind_from in when.kind_from)
        and (not when.segment_from or move.segment_from in when.segment_from)
        and (not when.population_from or move.population_from in when.population_from)
        and _arrives(when, move)
    )


def leaves_true(when: When, move: Move) -> bool:
    """Whether what was decided for a user before still holds where this move takes them.

    Without a condition on where users go, what was decided hangs on where they were taken: any move
    ends it. A crossing of a level says nothing of segments, nor a change of segment of levels.
    """
    if move.cause == Cause.ERASED:
        return False
    if move.level in when.steps and move.step_to not in when.steps[move.level]:
        return False
    if move.level != when.level:
        return True
    return when.goes_somewhere and _arrives(when, move)


def _arrives(when: When, move: Move) -> bool:
    return (
        (not when.kind_to or move.kind_to in when.kind_to)
        and (not when.segment_to or move.segment_to in when.segment_to)
        and (not when.step_to or move.step_to in when.step_to)
        and (not when.population_to or move.population_to in when.population_to)
    )


class Moves:
    """Numbers of moves, and what each means to each declaration.

    Args:
        book: declarations, by version.
        levels: names of the steps of each level that is declared.
    """

    def __init__(
        self, book: Sequence[When] = (), levels: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self._book = list(book)
        self._levels = {name: list(steps) for name, steps in (levels or {}).items()}
        self._codes: dict[tuple[Any, ...], int] = {}
        self._moves: list[Move | None] = []
        self._free: list[int] = []
        self.concerned: Bools = np.zeros((len(self._book), _FIRST_ROOM), np.bool_)
        """``(versions, moves)``: the move fulfils the conditions."""
        self.still: Bools = np.zeros_like(self.concerned)
        """``(versions, moves)``: the move leaves true what was decided."""
        self.heard: Bools = np.zeros_like(self.concerned)
        """``(versions, moves)``: the move is of what the campaign listens to: of segments, or of its level."""
        self.erased: Bools = np.zeros(_FIRST_ROOM, np.bool_)
        """``(moves,)``: the user is no more."""
        self.at_risk: Bools = np.zeros(_FIRST_ROOM, np.bool_)
        """``(moves,)``: the user is in a kind of churn risk now."""
        self.of_segment: Bools = np.zeros(_FIRST_ROOM, np.bool_)
        """``(moves,)``: it is one from segment to segment, not one of a level."""
        self.level: Ints = np.full(_FIRST_ROOM, NONE)
        """``(moves,)``: place of the level; NONE for a change of segment, and of a level that is not declared."""
        self.step: Steps = np.zeros(_FIRST_ROOM, np.uint8)
        """``(moves,)``: the step of the level that the user is on now, see `step_code`."""

    def __getitem__(self, code: int) -> Move:
        move = self._moves[code]
        if move is None:
            raise KeyError(f"no move has the number {code}")
        return move

    def __len__(self) -> int:
        return len(self._moves)

    def code(self, fields: tuple[Any, ...]) -> int:
        """The number of a move, which is taken in if it is new.

        Args:
            fields: of a `Move`, or the move itself.
        """
        code = self._codes.get(fields)
        return self._take(Move(*fields)) if code is None else code

    def restore(self, moves: Sequence[Move | None]) -> None:
        """Give moves the numbers that they had, before any other; what has None is given to others."""
        for code, move in enumerate(moves):
            self._moves.append(move)
            self._make_room()
            if move is None:
                self._free.append(code)
            else:
                self._learn(move, code)

    def some(self, codes: Codes) -> list[Move | None]:
        """Moves by number, as `restore` takes them: those with these numbers, None for all others."""
        found: list[Move | None] = [None] * (int(codes.max(initial=NONE)) + 1)
        for code in np.unique(codes).tolist():
            found[code] = self._moves[code]
        return found

    def _take(self, move: Move) -> int:
        if self._free:
            code = self._free.pop()
            self._moves[code] = move
        else:
            code = len(self._moves)
            self._moves.append(move)
            self._make_room()
        self._learn(move, code)
        return code

    def _make_room(self) -> None:
        room = len(self.erased)
        if len(self._moves) <= room:
            return
        wider = ((0, 0), (0, room))
        for name in ("concerned", "still", "heard"):
            setattr(self, name, np.pad(getattr(self, name), wider))
        for name in ("erased", "at_risk", "of_segment", "level", "step"):
            setattr(self, name, np.pad(getattr(self, name), wider[1]))

    def _learn(self, move: Move, code: int) -> None:
        self._codes[move] = code
        self.concerned[:, code] = [concerns(when, move) for when in self._book]
        self.still[:, code] = [leaves_true(when, move) for when in self._book]
        self.heard[:, code] = [when.level == move.level for when in self._book]
        self.erased[code] = move.cause == Cause.ERASED
        self.at_risk[code] = move.kind_to in CHURN_RISK_KINDS
        self.of_segment[code] = move.level is None
        self.level[code] = NONE
        if move.level in self._levels:
            self.level[code] = list(self._levels).index(move.level)
            self.step[code] = step_code(self._levels[move.level], move.step_to)
