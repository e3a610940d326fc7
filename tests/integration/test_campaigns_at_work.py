"""The role of campaigns on real servers: kill -9, a frozen worker, and each trigger is there once."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Message, Producer

from consumers.client import read_to_end
from ops.kafka.server import RealKafka
from producers import topics
from producers.cloudevents import cloud_event
from stream.campaigns.declare import Limits
from stream.campaigns.oracle import Oracle, Told
from stream.events import CHANGED
from stream.hashing import partition_of
from stream.records import change_id
from stream.store.state import key_of
from stream.units import iso
from stream.wiring import campaigns
from stream.wiring.roles import open_role_store, outlets
from tests.harness import PARTITIONS, Pipeline, headers, watermark_settings
from tests.stream.campaigns.making import HOUR_MS, START_MS, campaign, change

KILLS, CHANGES, USERS = 9, 1_000, 400
VALUE = 12.5
KINDS = ("at_risk", "loyal", "dormant")
CAMPAIGNS = (
    campaign(
        settle="2h",
        holdout=0.2,
        arms={"coupon": 1, "letter": 2},
        cooldown="3d",
        goal={"within": "7d"},
        quiet={"from": "21:00", "to": "08:00", "zone": "Europe/London", "then": "wait"},
    ),
    campaign("wake-up", when={"kind_to": ["dormant"]}, priority=5),
)
LIMITS = Limits.model_validate({"per_user": {"day": 2, "week": 5}})


def measured(owns: list[dict[str, Any]], version: str) -> dict[str, list[float]]:
    """By arm: users whose window is over, how many of them bought, and for how much."""
    found: dict[str, list[float]] = {}
    for own in owns:
        for arm, of in own["sums"].get("win-back", {}).get(version, {}).items():
            before = found.setdefault(arm, [0, 0, 0.0])
            for place, name in enumerate(("users", "converted", "revenue")):
                before[place] += of[name]
    return found


def one_in_each_partition() -> list[str]:
    """Users who are in nothing else, each in another partition."""
    found: dict[int, str] = {}
    number = USERS
    while len(found) < PARTITIONS:
        user = f"u{number}"
        found.setdefault(partition_of(user.encode(), PARTITIONS), user)
        number += 1
    return list(found.values())


def expected_effect(told: list[Told], bought: list[tuple[str, int]]) -> dict[str, list[float]]:
    """The same by the log alone: who was decided for first when, and what they bought within a week."""
    found: dict[str, list[float]] = {}
    for one in told:
        if one.counted and one.campaign == "win-back":
            orders = sum(
                user == one.user and 0 <= at_ms - one.at_ms < 7 * 24 * HOUR_MS
                for user, at_ms in bought
            )
            of_arm = found.setdefault(one.arm, [0, 0, 0.0])
            of_arm[0] += 1
            of_arm[1] += orders > 0
            of_arm[2] += VALUE * orders
    return found


def each_is_there_once(messages: list[Message]) -> None:
    ids = [headers(message)["ce_id"] for message in messages]
    assert len(ids) == len(set(ids))


@pytest.mark.servers
@pytest.mark.slow
def test_each_trigger_is_sent_once_whoever_is_killed_or_frozen(
    kafka: RealKafka, redis_url: str, tmp_path: Path
) -> None:
    marks = {"clock": {"mark_seconds": 3_600.0}}
    settings = watermark_settings(kafka.bootstrap, redis_url, marks).model_copy(
        update={"campaigns": CAMPAIGNS, "campaign_limits": LIMITS}
    )
    assert topics.apply(settings, create=True, outlets=outlets(settings)) == []
    key = key_of(settings.store.namespace_key)
    # A retry of the client must not be a record more: they are counted.
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "enable.idempotence": True})
    oracle = Oracle(settings.campaigns, settings.campaign_limits, key)
    told: list[Told] = []
    sent_changes = 0

    bought: list[tuple[str, int]] = []

    def buy(user: str, at_ms: int) -> None:
        bought.append((user, at_ms))
        value = msgspec.json.encode(
            {
                "type": "track",
                "event": "Order Completed",
                "userId": user,
                "messageId": f"m{len(bought)}",
                "timestamp": iso(at_ms),
                "properties": {"order_id": f"o{len(bought)}", "total": VALUE},
            }
        )
        # A record that is sent twice counts once.
        for _ in range(1 + len(bought) % 2):
            partition = partition_of(user.encode(), PARTITIONS)
            producer.produce(settings.topics.purchases, value, partition=partition, timestamp=at_ms)

    def send(user: str, at_ms: int, number: int, kind: int) -> None:
        nonlocal sent_changes
        one = change(user, at_ms, number, to=kind, kind_to=KINDS[kind])
        one["id"] = change_id(user.encode(), key, 1, number)
        told.extend(oracle.change(one))
        value = msgspec.json.encode(one)
        partition = partition_of(user.encode(), PARTITIONS)
        told_of: Any = cloud_event(one["id"], "", CHANGED, one["at"], user)
        producer.produce(settings.topics.changes, value, partition=partition, headers=told_of)
        sent_changes += 1

    stored = open_role_store(settings, "campaigns")
    with Pipeline(settings, tmp_path) as pipeline, stored as store:
        numbers = range(PARTITIONS)

        def records() -> int:
            return sum(position.records for n in numbers if (position := store.position(n)))

        def wave() -> None:
            for n in range(sent_changes, sent_changes + CHANGES):
                at_ms = START_MS + n * HOUR_MS // 30
                send(f"u{n * 7 % USERS}", at_ms, n + 1, n * 11 % 13 % 3)
                if n % 5 == 0:
                    buy(f"u{n * 7 % USERS}", at_ms + HOUR_MS)
            assert producer.flush() == 0

        def sent() -> int:
            return sent_changes + len(bought) + len(bought[::2])

        def triggers() -> list[Message]:
            return list(read_to_end(settings.broker, settings.topics.triggers))

        running = pipeline.start("campaigns", "campaigns")
        for _ in range(KILLS):
            before = records()
            wave()
            pipeline.wait("records", lambda before=before: records() > before)  # type: ignore[misc]
            running.pop(0).kill()
            (joined,) = pipeline.start("campaigns")
            said = joined.said
            pipeline.wait("a rebalance", lambda said=said: "taken over" in said())  # type: ignore[misc]
            running.append(joined)
        # Past its session: the other has all partitions, and what it knows is old when it wakes up.
        pipeline.wait("all of the waves", lambda: records() == sent())
        frozen, other = running
        frozen.freeze()
        wave()
        pipeline.wait("the take-over", lambda: records() == sent())
        wave()
        # Whoever was killed sends no more, and what they had sent is found.
        each_is_there_once(triggers())
        frozen.thaw()
        pipeline.wait("all after it", lambda: records() == sent())
        assert "Traceback" not in frozen.said() + other.said()
        end_ms = START_MS + 30 * 24 * HOUR_MS
        for user in one_in_each_partition():
            send(user, end_ms, 1, 1)
            buy(user, end_ms)
        assert producer.flush() == 0
        pipeline.wait("all", lambda: records() == sent() and not any(store.outbox_sizes(numbers)))
        pipeline.end()
        owns = [json.loads(store.own(n)) for n in numbers]
    for check in campaigns.audit(settings):
        assert (check.ok, check.unjudged, check.offenders) == (True, 0, []), check.name
        assert check.counted > KILLS * CHANGES // 20
    told += oracle.advance(end_ms - HOUR_MS)
    version = {one.name: one.version for one in settings.campaigns}
    expected = {
        f"{one.campaign}-{version[one.campaign]}-{one.change}": (one.user, one.arm, iso(one.at_ms))
        for one in told
        if one.outcome == "sent"
    }
    messages = triggers()
    found = [json.loads(message.value() or b"") for message in messages]
    assert [headers(one)["ce_id"] for one in messages] == [one["id"] for one in found]
    assert len(expected) > KILLS * CHANGES // 20
    # What the frozen one's client still held is sent when it wakes up: the same to the bit.
    assert len({message.value() for message in messages}) == len({one["id"] for one in found})
    assert {one["id"]: (one["user"], one["arm"], one["at"]) for one in found} == expected
    assert measured(owns, version["win-back"]) == expected_effect(told, bought)
    for own in owns:
        assert own["seen"] == {name: sum(of.values()) for name, of in own["counts"].items()}
    assert sum(own["seen"]["win-back"] for own in owns) == sent_changes


LIVE_USERS, LIVE_ROUNDS, DAILY = 300, 4, 2
LIVE = (
    # Decided by time alone: whoever wakes up late finds it due.
    campaign("settles", settle="1s", holdout=0.2, arms={"coupon": 1, "letter": 2}),
    campaign("at-once", holdout=0.3, priority=5),
    campaign("dormant", when={"kind_to": ["dormant"]}, holdout=0.1),
)
LIVE_LIMITS = Limits.model_validate({"per_user": {"day": DAILY}, "global_holdout": 0.05})


@pytest.mark.servers
@pytest.mark.slow
def test_live_a_worker_frozen_past_its_session_sends_nothing_over_a_cap(
    kafka: RealKafka, redis_url: str, tmp_path: Path
) -> None:
    """By the wall clock every change comes within the cap's day, so each user gets as much as the cap allows.

    A worker is frozen with changes unread, commits under way and settling users; the other takes over
    and decides about them; then the first wakes up and would go on where it was.
    """
    settings = watermark_settings(
        kafka.bootstrap, redis_url, {"clock": {"mode": "live"}}
    ).model_copy(update={"campaigns": LIVE, "campaign_limits": LIVE_LIMITS})
    assert topics.apply(settings, create=True, outlets=outlets(settings)) == []
    key = key_of(settings.store.namespace_key)
    # A retry of the client must not be a record more: they are counted.
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "enable.idempotence": True})
    oracle = Oracle(settings.campaigns, settings.campaign_limits, key)
    changes: dict[str, dict[str, Any]] = {}

    def wave() -> None:
        for user in (f"u{n}" for n in range(LIVE_USERS)):
            for kind in (0, 2, 0):
                at_ms = time.time_ns() // 1_000_000
                one = change(user, at_ms, 0, to=kind, kind_to=KINDS[kind])
                number = len(changes) + 1
                one["id"] = change_id(user.encode(), key, 1, number)
                changes[one["id"]] = one
                partition = partition_of(user.encode(), PARTITIONS)
                told_of: Any = cloud_event(one["id"], "", CHANGED, one["at"], user)
                value = msgspec.json.encode(one)
                producer.produce(
                    settings.topics.changes, value, partition=partition, headers=told_of
                )
        assert producer.flush() == 0

    numbers = range(PARTITIONS)
    stored = open_role_store(settings, "campaigns")
    with Pipeline(settings, tmp_path) as pipeline, stored as store:

        def records() -> int:
            return sum(position.records for n in numbers if (position := store.position(n)))

        def all_read() -> bool:
            return records() == len(changes)

        def all_decided() -> bool:
            counts = [json.loads(own)["counts"] for n in numbers if (own := store.own(n))]
            under_way = sum(of["settling"] + of["waiting"] for own in counts for of in own.values())
            return all_read() and not under_way and not any(store.outbox_sizes(numbers))

        running = pipeline.start("campaigns", "campaigns")
        wave()
        pipeline.wait("the first wave", all_read)
        for turn in range(LIVE_ROUNDS):
            victim = running[turn % 2]
            before = records()
            wave()
            pipeline.wait("some of the wave", lambda before=before: records() > before)  # type: ignore[misc]
            victim.freeze()
            pipeline.wait("the take-over", all_read)
            victim.thaw()
            # Awake and told that it owns nothing any more, it joins again and gets its part.
            wave()
            pipeline.wait("all after it", all_read)
        pipeline.wait("everything decided", all_decided)
        assert not any("Traceback" in one.said() for one in running)
        pipeline.end()
        owns = [json.loads(store.own(n)) for n in numbers]
    for check in campaigns.audit(settings):
        assert (check.ok, check.offenders) == (True, []), check.name
    for own in owns:
        assert own["seen"] == {name: sum(of.values()) for name, of in own["counts"].items()}
    for one in LIVE:
        assert sum(own["seen"][one.name] for own in owns) == len(changes)
    messages = list(read_to_end(settings.broker, settings.topics.triggers))
    found = [json.loads(message.value() or b"") for message in messages]
    payloads: dict[str, dict[str, Any]] = {}
    for trigger in found:
        assert payloads.setdefault(trigger["id"], trigger) == trigger
    sent: dict[str, set[str]] = {f"u{n}": set() for n in range(LIVE_USERS)}
    declared = {one.name: one for one in LIVE}
    for trigger in payloads.values():
        assert trigger["change"] in changes
        assert oracle.arm(declared[trigger["campaign"]], trigger["user"]) == trigger["arm"]
        assert trigger["arm"] not in {"holdout", "global_holdout"}
        sent[trigger["user"]].add(trigger["id"])
    for user, ids in sent.items():
        # Of "settles" alone nothing may be sent: the third change of a wave may come before it is due.
        treated = [
            one.name for one in LIVE if oracle.arm(one, user) not in {"holdout", "global_holdout"}
        ]
        least = DAILY if {"at-once", "dormant"} & set(treated) else 0
        assert least <= len(ids) <= (DAILY if treated else 0), (user, treated)
