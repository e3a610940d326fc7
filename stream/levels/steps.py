"""Says on which step of each level users are, and whether they have crossed a limit by enough.

Comes in: vectors in natural units, scores, and the step each user was told last. Goes out: the step each is on
now, a column a level, with the value that decided. It is published with the model, and read back to the bit.

A step's limit is a band, as wide as the slack says: who is below must rise over its upper edge to reach the step,
and who is on the step or above must fall under its lower edge to lose it. So whoever stays inside the band stays
where they are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from stream.events import Bools, Floats
from stream.scores.model import Scores
from stream.units import HOUR_MS

ROUNDING = 1e-9
"""A count of orders may be off a whole number by this much of it."""
NEAR_AN_HOUR, NEAREST = 1e-3, 1e-6
"""Share of a limit that counts as being at it, see `KnownLevel.stays`: of an hour, and however short the time is."""
NOWHERE = -1
"""On no step: a score that a user has not."""
Places = npt.NDArray[np.int8]
Values = Mapping[str, Floats]
"""Of features and scores by their names, ``(n,)`` each."""


@dataclass(frozen=True)
class KnownStep:
    """A step with its limit in this shop.

    Attributes:
        of: feature or score that it looks at; empty for the last step.
        least: the limit, in the unit of that.
        learned: whether it is of a score.
    """

    name: str
    of: str = ""
    least: float = 0.0
    learned: bool = False


@dataclass(frozen=True)
class KnownRule:
    """Who is on a step whatever its limits say.

    Attributes:
        limits: feature, least and most of each; None for no limit.
    """

    step: str
    limits: tuple[tuple[str, float | None, float | None], ...]

    def holds(self, values: Values, there: Bools, slack: float) -> Bools:
        """Of whom it holds; who is on the step already may miss a limit by the slack."""
        found = np.ones(len(there), np.bool_)
        for name, least, most in self.limits:
            value = values[name]
            if least is not None:
                edge = least - abs(least) * (ROUNDING + slack * there)
                found &= value >= edge
            if most is not None:
                edge = most + abs(most) * (ROUNDING + slack * there)
                found &= value <= edge
        return found

    def edges(self, there: Bools, slack: float) -> list[tuple[str, Floats]]:
        """Of each limit the feature, and ``(n,)`` where it lies for whoever is on the step or is not."""
        return [
            (name, np.asarray(limit + sign * abs(limit) * (ROUNDING + slack * there), float))
            for name, least, most in self.limits
            for limit, sign in ((least, -1.0), (most, 1.0))
            if limit is not None
        ]


class Deciding(NamedTuple):
    """What took a user to a step: the value of a feature or score, and its limit."""

    of: str
    limit: float


@dataclass(frozen=True)
class KnownLevel:
    """A level with its limits in this shop.

    Attributes:
        steps: the highest first; the last one has no limit. One that is there twice, one behind the other, is
            reached by either limit; its place is the first.
        rules: that come before them, the first that holds.
        rest: name of the step of whoever has done nothing, where all begin; empty for none.
        declared: digest of the declaration that the limits were found by.
        since_ms: when they were.
    """

    name: str
    steps: tuple[KnownStep, ...]
    slack: float
    rest: str
    declared: str
    since_ms: int
    rules: tuple[KnownRule, ...] = ()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of the steps."""
        return tuple(step.name for step in self.steps)

    @cached_property
    def _places(self) -> Places:
        """Place of each step; of one that is there twice, the first."""
        return np.array([self.names.index(name) for name in self.names], np.int8)

    @cached_property
    def resting(self) -> int:
        """Place of the step where all begin."""
        return self.names.index(self.rest) if self.rest else NOWHERE

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """What its steps look at, each once."""
        return tuple(dict.fromkeys(step.of for step in self.steps[:-1]))

    @cached_property
    def asked(self) -> tuple[str, ...]:
        """Features that its rules look at, each once."""
        return tuple(dict.fromkeys(name for rule in self.rules for name, _, _ in rule.limits))

    def now(self, values: Values, before: Places, acted: Bools, models: Bools) -> Places:
        """Place of the step that each user is on.

        The weights of a score are learned, and tremble: a limit of one is reached by an act only, as nobody
        is told that they became better without having done anything; and a new model alone takes nobody over
        it who is not twice as far beyond.

        Args:
            values: of what it looks at, ``(n,)``; NaN where a user has none.
            before: ``(n,)`` place of the step that each was on; `NOWHERE` for none.
            acted, models: ``(n,)`` whether an act made us look at the user; whether a new model did.
        """
        found = np.full(len(before), len(self.steps) - 1, np.int8)
        # By the step before, and by whether an act, time or a model made us look.
        case = (before.astype(np.intp) + 1) * 3 + models * 2
        case += ~(acted | models)
        for place in range(len(self.steps) - 2, -1, -1):
            value = values[self.steps[place].of]
            np.copyto(found, self._places[place], where=value >= self._edges[place].take(case))
        for rule in reversed(self.rules):
            place = self.names.index(rule.step)
            found[rule.holds(values, before == place, self.slack)] = place
        for name in self._learned:
            np.copyto(found, NOWHERE, where=np.isnan(values[name]))
        return found

    def stays(
        self, values: Values, later: Values, before: Places, ahead_ms: int, one_way: Collection[str]
    ) -> Bools:
        """Who is sure to go over no limit by time alone, from one time to another that is near.

        What goes one way does not reach a limit that it is on the same side of at both times. All else goes
        nearly straight in between: whoever is farther from every limit at both times than the way from one to the
        other, and a little more, does not reach it. What is the same at both does not move.

        Args:
            values, later: as `now` takes them, of both times.
            before: as `now` takes it.
            ahead_ms: from the one time to the other.
            one_way: what is known to only rise, or only fall.
        """
        found = np.ones(len(before), np.bool_)
        # How far it can be from straight grows with the time, if not with its square.
        share = max(NEAR_AN_HOUR * ahead_ms / HOUR_MS, NEAREST)
        by_time = (before.astype(np.intp) + 1) * 3 + 1
        limits = [
            (step.of, self._edges[place].take(by_time))
            for place, step in enumerate(self.steps[:-1])
        ]
        for rule in self.rules:
            there = before == self.names.index(rule.step)
            limits += rule.edges(there, self.slack)
        for name, edge in limits:
            value, then = values[name], later[name]
            found &= np.isnan(value) == np.isnan(then)
            if name in one_way:
                rounding = ROUNDING * np.abs(edge)
                beside = np.abs(value - edge) <= rounding
                beside |= np.abs(then - edge) <= rounding
                beside |= (value < edge) != (then < edge)
                found &= ~beside | np.isinf(edge) | (then == value)
                continue
            way = np.abs(then - value) + share * np.abs(edge)
            near = np.minimum(np.abs(value - edge), np.abs(then - edge)) <= way
            found &= ~near | np.isinf(edge) | (then == value)
        return found

    @cached_property
    def _learned(self) -> tuple[str, ...]:
        """Scores that are looked at, each once."""
        return tuple(dict.fromkeys(step.of for step in self.steps if step.learned))

    @cached_property
    def _edges(self) -> Floats:
        """What a value must reach for each step with a limit, by the case that a user is in, see `now`."""
        found = np.empty((len(self.steps) - 1, len(self.steps) + 1, 3))
        for place, step in enumerate(self.steps[:-1]):
            limit = step.least - abs(step.least) * ROUNDING
            band = abs(step.least) * self.slack
            # Who is nowhere yet has no side to leave.
            found[place, 0] = limit
            found[place, 1 : place + 2] = limit - band
            found[place, place + 2 :] = limit + band
            if step.learned:
                found[place, 1 : place + 2, 2] = limit - 2.0 * band
                found[place, place + 2 :, 1:] = np.inf
        return found.reshape(len(found), -1)

    def decided(self, before: Places, after: Places, values: Values) -> list[Deciding]:
        """What took each user from one place to another.

        Args:
            values: of what it looks at, ``(n,)``.
        """
        by: list[Deciding] = [Deciding(step.of, step.least) for step in self.steps[:-1]]
        # Whoever falls loses the limit of the step that they were on.
        rises = (before == NOWHERE) | (before > after)
        which = np.where(rises, np.minimum(after, len(by) - 1), before).astype(np.intp)
        which[after == NOWHERE] = 0
        for place in np.flatnonzero(np.diff(self._places) == 0).tolist():
            # Of a step that either of two limits leads to, the one that is reached by more, or lost by less.
            first = int(self._places[place])
            other = self._beyond(place + 1, values) > self._beyond(first, values)
            which[other & (which == first)] = place + 1
        for rule in reversed(self.rules):
            name, least, most = rule.limits[-1]
            held = rule.holds(values, np.zeros(len(after), np.bool_), 0.0)
            which[held & (after == self.names.index(rule.step))] = len(by)
            by.append(Deciding(name, (least if least is not None else most) or 0.0))
        return [by[place] for place in which.tolist()]

    def _beyond(self, place: int, values: Values) -> Floats:
        """By how much of a step's limit each value is beyond it."""
        step = self.steps[place]
        found: Floats = (values[step.of] - step.least) / max(abs(step.least), ROUNDING)
        return found


