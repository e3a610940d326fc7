"""The role that is added in one file: kill -9 and rebalances change nothing of what it counts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from confluent_kafka import Producer

from consumers.client import read_to_end
from ops.kafka.server import RealKafka
from producers import topics
from stream.wiring.roles import open_role_store
from tests.harness import PARTITIONS, Pipeline, headers, watermark_settings
from tests.integration import counting
from tests.integration.counting import counted

WAVES, CHANGES = 3, 4_000
CHANGE = '{"at": "2026-11-%02dT00:00:00.000Z", "kind_to": "kind %d"}'


def test_it_is_added_in_under_80_lines() -> None:
    assert len(Path(counting.__file__).read_text().splitlines()) < 80


@pytest.mark.servers
@pytest.mark.slow
def test_it_survives_kills_and_rebalances(kafka: RealKafka, redis_url: str, tmp_path: Path) -> None:
    settings = watermark_settings(kafka.bootstrap, redis_url)
    assert topics.apply(settings, create=True, outlets=[counted(settings)]) == []
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    truth: Counter[bytes] = Counter()

    def send(changes: range) -> None:
        for n in changes:
            truth[f"2026-11-{n % 28 + 1:02} kind {n % 3}".encode()] += 1
            change = CHANGE % (n % 28 + 1, n % 3)
            producer.produce(settings.topics.changes, change, partition=n % PARTITIONS)
        assert producer.flush() == 0

    stored = open_role_store(settings, "counting")
    with Pipeline(settings, tmp_path) as pipeline, stored as store:
        numbers = range(PARTITIONS)

        def records() -> int:
            return sum(position.records for n in numbers if (position := store.position(n)))

        running = pipeline.start("counting", "counting", program=counting.__name__)
        for wave in range(WAVES):
            before = wave * CHANGES
            send(range(before, before + CHANGES))
            pipeline.wait("records", lambda before=before: records() > before)  # type: ignore[misc]
            running.pop(0).kill()
            (joined,) = pipeline.start("counting", program=counting.__name__)
            said = joined.said
            pipeline.wait("a rebalance", lambda said=said: "taken over" in said())  # type: ignore[misc]
            running.append(joined)
        sent = WAVES * CHANGES
        pipeline.wait("all", lambda: records() == sent and not any(store.outbox_sizes(numbers)))
        pipeline.end()
        rows = [(name, int.from_bytes(row)) for n in numbers for name, row in store.load(n)]
    assert {name: sum(count for one, count in rows if one == name) for name in truth} == truth
    ids = [headers(one)["ce_id"] for one in read_to_end(settings.broker, counted(settings).topic)]
    assert len(ids) == len(set(ids)) == sent
