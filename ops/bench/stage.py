"""Sets the stage of a benchmark: servers on one core, what is measured on the other.

Comes in: a broker, a store, settings. Goes out: child processes on the core they belong to, what
they have measured, and what the store's server has worked meanwhile. Nothing outlives a `Stage`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from prometheus_client.parser import text_string_to_metric_families

from ops.kafka.server import RealKafka
from stream import config_layers
from stream.config import Settings
from stream.servers import LocalStore, free_port, redis_binary
from stream.store.redis import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
START_SECONDS = 60.0
END_SECONDS = 30.0
POLL_SECONDS = 0.01
LAST_WORDS = 2_000
TICKS = os.sysconf("SC_CLK_TCK")

# A broker that serves from memory and does not roll or clean while something is measured.
BROKER_PROPERTIES = {
    "num.network.threads": "2",
    "num.io.threads": "2",
    "log.cleaner.enable": "false",
    "log.segment.bytes": str(1 << 30),
    "log.retention.check.interval.ms": str(3_600_000),
}


class BenchError(Exception):
    """The benchmark cannot go on; the message says why."""


@dataclass(frozen=True)
class Cores:
    """Which core belongs to whom; None where this system pins nothing."""

    measured: set[int] | None
    servers: set[int] | None
    every: set[int] | None

    @staticmethod
    def here() -> Cores:
        """The last core for what is measured, the others for the servers."""
        if not hasattr(os, "sched_getaffinity"):
            return Cores(None, None, None)
        every = os.sched_getaffinity(0)
        measured = {max(every)}
        return Cores(measured, (every - measured) or measured, every)

    @property
    def apart(self) -> bool:
        """Whether what is measured has a core of its own."""
        return self.measured is not None and self.measured != self.servers


@contextmanager
def on(cores: set[int] | None) -> Iterator[None]:
    """Children begun in here are born on these cores, with every thread they will have."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Child:
    """A process of ours, with its last words."""

    def __init__(self, name: str, command: list[str], log: Path, cores: set[int] | None) -> None:
        self.name = name
        self._log = log
        kept = {k: v for k, v in os.environ.items() if not k.startswith("SEGSTREAM_")}
        with log.open("wb") as sink, on(cores):
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=kept | {"COLUMNS": "200", "NO_COLOR": "1"},
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def check(self) -> None:
        """See that it runs, or has ended well.

        Raises:
            BenchError: it has not; with its last words.
        """
        if self._process.poll():
            said = self._log.read_text(errors="replace")[-LAST_WORDS:]
            raise BenchError(f"{self.name} ended with {self._process.returncode}:\n{said}")

    def wait(self, seconds: float) -> None:
        """Wait until it has ended well.

        Raises:
            BenchError: it has not, or not in time.
        """
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{self.name} did not end within {seconds:.0f} s") from None
        self.check()

    def ask_to_end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def end(self) -> None:
        """Ask it to end, then insist."""
        self.ask_to_end()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def cpu_seconds(self) -> float:
        """What all its threads have worked so far."""
        text = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii")
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def waited_seconds(self) -> float | None:
        """How long its threads had something to do and no core, so far; None where no system tells."""
        told = Path(f"/proc/{self._process.pid}/task").glob("*/schedstat")
        try:
            return sum(int(one.read_text(encoding="ascii").split()[1]) for one in told) / 1e9
        except OSError:
            return None


