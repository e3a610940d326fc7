"""Segments without a server: what moves, what stays, what is kept, and what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.config import Learning, Publish
from stream.events import Floats, Ints
from stream.segmenter import Segmenter, Step
from stream.segments import Bounds, KindRule

FEATURES = ("orders", "spent", "visits")
USERS = 900
CENTRES = np.array([[1.0, 20.0, 2.0], [12.0, 900.0, 10.0], [2.0, 30.0, 90.0]])
LEARNING = Learning(
    refit_seconds=0, refit_updates=3_000, first_model_users=300, sample_users=600, starts=4
)


def make(workers: int = 1, **rest: Any) -> Segmenter:
    return Segmenter(FEATURES, 3, learning=LEARNING, workers=workers, round_updates=500, **rest)


@lru_cache(maxsize=4)
def stream(seed: int = 1, batches: int = 60) -> tuple[tuple[Ints, Floats, float], ...]:
    """Three sorts of users with habits of their own; in the second half some turn to another."""
    rng = np.random.default_rng(seed)
    sort = rng.integers(0, 3, USERS)
    own = rng.lognormal(0, 0.25, (USERS, 3))
    found = []
    for number in range(batches):
        if number == batches // 2:
            sort = np.where(rng.random(USERS) < 0.1, rng.integers(0, 3, USERS), sort)
        users = rng.choice(USERS, 200, replace=False)
        vectors = CENTRES[sort[users]] * own[users] * rng.lognormal(0, 0.1, (200, 3))
        found.append((users, vectors, float(number)))
    return tuple(found)


def play(
    segmenter: Segmenter, first: int = 0, last: int | None = None, seed: int = 1
) -> list[Step]:
    return [segmenter.update(*batch) for batch in stream(seed)[first:last]]


def facts(step: Step) -> tuple[Any, ...]:
    """A step in an order that does not depend on how users are kept."""
    c = step.changes
    rows = zip(
        c.users,
        c.before.tolist(),
        c.after.tolist(),
        c.cause,
        map(repr, c.margin.tolist()),
        c.provisional.tolist(),
        map(repr, c.contributions.tolist()),
        strict=True,
    )
    return sorted(rows, key=repr), step.lineage


# -- what it finds -------------------------------------------------------------------------------


def test_three_sorts_are_three_segments() -> None:
    segmenter = make()
    play(segmenter)
    assert (
        segmenter.assign(CENTRES).tolist() == [0, 1, 2]
        or len(set(segmenter.assign(CENTRES).tolist())) == 3
    )
    order = segmenter.assign(CENTRES)
    assert np.allclose(segmenter.centroids[order], CENTRES, rtol=0.2)
    assert sorted(segmenter.ids.tolist()) == [1, 2, 3]
    assert set(segmenter.names) == {1, 2, 3}
    assert segmenter.quality["silhouette"] > 0.4
    assert segmenter.quality["users"] == USERS


def test_every_change_goes_on_where_the_last_one_ended() -> None:
    segmenter = make()
    place: dict[int, int] = {}
    seen: Counter[str] = Counter()
    for step in play(segmenter):
        changes = step.changes
        for user, before, after, cause in zip(
            changes.users, changes.before.tolist(), changes.after.tolist(), changes.cause,
            strict=True,
        ):  # fmt: skip
            assert place.get(user, 0) == before != after
            place[user] = after
            seen[cause] += 1
    users = np.arange(USERS)
    assert segmenter.segment_of(users).tolist() == [place.get(user, 0) for user in range(USERS)]
    assert seen["user_moved"] > 20


def test_contributions_add_up_to_the_difference_of_the_distances() -> None:
    segmenter = make()
    for batch in stream():
        before = segmenter._model
        changes = segmenter.update(*batch).changes
        if before is None or segmenter._model is not before or not len(changes):
            continue
        latest = dict(zip(batch[0].tolist(), batch[1], strict=True))
        old, new = (np.searchsorted(before.ids, ids) for ids in (changes.before, changes.after))
        for row in np.flatnonzero(changes.before > 0).tolist():
            mapped = before.map.apply(latest[changes.users[row]][None])[0]
            to_old, to_new = (
                float((before.map.weights * (mapped - before.centroids[c[row]]) ** 2).sum())
                for c in (old, new)
            )
            assert changes.contributions[row].sum() == to_old - to_new


def test_a_stationary_stream_has_no_lineage_after_the_first_model() -> None:
    segmenter = make()
    events = [e["event"] for step in play(segmenter, last=30) for e in step.lineage]
    assert events == ["born"] * 3


def test_an_id_is_never_used_twice() -> None:
    segmenter = Segmenter(2, 3, learning=LEARNING, round_updates=500)
    rng = np.random.default_rng(5)
    ended: set[int] = set()
    born: list[int] = []
    for number in range(120):
        # Every forty batches the groups are elsewhere altogether.
        centres = np.array([[1.0, 50.0], [30.0, 2.0], [9.0, 9.0]])[:, :: 1 - 2 * (number // 40 % 2)]
        centres = centres * (1 + 3 * (number // 40))
        users = rng.choice(USERS, 200, replace=False)
        vectors = centres[users % 3] * rng.lognormal(0, 0.2, (200, 2))
        for event in segmenter.update(users, vectors, number).lineage:
            if event["event"] in {"absorbed", "dissolved"}:
                ended.add(event["segment"])
            elif event["event"] in {"born", "split", "emerged", "succeeded"}:
                born.append(event["segment"])
        assert not ended & set(segmenter.ids.tolist())
    assert len(set(born)) == len(born)
    assert set(segmenter.ids.tolist()) == set(born) - ended


def test_whoever_is_silent_for_long_no_longer_counts() -> None:
    forgetting, keeping = make(forget_after=10.0), make()
    for number, (users, vectors, _) in enumerate(stream(batches=30)):
        few = users < (USERS if number < 15 else 300)
        for one in (forgetting, keeping):
            one.update(users[few], vectors[few], float(number))
    assert keeping.quality["users"] > forgetting.quality["users"]


# -- it is the same ------------------------------------------------------------------------------


@pytest.mark.slow
@given(st.integers(2, 5))
@settings(max_examples=3, deadline=None)
def test_some_workers_are_as_one(workers: int) -> None:
    one, several = make(), make(workers)
    assert [facts(s) for s in play(one)] == [facts(s) for s in play(several)]
    assert one.centroids.tolist() == several.centroids.tolist()
    assert one.segments == several.segments


@pytest.mark.slow
@given(st.integers(0, 59), st.booleans())
@settings(max_examples=6, deadline=None)
def test_what_was_saved_goes_on_as_if_nothing_had_been(
    tmp_path_factory: pytest.TempPathFactory, cut: int, text: bool
) -> None:
    file = tmp_path_factory.mktemp("kept") / "segments.npz"

    def batches(first: int, last: int | None) -> Iterator[tuple[Any, Floats, float]]:
        for users, vectors, time in stream()[first:last]:
            yield ([f"user {u}" for u in users] if text else users), vectors, time

    steady, kept = make(2), make(2)
    for batch in batches(0, cut):
        steady.update(*batch)
        kept.update(*batch)
    kept.save(file)
    back = Segmenter.load(file)
    for batch in batches(cut, None):
        assert facts(back.update(*batch)) == facts(steady.update(*batch))
    assert back.centroids.tolist() == steady.centroids.tolist()
    assert back.quality == steady.quality
    other = file.with_name("other.npz")
    back.save(other)
    steady.save(file)
    assert other.read_bytes() == file.read_bytes()


def test_the_last_vector_of_a_user_counts() -> None:
    one, other = make(), make()
    users, vectors, _ = stream()[0]
    one.update(users, vectors, 0.0)
    other.update(np.concatenate([users, users]), np.concatenate([vectors[::-1], vectors]), 0.0)
    assert one.segment_of(users).tolist() == other.segment_of(users).tolist()


# -- names ---------------------------------------------------------------------------------------


def test_a_name_that_a_person_gave_stays_with_the_id() -> None:
    segmenter = make()
    play(segmenter, last=30)
    segmenter.rename(2, "Big spenders")
    events = [e for step in play(segmenter, first=30) for e in step.lineage]
    assert segmenter.names[2] == "Big spenders"
    assert [e["event"] for e in events if e["segment"] == 2] == ["renamed"]
    with pytest.raises(ValueError, match="no segment 77"):
        segmenter.rename(77, "Nobody")


def test_kinds_follow_the_rules_given() -> None:
    rules = [KindRule(kind="big", when={"spent": Bounds(min=300)})]
    segmenter = make(kinds=rules, words={"spent": ("frugal", "generous")})
    play(segmenter)
    big = [s for s in segmenter.segments if s.kind == "big"]
    assert len(big) == 1
    assert "generous" in big[0].name
    assert segmenter.segments[int(segmenter.assign(CENTRES[1:2])[0])] == big[0]


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ([[1.0, 2.0]], r"expected \(1, 3\), not \(1, 2\)"),
        ([[1.0, 2.0, float("nan")]], "not finite"),
        ([[1.0, -2.0, 3.0]], "'spent' is negative; declare it with signed"),
    ],
)
def test_vectors_that_cannot_be(vectors: Any, message: str) -> None:
    segmenter = make()
    with pytest.raises(ValueError, match=message):
        segmenter.update([1], vectors, 0.0)
    assert segmenter.segment_of([1]).tolist() == [0]
    make(signed=["spent"]).update([1], [[1.0, -2.0, 3.0]], 0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": []}, "at least one"),
        ({"features": ["a", "a"]}, "name of its own"),
        ({"features": ["a"], "signed": ["b"]}, "signed: 'b' is no feature"),
        ({"features": ["a"], "weights": {"b": 1.0}}, "weights: 'b'"),
        ({"features": ["a"], "segments": 1}, "greater than or equal to 2"),
        ({"features": ["a"], "workers": 0}, "workers"),
    ],
)
def test_arguments_that_cannot_be(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Segmenter(**arguments)


def test_time_does_not_go_back() -> None:
    segmenter = make()
    play(segmenter)
    with pytest.raises(ValueError, match="before the last round"):
        segmenter.update([1], [[1.0, 2.0, 3.0]], -5.0)


def test_before_there_is_a_model(tmp_path: Path) -> None:
    segmenter = make(publish=Publish())
    assert segmenter.centroids.shape == (0, 3)
    assert segmenter.ids.tolist() == []
    assert segmenter.quality["model"] is None
    with pytest.raises(ValueError, match="no model yet"):
        segmenter.assign(CENTRES)
    with pytest.raises(ValueError, match="no model yet"):
        segmenter.rename(1, "x")
    file = tmp_path / "empty.npz"
    segmenter.save(file)
    assert Segmenter.load(file).quality == segmenter.quality
    (tmp_path / "nothing.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no saved segmenter"):
        Segmenter.load(tmp_path / "nothing.npz")
