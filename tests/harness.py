"""Runs the pipeline as it runs in a shop: roles as processes, real broker, real store.

Comes in: settings, and the history of a real shop. Goes out: `Pipeline`, whose roles can be killed,
frozen and ended at moments of the test's choosing, and `Outcome`, everything it came to: users,
models and changes, comparable whole.

Nothing here sleeps to pass: a test waits for a position of the pipeline, with a deadline, and
fails with the last words of the roles when it passes.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
import redis

from consumers.audit.report import AuditReport, explain
from consumers.audit.run import audit
from consumers.client import read_to_end
from producers import topics as topic_plans
from producers.mapping import load_mapping
from producers.replay import ReplayReport, replay
from stream import config_layers
from stream.config import Settings
from stream.errors import BrokerUnavailableError
from stream.events import CHANGED, LEVEL_CHANGED, LINEAGE
from stream.learning.state import TrainerState
from stream.marks import MarkSigner
from stream.servers import freeze
from stream.store.redis import RedisStore, connect_store
from stream.store.state import Position, StoreUnavailableError, key_of

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"
ONLINE_RETAIL = "online_retail_uk.csv.gz"
TAOBAO = "taobao_behavior_9days.csv.gz"
SPRING = datetime(2011, 5, 1, tzinfo=UTC)
"""End of the first five months: 7,149 events, 2,488 users, 151 marks."""
PARTITIONS = 4
DEADLINE_SECONDS = 120.0
"""Far above what anything here takes: a deadline only has to be shorter than patience."""
POLL_SECONDS = 0.01
LAST_WORDS = 2_000
WIDE = {"COLUMNS": "1000", "NO_COLOR": "1"}
"""Messages on one line, whatever terminal the tests run in."""

Sections: TypeAlias = dict[str, Any]
"""Sections, each with its settings; or what is declared in a list, such as levels."""
COMPILED: Sections = {"worker": {"decoder": "auto"}}
"""The compiled decoder, where it is installed."""


# -- settings ----------------------------------------------------------------------------------


def watermark_settings(
    bootstrap: str, store_url: str, *layers: Sections, inputs: tuple[str, str] | None = None
) -> Settings:
    """Settings in watermark mode with names that nobody else uses.

    Args:
        bootstrap: the broker.
        store_url: the store.
        layers: sections over the ones here, the later over the earlier.
        inputs: input topics that exist already, filled by somebody else.
    """
    own = f"t{secrets.token_hex(6)}"
    clickstream, purchases = inputs or (f"{own}-clickstream", f"{own}-purchases")
    merged: Sections = {
        "broker": {"bootstrap": bootstrap, "group": own, "session_timeout_seconds": 2.0},
        "topics": {
            "clickstream": clickstream,
            "purchases": purchases,
            "changes": f"{own}-changes",
            "models": f"{own}-models",
            "triggers": f"{own}-triggers",
            "control": f"{own}-control",
            "partitions": PARTITIONS,
            "input_retention_seconds": 0.0,
            "changes_retention_seconds": 0.0,
        },
        # One key: whatever the namespace, the same log comes to the same models and ids.
        "store": {"url": store_url, "namespace": own, "namespace_key": "the tests'"},
        "clock": {"mode": "watermark", "mark_seconds": 86_400.0},
        # A sweep a day leaves time for a refit a week; leases short enough to wait for.
        "learning": {"refit_seconds": 7 * 86_400.0},
        "publisher": {"lease_seconds": 1.0},
        # To load the compiled one takes each process 0.6 s; `reference` does, and all must agree.
        "worker": {"decoder": "plain"},
    }
    for layer in layers:
        for name, section in layer.items():
            merged[name] = merged.get(name, {}) | section if isinstance(section, dict) else section
    return Settings.model_validate(merged)


def clean_environment() -> dict[str, str]:
    """The environment without settings of whoever runs the tests."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SEGSTREAM_")}
    return kept | WIDE


# -- processes ---------------------------------------------------------------------------------


