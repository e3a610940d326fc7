"""How far an audit has come is told."""

from __future__ import annotations

import pytest

from consumers.audit import reading
from consumers.audit.report import Progress
from consumers.audit.run import audit
from tests.consumers.audit.world import (
    crowd,
)


def test_how_far_it_is_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    world = crowd()
    monkeypatch.setattr(reading, "TOLD_EVERY", 50)
    monkeypatch.setattr(reading, "count_records", lambda _broker, topic: len(world.topics[topic]))
    steps: list[Progress] = []
    audit(world.settings, world.store, world.read, progress=steps.append)
    clicks = [(s.done, s.total) for s in steps if s.what == "clickstream"]
    assert clicks[0] == (0, 186)
    assert clicks[1:4] == [(50, 186), (100, 186), (150, 186)]
    assert clicks[-1] == (186, 186)
    first = [s.what for s in steps[:5]]
    assert set(first) == set(world.topics), "how much there is is said before anything is read"
