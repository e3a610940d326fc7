"""Measures decoding: the plain decoder, the compiled one, and msgspec doing less.

``python -m ops.bench.decode`` makes the events of ``make bench``, decodes all of them in each way, the
ways in turn, in blocks as the worker does, and appends a dated section of medians to
``results/decode.md``. Four ways:

- *plain*, *compiled*: `Decoder.decode`, from messages to a block of columns, as shipped;
- *msgspec, to Track*: only what the plain one spends in msgspec;
- *msgspec, skipping*: a check of the JSON that keeps no field, the least msgspec can do.

Both decoders make the same columns of the events, which is verified first.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import Message

from consumers.decode import Block, Decoder
from consumers.intake import CONSUME
from ops.bench import command
from ops.bench.report import load_after, measured_on
from producers.traffic import bench_events
from stream.config import ConfigError, Settings, Worker
from stream.events import Track

RESULTS = Path(__file__).parent / "results" / "decode.md"
USERS = 50_000
START_MS = 1_764_547_200_000

HEADER = """\
# Decoding, measured

Each section is one run of `python -m ops.bench.decode`: microseconds of processor time an event,
medians over rounds in which the ways take turns, on the events of `make bench` in blocks as the
worker takes them. Only proportions mean anything from one machine or day to another.
"""


class _Nothing(msgspec.Struct):
    """No field is wanted."""


Messages = Sequence[Any]


def messages_of(events: int) -> list[Messages]:
    """The benchmark's events in blocks."""
    made = bench_events(events, USERS, 1, start_ms=START_MS)
    messages = [Message(value=value, timestamp=(1, START_MS)) for _, value, _ in made]
    return [messages[first : first + CONSUME] for first in range(0, events, CONSUME)]


def ways_of(settings: Settings) -> dict[str, Callable[[Messages], Any]]:
    """What is measured, by name."""
    table = settings.table()
    plain, compiled = (Decoder(table, Worker(decoder=way)) for way in ("plain", "compiled"))
    track, nothing = msgspec.json.Decoder(Track).decode, msgspec.json.Decoder(_Nothing).decode
    return {
        "plain": plain.decode,
        "compiled": compiled.decode,
        "msgspec, to Track": lambda messages: [track(message.value()) for message in messages],
        "msgspec, skipping": lambda messages: [nothing(message.value()) for message in messages],
    }


def verify(one: Block, other: Block) -> None:
    """Both decoders have made the same of the same messages."""
    for name in ("kind", "time_ms", "id", "value", "quantity", "category", "fate"):
        if getattr(one, name).tobytes() != getattr(other, name).tobytes():
            sys.exit(f"the decoders differ in {name}")
    if one.users != other.users:
        sys.exit("the decoders differ in users")


def measure(events: int, rounds: int) -> dict[str, Any]:
    """Microseconds an event by way: medians, and a number a round."""
    blocks = messages_of(events)
    ways = ways_of(Settings())
    for block in blocks:
        verify(ways["plain"](block), ways["compiled"](block))
    names = list(ways)
    seen: dict[str, list[float]] = {way: [] for way in names}
    for turn in range(rounds):
        first = turn % len(names)
        for way in names[first:] + names[:first]:
            decode, begun = ways[way], time.process_time()
            for block in blocks:
                decode(block)
            seen[way].append((time.process_time() - begun) / events * 1e6)
    medians = {way: statistics.median(costs) for way, costs in seen.items()}
    return {"events": events, "microseconds": medians, "rounds": seen}


def section(report: dict[str, Any], at: datetime) -> str:
    """A dated section of the results."""
    medians = report["microseconds"]
    lines = [
        f"## {at:%Y-%m-%d %H:%M} UTC",
        "",
        f"{measured_on('msgspec', 'numba', 'numpy')}.",
        "",
        f"{report['events']:,} events a round; {load_after()}.",
        "",
        "| way | median | to plain | rounds |",
        "|---|---|---|---|",
    ]
    for way, median in medians.items():
        rounds = " ".join(f"{cost:.2f}" for cost in report["rounds"][way])
        lines.append(f"| {way} | {median:.2f} | {median / medians['plain']:.2f} | {rounds} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command.options(__doc__ or "", RESULTS)
    parser.add_argument("--events", type=int, default=100_000, help="events of a round")
    parser.add_argument("--rounds", type=int, default=11, help="rounds, each way once in each")
    wanted = parser.parse_args(arguments)
    return command.run(
        "bench-decode",
        lambda: measure(wanted.events, wanted.rounds),
        section,
        wanted=wanted,
        results=RESULTS,
        header=HEADER,
        expected=(ConfigError,),
    )


if __name__ == "__main__":
    sys.exit(main())
