"""The demo: a simulated shop on a local broker and store, with all roles as real processes.

Comes in: how long it may take. Goes out: a live picture while it runs, and facts at its end, of
which `lost`, `duplicated` and `rejected` come from the audit.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Self

import msgspec
import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from consumers.audit import audit
from consumers.change_log import ChangeLog, parse_record
from consumers.client import read_to_end, reader_options
from producers import topics as topic_plans
from producers.reactions import Reactions
from producers.traffic import ShopReport, run_shop
from stream import config
from stream.cli import views
from stream.errors import kafka_client
from stream.events import Mark
from stream.features import DEFAULT_FEATURES, FeatureTable
from stream.insight import campaign_facts, queries
from stream.learning.state import TrainerState
from stream.roles.registry import Role
from stream.safe import safe_facts
from stream.servers import LocalBroker, LocalStore
from stream.store.state import StoreUnavailableError
from stream.units import DAY_MS, iso, milliseconds, readable_duration
from stream.wiring.roles import campaign_state, mark_signer, open_store, outlets, wanted

if TYPE_CHECKING:
    from collections.abc import Callable

    from producers.replay import Progress
    from stream.store.redis import RedisStore

SHOP_DAYS = 42
USERS_A_SECOND = 300
MARKS_A_SECOND = 3
"""More than these, and workers and trainer on two cores fall behind the shop's clock."""
DRAIN_SECONDS = 90.0
REFRESH_SECONDS = 0.5
AHEAD_MS = 2 * DAY_MS
"""The shop goes on only so far ahead of the newest change: who gets a letter reacts in time."""
WAIT_SECONDS = 0.02
LAST_MOVES = 8
TO_A_FILE = ("--set", "log.format=text")
"""What a role says is shown to a person if it fails."""

SETTINGS = """\
# The settings of the demo's shop. Fashion: who has not come for ten days is drifting away.
[broker]
bootstrap = "{bootstrap}"
session_timeout_seconds = 2

[store]
url = "{url}"

[topics]
partitions = 4
input_retention_seconds = 0

[clock]
mode = "watermark"
mark_seconds = "{mark_hours}h"

[worker]
late_seconds = "7d"

[learning]
segments = 7
refit_seconds = "3d"
alarm_share = 1           # weeks go by in seconds: a refit is never far
move_threshold = 0.15

[[kinds]]
kind = "dormant"
rank = 1
when = {{ days_since_seen = {{ min = 18 }} }}

[[kinds]]
kind = "at_risk"
rank = 2
when = {{ days_since_seen = {{ min = 7 }} }}

[[kinds]]
kind = "champion"
rank = 5
when = {{ orders_30d = {{ min = 2.0 }} }}

[[kinds]]
kind = "loyal"
rank = 4
when = {{ orders_30d = {{ min = 0.8 }} }}

[[kinds]]
kind = "new"
rank = 3
instead = "promising"
when = {{ tenure_days = {{ max = 5 }} }}

[[kinds]]
kind = "promising"
rank = 3
when = {{ orders_30d = {{ min = 0.25 }} }}

[[kinds]]
kind = "browsing"
rank = 2
when = {{ views_7d = {{ min = 0.5 }} }}

# Two campaigns for who drifts away: shoppers react to the one, and not to the other.
[[campaigns]]
name = "coupon"
when = {{ kind_to = ["at_risk"] }}
holdout = 0.5
goal = {{ within = "7d", hope = 0.05, tuned_for = 2_000 }}

[[campaigns]]
name = "postcard"
when = {{ kind_to = ["at_risk"] }}
holdout = 0.5
goal = {{ within = "7d", hope = 0.05, tuned_for = 2_000 }}
"""

CHANCES = {"coupon": 0.25, "postcard": 0.0}
"""That a shopper of the demo orders for a trigger who else might not."""


