"""What the alerts are about is done to a running pipeline, and they fire on what it then tells.

Every second what the roles serve is written down, as Prometheus would. The rules are evaluated on that with
time sixty times as fast: five minutes are five seconds, and a limit of a minute is one of a second.
"""

from __future__ import annotations

import math
import re
import secrets
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.request import urlopen

import pytest
import redis
import yaml
from confluent_kafka import Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it re-exports them silently
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from prometheus_client.parser import text_string_to_metric_families

from ops.kafka.server import RealKafka
from producers import topics as topic_plans
from producers.client import MESSAGE_BYTES, producer_options
from stream.config import Settings
from stream.config_layers import as_file
from stream.hashing import partitions_of
from stream.servers import LocalStore, free_port, redis_binary
from stream.wiring.roles import outlets
from tests.conftest import SettingsFor
from tests.endpoint import LocalEndpoint, Manner
from tests.harness import Pipeline
from tests.integration.test_webhooks_at_work import Triggers, settings_of
from tests.ops.queries import RULES, SCRAPED, names, promtool, rules
from tests.strategies import ORDER, encoded
from tests.stream.webhooks.making import OTHER_SECRET, SECRET

pytestmark = [pytest.mark.servers, pytest.mark.slow]

HASTE = 60
ANSWER_SECONDS = 60.0
"""Who is slow to answer is there: a gap would let an alert that waits begin anew."""
ROLES = ("activity", "trainer", "publisher")
READ = set().union(*(names(rule["expr"]) for rule in rules())) & SCRAPED.keys()


class Scraper:
    """Asks every role once a second, and keeps what it says."""

    def __init__(self, ports: dict[str, int]) -> None:
        self._ports = ports
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.scrapes: list[dict[str, float]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(1.0):
            self.scrapes.append({k: v for role in self._ports for k, v in self._ask(role).items()})

    def _ask(self, role: str) -> dict[str, float]:
        try:
            with urlopen(
                f"http://127.0.0.1:{self._ports[role]}/metrics", timeout=ANSWER_SECONDS
            ) as answer:
                text = answer.read().decode()
        except OSError:
            return {}
        told = {}
        for family in text_string_to_metric_families(text):
            for one in family.samples:
                if one.name in READ and not math.isnan(one.value):
                    # What a process says of itself stays, as with honor_labels.
                    labels = {"job": "segstream", "instance": role, "role": role} | one.labels
                    inner = ", ".join(f'{k}="{v}"' for k, v in sorted(labels.items()))
                    told[f"{one.name}{{{inner}}}"] = one.value
        return told

    def now(self, start: str, *parts: str) -> float:
        """The newest value of a series that begins so and has these parts; NaN for none."""
        last = self.scrapes[-1] if self.scrapes else {}
        found = [v for k, v in last.items() if k.startswith(start) and all(p in k for p in parts)]
        return max(found, default=math.nan)

    def series(self) -> list[dict[str, str]]:
        told = []
        for name in sorted(set().union(*self.scrapes)):
            values, there = [], False
            for scrape in self.scrapes:
                value = scrape.get(name)
                values.append(
                    "stale" if value is None and there else "_" if value is None else f"{value:g}"
                )
                there = value is not None
            told.append({"series": name, "values": " ".join(values)})
        return told


def _hastened(text: str) -> str:
    """The rules, for time that goes sixty times as fast."""
    units = {"m": 60, "h": 3_600, "d": 86_400}

    def seconds(found: re.Match[str]) -> str:
        return f"{found[1]}{int(found[2]) * units[found[3]] // HASTE}s"

    text = re.sub(r"(\[|for: )(\d+)([mhd])\b", seconds, text)
    return re.sub(
        r"(segstream_lag_seconds:max|segstream_outbox_age_seconds\[5s\]\)\)|\n\s+\)) > (\d\d+)\b",
        lambda found: f"{found[1]} > {int(found[2]) / HASTE:g}",
        text,
    )


def fired(scraper: Scraper, folder: Path) -> set[tuple[str, str]]:
    """Alerts that have fired, with their severity."""
    (folder / "rules.yml").write_text(_hastened(RULES.read_text()))
    seconds = len(scraper.scrapes) - 1
    pairs = sorted({(r["alert"], r["labels"]["severity"]) for r in rules() if "alert" in r})
    asked = [
        {
            "expr": f'group(max_over_time(ALERTS{{alertname="{alert}", severity="{severity}",'
            f' alertstate="firing"}}[{seconds}s]))',
            "eval_time": f"{seconds}s",
            "exp_samples": [],
        }
        for alert, severity in pairs
    ]
    test: dict[str, Any] = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "1s",
        "tests": [{"interval": "1s", "input_series": scraper.series(), "promql_expr_test": asked}],
    }
    file = folder / "test.yml"
    file.write_text(yaml.safe_dump(test))
    # Nothing is expected, so promtool complains of every alert that there is.
    said = promtool("test", "rules", file, fails=True).replace("\\", "")
    return set(re.findall(r'alertname="(\w+)", severity="(\w+)"', said))


