"""Measures delivery: webhooks a second on one core, and what a dead endpoint does to the others.

``python -m ops.bench.webhooks`` starts a real broker, a real store, the role of webhooks on a core of its own and an
endpoint that takes 50 ms to answer, and appends a dated section to ``results/webhooks.md``. At first all triggers
lie there and are delivered as fast as it goes. Then they come steadily for two endpoints, of which one answers
nothing for a while: how long the other waits is measured before and meanwhile, and in the end every id is to be at both.
"""

from __future__ import annotations

import base64
import json
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import Producer

from ops.bench import command
from ops.bench.report import load_after, measured_on, percentile
from ops.bench.stage import START_SECONDS, BenchError, Child, Stage, await_that, read
from producers import topics
from stream.campaigns.triggers import CampaignTrigger
from stream.config import ConfigError, Settings
from stream.records import change_id
from stream.servers import LocalStore, free_port, port_taken
from stream.store.state import key_of
from stream.told import ToldError
from stream.units import DAY_MS, iso
from stream.wiring.roles import outlets

RESULTS = Path(__file__).parent / "results" / "webhooks.md"
HEADER = """\
# Delivery to endpoints, measured

Each section is one run of `python -m ops.bench.webhooks` (`make bench-webhooks`): the role of webhooks on one core,
broker, store and endpoints on the others. Beside other work, what counts is the processor time: by the clock, a role
that waits for a core is slow, and so is an endpoint. Only proportions mean anything from one machine or day to another.
"""
WELL, DEAD = "/well", "/dead"
ANSWER_SECONDS = 0.05
TIMEOUT_SECONDS = 1.0
BEFORE_SECONDS = 10
PATIENCE_SECONDS = 900.0
"""After the endpoint is back: its circuit is tried every five minutes at the latest."""