@dataclass
class _Tail:
    """What the change topic has brought so far, counted as a campaign would see it."""

    changes: int = 0
    risk_moves: int = 0
    causes: dict[str, int] = field(default_factory=dict)
    last: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=LAST_MOVES))
    arrived: list[tuple[str, float]] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    newest_ms: int = 0

    def take(self, change: dict[str, Any], now: float) -> None:
        if change["id"] in self.seen:
            return
        self.seen.add(change["id"])
        self.changes += 1
        self.risk_moves += queries.churn_risk_moves([change])
        self.causes[change["cause"]] = self.causes.get(change["cause"], 0) + 1
        self.arrived.append((change["at"], now))
        self.newest_ms = max(self.newest_ms, milliseconds(datetime.fromisoformat(change["at"])))
        if change["from"] is not None:
            self.last.append(change)


@dataclass
class _Shop:
    """The traffic's side: runs in a thread of its own."""

    report: ShopReport | None = None
    error: Exception | None = None
    at_ms: int = 0
    reactions: Reactions | None = None


def run(
    seconds: float,
    *,
    keep: bool,
    stop: Event,
    console: Console,
    show: Callable[[dict[str, Any]], None],
) -> bool:
    """Run the demo to its end, or until told to stop; leaves no process behind.

    Args:
        show: is given the facts when the shop has closed.

    Returns:
        Whether the audit is clean.
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="segstream-")))
        with console.status("starting a broker and a store"):
            broker = stack.enter_context(LocalBroker())
            store_server = stack.enter_context(LocalStore())
        file = directory / "demo.toml"
        file.write_text(
            SETTINGS.format(
                bootstrap=broker.bootstrap, url=store_server.url, mark_hours=mark_hours(seconds)
            )
        )
        settings = config.load(file, environment={})[0]
        topic_plans.apply(settings, create=True, outlets=outlets(settings))
        processes = stack.enter_context(_Processes(file, directory, wanted(settings)))
        store = stack.enter_context(open_store(settings))
        facts = _watch(settings, store, processes, seconds, stop, console)
        show(facts)
        if keep and not stop.is_set():
            console.print(
                f"broker and store are kept; look around with: segstream -c {file} segments\n"
                "The shop's clock stands still, and nobody learns any more. Ctrl-C ends it.",
                soft_wrap=True,
            )
            stop.wait()
    return bool(facts["ok"])


def _watch(
    settings: config.Settings,
    store: RedisStore,
    processes: _Processes,
    seconds: float,
    stop: Event,
    console: Console,
) -> dict[str, Any]:
    shop, tail = _Shop(), _Tail()
    started = time.monotonic()
    heard = _Heard(shop, tail, seconds, stop)
    traffic = Thread(target=_run_shop, args=(settings, shop, seconds, stop, heard), daemon=True)
    traffic.start()
    picture = _Picture(settings, store, shop, tail, console.width)
    done_at: float | None = None
    with (
        _tail_consumer(settings, settings.topics.changes) as consumer,
        Live(console=console, refresh_per_second=4, transient=True) as live,
    ):
        while not stop.is_set():
            deadline = time.monotonic() + REFRESH_SECONDS
            while (left := deadline - time.monotonic()) > 0:
                for message in consumer.consume(1_000, left):
                    change = parse_record(message.value())
                    if message.error() is None and change is not None:
                        tail.take(change, time.time())
            live.update(picture.draw())
            processes.check()
            if shop.error is not None:
                raise shop.error
            if shop.report is not None and done_at is None:
                done_at = time.monotonic()
            if done_at is not None and (
                picture.drained() or time.monotonic() - done_at > DRAIN_SECONDS
            ):
                break
    took = time.monotonic() - started
    with ending_at_once():
        traffic.join(10)
        processes.end()
        with console.status("the audit recomputes everything from the log"):
            return _facts(settings, store, shop, tail, took)


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Ctrl-C ends what only looks: nothing waits to be finished.

    Raises:
        KeyboardInterrupt: there was one; whoever cleans up afterwards is not interrupted by another.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        before = signal.SIG_IGN
        raise
    finally:
        signal.signal(signal.SIGINT, before)


def mark_hours(seconds: float) -> int:
    """Hours of the shop between two marks: a shorter demo has fewer, a very short one a day's."""
    hours = SHOP_DAYS * 24
    fits = (each for each in (4, 6, 8, 12) if hours / each <= MARKS_A_SECOND * seconds)
    return next(fits, 24)