@dataclass(frozen=True)
class Levels:
    """Every level whose limits are known.

    Attributes:
        known: in the order in which they are declared.
        scores: that they look at; None where they look at none.
    """

    known: tuple[KnownLevel, ...]
    scores: Scores | None

    @staticmethod
    def of(known: Sequence[KnownLevel], scores: Scores | None) -> Levels:
        """Levels, and of all scores those that they look at."""
        inputs = {name for level in known for name in level.inputs}
        return Levels(tuple(known), None if scores is None else scores.only(inputs))

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Features and scores that are looked at, each once."""
        found = (name for level in self.known for name in (*level.inputs, *level.asked))
        return tuple(dict.fromkeys(found))

    @cached_property
    def digest(self) -> str:
        """The same for levels that say the same of the same users."""
        scores = None if self.scores is None else self.scores.to_json()
        told = msgspec.json.encode([self.to_json(), scores])
        return blake2b(told, digest_size=8).hexdigest()

    def values(self, vectors: Floats, features: Sequence[str]) -> Values:
        """What levels look at; NaN for a score of whoever has not ordered.

        Args:
            vectors: ``(n, features)`` in natural units.
        """
        found: dict[str, Floats] = {}
        if self.scores is not None:
            scored = self.scores.evaluate(vectors, features)
            found = dict(zip(self.scores.names, scored.T, strict=True))
        for name in self.inputs:
            if name not in found:
                found[name] = vectors[:, features.index(name)]
        return found

    def to_json(self) -> list[dict[str, Any]]:
        return [asdict(level) for level in self.known]

    @staticmethod
    def from_json(data: Sequence[dict[str, Any]], scores: Scores | None) -> Levels:
        return Levels.of([msgspec.convert(one, KnownLevel) for one in data], scores)


NO_LEVELS = Levels((), None)
