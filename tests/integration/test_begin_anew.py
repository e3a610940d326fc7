"""A namespace of its own begins on topics that another has used, and that retention has shortened."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from ops.kafka.server import RealKafka
from stream.config import Settings
from stream.hashing import partition_of
from tests import harness
from tests.harness import PARTITIONS, Pipeline

pytestmark = [pytest.mark.servers, pytest.mark.slow]

CHRISTMAS = datetime(2011, 1, 10, tzinfo=UTC)


def test_another_namespace_begins_where_the_log_does(
    kafka: RealKafka, redis_url: str, online_retail: Path, tmp_path: Path
) -> None:
    history = harness.fresh_history(kafka.bootstrap, online_retail.name, "online_retail", CHRISTMAS)
    with harness.pipeline_on(history, redis_url, tmp_path / "first") as first:
        first.start("all")
        first.finish(history.last_mark_ms)
        harness.assert_clean(first.audit())
        before = ids(first)
        shorten(first.settings)
        # What it stands for is no longer all in the log, and the audit says so.
        assert [c.name for c in first.audit().checks if not c.ok] == ["log_is_complete"]

    store = first.settings.store.model_copy(update={"namespace": "another-" + tmp_path.name})
    settings = first.settings.model_copy(update={"store": store})
    with Pipeline(settings, tmp_path / "second") as second:
        second.start("all")
        second.finish(history.last_mark_ms)
        harness.assert_clean(second.audit())
        for number, position in enumerate(second.positions()):
            assert position is not None
            assert min(position.first) > 0
            # Lineage stands on the same topic.
            assert position.output >= sum(partition == number for partition, _ in before) > 0
        told = ids(second) - before
        assert {partition for partition, _ in told} == set(range(PARTITIONS))


def ids(pipeline: Pipeline) -> set[tuple[int, str]]:
    """Of all change records, with their partition."""
    return {
        (partition_of(change["user"].encode(), PARTITIONS), change["id"])
        for change in pipeline.changes()
    }


def shorten(settings: Settings) -> None:
    """Delete the first records of every partition of the input, as retention does."""
    admin = AdminClient({"bootstrap.servers": settings.broker.bootstrap})
    where = [
        TopicPartition(topic, partition, 15)
        for topic in settings.topics.inputs
        for partition in range(PARTITIONS)
    ]
    for deleted in admin.delete_records(where).values():
        deleted.result(timeout=20)
