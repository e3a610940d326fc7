"""From assigned to served: what was delivered is true, and nobody waits who is served."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from confluent_kafka import TopicPartition

from consumers.plain import parse_time
from consumers.topic_watch import TopicReplacedError
from stream import partition as partitions
from stream.delivered import Delivered
from stream.metrics import REGISTRY
from stream.store.state import Answer, Position, StoreUnavailableError
from tests.consumers.scene import (
    EVERYTHING,
    INPUTS,
    PARTITIONS,
    SETTLED,
    TABLE,
    Scene,
    assert_chained,
    assert_true,
    delivered,
    events,
    write,
    write_marked,
)
from tests.strategies import START_MS, encoded


def go_on(
    last: dict[str, Delivered], since: dict[str, int], changes: Sequence[dict[str, Any]]
) -> None:
    """See that changes go on from what was delivered, and take them in.

    Args:
        last: by user, what they were told last.
        since: by user, when they came to where they are.
    """
    for change in changes:
        user, at_ms = change["user"], parse_time(change["at"])
        before = last.get(user)
        assert change["version"] == (before.version + 1 if before else 1)
        assert (change["from"] or 0) == (before.after if before else 0)
        if change["from"] != change["to"]:
            since[user] = at_ms
        last[user] = Delivered(
            user, 1, change["version"], 0, change["to"], at_ms, change["kind_to"]
        )


def test_what_was_delivered_of_lost_commits_is_taken_from_the_output(live: Scene) -> None:
    """The store goes back to before anything; what it knew then is on the output already."""
    live.run()
    told = [delivered(live, number) for number in range(PARTITIONS)]
    assert all(told)
    rows_before = [live.rows(number) for number in range(PARTITIONS)]
    for number in range(PARTITIONS):
        begin = Position([0, 0], TABLE.schema, model="1.0")
        live.store.acquire(number, "x")
        live.store.create(number, "x", begin, replace=True)
    live.output.delivered = dict(enumerate(told))
    live.clock.advance(40 * 86_400)  # by now, most would be decided otherwise
    live.run(idle=SETTLED)

    for number in range(PARTITIONS):
        last = {one.user: one for one in told[number]}
        since = {one.user: one.at_ms for one in told[number] if one.before != one.after}
        again = live.changes(number)
        ids = {(one.user, one.version) for one in told[number]}
        assert not ids & {(c["user"], c["version"]) for c in again}, "one payload an id"
        go_on(last, since, again)
        rows = live.rows(number)
        assert set(rows) == set(rows_before[number])
        for user, raw in rows.items():
            row, one = np.frombuffer(raw, TABLE.dtype)[0], last[user.decode()]
            assert (row["version"], row["segment"], row["since"]) == (
                one.version,
                one.after,
                since[user.decode()],
            )
        assert live.position(number).users == len(rows)


@pytest.mark.slow
def test_a_partition_put_back_alone_comes_to_what_was_delivered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From mark to mark, under a model that is newer than those it met."""
    scene = Scene(monkeypatch, mode="watermark", learning={"refit_seconds": "2d"})
    write_marked(scene, events(3))
    kept: list[Any] = []

    def watch() -> None:
        known = scene.position(0).model if scene.store.position(0) else ""
        if not kept and known and len(delivered(scene, 0)) > 5:
            kept.append(copy.deepcopy(scene.store._partitions[0]))

    scene.run(watch)
    assert scene.position(0).model != msgspec.json.decode(kept[0].position, type=Position).model
    told = delivered(scene, 0)
    rows = scene.rows(0)
    lost = told[sum(len(entry.changes) for entry in kept[0].outbox) :]
    assert len(lost) > 10
    scene.store._partitions[0] = kept[0]
    scene.store._partitions[0].outbox.clear()
    known_to = len(told) - len(lost)
    scene.output.delivered = {0: told}
    position = msgspec.structs.replace(scene.position(0), known_to=known_to)
    scene.store._partitions[0].position = msgspec.json.encode(position)
    scene.run()
    assert scene.output.asked[-1] == {0: known_to}
    ids = {(one.user, one.version) for one in told}
    again = scene.changes(0)
    assert not ids & {(change["user"], change["version"]) for change in again}
    last = {one.user: one for one in told}
    since = {one.user: one.at_ms for one in told if one.before != one.after}
    go_on(last, since, again)
    assert set(scene.rows(0)) == set(rows)
    for user, raw in scene.rows(0).items():
        row = np.frombuffer(raw, TABLE.dtype)[0]
        if one := last.get(user.decode()):
            assert (row["version"], row["segment"]) == (one.version, one.after)
            assert row["since"] == since[user.decode()]


