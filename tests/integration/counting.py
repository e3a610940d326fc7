"""A role in a file: counts changes a day per kind, with state of its own and a topic of its own.

``python -m tests.integration.counting run counting`` runs it, as ``segstream run`` runs the others.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence

from consumers.decode import Message
from consumers.role import Decided, Decision, OwningRole
from stream.config import Settings
from stream.roles.outlet import Outlet
from stream.wiring import roles


class Counting(Decision):
    """A row for each day and kind: how many changes there were."""

    def __init__(self) -> None:
        self.counts: Counter[bytes] = Counter()

    def __len__(self) -> int:
        return len(self.counts)

    def load(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        self.counts |= Counter({name: int.from_bytes(row) for name, row in rows})

    def decide(self, messages: Sequence[Message], now_ms: int) -> Decided:
        del now_ms
        rows: dict[bytes, bytes] = {}
        records = []
        for message in messages:
            change = json.loads(message.value() or b"")
            name = f"{change['at'][:10]} {change['kind_to']}"
            self.counts[name.encode()] += 1
            count = self.counts[name.encode()]
            rows[name.encode()] = count.to_bytes(8)
            told = {"id": f"{message.partition()}/{name}/{count}", "user": name, "at": change["at"]}
            records.append(json.dumps(told).encode())
        return Decided([*rows], b"".join(rows.values()), records=records)


def counted(settings: Settings) -> Outlet:
    return Outlet("counting", f"{settings.topics.changes}-counted", "/counting", "changes.counted")


COUNTING = OwningRole(
    "counting",
    "Counts changes a day per kind.",
    reads=lambda settings: [settings.topics.changes],
    decision=lambda _settings, _number, _secret: Counting(),
    outlet=counted,
)


if __name__ == "__main__":
    roles.register(roles.owning(COUNTING))
    from stream.cli.main import main

    main()
