"""A look waits until its horizon is over, and is told once what came of it, as it was."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.scores.looks import KEPT_JUDGED, Looks, Over, Sight, seen
from stream.units import DAY_MS

DAYS = (10.0, 30.0)


def looked(at_days: Sequence[int], hashes: Sequence[int], revenue: float = 100.0) -> Looks:
    n, wide = len(at_days), (len(at_days), len(DAYS))
    return Looks(
        "meaning",
        np.array(at_days, np.int64) * DAY_MS,
        np.array(hashes, np.uint64),
        np.array(hashes, np.float32)[:, None],
        np.full(n, revenue),
        np.full(n, 20.0),
        np.full(wide, 0.25, np.float32),
        np.full(wide, 5.0, np.float32),
        np.zeros(wide, np.float32),
        np.zeros(wide, np.bool_),
        np.zeros(wide, np.bool_),
        np.full(n, 3, np.int32),
        np.empty((len(DAYS), 4, 0), np.float32),
        np.empty((len(DAYS), 0), np.int32),
    )


def sight(day: int, silence: dict[int, float], revenue: float = 100.0) -> Sight:
    hashes = sorted(silence)
    return Sight(
        day * DAY_MS,
        np.array(hashes, np.uint64),
        np.array([silence[one] for one in hashes]),
        np.full(len(hashes), revenue),
    )


def counts(over: Sequence[Over]) -> list[int]:
    return [len(one.bought) for one in over]


def test_nothing_is_learned_before_the_horizon_is_over_though_it_is_known() -> None:
    """Who buys at once would be learned at once, who does not much later: that is peeking."""
    looks = looked([100], [7])
    for day in range(101, 110):
        looks, over = seen(looks, sight(day, {7: day - 100.5}), DAYS)
        assert counts(over) == [0, 0]
    looks, over = seen(looks, sight(110, {7: 9.5}), DAYS)
    assert counts(over) == [1, 0]
    assert over[0].bought.tolist() == [1.0]
    looks, over = seen(looks, sight(111, {7: 10.5}), DAYS)
    assert counts(over) == [0, 0], "each is told once"
    looks, over = seen(looks, sight(130, {7: 29.5}), DAYS)
    assert counts(over) == [0, 1]
    assert over[1].bought.tolist() == [1.0]
    assert len(looks) == 0


def test_an_order_behind_the_horizon_is_none_in_it() -> None:
    looks, over = seen(looked([100], [7]), sight(110, {7: 60.0}), DAYS)
    assert over[0].bought.tolist() == [0.0]
    looks, over = seen(looks, sight(131, {7: 0.5}), DAYS)
    assert over[1].bought.tolist() == [0.0]


def test_an_order_at_the_end_is_in_it_and_one_at_the_look_is_not() -> None:
    _, over = seen(looked([100, 100], [7, 8]), sight(110, {7: 0.0, 8: 10.0}), DAYS)
    assert over[0].bought.tolist() == [1.0, 0.0]


def test_money_is_what_was_spent_within() -> None:
    looks = looked([100], [7])
    looks, _ = seen(looks, sight(105, {7: 1.0}, revenue=160.0), DAYS)
    looks, over = seen(looks, sight(112, {7: 0.5}, revenue=400.0), DAYS)
    assert over[0].worth.tolist() == [60.0 / 20.0], "what came behind the end is not in it"
    looks, over = seen(looks, sight(130, {7: 18.5}, revenue=400.0), DAYS)
    assert over[1].worth.tolist() == [300.0 / 20.0]


def test_a_refund_of_what_was_bought_before_makes_nobody_owe() -> None:
    _, over = seen(looked([100], [7]), sight(110, {7: 1.0}, revenue=30.0), DAYS)
    assert over[0].bought.tolist() == [1.0]
    assert over[0].worth.tolist() == [0.0]


def test_who_is_gone_is_forgotten_at_once_and_never_learned() -> None:
    looks, over = seen(looked([100, 100], [7, 8]), sight(101, {8: 30.0}), DAYS)
    assert looks.hashes.tolist() == [8]
    _, over = seen(looks, sight(110, {7: 1.0, 8: 39.0}), DAYS)
    assert counts(over) == [1, 0], "they are not learned of when they come back either"


def test_an_empty_sample_forgets_everyone() -> None:
    looks, over = seen(looked([100], [7]), sight(110, {}), DAYS)
    assert len(looks) == 0
    assert counts(over) == [0, 0]


@given(
    st.lists(st.integers(0, 79), min_size=0, max_size=12, unique=True),
    st.lists(st.integers(0, 40), min_size=1, max_size=6, unique=True),
    st.integers(1, 9),
)
@settings(max_examples=200, deadline=None)
def test_whatever_happens_each_look_is_told_once_and_truly(
    orders: list[int], looks_at: list[int], first: int
) -> None:
    """One user, orders at half past a day, a sample at the end of each."""
    times = sorted(one + 0.5 for one in orders)
    waiting = looked([], [])
    told: list[list[tuple[float, float]]] = [[], []]
    for day in range(first, 80):
        past = [one for one in times if one <= day]
        now = sight(day, {7: day - past[-1] if past else 400.0}, 10.0 * len(past))
        waiting, over = seen(waiting, now, DAYS)
        for column, one in enumerate(over):
            told[column] += zip(one.logs[:, 0].tolist(), one.bought.tolist(), strict=True)
        if day in looks_at:
            more = looked([day], [7], 10.0 * len(past))
            more.logs[:] = day
            waiting = waiting.with_more(more)
    for column, days in enumerate(DAYS):
        expected = [
            (float(at), float(any(at < one <= at + days for one in times)))
            for at in sorted(looks_at)
            if first <= at and at + days < 80
        ]
        assert told[column] == expected


def test_predictions_are_kept_with_what_came_of_them() -> None:
    looks, _ = seen(looked([100, 100], [7, 8]), sight(110, {7: 1.0, 8: 90.0}, 150.0), DAYS)
    assert looks.judged[0].tolist() == [[0.25, 0.25], [1.0, 0.0], [5.0, 5.0], [50.0, 0.0]]
    assert np.isnan(looks.judged[1]).all(), "nothing is over of the longer one"
    assert looks.judged_in[0].tolist() == [3, 3], "the segment at the look"


def test_only_the_last_predictions_are_kept() -> None:
    users = list(range(1, KEPT_JUDGED + 100))
    looks, _ = seen(looked([100] * len(users), users), sight(110, dict.fromkeys(users, 9.0)), DAYS)
    assert looks.judged.shape == (2, 4, KEPT_JUDGED)
    assert looks.judged_in.shape == (2, KEPT_JUDGED)


def test_they_are_stored_and_read_back_to_the_bit() -> None:
    looks, _ = seen(looked([100, 101], [7, 8]), sight(110, {7: 1.0, 8: 90.0}), DAYS)
    again = Looks.unpack(looks.pack())
    assert again.pack() == looks.pack()
    assert again.meaning == "meaning"
    assert len(again) == len(looks)


def test_those_of_before_segments_were_kept_are_read() -> None:
    looks, _ = seen(looked([100, 101], [7, 8]), sight(110, {7: 1.0, 8: 90.0}), DAYS)
    told = msgspec.msgpack.decode(looks.pack())
    for name in ("segments", "judged_in"):
        del told["columns"][name]
    again = Looks.unpack(msgspec.msgpack.encode(told))
    assert again.segments.tolist() == [0] * len(looks)
    assert again.judged_in.shape == looks.judged_in.shape
    assert again.judged.tobytes() == looks.judged.tobytes()


@pytest.mark.parametrize("raw", [b"", b"\x00", b"looks", looked([1], [2]).pack()[:-9]])
def test_what_is_none_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="no looks"):
        Looks.unpack(raw)
