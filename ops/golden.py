"""Plays shops through an owner and a trainer in memory and prints what came of it, as digests.

``python -m ops.golden`` plays the shared shops, ``--file F --mapping M`` another one. A change that
is to change no behaviour is held to it: the same digests before and after, to the bit.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from producers.mapping import load_mapping
from stream.config import Settings
from stream.rehearsal import Rehearsal
from stream.units import DAY_MS
from stream.wiring.history import open_history

DATA = Path(__file__).parents[2] / "shared" / "data"
SHOPS = (
    (DATA / "online_retail_uk.csv.gz", "online_retail", DAY_MS),
    (DATA / "taobao_behavior_9days.csv.gz", "taobao", DAY_MS // 24),
)


class _Digest:
    """Of whatever it is given, in that order."""

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=12)
        self.things = 0

    def add(self, thing: Any) -> None:
        raw = thing if isinstance(thing, bytes) else json.dumps(thing, sort_keys=True).encode()
        self._hash.update(len(raw).to_bytes(8, "big") + raw)
        self.things += 1

    def __str__(self) -> str:
        return f"{self.things:>9,} {self._hash.hexdigest()}"


def golden(file: Path, mapping: str, step_ms: int) -> dict[str, str]:
    """What a file comes to: users' rows, change records, published models, counts."""
    settings = Settings()
    rehearsal = Rehearsal(settings)
    rows, changes, models = _Digest(), _Digest(), _Digest()
    with open_history(settings, rehearsal.table, file, load_mapping(mapping)) as history:
        for at_ms in history.play(rehearsal.fold, step_ms):
            marked = rehearsal.mark(at_ms)
            for change in sorted(marked.changes, key=lambda one: (one["user"], one["version"])):
                changes.add(change)
            if marked.state.model is not None:
                models.add(marked.state.model.published(rehearsal.table))
        counts = history.counts
    names = rehearsal.partition.names
    for slot in sorted(range(len(names)), key=names.__getitem__):
        rows.add(names[slot])
        rows.add(rehearsal.partition.rows[slot].tobytes())
    return {
        "users": str(rows),
        "changes": str(changes),
        "models": str(models),
        "counts": json.dumps(vars(counts)),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ops.golden", description=__doc__)
    parser.add_argument("--file", type=Path, help="a file to play, with --mapping")
    parser.add_argument("--mapping", default="simple", help="a shipped mapping, or a TOML file")
    parser.add_argument("--hours", type=int, default=24, help="of the shop, between two marks")
    given = parser.parse_args(arguments)
    shops = SHOPS if given.file is None else ((given.file, given.mapping, given.hours * 3_600_000),)
    for file, mapping, step_ms in shops:
        print(file.name)
        for name, found in golden(file, mapping, step_ms).items():
            print(f"  {name:8} {found}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
