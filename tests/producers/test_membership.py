"""Memberships are sent to their users' partitions, at their rate, and told when they fail."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import replace

import numpy as np
import pytest

from producers import delivery, membership
from producers.membership import republish
from stream.config import Settings
from stream.errors import BrokerUnavailableError
from stream.events import MEMBERSHIP
from stream.features import FeatureTable
from stream.membership import Wanted
from stream.partition import SchemaMismatchError
from stream.store.memory import MemoryStore
from stream.store.state import Commit, Position
from tests.fakes import Clock, RecordingBroker
from tests.stream.test_membership import a_model

SETTINGS = Settings.model_validate({"topics": {"partitions": 3}})
TABLE = FeatureTable(SETTINGS.features)
TOPIC = SETTINGS.topics.changes


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> RecordingBroker:
    made = RecordingBroker()
    monkeypatch.setattr(membership, "Producer", made.producer)
    monkeypatch.setattr(delivery, "time", clock)
    return made


def a_store(users: int = 10, schema: str = TABLE.schema) -> MemoryStore:
    """Users in two of three partitions, alternately in segments 3 and 5."""
    store = MemoryStore()
    for number in (0, 2):
        position = Position([1, 1], schema, incarnation=number + 1, kinds=["loyal", "at_risk"])
        store.create(number, "owner", position)
        rows = TABLE.blank(users)
        rows["segment"] = np.where(np.arange(users) % 2, 3, 5)
        rows["version"] = 1
        rows["kind"] = np.where(rows["segment"] == 3, 1, 2)
        names = [b"%d of %d" % (user, number) for user in range(users)]
        store.commit(number, "owner", Commit(0, position, names, rows.tobytes()))
    return store


def test_everybody_is_sent_to_their_own_partition(broker: RecordingBroker, clock: Clock) -> None:
    sent = republish(SETTINGS, a_store(), a_model(), Wanted(), 1e9, clock=clock.monotonic)
    assert sent == {"loyal": 10, "at_risk": 10}
    for number in (0, 1, 2):
        there = broker.on(TOPIC, number)
        users = {f"{user} of {number}" for user in range(10)} if number != 1 else set()
        assert {json.loads(one.value or b"")["user"] for one in there} == users
        for one in there:
            record = json.loads(one.value or b"")
            assert one.key == record["user"].encode()
            headers = dict(one.headers)
            assert headers["ce_type"] == MEMBERSHIP
            assert headers["ce_id"] == record["id"]
            assert headers["ce_kind"] == record["kind"]
            assert record["id"].split("-")[1] == str(number + 1), "the partition's incarnation"


def test_no_more_are_sent_in_a_second_than_allowed(
    broker: RecordingBroker, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "PORTION", 100)
    began, told = clock.seconds, list[int]()
    republish(
        SETTINGS, a_store(500), a_model(), Wanted(), 100.0, told.append, clock.monotonic,
        clock.sleep,
    )  # fmt: skip
    assert len(broker.sent) == 1_000 == told[-1]
    assert 9.9 <= clock.seconds - began <= 11.0
    assert len(told) > 3, "in portions"


def test_only_who_is_wanted_is_sent(broker: RecordingBroker, clock: Clock) -> None:
    wanted = Wanted(kind="at_risk")
    sent = republish(SETTINGS, a_store(), a_model(), wanted, 1e9, clock=clock.monotonic)
    assert sent == {"at_risk": 10}
    assert len(broker.sent) == 10


def test_what_is_not_confirmed_is_told(broker: RecordingBroker, clock: Clock) -> None:
    broker.trouble = deque(["refused"])
    with pytest.raises(BrokerUnavailableError, match="memberships not delivered"):
        republish(SETTINGS, a_store(), a_model(), Wanted(), 1e9, clock=clock.monotonic)


def test_rows_of_another_table_are_not_read(broker: RecordingBroker) -> None:
    store = a_store()
    state = store._partitions[0]
    found = store.position(0)
    assert found is not None
    state.position = json.dumps(json.loads(state.position) | {"schema": "another"}).encode()
    with pytest.raises(
        SchemaMismatchError, match="partition 0 holds rows of feature table another"
    ):
        republish(SETTINGS, store, replace(a_model()), Wanted(), 1e9)
    assert broker.sent == []