def test_until_lost_users_are_back_the_output_is_read_again(live: Scene) -> None:
    live.run(idle=0)
    lost = Delivered("never seen again", 1, 3, 1, 2, START_MS, "loyal")
    live.output.delivered = {0: [lost]}
    known = live.position(0).known_to
    live.store._partitions[0].delivered_to = 1
    live.run(idle=SETTLED)
    assert live.output.asked[-1][0] == known
    assert live.position(0).known_to == known, "the change is not in a row yet"
    live.output.delivered = {}
    live.run(idle=SETTLED)
    assert live.position(0).known_to == 1
    assert live.position(1).known_to == 0


def test_changes_of_another_incarnation_say_nothing_of_this_one(live: Scene) -> None:
    live.run(idle=0)
    user = next(iter(live.rows(0))).decode()
    live.output.delivered = {0: [Delivered(user, 2, 99, 1, 2, START_MS, "loyal")]}
    assert_chained(live.run(), 0)


def test_after_another_run_of_the_store_it_waits_before_it_decides(
    monkeypatch: pytest.MonkeyPatch, live: Scene
) -> None:
    live.run(idle=0)
    asked, began = len(live.output.asked), live.clock.seconds
    monkeypatch.setattr(live.store, "run", lambda: "another")
    live.run(until=lambda: len(live.output.asked) > asked, idle=SETTLED)
    assert live.clock.seconds - began >= live.settings.publisher.settle_seconds
    live.run(idle=SETTLED)
    assert_true(live)
    assert live.position(0).store_run == "another"
    asked, began = len(live.output.asked), live.clock.seconds
    live.run(until=lambda: len(live.output.asked) > asked)
    assert live.clock.seconds - began < live.settings.publisher.settle_seconds


def test_a_broker_that_is_slow_to_answer_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, live: Scene
) -> None:
    live.run(idle=0)
    asked, began = len(live.output.asked), live.clock.seconds
    monkeypatch.setattr(live.store, "run", lambda: "another")
    slow_until, watermarks = began + 7.0, live.consumer.get_watermark_offsets

    def stalled(*arguments: Any, **options: Any) -> Any:
        if live.clock.seconds < slow_until:
            live.clock.advance(2.0)
        return watermarks(*arguments, **options)

    monkeypatch.setattr(live.consumer, "get_watermark_offsets", stalled)
    live.run(until=lambda: len(live.output.asked) > asked, idle=10 * SETTLED)
    assert live.clock.seconds >= slow_until + live.settings.publisher.settle_seconds


def test_an_output_made_anew_is_read_from_its_beginning(
    monkeypatch: pytest.MonkeyPatch, live: Scene
) -> None:
    live.run(idle=0)
    for state in live.store._partitions.values():
        state.delivered_to = 7
    live.run(idle=SETTLED)
    assert live.position(0).known_to == 7
    live.run(idle=0)
    assert live.output.asked[-1] == {0: 7, 1: 7}
    live.output.ids["segment-changes"] = "made anew"
    write(live, [(live.clock.wall_ms(), INPUTS[0], 0, encoded(time_ms=live.clock.wall_ms()))])
    monkeypatch.setattr(live.store, "delivered_to", unanswered)
    live.run(idle=SETTLED)
    assert live.output.asked[-1] == {0: 0, 1: 0}
    assert live.position(0).known_to == 0


def unanswered(partitions: Sequence[int]) -> list[int]:
    raise StoreUnavailableError(f"of partitions {partitions} nothing is known")


