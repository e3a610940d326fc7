"""What is kept with a partition can be read by a version that knows more or fewer fields."""

from __future__ import annotations

import re

import msgspec
import pytest

from stream.events import Counts
from stream.store.memory import MemoryStore
from stream.store.promises import (
    OperatorStore,
    OwnerStore,
    PublisherStore,
    ReaderStore,
    Store,
    TrainerStore,
)
from stream.store.redis import RedisStore
from stream.store.state import Answer, Commit, Position

PUBLIC = re.compile(r"[a-z]\w*")


def asked(kind: type) -> set[str]:
    """The methods of a type that anybody may call."""
    return {name for name in dir(kind) if PUBLIC.fullmatch(name)}


@pytest.mark.parametrize("kind", [MemoryStore, RedisStore])
def test_a_store_keeps_each_promise_and_does_nothing_beside(kind: type) -> None:
    assert asked(kind) - {"close"} == asked(Store)


def test_each_role_is_promised_less_than_everything() -> None:
    roles = (OwnerStore, PublisherStore, TrainerStore, ReaderStore, OperatorStore)
    assert set().union(*map(asked, roles)) == asked(Store)
    assert not asked(ReaderStore) & {"commit", "create", "put_model", "acknowledge", "give_name"}
    assert not asked(TrainerStore) & {"commit", "acquire", "load", "acknowledge"}
    assert not asked(PublisherStore) & {"commit", "acquire", "load", "put_model"}
    assert not asked(OwnerStore) & {"put_model", "acknowledge", "lease", "want"}


POSITION = Position([1, 2], "schema")


def test_commits_have_ids_of_their_own() -> None:
    assert len({Commit(0, POSITION).id for _ in range(100)}) == 100


def test_a_position_survives_a_newer_and_an_older_version() -> None:
    newer = b'{"offsets": [3, 4], "schema": "s", "incarnation": 2, "invented_later": [1]}'
    assert msgspec.json.decode(newer, type=Position) == Position([3, 4], "s", 2)
    older = b'{"offsets": [3, 4], "schema": "s"}'
    assert msgspec.json.decode(older, type=Position) == Position([3, 4], "s")


def test_records_in_no_count_show() -> None:
    position = Position([12, 7], "s", first=[10, 5], counts=Counts(applied=2, rejected=1, marks=1))
    assert position.unaccounted == 0
    assert msgspec.structs.replace(position, offsets=[13, 7]).unaccounted == 1
    assert Position([3, 0], "s", counts=Counts(applied=3)).unaccounted == 0


def test_consumed_is_the_sum_of_the_fates_and_nothing_else() -> None:
    counts = Counts(applied=1, duplicate=2, late=4, ignored=8, rejected=16, clamped=32, marks=64)
    assert counts.consumed == 31
    total = Counts(applied=1)
    total.add(counts)
    assert total == Counts(2, 2, 4, 8, 16, 32, 64)


def test_a_position_read_from_the_memory_store_is_nobodys_to_change() -> None:
    store = MemoryStore()
    store.create(0, "a", POSITION)
    read = store.position(0)
    assert read is not None
    read.offsets[0] = 99
    read.counts.applied = 99
    assert store.position(0) == POSITION


def test_answers_are_the_words_that_metrics_use() -> None:
    assert sorted(Answer) == ["applied", "diverged", "fenced", "full", "lost", "ok"]
