"""Who is unusual is told by what they do, whoever does it, and by nothing else."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from scipy.stats import rankdata

from stream.clustering import FeatureMap
from stream.events import Floats, Ints
from stream.scores import unusual
from stream.scores.model import NOTHING_FORETOLD, Scores
from stream.scores.unusual import Usual

FEATURES = ("silence", "orders", "money", "views")
INPUTS = ("orders", "money", "views")


def shop(users: int = 1_200, seed: int = 3) -> tuple[Floats, Ints]:
    """Buyers, who spend as they order, in segment 4; and those who look only, in segment 9."""
    random = np.random.default_rng(seed)
    buys = np.arange(users) % 3 > 0
    orders = np.where(buys, np.exp(random.normal(1.5, 0.5, users)), 0.0)
    money = orders * np.exp(random.normal(3.5, 0.3, users))
    views = np.exp(random.normal(np.where(buys, 1.0, 2.5), 0.6, users))
    silence = random.exponential(20.0, users)
    return np.column_stack([silence, orders, money, views]), np.where(buys, 4, 9)


def learned(vectors: Floats, segments: Ints, each: Floats | None = None) -> Usual:
    weights = np.ones(len(vectors)) if each is None else each
    found = unusual.learn(vectors, FEATURES, segments, weights, INPUTS)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def usual() -> Usual:
    return learned(*shop())


def test_it_is_the_share_of_the_sample_that_is_less_far(usual: Usual) -> None:
    vectors, _ = shop()
    ranks = (rankdata(usual.distance(vectors, FEATURES)) - 1) / len(vectors)
    told = usual.evaluate(vectors, FEATURES)
    assert np.abs(told - ranks).max() < 0.04, "marks lie a quarter apart at the most"
    last = ranks > 0.9
    assert np.abs(told - ranks)[last].max() < 0.01, "where it counts they are near"
    assert told.max() < 1.0, "nobody is farther than all there could be"


def test_what_goes_together_is_usual_together_and_unusual_apart(usual: Usual) -> None:
    heavy = [5.0, 11.0, 11.0 * 33.0, 4.0]
    dear = [5.0, 3.0, 11.0 * 33.0, 3.0]
    of_heavy, of_dear = usual.evaluate(np.array([heavy, dear]), FEATURES).tolist()
    assert of_heavy < 0.99 < of_dear, "who orders much spends much; who orders little does not"
    told = usual.explain(np.array(dear), FEATURES)
    assert told.segment == 4
    assert max(told.parts, key=told.parts.__getitem__) == "money"
    assert 60 < told.usual["money"] < 300


def test_parts_add_up_to_the_distance(usual: Usual) -> None:
    vectors, _ = shop(40, seed=5)
    distance = usual.distance(vectors, FEATURES)
    assert np.allclose(usual.carried(vectors, FEATURES).sum(axis=1), distance**2)
    told = usual.explain(vectors[7], FEATURES)
    assert told.squared == pytest.approx(distance[7] ** 2)
    assert told.value == usual.evaluate(vectors[7:8], FEATURES)[0]


def test_what_somebody_does_not_do_makes_nobody_unusual(usual: Usual) -> None:
    vectors = np.array([[900.0, 0.0, 0.0, 0.0], [0.0, 4.5, 150.0, 0.0]])
    of_nobody, of_buyer = usual.evaluate(vectors, FEATURES).tolist()
    assert of_nobody == 0.0
    assert of_buyer < 0.5, "orders without a look, such as those of a till"


def test_silence_is_no_habit(usual: Usual) -> None:
    vectors, _ = shop(50)
    later = vectors.copy()
    later[:, 0] += 400
    assert np.array_equal(usual.evaluate(vectors, FEATURES), usual.evaluate(later, FEATURES))


def test_it_is_the_same_to_the_bit_however_many_are_asked_about(usual: Usual) -> None:
    vectors, _ = shop(333, seed=8)
    whole = usual.evaluate(vectors, FEATURES)
    one_by_one = [usual.evaluate(row[None, :], FEATURES)[0] for row in vectors]
    assert whole.tolist() == one_by_one
    carried = usual.carried(vectors, FEATURES)
    alone = [usual.carried(row[None, :], FEATURES)[0].tolist() for row in vectors]
    assert carried.tolist() == alone


def test_a_few_who_are_far_outside_change_nothing_for_the_others() -> None:
    vectors, segments = shop()
    before = learned(vectors, segments)
    outside = vectors.copy()
    outside[4:400:12, 1:] *= [1.0, 1_000.0, 300.0]  # every twelfth of some
    after = learned(outside, segments)
    others = np.setdiff1d(np.arange(len(vectors)), np.arange(4, 400, 12))
    was, now = (one.distance(vectors[others], FEATURES) for one in (before, after))
    assert np.abs(now / was - 1).mean() < 0.1
    told = after.evaluate(outside[4:400:12], FEATURES)
    assert told.min() > 0.96


def test_who_is_far_outside_pulls_no_centroid() -> None:
    """Mapped features are winsorised: however far somebody goes, their weight stays that of one."""
    vectors, segments = shop()
    apply = FeatureMap.learn(vectors, np.ones(4)).apply
    outside = vectors.copy()
    outside[4, 1:] *= 1e6
    buyers = segments == 4
    moved = apply(outside)[buyers].mean(axis=0) - apply(vectors)[buyers].mean(axis=0)
    plain = outside[buyers].mean(axis=0) / vectors[buyers].mean(axis=0)
    assert np.abs(moved).max() < 4 / buyers.sum() * 2
    assert plain[2] > 100, "a plain mean is theirs alone"


def test_where_too_little_was_seen_nobody_is_unusual() -> None:
    vectors, segments = shop(300)
    few = slice(0, unusual.FEWEST_USERS - 1)
    ones = np.ones(300)
    assert unusual.learn(vectors[few], FEATURES, segments[few], ones[few], INPUTS) is None
    assert unusual.learn(vectors, FEATURES, np.arange(300), ones, INPUTS) is None, "segments of one"
    assert unusual.learn(vectors, FEATURES, np.zeros(300, int), ones, INPUTS) is None, (
        "of no segment"
    )
    assert unusual.learn(vectors, FEATURES, segments, ones, ()) is None
    alike = np.tile(vectors[1], (300, 1))
    assert unusual.learn(alike, FEATURES, segments, ones, INPUTS) is None, "all alike"


def test_a_segment_of_too_few_is_no_people() -> None:
    vectors, segments = shop()
    segments = segments.copy()
    segments[: unusual.FEWEST_OF_SEGMENT - 1] = 7
    assert {one.segment for one in learned(vectors, segments).habits} == {4, 9}
    segments[: unusual.FEWEST_OF_SEGMENT] = 7
    assert {one.segment for one in learned(vectors, segments).habits} == {4, 7, 9}


def test_who_stands_for_many_counts_as_many() -> None:
    vectors, segments = shop()
    each = np.where(segments == 9, 20.0, 1.0)
    found = learned(vectors, segments, each)
    below = found.evaluate(vectors, FEATURES) < 0.9
    assert (each * below).sum() / each.sum() == pytest.approx(0.9, abs=0.01)


def test_it_is_published_and_read_back_to_the_bit(usual: Usual) -> None:
    scores = NOTHING_FORETOLD.with_unusual("odd", usual)
    again = Scores.from_json(msgspec.json.decode(msgspec.json.encode(scores.to_json())))
    assert again == scores


def test_everybody_has_it_though_nothing_is_foretold_of_them(usual: Usual) -> None:
    scores = NOTHING_FORETOLD.with_unusual("odd", usual)
    vectors, segments = shop(60)
    assert scores.names == ("odd",)
    assert scores.readable(FEATURES), "no orders have to be declared for it"
    assert not scores.readable(FEATURES[:-1])
    found = scores.evaluate(vectors, FEATURES)[:, 0]
    assert np.array_equal(found, usual.evaluate(vectors, FEATURES))
    totals = scores.totals(vectors, FEATURES, np.where(segments == 4, 1, -1), 2)
    assert totals[0].tolist() == [0, 0, 0]
    assert totals[1, :2].tolist() == [0, 40], "of segment 4 all, whether they have ordered or not"
    assert totals[1, 2] == pytest.approx(found[segments == 4].sum(), abs=1e-3)
    assert scores.explain(vectors[0], FEATURES) == {}
    assert scores.without_unusual() is None