class Stage:
    """A broker, and what is needed to run things beside it; a context manager.

    Args:
        heap: of the broker's Java.
        partitions: of each topic but the dead letters.
    """

    def __init__(self, *, heap: str, partitions: int) -> None:
        self.cores = Cores.here()
        self._partitions = partitions
        self._kafka = RealKafka(heap=heap, properties=BROKER_PROPERTIES)
        self._stack = ExitStack()
        self._number = 0
        self._folder = Path()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            folder = tempfile.TemporaryDirectory(prefix="segstream-bench-")
            self._folder = Path(stack.enter_context(folder))
            # This process only starts and waits: it lives with the servers.
            stack.enter_context(on(self.cores.servers))
            stack.enter_context(self._kafka)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextmanager
    def store(self) -> Iterator[LocalStore]:
        """A store with nothing in it, which writes its log as production does."""
        with LocalStore(binary=redis_binary(), appendonly=True) as server:
            yield server

    def settings(self, store: LocalStore | None, name: str, inputs: str = "bench") -> Settings:
        """The shipped settings; only names and addresses are this run's own."""
        return Settings.model_validate(
            {
                "broker": {"bootstrap": self._kafka.bootstrap, "group": name},
                "store": {"namespace": name} | ({"url": store.url} if store else {}),
                "topics": {
                    "partitions": self._partitions,
                    "clickstream": f"{inputs}-clickstream",
                    "purchases": f"{inputs}-purchases",
                    "changes": f"{name}-changes",
                    "models": f"{name}-models",
                },
            }
        )

    def file(self, ending: str) -> Path:
        """A file that is not there yet."""
        self._number += 1
        return self._folder / f"{self._number}-{ending}"

    @contextmanager
    def loop(
        self, name: str, settings: Settings, cores: set[int] | None, **arguments: Any
    ) -> Iterator[tuple[Child, Path]]:
        """A loop of `ops.bench.loops` as a process, and the file it will leave."""
        out = self.file(f"{name}.json")
        told = arguments | {"out": str(out), "settings": str(self._written(settings))}
        command = [sys.executable, "-m", "ops.bench.loops", name, json.dumps(told)]
        with Child(name, command, self.file(f"{name}.log"), cores) as child:
            yield child, out

    def run(
        self,
        name: str,
        settings: Settings,
        cores: set[int] | None,
        seconds: float,
        **arguments: Any,
    ) -> Any:
        """Run a loop to its end; what it tells."""
        with self.loop(name, settings, cores, **arguments) as (child, out):
            child.wait(seconds)
            return read(out)

    @contextmanager
    def role(self, name: str, settings: Settings, cores: set[int] | None) -> Iterator[Child]:
        """A role, as ``segstream run`` starts it, once it says that it is ready."""
        port = free_port()
        file = str(self._written(settings))
        command = [sys.executable, "-m", "stream", "-c", file, "--set", f"metrics.port={port}"]
        with Child(name, [*command, "run", name], self.file(f"{name}.log"), cores) as child:
            await_that(lambda: _page(port, "ready") is not None, START_SECONDS, child)
            yield child

    def _written(self, settings: Settings) -> Path:
        """The settings as a file."""
        file = self.file("settings.toml")
        file.write_text(config_layers.as_file(settings))
        return file


def await_that(true: Any, seconds: float, *children: Child, poll: float = POLL_SECONDS) -> None:
    """Wait until something is true, while children run.

    Raises:
        BenchError: it did not become true in time, or a child has ended.
    """
    deadline = time.monotonic() + seconds
    while not true():
        for child in children:
            child.check()
        if time.monotonic() > deadline:
            names = ", ".join(child.name for child in children)
            raise BenchError(f"gave up after {seconds:.0f} s waiting for {names}")
        time.sleep(poll)


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def sums(port: int) -> dict[str, float]:
    """The metrics of a role, each summed over its labels."""
    totals: dict[str, float] = {}
    for family in text_string_to_metric_families(_page(port, "metrics") or ""):
        for sample in family.samples:
            totals[sample.name] = totals.get(sample.name, 0.0) + sample.value
    return totals


def store_cpu_seconds(url: str) -> float:
    """What the store's server has worked so far, its children aside."""
    client = connect(url, 5.0)
    try:
        told: Any = client.info("cpu")
    finally:
        client.close()
    return float(told["used_cpu_user"]) + float(told["used_cpu_sys"])


def _page(port: int, page: str) -> str | None:
    """A page of a role's health server; None if it does not say yes."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=2.0) as answer:
            return str(answer.read().decode())
    except (urllib.error.URLError, OSError):
        return None
