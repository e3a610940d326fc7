"""The whole pipeline at work, each role as the users of Redis and Kafka that the guide makes for it."""

from __future__ import annotations

import secrets
import time
from pathlib import Path

import pytest
import redis
from confluent_kafka import Producer

from producers.client import producer_options
from stream.config import Broker, Settings
from stream.config_layers import as_file
from stream.insight.queries import model_in_force
from stream.rights import acl_line
from stream.servers import LocalStore, redis_binary
from tests import harness
from tests.conftest import SettingsFor
from tests.harness import Pipeline
from tests.integration.processes import segstream
from tests.secured import SecuredKafka
from tests.strategies import ORDER, encoded

pytestmark = [pytest.mark.servers, pytest.mark.slow]

USERS = 200


def test_every_role_works_as_its_user(
    secured: SecuredKafka, settings_for: SettingsFor, tmp_path: Path
) -> None:
    with LocalStore(binary=redis_binary(), appendonly=True) as store:
        settings = settings_for(
            secured.server.bootstrap,
            store.url,
            worker={"sweep_seconds": 0.5, "decoder": "plain"},
            learning={"first_model_users": 100, "segments": 3},
            publisher={"lease_seconds": 1.0},
        )

        def config(role: str) -> Path:
            """Settings with a role's own users, whom this makes."""
            secured.allow(role, settings)
            broker = settings.broker.model_dump() | secured.by_password(role)
            line = acl_line(role, settings.store.namespace, word := secrets.token_hex(8))
            with redis.Redis.from_url(store.url) as admin:
                admin.execute_command(*line.split())
            url = store.url.replace("redis://", f"redis://segstream-{role}:{word}@")
            own = settings.model_copy(
                update={
                    "broker": Broker.model_validate(broker),
                    "store": settings.store.model_copy(update={"url": url}),
                }
            )
            file = tmp_path / f"{role}.toml"
            file.write_text(as_file(own))
            return file

        with Pipeline(settings, tmp_path) as pipeline:
            pipeline.create_topics()
            for role in ("activity", "trainer", "publisher"):
                pipeline.config = config(role)
                pipeline.start(role)
            shop(settings)
            pipeline.wait("everyone's first segment", lambda: len(pipeline.changes()) >= USERS)
            pipeline.wait("an empty outbox", lambda: not any(pipeline.store.outbox_sizes(range(4))))
            segment = str(model_in_force(pipeline.store).ids[0])
            for role, command in (
                # First, for a refit may end the segment.
                ("operator", ("segments", "rename", segment, "Regulars")),
                ("doctor", ("doctor", "--json")),
                ("reader", ("user", "user 1", "--why")),
                ("reader", ("audit", "--json")),
                ("operator", ("republish",)),
            ):
                said = segstream("-c", str(config(role)), *command)
                assert said.code == 0, (role, command, said.err, said.out)
            refused = segstream("-c", str(config("reader")), "segments", "rename", segment, "Mine")
            assert refused.code == 1
            assert "ops/guide/redis.md" in refused.err
            pipeline.end()
            harness.assert_clean(pipeline.audit())


def shop(settings: Settings) -> None:
    """Everyone buys once or twice."""
    producer = Producer(producer_options(settings.broker))
    for number in range(2 * USERS):
        user = f"user {number % USERS}"
        order = encoded(
            time_ms=time.time_ns() // 1_000_000,
            event=ORDER,
            userId=user,
            messageId=secrets.token_hex(8),
            properties={"revenue": 5.0 + number % 90},
        )
        producer.produce(settings.topics.purchases, order, user.encode())
    assert producer.flush(30) == 0
