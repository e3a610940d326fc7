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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self
from urllib.request import urlopen

import msgspec
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

from ops.chaos.proxy import Proxy, Way
from ops.kafka.server import RealKafka
from producers import topics as topic_plans
from producers.client import MESSAGE_BYTES, producer_options
from producers.cloudevents import cloud_event
from stream.campaigns.arms import HELD_OUT, Arms, arm_hashes
from stream.config import Settings
from stream.config_layers import as_file
from stream.events import CHANGED
from stream.features import DEFAULT_FEATURES
from stream.hashing import partitions_of
from stream.records import change_id
from stream.roles.redis import RedisRoleStore
from stream.servers import LocalStore, free_port, redis_binary
from stream.store.state import key_of
from stream.wiring.roles import open_role_store, outlets
from tests.conftest import SettingsFor
from tests.endpoint import LocalEndpoint, Manner
from tests.harness import Pipeline, Role
from tests.integration.test_webhooks_at_work import Triggers, settings_of
from tests.ops.queries import RULES, SCRAPED, names, promtool, rules
from tests.strategies import ORDER, VIEW, encoded, track
from tests.stream.campaigns.making import HOUR_MS, START_MS, change
from tests.stream.webhooks.making import OTHER_SECRET, SECRET

pytestmark = [pytest.mark.servers, pytest.mark.slow]

HASTE = 60
ANSWER_SECONDS = 60.0
"""Who is slow to answer is there: a gap would let an alert that waits begin anew."""
ROLES = ("activity", "trainer", "publisher")
TURN_SECONDS = 3.0
TOO_SHORT = [
    *(one.model_dump() | {"weight": 0} for one in DEFAULT_FEATURES),
    {"name": "views_now", "aggregate": "count", "on": [VIEW], "half_life": 1.0, "unit": "views"},
]
"""Segments by what shoppers did in the last second, which sets nobody apart for long."""
CAMPAIGNS = [
    {
        "name": "annoying",
        "when": {"kind_to": ["at_risk"]},
        "holdout": 0.5,
        "goal": {"within": "7d"},
    },
    {
        "name": "lopsided",
        "when": {"kind_to": ["dormant"]},
        "holdout": 0.5,
        "goal": {"within": "7d"},
    },
]
READ = set().union(*(names(rule["expr"]) for rule in rules())) & SCRAPED.keys()

AT_FIRST = {
    ("SegstreamEventsMisplaced", "warning"),
    ("SegstreamRecordsUnaccounted", "warning"),
    ("SegstreamRejectsHigh", "critical"),
    ("SegstreamRejectsHigh", "warning"),
    ("SegstreamStoreFull", "warning"),
}
IN_THE_END = {
    ("SegstreamNeighbourUnavailable", "warning"),
    ("SegstreamNobodyLeads", "critical"),
    ("SegstreamRoleNotReady", "critical"),
    ("SegstreamLagHigh", "warning"),
    ("SegstreamLagHigh", "critical"),
    ("SegstreamCommitsStalled", "critical"),
    ("SegstreamSweepStale", "critical"),
    ("SegstreamModelStale", "warning"),
    ("SegstreamStoreFull", "critical"),
    ("SegstreamStoreEvicting", "critical"),
    ("SegstreamIdsForgottenEarly", "info"),
    ("SegstreamSegmentsFlapping", "warning"),
    ("SegstreamVersionsDiffer", "info"),
    ("SegstreamClockJumped", "warning"),
    ("SegstreamRoleAbsent", "critical"),
    ("SegstreamStateLost", "critical"),
}
OF_DELIVERY = {
    ("SegstreamOutboxStuck", "critical"),
    ("SegstreamFreshnessBudgetBurning", "critical"),
    ("SegstreamFreshnessBudgetBurning", "warning"),
    ("SegstreamModelNotAdopted", "warning"),
    ("SegstreamPartitionsUnowned", "critical"),
    ("SegstreamStoreRolledBack", "warning"),
    ("SegstreamOutputLacksChanges", "critical"),
    ("SegstreamRoleFailed", "critical"),
}
OF_CAMPAIGNS = {
    ("SegstreamCampaignHarms", "warning"),
    ("SegstreamControlUnreadable", "warning"),
    ("SegstreamDeliveriesFailing", "warning"),
    ("SegstreamDeliveriesGivenUp", "warning"),
    ("SegstreamEndpointFailed", "warning"),
    ("SegstreamSampleRatioOff", "warning"),
}
PROVOKED = AT_FIRST | IN_THE_END | OF_DELIVERY | OF_CAMPAIGNS
"""Alerts that fire in these tests, with their severity."""