class _Heard:
    """Waits where the shop is ahead of what its roles have decided, so that letters come in time.

    A machine that keeps up never waits; one that does not takes twice as long at the most.
    """

    def __init__(self, shop: _Shop, tail: _Tail, seconds: float, stop: Event) -> None:
        self._shop, self._tail, self._stop = shop, tail, stop
        self._left = seconds

    def wait(self) -> None:
        while self._left > 0 and 0 < self._tail.newest_ms < self._shop.at_ms - AHEAD_MS:
            if self._stop.wait(WAIT_SECONDS):
                return
            self._left -= WAIT_SECONDS


def _run_shop(
    settings: config.Settings, shop: _Shop, seconds: float, stop: Event, heard: _Heard
) -> None:
    def progress(told: Progress) -> None:
        shop.at_ms = told.time_ms or shop.at_ms

    try:
        with _tail_consumer(settings, settings.topics.triggers) as triggers:
            shop.reactions = Reactions(CHANCES, partial(_listen, triggers, heard))
            shop.report = run_shop(
                settings,
                mark_signer(settings),
                seed=7,
                users=int(USERS_A_SECOND * seconds),
                days=SHOP_DAYS,
                seconds=seconds,
                stop=stop.is_set,
                progress=progress,
                faults=0.01,
                reactions=shop.reactions,
            )
    except Exception as error:  # noqa: BLE001 - raised again in the main thread
        shop.error = error


def _listen(consumer: Consumer, heard: _Heard) -> Iterator[dict[str, Any]]:
    """Triggers of campaigns that have come since."""
    heard.wait()
    for message in consumer.consume(1_000, 0.0):
        if message.error() is None:
            yield msgspec.json.decode(message.value() or b"")


def _tail_consumer(settings: config.Settings, topic: str) -> _ClosingConsumer:
    consumer = kafka_client(_ClosingConsumer, reader_options(settings.broker))
    consumer.assign(
        [
            TopicPartition(topic, partition, OFFSET_BEGINNING)
            for partition in range(settings.topics.partitions)
        ]
    )
    return consumer


class _ClosingConsumer(Consumer):
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Processes:
    """The roles as processes of their own, that outlive a Ctrl-C only until they are ended."""

    def __init__(self, file: Path, directory: Path, roles: Sequence[Role]) -> None:
        self._running: list[tuple[str, subprocess.Popen[bytes], Path]] = []
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SEGSTREAM_")}
        started = [role.name for role in roles for _ in range(role.replicas)]
        for number, role in enumerate(started):
            log = directory / f"{role}-{number}.log"
            with log.open("wb") as sink:
                process = subprocess.Popen(  # noqa: S603 - our own command
                    [sys.executable, "-m", "stream", "-c", str(file), *TO_A_FILE, "run", role],
                    stdout=sink,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env=environment,
                )
            self._running.append((role, process, log))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def check(self) -> None:
        """See that all are running.

        Raises:
            DemoError: one has ended; says which, with the end of its log.
        """
        for role, process, log in self._running:
            code = process.poll()
            if code is not None:
                said = log.read_text(errors="replace")[-2_000:]
                raise DemoError(f"the {role} process ended with {code}:\n{said}")

    def end(self) -> None:
        """Ask all to end, then insist."""
        for _, process, _ in self._running:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for _, process, _ in self._running:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


