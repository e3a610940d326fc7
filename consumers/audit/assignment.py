"""Holds the rows of the store to the last change of each user.

Comes in: snapshots and chains. Goes out: one promise, that users are where their last change says; and how many
changes are lost.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from consumers.audit.chains import Chain, Chains, Step
from consumers.audit.log import FoldedLog
from consumers.audit.report import Check, segment_name, user_name
from consumers.audit.snapshot import Snapshots
from stream.features import FeatureTable
from stream.levels.book import FIELD
from stream.store.state import Position
from stream.units import isos


class AssignmentCheck:
    """Whether the store has users where their changes say.

    Attributes:
        check: what was found.
        lost: changes that must have been, and are nowhere.
    """

    def __init__(
        self, table: FeatureTable, snapshots: Snapshots, log: FoldedLog, chains: Chains
    ) -> None:
        self.check = Check("assignment_equals_changes")
        self.lost = 0
        self._table = table
        self._snapshots = snapshots
        self._log = log
        self._chains = chains

    def compare(self) -> None:
        """The last change of every user is where the store has them."""
        assigned: set[Chain] = set()
        for partition, snapshot in self._snapshots.items():
            if snapshot.position.schema != self._table.schema:
                continue
            for user, blob in snapshot.rows.items():
                if len(blob) == self._table.dtype.itemsize:
                    row = np.frombuffer(blob, dtype=self._table.dtype)[0]
                    chain = (partition, user, snapshot.position.incarnation)
                    assigned.add(chain)
                    self._compare_user(chain, row, snapshot.position)
        for chain, steps in self._chains.steps.items():
            if chain in assigned:
                continue
            if self._is_newer(chain):
                self.check.unjudged += 1
                continue
            self._count_lost(steps, 0)
            owner = self._snapshots.get(chain[0])
            if owner is None or owner.position.incarnation <= chain[2]:
                self.check.counted += 1
                self.check.accuse(
                    f"{user_name(chain[0], chain[1])} has changes, but is not in the store"
                )

    def _is_newer(self, chain: Chain) -> bool:
        """Whether all of a user's changes may be newer than what was read of the store."""
        partition, user, incarnation = chain
        snapshot = self._snapshots.get(partition)
        if snapshot is None:
            return partition in self._snapshots.begun
        if partition not in self._snapshots.moved_on:
            return False
        known = user in self._log.oracles[partition].users
        return incarnation > snapshot.position.incarnation or not known

    def _compare_user(self, chain: Chain, row: Any, position: Position) -> None:
        """A user's row against the last changes of theirs.

        Args:
            position: of their partition, which names the codes of rows.
        """
        partition, user, _ = chain
        version, segment = int(row["version"]), int(row["segment"])
        steps = self._chains.steps.get(chain, [])
        if partition in self._snapshots.moved_on:
            judged = [step for step in steps if step.version <= version]
            self.check.unjudged += len(steps) - len(judged)
            steps = judged
        told = self._chains.told_again.get(chain)
        if told is not None and told.version == version and not steps:
            self.check.counted += 1
            if told.after != segment:
                self.check.accuse(
                    f"{user_name(partition, user)}: the store says {segment_name(segment)}, version"
                    f" {version}; told again was {segment_name(told.after)} ({told.where})"
                )
            return
        if version and not steps and partition in self._chains.begin_cut:
            self.check.unjudged += 1
            return
        self._count_lost(steps, version, self._chains.not_there(chain, steps))
        self.check.counted += 1
        newest = max((step.version for step in steps), default=0)
        of_segments = [step for step in steps if not step.level]
        last = max(of_segments, key=lambda step: step.version, default=Step(0, None, 0, "", ""))
        if not of_segments and steps and self._chains.not_there(chain, steps):
            # What brought the user to their segment is not on the topic any more.
            last = Step(0, None, segment, "", "")
        if (newest, last.after) != (version, segment):
            self.check.accuse(
                f"{user_name(partition, user)}: the store says {segment_name(segment)}, version {version};"
                f" the changes say {segment_name(last.after)}, version {newest}"
            )
            return
        if fault := self._other_step(row, position.levels, steps, chain):
            self.check.accuse(f"{user_name(partition, user)}: {fault}")
            return
        if not of_segments:
            return
        kind = "" if not row["kind"] else position.kinds[row["kind"] - 1]
        if last.kinds[1] != kind:
            self.check.accuse(
                f"{user_name(partition, user)}: the store says kind {kind or 'none'}; the last change "
                f"says {last.kinds[1] or 'none'}"
            )
            return
        moved = [step for step in of_segments if not step.turn]
        if last.turn and not moved:
            # The change that brought the user there is not on the topic any more.
            return
        move = max(moved, key=lambda step: step.version, default=last)
        before, since = int(row["previous"]), isos(row["since"].reshape(1))[0] if version else ""
        if (move.before or 0, move.at) != (before, since):
            self.check.accuse(
                f"{user_name(partition, user)}: the store says from {segment_name(before or None)}, "
                f"{since}; the last move says from {segment_name(move.before)}, {move.at}"
            )

    def _other_step(
        self, row: Any, levels: dict[str, list[str]], steps: list[Step], chain: Chain
    ) -> str:
        """The first level whose last change says another step than the row, in words."""
        told = {step.level: step.steps[1] for step in steps if step.level}
        cut = self._chains.not_there(chain, steps)
        for place, (level, names) in enumerate(levels.items()):
            code = int(row[FIELD][place])
            stored = names[code - 1] if code else None
            if level not in told and (cut or stored is None):
                continue
            if told.get(level) != stored:
                return (
                    f"the store says {level} {stored or 'none'}; the last change says "
                    f"{told.get(level) or 'none'}"
                )
        return ""

    def _count_lost(self, steps: list[Step], version: int, not_there: int = 0) -> None:
        known = {step.version for step in steps}
        self.lost += max(version, *known, 0) - len(known) - not_there if known else version
