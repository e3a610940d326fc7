"""A step of learning scores: what is over is judged and learned from, and customers are looked at anew.

Comes in: a `Sample` of users, once in a while, and what was known before. Goes out: a `Learner`, the looks
that wait, and the `Scores` to publish. A step is a pure function, so a restart, a takeover and a replay come to the same;
`rounds` takes one where it is due.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np

from stream.clustering import ALL_HASHES
from stream.events import Bools, Floats, Hashes, Ints
from stream.learning.statistics import Sample
from stream.scores.declare import ORDERS, REVENUE, SILENCE, Wanted
from stream.scores.learner import FADING, Ahead, Learner
from stream.scores.logs import logs_of
from stream.scores.looks import Looks, Over, Segments, Sight, Small, seen
from stream.scores.model import (
    LearnedScore,
    Scores,
    baskets,
    have_ordered,
    probability,
    read,
    signs_of,
    summed,
    usual_basket,
)
from stream.scores.progress import Came, Horizon, judged, judged_money
from stream.units import DAY_MS

NO_LOOKS = Looks.none("", 0, 0)


def due(known: Learner, wanted: Wanted, at_ms: int) -> bool:
    """Whether a sample of a time is to be learned from: one a day is enough.

    A clock that was ahead and is put back is followed, or nothing would be learned until it is reached.
    """
    return known.meaning != wanted.meaning or at_ms // DAY_MS != known.step


def advance(
    known: Learner,
    looks: Looks,
    sample: Sample,
    features: Sequence[str],
    wanted: Wanted,
    sample_users: int,
) -> tuple[Learner, Looks]:
    """What is known, and what waits, after another sample.

    Args:
        sample_users: of each population; one that has so many in the sample has more than these.
    """
    if known.meaning != wanted.meaning:
        known = Learner.begun(wanted.meaning, wanted.days)
    if looks.meaning != wanted.meaning:
        looks = Looks.none(wanted.meaning, len(wanted.inputs), len(wanted.days))
    order = np.argsort(sample.hashes, kind="stable")
    hashes, vectors = sample.hashes[order], sample.vectors[order]
    silence, revenue = (vectors[:, features.index(name)] for name in (SILENCE, REVENUE))
    looks, over = seen(looks, Sight(sample.at_ms, hashes, silence, revenue), wanted.days)
    known = _learned(known, over, signs_of(wanted.turns, falls=wanted.falls))
    limit = _known_up_to(sample, have_ordered(sample.vectors, features), sample_users)
    followed = np.flatnonzero(have_ordered(vectors, features) & (hashes <= limit))[: wanted.users]
    known = _with_usual(known, vectors[followed], features)
    today = sample.at_ms // DAY_MS
    who = followed[_turn(hashes[followed], known.step, today, wanted.look_days)]
    inputs = read(vectors[who], features, wanted.inputs, wanted.turns)
    logs = logs_of(inputs).astype(np.float32)
    moments = known.moments.after(logs.astype(float))
    known = msgspec.structs.replace(known, step=today, moments=moments)
    orders = vectors[who][:, features.index(ORDERS)]
    basket = usual_basket(revenue[who], orders, known.usual)
    more = _looks(known, looks, wanted, sample.at_ms, hashes[who], logs, revenue[who], basket)
    more = replace(more, segments=sample.segments[order][who].astype(np.int32))
    return known, looks.with_more(more)


def _known_up_to(sample: Sample, ordered: Bools, users: int) -> int:
    """The hash up to which customers are in the sample, whichever population of customers they go to.

    Beyond it, whoever goes to another one is lost on the way: who comes back, or who does not. A
    population without any customer is none that they go to.

    Args:
        ordered: which of the sample are customers.
    """
    limit = ALL_HASHES
    for place in np.unique(sample.populations[ordered]).tolist():
        hashes = sample.hashes[sample.populations == place]
        if len(hashes) >= users:
            limit = min(limit, int(hashes.max()))
    return limit


def _turn(hashes: Hashes, before: int, today: int, every: int) -> Ints:
    """Places of those whose turn it is, of users who are looked at on one day of so many each."""
    days = range(max(before + 1, today - every + 1) if before else today, today + 1)
    turn = np.isin(hashes % np.uint64(every), np.array([day % every for day in days], np.uint64))
    return np.flatnonzero(turn)


def _learned(known: Learner, over: Sequence[Over], signs: Floats) -> Learner:
    if not known.moments.count:
        return known
    scale = known.moments.scale()
    ahead = tuple(
        one.after(scale.terms(came.logs), came.bought, came.worth, signs)
        for one, came in zip(known.ahead, over, strict=True)
    )
    return msgspec.structs.replace(known, ahead=ahead)


def _with_usual(known: Learner, customers: Floats, features: Sequence[str]) -> Learner:
    """With the money of an order in the shop, which follows slowly."""
    revenue, orders = (customers[:, features.index(name)] for name in (REVENUE, ORDERS))
    if len(customers) == 0 or revenue.sum() <= 0:
        return known
    now = float(np.maximum(revenue, 0.0).sum() / orders.sum())
    kept = FADING ** len(customers) if known.usual else 0.0
    return msgspec.structs.replace(known, usual=kept * known.usual + (1.0 - kept) * now)


def _looks(
    known: Learner,
    looks: Looks,
    wanted: Wanted,
    at_ms: int,
    hashes: Hashes,
    logs: Small,
    revenue: Floats,
    basket: Floats,
) -> Looks:
    """New looks, with what is predicted at them."""
    n, shape = len(hashes), (len(hashes), len(known.ahead))
    predicted, foretold = (np.full(shape, np.nan, np.float32) for _ in range(2))
    if n:
        terms = known.moments.scale().terms(logs.astype(float))
        for column, one in enumerate(known.ahead):
            if one.knows(wanted.least):
                likely = _likely(one, terms)
                predicted[:, column] = likely
                foretold[:, column] = likely * basket * _baskets(one, terms)
    return Looks(
        looks.meaning, np.full(n, at_ms, np.int64), hashes, logs, revenue, basket, predicted,
        foretold, np.zeros(shape, np.float32), np.zeros(shape, np.bool_),
        np.zeros(shape, np.bool_), np.zeros(n, np.int32), looks.judged, looks.judged_in,
    )  # fmt: skip


def _likely(one: Ahead, terms: Floats) -> Floats:
    return probability(summed(terms, np.array(one.buy.weights)))


def _baskets(one: Ahead, terms: Floats) -> Floats:
    return baskets(summed(terms, np.array(one.worth.weights)))


def came_back(looks: Looks, wanted: Wanted) -> tuple[Horizon, ...]:
    """What came of the last looks at the people of each segment, beside what was foretold of them."""
    return tuple(
        Horizon(days, _by_segment(looks.judged[place].astype(float), looks.judged_in[place]))
        for place, days in enumerate(wanted.days if len(looks.judged) else ())
    )


def _by_segment(judged: Floats, segments: Segments) -> dict[int, Came]:
    there = np.isfinite(judged[0]) & (segments > 0)
    ids, place = np.unique(segments[there], return_inverse=True)
    looks = np.bincount(place, minlength=len(ids))
    sums = [np.bincount(place, one[there], len(ids)).tolist() for one in judged]
    return {
        segment: Came(*told)
        for segment, *told in zip(ids.tolist(), looks.tolist(), *sums, strict=True)
    }


def published(known: Learner, looks: Looks, wanted: Wanted) -> Scores | None:
    """What has been learned; without scores of which too little was seen, None without any."""
    if known.meaning != wanted.meaning:
        return None
    learned = []
    for score in wanted.scores:
        if score.days is None:
            continue
        column = wanted.days.index(score.days)
        one = known.ahead[column]
        if not one.knows(wanted.least):
            continue
        past = looks.judged[column]
        past = past[:, np.isfinite(past[0])].astype(float)
        found = judged(past[0], past[1])
        told = LearnedScore(
            score.name, score.of, score.days, one.buy.weights, (), one.base, one.labels,
            *(found or ()),
        )  # fmt: skip
        if score.of == "spend":
            worth = judged_money(past[2], past[3])
            told = replace(
                told,
                worth=one.worth.weights,
                captured=None if worth is None else worth.captured,
                total=None if worth is None else worth.total,
            )
        learned.append(told)
    if not learned:
        return None
    scale = known.moments.scale()
    return Scores(
        wanted.inputs, wanted.turns, tuple(scale.centre.tolist()), tuple(scale.spread.tolist()),
        known.usual, tuple(learned),
    )  # fmt: skip
