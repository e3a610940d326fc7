"""What readers of the event stream cost the owners: ``python -m ops.bench.readers --readers 100``.

Comes in: a load of events, and how many read the changes from the API. Goes out: a section of `results/readers.md`:
how long an event takes to become a change on the topic, with nobody at the API and with all of them, one of whom
reads nothing, in turns. Every role is a process of its own, on all cores together.
"""

from __future__ import annotations

import asyncio
import socket
import statistics
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import numpy as np

from ops.bench import command
from ops.bench.report import load_after, measured_on
from ops.bench.stage import START_SECONDS, BenchError, Stage, await_that, read
from producers import topics as topic_plans
from stream.errors import ServerStartError
from stream.servers import free_port

RESULTS = Path(__file__).parent / "results" / "readers.md"
HEADER = """\
# Readers of the event stream, measured

Each section is one run of `make bench-readers`: all roles as processes on all cores together, in turns with nobody at
the API and with readers of `/v1/changes/events`, one of whom reads nothing. Broker, store, sender and readers are on
the same cores, so what readers cost in time on the processor is in the numbers, too.
"""
PARTITIONS = 4
SLOW_BYTES, READ_BYTES = 4_096, 1 << 16
REQUEST = b"GET /v1/changes/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
AN_EVENT = b"\ndata: {"