def _junk(settings: Settings, messages: int) -> None:
    producer = Producer(producer_options(settings.broker))
    for number in range(messages):
        producer.produce(settings.topics.clickstream, b"{", f"user {number}".encode())
    assert producer.flush(30) == 0


def _new_orders(number: int) -> Iterator[tuple[bytes, bytes]]:
    """An order, and its key, of each of so many new users."""
    for place in range(number):
        user = secrets.token_hex(4)
        order = encoded(
            time_ms=time.time_ns() // 1_000_000,
            event=ORDER,
            userId=user,
            messageId=user,
            properties={"revenue": 5.0 + place % 90},
        )
        yield order, user.encode()


def _misplaced(settings: Settings, messages: int) -> None:
    """Orders of new users in partitions that are not theirs."""
    producer = Producer(producer_options(settings.broker))
    for order, user in _new_orders(messages):
        (home,) = partitions_of([user], settings.topics.partitions).tolist()
        elsewhere = (home + 1) % settings.topics.partitions
        producer.produce(settings.topics.purchases, order, user, elsewhere)
    assert producer.flush(30) == 0


@dataclass
class AtWork:
    """A pipeline whose roles are scraped."""

    pipeline: Pipeline
    scraper: Scraper

    def wait(self, name: str, least: float, *parts: str) -> None:
        """Until a series has reached a value."""
        self.pipeline.wait(name, lambda: self.scraper.now(name, *parts) >= least)

    def go_on(self, seconds: int) -> None:
        """Until it has been scraped as often again."""
        until = len(self.scraper.scrapes) + seconds
        self.pipeline.wait("scrapes", lambda: len(self.scraper.scrapes) >= until)


@contextmanager
def at_work(settings: Settings, folder: Path, roles: Sequence[str] = ROLES) -> Iterator[AtWork]:
    """Roles as processes; what was scraped begins when all is well, for before each role was absent."""
    ports = {role: free_port() for role in roles}
    with Pipeline(settings, folder) as pipeline:
        assert topic_plans.apply(settings, create=True, outlets=outlets(settings)) == []
        for role in roles:
            metrics = {"port": ports[role], "linger_seconds": 6.0}
            own = Settings.model_validate(settings.model_dump() | {"metrics": metrics})
            pipeline.config = folder / f"{role}.toml"
            pipeline.config.write_text(as_file(own))
            pipeline.start(role, program="tests.faults.jumping")
        with Scraper(ports) as scraper:
            found = AtWork(pipeline, scraper)
            if "activity" in roles:
                found.wait("segstream_partitions_owned", 4)
            for role in roles:
                found.wait("segstream_role_ready", 1, f'role="{role}"')
            begun = len(scraper.scrapes)
            yield found
        del scraper.scrapes[:begun]


def _evict(admin: redis.Redis) -> None:
    """Have the server drop keys for want of memory, none of them of the pipeline's state."""
    for number in range(2_000):
        admin.set(f"guest:{number}", "x" * 1_000, ex=3_600)
    admin.config_set("maxmemory-policy", "volatile-lru")
    admin.config_set("maxmemory", admin.info("memory")["used_memory"] - 500_000)
    admin.set("guest:last", "x", ex=3_600)
    admin.config_set("maxmemory", 0)
    admin.config_set("maxmemory-policy", "noeviction")
    assert admin.info("stats")["evicted_keys"] > 0


