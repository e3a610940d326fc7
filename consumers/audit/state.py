"""Holds the rows of the store to the log, user by user.

Comes in: snapshots, and the log as the oracle has folded it. Goes out: one promise, that what is stored of
users is what their messages come to.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from consumers.audit.log import FoldedLog
from consumers.audit.report import Check, user_name
from consumers.audit.sample import Sample
from consumers.audit.snapshot import Snapshot, Snapshots
from stream.config import Settings
from stream.events import Rows
from stream.oracle import OracleUser
from stream.rows import ROW_FORMAT
from stream.units import DAY_MS

RELATIVE, ABSOLUTE = 1e-6, 1e-9
"""The rounding of the vectorised fold, summed over a year of batches, stays below these."""
HALF_A_MS = 0.5 / DAY_MS


class StateCheck:
    """Whether what is stored of users is what the log says.

    Attributes:
        check: what was found.
    """

    def __init__(
        self, settings: Settings, snapshots: Snapshots, log: FoldedLog, sample: Sample
    ) -> None:
        self.check = Check("state_equals_log")
        self._settings = settings
        self._snapshots = snapshots
        self._log = log
        self._sample = sample
        self._table = settings.table()
        for snapshot in snapshots.values():
            self.check.unjudged += snapshot.users - len(snapshot.rows)

    def compare(self, partition: int, snapshot: Snapshot) -> None:
        """Hold the rows of a partition to the log."""
        check = self.check
        users = self._log.oracles[partition].users
        whole = self._table.dtype.itemsize
        readable: dict[str, bytes] = {}
        if snapshot.users < snapshot.position.users:
            check.accuse(
                f"partition {partition} has {snapshot.users} users in the store, its position says "
                f"{snapshot.position.users}"
            )
        for user, row in snapshot.rows.items():
            if user in snapshot.moving:
                check.unjudged += 1
            elif user not in users:
                check.counted += 1
                check.accuse(f"{user_name(partition, user)} is in the store, but not in the log")
            elif len(row) != whole:
                check.counted += 1
                check.accuse(
                    f"{user_name(partition, user)}: a row of {len(row)} bytes instead of {whole}"
                )
            else:
                readable[user] = row
        for user in users:
            if user not in snapshot.rows and self._sample.has(user.encode()):
                check.counted += 1
                check.accuse(f"{user_name(partition, user)} is in the log, but not in the store")
        rows = np.frombuffer(b"".join(readable.values()), dtype=self._table.dtype)
        # At time 0 nothing has aged, so sums are as they stand. At the clock's time they have faded.
        newest = int(rows["as_of"].max(initial=0))
        times = (0, max(snapshot.position.clock_ms, newest))
        vectors = [self._table.vectors(rows, now) for now in times]
        excused = snapshot.excused
        for place, user in enumerate(readable):
            check.counted += 1
            found = self._differences(rows[place], users[user]) or self._other_values(
                [vector[place].tolist() for vector in vectors], times, users[user]
            )
            if not found:
                continue
            if user in snapshot.ahead or excused:
                excused -= user not in snapshot.ahead
                check.unjudged += 1
                check.note = "events came from after the wall clock: when they count is not known"
            else:
                check.accuse(f"{user_name(partition, user)}: {found}")

    def _differences(self, row: Rows, user: OracleUser) -> str:
        """The first plain field that is not what it should be, in words."""
        for name, stored, true in (
            ("format", int(row["format"]), ROW_FORMAT),
            ("first event", int(row["first"]), user.first_ms),
            ("last event", int(row["seen"]), user.seen_ms),
            ("last click", int(row["click"]), user.click_ms or 0),
            ("as of", int(row["as_of"]), user.as_of_ms),
            ("arrivals", row["arrivals"].tolist(), user.arrivals),
        ):
            if stored != true:
                return f"{name} is {stored}, the log says {true}"
        return ""

    def _other_values(
        self, vectors: list[list[float]], times: Iterable[int], user: OracleUser
    ) -> str:
        """The first feature whose value is not what it should be, in words."""
        for vector, now in zip(vectors, times, strict=True):
            readings = user.readings(self._settings.features, now)
            for feature, stored in zip(self._settings.features, vector, strict=True):
                reading = readings[feature.name]
                if feature.aggregate in ("first", "last"):
                    agrees = reading.agrees(stored, 0.0, HALF_A_MS)
                else:
                    agrees = reading.agrees(stored, RELATIVE, ABSOLUTE)
                if not agrees:
                    return f"{feature.name} is {stored:.9g}, the log says {reading.value:.9g}"
        return ""

    def check_unserved(self, *, delivered: bool) -> None:
        """No state is no fault before the first start; afterwards it is a loss.

        Args:
            delivered: whether the topic of changes has any.
        """
        begun = bool(self._snapshots) or delivered
        for partition, messages in sorted(self._log.unserved.items()):
            if partition in self._snapshots.begun:
                self.check.unjudged += 1
                self.check.note = "partitions that were begun, or put back, during the audit"
            elif begun:
                self.check.accuse(
                    f"partition {partition} has no state in the store, but {messages} messages"
                )
        if not self._snapshots and not self.check.note:
            self.check.note = "the store holds no state: nothing has been processed"