class Role:
    """A role as a process of its own; see `Pipeline.start`."""

    def __init__(self, name: str, number: int, config: Path, program: str) -> None:
        self.name = name
        self.expected = True
        """Whether it is meant to run; a role that ends without being told to fails the test."""
        self._log = config.parent / f"{name}-{number}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", program, "-c", str(config), "-v", "run", name],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=clean_environment(),
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def said(self, text: str = "") -> str:
        """What it printed so far, or only the lines with a text in them."""
        lines = map(_readable, self._log.read_text(errors="replace").splitlines())
        return "\n".join(line for line in lines if text in line)

    def kill(self) -> None:
        """As a crash: at once, wherever it is."""
        self.expected = False
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        freeze(self._process)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self, seconds: float = 30.0) -> int:
        """Ask it to end; returns its exit code."""
        self.expected = False
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(seconds)

    def exit_code(self, seconds: float = 30.0) -> int:
        """Wait until it ends by itself."""
        self.expected = False
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} still runs\n{self.said()[-LAST_WORDS:]}") from None


def _readable(line: str) -> str:
    """A line of a role's log, as it is or the words of a JSON record."""
    try:
        facts = json.loads(line)
        known = (facts["level"], facts["logger"], facts["message"], facts.get("exception", ""))
    except (ValueError, TypeError, KeyError):
        return line
    level, logger, message, exception = known
    return f"{level} {logger}: {message} {exception}".rstrip()


# -- what came out -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """Everything a run came to, times of the wall clock aside.

    Attributes:
        users: by name, a row's fields by name, as bytes.
        models: by epoch.version, the published record.
        changes: the records, by user and version.
        counts: what became of the messages, all partitions together.
        crossings: of limits of levels, as changes are.
    """

    users: dict[str, dict[str, bytes]]
    models: dict[str, dict[str, Any]]
    changes: list[dict[str, Any]]
    counts: dict[str, int]
    crossings: list[dict[str, Any]]

    def differences(self, other: Outcome) -> list[str]:
        """In words, the first of each sort; empty if the two are the same."""
        found: list[str] = []
        for name, here, there in (
            ("users", self.users, other.users),
            ("models", self.models, other.models),
            ("changes", _by_id(self.changes), _by_id(other.changes)),
            ("crossings", _by_id(self.crossings), _by_id(other.crossings)),
        ):
            unlike = [key for key in here if key in there and here[key] != there[key]]
            alone = sorted(set(here) ^ set(there))
            if unlike:
                found.append(f"{len(unlike)} {name} differ, such as {unlike[0]}")
            if alone:
                found.append(f"{len(alone)} {name} on one side only, such as {alone[0]}")
        if self.counts != other.counts:
            found.append(f"counts: {self.counts} and {other.counts}")
        return found

    def of_user(self, user: str) -> list[dict[str, Any]]:
        """A user's changes in order."""
        return [change for change in self.changes if change["user"] == user]


