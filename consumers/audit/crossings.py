"""Holds who is in which population, and what was told of crossings, to the rules of populations.

Comes in: the stored model, change records, and rows of users. Goes out: what is wrong with each, in
words, and one promise: `PopulationsCheck`.

A crossing has no margin: a rule holds, and the reasons are its features. Within a population a change
has a margin, and reasons that add up to it; only who leaves a retired segment has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from consumers.audit.report import Check, user_name
from consumers.audit.snapshot import Snapshots
from stream.config import Settings
from stream.events import Cause, Ints, Rows
from stream.features import FeatureTable
from stream.learning.state import TrainerState
from stream.model import Model
from stream.populations import NONE
from stream.store.promises import ReaderStore


@dataclass(frozen=True)
class Crossings:
    """What the populations of a model say of changes and rows."""

    model: Model
    table: FeatureTable

    @cached_property
    def _population(self) -> Mapping[int, str]:
        """Of each segment that is or was of a population there still is."""
        names = self.model.populations.names
        return {
            number: segment.population
            for number, segment in self.model.by_id.items()
            if segment.population in names
        }

    @cached_property
    def _since(self) -> Mapping[str, tuple[int, int]]:
        """Of each population that is learned, the model from which on its rule is what it is."""
        return {part.population: _number(part.since) for part in self.model.parts}

    @cached_property
    def _asked(self) -> frozenset[str]:
        """Features that rules look at."""
        return frozenset(name for one in self.model.populations.declared for name in one.when)

    def knows(self, change: Mapping[str, Any]) -> bool:
        """Whether a change can be judged: a move between segments that the model knows, by its rules."""
        before, after = change["from"], change["to"]
        if before == after or not {before, after} <= self._population.keys():
            return False
        both = {self._population[before], self._population[after]}
        under = _number(change["model"])
        return all(name in self._since and self._since[name] <= under for name in both)

    def fault_of(self, change: Mapping[str, Any]) -> str:
        """What is wrong with a change that is known, in words; empty for nothing."""
        before, after = (self._population[change[side]] for side in ("from", "to"))
        terms = [one["contribution"] for one in change["why"]]
        if before == after:
            if change["margin"] is None:
                retired = change["cause"] == Cause.SEGMENT_RETIRED
                return "" if retired else f"it stays in {after} and has no margin"
            return f"it stays in {after} and has reasons without a share" if None in terms else ""
        if change["margin"] is not None:
            return f"it goes from {before} to {after} by a margin, not by a rule"
        features = {one["feature"] for one in change["why"]}
        if not features or not features <= self._asked or any(term is not None for term in terms):
            return f"it goes from {before} to {after}, and its reasons are not those of a rule"
        return ""

    def misplaced(self, rows: Rows, at_ms: int) -> Ints:
        """Places of users who are in a segment of another population than the one they belong to.

        Args:
            at_ms: when everyone was looked at last.
        """
        vectors = self.table.vectors(rows, at_ms)
        belongs = self.model.divide(vectors, rows["segment"])
        inside = self.model.place_of(rows["segment"])
        wrong = (rows["segment"] > 0) & (inside != NONE) & (inside != belongs)
        return np.flatnonzero(wrong & self.model.has_learned(belongs))


class PopulationsCheck:
    """Whether crossings, and where users are, follow the rules of the stored model's populations.

    Attributes:
        check: what was found.
    """

    def __init__(self, settings: Settings, table: FeatureTable, snapshots: Snapshots) -> None:
        self.check = Check("populations_follow_their_rules")
        self._watermark = settings.clock.mode == "watermark"
        self._table = table
        self._snapshots = snapshots
        self._crossings: Crossings | None = None

    def read(self, store: ReaderStore) -> None:
        """Take in the stored model, if it is of these features and of more than one population."""
        stored = store.model()
        model = None if stored is None else TrainerState.unpack(stored[1]).model
        if model is not None and model.schema == self._table.schema and len(model.populations) > 1:
            self._crossings = Crossings(model, self._table)

    def take(self, partition: int, change: Mapping[str, Any], where: str) -> None:
        """Judge a change, if the model knows both of its segments."""
        if self._crossings is None or not self._crossings.knows(change):
            return
        self.check.counted += 1
        if fault := self._crossings.fault_of(change):
            self.check.accuse(f"{user_name(partition, change['user'])}: {fault} ({where})")

    def compare(self) -> None:
        """Everyone is in a segment of the population they belong to, as of the last mark.

        Live, nobody knows when each was looked at last.
        """
        if self._crossings is None or not self._watermark:
            return
        for partition, snapshot in self._snapshots.items():
            known = {
                user: row
                for user, row in snapshot.rows.items()
                if user not in snapshot.moving and len(row) == self._table.dtype.itemsize
            }
            under = snapshot.position.model == self._crossings.model.name
            if not under or partition in self._snapshots.moved_on or not known:
                self.check.unjudged += len(snapshot.rows)
                continue
            rows = np.frombuffer(b"".join(known.values()), dtype=self._table.dtype)
            users = list(known)
            self.check.counted += len(users)
            for place in self._crossings.misplaced(rows, snapshot.position.mark_ms).tolist():
                name = user_name(partition, users[place])
                self.check.accuse(f"{name} is in a segment of another population")


def _number(model: str) -> tuple[int, int]:
    """A model's number by its name."""
    epoch, version = model.split(".")
    return int(epoch), int(version)
