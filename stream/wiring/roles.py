"""Wires the roles from real parts and keeps them going until they are told to stop.

Comes in: settings and an event that means stop. Goes out: running roles, each with its own store connection,
and the health of their process. `ROLES` declares them; the command, the demo and the topic plan follow it.
"""

from __future__ import annotations

import faulthandler
import gc
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from functools import partial
from threading import Event
from typing import TypeVar

import redis

from consumers.activity import ActivityWorker
from consumers.campaigns import CAMPAIGNS
from consumers.output import Output
from consumers.owner import StateLostError
from consumers.rejects import TooManyRejectsError
from consumers.role import OwningRole, RoleWorker
from consumers.topic_watch import TopicReplacedError
from producers import topics as topic_plans
from producers.models import ModelAnnouncer
from producers.outbox import OutboxPublisher, changes_outlet
from producers.rejects import DeadLetters
from stream import fitness, metrics
from stream.config import ConfigError, Settings
from stream.errors import BrokerUnavailableError
from stream.health import Health, HealthServer
from stream.learning.rounds import warm_up
from stream.marks import MarkSigner
from stream.metrics import REGISTRY
from stream.namespace import CurrencyNews, in_currency, see_namespace, see_partitions
from stream.rights import OWNER, RIGHTS
from stream.roles.leader import Leader, lead
from stream.roles.outlet import Outlet
from stream.roles.redis import RedisRoleStore
from stream.roles.registry import Part, Role
from stream.store.redis import RedisStore, connect_store
from stream.supervise import keep_going
from stream.trainer import Trainer
from stream.wiring import api, campaign_effects, webhooks

log = logging.getLogger(__name__)
_StoreT = TypeVar("_StoreT")

IDLE_SECONDS = {"watermark": 0.002, "live": 0.05}
"""How long a trainer waits between two looks for a due round: owners wait for it at a mark."""
OTHER_ERROR = "other"
"""In metrics, an error that a role does not declare."""
MEASURE_SECONDS = 10.0
"""Between two looks at the memory of the store's server."""
TELL_SECONDS = 60.0
"""Between two looks at all partitions of a role; what is told of them hardly changes faster."""
BEAT_SECONDS = 1.0
SILENCE_SECONDS = 60.0
"""A role whose loop has not turned for this long is no longer alive."""


def store_of(settings: Settings) -> RedisStore:
    """A store that nothing has been asked of yet.

    Raises:
        ConfigError: its address means nothing.
    """
    return RedisStore(
        connect_store(settings.store),
        namespace=settings.store.namespace,
        partitions=settings.topics.partitions,
        outbox_cap=settings.store.outbox_cap,
        namespace_key=settings.store.namespace_key,
    )


@contextmanager
def open_store(settings: Settings, *, serving: bool = False) -> Iterator[RedisStore]:
    """A new connection to the store.

    Args:
        serving: for a role: it does not start where its state would not be safe.

    Raises:
        StoreRefusedError: its state would not be safe.
        ConfigError: the settings are not those of the namespace.
        StoreUnavailableError: the store does not answer.
    """
    store = store_of(settings)
    try:
        if serving:
            with closing(connect_store(settings.store)) as client:
                fitness.require(client)
            see_partitions(settings, store.partitions())
        else:
            see_namespace(settings, store)
        yield store
    finally:
        store.close()


def role_store_of(settings: Settings, role: str) -> RedisRoleStore:
    """The store of a role that owns partitions, that nothing has been asked of yet.

    Raises:
        ConfigError: its address means nothing.
    """
    return RedisRoleStore(
        connect_store(settings.store),
        role,
        namespace=settings.store.namespace,
        partitions=settings.topics.partitions,
        outbox_cap=settings.store.outbox_cap,
    )


@contextmanager
def open_role_store(
    settings: Settings, role: str, *, serving: bool = True
) -> Iterator[RedisRoleStore]:
    """The store of a role that owns partitions, on a connection of its own.

    Args:
        serving: see `open_store`.

    Raises:
        StoreRefusedError, ConfigError, StoreUnavailableError: as `open_store`.
    """
    # Checks the server and the namespace, which are the same for every role.
    with open_store(settings, serving=serving):
        pass
    store = role_store_of(settings, role)
    try:
        yield store
    finally:
        store.close()