class Crowd:
    """Readers of the event stream, and one more who reads nothing; a context manager.

    Args:
        port: of an API that asks for no token.
    """

    def __init__(self, port: int, readers: int) -> None:
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="readers", daemon=True)
        self._tasks: list[asyncio.Task[None]] = []
        self._writers: list[asyncio.StreamWriter] = []
        self._read = [0] * readers

    @property
    def read(self) -> tuple[int, ...]:
        """How many changes each has read."""
        return tuple(self._read)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._join(), self._loop).result(START_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._leave(), self._loop).result(START_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _join(self) -> None:
        await self._follow(SLOW_BYTES)
        for number in range(len(self._read)):
            reader = await self._follow(READ_BYTES)
            self._tasks.append(self._loop.create_task(self._count(number, reader)))

    async def _follow(self, room: int) -> asyncio.StreamReader:
        """Follow; this side keeps about so many bytes for who does not read on."""
        own = socket.socket()
        own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        own.setblocking(False)
        await self._loop.sock_connect(own, ("127.0.0.1", self._port))
        reader, writer = await asyncio.open_connection(sock=own, limit=room)
        self._writers.append(writer)
        writer.write(REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise BenchError(f"the API answers {head[:200]!r}")
        return reader

    async def _count(self, number: int, reader: asyncio.StreamReader) -> None:
        kept = b""
        while some := await reader.read(READ_BYTES):
            kept += some
            self._read[number] += kept.count(AN_EVENT)
            # The beginning of one may have come, which must not be counted twice.
            kept = kept[-len(AN_EVENT) + 1 :]

    async def _leave(self) -> None:
        for task in self._tasks:
            task.cancel()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@dataclass(frozen=True)
class Wanted:
    """What is asked for.

    Attributes:
        seconds: that are measured, after so many of warm-up.
        rate: events a second.
    """

    readers: int
    users: int
    rate: int
    warmup: int
    seconds: int


@dataclass(frozen=True)
class Turn:
    """What one turn came to.

    Attributes:
        waits: seconds from the events of users who moved to their changes.
        read: changes that each reader has read.
        cores: that each role has used.
    """

    waits: Sequence[float]
    read: Sequence[int]
    cores: dict[str, float]


def turn(stage: Stage, name: str, wanted: Wanted, readers: int) -> Turn:
    """All roles under a steady load.

    Args:
        name: of what nobody else uses.
        readers: at the API, which does not run for none.
    """
    cores = stage.cores.every
    seconds = wanted.warmup + wanted.seconds
    events = wanted.rate * seconds
    started, listening = stage.file("started.json"), stage.file("listening.json")
    with ExitStack() as stack:
        server = stack.enter_context(stage.store())
        made = stage.settings(server, name, name)
        api = made.api.model_copy(update={"port": free_port()})
        settings = made.model_copy(update={"api": api})
        topic_plans.apply(settings, create=True)
        roles = ["trainer", "publisher", "activity", *(["api"] if readers else [])]
        children = {role: stack.enter_context(stage.role(role, settings, cores)) for role in roles}
        hearing = stage.loop("listen", settings, cores, ready_file=str(listening))
        listener, heard = stack.enter_context(hearing)
        await_that(listening.exists, START_SECONDS, listener)
        crowd = stack.enter_context(Crowd(api.port, readers)) if readers else None
        load = {"events": events, "users": wanted.users, "rate": wanted.rate}
        sender, sent = stack.enter_context(
            stage.loop("send", settings, cores, **load, start_file=str(started))
        )
        await_that(started.exists, START_SECONDS, sender)
        worked = {role: child.cpu_seconds() for role, child in children.items()}
        patience = 2 * START_SECONDS + seconds
        await_that(sent.exists, patience, sender, listener, *children.values(), poll=0.2)
        used = {role: child.cpu_seconds() - worked[role] for role, child in children.items()}
        listener.ask_to_end()
        listener.wait(START_SECONDS)
        changes = read(heard)
        after_ms = read(started)["start_ms"] + wanted.warmup * 1_000
        timed = zip(changes["at_ms"], changes["seconds"], strict=True)
        waits = [seconds for at_ms, seconds in timed if at_ms >= after_ms]
        if not waits:
            raise BenchError("nobody moved while latency was measured; take more seconds")
        told = () if crowd is None else crowd.read
    return Turn(waits, told, {role: cpu / seconds for role, cpu in used.items()})


def measure(wanted: Wanted, rounds: int, heap: str) -> dict[str, Any]:
    without: list[Turn] = []
    with_all: list[Turn] = []
    with Stage(heap=heap, partitions=PARTITIONS) as stage:
        for number in range(rounds):
            for readers, turns in ((0, without), (wanted.readers, with_all)):
                turns.append(turn(stage, f"turn-{number}-{readers}", wanted, readers))
                told = _waits(turns[-1:])
                command.say(f"{readers} readers: {told[0]:.1f} ms (p50), {told[1]:.1f} ms (p99)")
    return {
        "readers": wanted.readers,
        "rate": wanted.rate,
        "rounds": rounds,
        "without_ms": _waits(without),
        "with_ms": _waits(with_all),
        "without_cores": _cores(without),
        "with_cores": _cores(with_all),
        "read": [count for one in with_all for count in (min(one.read), max(one.read))],
        "changes": sum(len(one.waits) for one in (*without, *with_all)),
    }


def _waits(turns: Sequence[Turn]) -> list[float]:
    """Milliseconds at the median and the 99th percentile, each the median over turns."""
    found = [np.quantile(np.array(one.waits) * 1e3, (0.5, 0.99)).tolist() for one in turns]
    return [statistics.median(column) for column in zip(*found, strict=True)]


def _cores(turns: Sequence[Turn]) -> dict[str, float]:
    return {role: statistics.median(one.cores[role] for one in turns) for role in turns[0].cores}


def section(report: dict[str, Any], at: datetime) -> str:
    """A dated section of the results."""
    rows = []
    for name in ("without", "with"):
        median, most = report[f"{name}_ms"]
        used = ", ".join(f"{role} {cores:.2f}" for role, cores in report[f"{name}_cores"].items())
        who = f"{report['readers']}, and one who reads nothing" if name == "with" else "nobody"
        rows.append(f"| {who} | {median:.1f} ms | {most:.1f} ms | {used} |")
    least, most = min(report["read"]), max(report["read"])
    lines = (
        f"## {at:%Y-%m-%d %H:%M} UTC",
        "",
        f"{measured_on()}; {load_after()}. {report['rate']:,} events a second, {report['rounds']} turns of each.",
        "",
        "| who reads | event to change, median | 99 % | cores |",
        "|---|---|---|---|",
        *rows,
        "",
        f"Each reader read {least:,} to {most:,} changes in a turn.",
    )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command.options(__doc__ or "", RESULTS)
    parser.add_argument("--readers", type=command.at_least(1), default=100)
    parser.add_argument("--users", type=command.at_least(1_000), default=5_000)
    parser.add_argument("--rate", type=command.at_least(1), default=1_000, help="events a second")
    parser.add_argument("--warmup", type=command.at_least(1), default=15, help="seconds of load")
    parser.add_argument("--seconds", type=command.at_least(1), default=20, help="measured after it")
    parser.add_argument("--rounds", type=command.at_least(1), default=3, help="turns of each")
    parser.add_argument("--heap", default="512m", help="of the broker's Java")
    told = parser.parse_args(arguments)
    wanted = Wanted(told.readers, told.users, told.rate, told.warmup, told.seconds)
    return command.run(
        "bench-readers",
        lambda: measure(wanted, told.rounds, told.heap),
        section,
        wanted=told,
        results=RESULTS,
        header=HEADER,
        expected=(BenchError, ServerStartError),
    )


if __name__ == "__main__":
    sys.exit(main())
