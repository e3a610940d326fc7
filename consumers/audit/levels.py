"""Holds the step of each level that users are on to what the log comes to, and crossings to their limits.

Comes in: the stored model, rows of users, the log as the oracle has folded it, and records of crossings. Goes out:
one promise, `LevelsCheck`. Steps are found anew by `stream.levels.oracle`, which shares no code with the owner.

By marks everyone was looked at as of the last one. Live, nobody knows when each was looked at: it was between the
beginning of the last sweep and the last commit, and a step is wrong that is so at both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from consumers.audit.chains import Chains
from consumers.audit.log import FoldedLog
from consumers.audit.report import Check, user_name
from consumers.audit.snapshot import Snapshot, Snapshots
from stream.config import Settings
from stream.learning.state import TrainerState
from stream.levels.book import FIELD
from stream.levels.oracle import fault_of, values
from stream.levels.steps import KnownLevel
from stream.model import Model
from stream.oracle import OracleUser
from stream.store.promises import ReaderStore
from stream.units import iso


class LevelsCheck:
    """Whether steps of levels are what the log and the stored model come to.

    Attributes:
        check: what was found.
    """

    def __init__(self, settings: Settings, snapshots: Snapshots) -> None:
        self.check = Check("levels_follow_the_log")
        self._settings = settings
        self._snapshots = snapshots
        self._table = settings.table()
        self._model: Model | None = None

    def read(self, store: ReaderStore) -> None:
        """Take in the stored model, if it is of these features and has levels."""
        stored = store.model()
        model = None if stored is None else TrainerState.unpack(stored[1]).model
        if model is None or model.schema != self._table.schema or not model.levels.known:
            return
        self._model = model

    @property
    def _known(self) -> tuple[KnownLevel, ...]:
        return () if self._model is None else self._model.levels.known

    def take(self, partition: int, change: Mapping[str, Any], where: str) -> None:
        """Judge a crossing by what it tells: its value lies on the side of the limit that it leads to."""
        level = next((one for one in self._known if one.name == change["level"]), None)
        value, names = change["value"], () if level is None else level.names
        steps = change["step_from"], change["step_to"]
        if level is None or value is None or level.rules or not {*steps} <= {*names}:
            return
        before, after = map(names.index, steps)
        limits = [one for one in level.steps if one.name == names[min(before, after)]]
        found = [one for one in limits if (change["of"], change["limit"]) == (one.of, one.least)]
        if not found:
            # By limits of before, or past several at once.
            return
        step = found[0]
        self.check.counted += 1
        if before == after or (value >= step.least) != (after < before):
            user = user_name(partition, change["user"])
            self.check.accuse(
                f"{user}: {change['step_from']} to {change['step_to']} of {level.name} by {value:.9g}, "
                f"and the limit is {step.least:.9g} ({where})"
            )

    def compare(self, partition: int, snapshot: Snapshot, log: FoldedLog, chains: Chains) -> None:
        """Hold the steps in the rows of a partition to the log.

        Args:
            chains: all changes on the output.
        """
        model = self._model
        if model is None:
            return
        position = snapshot.position
        known = log.oracles[partition].users
        judged = [
            user
            for user, row in snapshot.rows.items()
            if user not in snapshot.moving
            and user in known
            and len(row) == self._table.dtype.itemsize
        ]
        same = position.model == model.name and position.levels_by == model.levels.digest
        if not same or partition in self._snapshots.moved_on or snapshot.by_wall:
            self.check.unjudged += len(snapshot.rows)
            return
        self.check.unjudged += len(snapshot.rows) - len(judged)
        rows = np.frombuffer(
            b"".join(snapshot.rows[user] for user in judged), dtype=self._table.dtype
        )
        watermark = self._settings.clock.mode == "watermark"
        times = (position.mark_ms,) if watermark else (position.levels_ms, position.clock_ms)
        codes, clock = rows[FIELD].tolist(), iso(max(position.clock_ms, position.mark_ms))
        for user, seen, version, told in zip(
            judged, rows["seen"].tolist(), rows["version"].tolist(), codes, strict=True
        ):
            steps = chains.steps.get((partition, user, position.incarnation), ())
            ahead = any(step.version > version or step.at > clock for step in steps)
            if ahead or not seen:
                # After the store has lost commits, where delivered changes have led counts before the log does.
                # Or known by what the shop did only: on no step until they act.
                self.check.unjudged += 1
                continue
            self.check.counted += 1
            if fault := self._fault_of(model, position.levels, told, known[user], times):
                self.check.accuse(f"{user_name(partition, user)} is {fault}")

    def _fault_of(
        self,
        model: Model,
        names: Mapping[str, list[str]],
        codes: list[int],
        user: OracleUser,
        times: tuple[int, ...],
    ) -> str:
        """What is wrong at all of some times, in words."""
        told = []
        for now_ms in times:
            readings = user.readings(self._settings.features, max(now_ms, user.as_of_ms))
            if any(one.undecided for one in readings.values()):
                return ""
            features = {name: one.value for name, one in readings.items()}
            told += values(model.levels.scores, features)
        for level in model.levels.known:
            code = codes[list(names).index(level.name)]
            step = names[level.name][code - 1] if code else level.rest or None
            if step is not None and step not in level.names:
                continue
            faults = [fault_of(level, step, one) for one in told]
            if all(faults):
                return faults[-1]
        return ""