def once(settings: Settings) -> Callable[[], None]:
    """Compares the input topics with the settings until it has succeeded, and never again."""
    done = False

    def call() -> None:
        nonlocal done
        if not done:
            with open_store(settings) as store:
                topic_plans.see_partitions(settings, store.partitions())
            done = True

    return call


def mark_signer(settings: Settings) -> MarkSigner | None:
    """Signs marks for the namespace of these settings; None where there are none to be written.

    Raises:
        StoreUnavailableError: the secret is the store's, and it does not answer.
    """
    if settings.clock.mode != "watermark":
        return None
    with open_store(settings) as store:
        return MarkSigner(store.namespace_key())


def _see_topics(settings: Settings, names: Sequence[str]) -> None:
    """See that topics are there.

    A member of a KIP-848 group is not told that a topic is missing: it would wait in silence.

    Raises:
        BrokerUnavailableError: one of them is missing.
    """
    if absent := topic_plans.missing(settings, names):
        raise BrokerUnavailableError(
            f"{', '.join(absent)}: no such topic on {settings.broker.bootstrap}; "
            "`segstream topics apply` makes it"
        )


def activity(settings: Settings, stop: Event, health: Health) -> None:
    """One activity worker."""

    def work() -> None:
        _see_topics(settings, _activity_topics(settings))
        with open_store(settings, serving=True) as store:
            worker = ActivityWorker(
                settings, store, DeadLetters(settings), Output(settings), health, pulse
            )
            worker.run(stop.is_set)

    # Decoding makes and drops thousands of objects a batch, none of them in cycles. Each time they start
    # the collector, it would walk every user's name.
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    metrics.partitions_declared(settings.topics.partitions)
    pulse = health.alive("activity", SILENCE_SECONDS)
    keep_going("activity", work, stop, health, pulse)


def trainer(settings: Settings, stop: Event, health: Health) -> None:
    """One trainer; it stands by while another leads."""
    warm_up()
    _lead(
        "trainer",
        partial(open_store, settings, serving=True),
        lambda store: Trainer(
            settings, store, ModelAnnouncer(settings), Output(settings).announced
        ),
        IDLE_SECONDS[settings.clock.mode],
        settings, stop, health,
    )  # fmt: skip


def publisher(settings: Settings, stop: Event, health: Health) -> None:
    """One publisher; it stands by while another leads."""
    # A step waits for changes by itself.
    _lead(
        "publisher",
        partial(open_store, settings, serving=True),
        lambda store: OutboxPublisher(
            settings, store, Output(settings), changes_outlet(settings)
        ),
        0.0,
        settings, stop, health,
    )  # fmt: skip


def measure(client: redis.Redis) -> None:
    """Tell how full the store's server is, if this user may know.

    Raises:
        StoreUnavailableError: it does not answer.
    """
    if (memory := fitness.memory(client)) is not None:
        metrics.store_measured(memory.used, memory.limit, memory.evicted)


def _lead(
    role: str,
    opened: Callable[[], AbstractContextManager[_StoreT]],
    build: Callable[[_StoreT], Leader],
    idle_seconds: float,
    settings: Settings,
    stop: Event,
    health: Health,
) -> None:
    """A role of which one leads, on a store of its own; see `stream.roles.leader.lead`."""
    see_topics = once(settings)
    pulse = health.alive(role, SILENCE_SECONDS)

    def work() -> None:
        with closing(connect_store(settings.store)) as client:
            # Before anything is written: a full store refuses that, and then this alone tells why.
            measure(client)
            measured = time.monotonic()

            def alive() -> None:
                nonlocal measured
                pulse.beat()
                health.ready(True, part=role)
                if time.monotonic() - measured >= MEASURE_SECONDS:
                    measured = time.monotonic()
                    measure(client)

            with opened() as store:
                see_topics()
                lead(build(store), stop, alive, idle_seconds)

    keep_going(role, work, stop, health, pulse)


def _activity_topics(settings: Settings) -> Sequence[str]:
    topics = settings.topics
    return [*topics.inputs, topics.changes, *map(topics.dlq, topics.inputs)]


