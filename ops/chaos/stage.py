"""Sets the stage: real Kafka, real Redis, every role as a process, a proxy between them.

Comes in: a mode. Goes out: a running `Stage`, whose servers and roles can be killed, frozen and
started again. The roles reach the broker and the store through the proxy, each role the store by a
link of its own; the traffic and the judge reach the servers directly.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, NamedTuple, Self

from confluent_kafka import Consumer, TopicPartition

from consumers.client import reader_options
from ops.chaos.past import StoreWithPast
from ops.chaos.plan import BROKER, BROKER_LINKS, ROLES
from ops.chaos.proxy import Proxy
from ops.chaos.traffic import SHOP_HOURS_A_SECOND
from ops.kafka.server import RealKafka
from producers import topics as topic_plans
from stream import config_layers
from stream.config import Settings
from stream.features import DEFAULT_FEATURES, Feature
from stream.servers import free_port, freeze, redis_binary

Mode = Literal["live", "marks"]

ROOT = Path(__file__).parents[2]
PARTITIONS = 4
END_SECONDS = 40.0
START_SECONDS = 60.0
AT_WORK = "serving /metrics"
"""What a role says once it handles signals; one that does not yet dies of the wish that it end."""
LOOK_SECONDS = 0.1
LAST_WORDS = 600

# A decayed sum with this half-life never decays: 2 to the power of a year over it is 1.
FOR_EVER = 1e25
EXACT = tuple(
    Feature.model_validate({"half_life": FOR_EVER, "weight": 0.0} | declared)
    for declared in (
        {"name": "orders_ever", "aggregate": "count", "on": ["Order Completed"]},
        {"name": "views_ever", "aggregate": "count", "on": ["Product Viewed"]},
        {"name": "ordered_ever", "aggregate": "sum", "on": ["Order Completed"], "of": "value"},
    )
)
"""Features without weight whose values are exact: whole numbers, and nothing fades."""


class ChaosError(Exception):
    """The run cannot go on; the message says why."""


def settings_for(mode: Mode, bootstrap: str, store_url: str) -> Settings:
    """The shipped settings, but for a pipeline in which much happens in a minute."""
    own = f"chaos-{secrets.token_hex(4)}"
    by_marks = mode == "marks"
    return Settings.model_validate(
        {
            "broker": {"bootstrap": bootstrap, "group": own, "session_timeout_seconds": 3.0},
            "topics": {"partitions": PARTITIONS, "input_retention_seconds": 0.0},
            "store": {
                "url": store_url,
                "namespace": own,
                # A store that loses everything would lose the key of the marks in the log as well.
                "namespace_key": secrets.token_hex(32),
                "timeout_seconds": 2.0,
                "accept_loss": True,
            },
            "clock": {
                "mode": "watermark" if by_marks else "live",
                "mark_seconds": SHOP_HOURS_A_SECOND * 3_600.0,
            },
            # To load the compiled decoder takes each process longer than it would save in a minute.
            "worker": {"decoder": "plain", "sweep_seconds": 1.0},
            # Refits every few seconds and hardly any margin: as many changes as can be had.
            "learning": {
                "segments": 6,
                "sample_users": 500,
                "first_model_users": 100,
                "refit_seconds": 6 * 3_600.0 if by_marks else 6.0,
                "move_threshold": 0.01,
            },
            "publish": {"margin": 0.02, "silence_margin": 0.02, "provisional_looks": 1},
            # What is on its way to the output is waited for after each roll-back: for so long.
            "publisher": {"lease_seconds": 2.0, "deliver_seconds": 1.0},
            "features": [*DEFAULT_FEATURES, *EXACT],
        }
    )


class RoleProcess:
    """One role as a process, started again as often as wanted; all lives share a log."""

    def __init__(self, name: str, arguments: list[str], log: Path) -> None:
        self.name = name
        self.log = log
        self._asked = False
        self._said_before = 0
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def wanted(self) -> bool:
        """Whether it was started and nobody ended it."""
        return self._process is not None

    @property
    def at_work(self) -> bool:
        """Whether it runs, and is beyond its start."""
        return self.running and AT_WORK in self.said()[self._said_before :]

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it; nothing if it runs."""
        if self.running:
            return
        kept = {k: v for k, v in os.environ.items() if not k.startswith("SEGSTREAM_")}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "stream", *self._arguments],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=kept | {"COLUMNS": "1000", "NO_COLOR": "1"},
                start_new_session=True,
            )
            self._asked = False
            self._said_before = len(self.said())

    def kill(self) -> None:
        """As a crash: at once, wherever it is."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def end(self) -> int | None:
        """Ask it to end, and wait; its exit code, None if it had to be killed or did not run."""
        self.ask_to_end()
        process, self._process = self._process, None
        if process is None:
            return None
        try:
            return process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return None

    def ask_to_end(self) -> None:
        """Ask once: a second signal would end it at once."""
        if self._process is not None and self.running and not self._asked:
            self._process.terminate()
            self._asked = True

    def freeze(self) -> None:
        """Stop it where it is; nothing if it does not run."""
        if self._process is not None and self.running:
            freeze(self._process)

    def thaw(self) -> None:
        if self._process is not None and self.running:
            self._process.send_signal(signal.SIGCONT)

    def say_where(self) -> None:
        """Have it write where each of its threads is into its log."""
        if self._process is not None and self.running:
            self._process.send_signal(signal.SIGUSR1)

    def last_words(self) -> str:
        """The end of its log in one line, as far as it is worse than information."""
        lines = [line for line in self.said().splitlines() if '"level": "INFO"' not in line]
        return " ".join(" ".join(lines)[-LAST_WORDS:].split())

    def said(self) -> str:
        """Everything it printed, in all its lives."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class _Listener(NamedTuple):
    """A port at which the broker listens, and the one at which it says it does: the proxy's."""

    listens: int
    advertised: int


