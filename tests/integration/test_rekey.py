"""Users who lie elsewhere come to where they belong; another number of partitions loses nobody."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]

from consumers.client import admin_options
from ops.kafka.server import RealKafka
from stream.config import Settings
from stream.config_layers import as_file
from stream.events import Counts
from stream.hashing import partition_of
from tests import harness
from tests.harness import Pipeline, milliseconds
from tests.integration.processes import segstream
from tests.strategies import ORDER, VIEW, track

pytestmark = [pytest.mark.servers, pytest.mark.slow]

AT_MS = milliseconds("2026-03-02T08:00:00Z")
USERS = [f"shopper {number}" for number in range(60)]


def write(settings: Settings, topic: str, event: str, partitioner: str) -> None:
    producer = Producer(
        {"bootstrap.servers": settings.broker.bootstrap, "partitioner": partitioner}
    )
    for number, user in enumerate(USERS):
        fields = {"event": event, "userId": user, "messageId": f"{event} {number}"}
        raw = json.dumps(track(AT_MS + number, **fields, properties={"revenue": 5})).encode()
        producer.produce(topic, raw, user, timestamp=AT_MS)
    assert producer.flush(30) == 0


def counts(pipeline: Pipeline) -> Counts:
    total = Counts()
    for position in pipeline.positions():
        total.add(position.counts if position is not None else Counts())
    return total


def homes(settings: Settings) -> Counter[bytes]:
    """How many partitions each user lives in, and that it is the right one."""
    found: Counter[bytes] = Counter()
    with closing(harness.open_store(settings)) as store:
        for number in range(settings.topics.partitions):
            for user, _ in store.load(number):
                assert partition_of(user, settings.topics.partitions) == number
                found[user] += 1
    return found


def test_misplaced_messages_are_sent_to_where_they_belong_and_more_partitions_lose_nobody(
    kafka: RealKafka, redis_url: str, tmp_path: Path
) -> None:
    layers: harness.Sections = {"clock": {"mode": "live"}, "worker": {"reject_ratio_limit": 1}}
    settings = harness.watermark_settings(kafka.bootstrap, redis_url, layers)
    clicks, orders = settings.topics.inputs
    with Pipeline(settings, tmp_path / "first") as pipeline:
        pipeline.create_topics()
        write(settings, clicks, VIEW, "murmur2_random")
        write(settings, orders, ORDER, "consistent_random")
        pipeline.start("activity")
        pipeline.wait("everything read", lambda: counts(pipeline).consumed == 2 * len(USERS))
        refused = counts(pipeline).rejected
        assert refused > 10
        own = ("-c", str(pipeline.config))
        examined = segstream(*own, "doctor")
        assert examined.code == 1
        assert "crc32" in examined.out
        again = segstream(*own, "rekey", "--json")
        assert (again.code, again.facts["sent"]) == (0, refused)
        pipeline.wait("all counted", lambda: counts(pipeline).applied == 2 * len(USERS))
        assert counts(pipeline).rejected == refused
        once_more = segstream(*own, "rekey", "--json")
        assert (once_more.code, once_more.facts["sent_before"]) == (1, refused)
        assert homes(settings) == Counter(dict.fromkeys(map(str.encode, USERS), 1))
        pipeline.end()

        # More partitions: refused at every step, until new topics are filled from the old ones.
        wanted = settings.topics.partitions * 2
        admin = AdminClient(admin_options(settings.broker))
        for future in admin.create_partitions(
            [NewPartitions(topic, wanted) for topic in (clicks, orders, settings.topics.changes)]
        ).values():
            future.result()
        for step in ((), ("--set", f"topics.partitions={wanted}")):
            said = segstream(*own, *step, "--set", "store.accept_loss=true", "run", "activity")
            assert said.code == 2
            assert f"segstream rekey --from {clicks} --to clickstream" in said.err

    renamed = {
        name: f"{getattr(settings.topics, name)}-more"
        for name in ("clickstream", "purchases", "changes", "models")
    }
    more = settings.model_copy(
        update={
            "topics": settings.topics.model_copy(update=renamed | {"partitions": wanted}),
            "store": settings.store.model_copy(
                update={"namespace": f"{settings.store.namespace}-more"}
            ),
            "broker": settings.broker.model_copy(update={"group": f"{settings.broker.group}-more"}),
        }
    )
    with Pipeline(more, tmp_path / "second") as pipeline:
        pipeline.config.write_text(as_file(more))
        pipeline.create_topics()
        own = ("-c", str(pipeline.config))
        for source, target in ((clicks, "clickstream"), (orders, "purchases")):
            copied = segstream(*own, "rekey", "--from", source, "--to", target, "--json")
            assert copied.code == 0
        pipeline.start("activity")
        pipeline.wait("all counted", lambda: counts(pipeline).applied == 2 * len(USERS))
        assert counts(pipeline).rejected == 0
        assert homes(more) == Counter(dict.fromkeys(map(str.encode, USERS), 1))
        assert segstream(*own, "audit").code == 0
