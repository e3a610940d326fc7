"""Levels and scores that are known, and users with rows to look at."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from stream.acting import Acting, act_together
from stream.clustering import FeatureMap, on_grid
from stream.delivered import Delivered
from stream.events import Counts
from stream.features import DEFAULT_FEATURES, FeatureTable
from stream.hashing import partition_of
from stream.levels.book import layout
from stream.levels.steps import KnownLevel, KnownStep, Levels
from stream.model import Model, Segment
from stream.oracle import Event
from stream.partition import Partition
from stream.scores import unusual
from stream.scores.model import LearnedScore, Scores
from stream.segments import PublishRule
from stream.store.state import Position
from tests.strategies import START_MS, columns, of_everyone

TABLE = FeatureTable(DEFAULT_FEATURES, beside=[layout()])
RULE = PublishRule(0.2, 3, 0)
INPUTS = ("days_since_order", "orders_total")
BACK = "likely_back"
SCORES = Scores(
    INPUTS,
    ("rises", "stays"),
    (2.0, 0.7),
    (1.0, 0.5),
    20.0,
    (
        LearnedScore(
            BACK, "buy", 90.0, (0.3, -1.2, 0.5, 0.08, 0.0, -0.08, 0.0), base=0.4, labels=1_000
        ),
    ),
)
RISK = KnownLevel(
    "churn_risk",
    (
        KnownStep("low", BACK, 0.6, learned=True),
        KnownStep("medium", BACK, 0.3, learned=True),
        KnownStep("high"),
    ),
    0.1,
    "",
    "declared",
    START_MS,
)
STAGE = KnownLevel(
    "purchase_stage",
    (
        KnownStep("loyal", "orders_total", 3.0),
        KnownStep("first_time", "orders_total", 1.0),
        KnownStep("prospect"),
    ),
    0.0,
    "prospect",
    "declared",
    START_MS,
)
LEVELS = Levels.of((RISK, STAGE), SCORES)
ODD = KnownLevel(
    "oddness",
    (KnownStep("unusual", "unusual", 0.99, learned=True), KnownStep("usual")),
    0.005,
    "",
    "declared",
    START_MS,
)


def with_odd() -> Levels:
    """The same, and how unusual somebody is among two kinds of people."""
    random = np.random.default_rng(9)
    vectors = np.exp(random.normal(0.5, 1.0, (600, len(TABLE.names))))
    segments = np.arange(600) % 2 + 1
    vectors[segments == 2] *= 6.0
    habits = ("orders_total", "revenue_total", "views_7d")
    people = unusual.learn(vectors, TABLE.names, segments, np.ones(600), habits)
    assert people is not None
    return Levels.of((RISK, STAGE, ODD), SCORES.with_unusual("unusual", people))


def model(version: int = 0, levels: Levels = LEVELS) -> Model:
    """One segment, with everyone in it."""
    vectors = np.random.default_rng(1).lognormal(0, 1, (200, len(TABLE.names)))
    made = of_everyone(
        1,
        version,
        START_MS,
        TABLE.schema,
        FeatureMap.learn(vectors, TABLE.weights),
        on_grid(np.zeros((1, len(TABLE.names)))),
        (Segment(1, "all", "browsing", 1, "1.0"),),
        scores=levels.scores or SCORES,
    )
    return replace(made, levels=levels)


class Shop:
    """Partitions with users, and all that was told of them.

    Attributes:
        records: as they were committed.
    """

    def __init__(self, partitions: int = 1) -> None:
        self.parts = [
            Partition(number, TABLE, RULE, Position([0, 0], TABLE.schema), 0)
            for number in range(partitions)
        ]
        self._rows: list[dict[bytes, bytes]] = [{} for _ in self.parts]
        self.records: list[dict[str, Any]] = []

    def act(self, events: Sequence[Event], now_ms: int) -> None:
        """Fold events, and look at whoever did them."""
        acting = []
        for part in self.parts:
            mine = [one for one in events if self._of(one.user) is part]
            if mine:
                users = sorted({one.user for one in mine})
                slots = dict(zip(users, part.slots(users).tolist(), strict=True))
                acting.append(Acting(part, columns(TABLE, slots, mine), now_ms))
        for one in acting:
            act_together([one], now_ms)

    def _of(self, user: str) -> Partition:
        return self.parts[partition_of(user.encode(), len(self.parts))]

    def adopt(self, made: Model, now_ms: int) -> None:
        for part in self.parts:
            part.adopt(made, now_ms, now_ms)

    def sweep(self, now_ms: int) -> None:
        for part in self.parts:
            part.sweep(now_ms, now_ms)

    def commit(self, now_ms: int) -> list[dict[str, Any]]:
        """What was told since the last commit."""
        found = []
        for part, rows in zip(self.parts, self._rows, strict=True):
            commit = part.commit([0, 0], Counts(), now_ms)
            part.committed(commit)
            size = TABLE.dtype.itemsize
            for place, user in enumerate(commit.users):
                rows[user] = commit.rows[place * size : (place + 1) * size]
            found += [json.loads(one) for entry in commit.outbox for one in entry.changes]
        self.records += found
        return found

    def kill(self) -> None:
        """What is not committed is gone; others take over from the rows."""
        for number, (part, rows) in enumerate(zip(self.parts, self._rows, strict=True)):
            self.parts[number] = Partition(
                number, TABLE, RULE, part.position, part.sequence, part.model
            )
            self.parts[number].load(list(rows.items()))

    def take_delivered(self, delivered: Sequence[Delivered], *, in_time: bool = False) -> int:
        return self.parts[0].take_delivered(delivered, in_time=in_time)

    def steps(self) -> dict[str, dict[str, str]]:
        """By user, what the rows say of each level; without those who were told nothing."""
        found: dict[str, dict[str, str]] = {}
        for part in self.parts:
            part.commit([0, 0], Counts(), 0)
            kept: Mapping[str, list[str]] = part.position.levels
            for name, row in zip(part.names, part.rows, strict=True):
                codes = {
                    level: steps[int(row["levels"][place]) - 1]
                    for place, (level, steps) in enumerate(kept.items())
                    if row["levels"][place]
                }
                found[name.decode()] = codes
        return found


def order(user: str, at_ms: int, number: int, value: float = 10.0) -> Event:
    """An order of a user."""
    return Event(user, 1, "Order Completed", at_ms, number, value, 1.0, 0, recorded_ms=at_ms)


def view(user: str, at_ms: int, number: int) -> Event:
    """A look at a product."""
    return Event(user, 0, "Product Viewed", at_ms, number, 0.0, 0.0, 0, recorded_ms=at_ms)


def of_levels(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in records if "level" in one]
