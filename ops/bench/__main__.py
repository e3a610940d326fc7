"""Measures the whole job against the ceiling and a plain loop, and its latency.

Comes in: how much and how often. Goes out: medians of interleaved rounds, for people, as JSON, and
as a section of ``results/pipeline.md``. It states what it measured and asserts nothing.

Everything is started here: Apache Kafka, filled once, and a fresh store for each run. In a round
they run one after the other, each a fresh process on a core of its own, servers and the other
roles on the rest:

1. *ceiling*: consume in 500s and read the bytes;
2. *plain loop*: msgspec into a struct, nine decayed sums a user, redis-py's ``mset`` every 10,000
   events; and the *totals loop*, the same with totals, which never forget: less than the job;
3. *whole job*: the shipped worker in live mode, with trainer and publisher beside it. Its users
   are cold. A model is in force from the first event on: the one learned in a warm-up that is
   thrown away, so that looking at users and recording their moves is part of every event's cost,
   and no round depends on how soon its trainer came up. The trainer goes on learning.

A clock runs from a process's first message until it has all events, for the worker: until the store
has committed all. The latency is taken at a steady rate from a user's newest event to the change in
a reader's hand, by the wall clock, roles and load as processes of their own on all cores.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops.bench import command
from ops.bench.command import at_least, say
from ops.bench.report import (
    HEADER,
    Latency,
    Round,
    Speed,
    details_of,
    machine,
    section,
    summary,
)
from ops.bench.stage import (
    START_SECONDS,
    BenchError,
    Child,
    Stage,
    await_that,
    read,
    store_cpu_seconds,
    sums,
)
from ops.kafka.server import why_unavailable
from producers import topics as topic_plans
from stream.config import Settings
from stream.errors import BrokerUnavailableError, ServerStartError
from stream.events import Counts
from stream.learning.owner_view import OwnerView
from stream.servers import LocalStore, free_port
from stream.store.redis import RedisStore
from stream.store.state import StoreUnavailableError
from stream.wiring.roles import open_store

RESULTS = Path(__file__).parent / "results" / "pipeline.md"
SLOWEST = 3_000.0
"""Events a second below which a run is taken for hung."""
FILL_RATE = 20_000.0
"""Event times of the filled log advance at this many a second."""
EXPECTED = (BenchError, ServerStartError, BrokerUnavailableError, StoreUnavailableError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0 done, 1 it could not be done, 2 wrong use."""
    wanted = parse(arguments)
    if why := why_unavailable():
        return command.failed("bench", why)
    return command.run(
        "bench",
        lambda: bench(wanted),
        section,
        wanted=wanted,
        results=RESULTS,
        header=HEADER,
        expected=EXPECTED,
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command.options(
        "The whole job against the ceiling and a plain loop, on real Kafka and Redis.",
        RESULTS,
        prog="python -m ops.bench",
        epilog='Example: make bench ARGS="--json --rounds 3"',
    )
    add = parser.add_argument
    add("--rounds", type=at_least(0), default=5, help="rounds of the throughput; 0 leaves it out")
    add("--events", type=at_least(1), default=3_000_000, help="events of a round")
    add(
        "--users", type=at_least(1), default=50_000, help="users the events are drawn from, by zipf"
    )
    add("--partitions", type=at_least(1), default=4, help="partitions of each topic")
    add(
        "--latency-rounds",
        type=at_least(0),
        default=3,
        help="rounds of the latency; 0 leaves it out",
    )
    add("--latency-seconds", type=at_least(1), default=20, help="seconds measured in each")
    add("--latency-warmup", type=at_least(0), default=10, help="seconds of load before that")
    add("--latency-rate", type=at_least(1), default=20_000, help="events a second")
    add("--heap", default="1g", help="of the broker's Java")
    add(
        "--profile",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="one more round that tells where the worker's time goes",
    )
    return parser.parse_args(arguments)


def bench(wanted: argparse.Namespace) -> dict[str, Any]:
    """Start the servers, measure, and stop them."""
    rounds: list[Round] = []
    latencies: list[Latency] = []
    shares: dict[str, float] = {}
    filled: dict[str, float] = {"event_bytes": 0.0}
    with Stage(heap=wanted.heap, partitions=wanted.partitions) as stage:
        run = _Run(stage, wanted)
        if wanted.rounds or wanted.profile:
            filled = run.fill()
            say("warming up; its model is where the rounds begin")
            run.ceiling("warm")
            run.whole("warm", learn=True)
        for number in range(wanted.rounds):
            rounds.append(run.round(number))
            told = rounds[-1].numbers()
            say(
                f"round {number + 1}: whole {told['events_per_second_per_core']:,.0f}/s, "
                f"{told['ceiling_ratio']:.3f} of the ceiling, "
                f"{told['plain_loop_ratio']:.2f} of the plain loop"
            )
        if wanted.profile:
            shares = run.whole("profile", profiled=True)[1]["shares"]
        for number in range(wanted.latency_rounds):
            latencies.append(run.latency(number))
            told = latencies[-1].numbers()
            say(
                f"latency {number + 1}: p50 {told['change_latency_p50_seconds'] * 1e3:.1f} ms, "
                f"p99 {told['change_latency_p99_seconds'] * 1e3:.1f} ms of "
                f"{told['latency_changes']:,.0f} changes"
            )
        how = (
            "what is measured has one core, servers and other roles the rest"
            if stage.cores.apart
            else "NOT pinned apart: there is one core for all"
        )
    facts = {
        "events": wanted.events,
        "event_bytes": filled["event_bytes"],
        "users": wanted.users,
        "partitions": wanted.partitions,
        "how": how,
        "model": "from a warm-up; the trainer goes on",
        "machine": machine(),
    }
    return summary(rounds, latencies, shares, facts)


@dataclass(frozen=True)
class _System:
    """What stands around a worker."""

    settings: Settings
    store: RedisStore
    server: LocalStore
    roles: dict[str, Child]

    def consumed(self) -> Counts:
        """What became of the messages so far, as committed."""
        total = Counts()
        for partition in range(self.settings.topics.partitions):
            position = self.store.position(partition)
            if position is not None:
                total.add(position.counts)
        return total

    def published(self) -> bool:
        """Whether no change waits for the publisher."""
        return not sum(self.store.outbox_sizes(range(self.settings.topics.partitions)))


def _is_announced(store: RedisStore) -> bool:
    """Whether owners may take up the model that is stored."""
    found = store.model()
    return found is not None and OwnerView.unpack(found[1]).is_announced


class _Run:
    """One run of the benchmark, on a stage that is set."""

    def __init__(self, stage: Stage, wanted: argparse.Namespace) -> None:
        self._stage = stage
        self._wanted = wanted
        self._patience = START_SECONDS + wanted.events / SLOWEST
        self._model: tuple[int, bytes] | None = None

    def fill(self) -> dict[str, float]:
        """The events all rounds read."""
        wanted, stage = self._wanted, self._stage
        say(f"filling {wanted.events:,} events")
        settings = stage.settings(None, "fill")
        topic_plans.apply(settings, create=True)
        told: dict[str, float] = stage.run(
            "fill", settings, stage.cores.measured, self._patience,
            events=wanted.events, users=wanted.users, rate=FILL_RATE,
        )  # fmt: skip
        return told

    def round(self, number: int) -> Round:
        """Each once; who begins changes from round to round."""
        speeds: dict[str, Speed] = {}
        details: dict[str, float] = {}
        names = ["ceiling", "plain", "totals", "whole"]
        first = number % len(names)
        for name in names[first:] + names[:first]:
            if name == "whole":
                speeds[name], details = self.whole(f"whole-{number}")
            elif name == "ceiling":
                speeds[name] = self.ceiling(f"ceiling-{number}")
            else:
                speeds[name] = self.plain(f"{name}-{number}", rolling=name == "plain")
        return Round(**speeds, whole_details=details)

    def ceiling(self, name: str) -> Speed:
        told = self._rival("ceiling", self._stage.settings(None, name))
        return Speed(told["events"], told["seconds"], told["cpu_seconds"])

    def plain(self, name: str, *, rolling: bool) -> Speed:
        with self._stage.store() as store:
            told = self._rival("plain", self._stage.settings(store, name), rolling=rolling)
            # The server is this run's own, and has done nothing else.
            worked = store_cpu_seconds(store.url)
        return Speed(told["events"], told["seconds"], told["cpu_seconds"], worked)

    def _rival(self, loop: str, settings: Settings, **arguments: Any) -> Any:
        return self._stage.run(
            loop, settings, self._stage.cores.measured, self._patience,
            events=self._wanted.events, **arguments,
        )  # fmt: skip

    def whole(
        self, name: str, *, learn: bool = False, profiled: bool = False
    ) -> tuple[Speed, dict[str, Any]]:
        """The shipped worker, from its first message until the store has committed everything.

        Args:
            name: of its group, namespace and output topics; not to be used again.
            learn: begin without a model, and keep the one that is learned for the other runs.
            profiled: tell where its time goes, instead of what it has done.
        """
        stage, started = self._stage, self._stage.file("started.json")
        with self._system(name, cold=learn) as system:
            port, metrics = free_port(), system.settings.metrics
            served = system.settings.model_copy(
                update={"metrics": metrics.model_copy(update={"port": port})}
            )
            with stage.loop(
                "worker", served, stage.cores.measured, start_file=str(started), profiled=profiled
            ) as (child, out):
                await_that(started.exists, START_SECONDS, child, poll=0.001)
                worked = store_cpu_seconds(system.server.url)
                await_that(
                    lambda: system.consumed().consumed >= self._wanted.events,
                    self._patience,
                    child,
                )
                ended, worker_cpu = time.monotonic(), child.cpu_seconds()
                worked = store_cpu_seconds(system.server.url) - worked
                details: dict[str, Any] = {}
                if not profiled:
                    details = details_of(system.consumed(), sums(port))
                if learn:
                    wall_ms = time.time_ns() // 1_000_000
                    # A round over everyone: the one before it may have begun with a few.
                    await_that(lambda: system.store.round() > wall_ms, START_SECONDS, child)
                    await_that(lambda: _is_announced(system.store), START_SECONDS, child)
                    self._model = system.store.model()
                child.ask_to_end()
                child.wait(START_SECONDS)
                begun = read(started)
                speed = Speed(
                    self._wanted.events,
                    ended - begun["at"],
                    worker_cpu - begun["cpu_seconds"],
                    worked,
                )
                return speed, details or read(out)

    @contextmanager
    def _system(
        self, name: str, *, cold: bool, inputs: str = "bench", spread: bool = False
    ) -> Iterator[_System]:
        """Topics, a fresh store with the model in it, a trainer and a publisher.

        Args:
            name: of what nobody else uses.
            cold: without a model.
            inputs: what the names of the input topics begin with.
            spread: let the roles run on every core.
        """
        stage = self._stage
        cores = stage.cores.every if spread else stage.cores.servers
        with ExitStack() as stack:
            server = stack.enter_context(stage.store())
            settings = stage.settings(server, name, inputs)
            topic_plans.apply(settings, create=True)
            store = stack.enter_context(open_store(settings))
            if self._model is not None and not cold:
                round_ms, model = self._model
                store.lead("bench")
                store.put_model("bench", model, round_ms)
            children = {
                role: stack.enter_context(stage.role(role, settings, cores))
                for role in ("trainer", "publisher")
            }
            yield _System(settings, store, server, children)

    def latency(self, number: int) -> Latency:
        """Everything as separate processes, under a steady load."""
        wanted, stage, name = self._wanted, self._stage, f"latency-{number}"
        every = stage.cores.every
        seconds = wanted.latency_warmup + wanted.latency_seconds
        events = wanted.latency_rate * seconds
        started, listening = stage.file("started.json"), stage.file("listening.json")
        load = {"events": events, "users": wanted.users, "rate": wanted.latency_rate}
        with ExitStack() as stack:
            around = self._system(name, cold=False, inputs=name, spread=True)
            system = stack.enter_context(around)
            settings, children = system.settings, dict(system.roles)
            children["activity"] = stack.enter_context(stage.role("activity", settings, every))
            hearing = stage.loop("listen", settings, every, ready_file=str(listening))
            listener, heard = stack.enter_context(hearing)
            await_that(listening.exists, START_SECONDS, listener)
            sending = stage.loop("send", settings, every, **load, start_file=str(started))
            sender, sent = stack.enter_context(sending)
            await_that(started.exists, self._patience, sender)
            after_ms = read(started)["start_ms"] + wanted.latency_warmup * 1_000
            worked = {role: child.cpu_seconds() for role, child in children.items()}
            begun = time.monotonic()
            await_that(
                sent.exists, START_SECONDS + seconds, sender, listener, *children.values(), poll=0.2
            )
            took = time.monotonic() - begun
            cores = {r: (child.cpu_seconds() - worked[r]) / took for r, child in children.items()}
            await_that(
                lambda: system.consumed().consumed >= events and system.published(),
                START_SECONDS,
                *children.values(),
            )
            listener.ask_to_end()
            listener.wait(START_SECONDS)
            told, changes = read(sent), read(heard)
            timed = zip(changes["at_ms"], changes["seconds"], strict=True)
            measured = [seconds for at_ms, seconds in timed if at_ms >= after_ms]
            if not measured:
                raise BenchError("nobody moved while latency was measured; take more seconds")
            return Latency(
                measured,
                told["rate"],
                told["latest_send_seconds"],
                cores,
                changes["causes"],
            )


if __name__ == "__main__":
    sys.exit(main())
