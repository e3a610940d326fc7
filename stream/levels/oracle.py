"""Says on which steps somebody may be, in plain Python: slow, and with none of the code that it holds to account.

Comes in: levels of a model, and a user's features as the log comes to them. Goes out: what is wrong with a step that
is stored, in words. The audit asks. Only the declaration is shared.

A step depends on the path: within a limit's band whoever is on a step stays there, and a limit of a score is
reached by an act only. So several steps may be right; this knows which are not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from stream.levels.steps import KnownLevel, KnownRule, KnownStep
from stream.scores.model import Scores
from stream.scores.unusual import Habits, Usual

ROUNDING = 1e-6
"""Share of a limit by which the log may come to another value than the owner."""
ORDERED = 0.5
"""Orders above which somebody has ordered."""
REACH, MOST_LOG_ODDS, MOST_LOG_BASKETS, SHRINK_ORDERS = 4.0, 12.0, 2.5, 3.0
NOT_DONE = 1e-3
"""As the definitions of scores have them (`stream.scores.model`, `stream.scores.unusual`), written down again to hold
them to it."""

Values = Mapping[str, float | None]


def values(scores: Scores | None, features: Mapping[str, float]) -> list[Values]:
    """Features, and scores computed from them; None for a score that the user does not have.

    More than one answer where rounding decides among which people somebody is.
    """
    told: dict[str, float | None] = dict(features)
    if scores is None:
        return [told]
    for score in scores.learned:
        if score.of == "unusual":
            continue
        if features["orders_total"] <= ORDERED:
            told[score.name] = None
            continue
        terms = _terms(scores, features)
        odds = _cut(math.fsum(map(_product, zip(score.buy, terms, strict=True))), MOST_LOG_ODDS)
        value = 1.0 / (1.0 + math.exp(-odds))
        if score.of == "spend":
            money, orders = max(features["revenue_total"], 0.0), features["orders_total"]
            basket = (money + SHRINK_ORDERS * scores.usual) / (orders + SHRINK_ORDERS)
            more = math.fsum(map(_product, zip(score.worth, terms, strict=True)))
            value *= basket * math.exp(_cut(more, MOST_LOG_BASKETS))
        told[score.name] = value
    found: list[Values] = [told]
    for name in (score.name for score in scores.learned if score.of == "unusual"):
        assert scores.people is not None
        among = _unusual(scores.people, features)
        found = [{**one, name: value} for one in found for value in among]
    return found


def _unusual(people: Usual, features: Mapping[str, float]) -> list[float]:
    """How unusual somebody is among the people who are nearest; of several that are as near, among each."""
    logs = [_log(features[name]) for name in people.inputs]
    squared = [math.fsum(one * one for one in _away(logs, habits)) for habits in people.habits]
    nearest = min(squared) + ROUNDING * max(min(squared), 1.0)
    return [
        _share_below(people, _distance(people, logs, habits))
        for habits, one in zip(people.habits, squared, strict=True)
        if one <= nearest
    ]


def _away(logs: Sequence[float], habits: Habits) -> list[float]:
    return [
        (log - centre) / spread
        for log, centre, spread in zip(logs, habits.centre, habits.spread, strict=True)
    ]


def _distance(people: Usual, logs: Sequence[float], habits: Habits) -> float:
    away = [
        0.0 if abs(log) <= NOT_DONE else one
        for log, one in zip(logs, _away(logs, habits), strict=True)
    ]
    apart = [math.fsum(map(_product, zip(row, away, strict=True))) for row in people.whitening]
    return math.sqrt(math.fsum(one * one for one in apart) / len(logs))


def _share_below(people: Usual, distance: float) -> float:
    """Share of users who are less far: on a straight line from mark to mark, and by the tail beyond the last."""
    marks = list(zip(people.distances, people.shares, strict=True))
    last, share = marks[-1]
    if distance > last:
        return 1.0 - (1.0 - share) * math.pow(distance / last, -1.0 / people.tail)
    if distance <= marks[0][0]:
        return marks[0][1]
    for (near, less), (far, more) in pairwise(marks):
        if distance <= far:
            return less + (more - less) * (distance - near) / (far - near)
    return share


def _terms(scores: Scores, features: Mapping[str, float]) -> list[float]:
    own = []
    for name, turn, centre, spread in zip(
        scores.inputs, scores.turns, scores.centre, scores.spread, strict=True
    ):
        value = features[name]
        if turn == "ages":
            value -= features["days_since_order"]
        if turn in {"ages", "falls"}:
            value = max(value, 0.0)
        own.append(_cut((_log(value) - centre) / spread, REACH))
    above = [(max(one, 0.0) ** 2 - 0.5) / math.sqrt(1.25) for one in own]
    below = [(0.5 - min(one, 0.0) ** 2) / math.sqrt(1.25) for one in own]
    return [1.0, *own, *above, *below]


def _log(value: float) -> float:
    return math.copysign(math.log1p(abs(value)), value)


def _cut(value: float, most: float) -> float:
    return min(max(value, -most), most)


def _product(pair: tuple[float, float]) -> float:
    return pair[0] * pair[1]


def fault_of(level: KnownLevel, step: str | None, told: Values) -> str:
    """What is wrong with being on a step after a look, in words; empty for nothing.

    Args:
        step: None for none.
        told: one answer of `values`; what the level looks at has to be there.
    """
    learned = [told[one.of] for one in level.steps[:-1] if one.learned]
    if None in learned or step is None:
        if step is not None:
            return f"on {step} of {level.name}, and has no score that it looks at"
        return "" if None in learned else f"on no step of {level.name}, and has all it looks at"
    names = [one.name for one in level.steps]
    for rule in level.rules:
        there = step == rule.step
        if _holds(rule, told, level.slack if there else 0.0, sure=not there):
            return "" if there else f"on {step} of {level.name}, and a rule says {rule.step}"
        if there and _holds(rule, told, level.slack, sure=False):
            return ""
    place = names.index(step)
    for higher in level.steps[:place]:
        if not higher.learned and _is_reached(higher, told, 1.0 + _part(higher, level.slack)):
            return f"on {step} of {level.name}, and has reached {higher.name}"
    here = [one for one in level.steps[:-1] if one.name == step]
    # A model alone takes a limit of a score away at twice the slack only.
    if here and not any(
        _is_reached(one, told, 1.0 - _part(one, (1.0 + one.learned) * level.slack), lenient=True)
        for one in here
    ):
        return f"on {step} of {level.name}, and is below it"
    return ""


def _part(step: KnownStep, slack: float) -> float:
    return slack if step.least >= 0 else -slack


def _is_reached(step: KnownStep, told: Values, times: float, *, lenient: bool = False) -> bool:
    """Whether a limit is reached; for certain, unless it is asked leniently."""
    value, edge = told[step.of], step.least * times
    assert value is not None
    near = ROUNDING * max(abs(step.least), 1e-9)
    # Whoever is at it, such as with a whole number of orders, has reached it.
    return value >= edge + near or value == edge or (lenient and value >= edge - near)


def _holds(rule: KnownRule, told: Values, slack: float, *, sure: bool) -> bool:
    """Whether a rule holds; if it must be sure, by more than rounding."""
    for name, least, most in rule.limits:
        value = told[name]
        assert value is not None
        for limit, sign in ((least, 1.0), (most, -1.0)):
            if limit is None:
                continue
            edge = limit - sign * abs(limit) * slack
            near = ROUNDING * max(abs(limit), 1e-9) * (1.0 if sure else -1.0)
            if sign * (value - edge) < near:
                return False
    return True
