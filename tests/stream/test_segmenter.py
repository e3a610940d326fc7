"""Segments without a server: what moves, what stays, what is kept, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream.config import Learning, Publish
from stream.events import Floats, Ints
from stream.kinds import Bounds, KindRule
from stream.segmenter import Segmenter, Step

pytestmark = pytest.mark.slow

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
        c.reverted.tolist(),
        map(repr, c.contributions.tolist()),
        strict=True,
    )
    return sorted(rows, key=repr), step.lineage


# -- what it finds -------------------------------------------------------------------------------


def test_three_sorts_are_three_segments() -> None:
    segmenter = make()
    play(segmenter)
    place = {segment: row for row, segment in enumerate(segmenter.ids.tolist())}
    nearest = [place[segment] for segment in segmenter.assign(CENTRES).tolist()]
    assert np.allclose(segmenter.centroids[nearest], CENTRES, rtol=0.2)
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


@given(st.integers(1, 4), st.sampled_from([0.0, 0.15]), st.sampled_from([0.5, 4.0]))
@settings(max_examples=4, deadline=None)
def test_contributions_add_up_to_the_margin(seed: int, margin: float, weight: float) -> None:
    segmenter = make(publish=Publish(margin=margin), weights={"spent": weight})
    compared = 0
    for step in play(segmenter, last=45, seed=seed):
        changes = step.changes
        assert np.allclose(
            changes.contributions.sum(axis=1), changes.margin, rtol=0, atol=1e-12, equal_nan=True
        )
        compared += int((~np.isnan(changes.margin)).sum())
    assert compared > 20


def test_a_stationary_stream_has_no_lineage_after_the_first_model() -> None:
    segmenter = make()
    events = [e["event"] for step in play(segmenter, last=30) for e in step.lineage]
    assert events == ["born"] * 3


def test_an_id_is_never_used_twice_and_keeps_its_name() -> None:
    segmenter = Segmenter(2, 3, learning=LEARNING, round_updates=500, forget_after=5.0)
    rng = np.random.default_rng(5)
    places = [
        np.array([[1.0, 1.0], [20.0, 20.0], [400.0, 400.0]]),
        np.array([[400.0, 400.0], [400.0, 4.0], [4.0, 400.0]]),
    ]
    ended: set[int] = set()
    born: list[int] = []
    left: set[int] = set()
    named: dict[int, str] = {}
    for number in range(120):
        # Every forty batches others come, whose groups are elsewhere, and those before fall silent.
        block = number // 40
        users = rng.choice(USERS, 200, replace=False) + USERS * block
        vectors = places[block % 2][users % 3] * rng.lognormal(0, 0.2, (200, 2))
        step = segmenter.update(users, vectors, number)
        left |= set(step.changes.before.tolist()) - {0}
        for event in step.lineage:
            if event["event"] in {"absorbed", "dissolved"}:
                ended.add(event["segment"])
            elif event["event"] in {"born", "split", "emerged", "succeeded"}:
                born.append(event["segment"])
        assert not ended & set(segmenter.ids.tolist())
        assert left <= set(segmenter.names)
        assert all(segmenter.names[segment] == named[segment] for segment in ended)
        named = segmenter.names
    assert len(set(born)) == len(born)
    assert set(segmenter.ids.tolist()) == set(born) - ended
    assert ended & left
    assert 0 not in segmenter.names


def test_whoever_is_silent_for_long_no_longer_counts() -> None:
    forgetting, keeping = make(forget_after=10.0), make()
    for number, (users, vectors, _) in enumerate(stream(batches=30)):
        few = users < (USERS if number < 15 else 300)
        for one in (forgetting, keeping):
            one.update(users[few], vectors[few], float(number))
    assert keeping.quality["users"] > forgetting.quality["users"]


def blobs(seed: int, users: int) -> Floats:
    rng = np.random.default_rng(seed)
    return CENTRES[np.arange(users) % 3] * rng.lognormal(0, 0.25, (users, 3))


def test_whoever_is_silent_for_longer_is_dropped_and_new_when_back() -> None:
    segmenter = make(forget_after=3.0, drop_after=5.0)
    kept = []
    for day in range(40):
        segmenter.update(np.arange(day * 500, day * 500 + 500), blobs(day, 500), float(day))
        kept.append(segmenter.quality["kept"])
    assert max(kept) == 6 * 500
    assert segmenter.quality["users"] == 3 * 500 == sum(s.size for s in segmenter.segments)
    assert segmenter.segment_of([0, 34 * 500 - 1]).tolist() == [0, 0]
    assert (segmenter.segment_of(np.arange(34 * 500, 40 * 500)) > 0).all()
    back = segmenter.update([7], blobs(0, 8)[7:], 40.0).changes
    assert (back.users, back.before.tolist(), back.provisional.tolist()) == ([7], [0], [True])


def test_the_memory_of_who_was_dropped_is_given_back() -> None:
    segmenter = make(drop_after=1.0)
    segmenter.update(np.arange(6_000), blobs(1, 6_000), 0.0)
    segmenter.update(np.arange(500), blobs(2, 500), 10.0)
    shard = segmenter._shards[0]
    assert len(shard) == 500
    assert {len(column) for column in shard.columns.values()} == {1_000}
    assert shard.slots == {name: slot for slot, name in enumerate(shard.names)}


def test_sizes_are_of_now_and_add_up_to_the_users_who_count() -> None:
    segmenter = make(forget_after=12.0)
    for batch in stream():
        segmenter.update(*batch)
        users = segmenter.quality["users"]
        assert users == sum(segment.size for segment in segmenter.segments) or not segmenter.names
    known = segmenter.segment_of(np.arange(USERS))
    assert users < segmenter.quality["kept"] == (known > 0).sum()


@pytest.mark.parametrize("unit", [1.0, 86_400.0])
def test_flapping_is_measured_in_any_unit_of_time(unit: float) -> None:
    """Every day a fifth of the second sort is elsewhere, and back the day after."""
    segmenter = make(
        publish=Publish(margin=0.0, revert_seconds=7 * unit),
        forget_after=None,
    )
    users, vectors = np.arange(USERS), blobs(1, USERS)
    reverted = 0
    for day in range(40):
        away = (users % 15 == 1) & (day % 2 == 1)
        now = np.where(away[:, None], CENTRES[0], vectors)
        reverted += int(segmenter.update(users, now, -5.0 + day * unit).changes.reverted.sum())
    rates = {s.id: s.flapping for s in segmenter.segments}
    left, stayed = (int(segmenter.segment_of([user])[0]) for user in (1, 2))
    assert (rates[left].reverted_share or 0.0) > 0.4
    assert reverted > 38 * 50
    daily = [rates[s].changes_per_user_day for s in (left, stayed)]
    assert daily[1] == 0.0
    assert daily[0] == pytest.approx(0.1 * 86_400 / unit, rel=0.25)


# -- time ----------------------------------------------------------------------------------------


def test_standing_time_learns_as_running_time_does() -> None:
    """Statistics of the same time as the last ones tell a learner nothing: ADWIN would be off."""
    standing, running = make(), make()
    for users, vectors, time in stream():
        standing.update(users, vectors, 5.0)
        running.update(users, vectors, time)
    assert standing.quality == running.quality
    assert standing.centroids.tolist() == running.centroids.tolist()
    found = [one._state.of("everyone").drift for one in (standing, running)]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].seen == found[1].seen


@pytest.mark.parametrize(
    "time",
    [1.7e12, 10**18, 10**400, float("nan"), float("inf"), -1e12, datetime(2026, 1, 1, tzinfo=UTC),
     np.datetime64("2026-01-01"), "now", None],
)  # fmt: skip
def test_a_time_that_cannot_be_is_refused_and_nothing_taken_in(time: Any) -> None:
    segmenter = make()
    for _ in range(2):
        with pytest.raises(ValueError, match=r"time: .* divide milliseconds by 1,000"):
            segmenter.update(np.arange(USERS), blobs(1, USERS), time)
    assert segmenter.quality["kept"] == 0


@pytest.mark.parametrize("first", [-62_135_596_800.0, -1.0, 0, np.float32(7), 253_370_764_800.0])
def test_a_time_that_can_be_told_as_a_date_is_taken(first: Any) -> None:
    segmenter = make()
    for _ in range(4):
        step = segmenter.update(np.arange(USERS), blobs(1, USERS), first)
    assert segmenter.quality["users"] == USERS
    assert not step.lineage


# -- it is the same ------------------------------------------------------------------------------


@given(st.integers(2, 5))
@settings(max_examples=3, deadline=None)
def test_some_workers_are_as_one(workers: int) -> None:
    rest: dict[str, Any] = {"forget_after": 6.0, "drop_after": 8.0}
    one, several = make(**rest), make(workers, **rest)
    assert [facts(s) for s in play(one)] == [facts(s) for s in play(several)]
    assert one.centroids.tolist() == several.centroids.tolist()
    assert one.segments == several.segments


@given(st.integers(0, 59), st.booleans(), st.sampled_from([None, 1, 2, 5]))
@example(31, False, 5)
@example(12, True, 1)
@settings(max_examples=4, deadline=None)
def test_what_was_saved_goes_on_as_if_nothing_had_been(
    tmp_path_factory: pytest.TempPathFactory, cut: int, text: bool, workers: int | None
) -> None:
    file = tmp_path_factory.mktemp("kept") / "segments.npz"

    def batches(first: int, last: int | None) -> Iterator[tuple[Any, Floats, float]]:
        for users, vectors, time in stream()[first:last]:
            yield ([f"user {u}" for u in users] if text else users), vectors, time

    steady, kept = (make(2, forget_after=6.0, drop_after=8.0) for _ in range(2))
    for batch in batches(0, cut):
        steady.update(*batch)
        kept.update(*batch)
    kept.save(file)
    back = Segmenter.load(file, workers)
    for batch in batches(cut, None):
        assert facts(back.update(*batch)) == facts(steady.update(*batch))
    assert back.centroids.tolist() == steady.centroids.tolist()
    assert back.quality == steady.quality
    assert back.segments == steady.segments
    everyone = [f"user {u}" for u in range(USERS)] if text else list(range(USERS))
    assert back.segment_of(everyone).tolist() == steady.segment_of(everyone).tolist()
    if workers not in {None, 2}:
        return
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


def test_without_rules_names_say_nothing_of_kinds() -> None:
    segmenter = make(words={"spent": ("frugal", "generous")})
    play(segmenter)
    place = segmenter.assign(CENTRES[1:2])[0]
    assert segmenter.names[int(place)].startswith(("Generous", "High orders"))
    for name in segmenter.names.values():
        assert "ccasional" not in name
        assert name[0].isupper()


def test_kinds_follow_the_rules_given() -> None:
    rules = [KindRule(kind="big", when={"spent": Bounds(min=300)})]
    segmenter = make(kinds=rules, words={"spent": ("frugal", "generous")})
    play(segmenter)
    big = [s for s in segmenter.segments if s.kind == "big"]
    assert len(big) == 1
    assert big[0].name.startswith("Big: ")
    assert "generous" not in big[0].name, "the kind says so"
    assert segmenter.assign(CENTRES[1:2]).tolist() == [big[0].id]


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
        ({"features": "spent"}, "not one text"),
        ({"features": ["a"], "weights": {"a": -1.0}}, "weights: from 0 to 4"),
        ({"features": ["a"], "weights": {"a": 4.1}}, "weights: from 0 to 4"),
        ({"features": ["a"], "weights": {"a": float("nan")}}, "weights: from 0 to 4"),
        ({"features": ["a"], "weights": {"a": 0.0}}, "not all 0"),
        ({"features": ["a"], "forget_after": 0.0}, "forget_after: a number of at least"),
        ({"features": ["a"], "forget_after": float("inf")}, "forget_after: a number of at least"),
        ({"features": ["a"], "drop_after": -1}, "drop_after: a number of at least"),
        ({"features": ["a"], "forget_after": 2.0, "drop_after": 1.0}, "at least forget_after"),
        (
            {"features": ["a"], "learning": Learning(sample_users=100, first_model_users=200)},
            "first_model_users is more than sample_users",
        ),
    ],
)
def test_arguments_that_cannot_be(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Segmenter(**arguments)


def test_time_does_not_go_back() -> None:
    segmenter = make()
    play(segmenter)
    with pytest.raises(ValueError, match="before the last update"):
        segmenter.update([1], [[1.0, 2.0, 3.0]], -5.0)


def test_before_there_is_a_model(tmp_path: Path) -> None:
    segmenter = make(publish=Publish())
    assert segmenter.centroids.shape == (0, 3)
    assert segmenter.ids.tolist() == []
    assert segmenter.quality["model"] is None
    segmenter.update(range(5), blobs(1, 5), 0.0)
    for ask in (lambda: segmenter.assign(CENTRES), lambda: segmenter.rename(1, "x")):
        with pytest.raises(
            ValueError, match=r"5 users count, and .* needs 300 .*first_model_users"
        ):
            ask()
    file = tmp_path / "empty.npz"
    segmenter.save(file)
    assert Segmenter.load(file).quality == segmenter.quality


def test_an_empty_batch_is_an_empty_step() -> None:
    segmenter = make()
    empty: list[Any] = [[], np.empty((0, 3))]
    for nobody in empty:
        step = segmenter.update([], nobody, 1.0)
        assert (len(step.changes), step.lineage) == (0, ())
    play(segmenter, first=1, last=10)
    before = segmenter.quality
    assert len(segmenter.update([], [], 30.0).changes) == 0
    assert segmenter.quality == before
    with pytest.raises(ValueError, match="before the last update"):
        play(segmenter, first=10, last=11)


@pytest.mark.parametrize(
    "users",
    [[b"u1"], [UUID(int=7)], [(1, 2)], [1.0], [None], [True], np.array([1.5]), "u", ["a", 1]],
)
def test_users_are_integers_or_texts(users: Any) -> None:
    segmenter = make()
    with pytest.raises(ValueError, match=r"^users: "):
        segmenter.update(users, blobs(1, len(users)), 0.0)
    with pytest.raises(ValueError, match=r"^users: "):
        segmenter.segment_of(users)
    assert segmenter.quality["kept"] == 0


def test_users_are_of_the_same_kind_always(tmp_path: Path) -> None:
    segmenter = make(2)
    several: list[Any] = [np.int64(1), np.int32(2), 3]
    segmenter.update(several, blobs(1, 3), 0.0)
    segmenter.save(tmp_path / "kept.npz")
    for one in (segmenter, Segmenter.load(tmp_path / "kept.npz")):
        with pytest.raises(ValueError, match="the same kind always, not int and str"):
            one.update(["4"], blobs(1, 1), 0.0)
        with pytest.raises(ValueError, match="the same kind always"):
            one.segment_of(np.array(["1"]))
        assert one.quality["kept"] == 3


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ([1.0, 2.0, 3.0], r"expected \(n, 3\), not \(3,\)"),
        ([[1.0, 2.0]], r"expected \(n, 3\), not \(1, 2\)"),
        ([[1.0, float("inf"), 3.0]], "not finite"),
        ([[1.0, -2.0, 3.0]], "'spent' is negative"),
        ([[{}, 2.0, 3.0]], "vectors: "),
    ],
)
def test_what_is_assigned_is_held_to_what_is_taken_in(vectors: Any, message: str) -> None:
    segmenter = make()
    play(segmenter, last=10)
    with pytest.raises(ValueError, match=message):
        segmenter.assign(vectors)
    assert segmenter.assign([]).tolist() == []


# -- what is kept --------------------------------------------------------------------------------


def test_a_save_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "kept.npz"
    segmenter = make()
    play(segmenter, last=5)
    segmenter.save(file)
    before = file.read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", full)
    play(segmenter, first=5, last=10)
    with pytest.raises(OSError, match="no space"):
        segmenter.save(file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def spoilt(change: Callable[[dict[str, Any], dict[str, Any]], None], file: Path) -> bytes:
    """A saved segmenter with something else in it."""
    with np.load(file) as kept:
        arrays = dict(kept)
    about = json.loads(arrays["about"].tobytes())
    change(about, arrays)
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    np.savez(file, **arrays)
    return file.read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _, arrays: arrays.update(vectors=arrays["vectors"][:10]), r"vectors: \(.*, 3\) of"),
        (lambda _, arrays: arrays.update(seen=arrays["seen"].astype(float)), "seen: .* of int64"),
        (lambda _, arrays: arrays.update(rows=arrays["seen"]), "rows: .*"),
        (lambda _, arrays: arrays.pop("rows"), "rows"),
        (lambda about, _: about["users"].pop(), "vectors: "),
        (lambda about, _: about["users"].__setitem__(0, about["users"][1]), "are there twice"),
        (lambda about, _: about["users"].__setitem__(0, "text"), "the same kind always"),
        (lambda about, _: about["learning"].update(newer=1), "newer"),
        (
            lambda about, _: about["state"]["model"]["geometry"]["parts"][0]["centroids"].pop(),
            "model is of other features",
        ),
        (lambda about, _: about["populations"].append({"name": "all"}), "of other populations"),
        (lambda about, _: about["state"].update(model=3), "TypeError"),
        (lambda about, _: about.pop("users"), "users"),
        (lambda about, _: about.update(format=1), "format 1, 3 was expected"),
    ],
)
def test_a_file_whose_parts_do_not_fit_is_refused(
    change: Callable[[dict[str, Any], dict[str, Any]], None], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "kept.npz"
    segmenter = make()
    play(segmenter, last=5)
    segmenter.save(file)
    spoilt(change, file)
    with pytest.raises(ValueError, match=f"no saved segmenter .*{message}") as refused:
        Segmenter.load(file)
    assert "\n" not in str(refused.value)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "kept.npz"
    segmenter = make()
    play(segmenter, last=5)
    segmenter.save(file)
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    for wrong in (b"", b"nothing", whole[: len(whole) // 2], whole[:-10], bytes(flipped)):
        file.write_bytes(wrong)
        with pytest.raises(ValueError, match="no saved segmenter"):
            Segmenter.load(file)
    for other in (tmp_path / "missing.npz", tmp_path):
        with pytest.raises(ValueError, match="no saved segmenter"):
            Segmenter.load(other)
    with file.open("wb") as plain:
        np.save(plain, np.arange(3))
    with pytest.raises(ValueError, match="no saved segmenter"):
        Segmenter.load(file)
    with pytest.raises(ValueError, match="workers: at least 1"):
        Segmenter.load(file, workers=0)
