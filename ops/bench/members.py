"""What it takes to list the members of many users: ``python -m ops.bench.members --users 1,000,000``.

Comes in: a number of users, put into a real Redis by commits. Goes out: a section of
`results/members.md`: how long `segstream members --csv` takes for all of them, and how long another
process waits for a write of a row meanwhile, and without it: what an owner would feel.
"""

from __future__ import annotations

import multiprocessing as mp
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from ops.bench import command
from ops.bench.report import load_after, measured_on
from ops.bench.takeover import AT_ONCE, NOW_MS, SECONDS, some_rows
from stream.config import Settings
from stream.errors import ServerStartError
from stream.features import FeatureTable
from stream.hashing import partitions_of
from stream.insight.members import WantedMembers, as_csv, members, once
from stream.learning.rounds import learn
from stream.learning.state import TrainerState
from stream.model import Model
from stream.partition import Partition
from stream.servers import LocalStore, redis_binary
from stream.store.promises import OwnerStore
from stream.store.redis import RedisStore, connect
from stream.store.state import Commit, Position
from stream.sweeps import SampleRequest

RESULTS = Path(__file__).parent / "results" / "members.md"
HEADER = """\
# Listing members, measured

Each section is one run of `python -m ops.bench.members`: everybody in a real Redis is listed as a table,
while another process writes a row every millisecond and sees how long the server lets it wait.
"""
PARTITIONS = 4
QUIET_SECONDS = 3.0
MOST_SECONDS = 300.0


def a_state(table: FeatureTable, settings: Settings, users: int = 2_000) -> TrainerState:
    """What a trainer makes of some of the users."""
    partition = Partition(0, table, settings.publish.rule(), Position([0, 0], table.schema), 0)
    rows = some_rows(table, users, 0)
    partition.load((b"user-%d" % number, row.tobytes()) for number, row in enumerate(rows))
    part = partition.sweep(NOW_MS, NOW_MS, sample=SampleRequest(users))
    return learn(TrainerState(), [part], NOW_MS, table, settings.learning, settings.kinds)


def a_model(table: FeatureTable, settings: Settings) -> Model:
    """The model of `a_state`."""
    model = a_state(table, settings).model
    assert model is not None
    return model


def fill(store: OwnerStore, table: FeatureTable, model: Model, users: int) -> None:
    """Put users into the partitions, each in a segment and of a kind, some a commit."""
    kinds = list(dict.fromkeys(segment.kind for segment in model.segments))
    codes = np.array([1 + kinds.index(segment.kind) for segment in model.segments], np.uint8)
    names = [b"user-%d" % number for number in range(users)]
    partitions = partitions_of(names, PARTITIONS)
    for number in range(PARTITIONS):
        store.create(number, "bench", Position([0, 0], table.schema))
        mine = np.flatnonzero(partitions == number).tolist()
        for sequence, first in enumerate(range(0, len(mine), AT_ONCE)):
            some = [names[place] for place in mine[first : first + AT_ONCE]]
            rows = some_rows(table, len(some), sequence)
            column = np.arange(len(some)) % len(model.segments)
            rows["segment"], rows["kind"] = model.ids[column], codes[column]
            rows["version"], rows["since"], rows["kind_since"] = 1, rows["first"], rows["seen"]
            position = Position(
                [0, 0], table.schema, clock_ms=NOW_MS, users=first + len(some), kinds=kinds
            )
            store.commit(number, "bench", Commit(sequence, position, some, rows.tobytes()))


def write_rows(url: str, seconds: float, row: bytes, ready: Any, stop: Any, told: Any) -> None:
    """Write a row every millisecond, and tell how long each took, in ms."""
    client = connect(url, SECONDS)
    client.ping()
    ready.set()
    took, until = [0.0], time.monotonic() + seconds
    while time.monotonic() < until and not stop.is_set():
        began = time.perf_counter()
        client.hset("bench-of-members", "a user", row)
        took.append((time.perf_counter() - began) * 1_000)
        time.sleep(0.001)
    told.put(np.quantile(took, (0.5, 0.99, 1.0)).tolist())


def waits(url: str, row: bytes, seconds: float, meanwhile: Any) -> list[float]:
    """Median, 99th percentile and worst wait of a writer, in ms, while something is done."""
    context = mp.get_context("spawn")
    ready, stop, told = context.Event(), context.Event(), context.Queue()
    writer = context.Process(target=write_rows, args=(url, seconds, row, ready, stop, told))
    writer.start()
    ready.wait(MOST_SECONDS)
    meanwhile()
    stop.set()
    found: list[float] = told.get(timeout=MOST_SECONDS)
    writer.join()
    return found


def measure(users: int) -> dict[str, Any]:
    settings = Settings.model_validate({"topics": {"partitions": PARTITIONS}})
    table = settings.table()
    with LocalStore(binary=redis_binary()) as server:
        model = a_model(table, settings)
        command.say(f"filling a store with {users:,} users")
        store = RedisStore(connect(server.url, SECONDS), namespace="bench", partitions=PARTITIONS)
        fill(store, table, model, users)
        row = some_rows(table, 1, 0).tobytes()
        quiet = waits(server.url, row, MOST_SECONDS, lambda: time.sleep(QUIET_SECONDS))
        command.say("listing")
        report: dict[str, Any] = {"users": users, "wait_quiet_ms": quiet}

        def listing() -> None:
            began, spent, listed, size = time.monotonic(), time.process_time(), 0, 0
            found = members(settings, table, store, model, WantedMembers(), NOW_MS)
            for portion in once(found):
                listed += len(portion)
                size += len(as_csv(portion))
            report.update(
                seconds=time.monotonic() - began,
                cpu_seconds=time.process_time() - spent,
                listed=listed,
                megabytes=size / 1e6,
            )

        report["wait_listing_ms"] = waits(server.url, row, MOST_SECONDS, listing)
        began = time.monotonic()
        wanted = WantedMembers([model.segments[0].id])
        report["one_listed"] = sum(map(len, members(settings, table, store, model, wanted, NOW_MS)))
        report["one_seconds"] = time.monotonic() - began
        store.close()
    assert report["listed"] == users
    return report


def section(report: dict[str, Any], at: datetime) -> str:
    """A dated section of the results."""
    quiet, listing = (
        f"{median:.2f}, {most:.1f}, {worst:.0f} ms"
        for median, most, worst in (report["wait_quiet_ms"], report["wait_listing_ms"])
    )
    took = f"{report['seconds']:.1f} s, {report['cpu_seconds']:.1f} s of a core"
    lines = (
        f"## {at:%Y-%m-%d %H:%M} UTC",
        "",
        f"{measured_on()}; {load_after()}.",
        "",
        "| | |",
        "|---|---|",
        f"| everybody of {report['users']:,} users as a table of {report['megabytes']:.0f} MB | {took} |",
        f"| one segment, {report['one_listed']:,} members | {report['one_seconds']:.1f} s |",
        f"| a write waits meanwhile (median, 99 %, worst) | {listing} |",
        f"| and without | {quiet} |",
    )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command.options(__doc__ or "", RESULTS)
    parser.add_argument("--users", type=command.at_least(1_000), default=1_000_000)
    wanted = parser.parse_args(arguments)
    return command.run(
        "bench-members",
        lambda: measure(wanted.users),
        section,
        wanted=wanted,
        results=RESULTS,
        header=HEADER,
        expected=(ServerStartError,),
    )


if __name__ == "__main__":
    sys.exit(main())