def test_what_is_done_to_a_pipeline_wakes_somebody(
    kafka: RealKafka, settings_for: SettingsFor, tmp_path: Path
) -> None:
    with LocalStore(binary=redis_binary(), appendonly=True) as store:
        settings = settings_for(
            kafka.bootstrap,
            store.url,
            worker={"sweep_seconds": 0.5, "decoder": "plain", "reject_consecutive_limit": 20},
            publisher={"lease_seconds": 1.0},
        )
        with (
            redis.Redis.from_url(store.url) as admin,
            at_work(settings, tmp_path) as found,
        ):
            worker, _, publisher = found.pipeline.roles
            _junk(settings, 500)
            found.wait("segstream_reject_alert", 1)
            found.go_on(3)

            admin.config_set("maxmemory", admin.info("memory")["used_memory"] + 20_000)
            found.wait("segstream_store_memory_limit_bytes", 1)
            found.go_on(4)
            admin.config_set("maxmemory", 0)

            _evict(admin)
            found.wait("segstream_store_evicted_keys", 1)
            found.go_on(2)

            publisher.kill()
            found.go_on(5)

            worker.expected = False
            admin.flushall()
            found.wait("segstream_role_failed", 1, 'error="StateLostError"')
            found.go_on(3)
        names_and_severities = fired(found.scraper, tmp_path)
    assert {
        ("SegstreamRejectsHigh", "critical"),
        ("SegstreamStoreFull", "critical"),
        ("SegstreamRoleAbsent", "critical"),
        ("SegstreamStateLost", "critical"),
        ("SegstreamStoreEvicting", "critical"),
    } <= names_and_severities
    assert not {name for name, _ in names_and_severities} & {
        "SegstreamClockJumped",
        "SegstreamEventsMisplaced",
        "SegstreamRecordsUnaccounted",
        "SegstreamVersionsDiffer",
    }


def test_a_store_that_hangs_while_customers_go_on_and_a_clock_that_jumps_wake_somebody(
    kafka: RealKafka, settings_for: SettingsFor, tmp_path: Path
) -> None:
    with LocalStore(binary=redis_binary(), appendonly=True) as store:
        settings = settings_for(
            kafka.bootstrap,
            store.url,
            store={"timeout_seconds": 0.5},
            worker={"sweep_seconds": 0.5, "decoder": "plain"},
            publisher={"lease_seconds": 1.0},
        )
        with at_work(settings, tmp_path) as found:
            _orders(settings, 50)
            _misplaced(settings, 20)
            found.go_on(2)
            for _ in range(16):
                _misplaced(settings, 5)
                found.go_on(1)
            store.pause()
            for _ in range(24):
                _junk(settings, 5)
                found.go_on(1)
            store.resume()
            found.pipeline.roles[0].signal(signal.SIGUSR2)
            found.wait("segstream_clock_jump_seconds", 3_000)
            found.go_on(3)
        names_and_severities = fired(found.scraper, tmp_path)
    assert {
        ("SegstreamEventsMisplaced", "warning"),
        ("SegstreamRejectsHigh", "warning"),
        ("SegstreamNeighbourUnavailable", "warning"),
        ("SegstreamRoleNotReady", "critical"),
        ("SegstreamLagHigh", "warning"),
        ("SegstreamLagHigh", "critical"),
        ("SegstreamCommitsStalled", "critical"),
        ("SegstreamSweepStale", "critical"),
        ("SegstreamModelStale", "warning"),
        ("SegstreamClockJumped", "warning"),
    } <= names_and_severities
    assert not {name for name, _ in names_and_severities} & {
        "SegstreamRoleAbsent",
        "SegstreamStateLost",
        "SegstreamStoreFull",
    }


def _orders(settings: Settings, users: int) -> None:
    """An order of each of so many new users."""
    producer = Producer(producer_options(settings.broker))
    for order, user in _new_orders(users):
        producer.produce(settings.topics.purchases, order, user)
    assert producer.flush(30) == 0