@dataclass(frozen=True)
class _Scene:
    """Servers, and an endpoint that notes what comes.

    Attributes:
        dead: while this file is there, one of its paths answers nothing.
    """

    stage: Stage
    store: LocalStore
    port: int
    dead: Path
    server: Child
    out: Path

    def settings(self, name: str, paths: Sequence[str], at_once: int) -> Settings:
        """Those of a namespace with an endpoint a path; its topics are made."""
        secret = self.stage.file("secret")
        secret.write_text("whsec_" + base64.b64encode(bytes(range(32))).decode())
        endpoints = [
            {
                "name": path[1:],
                "url": f"http://127.0.0.1:{self.port}{path}",
                "secrets": [f"file:{secret}"],
                "timeout": TIMEOUT_SECONDS,
                "at_once": at_once,
                "private": True,
            }
            for path in paths
        ]
        told = self.stage.settings(self.store, name).model_dump()
        told["topics"] |= {"triggers": f"{name}-triggers", "control": f"{name}-control"}
        told["store"]["namespace_key"] = SECRET
        settings = Settings.model_validate(
            told
            | {"campaigns": [{"name": "win-back", "when": {"kind_to": ["at_risk"]}}]}
            | {"endpoints": endpoints}
        )
        topics.apply(settings, create=True, outlets=outlets(settings))
        return settings

    def count(self, path: str) -> int:
        """Requests that were answered."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/counts", timeout=10) as answer:
            return int(json.loads(answer.read()).get(path, 0))

    def received(self) -> dict[str, list[tuple[str, float]]]:
        """All there was; the endpoint ends."""
        self.server.ask_to_end()
        self.server.wait(START_SECONDS)
        return dict(read(self.out))


@contextmanager
def _scene(stage: Stage) -> Iterator[_Scene]:
    port, dead, out = free_port(), stage.file("dead"), stage.file("received.json")
    told = {
        "port": port, "answer_seconds": ANSWER_SECONDS, "dead_path": DEAD, "dead_file": str(dead),
        "out": str(out),
    }  # fmt: skip
    line = [sys.executable, "-m", "ops.bench.endpoint", json.dumps(told)]
    with ExitStack() as stack:
        store = stack.enter_context(stage.store())
        log = stage.file("endpoint.log")
        server = stack.enter_context(Child("endpoint", line, log, stage.cores.servers))
        await_that(lambda: port_taken(port), START_SECONDS, server)
        yield _Scene(stage, store, port, dead, server, out)


SECRET = "of the benchmark"  # noqa: S105 - of nothing that is kept
_KEY = key_of(SECRET)
"""Ids of triggers hang on it, and the role verifies them."""


def trigger(number: int) -> CampaignTrigger:
    """One of its own for each number."""
    now_ms = time.time_ns() // 1_000_000
    change = change_id(f"user-{number}".encode(), _KEY, 1, 1)
    return {
        "id": f"win-back-1-{change}",
        "campaign": "win-back",
        "version": "1",
        "arm": "coupon",
        "user": f"user-{number}",
        "change": change,
        "changed_at": iso(now_ms),
        "at": iso(now_ms),
        "valid_until": iso(now_ms + DAY_MS),
        "from": 1,
        "to": 2,
        "name_from": "Loyal",
        "name_to": "At risk",
        "kind_from": "loyal",
        "kind_to": "at_risk",
        "cause": "time_passed",
    }


class _Triggers:
    """Puts triggers on their topic; notes when."""

    def __init__(self, settings: Settings) -> None:
        self._producer = Producer({"bootstrap.servers": settings.broker.bootstrap, "linger.ms": 1})
        self._topic = settings.topics.triggers
        self._partitions = settings.topics.partitions
        self.at: dict[str, float] = {}

    def send(self, number: int) -> None:
        one = trigger(number)
        self.at[one["id"]] = time.time()
        partition = number % self._partitions
        self._producer.produce(self._topic, msgspec.json.encode(one), partition=partition)
        self._producer.poll(0)

    def flush(self) -> None:
        if self._producer.flush(START_SECONDS):
            raise BenchError("the broker does not take the triggers")


def speed(stage: Stage, triggers: int) -> dict[str, Any]:
    """Webhooks a second, and what the role works for each."""
    with _scene(stage) as scene:
        settings = scene.settings("speed", [WELL], at_once=256)
        sent = _Triggers(settings)
        for number in range(triggers):
            sent.send(number)
        sent.flush()
        with stage.role("webhooks", settings, stage.cores.measured) as role:
            await_that(lambda: scene.count(WELL) >= triggers, PATIENCE_SECONDS, role, poll=0.5)
            worked, waited = role.cpu_seconds(), role.waited_seconds()
            others = scene.server.cpu_seconds()
        at = sorted(at for _, at in scene.received()[WELL])
    return {
        "webhooks": triggers,
        "webhooks_per_second": (triggers - 1) / (at[-1] - at[0]),
        "role_cpu_seconds_per_thousand": 1_000 * worked / triggers,
        "role_webhooks_per_cpu_second": triggers / worked,
        "role_waited_for_core_seconds": waited,
        "endpoint_cpu_seconds_per_thousand": 1_000 * others / triggers,
        "seconds": at[-1] - at[0],
    }


def beside_a_dead_one(stage: Stage, rate: int, dead_seconds: int) -> dict[str, Any]:
    """How long a trigger takes to an endpoint before another is dead and meanwhile, and what is lost."""
    with _scene(stage) as scene:
        settings = scene.settings("dead", [WELL, DEAD], at_once=64)
        sent = _Triggers(settings)
        with stage.role("webhooks", settings, stage.cores.measured) as role:
            sent.send(0)
            sent.flush()
            await_that(lambda: scene.count(DEAD) == 1, START_SECONDS, role)
            begun, number = time.time(), 0
            died = begun + BEFORE_SECONDS
            while (now := time.time()) < died + dead_seconds:
                if now >= died and not scene.dead.exists():
                    scene.dead.touch()
                while number < (now - begun) * rate:
                    number += 1
                    sent.send(number)
                time.sleep(0.001)
            sent.flush()
            scene.dead.unlink()
            back = time.time()
            there = number + 1
            await_that(lambda: scene.count(DEAD) >= there, PATIENCE_SECONDS, role, poll=0.5)
            late = time.time() - back
        received = scene.received()
    waits: dict[bool, list[float]] = {False: [], True: []}
    for name, at in received[WELL]:
        if sent.at[name] >= begun:
            waits[sent.at[name] >= died].append(at - sent.at[name])
    ids = {path: Counter(name for name, _ in found) for path, found in received.items()}
    return {
        "dead_seconds": dead_seconds,
        "triggers_per_second": rate,
        "lost": sum(len(sent.at.keys() - found.keys()) for found in ids.values()),
        "answered_twice": sum(found.total() - len(found) for found in ids.values()),
        "strangers": sum(len(found.keys() - sent.at.keys()) for found in ids.values()),
        "caught_up_after_seconds": late,
        **{
            f"wait_{name}_p{percent}_seconds": percentile(waits[while_dead], percent)
            for name, while_dead in (("before", False), ("meanwhile", True))
            for percent in (50, 99)
        },
    }


def section(report: dict[str, Any], at: datetime) -> str:
    """A dated section of the results."""

    def wait(name: str) -> str:
        half, most = (1e3 * report[f"wait_{name}_p{percent}_seconds"] for percent in (50, 99))
        return f"{half:,.0f} / {most:,.0f} ms"

    waited = report["role_waited_for_core_seconds"]
    waited = "not known" if waited is None else f"{waited:,.1f} s"
    lines = [
        f"## {at:%Y-%m-%d %H:%M} UTC",
        "",
        f"{measured_on('aiohttp', 'msgspec')}; {load_after()}.",
        "",
        f"An endpoint that takes {1e3 * ANSWER_SECONDS:.0f} ms, {report['webhooks']:,} triggers.",
        "",
        "| | |",
        "|---|---|",
        f"| webhooks in each second of the role's processor time | {report['role_webhooks_per_cpu_second']:,.0f} |",
        f"| processor time of the role for 1,000 | {report['role_cpu_seconds_per_thousand']:.2f} s |",
        f"| the same of the endpoint, which shares its core with broker and store | {report['endpoint_cpu_seconds_per_thousand']:.2f} s |",
        f"| webhooks a second, by the clock | {report['webhooks_per_second']:,.0f} |",
        f"| of {report['seconds']:,.1f} s, the role had something to do and no core for | {waited} |",
        "",
        (
            f"Two endpoints, {report['triggers_per_second']:,} triggers a second; one of them answers nothing "
            f"for {report['dead_seconds']:,} s."
        ),
        "",
        "| | |",
        "|---|---|",
        f"| from topic to the other endpoint before, p50 / p99 | {wait('before')} |",
        f"| the same meanwhile | {wait('meanwhile')} |",
        f"| everything delivered after it was back | {report['caught_up_after_seconds']:,.0f} s |",
        f"| lost | {report['lost']:,} |",
        f"| answered well twice, with the same id | {report['answered_twice']:,} |",
        f"| with an id that is none | {report['strangers']:,} |",
    ]
    return "\n".join(lines) + "\n"


def measure(triggers: int, rate: int, dead_seconds: int, partitions: int) -> dict[str, Any]:
    """Both, one after the other."""
    with Stage(heap="512m", partitions=partitions) as stage:
        return speed(stage, triggers) | beside_a_dead_one(stage, rate, dead_seconds)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command.options(__doc__ or "", RESULTS)
    add = parser.add_argument
    add("--triggers", type=command.at_least(2), default=20_000, help="delivered at a stretch")
    add("--rate", type=command.at_least(1), default=100, help="triggers a second beside a dead one")
    add("--dead", type=command.at_least(1), default=60, help="seconds that it is dead")
    add("--partitions", type=command.at_least(1), default=4, help="of each topic")
    wanted = parser.parse_args(arguments)
    return command.run(
        "bench-webhooks",
        lambda: measure(wanted.triggers, wanted.rate, wanted.dead, wanted.partitions),
        section,
        wanted=wanted,
        results=RESULTS,
        header=HEADER,
        expected=(ConfigError, BenchError, ToldError),
    )


if __name__ == "__main__":
    sys.exit(main())
