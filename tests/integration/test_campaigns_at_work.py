"""The role of campaigns on real servers: kill -9 and rebalances, and each trigger is there once."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Producer

from consumers.client import read_to_end
from ops.kafka.server import RealKafka
from producers import topics
from stream.campaigns.declare import Limits
from stream.campaigns.oracle import Oracle, Told
from stream.records import change_id
from stream.store.state import key_of
from stream.units import iso
from stream.wiring.roles import open_role_store, outlets
from tests.harness import PARTITIONS, Pipeline, headers, watermark_settings
from tests.stream.campaigns.making import HOUR_MS, START_MS, campaign, change

WAVES, CHANGES, USERS = 3, 3_000, 400
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


@pytest.mark.servers
@pytest.mark.slow
def test_each_trigger_is_sent_once_whoever_is_killed(
    kafka: RealKafka, redis_url: str, tmp_path: Path
) -> None:
    marks = {"clock": {"mark_seconds": 3_600.0}}
    settings = watermark_settings(kafka.bootstrap, redis_url, marks).model_copy(
        update={"campaigns": CAMPAIGNS, "campaign_limits": LIMITS}
    )
    assert topics.apply(settings, create=True, outlets=outlets(settings)) == []
    key = key_of(settings.store.namespace_key)
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    oracle = Oracle(settings.campaigns, settings.campaign_limits, key)
    told: list[Told] = []
    sent_changes = 0

    def send(user: str, at_ms: int, number: int, kind: int) -> None:
        nonlocal sent_changes
        one = change(user, at_ms, number, to=kind, kind_to=KINDS[kind])
        one["id"] = change_id(user.encode(), key, 1, number)
        told.extend(oracle.change(one))
        value = msgspec.json.encode(one)
        partition = int(user[1:]) % PARTITIONS
        producer.produce(settings.topics.changes, value, partition=partition)
        sent_changes += 1

    stored = open_role_store(settings, "campaigns")
    with Pipeline(settings, tmp_path) as pipeline, stored as store:
        numbers = range(PARTITIONS)

        def records() -> int:
            return sum(position.records for n in numbers if (position := store.position(n)))

        running = pipeline.start("campaigns", "campaigns")
        for _ in range(WAVES):
            before = sent_changes
            for n in range(before, before + CHANGES):
                send(f"u{n * 7 % USERS}", START_MS + n * HOUR_MS // 30, n + 1, n * 11 % 13 % 3)
            assert producer.flush() == 0
            pipeline.wait("records", lambda before=before: records() > before)  # type: ignore[misc]
            running.pop(0).kill()
            (joined,) = pipeline.start("campaigns")
            said = joined.said
            pipeline.wait("a rebalance", lambda said=said: "taken over" in said())  # type: ignore[misc]
            running.append(joined)
        end_ms = START_MS + 30 * 24 * HOUR_MS
        for partition in numbers:
            send(f"u{USERS + partition}", end_ms, 1, 1)
        assert producer.flush() == 0
        pipeline.wait(
            "all", lambda: records() == sent_changes and not any(store.outbox_sizes(numbers))
        )
        pipeline.end()
        owns = [json.loads(store.own(n)) for n in numbers]
    told += oracle.advance(end_ms - HOUR_MS)
    version = {one.name: one.version for one in settings.campaigns}
    expected = {
        f"{one.campaign}-{version[one.campaign]}-{one.change}": (one.user, one.arm, iso(one.at_ms))
        for one in told
        if one.outcome == "sent"
    }
    messages = list(read_to_end(settings.broker, settings.topics.triggers))
    found = [json.loads(message.value() or b"") for message in messages]
    assert [headers(one)["ce_id"] for one in messages] == [one["id"] for one in found]
    assert len(expected) > WAVES * CHANGES // 20
    assert len(found) == len({one["id"] for one in found})
    assert {one["id"]: (one["user"], one["arm"], one["at"]) for one in found} == expected
    for own in owns:
        assert own["seen"] == {name: sum(of.values()) for name, of in own["counts"].items()}
    assert sum(own["seen"]["win-back"] for own in owns) == sent_changes