class Scraper:
    """Asks every role once a second, and keeps what it says."""

    def __init__(self, ports: dict[str, int]) -> None:
        self.ports = ports
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
            ports = self.ports.copy()
            self.scrapes.append({k: v for one in ports for k, v in self._ask(one).items()})

    def _ask(self, instance: str) -> dict[str, float]:
        try:
            with urlopen(
                f"http://127.0.0.1:{self.ports[instance]}/metrics", timeout=ANSWER_SECONDS
            ) as answer:
                text = answer.read().decode()
        except OSError:
            return {}
        told = {}
        for family in text_string_to_metric_families(text):
            for one in family.samples:
                if one.name in READ and not math.isnan(one.value):
                    # What a process says of itself stays, as with honor_labels.
                    role = instance.partition("-")[0]
                    labels = {"job": "segstream", "instance": instance, "role": role} | one.labels
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


def _orders(settings: Settings, users: int, *, in_transaction: bool = False) -> None:
    """An order of each of so many new users."""
    options = producer_options(settings.broker)
    if in_transaction:
        options |= {"transactional.id": secrets.token_hex(4), "message.timeout.ms": 30_000}
    producer = Producer(options)
    if in_transaction:
        producer.init_transactions(30)
        producer.begin_transaction()
    for order, user in _new_orders(users):
        producer.produce(settings.topics.purchases, order, user)
    assert producer.flush(30) == 0
    if in_transaction:
        producer.commit_transaction(30)


def _misplaced(settings: Settings, messages: int) -> None:
    """Orders of new users in partitions that are not theirs."""
    producer = Producer(producer_options(settings.broker))
    for order, user in _new_orders(messages):
        (home,) = partitions_of([user], settings.topics.partitions).tolist()
        elsewhere = (home + 1) % settings.topics.partitions
        producer.produce(settings.topics.purchases, order, user, elsewhere)
    assert producer.flush(30) == 0


def _click(producer: Producer, settings: Settings, user: str) -> None:
    message = encoded(
        time_ms=time.time_ns() // 1_000_000,
        event=VIEW,
        userId=user,
        messageId=secrets.token_hex(8),
        properties={},
    )
    producer.produce(settings.topics.clickstream, message, user.encode())


def _too_many_to_remember(settings: Settings) -> None:
    """More clicks than a partition may remember."""
    producer = Producer(producer_options(settings.broker))
    for number in range(8_000):
        _click(producer, settings, f"guest {number % 40}")
    assert producer.flush(30) == 0


