"""Runs a simulated shop on a local broker and store, with all roles as real processes.

Comes in: how long it may take. Goes out: facts of each moment while it runs, and of the run at its end, to
whoever shows them.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any, Protocol

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from consumers.change_log import ChangeLog, parse_record
from consumers.client import read_to_end, reader_options
from producers import topics as topic_plans
from producers.reactions import Reactions
from producers.replay import Progress
from producers.traffic import ShopReport, run_shop
from stream import config, config_layers
from stream.errors import kafka_client
from stream.events import Mark
from stream.features import FeatureTable
from stream.insight import campaign_facts
from stream.insight.facts import EffectBesideTruth, MomentFacts, RunFacts
from stream.insight.run import Audited, Run
from stream.servers import free_port
from stream.store.promises import ReaderStore
from stream.units import DAY_MS, milliseconds
from stream.wiring import api, campaigns
from stream.wiring.auditing import audit
from stream.wiring.own_servers import own_servers
from stream.wiring.processes import Processes
from stream.wiring.roles import ROLES, mark_signer, open_store, outlets, wanted

SHOP_DAYS = 42
USERS_A_SECOND = 300
MARKS_A_SECOND = 3
"""More than these, and workers and trainer on two cores fall behind the shop's clock."""
DRAIN_SECONDS = 90.0
REFRESH_SECONDS = 0.5
AHEAD_MS = 2 * DAY_MS
"""The shop goes on only so far ahead of the newest change: who gets a letter reacts in time."""
WAIT_SECONDS = 0.02

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

[publish]
rest_seconds = "10d"      # shoppers look in once a week or two, by chance

[[kinds]]
kind = "dormant"
rank = 1
when = {{ days_since_seen = {{ min = 21 }} }}

[[kinds]]
kind = "at_risk"
rank = 2
when = {{ days_since_seen = {{ min = 10 }} }}

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

[[levels]]
name = "purchase_stage"
of = "orders_total"
slack = 0
steps = [
    {{name = "loyal", least = 5}},
    {{name = "repeat", least = 2}},
    {{name = "first_time", least = 1}},
    {{name = "prospect"}},
]

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


class Screen(Protocol):
    """Shows what is going on."""

    def doing(self, what: str) -> AbstractContextManager[object]:
        """Something that takes a while, until it is left."""
        ...

    def watching(
        self, table: FeatureTable
    ) -> AbstractContextManager[Callable[[MomentFacts], None]]:
        """The shop at work, until it is left; gives what is told each moment."""
        ...

    def ended(self, facts: RunFacts) -> None:
        """What it came to."""
        ...

    def serving(self, address: str) -> None:
        """The page is to be seen there."""
        ...

    def kept(self, file: Path) -> None:
        """The servers stay, with these settings."""
        ...


@dataclass
class _Shop:
    """The traffic's side: runs in a thread of its own."""

    report: ShopReport | None = None
    error: Exception | None = None
    at_ms: int = 0
    reactions: Reactions | None = None

    def is_settled(self, run: Run) -> bool:
        """Whether all that it sent has come to its end."""
        sent = self.report
        return (
            sent is not None
            and sent.last_event_ms is not None
            and run.is_settled(sent.last_event_ms)
        )


def run(seconds: float, *, keep: bool, serve: bool, stop: Event, screen: Screen) -> bool:
    """Run the demo to its end, or until told to stop; leaves no process behind.

    Args:
        keep: whether the servers stay until told to stop.
        serve: whether the API is one of the roles, and stays with the servers.

    Returns:
        Whether the audit is clean, and the roles had come to the end of what the shop sent.

    Raises:
        ProcessEndedError: a role has ended by itself.
        ConfigError: the API is not installed.
    """
    if serve:
        api.see_that_it_is_installed()
    with ExitStack() as stack:
        servers = stack.enter_context(own_servers(screen))
        directory = servers.directory
        file = directory / "demo.toml"
        file.write_text(
            SETTINGS.format(
                bootstrap=servers.bootstrap, url=servers.store_url, mark_hours=mark_hours(seconds)
            )
        )
        settings = config_layers.load(file, environment={})[0]
        topic_plans.apply(settings, create=True, outlets=outlets(settings))
        if serve:
            file.write_text(f"{file.read_text()}\n[api]\nport = {free_port()}\n")
            settings = config_layers.load(file, environment={})[0]
            stack.enter_context(Processes(file, directory, [ROLES["api"]]))
            screen.serving(api.address_of(settings))
        processes = stack.enter_context(Processes(file, directory, wanted(settings)))
        store = stack.enter_context(open_store(settings))
        facts = _watch(settings, store, processes, seconds, stop, screen)
        screen.ended(facts)
        if (keep or serve) and not stop.is_set():
            screen.kept(file)
            stop.wait()
    return facts["ok"]


