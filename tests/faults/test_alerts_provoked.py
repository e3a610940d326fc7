"""What the alerts are about is done to a running pipeline, and they fire on what it then tells.

Every second what the roles serve is written down, as Prometheus would. The rules are evaluated on that with
time sixty times as fast: five minutes are five seconds, and a limit of a minute is one of a second.
"""

from __future__ import annotations

import math
import re
import threading
from pathlib import Path
from typing import Any, Self
from urllib.request import urlopen

import pytest
import redis
import yaml
from confluent_kafka import Producer
from prometheus_client.parser import text_string_to_metric_families

from ops.kafka.server import RealKafka
from producers.client import producer_options
from stream.config import Settings
from stream.config_layers import as_file
from stream.servers import LocalStore, free_port, redis_binary
from tests.conftest import SettingsFor
from tests.harness import Pipeline
from tests.ops.queries import RULES, SCRAPED, names, promtool, rules

pytestmark = [pytest.mark.servers, pytest.mark.slow]

HASTE = 60
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
            with urlopen(f"http://127.0.0.1:{self._ports[role]}/metrics", timeout=2) as answer:
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
        r"(segstream_lag_seconds:max|segstream_outbox_age_seconds\)|\n\s+\)) > (\d\d+)\b",
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


def test_what_is_done_to_a_pipeline_wakes_somebody(
    kafka: RealKafka, settings_for: SettingsFor, tmp_path: Path
) -> None:
    with LocalStore(binary=redis_binary(), appendonly=True) as store:
        ports = {role: free_port() for role in ROLES}
        settings = settings_for(
            kafka.bootstrap,
            store.url,
            worker={"sweep_seconds": 0.5, "decoder": "plain", "reject_consecutive_limit": 20},
            publisher={"lease_seconds": 1.0},
        )
        with Pipeline(settings, tmp_path) as pipeline, redis.Redis.from_url(store.url) as admin:
            pipeline.create_topics()
            for role in ROLES:
                metrics = {"port": ports[role], "linger_seconds": 6.0}
                own = Settings.model_validate(settings.model_dump() | {"metrics": metrics})
                pipeline.config = tmp_path / f"{role}.toml"
                pipeline.config.write_text(as_file(own))
                pipeline.start(role)
            worker, _, publisher = pipeline.roles
            with Scraper(ports) as scraper:

                def wait(name: str, least: float, *parts: str) -> None:
                    pipeline.wait(name, lambda: scraper.now(name, *parts) >= least)

                def go_on(seconds: int) -> None:
                    """Until it has been scraped as often again."""
                    until = len(scraper.scrapes) + seconds
                    pipeline.wait("scrapes", lambda: len(scraper.scrapes) >= until)

                wait("segstream_partitions_owned", 4)
                for role in ROLES:
                    wait("segstream_role_ready", 1, f'role="{role}"')
                begun = len(scraper.scrapes)

                _junk(settings, 500)
                wait("segstream_reject_alert", 1)
                go_on(3)

                admin.config_set("maxmemory", admin.info("memory")["used_memory"] + 20_000)
                wait("segstream_store_memory_limit_bytes", 1)
                go_on(4)
                admin.config_set("maxmemory", 0)

                publisher.kill()
                go_on(5)

                worker.expected = False
                admin.flushall()
                wait("segstream_role_failed", 1, 'error="StateLostError"')
                go_on(3)
            # From when all was well: before, each role was absent.
            del scraper.scrapes[:begun]
            found = fired(scraper, tmp_path)
    assert {
        ("SegstreamRejectsHigh", "critical"),
        ("SegstreamStoreFull", "critical"),
        ("SegstreamRoleAbsent", "critical"),
        # A full store takes no lease.
        ("SegstreamNobodyLeads", "critical"),
        ("SegstreamStateLost", "critical"),
    } <= found
    assert not {name for name, _ in found} & {
        "SegstreamClockJumped",
        "SegstreamEventsMisplaced",
        "SegstreamRecordsUnaccounted",
        "SegstreamStoreEvicting",
        "SegstreamVersionsDiffer",
    }
