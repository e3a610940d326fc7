"""The library's scores are the pipeline's, and are kept."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from segstream import Score, Scorer

from stream.config import Scoring
from tests.stream.scores.making import FEATURES, START_MS, WANTED, Crowd

LAST = 60


def made() -> Scorer:
    scoring = Scoring(users=500, look_days=5, labels=100)
    return Scorer(FEATURES, WANTED.scores, inputs=WANTED.inputs, scoring=scoring)


def look(scorer: Scorer, crowd: Crowd, day: int) -> bool:
    users = [f"user {number}" for number in range(len(crowd.days))]
    return scorer.update(users, crowd.sample(day).vectors, START_MS / 1_000 + day * 86_400)


@pytest.fixture(scope="module")
def crowd() -> Crowd:
    return Crowd.random(300, seed=6)


@pytest.fixture(scope="module")
def scorer(crowd: Crowd) -> Scorer:
    found = made()
    for day in range(1, LAST):
        assert look(found, crowd, day)
    return found


def test_it_foretells_who_buys(crowd: Crowd, scorer: Scorer) -> None:
    vectors = crowd.sample(LAST).vectors
    found = scorer.scores(vectors)
    assert list(found) == ["soon", "later", "money"]
    lucky = vectors[:, 3] > 0
    assert np.nanmean(found["soon"][lucky]) > np.nanmean(found["soon"][~lucky]) + 0.3
    assert scorer.learned is not None
    assert (scorer.learned.learned[0].auc or 0) > 0.7


def test_it_says_why(scorer: Scorer) -> None:
    told = scorer.explain([3.0, 6.0, 120.0, 1.0])["soon"]
    assert told.parts["lucky"] > 0
    assert told.log_odds == pytest.approx(told.base + sum(told.parts.values()))


def test_it_says_who_is_unusual_and_goes_on_saying_so(crowd: Crowd, tmp_path: Path) -> None:
    habits = ("orders_total", "revenue_total")
    odd = Scorer(FEATURES, [Score(name="odd", of="unusual")], habits=habits)
    assert odd.how_unusual([3.0, 6.0, 120.0, 1.0]) is None
    assert look(odd, crowd, 40)
    usual, twenty_times = np.array([[3.0, 4.0, 80.0, 1.0], [3.0, 4.0, 1_600.0, 1.0]])
    low, high = odd.scores(np.array([usual, twenty_times]))["odd"].tolist()
    assert low < 0.9
    assert high > 0.995
    told = odd.how_unusual(twenty_times)
    assert told is not None
    assert told.value == high
    assert max(told.parts, key=told.parts.__getitem__) == "revenue_total"
    odd.save(tmp_path / "odd")
    assert Scorer.load(tmp_path / "odd").scores(crowd.sample(41).vectors)["odd"].tolist() == (
        odd.scores(crowd.sample(41).vectors)["odd"].tolist()
    )


def test_before_there_is_enough_it_says_nothing(crowd: Crowd) -> None:
    new = made()
    assert new.scores(crowd.sample(3).vectors) == {}
    assert new.explain(crowd.sample(3).vectors[0]) == {}
    assert new.learned is None


def test_a_second_look_on_a_day_is_not_learned_from(crowd: Crowd) -> None:
    new = made()
    assert look(new, crowd, 3)
    users = [f"user {number}" for number in range(len(crowd.days))]
    later = START_MS / 1_000 + 3 * 86_400 + 60
    assert not new.update(users, crowd.sample(3).vectors, later)


def test_it_is_kept_in_a_file_and_goes_on_to_the_bit(crowd: Crowd, tmp_path: Path) -> None:
    whole, parted = made(), made()
    for day in range(1, 30):
        look(whole, crowd, day)
        look(parted, crowd, day)
    parted.save(tmp_path / "scores")
    parted = Scorer.load(tmp_path / "scores")
    for day in range(30, 40):
        look(whole, crowd, day)
        look(parted, crowd, day)
    assert whole.learned is not None
    assert parted.learned == whole.learned
    assert not list(tmp_path.glob(".*")), "no draft is left"


def test_wrong_use_is_told() -> None:
    with pytest.raises(ValueError, match="'revenue_total' is needed"):
        Scorer(["days_since_order", "orders_total"])
    with pytest.raises(ValueError, match="over_time: days_since_order cannot be 'sinks'"):
        Scorer(FEATURES, over_time={"days_since_order": "sinks"})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="'age' is needed"):
        Scorer(FEATURES, inputs=["age"])
    scorer = Scorer(FEATURES, [Score(name="soon", of="buy", days=7)])
    with pytest.raises(ValueError, match=r"\(n, 4\) expected, not \(1, 2\)"):
        scorer.scores([[1.0, 2.0]])
    with pytest.raises(ValueError, match="finite"):
        scorer.scores([[1.0, 2.0, np.nan, 1.0]])
    with pytest.raises(ValueError, match="2 users, but 1 vectors"):
        scorer.update(["a", "b"], [[1.0, 2.0, 3.0, 1.0]], 9e8)
    scorer.update(["a"], [[1.0, 2.0, 3.0, 1.0]], 9e8)
    with pytest.raises(ValueError, match="forward"):
        scorer.update(["a"], [[1.0, 2.0, 3.0, 1.0]], 8e8)


def test_another_file_is_none(tmp_path: Path) -> None:
    for raw in (b"", b"\x80", b"scores"):
        (tmp_path / "file").write_bytes(raw)
        with pytest.raises(ValueError, match="no saved scorer"):
            Scorer.load(tmp_path / "file")
    with pytest.raises(ValueError, match="no saved scorer"):
        Scorer.load(tmp_path / "nothing")
    made().save(tmp_path / "file")
    told = msgspec.msgpack.decode((tmp_path / "file").read_bytes())
    for name in told:
        less = {other: value for other, value in told.items() if other != name}
        (tmp_path / "file").write_bytes(msgspec.msgpack.encode(less))
        with pytest.raises(ValueError, match="no saved scorer"):
            Scorer.load(tmp_path / "file")