@pytest.mark.parametrize("topic", INPUTS)
def test_an_input_made_anew_stops_it(live: Scene, topic: str) -> None:
    live.run(idle=0)
    live.output.ids[topic] = "made anew"
    with pytest.raises(TopicReplacedError, match=rf"topic {topic} was deleted and made anew"):
        live.run(idle=0)


def test_an_input_made_anew_meanwhile_stops_it(live: Scene) -> None:
    def replace() -> None:
        if live.consumer.idle > 10:
            live.output.ids["purchases"] = "made anew"

    with pytest.raises(TopicReplacedError, match="topic purchases"):
        live.run(replace, idle=10_000)


def test_partitions_are_served_while_others_load(
    monkeypatch: pytest.MonkeyPatch, live: Scene
) -> None:
    """One partition has so many users that loading them takes many turns."""
    live.run()
    load = live.store.load

    def slowly(number: int) -> Iterator[tuple[bytes, bytes]]:
        for user in load(number):
            live.clock.advance(1.0 if number == 1 else 0.0)
            yield user

    monkeypatch.setattr(live.store, "load", slowly)
    monkeypatch.setattr(partitions, "LOADED_AT_ONCE", 2)
    write(live, [(live.clock.wall_ms(), INPUTS[0], 0, encoded(time_ms=live.clock.wall_ms()))] * 3)
    taken: list[int] = []
    commits = len(live.store.commits)

    def watch() -> None:
        if REGISTRY.get_sample_value("segstream_partition_users", {"partition": "1"}) is None:
            taken.extend(number for number, *_ in live.store.commits[commits:])

    live.run(watch, idle=SETTLED)
    assert set(taken) == {0}
    assert_true(live)


def test_a_rebalance_serves_no_partition_that_waits_to_be_read(
    monkeypatch: pytest.MonkeyPatch, live: Scene
) -> None:
    """Its place in the log is moved when its users are there; in a rebalance that is no time to."""
    live.run()
    load, rebalancing, moved = live.store.load, [False], Counter[bool]()
    seek = live.consumer.seek

    def slowly(number: int) -> Iterator[tuple[bytes, bytes]]:
        for user in load(number):
            live.clock.advance(0.0 if rebalancing[0] else 1.0)
            yield user

    def watched_seek(where: TopicPartition) -> None:
        moved[rebalancing[0]] += 1
        seek(where)

    def give_second() -> None:
        rebalancing[0] = True
        live.consumer.give(*EVERYTHING[2:])()
        rebalancing[0] = False

    monkeypatch.setattr(live.store, "load", slowly)
    monkeypatch.setattr(live.consumer, "seek", watched_seek)
    monkeypatch.setattr(partitions, "LOADED_AT_ONCE", 2)
    one_by_one = [live.consumer.give(where) for where in EVERYTHING[:2]]
    live.consumer.then(*one_by_one, lambda: None, give_second)
    live.run(idle=SETTLED)
    assert moved == {False: 2}
    assert_true(live)


@pytest.mark.slow
def test_a_rollback_brings_the_same_changes_under_the_same_ids(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = Scene(monkeypatch, mode="watermark")
    write_marked(plain, events(3))
    plain.run()
    scene = Scene(monkeypatch, mode="watermark", log=plain.consumer.log)
    kept: list[Any] = []

    def roll_back() -> None:
        scene.store._partitions, scene.store._trainer = kept[0]

    def watch() -> None:
        if not kept and len(scene.store.commits) > 30:
            kept.append(copy.deepcopy((scene.store._partitions, scene.store._trainer)))
            scene.store.trouble.extend([lambda: None] * 9 + [roll_back])

    scene.run(watch)
    assert Answer.DIVERGED in {answer for _, _, answer in scene.store.commits}
    assert scene.everything() == plain.everything()


def test_a_store_that_is_away_at_the_takeover_ends_the_run(
    live: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(partition: int, token: str) -> None:
        raise StoreUnavailableError(f"away: {partition} {len(token)}")

    with monkeypatch.context() as patch:
        patch.setattr(live.store, "acquire", away)
        with pytest.raises(StoreUnavailableError):
            live.run()
    assert_true(live.run())
