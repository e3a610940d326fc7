"""What it takes to look users up over HTTP: ``python -m ops.bench.api --users 1,000,000``.

Comes in: a number of users, put into a real Redis. Goes out: a section of `results/api.md`: how long a lookup takes
when one is asked for at a time, and how many a second one core answers when many ask, from the shipped `segstream
run api` as a process of its own on a core of its own.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np

from ops.bench import command
from ops.bench.members import PARTITIONS, a_state, fill
from ops.bench.report import load_after, measured_on
from ops.bench.takeover import NOW_MS, SECONDS
from stream.config import Settings
from stream.errors import ServerStartError
from stream.servers import LocalStore, free_port, redis_binary
from stream.store.redis import RedisStore, connect

RESULTS = Path(__file__).parent / "results" / "api.md"
HEADER = """\
# Looking users up over HTTP, measured

Each section is one run of `make bench-api`: `segstream run api` on one core, users in a real Redis; Redis and whoever
asks share the other cores.
"""
ALONE, CONNECTIONS = 2_000, 32
START_SECONDS = 60.0
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """What a process has used of a core so far."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS


def one_at_a_time(port: int, users: int, count: int) -> list[float]:
    """Seconds that each lookup took, one after the other on one connection."""
    draw, took = random.Random(1), []
    connection = HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    for _ in range(count):
        began = time.perf_counter()
        connection.request("GET", f"/v1/users/user-{draw.randrange(users)}")
        answer = connection.getresponse()
        body = answer.read()
        took.append(time.perf_counter() - began)
        assert answer.status == 200, body
    connection.close()
    return took


async def _ask(port: int, users: int, until: float, seed: int) -> list[float]:
    draw, took = random.Random(seed), []
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < until:
        began = time.perf_counter()
        user = draw.randrange(users)
        writer.write(b"GET /v1/users/user-%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % user)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        await reader.readexactly(size)
        took.append(time.perf_counter() - began)
    writer.close()
    return took


async def many_at_once(port: int, users: int, seconds: float) -> list[float]:
    """Seconds that each lookup took, on many connections that ask as soon as they are answered."""
    until = time.perf_counter() + seconds
    found = await asyncio.gather(
        *(_ask(port, users, until, number) for number in range(CONNECTIONS))
    )
    return [one for some in found for one in some]


def _wait_until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError):
            one_at_a_time(port, 1, 1)
            return
        time.sleep(0.05)
    raise ServerStartError("segstream run api does not answer")


def measure(users: int, seconds: float) -> dict[str, Any]:
    settings = Settings.model_validate({"topics": {"partitions": PARTITIONS}})
    table, port = settings.table(), free_port()
    with LocalStore(binary=redis_binary()) as server, tempfile.TemporaryDirectory() as directory:
        command.say(f"filling a store with {users:,} users")
        state = a_state(table, settings)
        assert state.model is not None
        store = RedisStore(connect(server.url, SECONDS), namespace="bench", partitions=PARTITIONS)
        store.begin(PARTITIONS)
        fill(store, table, state.model, users)
        store.lead("bench")
        store.put_model("bench", state.pack(table), NOW_MS)
        store.close()
        file = Path(directory) / "bench.toml"
        file.write_text(
            f'[store]\nurl = "{server.url}"\nnamespace = "bench"\n[topics]\npartitions = {PARTITIONS}\n'
            f'[api]\nport = {port}\n[broker]\nbootstrap = "127.0.0.1:1"\n'
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "stream", "-c", str(file), "run", "api"],
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait_until_ready(port, process)
            here, *others = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(process.pid, {here})
            if others:
                os.sched_setaffinity(0, others)
            one_at_a_time(port, users, ALONE // 10)
            command.say("one at a time")
            alone = one_at_a_time(port, users, ALONE)
            command.say("many at once")
            before, began = cpu_seconds(process.pid), time.perf_counter()
            took = asyncio.run(many_at_once(port, users, seconds))
            passed, used = time.perf_counter() - began, cpu_seconds(process.pid) - before
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    return {
        "users": users,
        "alone_ms": np.quantile(np.array(alone) * 1e3, (0.5, 0.99)).tolist(),
        "many_ms": np.quantile(np.array(took) * 1e3, (0.5, 0.99)).tolist(),
        "connections": CONNECTIONS,
        "a_second": len(took) / passed,
        "core_seconds_a_lookup": used / len(took),
    }


def section(report: dict[str, Any], at: datetime) -> str:
    """A dated section of the results."""
    alone, many = (
        f"{median:.2f}, {most:.2f} ms" for median, most in (report["alone_ms"], report["many_ms"])
    )
    of_a_core = report["core_seconds_a_lookup"]
    lines = (
        f"## {at:%Y-%m-%d %H:%M} UTC",
        "",
        f"{measured_on()}; {load_after()}.",
        "",
        "| | |",
        "|---|---|",
        f"| a lookup among {report['users']:,} users, one at a time (median, 99 %) | {alone} |",
        f"| {report['connections']} ask as soon as they are answered | {report['a_second']:,.0f} a second |",
        f"| each of those waits (median, 99 %) | {many} |",
        f"| a lookup takes of a core | {of_a_core * 1e6:.0f} us, so a core has {1 / of_a_core:,.0f} a second |",
    )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command.options(__doc__ or "", RESULTS)
    parser.add_argument("--users", type=command.at_least(1_000), default=1_000_000)
    parser.add_argument("--seconds", type=command.at_least(1), default=10)
    wanted = parser.parse_args(arguments)
    return command.run(
        "bench-api",
        lambda: measure(wanted.users, wanted.seconds),
        section,
        wanted=wanted,
        results=RESULTS,
        header=HEADER,
        expected=(ServerStartError,),
    )


if __name__ == "__main__":
    sys.exit(main())
