"""How a partition's state is found, begun, lost, and begun anew."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator

import msgspec
import pytest
from confluent_kafka import TopicPartition

from consumers.owner import StateLostError
from stream.errors import OffsetOutOfRangeError
from stream.events import Counts
from stream.store.state import key_of
from tests.consumers.scene import (
    EVERYTHING,
    INPUTS,
    PARTITIONS,
    SETTLED,
    Scene,
    assert_true,
    delivered,
    events,
    write,
    write_marked,
)
from tests.strategies import START_MS, encoded


def test_users_that_vanished_are_a_loss(live: Scene) -> None:
    live.run()
    gone = next(iter(live.store._partitions[1].users))
    del live.store._partitions[1].users[gone]
    users = live.position(1).users
    with pytest.raises(StateLostError, match=rf"partition 1 has {users - 1} of {users} users"):
        live.run()


@pytest.mark.parametrize("what", ["users", "position"])
def test_users_or_position_put_back_alone_are_a_loss(live: Scene, what: str) -> None:
    live.run()
    before = copy.deepcopy(live.store._partitions[1])
    write(live, [(live.clock.wall_ms(), INPUTS[0], 1, encoded(time_ms=live.clock.wall_ms()))])
    live.run()
    state = live.store._partitions[1]
    if what == "users":
        users = before.users | {u: row for u, row in state.users.items() if u not in before.users}
        state.users, state.users_commit = users, before.users_commit
    else:
        state.position, state.sequence = before.position, before.sequence
        state.last_commit, state.rows_commit = before.last_commit, before.rows_commit
    with pytest.raises(StateLostError, match="partition 1 and its users are not of the same mom"):
        live.run()


def test_another_secret_is_a_loss_that_may_be_accepted(
    monkeypatch: pytest.MonkeyPatch, live: Scene
) -> None:
    live.run()
    ids = {c["id"] for n in range(PARTITIONS) for c in live.changes(n)}
    live.store._key = key_of("another")
    with pytest.raises(StateLostError, match=r"another secret of namespace segstream.*segstream:k"):
        live.run()
    scene = Scene(
        monkeypatch, store=live.store, log=live.consumer.log, store_section={"accept_loss": True}
    )
    scene.consumer.group = live.consumer.group
    scene.run()
    assert [scene.position(n).incarnation for n in range(PARTITIONS)] == [2, 2]
    assert not ids & {c["id"] for n in range(PARTITIONS) for c in scene.changes(n)}
    assert_true(scene)


def test_a_loss_of_users_may_be_accepted(monkeypatch: pytest.MonkeyPatch, live: Scene) -> None:
    live.run()
    live.store._partitions[1].users.clear()
    scene = Scene(
        monkeypatch, store=live.store, log=live.consumer.log, store_section={"accept_loss": True}
    )
    scene.consumer.group = live.consumer.group
    scene.run()
    assert scene.position(1).incarnation == 2
    assert scene.position(0).incarnation == 1
    assert_true(scene)


def test_what_another_has_taken_over_meanwhile_is_not_begun_anew(
    monkeypatch: pytest.MonkeyPatch, live: Scene
) -> None:
    """A worker that is frozen while it loads; by then another has accepted the loss."""
    live.run()
    live.store._partitions[1].users.clear()
    scene = Scene(
        monkeypatch, store=live.store, log=live.consumer.log, store_section={"accept_loss": True}
    )
    scene.consumer.group = live.consumer.group
    load = scene.store.load

    def thaw_late(number: int) -> Iterator[tuple[bytes, bytes]]:
        yield from load(number)
        if number == 1:
            monkeypatch.setattr(scene.store, "load", load)
            begin = msgspec.structs.replace(
                scene.position(1),
                offsets=[0, 0],
                users=0,
                incarnation=9,
                counts=Counts(),
                clocks=[],
                ids=[],
                orders=[],
            )
            scene.store.acquire(1, "another")
            scene.store.create(1, "another", begin, replace=True)

    monkeypatch.setattr(scene.store, "load", thaw_late)
    scene.run(idle=SETTLED)
    assert scene.position(1).incarnation == 9
    assert_true(scene)


def test_what_was_delivered_before_an_accepted_loss_is_of_another_incarnation(
    monkeypatch: pytest.MonkeyPatch, live: Scene
) -> None:
    live.run()
    known = delivered(live, 1)
    live.store._partitions[1].users.clear()
    scene = Scene(
        monkeypatch, store=live.store, log=live.consumer.log, store_section={"accept_loss": True}
    )
    scene.consumer.group, scene.output.delivered[1] = live.consumer.group, known
    scene.run()
    assert scene.output.asked[0][1] < len(known), "they were read"
    assert scene.position(1).incarnation == 2
    assert_true(scene)


def test_a_shop_in_which_nothing_had_happened_has_lost_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    empty = Scene(monkeypatch)
    empty.run()
    assert empty.consumer.group
    scene = Scene(monkeypatch)
    scene.consumer.group = empty.consumer.group
    scene.run()
    assert "nothing was in it" in caplog.text
    assert scene.position(0).incarnation == 2


def test_lost_before_the_start_is_seen_by_what_the_group_remembers(live: Scene) -> None:
    live.run()
    live.store._partitions.clear()
    with pytest.raises(StateLostError, match="partition 0 has no state in the store"):
        live.run()
    assert live.store._partitions == {}


def test_accepted_loss_starts_anew_as_another_incarnation(
    monkeypatch: pytest.MonkeyPatch, live: Scene
) -> None:
    live.run()
    ids = {c["id"] for n in range(PARTITIONS) for c in live.changes(n)}
    scene = Scene(monkeypatch, log=live.consumer.log, store_section={"accept_loss": True})
    scene.consumer.group = live.consumer.group
    scene.run()
    assert [scene.position(n).incarnation for n in range(PARTITIONS)] == [2, 2]
    assert not ids & {c["id"] for n in range(PARTITIONS) for c in scene.changes(n)}
    assert_true(scene)


def delete_by_retention(scene: Scene) -> None:
    """Of one topic of a partition a third is gone, of one half, of one nothing, of one all.

    Not all where there are marks: nobody goes on before both topics have one.
    """
    most = 1.0 if scene.settings.clock.mode == "live" else 0.8
    for where, share in zip(EVERYTHING, (1 / 3, 1 / 2, most, 0.0), strict=True):
        scene.consumer.low[where] = int(len(scene.consumer.log[where]) * share)


@pytest.mark.parametrize("mode", ["live", "watermark"])
def test_a_new_namespace_begins_at_what_retention_has_left(
    monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    scene = Scene(monkeypatch, mode=mode)
    write_marked(scene, events(1)) if mode == "watermark" else write(scene, events(1))
    delete_by_retention(scene)
    assert_true(scene.run())
    for number in range(PARTITIONS):
        firsts = [scene.consumer.low[topic, number] for topic in INPUTS]
        assert scene.position(number).first == firsts
    assert_true(scene.run())


def test_accepted_loss_begins_at_what_retention_has_left(
    monkeypatch: pytest.MonkeyPatch, live: Scene
) -> None:
    live.run()
    scene = Scene(monkeypatch, log=live.consumer.log, store_section={"accept_loss": True})
    scene.consumer.group = live.consumer.group
    delete_by_retention(scene)
    assert_true(scene.run())


def test_state_whose_next_messages_retention_deleted_is_no_reason_to_skip_them(
    live: Scene,
) -> None:
    whole = live.consumer.log
    live.consumer.log = {where: messages[:9] for where, messages in whole.items()}
    live.run()
    live.consumer.log, live.consumer.low = whole, dict.fromkeys(EVERYTHING, 20)
    with pytest.raises(OffsetOutOfRangeError, match="no longer holds"):
        live.run()


def test_a_new_namespace_has_no_id_that_the_output_has(
    monkeypatch: pytest.MonkeyPatch, live: Scene
) -> None:
    live.run()
    output = live.settings.topics.changes
    told = {n: live.changes(n) for n in range(PARTITIONS)}
    log = dict(live.consumer.log)
    scene = Scene(monkeypatch, log=log, store_section={"namespace": "another"})
    scene.consumer.group = live.consumer.group
    for number, records in told.items():
        for record in records:
            scene.consumer.append(output, number, json.dumps(record).encode(), START_MS)
    scene.run()
    assert_true(scene)
    for number, records in told.items():
        assert scene.position(number).output == len(records)
        assert scene.position(number).incarnation == len(records) + 1
        assert scene.store.take_outbox(number, "p") == len(records)
        ids = {record["id"] for record in scene.changes(number)}
        assert ids
        assert not ids & {record["id"] for record in records}


def test_accepted_loss_is_another_incarnation_though_the_output_is_gone(
    monkeypatch: pytest.MonkeyPatch, live: Scene
) -> None:
    live.run()
    scene = Scene(monkeypatch, log=live.consumer.log, store_section={"accept_loss": True})
    scene.consumer.group = {
        where: TopicPartition(*where, 5, metadata="segstream/7/5") for where in EVERYTHING
    }
    scene.run()
    assert [scene.position(n).incarnation for n in range(PARTITIONS)] == [8, 8]


def test_another_groups_memory_is_no_witness(live: Scene) -> None:
    for topic, number in EVERYTHING:
        live.consumer.group[topic, number] = TopicPartition(
            topic, number, 5, metadata="another-namespace/3/5"
        )
    assert_true(live.run())
    assert live.position(0).incarnation == 1
