"""What was refused can be looked at, and is sent again once it is no longer refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from consumers.client import read_to_end
from ops.kafka.server import RealKafka
from producers.client import producer_options
from stream.config_layers import as_file
from stream.events import Counts
from stream.hashing import partition_of
from tests import harness
from tests.harness import Pipeline, milliseconds
from tests.integration.processes import segstream
from tests.strategies import VIEW, track

pytestmark = pytest.mark.servers

AT_MS = milliseconds("2026-03-02T08:00:00Z")
HOSTILE = b"\x1b[2J not JSON\n\xe2\x80\xae"
HEADERS: list[tuple[str, str | bytes | None]] = [("traceparent", b"00-\xff"), ("empty", None)]


def view(number: int, **more: Any) -> bytes:
    fields = {"event": VIEW, "userId": f"u{number % 5}", "messageId": f"m{number}"}
    return json.dumps(track(AT_MS + number, **fields, **more)).encode()


def test_letters_are_listed_shown_and_sent_again(
    kafka: RealKafka, redis_url: str, tmp_path: Path
) -> None:
    layers: harness.Sections = {"clock": {"mode": "live"}, "worker": {"message_bytes": 1_024}}
    settings = harness.watermark_settings(kafka.bootstrap, redis_url, layers)
    large = {f"u{number % 5}": view(number, context="x" * 2_000) for number in range(10, 14)}
    topic = settings.topics.clickstream
    with Pipeline(settings, tmp_path) as pipeline:
        pipeline.create_topics()
        producer = Producer(producer_options(settings.broker))
        for number in range(3):
            producer.produce(topic, view(number), f"u{number}", timestamp=AT_MS)
        for user, raw in large.items():
            producer.produce(topic, raw, user, timestamp=AT_MS, headers=HEADERS)
        producer.produce(topic, HOSTILE, b"\x00\xff", timestamp=AT_MS)
        assert producer.flush(20) == 0

        def counted(**expected: int) -> bool:
            counts = Counts()
            for position in pipeline.positions():
                counts.add(position.counts if position is not None else Counts())
            return {name: getattr(counts, name) for name in expected} == expected

        def start() -> None:
            pipeline.start("activity")

        start()
        pipeline.wait("everything read", lambda: counted(applied=3, rejected=5))
        own = ("-c", str(pipeline.config), "dlq")

        listed = segstream(*own, "list", "--json")
        assert listed.code == 0
        reasons = {one["reason"]: one for one in listed.facts["reasons"]}
        assert {name: one["letters"] for name, one in reasons.items()} == {
            "too_large": 4,
            "not_json": 1,
        }
        assert "too_large" in segstream(*own, "list").out

        shown = segstream(*own, "show", "--reason", "not_json")
        assert shown.code == 0
        assert "\\x1b[2J not JSON\\n\\u202e" in shown.out
        assert "\x1b" not in shown.out
        whole = segstream(*own, "show", reasons["too_large"]["example"], "--json").facts
        [letter] = whole["letters"]
        assert letter["value"]["text"].encode() in large.values()
        assert letter["headers"][0] == {"name": "traceparent", "base64": "MDAt/w=="}
        assert letter["headers"][1] == {"name": "empty", "text": None}
        assert segstream(*own, "show", "--reason", "bad_time").code == 1

        # Before anything is mended, one looks; then the limit is raised, and they are sent again.
        again = (*own, "replay", "--reason", "too_large")
        looked = segstream(*again, "--dry-run", "--json").facts
        assert (looked["would_send"], looked["sent"]) == (4, 0)
        pipeline.end()
        raised = settings.worker.model_copy(update={"message_bytes": 65_536})
        pipeline.config.write_text(as_file(settings.model_copy(update={"worker": raised})))
        start()
        done = segstream(*again, "--json")
        assert (done.code, done.facts["sent"]) == (0, 4)
        pipeline.wait("what was sent again", lambda: counted(applied=7, rejected=5, duplicate=0))

        once_more = segstream(*again, "--json")
        assert (once_more.code, once_more.facts["sent_before"]) == (1, 4)
        assert segstream(*again, "--again", "--limit", "1").code == 0
        pipeline.wait("it once more", lambda: counted(applied=7, rejected=5, duplicate=1))
        assert "replayed" in segstream(*own, "list").out
        pipeline.end()

    sent: dict[str, int] = {}
    for message in read_to_end(settings.broker, topic):
        headers: Any = message.headers()
        if headers and headers[-1][0] == "segstream-replayed-from":
            user = (message.key() or b"").decode()
            assert harness.value(message) == large[user]
            assert headers[:-1] == HEADERS
            assert message.timestamp()[1] == AT_MS
            assert message.partition() == partition_of(user.encode(), settings.topics.partitions)
            sent[user] = sent.get(user, 0) + 1
    assert sorted(sent.values()) == [1, 1, 1, 2]