class _Picture:
    """Draws what is going on."""

    def __init__(
        self, settings: config.Settings, store: RedisStore, shop: _Shop, tail: _Tail, columns: int
    ) -> None:
        self._settings, self._store, self._shop, self._tail = settings, store, shop, tail
        self._columns = columns
        self._table = settings.table()
        self._rates: deque[tuple[float, int]] = deque(maxlen=12)

    def drained(self) -> bool:
        """Whether every partition has completed the last mark, and every change is delivered."""
        report = self._shop.report
        if report is None or report.last_event_ms is None:
            return False
        partitions = range(self._settings.topics.partitions)
        try:
            # What settles first is read first: a round that ended in between would bring a model
            # that a partition read before it has yet to adopt.
            found = self._store.model()
            if found is None or found[0] <= report.last_event_ms:
                return False
            model = TrainerState.unpack(found[1]).model
            settled = (found[0], "" if model is None else model.name)
            positions = [self._store.position(p) for p in partitions]
            waiting = sum(self._store.outbox_sizes(partitions))
        except StoreUnavailableError:
            return False
        reached = all(p is not None and (p.mark_ms, p.model) == settled for p in positions)
        return reached and waiting == 0

    def draw(self) -> Group:
        partitions = range(self._settings.topics.partitions)
        positions = [p for p in map(self._store.position, partitions) if p is not None]
        consumed = sum(p.counts.consumed for p in positions)
        self._rates.append((time.monotonic(), consumed))
        (then, before), (now, after) = self._rates[0], self._rates[-1]
        rate = (after - before) / (now - then) if now > then else 0.0
        clock = min((p.clock_ms for p in positions), default=0)
        behind = max(self._shop.at_ms - clock, 0) / 1_000 if clock else 0.0
        line = Text.assemble(
            ("segstream demo  ", "bold"),
            f"shop time {iso(self._shop.at_ms)[:16].replace('T', ' ')}   ",
            (f"{rate:,.0f}", "bold cyan"),
            " events/s   ",
            (f"{consumed:,}", "bold"),
            " so far   lag ",
            (readable_duration(behind), "bold"),
            " of shop time   ",
            (f"{self._tail.changes:,}", "bold"),
            " changes   ",
            (f"{self._tail.risk_moves:,}", "bold yellow"),
            " churn-risk moves",
        )
        moves = [views.change_line(safe_facts(change)) for change in self._tail.last]
        for move in moves:
            move.no_wrap, move.overflow = True, "ellipsis"
        parts: list[Any] = [line, Panel(Group(*moves), title="last moves", title_align="left")]
        try:
            facts = queries.segments(queries.trainer_state(self._store), self._table)
            parts.append(Text(f"{facts['users']:,} users"))
            parts.append(views.segments_table(safe_facts(facts), self._table, self._columns))
        except queries.NoModelError:
            parts.append(Text("no model yet: shoppers are still coming in", style="dim"))
        return Group(*parts)


def _facts(
    settings: config.Settings, store: RedisStore, shop: _Shop, tail: _Tail, took: float
) -> dict[str, Any]:
    report = audit(settings, store)
    for change in ChangeLog(settings).read():
        tail.take(change, float("nan"))
    positions = [store.position(p) for p in range(settings.topics.partitions)]
    consumed = sum(p.counts.consumed for p in positions if p is not None)
    latencies = [seconds for seconds in _latencies(settings, tail) if not math.isnan(seconds)]
    half, most = np.quantile(latencies, [0.5, 0.99]).tolist() if latencies else (None, None)
    facts: dict[str, Any] = {
        "ok": report.ok,
        "seconds": round(took, 1),
        "events": consumed,
        "events_per_second": round(consumed / took, 1) if took else 0.0,
        "users": 0,
        "segments": 0,
        "changes": tail.changes,
        "changes_by_cause": dict(sorted(tail.causes.items())),
        "churn_risk_moves": tail.risk_moves,
        "change_latency_p50_seconds": half,
        "change_latency_p99_seconds": most,
        "lost": report.lost,
        "duplicated": report.duplicated,
        "rejected": report.rejected,
        "complete": shop.report is not None and shop.report.complete,
        "checks": [asdict(check) for check in report.checks],
        "effects": _effects(settings, shop),
    }
    with suppress(queries.NoModelError):
        found = queries.segments(queries.trainer_state(store), settings.table())
        facts["users"] = found["users"]
        facts["segments"] = len(found["segments"])
        facts["segment_list"] = found
    return facts