class Stage:
    """Servers, roles and the proxy; a context manager that leaves no process behind.

    Attributes:
        settings: as the judge and the traffic need them: the servers' own addresses.
        directory: settings, logs of the roles; deleted at the end if `keep` says so.
        fell: roles that ended although nobody ended them, or not well when asked, in words.
    """

    def __init__(self, mode: Mode) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="segstream-chaos-"))
        self.fell: list[str] = []
        self.proxy = Proxy()
        self._mode: Mode = mode
        self._stack = ExitStack()
        direct, controller, store = (free_port() for _ in range(3))
        self._listeners = {name: _Listener(free_port(), free_port()) for name in BROKER_LINKS}
        self.store = StoreWithPast(binary=redis_binary(), port=store)
        self.broker = RealKafka(
            port=direct, properties=self._broker_properties(direct, controller), heap="400m"
        )
        self.settings = settings_for(mode, self.broker.bootstrap, self.store.url)
        self.roles: dict[str, RoleProcess] = {}

    def _broker_properties(self, direct: int, controller: int) -> dict[str, str]:
        """A direct listener, and for each name of roles one that says it is where the proxy is."""
        here = "127.0.0.1"
        listeners = [f"PLAINTEXT://{here}:{direct}", f"CONTROLLER://{here}:{controller}"]
        advertised = [f"PLAINTEXT://{here}:{direct}"]
        protocols = ["PLAINTEXT:PLAINTEXT", "CONTROLLER:PLAINTEXT"]
        for name, listener in self._listeners.items():
            listeners.append(f"{name.upper()}://{here}:{listener.listens}")
            advertised.append(f"{name.upper()}://{here}:{listener.advertised}")
            protocols.append(f"{name.upper()}:PLAINTEXT")
        return {
            "listeners": ",".join(listeners),
            "advertised.listeners": ",".join(advertised),
            "listener.security.protocol.map": ",".join(protocols),
            "controller.quorum.voters": f"1@{here}:{controller}",
            # The judge reads every model there was.
            "log.cleaner.enable": "false",
        }

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self._end_everything)
            stack.enter_context(self.proxy)
            for name, listener in self._listeners.items():
                self.proxy.link(BROKER_LINKS[name], listener.advertised, listener.listens)
            self.broker.start()
            self.store.start()
            if problems := topic_plans.apply(self.settings, create=True):
                raise ChaosError(f"topics could not be made: {problems}")
            file = self.directory / "shop.toml"
            file.write_text(config_layers.as_file(self.settings))
            for name in ROLES:
                self.roles[name] = self._role(name, file)
                self.roles[name].start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def _role(self, name: str, file: Path) -> RoleProcess:
        """A role that finds the servers where the proxy is."""
        port, what = free_port(), name.partition("-")[0]
        self.proxy.link(name, port, self.store.port)
        proxied = {
            "broker.bootstrap": f"127.0.0.1:{self._listeners[what].advertised}",
            "store.url": f"redis://127.0.0.1:{port}/0",
        }
        flags = [part for key, to in proxied.items() for part in ("--set", f"{key}={to}")]
        arguments = ["-c", str(file), *flags, "-v", "run", what]
        return RoleProcess(name, arguments, self.directory / f"{name}.log")

    def pass_time(self, seconds: float) -> None:
        """Wait, and meanwhile start again whatever ended by itself, as a supervisor would."""
        deadline = time.monotonic() + seconds
        while True:
            self._supervise()
            left = deadline - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, LOOK_SECONDS))

    def freeze_server(self, name: str) -> None:
        (self.broker if name == BROKER else self.store).pause()

    def thaw_server(self, name: str) -> None:
        (self.broker if name == BROKER else self.store).resume()

    def end_roles(self, *names: str) -> None:
        """Ask some roles to end, all at once, and wait until they have."""
        grown = [name for name in names if self.roles[name].at_work]
        for name in names:
            self.roles[name].ask_to_end()
        codes = {name: self.roles[name].end() for name in names}
        self.fell += [f"{name} ended with {codes[name]}" for name in grown if codes[name] != 0]

    def let_start(self) -> None:
        """Wait until every role is beyond its start, or for long enough."""
        deadline = time.monotonic() + START_SECONDS
        while not all(role.at_work for role in self.roles.values()):
            if time.monotonic() > deadline:
                return
            self.pass_time(LOOK_SECONDS)

    def input_ends(self) -> list[list[int]]:
        """For each partition the offset behind the last message of each input topic."""
        topics = self.settings.topics
        reader = Consumer(reader_options(self.settings.broker))
        try:
            return [
                [
                    reader.get_watermark_offsets(TopicPartition(topic, number), timeout=30.0)[1]
                    for topic in topics.inputs
                ]
                for number in range(topics.partitions)
            ]
        finally:
            reader.close()

    def _supervise(self) -> None:
        for role in self.roles.values():
            if role.wanted and not role.running:
                self.fell.append(f"{role.name} ended by itself: {role.last_words()}")
                role.start()

    def _end_everything(self) -> None:
        for role in self.roles.values():
            role.kill()
        for server in (self.store, self.broker):
            server.close()