SECTIONS = ("broker", "topics", "store", "metrics", "log")
"""Settings that every role reads."""

ROLES: dict[str, Role] = {
    role.name: role
    for role in (
        Role(
            "activity",
            "An activity worker: owns partitions, folds events, moves users.",
            (activity,),
            topics=_activity_topics,
            settings=(
                "clock",
                "worker",
                "money",
                "learning",
                "publish",
                "publisher",
                "features",
                "reviews",
                "populations",
                "levels",
            ),
            rights=RIGHTS["activity"],
            replicas=2,
            errors=(StateLostError, TopicReplacedError, TooManyRejectsError),
        ),
        Role(
            "trainer",
            "The trainer: learns the model. A second one stands by.",
            (trainer,),
            topics=lambda settings: [settings.topics.models],
            settings=(
                "clock",
                "learning",
                "scoring",
                "publish",
                "publisher",
                "features",
                "populations",
                "kinds",
                "scores",
                "levels",
            ),
            rights=RIGHTS["trainer"],
        ),
        Role(
            "publisher",
            "The publisher: delivers changes. A second one stands by.",
            (publisher,),
            topics=lambda settings: [settings.topics.changes],
            outlets=lambda settings: [changes_outlet(settings)],
            settings=("publisher",),
            rights=RIGHTS["publisher"],
        ),
    )
}


def register(role: Role) -> None:
    """Add a role, before the command line is made."""
    ROLES[role.name] = role


def owning(
    role: OwningRole,
    settings: tuple[str, ...] = (),
    replicas: int = 1,
    wanted: Callable[[Settings], bool] = lambda _: True,
    opened: Callable[[Settings], AbstractContextManager[OwningRole]] | None = None,
    tell: Callable[[Settings, RedisRoleStore], None] | None = None,
) -> Role:
    """A role that owns partitions, with the publisher that empties its outbox beside it.

    Args:
        settings: sections that its decisions read.
        wanted: whether settings have anything for it to do.
        opened: the role with what it needs while it runs; as it is declared unless this is said.
        tell: tells, every `TELL_SECONDS`, what only all partitions together say.
    """

    def work(settings: Settings, stop: Event, health: Health) -> None:
        pulse = health.alive(role.name, SILENCE_SECONDS)

        def attempt() -> None:
            _see_topics(settings, topics(settings))
            with open_store(settings) as known:
                secret = known.namespace_key()
                agreed = in_currency(settings, known.currency())
                news = CurrencyNews(agreed, known.currency)
                running = nullcontext(role) if opened is None else opened(settings)
                with open_role_store(settings, role.name) as store, running as role_here:
                    output = _output_of(settings, role)
                    worker = RoleWorker(
                        role_here, agreed, store, output, health, pulse, secret=secret
                    )
                    worker.run(lambda: stop.is_set() or news.came())

        def work_on() -> None:
            while not stop.is_set():
                attempt()

        keep_going(role.name, work_on, stop, health, pulse)

    def publish(settings: Settings, stop: Event, health: Health) -> None:
        (outlet,) = outlets_of(settings)
        _lead(
            f"{role.name} publisher",
            partial(open_role_store, settings, role.name),
            lambda store: OutboxPublisher(settings, store, _output_of(settings, role), outlet),
            0.0,
            settings, stop, health,
        )  # fmt: skip

    def tell_of_all(settings: Settings, stop: Event, health: Health) -> None:
        assert tell is not None
        part = f"{role.name} as a whole"
        pulse = health.alive(part, SILENCE_SECONDS)

        def attempt() -> None:
            with open_role_store(settings, role.name) as store:
                told = -TELL_SECONDS
                while not stop.wait(BEAT_SECONDS):
                    pulse.beat()
                    if time.monotonic() - told >= TELL_SECONDS:
                        told = time.monotonic()
                        tell(settings, store)
                        health.ready(True, part=part)

        keep_going(part, attempt, stop, health, pulse)

    def outlets_of(settings: Settings) -> Sequence[Outlet]:
        return [] if role.outlet is None else [role.outlet(settings)]

    def topics(settings: Settings) -> Sequence[str]:
        return [*role.reads(settings), *(outlet.topic for outlet in outlets_of(settings))]

    parts = [work]
    if role.outlet is not None:
        parts.append(publish)
    if tell is not None:
        parts.append(tell_of_all)
    return Role(
        role.name,
        role.meaning,
        tuple(parts),
        topics=topics,
        outlets=outlets_of,
        settings=("clock", "worker", "publisher", *settings),
        rights=RIGHTS.get(role.name, OWNER),
        replicas=replicas,
        errors=(StateLostError, TopicReplacedError),
        wanted=wanted,
    )