def _by_id(changes: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {change["id"]: change for change in changes}


# -- the pipeline ------------------------------------------------------------------------------


def _crowding() -> float:
    """How many have something to do for each core; 1 where there is one for everybody."""
    return max(os.getloadavg()[0] / (os.cpu_count() or 1), 1.0)


class Pipeline:
    """A pipeline of processes; a context manager that leaves none of them behind."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        self.settings = settings
        self.table = settings.table()
        self.roles: list[Role] = []
        directory.mkdir(parents=True, exist_ok=True)
        self.config = directory / "shop.toml"
        self.config.write_text(config_layers.as_file(settings))
        self.store = open_store(settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for role in self.roles:
            if role.running:
                role.kill()
        self.store.close()

    def start(self, *names: str, program: str = "stream") -> list[Role]:
        """Start roles: ``activity``, ``trainer``, ``publisher`` or ``all``; or those of a program."""
        started = [
            Role(name, number, self.config, program)
            for number, name in enumerate(names, len(self.roles))
        ]
        self.roles += started
        return started

    def create_topics(self) -> None:
        assert topic_plans.apply(self.settings, create=True) == []

    def replay(self, file: Path, mapping: str, until: datetime | None = None) -> ReplayReport:
        return replay(
            self.settings, file, load_mapping(mapping), signer_of(self.settings), until=until
        )

    # -- waiting ------------------------------------------------------------------------------

    def wait(
        self, what: str, condition: Callable[[], bool], seconds: float = DEADLINE_SECONDS
    ) -> None:
        """Until a condition holds.

        Args:
            seconds: of a machine of one's own: on one with three times as much to do as cores, three times as
                many pass before it is given up.

        Raises:
            AssertionError: the deadline has passed, or a role ended that was meant to run.
        """
        left, looked = seconds, time.monotonic()
        while not self._holds(condition):
            for role in self.roles:
                if role.expected and not role.running:
                    raise AssertionError(f"{role.name} ended\n{role.said()[-LAST_WORDS:]}")
            now = time.monotonic()
            left, looked = left - (now - looked) / _crowding(), now
            if left < 0:
                words = "\n".join(f"-- {r.name}\n{r.said()[-LAST_WORDS:]}" for r in self.roles)
                raise AssertionError(f"not within {seconds:.0f} s: {what}\n{words}")
            time.sleep(POLL_SECONDS)

    @staticmethod
    def _holds(condition: Callable[[], bool]) -> bool:
        try:
            return condition()
        except (StoreUnavailableError, BrokerUnavailableError, redis.RedisError):
            return False

    def positions(self) -> list[Position | None]:
        return [self.store.position(p) for p in range(self.settings.topics.partitions)]

    def mark(self) -> int:
        """The newest mark that every partition has completed."""
        return min(0 if p is None else p.mark_ms for p in self.positions())

    def wait_for_mark(self, mark_ms: int, seconds: float = DEADLINE_SECONDS) -> None:
        self.wait(f"mark {mark_ms}", lambda: self.mark() >= mark_ms, seconds)

    def done(self, last_mark_ms: int) -> bool:
        """Whether the last mark's round is over, its model adopted and every change delivered."""
        # What settles first is read first: a round that ends in between brings a model that a
        # partition read before it has yet to adopt.
        found = self.store.model()
        if found is None or found[0] < last_mark_ms:
            return False
        model = TrainerState.unpack(found[1]).model
        name = "" if model is None else model.name
        positions = self.positions()
        settled = all(
            p is not None and (p.mark_ms, p.model) == (last_mark_ms, name) for p in positions
        )
        return settled and not any(self.store.outbox_sizes(range(len(positions))))

    def finish(self, last_mark_ms: int, seconds: float = DEADLINE_SECONDS) -> None:
        """Wait until it is done, then end every role in good order."""
        self.wait("the end of the history", lambda: self.done(last_mark_ms), seconds)
        self.end()

    def end(self) -> None:
        """End every role that runs, all at once, each in good order."""
        running = [role for role in self.roles if role.running]
        for role in running:
            role.expected = False
            os.kill(role.pid, signal.SIGTERM)
        for role in running:
            assert role.exit_code(30.0) == 0, role.said()[-LAST_WORDS:]

    # -- asking -------------------------------------------------------------------------------

    def audit(self) -> AuditReport:
        return audit(self.settings, self.store)

    def token(self, partition: int) -> str:
        """Who owns a partition, from the store's own key."""
        key = self.store._key(partition, "meta")
        return str(self.store._client.hget(key, "token"))

    def changes(self) -> list[dict[str, Any]]:
        """Change records in topic order, as often as they were delivered."""
        return self._told(CHANGED)

    def crossings(self) -> list[dict[str, Any]]:
        """Records of levels, likewise."""
        return self._told(LEVEL_CHANGED)

    def lineage(self) -> list[dict[str, Any]]:
        """What became of segments, each once."""
        return list({record["id"]: record for record in self._told(LINEAGE)}.values())

    def _told(self, sort: str) -> list[dict[str, Any]]:
        topic = self.settings.topics.changes
        return [
            json.loads(value(message))
            for message in read_to_end(self.settings.broker, topic)
            if headers(message)["ce_type"] == sort
        ]

    def outcome(self) -> Outcome:
        """Everything that came out, read back.

        Raises:
            AssertionError: a model was announced twice and not the same.
        """
        users: dict[str, dict[str, bytes]] = {}
        counts: Counter[str] = Counter()
        for partition, position in enumerate(self.positions()):
            assert position is not None
            counts.update({k: getattr(position.counts, k) for k in _COUNTED})
            for user, raw in self.store.load(partition):
                row = np.frombuffer(raw, dtype=self.table.dtype)[0]
                fields = self.table.dtype.names or ()
                users[user.decode()] = {name: row[name].tobytes() for name in fields}
        models: dict[str, dict[str, Any]] = {}
        for message in read_to_end(self.settings.broker, self.settings.topics.models):
            model = json.loads(value(message))
            known = models.setdefault(model["model"], model)
            assert known == model, f"model {model['model']} was announced as two"
        changes, crossings = (
            sorted(told, key=lambda c: (c["user"], c["version"]))
            for told in (self.changes(), self.crossings())
        )
        return Outcome(users, models, changes, dict(counts), crossings)


_COUNTED = ("applied", "duplicate", "late", "ignored", "rejected", "clamped")


def value(message: Any) -> bytes:
    """A record's bytes; none for none."""
    found = message.value()
    return found.encode() if isinstance(found, str) else found or b""


def headers(message: Any) -> dict[str, str]:
    """A record's headers as text."""
    return {name: raw.decode() for name, raw in message.headers() or ()}


def signer_of(settings: Settings) -> MarkSigner:
    """Signs marks for every pipeline of these tests: they all have the same secret."""
    return MarkSigner(key_of(settings.store.namespace_key))


def open_store(settings: Settings) -> RedisStore:
    return RedisStore(
        connect_store(settings.store),
        namespace=settings.store.namespace,
        partitions=settings.topics.partitions,
        outbox_cap=settings.store.outbox_cap,
        namespace_key=settings.store.namespace_key,
    )


def assert_clean(report: AuditReport) -> None:
    """The audit found nothing, and lost and doubled nothing."""
    assert report.ok, "\n".join(explain(report))
    found = (report.lost, report.duplicated, report.pending)
    assert found == (0, 0, 0), f"lost, duplicated, pending: {found}\n" + "\n".join(explain(report))
    assert sum(report.backlog.values()) == 0


# -- histories ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class History:
    """A real shop's history on input topics that any number of pipelines may read.

    Attributes:
        inputs: clickstream and purchases.
        last_mark_ms: the mark after the last event.
        step_ms: from one mark to the next.
    """

    bootstrap: str
    inputs: tuple[str, str]
    report: ReplayReport
    last_mark_ms: int
    step_ms: int

    @property
    def first_mark_ms(self) -> int:
        assert self.report.first_event_ms is not None
        return (self.report.first_event_ms // self.step_ms + 1) * self.step_ms

    def mark(self, share: float) -> int:
        """The mark at a share of the history."""
        steps = (self.last_mark_ms - self.first_mark_ms) // self.step_ms
        return self.first_mark_ms + round(steps * share) * self.step_ms


@lru_cache
def history(bootstrap: str, file: str, mapping: str, until: datetime | None) -> History:
    """A file's history on topics, put there once for each broker: pipelines only read it."""
    return fresh_history(bootstrap, file, mapping, until)


def fresh_history(
    bootstrap: str, file: str, mapping: str, until: datetime | None, *layers: Sections
) -> History:
    """Replay a file onto topics of its own."""
    settings = watermark_settings(bootstrap, "redis://127.0.0.1:1/0", *layers)
    assert topic_plans.apply(settings, create=True) == []
    report = replay(settings, DATA / file, load_mapping(mapping), signer_of(settings), until=until)
    assert report.last_event_ms is not None
    step = round(settings.clock.mark_seconds * 1_000)
    last = (report.last_event_ms // step + 1) * step
    if until is not None:
        last = max(last, int(until.timestamp() * 1_000) // step * step)
    return History(bootstrap, settings.topics.inputs, report, last, step)


@contextmanager
def pipeline_on(
    found: History, store_url: str, directory: Path, *layers: Sections
) -> Iterator[Pipeline]:
    """A pipeline with everything its own but the input."""
    settings = watermark_settings(found.bootstrap, store_url, *layers, inputs=found.inputs)
    with Pipeline(settings, directory) as pipeline:
        pipeline.create_topics()
        yield pipeline


@dataclass(frozen=True)
class Reference:
    """A run in which nothing went wrong, with one worker: what every other run must come to."""

    history: History
    settings: Settings
    outcome: Outcome
    report: AuditReport


_references: dict[tuple[str, str, tuple[str, str]], Reference] = {}


def reference(found: History, store_url: str, directory: Path, *layers: Sections) -> Reference:
    """Run a history undisturbed, once a session."""
    key = (found.bootstrap, store_url, found.inputs)
    if key not in _references:
        with pipeline_on(found, store_url, directory, COMPILED, *layers) as pipeline:
            pipeline.start("activity", "trainer", "publisher")
            pipeline.finish(found.last_mark_ms, 300.0)
            _references[key] = Reference(
                found, pipeline.settings, pipeline.outcome(), pipeline.audit()
            )
    return _references[key]


def milliseconds(text: str) -> int:
    """Milliseconds since 1970 of a time in ISO 8601."""
    return round(datetime.fromisoformat(text).timestamp() * 1_000)


def file_or_none(name: str) -> Path | None:
    """A file of real history, if it is beside the project."""
    found = DATA / name
    return found if found.exists() else None
