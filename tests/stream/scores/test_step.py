"""Steps learn what is true, forget nobody's erasure, keep a bounded store, and start again to the bit."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from stream.config import Settings
from stream.scores.declare import Score
from stream.scores.learner import Ahead, Learner, Moments
from stream.scores.looks import Looks
from stream.scores.model import LearnedScore, Scores, signs_of
from stream.scores.step import NO_LOOKS, advance, came_back, due, published
from stream.units import DAY_MS
from tests.stream.scores.making import FEATURES, START_MS, WANTED, Crowd
from tests.stream.test_partition import TABLE, history, steady

LAST = 110


def played(
    crowd: Crowd, days: range, known: Learner | None = None, looks: Looks = NO_LOOKS
) -> tuple[Learner, Looks]:
    known = known or Learner()
    for day in days:
        known, looks = advance(known, looks, crowd.sample(day), FEATURES, WANTED, 10_000)
    return known, looks


@pytest.fixture(scope="module")
def crowd() -> Crowd:
    return Crowd.random(300, seed=1)


@pytest.fixture(scope="module")
def learned(crowd: Crowd) -> tuple[Learner, Looks, Scores]:
    known, looks = played(crowd, range(1, LAST))
    scores = published(known, looks, WANTED)
    assert scores is not None
    return known, looks, scores


def test_it_learns_who_buys(crowd: Crowd, learned: tuple[Learner, Looks, Scores]) -> None:
    _, _, scores = learned
    assert scores.names == ("soon", "later", "money")
    sample = crowd.sample(LAST)
    soon, later, money = scores.evaluate(sample.vectors, FEATURES).T
    lucky = sample.vectors[:, 3] > 0
    # Who orders every eight days by chance does so within ten days with 71 %, with 98 % within thirty.
    assert abs(np.nanmean(soon[lucky]) - 0.71) < 0.08
    assert abs(np.nanmean(soon[~lucky]) - 0.15) < 0.08
    assert np.nanmean(later[lucky]) > 0.9
    expected = np.nanmean(money[lucky])
    assert 0.75 * 75 < expected < 1.25 * 75, "thirty days of an order for 20 every eight days"


def test_what_it_says_of_itself_is_of_predictions_made_before(
    learned: tuple[Learner, Looks, Scores],
) -> None:
    soon = learned[2].learned[0]
    assert soon.auc is not None
    assert soon.calibration is not None
    assert 0.75 < soon.auc < 0.9, "of luck alone it is .8; who peeks has more"
    assert soon.calibration < 0.08
    assert soon.labels > 1_000
    money = learned[2].learned[2]
    assert money.captured is not None
    assert money.total is not None
    assert money.captured > 0.12, (
        "half of them spend nearly all, so by chance a tenth spends a tenth"
    )
    assert 0.3 < money.total < 1.4, "it counts from the first prediction, which is cautious"


def test_of_each_segment_it_is_known_who_came_back(
    learned: tuple[Learner, Looks, Scores],
) -> None:
    looks = learned[1]
    soon, later = came_back(looks, WANTED)
    assert (soon.days, later.days) == WANTED.days
    assert soon.segments.keys() == later.segments.keys() == {1, 2}
    for horizon, judged in zip((soon, later), looks.judged, strict=True):
        for place, name in enumerate(("predicted", "bought", "foretold", "spent")):
            total = sum(getattr(one, name) for one in horizon.segments.values())
            assert total == pytest.approx(np.nansum(judged[place], dtype=float))
    for segment, share in ((1, 0.15), (2, 0.71)):
        told = soon.segments[segment]
        assert abs(told.bought / told.looks - share) < 0.08, "as many as do by chance"
        assert abs(told.predicted / told.looks - share) < 0.1
    assert came_back(NO_LOOKS, WANTED) == ()


def test_who_moves_counts_where_they_were_at_the_look() -> None:
    crowd = Crowd([[1.0, 12.0]] * 40, np.zeros(40))
    known, looks = advance(Learner(), NO_LOOKS, crowd.sample(1), FEATURES, WANTED, 10_000)
    looks = replace(looks, predicted=np.full_like(looks.predicted, 0.5))
    first = len(looks)
    assert first > 0
    moved = replace(crowd.sample(2 + WANTED.days[0]), segments=np.full(40, 9, np.int32))
    known, looks = advance(known, looks, moved, FEATURES, WANTED, 10_000)
    (soon, _) = came_back(looks, WANTED)
    assert {segment: one.looks for segment, one in soon.segments.items()} == {1: first}


def test_chance_is_not_foretold() -> None:
    """Where nothing tells who buys, predictions that were made before tell nothing either."""
    random = np.random.default_rng(8)
    days = [[1.0, *(2 + 10 * np.flatnonzero(random.random(20) < 0.5))] for _ in range(300)]
    crowd = Crowd(days, random.random(300))
    wanted = replace(WANTED, inputs=("lucky",))
    known, looks = Learner(), NO_LOOKS
    for day in range(1, 160):
        known, looks = advance(known, looks, crowd.sample(day), FEATURES, wanted, 10_000)
    scores = published(known, looks, wanted)
    assert scores is not None
    auc = scores.learned[0].auc
    assert auc is not None
    assert abs(auc - 0.5) < 0.04


def test_too_little_seen_is_no_score(crowd: Crowd) -> None:
    known, looks = played(crowd, range(1, 10))
    assert published(known, looks, WANTED) is None, "no horizon is over"
    known, looks = played(crowd, range(10, 28), known, looks)
    scores = published(known, looks, WANTED)
    assert scores is not None
    assert scores.names == ("soon",), "the longer one is not over for anybody"


def test_nobody_who_buys_is_too_little_too() -> None:
    crowd = Crowd([[1.0]] * 300, np.zeros(300))
    known, looks = played(crowd, range(1, 60))
    assert known.ahead[0].labels > 1_000
    assert published(known, looks, WANTED) is None


def test_starting_again_changes_no_bit(crowd: Crowd) -> None:
    whole = played(crowd, range(1, 70))
    known, looks = played(crowd, range(1, 40))
    known = msgspec.json.decode(msgspec.json.encode(known), type=Learner)
    parted = played(crowd, range(40, 70), known, Looks.unpack(looks.pack()))
    assert msgspec.json.encode(whole[0]) == msgspec.json.encode(parted[0])
    assert whole[1].pack() == parted[1].pack()


def test_the_order_of_a_sample_changes_no_bit(crowd: Crowd) -> None:
    """Of four workers, the sample comes in other parts than of one."""
    known, looks = Learner(), NO_LOOKS
    for day in range(1, 50):
        sample = crowd.sample(day)
        mixed = np.random.default_rng(day).permutation(len(sample))
        sample = replace(
            sample,
            hashes=sample.hashes[mixed],
            vectors=sample.vectors[mixed],
            segments=sample.segments[mixed],
        )
        known, looks = advance(known, looks, sample, FEATURES, WANTED, 10_000)
    plain = played(crowd, range(1, 50))
    assert msgspec.json.encode(known) == msgspec.json.encode(plain[0])
    assert looks.pack() == plain[1].pack()


def test_an_erased_user_leaves_no_look(crowd: Crowd) -> None:
    known, looks = played(crowd, range(1, 30))
    gone = int(np.flatnonzero(crowd.hashes == looks.hashes[0])[0])
    assert (looks.hashes == crowd.hashes[gone]).any()
    labels = known.ahead[1].labels
    known, looks = advance(known, looks, crowd.sample(30, gone=[gone]), FEATURES, WANTED, 10_000)
    assert not (looks.hashes == crowd.hashes[gone]).any()
    assert known.ahead[1].labels == labels


def test_what_waits_is_bounded(crowd: Crowd, learned: tuple[Learner, Looks, Scores]) -> None:
    few = replace(WANTED, users=100)
    known, looks = Learner(), NO_LOOKS
    for day in range(1, 80):
        known, looks = advance(known, looks, crowd.sample(day), FEATURES, few, 10_000)
        assert len(looks) <= 100 * (30 / 5 + 1)
    assert len(learned[1]) > len(looks)


def test_everyone_is_looked_at_once_in_so_many_days(crowd: Crowd) -> None:
    _, looks = played(crowd, range(30, 35))
    customers = sum(bool(days) and days[0] <= 30 for days in crowd.days)
    assert len(np.unique(looks.hashes)) == len(looks)
    assert len(looks) >= customers


def test_a_day_without_a_sample_is_made_up_for(crowd: Crowd) -> None:
    known, looks = played(crowd, range(30, 31))
    known, looks = played(crowd, range(34, 35), known, looks)
    who, times = np.unique(looks.hashes, return_counts=True)
    assert len(who) >= sum(bool(days) and days[0] <= 30 for days in crowd.days)
    assert times.max() == 1


def test_a_step_a_day_is_enough() -> None:
    known = Learner(WANTED.meaning, step=(START_MS // DAY_MS) + 5)
    assert not due(known, WANTED, START_MS + 5 * DAY_MS + 3_600_000)
    assert due(known, WANTED, START_MS + 6 * DAY_MS)
    assert due(known, WANTED, START_MS + 2 * DAY_MS), "a clock that was ahead is followed back"
    assert due(Learner(), WANTED, START_MS), "what is declared otherwise is begun at once"


def test_declared_otherwise_it_is_learned_anew(crowd: Crowd) -> None:
    known, looks = played(crowd, range(1, 30))
    other = replace(WANTED, scores=(Score(name="week", of="buy", days=7),))
    known, looks = advance(known, looks, crowd.sample(30), FEATURES, other, 10_000)
    assert [one.days for one in known.ahead] == [7.0]
    assert known.ahead[0].labels == 0
    assert looks.closed.shape[1] == 1
    named = replace(WANTED, scores=tuple(reversed(WANTED.scores)))
    assert named.meaning == WANTED.meaning, "a name and an order change nothing that was learned"


def test_whoever_may_leave_the_sample_is_not_followed(crowd: Crowd) -> None:
    """Of two populations the one has its fill: beyond its last hash, who goes there is lost."""
    sample = crowd.sample(40)
    order = np.argsort(sample.hashes)
    populations = np.zeros(len(sample), np.int64)
    populations[order[:100]] = 1
    divided = replace(sample, populations=populations)
    _, looks = advance(Learner(), NO_LOOKS, divided, FEATURES, WANTED, 100)
    full = sample.hashes[order[99]]
    assert len(looks)
    assert (looks.hashes <= full).all()


def test_a_crowd_of_visitors_keeps_nobody_from_being_followed(crowd: Crowd) -> None:
    """Their sample ends at a low hash, but no customer goes there."""
    sample = crowd.sample(6)
    visitors = sample.vectors[:, 1] == 0
    low = sample.hashes < np.median(sample.hashes)
    kept = low | ~visitors
    users = int((visitors & low).sum())
    customers = int((~visitors).sum())
    assert 10 < customers < users
    divided = replace(
        sample,
        hashes=sample.hashes[kept],
        vectors=sample.vectors[kept],
        populations=visitors[kept].astype(np.int64),
    )
    every_day = replace(WANTED, look_days=1)
    _, looks = advance(Learner(), NO_LOOKS, divided, FEATURES, every_day, users)
    assert len(looks) == customers


def test_silence_lowers_a_score(learned: tuple[Learner, Looks, Scores]) -> None:
    silent = np.array([[days, 5.0, 100.0, 1.0] for days in (2, 8, 16, 32)])
    soon = learned[2].evaluate(silent, FEATURES)[:, 0]
    assert (np.diff(soon) < 0).all()


@pytest.mark.parametrize("falls", [True, False])
def test_it_falls_in_a_shop_where_the_silent_come_back_unless_that_is_wanted(
    falls: bool,
) -> None:
    """Everybody orders every 40 days: the longer somebody is silent, the sooner they order."""
    days = [(begin + np.arange(40) * 40.0).tolist() for begin in np.linspace(0.5, 40, 200)]
    yearly = Crowd(days, np.zeros(200))
    wanted = replace(WANTED, falls=falls)
    known, looks = Learner(), NO_LOOKS
    for day in range(45, 300):
        known, looks = advance(known, looks, yearly.sample(day), FEATURES, wanted, 10_000)
    scores = published(known, looks, wanted)
    assert scores is not None
    silent = np.array([[silence, 5.0, 100.0, 0.0] for silence in np.linspace(0, 400, 300)])
    for column in scores.evaluate(silent, FEATURES).T:
        assert falls == (np.diff(column) <= 1e-9 * column[0]).all()


@pytest.mark.parametrize("seed", range(3))
def test_whatever_was_learned_and_of_whom_falls_with_silence(seed: int) -> None:
    """Labels by chance, weights large, and the features of a shop as time moves them."""
    random = np.random.default_rng(seed)
    wanted = Settings().foretold()
    k, users = len(wanted.inputs), 400
    assert set(wanted.turns) == {"stays", "rises", "falls", "ages"}
    signs = signs_of(wanted.turns, falls=True)
    known = Learner(moments=Moments().after(random.normal(1.0, 0.5, (users, k))))
    terms = known.moments.scale().terms(random.normal(1.0, 2.0, (users, k)))
    ahead = Ahead(90.0).after(
        terms, random.integers(0, 2, users).astype(float), random.exponential(1.0, users), signs
    )
    assert np.count_nonzero(ahead.buy.weights) > k
    scores = Scores(
        wanted.inputs,
        wanted.turns,
        (1.0,) * k,
        (0.5,) * k,
        30.0,
        (
            LearnedScore("buys", "buy", 90.0, ahead.buy.weights),
            LearnedScore("spends", "spend", 90.0, ahead.buy.weights, ahead.worth.weights),
        ),
    )
    rows, last_ms = steady().partition.rows, history()[-1].now_ms
    found = np.array(
        [
            scores.evaluate(TABLE.vectors(rows, last_ms + day * DAY_MS), TABLE.names)
            for day in range(0, 800, 5)
        ]
    )
    ordered = np.isfinite(found[0, :, 0])
    assert ordered.sum() > len(rows) // 3
    found = found[:, ordered]
    assert (np.diff(found, axis=0) <= 1e-9 * found[:-1]).all()
    assert (found[-1] < found[0]).mean() > 0.9


def test_running_moments_are_those_of_all() -> None:
    logs = np.random.default_rng(4).normal(2.0, 3.0, (500, 3))
    found = Moments()
    for part in np.array_split(logs, 9):
        found = found.after(part)
    scale = found.scale()
    assert np.allclose(scale.centre, logs.mean(axis=0))
    assert np.allclose(scale.spread, logs.std(axis=0))


def test_a_wholesaler_does_not_teach_the_shop() -> None:
    terms, one = np.ones((160, 1)), np.ones(160)
    worth = np.where(np.arange(160) % 16 == 0, 10_000.0, 1.0)
    weight = Ahead(30.0).after(terms, one, worth, np.zeros(1)).worth.weights[0]
    assert weight < 2.0
