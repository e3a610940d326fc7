"""A pipeline under live traffic is audited again and again, and never accused."""

from __future__ import annotations

import secrets
import threading
import time
from pathlib import Path
from typing import Self

import pytest
from confluent_kafka import Producer

from consumers.audit.report import AuditReport, explain
from ops.kafka.server import RealKafka
from producers.client import producer_options
from stream.config import Settings
from tests import harness
from tests.conftest import SettingsFor
from tests.harness import Pipeline
from tests.strategies import ORDER, VIEW, encoded

pytestmark = [pytest.mark.servers, pytest.mark.slow]

USERS = 600
AUDITS = 6
REST_SECONDS = 0.01


class Shop:
    """Shoppers who never rest, some rubbish among them; a thread of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.sent = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        producer = Producer(producer_options(self._settings.broker))
        topics = self._settings.topics
        while not self._stop.is_set():
            # More and more users: somebody is always new.
            user = f"user {self.sent * 7 % (USERS + self.sent // 4)}"
            buys = hash(user) % 3 == self.sent % 3
            value = encoded(
                time_ms=time.time_ns() // 1_000_000,
                event=ORDER if buys else VIEW,
                userId=user,
                messageId=secrets.token_hex(8),
                properties={"revenue": 20.0 + self.sent % 50} if buys else {"category": "shoes"},
            )
            if self.sent % 50 == 0:
                value = b"rubbish"
            producer.produce(topics.purchases if buys else topics.clickstream, value, user.encode())
            self.sent += 1
            if self.sent % 5 == 0:
                producer.poll(0)
                self._stop.wait(REST_SECONDS)
        assert producer.flush(30) == 0


def assert_not_accused(report: AuditReport) -> None:
    assert report.ok, "\n".join(explain(report))
    assert (report.lost, report.duplicated) == (0, 0)


def test_a_pipeline_at_work_is_not_accused(
    kafka: RealKafka, redis_url: str, settings_for: SettingsFor, tmp_path: Path
) -> None:
    settings = settings_for(
        kafka.bootstrap,
        redis_url,
        worker={"sweep_seconds": 0.5, "decoder": "plain"},
        learning={"first_model_users": 100, "refit_seconds": 5.0, "segments": 4},
        publish={"margin": 0.02, "silence_margin": 0.02},
        publisher={"lease_seconds": 1.0},
    )
    with Pipeline(settings, tmp_path) as pipeline:
        pipeline.create_topics()
        worker, *_ = pipeline.start("activity", "trainer", "publisher")
        with Shop(settings):
            assert_not_accused(pipeline.audit())
            pipeline.wait("changes", lambda: len(pipeline.changes()) > USERS)
            reports = []
            for number in range(AUDITS):
                reports.append(pipeline.audit())
                if number == 1:
                    (other,) = pipeline.start("activity")  # half of the partitions change hands
                if number == 3:
                    worker.kill()
        for report in reports:
            assert_not_accused(report)
        assert sum(report.unjudged for report in reports) > 0
        assert reports[-1].changes > reports[0].changes
        assert reports[-1].rejected > 0
        pipeline.wait(
            "everything is committed", lambda: sum(pipeline.audit().backlog.values()) == 0
        )
        # While somebody sweeps, there is something to send again and again.
        assert other.end() == 0
        pipeline.wait("the outbox is empty", lambda: not any(pipeline.store.outbox_sizes(range(4))))
        pipeline.end()
        report = pipeline.audit()
        harness.assert_clean(report)
        assert report.unjudged == 0