def _output_of(settings: Settings, role: OwningRole) -> Output:
    outlet = None if role.outlet is None else role.outlet(settings)
    return Output(settings) if outlet is None else Output(settings, outlet.topic, [outlet.kind])


register(
    owning(
        CAMPAIGNS,
        settings=("campaigns", "campaign_limits"),
        wanted=lambda settings: bool(settings.campaigns),
        tell=campaign_effects.tell,
    )
)
register(
    owning(
        webhooks.WEBHOOKS,
        settings=("endpoints", "webhooks"),
        wanted=lambda settings: bool(settings.endpoints),
        opened=webhooks.opened,
    )
)


def _see_that_it_may_start(settings: Settings) -> None:
    with open_store(settings, serving=True):
        pass


register(
    Role(
        "api",
        "The API: facts of users, segments, changes and campaigns over HTTP.",
        (api.part(api.Opened(_see_that_it_may_start, store_of, role_store_of)),),
        topics=lambda settings: [settings.topics.changes, settings.topics.control],
        settings=("api", "clock", "worker", "learning", "features", "kinds", "campaigns"),
        rights=RIGHTS["api"],
        wanted=lambda settings: bool(settings.api.clients),
        by_name=True,
    )
)


def wanted(settings: Settings) -> list[Role]:
    """The roles that have anything to do."""
    return [role for role in ROLES.values() if role.wanted(settings)]


def outlets(settings: Settings) -> list[Outlet]:
    """The outlets of the roles that have anything to do."""
    return [outlet for role in wanted(settings) for outlet in role.outlets(settings)]


def failure_name(role: Role, error: Exception) -> str:
    """The declared error of a role that this is, by its name, or ``other``."""
    return next((kind.__name__ for kind in role.errors if isinstance(error, kind)), OTHER_ERROR)


def run(settings: Settings, names: list[str], stop: Event) -> None:
    """Run roles in this process, each in a thread of its own, until told to stop.

    Raises:
        ConfigError: the address of the metrics cannot be listened on.
        Exception: the first error of a role that does not pass by itself; the others are stopped.
    """
    failures: list[Exception] = []
    health = Health()

    def guarded(role: Role, part: Part) -> None:
        try:
            part(settings, stop, health)
        except Exception as error:  # noqa: BLE001 - raised again below, in the main thread
            failures.append(error)
            health.ready(False, str(error), part=role.name)
            metrics.role_failed(role.name, failure_name(role, error))
        finally:
            stop.set()

    host, port = settings.metrics.host, settings.metrics.port
    try:
        server = HealthServer(health, REGISTRY, host=host, port=port)
    except OSError as error:
        raise ConfigError(
            f"metrics.port = {port}: {host}:{port} cannot be listened on ({error.strerror}); "
            "give each process a port of its own, or 0 for a free one"
        ) from None
    metrics.roles_told_by(lambda: health.parts(names))
    with server:
        threads = [
            threading.Thread(target=partial(guarded, ROLES[name], part), name=name, daemon=True)
            for name in names
            for part in ROLES[name].parts
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.5)
        if failures:
            # Until it was scraped; a second signal ends it at once.
            Event().wait(settings.metrics.linger_seconds)
    if failures:
        raise failures[0]


def stop_on_signals() -> Event:
    """An event that SIGINT and SIGTERM set; a second signal ends the process at once.

    SIGUSR1 writes where each thread is to stderr: for whoever wants to know what a role waits for.
    """
    stop = Event()

    def handle(number: int, frame: object) -> None:
        del frame
        if stop.is_set():
            raise SystemExit(128 + number)
        stop.set()

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
    faulthandler.register(signal.SIGUSR1, file=sys.__stderr__ or sys.stderr)
    return stop
