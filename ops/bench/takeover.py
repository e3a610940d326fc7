"""What a worker pays for many users: ``python -m ops.bench.takeover --users 1,000,000``.

Comes in: a number of users, put into a real Redis by commits. Goes out: a section of
`results/takeover.md`: how long a partition of them takes to load, what it keeps in memory, how long
a sweep over all of them takes, and what the store keeps. The server works on another core.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from ops.bench import command
from ops.bench.report import load_after, measured_on
from stream.config import Settings
from stream.errors import ServerStartError
from stream.events import Rows
from stream.features import FeatureTable
from stream.learning.rounds import learn
from stream.learning.state import TrainerState
from stream.partition import Partition
from stream.servers import LocalStore, redis_binary
from stream.store.redis import RedisStore, connect
from stream.store.state import Commit, Position
from stream.sweeps import SampleRequest
from stream.units import DAY_MS

RESULTS = Path(__file__).parent / "results" / "takeover.md"
HEADER = """\
# Taking users over, measured

Each section is one run of `python -m ops.bench.takeover`: a partition with so many users is loaded
from a real Redis, as a worker does that takes it over, and swept. Bytes are of the process, names and
all; the server's time is spent on another core meanwhile.
"""
NOW_MS = 1_764_547_200_000
AT_ONCE = 10_000
SECONDS = 120.0


def some_rows(table: FeatureTable, users: int, seed: int) -> Rows:
    """Users with habits and silences of all sorts."""
    rng = np.random.default_rng(seed)
    rows = table.blank(users)
    silent = rng.exponential(30.0, users) * DAY_MS
    rows["seen"] = NOW_MS - silent.astype(np.int64)
    rows["first"] = rows["seen"] - (rng.exponential(200.0, users) * DAY_MS).astype(np.int64)
    rows["as_of"] = rows["seen"]
    rows["sums"] = rng.lognormal(0.0, 1.0, rows["sums"].shape)
    rows["last"] = rows["seen"][:, None]
    return rows


def fill(store: RedisStore, table: FeatureTable, users: int) -> None:
    """Put users into partition 0, some a commit."""
    store.create(0, "bench", Position([0, 0], table.schema))
    for sequence, first in enumerate(range(0, users, AT_ONCE)):
        some = min(AT_ONCE, users - first)
        names = [b"user-%d" % (first + number) for number in range(some)]
        rows = some_rows(table, some, sequence).tobytes()
        position = Position([0, 0], table.schema, users=first + some)
        store.commit(0, "bench", Commit(sequence, position, names, rows))


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def measure(users: int) -> dict[str, Any]:
    """Seconds and bytes, by what they are of."""
    settings = Settings()
    table = settings.table()
    with LocalStore(binary=redis_binary()) as server:
        command.say(f"filling a store with {users:,} users")
        client = connect(server.url, SECONDS)
        store = RedisStore(client, namespace="bench", partitions=1)
        empty = client.info("memory")["used_memory"]
        fill(store, table, users)
        stored = client.info("memory")["used_memory"] - empty
        found = store.acquire(0, "bench")
        assert found is not None
        partition = Partition(
            0, table, settings.publish.rule(), found[1], found[0], key=store.namespace_key()
        )
        command.say("loading")
        before, began, spent = resident(), time.monotonic(), time.process_time()
        partition.load(_told(store.load(0), users))
        loaded = {
            "load_seconds": time.monotonic() - began,
            "load_cpu_seconds": time.process_time() - spent,
            "bytes_a_user": (resident() - before) / users,
            "store_bytes_a_user": stored / users,
        }
        store.close()
    assert len(partition) == users
    command.say("sweeping")
    request = SampleRequest(settings.learning.sample_users)
    part = partition.sweep(NOW_MS, NOW_MS, sample=request)
    model = learn(TrainerState(), [part], NOW_MS, table, settings.learning, settings.kinds).model
    assert model is not None
    partition.adopt(model, NOW_MS, NOW_MS)
    partition.committed(partition.commit([0, 0], partition.position.counts, NOW_MS))
    began = time.monotonic()
    partition.sweep(NOW_MS + DAY_MS // 24, NOW_MS)
    return {"users": users, **loaded, "sweep_seconds": time.monotonic() - began}


def _told(stored: Iterator[tuple[bytes, bytes]], users: int) -> Iterator[tuple[bytes, bytes]]:
    """The same, and how far it is."""
    step = max(users // 5, 1)
    for number, one in enumerate(stored, 1):
        if number % step == 0:
            command.say(f"  {number:,}")
        yield one


def section(report: dict[str, Any], at: datetime) -> str:
    """A dated section of the results."""
    times = {
        "load, seconds": report["load_seconds"],
        "load, CPU seconds of the worker": report["load_cpu_seconds"],
        "sweep, seconds": report["sweep_seconds"],
    }
    a_million = 1_000_000 / report["users"]
    return "\n".join(
        [
            f"## {at:%Y-%m-%d %H:%M} UTC",
            "",
            f"{measured_on('redis', 'hiredis', 'numpy')}.",
            "",
            f"{report['users']:,} users; {load_after()}.",
            "",
            "| | | a million |",
            "|---|---|---|",
            *(f"| {name} | {took:.2f} | {took * a_million:.2f} |" for name, took in times.items()),
            f"| bytes a user | {report['bytes_a_user']:.0f} | |",
            f"| bytes a user in the store | {report['store_bytes_a_user']:.0f} | |",
            "",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command.options(__doc__ or "", RESULTS)
    parser.add_argument("--users", type=command.at_least(1_000), default=1_000_000)
    wanted = parser.parse_args(arguments)
    return command.run(
        "bench-takeover",
        lambda: measure(wanted.users),
        section,
        wanted=wanted,
        results=RESULTS,
        header=HEADER,
        expected=(ServerStartError,),
    )


if __name__ == "__main__":
    sys.exit(main())