def _effects(settings: config.Settings, shop: _Shop) -> list[dict[str, Any]]:
    """What was measured of each campaign, and what is true, for the shop knows who reacted."""
    if shop.reactions is None or shop.report is None or shop.report.last_event_ms is None:
        return []
    within_ms = {
        one.name: round(one.goal.within * 1_000)
        for one in settings.campaigns
        if one.goal is not None
    }
    truth = shop.reactions.truth(within_ms, shop.report.last_event_ms)
    found = campaign_facts.campaigns_facts(settings, campaign_state(settings))
    return [
        {
            "campaign": campaign["name"],
            "arm": comparison["arm"],
            "users": comparison["users"],
            "held_out_users": comparison["held_out_users"],
            "verdict": comparison["verdict"],
            "measured": comparison["conversion"]["difference"],
            "sequence": comparison["conversion"]["sequence"],
            "true": of.conversion
            if (of := truth.get((campaign["name"], comparison["arm"])))
            else None,
        }
        for campaign in found["campaigns"]
        for effect in campaign["effects"]
        for comparison in effect["comparisons"]
    ]


def _latencies(settings: config.Settings, tail: _Tail) -> Iterator[float]:
    """Seconds from when a mark was sent to when the changes decided at it arrived here."""
    sent: dict[str, float] = {}
    decoder = msgspec.json.Decoder(Mark)
    for message in read_to_end(settings.broker, settings.topics.clickstream, [0]):
        if message.key() is None and (value := message.value()):
            with suppress(msgspec.DecodeError):
                mark = decoder.decode(value)
                wall = np.datetime64(mark.sentAt.removesuffix("Z"), "ms").astype(np.int64)
                sent[mark.timestamp] = float(wall) / 1_000
    for at, arrived in tail.arrived:
        if at in sent:
            yield arrived - sent[at]


def _effect_line(effect: dict[str, Any]) -> str:
    """What was measured of a campaign, beside what is true."""
    told = f"campaign {effect['campaign']}: {effect['verdict'].replace('_', ' ')}"
    if effect["sequence"] is None:
        return f"{told}, for {effect['users']:,} users are too few"
    low, high = (f"{100 * end:+.1f}" for end in effect["sequence"])
    true = "unknown" if effect["true"] is None else f"{100 * effect['true']:+.1f} %"
    return f"{told}; conversion measured {100 * effect['measured']:+.1f} % ({low} .. {high}), true {true}"


def show_summary(console: Console, facts: dict[str, Any]) -> None:
    """The demo's end, for people."""
    if "segment_list" in facts:
        table = FeatureTable(DEFAULT_FEATURES)
        console.print(views.segments_table(facts["segment_list"], table, console.width))
    causes = ", ".join(f"{n:,} {c.replace('_', ' ')}" for c, n in facts["changes_by_cause"].items())
    lines = [
        (
            f"{facts['events']:,} events of {facts['users']:,} shoppers in {facts['seconds']:.0f} s "
            f"({facts['events_per_second']:,.0f} a second)"
        ),
        f"{facts['changes']:,} changes: {causes}",
        f"{facts['churn_risk_moves']:,} moves into churn risk",
    ]
    half, most = facts["change_latency_p50_seconds"], facts["change_latency_p99_seconds"]
    if half is not None:
        lines.append(
            f"from mark to change delivered: {readable_duration(half)} (median), "
            f"{readable_duration(most)} (99 %)"
        )
    lines += map(_effect_line, facts["effects"])
    lines.append(
        f"audit: {facts['lost']} lost, {facts['duplicated']} duplicated, "
        f"{facts['rejected']:,} rejected"
    )
    verdict = Text("audit clean" if facts["ok"] else "AUDIT FOUND FAULTS")
    verdict.stylize("bold green" if facts["ok"] else "bold red")
    console.print(Panel("\n".join(lines), title="summary", title_align="left"))
    for check in facts["checks"]:
        if not check["ok"]:
            console.print(f"  {check['name']}: {check['offenders']} {check['note']}")
    console.print(verdict)
