"""A learned set of scores: evaluates them for columns of users, and says what carries each one.

Comes in: feature vectors in natural units. Goes out: a column a score, NaN for whoever has none; or one
user's score as a sum of what each input adds. It is published with the model, and read back to the bit.

A user's inputs are mapped to logs, held against the mean and spread of customers, and each counts by
itself and by its squares above and below the mean. The sum of these terms is the *log-odds* of an order within
the horizon. All three rise with the input, so the signs of their weights say which way a score goes with it
(`learner`). Money is the probability, times the user's usual basket, times e to another such sum: how many baskets whoever
buys at all takes home. How unusual somebody is comes from `unusual`, and is a column like the others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from stream.events import Bools, Floats, Ints
from stream.features.terms import OverTime
from stream.scores.declare import ORDERS, REVENUE, SILENCE
from stream.scores.logs import logs_of
from stream.scores.unusual import Farness, Usual

REACH = 4.0
"""Standard deviations from the mean at which an input's value is cut."""
MOST_LOG_ODDS = 12.0
MOST_LOG_BASKETS = 2.5
"""Twelve baskets: beyond them a sum of squares foretells hundreds to whoever has bought often."""
SHRINK_ORDERS = 3.0
"""A user's own mean order counts as much as the shop's when they have so many orders."""
LEAST_SPREAD = 1e-6
HALF, OF_SQUARES = 0.5, 1.25**-0.5
"""Mean of a normal variable's square above its mean, and one over the standard deviation of that."""
SHARE_GRID, MONEY_GRID = 2.0**20, 2.0**10
"""What is added up over users is rounded to parts of these: sums of billions of users, or of money up
to 2^43, are exact."""
ORDERED = 0.5
"""Orders, not taken back, from which a user is a customer: a count may carry rounding."""


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of each input in log units, over customers."""

    centre: Floats
    spread: Floats

    def terms(self, logs: Floats) -> Floats:
        """What weights are of, ``(n, 1 + 3 k)``: one, each input, its square above the mean and below it."""
        n, k = logs.shape
        found = np.empty((n, 1 + 3 * k))
        found[:, 0] = 1.0
        own, above, below = (found[:, 1 + place * k : 1 + (place + 1) * k] for place in range(3))
        np.subtract(logs, self.centre, out=own)
        own /= self.spread
        np.clip(own, -REACH, REACH, out=own)
        np.maximum(own, 0.0, out=above)
        np.minimum(own, 0.0, out=below)
        np.square(above, out=above)
        above -= HALF
        np.square(below, out=below)
        np.subtract(HALF, below, out=below)
        found[:, 1 + k :] *= OF_SQUARES
        return found


SIGNS: Mapping[OverTime, float] = {
    "stays": 0.0, "ages": 0.0, "moves": 0.0, "rises": -1.0, "falls": 1.0,
}  # fmt: skip
"""Of the weights of an input that goes on so in silence, if a score is to fall with it."""


def signs_of(turns: Sequence[OverTime], *, falls: bool = True) -> Floats:
    """Which sign each weight may have, ``(1 + 3 k,)``: 1, -1, or 0 for either.

    Args:
        turns: how each input goes on for somebody who does nothing.
        falls: whether a score is to fall with that.
    """
    signs = [SIGNS[turn] * falls for turn in turns]
    return np.array([0.0, *signs, *signs, *signs])


def read(
    vectors: Floats, features: Sequence[str], inputs: Sequence[str], turns: Sequence[OverTime]
) -> Floats:
    """Inputs in natural units, ``(n, k)``, such that the silence of somebody moves each one way or not at all.

    An age is taken as of the last order, and what fades is at least nothing.

    Args:
        vectors: ``(n, features)`` in natural units.
        turns: how each input goes on for somebody who does nothing.
    """
    found: Floats = vectors.take([features.index(name) for name in inputs], axis=1)
    for column, turn in enumerate(turns):
        if turn == "ages":
            found[:, column] -= vectors[:, features.index(SILENCE)]
        if turn in {"ages", "falls"}:
            np.maximum(found[:, column], 0.0, out=found[:, column])
    return found


def summed(terms: Floats, weights: Floats) -> Floats:
    """Weighted terms of each user; the same to the bit however many users there are."""
    found: Floats = np.einsum("nk,k->n", terms, weights)
    return found


def probability(log_odds: Floats) -> Floats:
    """Of log-odds."""
    found: Floats = 1.0 / (1.0 + np.exp(-np.clip(log_odds, -MOST_LOG_ODDS, MOST_LOG_ODDS)))
    return found


def baskets(log_baskets: Floats) -> Floats:
    """How many of their usual baskets whoever buys takes home."""
    found: Floats = np.exp(np.clip(log_baskets, -MOST_LOG_BASKETS, MOST_LOG_BASKETS))
    return found


def usual_basket(revenue: Floats, orders: Floats, usual: float) -> Floats:
    """What an order of each user is worth: their own mean, drawn to the shop's.

    Args:
        usual: of the shop.
    """
    money, count = np.maximum(revenue, 0.0), np.maximum(orders, 0.0)
    found: Floats = (money + SHRINK_ORDERS * usual) / (count + SHRINK_ORDERS)
    return found


@dataclass(frozen=True)
class LearnedScore:
    """One score, as it was learned.

    Attributes:
        days: of the horizon; None of unusual, which is of today, and has nothing below but `labels`.
        buy: weights of the log-odds, see `Scale.terms`.
        worth: weights of the log of baskets; empty for a probability.
        base: the share of customers who bought within the horizon, lately.
        labels: looks it was learned from; of unusual, users.
        auc, log_loss, calibration: of the last predictions, each made before anything was known of
            what came of it, see `progress`; None where there is nothing to tell.
        captured, total: the same of predicted money.
    """

    name: str
    of: Literal["buy", "spend", "unusual"]
    days: float | None
    buy: tuple[float, ...] = ()
    worth: tuple[float, ...] = ()
    base: float = 0.0
    labels: int = 0
    auc: float | None = None
    log_loss: float | None = None
    calibration: float | None = None
    captured: float | None = None
    total: float | None = None


class Explained(NamedTuple):
    """A user's score and what carries it.

    Attributes:
        value: of the score.
        log_odds: of an order within its horizon; it is `base` and all `parts`.
        base: log-odds of a customer who is average in every input.
        parts: what each input adds, in log-odds.
    """

    value: float
    log_odds: float
    base: float
    parts: dict[str, float]


@dataclass(frozen=True)
class Scores:
    """Every score that has been learned, with what is needed to evaluate it.

    Attributes:
        inputs: features, by column of the scale.
        turns: how each goes on for somebody who does nothing.
        usual: money of an order in the shop.
        learned: at least one.
        people: what is usual, where one of them is unusual.
    """

    inputs: tuple[str, ...]
    turns: tuple[OverTime, ...]
    centre: tuple[float, ...]
    spread: tuple[float, ...]
    usual: float
    learned: tuple[LearnedScore, ...]
    people: Usual | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(score.name for score in self.learned)

    @cached_property
    def _scale(self) -> Scale:
        return Scale(np.array(self.centre), np.array(self.spread))

    @cached_property
    def _weights(self) -> list[tuple[Floats, Floats | None]]:
        return [
            (np.array(score.buy), np.array(score.worth) if score.worth else None)
            for score in self.learned
        ]

    @cached_property
    def _of_orders(self) -> tuple[int, ...]:
        """Columns of what is foretold, of customers alone."""
        return tuple(at for at, score in enumerate(self.learned) if score.of != "unusual")

    @cached_property
    def falling(self) -> frozenset[str]:
        """Names of scores that are bound to fall for whoever does nothing."""
        if "moves" in self.turns:
            return frozenset()
        signs = signs_of(self.turns)
        return frozenset(
            self.names[column]
            for column in self._of_orders
            if all(
                weights is None or bool((weights * signs >= 0.0).all())
                for weights in self._weights[column]
            )
        )

    @cached_property
    def _of_everyone(self) -> tuple[tuple[int, Usual], ...]:
        """Columns of what everybody has."""
        people = self.people
        return tuple(
            (at, people)
            for at, score in enumerate(self.learned)
            if score.of == "unusual" and people is not None
        )

    def people_of(self, name: str) -> Usual | None:
        """What is usual, if a score says how unusual somebody is; None if it is foretold."""
        return next((people for at, people in self._of_everyone if self.names[at] == name), None)

    def readable(self, features: Sequence[str]) -> bool:
        """Whether a feature table has what the scores are computed from."""
        orders = {*self.inputs, ORDERS, REVENUE, SILENCE} if self._of_orders else set()
        habits = self.people.inputs if self._of_everyone and self.people is not None else ()
        return {*orders, *habits} <= set(features)

    def only(self, names: Collection[str]) -> Scores | None:
        """Those of some names; None for none of them."""
        learned = tuple(score for score in self.learned if score.name in names)
        return replace(self, learned=learned) if learned else None

    def evaluate(self, vectors: Floats, features: Sequence[str]) -> Floats:
        """Scores of users, ``(n, scores)``; of whoever has not ordered NaN, but for unusual.

        Args:
            vectors: ``(n, features)`` in natural units.
        """
        found = np.full((len(vectors), len(self.learned)), np.nan)
        if self._of_orders:
            who = np.flatnonzero(have_ordered(vectors, features))
            if len(who):
                found[who] = self._of_customers(vectors[who], features)
        for column, people in self._of_everyone:
            found[:, column] = people.evaluate(vectors, features)
        return found

    def _of_customers(self, vectors: Floats, features: Sequence[str]) -> Floats:
        terms = self._terms(vectors, features)
        found = np.full((len(vectors), len(self.learned)), np.nan)
        for column in self._of_orders:
            buy, worth = self._weights[column]
            found[:, column] = probability(summed(terms, buy))
            if worth is not None:
                revenue, orders = (vectors[:, features.index(one)] for one in (REVENUE, ORDERS))
                found[:, column] *= usual_basket(revenue, orders, self.usual)
                found[:, column] *= baskets(summed(terms, worth))
        return found

    def _terms(self, vectors: Floats, features: Sequence[str]) -> Floats:
        return self._scale.terms(logs_of(read(vectors, features, self.inputs, self.turns)))

    def totals(
        self, vectors: Floats, features: Sequence[str], columns: Ints, segments: int
    ) -> Floats:
        """Of each segment, customers, users, and the sum of each score, ``(segments, 2 + scores)``.

        The sum is over whoever has the score: of unusual, all users, else customers.

        Sums are exact, so they do not depend on how users are divided among owners.

        Args:
            columns: ``(n,)`` of each one's segment; -1 for none.
        """
        found = np.zeros((segments, 2 + len(self.learned)))
        members = np.flatnonzero(columns >= 0)
        if len(members) == 0:
            return found
        here = columns[members]
        values = self.evaluate(vectors.take(members, axis=0), features)
        found[:, 1] = np.bincount(here, minlength=segments)
        for place, score in enumerate(self.learned):
            grid = MONEY_GRID if score.of == "spend" else SHARE_GRID
            have = np.flatnonzero(~np.isnan(values[:, place]))
            rounded = np.rint(values[have, place] * grid) / grid
            found[:, 2 + place] = np.bincount(here[have], rounded, minlength=segments)
            if score.of != "unusual":
                found[:, 0] = np.bincount(here[have], minlength=segments)
        return found

    def explain(self, vector: Floats, features: Sequence[str]) -> dict[str, Explained]:
        """What carries each score of one user that is foretold; empty for whoever has not ordered.

        Args:
            vector: ``(features,)`` in natural units.
        """
        vectors = vector[None, :]
        if not self._of_orders or not have_ordered(vectors, features)[0]:
            return {}
        values = self._of_customers(vectors, features)[0].tolist()
        found = {}
        for column in self._of_orders:
            name, value = self.learned[column].name, values[column]
            carried, base = self.carried(name, vectors, features)
            parts = dict(zip(self.inputs, carried[0].tolist(), strict=True))
            found[name] = Explained(value, base + sum(parts.values()), base, parts)
        return found

    def carried(self, name: str, vectors: Floats, features: Sequence[str]) -> tuple[Floats, float]:
        """What each input adds to a score's log-odds, ``(n, inputs)``; and those of an average customer.

        Args:
            vectors: ``(n, features)`` of customers, in natural units.
        """
        terms, k = self._terms(vectors, features), len(self.inputs)
        buy, _ = self._weights[self.names.index(name)]
        # An input at the mean has squares of nothing, and so terms for them.
        at_mean = self._scale.terms(self._scale.centre[None, :])[0]
        carried = (buy * (terms - at_mean))[:, 1:]
        return carried.reshape(-1, 3, k).sum(axis=1), float(buy @ at_mean)

    def how_unusual(self, vector: Floats, features: Sequence[str]) -> Farness | None:
        """How unusual one user is, and what makes it; None if that is no score here."""
        found = [people.explain(vector, features) for _, people in self._of_everyone]
        return found[0] if found else None

    def with_unusual(self, name: str, people: Usual) -> Scores:
        """With a score more, which says how unusual somebody is."""
        added = LearnedScore(name, "unusual", None, labels=people.users)
        return replace(self, learned=(*self.learned, added), people=people)

    def without_unusual(self) -> Scores | None:
        """Those that are foretold; None for none."""
        learned = tuple(self.learned[column] for column in self._of_orders)
        return replace(self, learned=learned, people=None) if learned else None

    def to_json(self) -> dict[str, Any]:
        found = asdict(self)
        if self.people is None:
            del found["people"]
        return found

    @staticmethod
    def from_json(data: dict[str, Any]) -> Scores:
        return msgspec.convert(data, Scores)


NOTHING_FORETOLD = Scores((), (), (), (), 0.0, ())
"""Has no score yet."""


def have_ordered(vectors: Floats, features: Sequence[str]) -> Bools:
    """Who has an order that was not taken back, by the plain count; `rhythm` goes by the decayed one."""
    which: Bools = vectors[:, features.index(ORDERS)] > ORDERED
    return which