def _watch(
    settings: config.Settings,
    store: ReaderStore,
    processes: Processes,
    seconds: float,
    stop: Event,
    screen: Screen,
) -> RunFacts:
    shop, table = _Shop(), settings.table()
    run = Run(store, table, settings.topics.partitions)
    started = time.monotonic()
    pace = _Pace(shop, seconds, stop)
    traffic = Thread(target=_run_shop, args=(settings, shop, seconds, stop, pace), daemon=True)
    traffic.start()
    done_at: float | None = None
    caught_up = False
    changes = settings.topics.changes
    with _tail_consumer(settings, changes) as consumer, screen.watching(table) as draw:
        while not stop.is_set():
            deadline = time.monotonic() + REFRESH_SECONDS
            while (left := deadline - time.monotonic()) > 0:
                for message in consumer.consume(1_000, left):
                    change = parse_record(message.value())
                    if message.error() is None and change is not None:
                        run.arrivals.take(change, time.time())
                        pace.decided(change["at"])
            draw(run.moment(shop.at_ms, time.monotonic()))
            processes.check()
            if shop.error is not None:
                raise shop.error
            if shop.report is not None and done_at is None:
                done_at = time.monotonic()
            if done_at is not None:
                caught_up = shop.is_settled(run)
                if caught_up or time.monotonic() - done_at > DRAIN_SECONDS:
                    break
    took = time.monotonic() - started
    with ending_at_once():
        traffic.join(10)
        processes.end()
        with screen.doing("the audit recomputes everything from the log"):
            report = audit(settings, store)
            for change in ChangeLog(settings).read():
                run.arrivals.take(change, None)
            checks = [asdict(check) for check in report.checks]
            audited = Audited(report.ok, report.lost, report.duplicated, report.rejected, checks)
            complete = shop.report is not None and shop.report.complete
            facts = run.facts(
                _marks_sent(settings), audited, took, complete=complete, caught_up=caught_up
            )
            return facts | {"effects": _effects(settings, shop)}


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


class _Pace:
    """Waits where the shop is ahead of what its roles have decided, so that letters come in time.

    A machine that keeps up never waits; one that does not takes twice as long at the most.
    """

    def __init__(self, shop: _Shop, seconds: float, stop: Event) -> None:
        self._shop, self._stop = shop, stop
        self._left = seconds
        self._newest_ms = 0

    def decided(self, at: str) -> None:
        """A change as of this time has come."""
        self._newest_ms = max(self._newest_ms, milliseconds(datetime.fromisoformat(at)))

    def wait(self) -> None:
        while self._left > 0 and 0 < self._newest_ms < self._shop.at_ms - AHEAD_MS:
            if self._stop.wait(WAIT_SECONDS):
                return
            self._left -= WAIT_SECONDS


def _run_shop(
    settings: config.Settings, shop: _Shop, seconds: float, stop: Event, pace: _Pace
) -> None:
    def progress(told: Progress) -> None:
        shop.at_ms = told.time_ms or shop.at_ms

    try:
        with _tail_consumer(settings, settings.topics.triggers) as triggers:
            shop.reactions = Reactions(CHANCES, partial(_listen, triggers, pace))
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


def _listen(consumer: Consumer, pace: _Pace) -> Iterator[dict[str, Any]]:
    """Triggers of campaigns that have come since."""
    pace.wait()
    for message in consumer.consume(1_000, 0.0):
        if message.error() is None:
            yield msgspec.json.decode(message.value() or b"")


def _effects(settings: config.Settings, shop: _Shop) -> list[EffectBesideTruth]:
    """What was measured of each campaign, and what is true, for the shop knows who reacted."""
    if shop.reactions is None or shop.report is None or shop.report.last_event_ms is None:
        return []
    within_ms = {
        one.name: round(one.goal.within * 1_000)
        for one in settings.campaigns
        if one.goal is not None
    }
    truth = shop.reactions.truth(within_ms, shop.report.last_event_ms)
    found = campaign_facts.campaigns_facts(settings, campaigns.state(settings))
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


def _tail_consumer(settings: config.Settings, topic: str) -> Consumer:
    consumer = kafka_client(Consumer, reader_options(settings.broker))
    consumer.assign(
        [
            TopicPartition(topic, partition, OFFSET_BEGINNING)
            for partition in range(settings.topics.partitions)
        ]
    )
    return consumer


def _marks_sent(settings: config.Settings) -> dict[str, float]:
    """Wall clock in seconds at which each mark was sent, by the mark's time."""
    sent: dict[str, float] = {}
    decoder = msgspec.json.Decoder(Mark)
    for message in read_to_end(settings.broker, settings.topics.clickstream, [0]):
        if message.key() is None and (value := message.value()):
            with suppress(msgspec.DecodeError):
                mark = decoder.decode(value)
                wall_ms = milliseconds(datetime.fromisoformat(mark.sentAt))
                sent[mark.timestamp] = wall_ms / 1_000
    return sent