def _set_largest(admin: AdminClient, topic: str, size: int) -> None:
    """How large a batch may be; with less than a record has nothing can be written."""
    resource = ConfigResource(ResourceType.TOPIC, topic)
    resource.add_incremental_config(
        ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    )
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(30)


def _make_anew(admin: AdminClient, settings: Settings, topic: str) -> None:
    for future in admin.delete_topics([topic]).values():
        future.result(30)
    assert topic_plans.apply(settings, create=True) == []


def test_changes_that_cannot_be_delivered_and_what_is_put_back_or_made_anew_wake_somebody(
    kafka: RealKafka, settings_for: SettingsFor, tmp_path: Path
) -> None:
    with LocalStore(binary=redis_binary()) as store:
        settings = settings_for(
            kafka.bootstrap,
            store.url,
            worker={"sweep_seconds": 0.5, "decoder": "plain"},
            learning={"first_model_users": 100, "segments": 3},
            publisher={"lease_seconds": 1.0},
        )
        changes = settings.topics.changes
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
        with at_work(settings, tmp_path) as found:
            pipeline = found.pipeline
            _orders(settings, 300)
            pipeline.wait("first segments", lambda: len(pipeline.changes()) >= 300)
            _set_largest(admin, changes, 100)
            _orders(settings, 100)
            found.wait("segstream_outbox_age_seconds", 2)
            found.go_on(6)
            _set_largest(admin, changes, MESSAGE_BYTES)
            pipeline.wait("delivered", lambda: not any(pipeline.store.outbox_sizes(range(4))))
            found.go_on(18)

            with redis.Redis.from_url(store.url) as client:
                client.save()
            _orders(settings, 50)
            found.go_on(2)
            store.stop(kill=True)
            store.start()
            found.wait("segstream_commits_total", 1, 'answer="diverged"')
            found.go_on(2)

            _make_anew(admin, settings, changes)
            found.wait("segstream_output_lacks_changes", 1)
            found.go_on(2)

            pipeline.roles[0].expected = False
            _make_anew(admin, settings, settings.topics.clickstream)
            found.wait("segstream_role_failed", 1, 'error="TopicReplacedError"')
            found.go_on(2)
        names_and_severities = fired(found.scraper, tmp_path)
    assert {
        ("SegstreamOutboxStuck", "critical"),
        ("SegstreamFreshnessBudgetBurning", "critical"),
        ("SegstreamFreshnessBudgetBurning", "warning"),
        ("SegstreamStoreRolledBack", "warning"),
        ("SegstreamOutputLacksChanges", "critical"),
        ("SegstreamRoleFailed", "critical"),
    } <= names_and_severities
    assert not {name for name, _ in names_and_severities} & {
        "SegstreamClockJumped",
        "SegstreamRejectsHigh",
        "SegstreamStoreEvicting",
        "SegstreamStoreFull",
    }


def test_endpoints_that_fail_and_control_that_cannot_be_read_wake_somebody(
    kafka: RealKafka, redis_url: str, tmp_path: Path
) -> None:
    with (
        LocalEndpoint(SECRET, lambda _: Manner.GONE) as crm,
        LocalEndpoint(OTHER_SECRET, lambda n: (Manner.WELL, Manner.BROKEN)[n % 2]) as mail,
    ):
        settings = settings_of(kafka, redis_url, tmp_path, crm=crm, mail=mail)
        triggers = Triggers(settings)
        producer = Producer(producer_options(settings.broker))
        with at_work(settings, tmp_path / "roles", ("campaigns", "webhooks")) as found:
            found.go_on(2)
            producer.produce(settings.topics.control, b"{", b"campaign")
            assert producer.flush(30) == 0
            for _ in range(36):
                triggers.send(4)
                found.go_on(1)
        names_and_severities = fired(found.scraper, tmp_path)
    assert {
        ("SegstreamControlUnreadable", "warning"),
        ("SegstreamEndpointFailed", "warning"),
        ("SegstreamDeliveriesFailing", "warning"),
        ("SegstreamDeliveriesGivenUp", "warning"),
    } <= names_and_severities
    assert not {name for name, _ in names_and_severities} & {
        "SegstreamCampaignHarms",
        "SegstreamSampleRatioOff",
        "SegstreamRoleFailed",
    }
