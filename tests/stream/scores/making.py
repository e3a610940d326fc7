"""Shoppers whose orders are known, and what a trainer's samples show of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stream.events import Floats, Hashes
from stream.learning.statistics import Sample
from stream.scores.declare import Score, Wanted
from stream.units import DAY_MS

START_MS = 20_000 * DAY_MS
FEATURES = ("days_since_order", "orders_total", "revenue_total", "lucky")
WANTED = Wanted(
    scores=(
        Score(name="soon", of="buy", days=10),
        Score(name="later", of="buy", days=30),
        Score(name="money", of="spend", days=30),
    ),
    inputs=("days_since_order", "orders_total", "lucky"),
    users=500,
    look_days=5,
    least=100,
    over_time={"days_since_order": "rises"},
)


@dataclass(frozen=True)
class Crowd:
    """Users with the days of their orders, ascending.

    Attributes:
        lucky: a feature of each.
        price: of every order.
    """

    days: Sequence[Sequence[float]]
    lucky: Floats
    price: float = 20.0

    @staticmethod
    def random(users: int, seed: int, days: int = 200) -> Crowd:
        """Half of them order about every eight days, and are lucky; the others every sixty."""
        random = np.random.default_rng(seed)
        lucky = (np.arange(users) % 2).astype(float)
        gaps = [random.exponential(8.0 if one else 60.0, 400) + 0.01 for one in lucky]
        begins = random.random(users) * 20
        found = []
        for begin, each in zip(begins, gaps, strict=True):
            orders = begin + np.cumsum(each)
            found.append(orders[orders < days].tolist())
        return Crowd(found, lucky)

    @property
    def hashes(self) -> Hashes:
        """In no order; the same of a user for good."""
        number = np.arange(1, len(self.days) + 1, dtype=np.uint64)
        return number * np.uint64(0x9E37_79B9_7F4A_7C15)

    def sample(self, day: float, gone: Sequence[int] = ()) -> Sample:
        """What is seen of everyone at the end of a day but of whoever is gone; the lucky are in segment 2."""
        who = [user for user in range(len(self.days)) if user not in gone]
        vectors = np.zeros((len(who), len(FEATURES)))
        for row, user in enumerate(who):
            past = [one for one in self.days[user] if one <= day]
            silence = day - past[-1] if past else 400.0
            vectors[row] = (silence, len(past), self.price * len(past), self.lucky[user])
        at_ms = START_MS + round(day * DAY_MS)
        nobody = np.zeros(len(who), np.int64)
        segments = (1 + self.lucky[who]).astype(np.int32)
        return Sample(self.hashes[who], vectors, nobody, segments, at_ms)
