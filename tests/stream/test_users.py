"""Columns of users grow together and keep what they have; every user has a slot of their own."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream.users import PlainSlots, TextSlots, UserColumns


def test_columns_keep_what_they_have_when_there_is_more_room() -> None:
    columns = UserColumns({"flags": (np.bool_, ()), "vectors": (np.float64, (2,))}, 2)
    columns["vectors"][:] = [[1, 2], [3, 4]]
    columns["flags"][1] = True
    columns.resize(4)
    assert columns.room == 4
    assert columns["vectors"].tolist() == [[1, 2], [3, 4], [0, 0], [0, 0]]
    assert columns["flags"].tolist() == [False, True, False, False]
    columns.resize(1)
    assert {name: len(column) for name, column in columns.items()} == {"flags": 1, "vectors": 1}


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 11)), max_size=60))
def test_columns_go_with_users_who_take_the_slots_of_those_who_left(
    happenings: list[tuple[bool, int]],
) -> None:
    """Users who come, each with a value of their own, and users who leave."""
    slots, columns = PlainSlots(), UserColumns({"value": (np.int64, ()), "pair": (float, (2,))}, 12)
    known: dict[int, int] = {}
    for value, (comes, user) in enumerate(happenings, 1):
        if comes:
            slot = slots[user]
            assert (columns["value"][slot] == 0) == (user not in known), "who comes back is new"
            columns["value"][slot], columns["pair"][slot] = value, (value, -value)
            known[user] = value
        else:
            gone = slots.find([user])
            gone = gone[gone >= 0]
            before = len(slots.names)
            columns.close_up(*slots.drop(gone), before, len(slots.names))
            known.pop(user, None)
        users = list(known)
        assert sorted(slots.names) == sorted(users)
        assert [slots.names[slot] for slot in slots.find(users).tolist()] == users
        assert columns["value"][slots.find(users)].tolist() == list(known.values())
        assert columns["pair"][slots.find(users), 1].tolist() == [-v for v in known.values()]
        assert not columns["value"][len(users) :].any()


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), unique=True)))
def test_every_user_has_one_slot(portions: list[list[str]]) -> None:
    slots = TextSlots()
    known: list[str] = []
    for place, portion in enumerate(portions):
        if place % 2:
            new = slots.take_in([user.encode() for user in portion])
            assert new == [user.encode() for user in portion if user not in known]
        else:
            for user in portion:
                assert slots[user] == slots[user]
        known += [user for user in portion if user not in known]
        assert slots.names == [user.encode() for user in known]
        assert [slots[user] for user in known] == list(range(len(known)))
