"""The examples of README and guide, taken from a run: what stands there is what the code says.

Comes in: the demo's shop, simulated from a seed and played in memory by the parts of the pipeline.
Goes out: a change record, and what `segstream user --why` says of a shopper. ``make examples`` writes
both between their marks on their pages; a test compares them.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import Any

from consumers.decode import Decoder
from producers.traffic import encode, simulate
from stream.cli import explaining
from stream.cli.terminal import console
from stream.config import Settings
from stream.events import SegmentChange
from stream.insight.queries import Reader
from stream.insight.why import why
from stream.partition import Partition
from stream.rehearsal import Rehearsal
from stream.safe import safe_facts
from stream.store.memory import MemoryStore
from stream.store.state import Commit, Position
from stream.units import DAY_MS
from stream.wiring.demo import SETTINGS
from stream.wiring.history import StampedMessage

ROOT = Path(__file__).parent.parent.parent
PAGES = {"change": ROOT / "README.md", "why": ROOT / "ops" / "guide" / "changes.md"}
"""Where each example stands."""
SEED, SHOPPERS, DAYS = 7, 700, 42
WHO = "shopper-000626"
"""Of whom there is much to say: one feature would move them, acts lead elsewhere, silence too."""
COLUMNS = 100
"""What stands on a page without being folded."""


@dataclass(frozen=True)
class Shop:
    """A shop at its end."""

    reader: Reader
    changes: tuple[SegmentChange, ...]


@lru_cache(maxsize=1)
def shop() -> Shop:
    """Six weeks of the demo's shop, with a mark a day."""
    text = SETTINGS.format(bootstrap="", url="redis://127.0.0.1", mark_hours=24)
    settings = Settings.model_validate(tomllib.loads(text) | {"topics": {"partitions": 1}})
    rehearsal = Rehearsal(settings)
    decoder = Decoder(
        rehearsal.table, settings.worker, money=settings.money, ratings=settings.reviews
    )
    changes: list[SegmentChange] = []
    at_ms = 0
    for day in simulate(SEED, SHOPPERS, DAYS):
        topics: tuple[list[StampedMessage], list[StampedMessage]] = ([], [])
        for out in encode(day, SEED):
            topics[out.topic].append(StampedMessage(out.value, out.time_ms))
            at_ms = out.time_ms
        batches = [
            decoder.decode(messages).batch(topic, 0, len(messages)).columns
            for topic, messages in enumerate(topics)
            if messages
        ]
        rehearsal.fold(batches)
        at_ms = (at_ms // DAY_MS + 1) * DAY_MS
        changes += rehearsal.mark(at_ms).changes
    store = _store(rehearsal, at_ms)
    reader = Reader(settings, store, rehearsal.table)
    return Shop(reader, tuple(changes))


def _store(rehearsal: Rehearsal, at_ms: int) -> MemoryStore:
    """What a running pipeline would have in its store."""
    partition: Partition = rehearsal.partition
    schema = rehearsal.table.schema
    store = MemoryStore()
    store.create(0, "owner", Position([0, 0], schema))
    rows = partition.rows
    told = partition.position
    position = Position([0, 0], schema, clock_ms=at_ms, kinds=told.kinds, levels=told.levels)
    store.commit(0, "owner", Commit(0, position, list(partition.names), rows.tobytes()))
    store.lead("trainer")
    store.put_model("trainer", rehearsal.state.pack(rehearsal.table), at_ms)
    return store


@lru_cache(maxsize=1)
def examples() -> dict[str, str]:
    """The text of each example, by the name in its mark."""
    return {"change": _change(), "why": _why()}


def _change() -> str:
    """The first who was settled, fell silent and is at risk by that alone."""
    found = next(
        change
        for change in shop().changes
        if (change["cause"], change["kind_to"]) == ("time_passed", "at_risk")
        and not change["provisional"]
        # Who was told another kind than their segment's, because nobody rises by time, is an example of that.
        and (change["name_from"] or "").casefold().startswith(change["kind_from"] or "none")
        and change["why"][0]["feature"] == "days_since_seen"
    )
    return "```json\n" + "\n".join(_folded(dict(found))) + "\n```"


def _folded(record: dict[str, Any]) -> Iterator[str]:
    """A record on as few lines as the page is wide for."""
    pieces = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in record.items()]
    reasons = record["why"]
    if reasons:
        place = list(record).index("why")
        told = [json.dumps(reason) for reason in reasons]
        pieces[place : place + 1] = [f'"why": [{told[0]}', *told[1:]]
        pieces[place + len(told) - 1] += "]"
    line = "{" + pieces[0]
    for piece in pieces[1:]:
        if len(line) + len(piece) + 3 > COLUMNS:
            yield line + ","
            line = " " + piece
        else:
            line += ", " + piece
    yield line + "}"


def _why() -> str:
    told = StringIO()
    reader = shop().reader
    facts = safe_facts(why(reader, WHO))
    explaining.show_why(console(file=told, columns=COLUMNS), facts, reader.table)
    lines = [line.rstrip() for line in told.getvalue().splitlines()]
    first = next(n for n, line in enumerate(lines) if line.startswith("What alone would"))
    return "\n".join(["```", *lines[first:], "```"])


def with_example(page: str, name: str) -> str:
    """A page with what stands between the marks of an example written anew.

    Raises:
        LookupError: the page has no place for it, or several.
    """
    parts = re.split(rf"(?s)(<!-- example: {name} -->\n).*?(\n<!-- end -->)", page)
    if len(parts) != 4:
        raise LookupError(f"the page has {len(parts) // 3} places for the example {name!r}")
    return "".join([parts[0], parts[1], examples()[name], *parts[2:]])
