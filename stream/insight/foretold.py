"""What is foretold of a user and of a segment, how good that was so far, and what carries a score.

Comes in: a model with scores, vectors, and what owners counted. Goes out: facts. Where too little was seen
yet there is no score, and not one of zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np

from stream.events import Floats
from stream.features import FeatureTable
from stream.insight.facts import ScoreFacts, ScoreValue, ScoreWhy, SegmentScore, UnusualWhy
from stream.model import Model
from stream.scores.model import LearnedScore, Scores
from stream.scores.progress import Horizon

UNITS = {"buy": "probability", "spend": "money", "unusual": "share who are less far"}


def learned(model: Model) -> list[ScoreFacts]:
    """The scores there are, and how good each was so far."""
    scores = model.scores
    return [] if scores is None else [_learned(score) for score in scores.learned]


def _learned(score: LearnedScore) -> ScoreFacts:
    return {
        "score": score.name,
        "of": score.of,
        "days": score.days,
        "unit": UNITS[score.of],
        "labels": score.labels,
        "base": score.base,
        "auc": score.auc,
        "log_loss": score.log_loss,
        "calibration": score.calibration,
        "captured": score.captured,
        "total": score.total,
    }


def of_user(model: Model, vector: Floats, table: FeatureTable) -> list[ScoreValue]:
    """Scores of a user; of whoever has not ordered, only how unusual they are."""
    scores = _readable(model, table)
    if scores is None:
        return []
    values = scores.evaluate(vector[None, :], table.names)[0].tolist()
    return [
        {"score": score.name, "value": value, "unit": UNITS[score.of]}
        for score, value in zip(scores.learned, values, strict=True)
        if np.isfinite(value)
    ]


def why(model: Model, vector: Floats, table: FeatureTable) -> list[ScoreWhy]:
    """What carries each score of a user that is foretold, the largest part of either sign first."""
    scores = _readable(model, table)
    if scores is None:
        return []
    told = scores.explain(vector, table.names)
    units = dict(zip(table.names, table.units, strict=True))
    values = dict(zip(table.names, vector.tolist(), strict=True))
    return [
        {
            **_learned(score),
            "value": told[score.name].value,
            "log_odds": told[score.name].log_odds,
            "average": told[score.name].base,
            "parts": [
                {"feature": name, "value": values[name], "unit": units[name], "log_odds": part}
                for name, part in sorted(
                    told[score.name].parts.items(), key=lambda item: (-abs(item[1]), item[0])
                )
            ],
        }
        for score in scores.learned
        if score.name in told
    ]


def why_unusual(model: Model, vector: Floats, table: FeatureTable) -> UnusualWhy | None:
    """What makes a user unusual, the largest part first; None as long as too little was seen."""
    scores = _readable(model, table)
    found = None if scores is None else scores.how_unusual(vector, table.names)
    if found is None:
        return None
    units = dict(zip(table.names, table.units, strict=True))
    values = dict(zip(table.names, vector.tolist(), strict=True))
    like = model.by_id[found.segment]
    return {
        "segment": like.id,
        "name": like.name,
        "kind": like.kind,
        "value": found.value,
        "distance": math.sqrt(max(found.squared, 0.0)),
        "parts": [
            {
                "feature": name,
                "value": values[name],
                "usual": found.usual[name],
                "unit": units[name],
                "squared": part,
            }
            for name, part in sorted(found.parts.items(), key=lambda item: (-item[1], item[0]))
        ],
    }


def of_segment(
    model: Model, scored: Mapping[int, list[float]], segment: int, came: Sequence[Horizon] = ()
) -> list[SegmentScore]:
    """What scores come to in a segment, over all in it who have them, as owners counted them last.

    Args:
        came: what came of what was foretold before.
    """
    scores, counted = model.scores, scored.get(segment, [])
    if scores is None or len(counted) != 2 + len(scores.learned):
        return []
    customers, users, *sums = counted
    found: list[SegmentScore] = []
    for score, total in zip(scores.learned, sums, strict=True):
        members = users if score.of == "unusual" else customers
        if members <= 0:
            continue
        found.append(
            {
                "score": score.name,
                "unit": UNITS[score.of],
                "users": int(members),
                "mean": total / members,
                "total": total,
                **_came(score, came, segment),
            }
        )
    return found


class _Came(TypedDict):
    """Those fields of `SegmentScore` that tell of what is over."""

    looks: int
    foretold: float | None
    came: float | None


def _came(score: LearnedScore, came: Sequence[Horizon], segment: int) -> _Came:
    found = [
        one.segments[segment] for one in came if one.days == score.days and segment in one.segments
    ]
    if not found:
        return {"looks": 0, "foretold": None, "came": None}
    (told,) = found
    sums = (told.foretold, told.spent) if score.of == "spend" else (told.predicted, told.bought)
    before, after = (total / told.looks for total in sums)
    return {"looks": told.looks, "foretold": before, "came": after}


def _readable(model: Model, table: FeatureTable) -> Scores | None:
    scores = model.scores
    return scores if scores is not None and scores.readable(table.names) else None
