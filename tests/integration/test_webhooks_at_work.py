"""The role of webhooks on real servers: kill -9 and rude endpoints, and each trigger arrives, with its id."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Producer

from consumers.client import read_to_end
from consumers.parked import parked
from consumers.webhook_audit import audit_webhooks
from ops.kafka.server import RealKafka
from producers import topics
from stream.config import Settings
from stream.roles.redis import RedisRoleStore
from stream.store.state import key_of
from stream.units import iso
from stream.webhooks.letters import topic_of
from stream.wiring.parked import parked_facts, replay
from stream.wiring.roles import open_role_store, outlets
from tests.endpoint import LocalEndpoint, Manner
from tests.harness import PARTITIONS, Pipeline, watermark_settings
from tests.stream.webhooks.making import OTHER_SECRET, SECRET, trigger

KILLS, PORTION = 9, 60
NUMBERS = range(PARTITIONS)
RUDE = (
    *(Manner.WELL, Manner.WELL, Manner.WELL, Manner.WELL, Manner.SLOW, Manner.BROKEN, Manner.BUSY),
    *(Manner.ELSEWHERE, Manner.HALF, Manner.NEVER),
)


def rude(seed: int) -> Any:
    """A manner of a choice for each request."""
    return lambda number: random.Random(seed * 100_003 + number).choice(RUDE)


def settings_of(
    kafka: RealKafka, redis_url: str, tmp_path: Path, **endpoints: LocalEndpoint
) -> Settings:
    """With endpoints that are tried quickly, and for long enough."""
    declared = []
    for name, endpoint in endpoints.items():
        file = tmp_path / f"{name}.secret"
        file.write_text(endpoint.secret)
        declared.append(
            {
                "name": name,
                "url": endpoint.url,
                "secrets": [f"file:{file}"],
                "timeout": 1.0,
                "private": True,
            }
        )
    layers: dict[str, dict[str, Any]] = {
        "webhooks": {
            "retry_seconds": [0.1] * 32,
            "open_seconds": 0.05,
            "most_open_seconds": 0.2,
        }
    }
    made = watermark_settings(kafka.bootstrap, redis_url, layers)
    told = made.model_dump() | {
        "campaigns": [{"name": "win-back", "when": {"kind_to": ["at_risk"]}}],
        "endpoints": declared,
    }
    settings = Settings.model_validate(told)
    assert topics.apply(settings, create=True, outlets=outlets(settings)) == []
    return settings


def waiting(store: RedisRoleStore) -> int:
    """How many deliveries are not over; the topic is read once the offsets say so."""
    return sum(position.rows for n in NUMBERS if (position := store.position(n)))


def read(store: RedisRoleStore) -> int:
    return sum(position.offsets[0] for n in NUMBERS if (position := store.position(n)))


class Triggers:
    """Puts triggers on their topic."""

    def __init__(self, settings: Settings) -> None:
        self._producer = Producer({"bootstrap.servers": settings.broker.bootstrap})
        self._topic = settings.topics.triggers
        self._key = key_of(settings.store.namespace_key)
        self.ids: list[str] = []

    def send(self, count: int) -> None:
        until = iso(time.time_ns() // 1_000_000 + 3_600_000)
        for _ in range(count):
            one = trigger(len(self.ids), self._key, valid_until=until)
            self.ids.append(one["id"])
            partition = len(self.ids) % PARTITIONS
            self._producer.produce(self._topic, msgspec.json.encode(one), partition=partition)
        assert self._producer.flush() == 0


@pytest.mark.servers
@pytest.mark.slow
def test_each_trigger_arrives_whoever_is_killed_and_however_rude(
    kafka: RealKafka, redis_url: str, tmp_path: Path
) -> None:
    with (
        LocalEndpoint(SECRET, rude(1)) as crm,
        LocalEndpoint(OTHER_SECRET, rude(2)) as mail,
    ):
        settings = settings_of(kafka, redis_url, tmp_path, crm=crm, mail=mail)
        sent = Triggers(settings)
        stored = open_role_store(settings, "webhooks")
        with Pipeline(settings, tmp_path) as pipeline, stored as store:
            running = pipeline.start("webhooks", "webhooks")
            for _ in range(KILLS):
                before = len(crm.received)
                sent.send(PORTION)
                pipeline.wait("requests", lambda before=before: len(crm.received) > before + 10)  # type: ignore[misc]
                running.pop(0).kill()
                running += pipeline.start("webhooks")
            pipeline.wait("all", lambda: read(store) == len(sent.ids) and waiting(store) == 0)
            pipeline.end()
            check = audit_webhooks(store, PARTITIONS)
    assert (check.offenders, check.unjudged) == ([], 0)
    assert check.counted == 2 * len(sent.ids)
    for endpoint in (crm, mail):
        assert set(endpoint.ids) == set(sent.ids)
        assert endpoint.forged == 0
        bodies = {(one.id, msgspec.json.encode(one.body)) for one in endpoint.received}
        assert len(bodies) == len(sent.ids)
        assert {one.path for one in endpoint.received} == {"/in"}
    assert list(read_to_end(settings.broker, topic_of(settings))) == []


@pytest.mark.servers
@pytest.mark.slow
def test_what_was_parked_is_sent_again_and_nobody_else_is_held_up(
    kafka: RealKafka, redis_url: str, tmp_path: Path
) -> None:
    with (
        LocalEndpoint(SECRET, lambda _: Manner.GONE) as gone,
        LocalEndpoint(OTHER_SECRET) as well,
    ):
        settings = settings_of(kafka, redis_url, tmp_path, gone=gone, well=well)
        sent = Triggers(settings)
        stored = open_role_store(settings, "webhooks")
        with Pipeline(settings, tmp_path) as pipeline, stored as store:
            pipeline.start("webhooks")
            sent.send(PORTION)
            pipeline.wait(
                "letters",
                lambda: (
                    read(store) == PORTION and waiting(store) == 0
                    and not any(store.outbox_sizes(NUMBERS))
                ),
            )  # fmt: skip
            assert Counter(well.ids) == Counter(sent.ids)
            found = parked(settings)
            (reason,) = parked_facts(found)["reasons"]
            assert (reason["endpoint"], reason["reason"], reason["letters"]) == (
                "gone",
                "gone",
                PORTION,
            )
            gone.manner = lambda _: Manner.WELL
            options: dict[str, Any] = {
                "endpoint": "gone", "reason": None, "since_ms": 0, "limit": None, "again": False,
                "late": False, "told": lambda _: None,
            }  # fmt: skip
            now_ms = time.time_ns() // 1_000_000
            asked = replay(settings, found, now_ms, dry_run=True, **options)
            assert (asked["asked"], asked["would_ask"]) == (0, PORTION)
            asked = replay(settings, found, now_ms, dry_run=False, **options)
            assert (asked["asked"], asked["would_ask"]) == (PORTION, 0)
            pipeline.wait("all", lambda: set(gone.ids) == set(sent.ids))
            sent.send(PORTION)
            pipeline.wait("more", lambda: set(gone.ids) == set(sent.ids))
            again = replay(settings, parked(settings), now_ms, dry_run=True, **options)
            assert (again["would_ask"], again["sent_before"]) == (0, PORTION)
            pipeline.end()