@contextmanager
def _restless(settings: Settings) -> Iterator[None]:
    """Half of the shoppers browse while the others do nothing, and they change places all the time."""
    stop = threading.Event()
    halves = [[f"restless {number}" for number in range(half, 240, 2)] for half in range(2)]

    def browse() -> None:
        producer = Producer(producer_options(settings.broker))
        while not stop.wait(0.25):
            for user in halves[int(time.monotonic() / TURN_SECONDS) % 2]:
                _click(producer, settings, user)
            producer.poll(0)
        assert producer.flush(30) == 0

    thread = threading.Thread(target=browse, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@dataclass
class AtWork:
    """A pipeline whose roles are scraped."""

    pipeline: Pipeline
    scraper: Scraper

    def join(self, settings: Settings, instance: str, program: str) -> Role:
        """Start a role, named as it is before a dash in the instance's name."""
        port = free_port()
        own = {"metrics": {"port": port, "linger_seconds": 6.0}}
        self.pipeline.config = self.pipeline.config.parent / f"{instance}.toml"
        self.pipeline.config.write_text(
            as_file(Settings.model_validate(settings.model_dump() | own))
        )
        (role,) = self.pipeline.start(instance.partition("-")[0], program=program)
        self.scraper.ports[instance] = port
        return role

    def wait(self, name: str, least: float, *parts: str) -> None:
        """Until a series has reached a value."""
        self.pipeline.wait(name, lambda: self.scraper.now(name, *parts) >= least)

    def wait_until_ready(self, instance: str) -> None:
        self.wait("segstream_role_ready", 1, f'instance="{instance}"')

    def go_on(self, seconds: int) -> None:
        """Until it has been scraped as often again."""
        self.go_on_until(len(self.scraper.scrapes) + seconds)

    def go_on_until(self, seconds: int) -> None:
        """Until it has been scraped so often since all was well."""
        self.pipeline.wait("scrapes", lambda: len(self.scraper.scrapes) >= seconds)


@contextmanager
def at_work(
    settings: Settings,
    folder: Path,
    roles: Sequence[str] = ROLES,
    programs: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[AtWork]:
    """Roles as processes; what was scraped begins when all is well, for before each role was absent.

    Args:
        programs: of roles that are started by another than `jumping`.
    """
    with Pipeline(settings, folder) as pipeline, Scraper({}) as scraper:
        assert topic_plans.apply(settings, create=True, outlets=outlets(settings)) == []
        found = AtWork(pipeline, scraper)
        for role in roles:
            found.join(settings, role, programs.get(role, "tests.faults.jumping"))
        if "activity" in roles:
            found.wait("segstream_partitions_owned", 4)
        for role in roles:
            found.wait_until_ready(role)
        scraper.scrapes.clear()
        yield found


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


def _limit_to(admin: redis.Redis, share: float) -> None:
    """Have the server's memory be used to a share."""
    admin.config_set("maxmemory", int(admin.info("memory")["used_memory"] / share))


def test_what_is_done_to_a_pipeline_wakes_somebody(
    kafka: RealKafka, settings_for: SettingsFor, tmp_path: Path
) -> None:
    """Faults that follow each other; some go on through all of it, because an hour of them is a minute."""
    with LocalStore(binary=redis_binary(), appendonly=True) as store:
        made = settings_for(
            kafka.bootstrap,
            store.url,
            store={"timeout_seconds": 0.5},
            worker={
                "sweep_seconds": 0.5,
                "decoder": "plain",
                "reject_ratio_limit": 0.08,
                "reject_ratio_window": 1_000,
                "remember_clicks_seconds": 60.0,
                "remembered_ids": 1_000,
            },
            learning={"first_model_users": 100, "segments": 2, "refit_seconds": 3_600.0},
            # Nothing of what keeps users from going back and forth.
            publish={"apart": 0.0, "return_seconds": 0.0, "usual_gaps": 0.0},
            publisher={"lease_seconds": 1.0},
        )
        settings = Settings.model_validate(made.model_dump() | {"features": TOO_SHORT})
        programs = {"trainer": "tests.faults.older"}
        with (
            redis.Redis.from_url(store.url) as admin,
            at_work(settings, tmp_path, programs=programs) as found,
            _restless(settings),
        ):
            worker, _, publisher = found.pipeline.roles
            # Beside this, what buffers take for a moment is little.
            admin.set("ballast", bytes(30_000_000))
            # An increase is seen where something has been counted before.
            _misplaced(settings, 20)
            _orders(settings, 10)
            _junk(settings, 10)
            found.go_on(2)
            _too_many_to_remember(settings)
            for second in range(17):
                _limit_to(admin, 0.87)
                _misplaced(settings, 5)
                _junk(settings, 100)
                if second == 10:
                    _orders(settings, 10, in_transaction=True)
                found.go_on(1)
            admin.config_set("maxmemory", 0)
            so_far = fired(found.scraper, tmp_path)

            store.pause()
            found.go_on(24)
            store.resume()

            # So full that no lease is renewed: that must not keep it from being told.
            admin.config_set("maxmemory", 1_000_000)
            found.wait("segstream_store_memory_limit_bytes", 1)
            found.go_on(4)
            admin.config_set("maxmemory", 0)
            _evict(admin)
            found.wait("segstream_store_evicted_keys", 1)
            found.go_on_until(75)

            worker.signal(signal.SIGUSR2)
            found.wait("segstream_clock_jump_seconds", 3_000)
            found.go_on(3)

            publisher.kill()
            found.go_on(4)
            worker.expected = False
            admin.flushall()
            found.wait("segstream_role_failed", 1, 'error="StateLostError"')
            found.go_on(3)
        in_the_end = fired(found.scraper, tmp_path)
    assert AT_FIRST - so_far == set()
    assert not {name for name, _ in so_far} & {
        "SegstreamClockJumped",
        "SegstreamModelNotAdopted",
        "SegstreamPartitionsUnowned",
        "SegstreamRoleAbsent",
        "SegstreamRoleFailed",
        "SegstreamStateLost",
        "SegstreamStoreEvicting",
    }
    assert IN_THE_END - in_the_end == set()


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


def _cut_off_behind_a_model(found: AtWork, proxy: Proxy) -> None:
    """Cut the second worker off from the store at a moment after which the trainer refits.

    It cannot without a sample of every partition, and not all that a worker tells last have one.
    """
    for _ in range(8):
        proxy.hold("second worker", *Way)
        for _ in range(4):
            found.go_on(1)
            newest, used = (
                found.scraper.now("segstream_model_epoch", f'instance="{one}"')
                for one in ("trainer", "activity-2")
            )
            if newest > used:
                return
        proxy.release("second worker")
        found.go_on(3)
    raise AssertionError("no refit while the second worker was cut off")


def test_changes_that_cannot_be_delivered_and_what_is_put_back_or_made_anew_wake_somebody(
    kafka: RealKafka, settings_for: SettingsFor, tmp_path: Path
) -> None:
    """A second worker goes on for a while without the store, and then dies."""
    with LocalStore(binary=redis_binary()) as store, Proxy() as proxy:
        settings = settings_for(
            kafka.bootstrap,
            store.url,
            broker={"session_timeout_seconds": 8.0},
            worker={"sweep_seconds": 0.5, "decoder": "plain"},
            learning={"first_model_users": 100, "segments": 3, "refit_seconds": 2.0},
            publisher={"lease_seconds": 1.0},
        )
        link = proxy.link("second worker", free_port(), store.port)
        far = settings.store.model_copy(
            update={"url": f"redis://127.0.0.1:{link.port}/0", "timeout_seconds": 1.0}
        )
        changes = settings.topics.changes
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
        with at_work(settings, tmp_path) as found:
            pipeline = found.pipeline
            second = found.join(
                settings.model_copy(update={"store": far}), "activity-2", "tests.faults.jumping"
            )
            _orders(settings, 300)
            pipeline.wait("first segments", lambda: len(pipeline.changes()) >= 300)
            found.wait("segstream_partitions_owned", 2, 'instance="activity-2"')
            _set_largest(admin, changes, 100)
            _orders(settings, 100)
            found.wait("segstream_outbox_age_seconds", 2)
            found.go_on(6)
            _set_largest(admin, changes, MESSAGE_BYTES)
            pipeline.wait("delivered", lambda: not any(pipeline.store.outbox_sizes(range(4))))

            _cut_off_behind_a_model(found, proxy)
            found.go_on(13)
            second.kill()
            found.wait("segstream_partitions_owned", 4)

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
    assert OF_DELIVERY - names_and_severities == set()
    assert not {name for name, _ in names_and_severities} & {
        "SegstreamClockJumped",
        "SegstreamRejectsHigh",
        "SegstreamStoreEvicting",
        "SegstreamStoreFull",
        "SegstreamVersionsDiffer",
    }


class _Log:
    """Puts changes and orders where the role of campaigns reads them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._key = key_of(settings.store.namespace_key)
        self._producer = Producer(producer_options(settings.broker))
        self.records = 0

    def held_out(self, users: Sequence[str], place: int) -> list[bool]:
        """Of each user, whether they are in the holdout of a campaign."""
        arms = Arms(self._settings.campaigns[place], 0.0, self._key)
        hashes = arm_hashes([user.encode() for user in users], self._key)
        return [bool(arm == HELD_OUT) for arm in arms.of(hashes)]

    def move(self, user: str, kind: str, at_ms: int) -> None:
        one = change(user, at_ms, at_ms // HOUR_MS, kind_to=kind)
        one["id"] = change_id(user.encode(), self._key, 1, one["version"])
        told = cloud_event(one["id"], "", CHANGED, one["at"], user)
        self._write(self._settings.topics.changes, user, one, at_ms, told)

    def buy(self, user: str, at_ms: int) -> None:
        order = track(at_ms, userId=user, messageId=f"{user} {at_ms}")
        self._write(self._settings.topics.purchases, user, order, at_ms)

    def _write(self, topic: str, user: str, value: Any, at_ms: int, headers: Any = None) -> None:
        (partition,) = partitions_of([user.encode()], self._settings.topics.partitions).tolist()
        self._producer.produce(
            topic, msgspec.json.encode(value), user, partition, timestamp=at_ms, headers=headers
        )
        self.records += 1

    def flush(self) -> None:
        assert self._producer.flush(30) == 0


def _play_campaigns(settings: Settings) -> int:
    """One keeps users from buying; of the other, changes of its holdout are lost on their way.

    Returns:
        How many records there are to read.
    """
    log, users = _Log(settings), [f"u{number}" for number in range(600)]
    spared, lost = (log.held_out(users, place) for place in range(2))
    for user in users:
        log.move(user, "at_risk", START_MS)
    for number, (user, is_spared) in enumerate(zip(users, spared, strict=True)):
        if is_spared or number % 25 == 0:
            log.buy(user, START_MS + HOUR_MS)
    for user, is_lost in zip(users, lost, strict=True):
        if not is_lost:
            log.move(user, "dormant", START_MS + 2 * HOUR_MS)
    for user in users:
        # Much later, so that all windows are over.
        log.move(user, "loyal", START_MS + 60 * 24 * HOUR_MS)
        log.buy(user, START_MS + 60 * 24 * HOUR_MS)
    log.flush()
    return log.records


def _read_by(store: RedisRoleStore) -> int:
    """How many records the role of campaigns has read."""
    return sum(position.records for number in range(4) if (position := store.position(number)))


def test_campaigns_that_fail_endpoints_that_fail_and_control_that_cannot_be_read_wake_somebody(
    kafka: RealKafka, redis_url: str, tmp_path: Path
) -> None:
    with (
        LocalEndpoint(SECRET, lambda _: Manner.GONE) as crm,
        LocalEndpoint(OTHER_SECRET, lambda n: (Manner.WELL, Manner.BROKEN)[n % 2]) as mail,
    ):
        made = settings_of(kafka, redis_url, tmp_path, crm=crm, mail=mail)
        settings = Settings.model_validate(made.model_dump() | {"campaigns": CAMPAIGNS})
        stored = open_role_store(settings, "campaigns")
        with (
            at_work(settings, tmp_path / "roles", ("campaigns", "webhooks")) as found,
            stored as store,
        ):
            records = _play_campaigns(settings)
            triggers = Triggers(settings)
            producer = Producer(producer_options(settings.broker))
            found.go_on(2)
            producer.produce(settings.topics.control, b"{", b"campaign")
            assert producer.flush(30) == 0
            for second in range(36):
                triggers.send(4)
                found.go_on(1)
                if second == 20:
                    found.pipeline.wait("all records", lambda: _read_by(store) >= records)
                    # What all partitions come to is told once a minute, and by whoever starts.
                    found.join(settings, "campaigns-2", "tests.faults.jumping")
            found.wait("segstream_campaign_ratio_evidence", 1_000)
            found.go_on(7)
        names_and_severities = fired(found.scraper, tmp_path)
    assert OF_CAMPAIGNS - names_and_severities == set()
    assert "SegstreamRoleFailed" not in {name for name, _ in names_and_severities}
