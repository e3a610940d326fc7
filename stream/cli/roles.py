"""Wires the roles from real parts and keeps them going until they are told to stop.

Comes in: settings and an event that means stop. Goes out: a running activity worker, trainer or
publisher, with its own store connection and its own health endpoint.
"""

from __future__ import annotations

import gc
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Event

from consumers.activity import ActivityWorker
from consumers.output import Output
from consumers.owner import StateLostError
from consumers.rejects import TooManyRejectsError
from consumers.topic_watch import TopicReplacedError
from producers import topics as topic_plans
from producers.models import ModelAnnouncer
from producers.outbox import OutboxPublisher, changes_outlet
from producers.rejects import DeadLetters
from stream import fitness
from stream.config import ConfigError, Settings
from stream.errors import BrokerUnavailableError
from stream.health import Health, HealthServer
from stream.learning.rounds import warm_up
from stream.marks import MarkSigner
from stream.metrics import REGISTRY
from stream.namespace import see_namespace, see_partitions
from stream.roles.leader import Leader, lead
from stream.roles.registry import Role
from stream.store.promises import Namespace
from stream.store.redis import RedisStore, connect
from stream.supervise import keep_going
from stream.trainer import Trainer

log = logging.getLogger(__name__)

IDLE_SECONDS = {"watermark": 0.002, "live": 0.05}
"""How long a trainer waits between two looks for a due round: owners wait for it at a mark."""
SILENCE_SECONDS = 60.0
"""A role whose loop has not turned for this long is no longer alive."""


@contextmanager
def open_store(settings: Settings, *, serving: bool = False) -> Iterator[RedisStore]:
    """A store connection of one's own.

    Args:
        serving: for a role, which does not start where its state would not be safe.

    Raises:
        StoreRefusedError: it would not be.
        ConfigError: the settings are not those of the namespace.
        StoreUnavailableError: whether it would be cannot be asked: there is no answer.
    """
    client = connect(settings.store.url, settings.store.timeout_seconds)
    if serving:
        fitness.require(client)
    store = RedisStore(
        client,
        namespace=settings.store.namespace,
        partitions=settings.topics.partitions,
        outbox_cap=settings.store.outbox_cap,
        namespace_key=settings.store.namespace_key,
    )
    try:
        if serving:
            see_partitions(settings, store.partitions())
        else:
            see_namespace(settings, store)
        yield store
    finally:
        store.close()


def once(settings: Settings) -> Callable[[Namespace], None]:
    """Compares the input topics with the settings until it has succeeded, and never again."""
    done = False

    def call(store: Namespace) -> None:
        nonlocal done
        if not done:
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


def activity(settings: Settings, stop: Event, health: Health) -> None:
    """One activity worker."""

    def work() -> None:
        # A member of a KIP-848 group is told nothing of a topic that is not there: it would wait
        # in silence.
        if absent := topic_plans.missing(settings):
            raise BrokerUnavailableError(
                f"{', '.join(absent)}: no such topic on {settings.broker.bootstrap}; "
                "`segstream topics apply` makes it"
            )
        with open_store(settings, serving=True) as store:
            worker = ActivityWorker(
                settings, store, DeadLetters(settings), Output(settings), health, pulse
            )
            worker.run(stop.is_set)

    # Decoding makes and drops thousands of objects a batch, none in cycles; the collector would
    # walk every user's name each time it is set off by them.
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    pulse = health.alive("activity", SILENCE_SECONDS)
    keep_going("activity", work, stop, health, pulse)


def trainer(settings: Settings, stop: Event, health: Health) -> None:
    """One trainer; it stands by while another leads."""
    warm_up()
    _lead(
        "trainer",
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
        lambda store: OutboxPublisher(
            settings, store, Output(settings), changes_outlet(settings)
        ),
        0.0,
        settings, stop, health,
    )  # fmt: skip


def _lead(
    role: str,
    build: Callable[[RedisStore], Leader],
    idle_seconds: float,
    settings: Settings,
    stop: Event,
    health: Health,
) -> None:
    """A role of which one leads, on a store of its own; see `stream.roles.leader.lead`."""
    see_topics = once(settings)
    pulse = health.alive(role, SILENCE_SECONDS)

    def alive() -> None:
        pulse.beat()
        health.ready(True, part=role)

    def work() -> None:
        with open_store(settings, serving=True) as store:
            see_topics(store)
            lead(build(store), stop, alive, idle_seconds)

    keep_going(role, work, stop, health, pulse)


ROLES: dict[str, Role] = {
    role.name: role
    for role in (
        Role(
            "activity",
            "An activity worker: owns partitions, folds events, moves users.",
            activity,
            demo_processes=2,
            errors=(StateLostError, TopicReplacedError, TooManyRejectsError),
        ),
        Role("trainer", "The trainer: learns the model. A second one stands by.", trainer),
        Role("publisher", "The publisher: delivers changes. A second one stands by.", publisher),
    )
}


def run(settings: Settings, names: list[str], stop: Event) -> None:
    """Run roles in this process, each in a thread of its own, until told to stop.

    Raises:
        ConfigError: the address of the metrics cannot be listened on.
        Exception: the first error of a role that does not pass by itself; the others are stopped.
    """
    failures: list[Exception] = []
    health = Health()

    def guarded(role: Role) -> None:
        try:
            role.run(settings, stop, health)
        except Exception as error:  # noqa: BLE001 - raised again below, in the main thread
            failures.append(error)
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
    with server:
        threads = [
            threading.Thread(target=partial(guarded, ROLES[name]), name=name, daemon=True)
            for name in names
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.5)
    if failures:
        raise failures[0]


def stop_on_signals() -> Event:
    """An event that SIGINT and SIGTERM set; a second signal ends the process at once."""
    stop = Event()

    def handle(number: int, frame: object) -> None:
        del frame
        if stop.is_set():
            raise SystemExit(128 + number)
        stop.set()

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
    return stop
