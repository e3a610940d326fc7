"""Steps of levels are held to the log: a step that is stored and cannot be is named, by marks and live."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from consumers.audit.chains import Chains, Step
from consumers.audit.levels import LevelsCheck
from consumers.audit.snapshot import Snapshot, Snapshots
from stream.config import Settings
from stream.events import Rows
from stream.learning.state import TrainerState
from stream.levels.declare import USUAL_LEVELS
from stream.model import Model
from stream.oracle import Reading
from stream.store.memory import MemoryStore
from stream.units import DAY_MS, iso
from tests.strategies import START_MS
from tests.stream.levels.making import TABLE, Shop, model, order, view, with_odd

AT_MS = START_MS + 100 * DAY_MS


class Shopper:
    """What the log says of somebody, as the columns do."""

    def __init__(self, row: Rows) -> None:
        self._row = row
        self.as_of_ms = int(row["as_of"][0])

    def readings(self, _: Any, now_ms: int) -> dict[str, Reading]:
        vector = TABLE.vectors(self._row, now_ms)[0].tolist()
        return {name: Reading(value, 0.0) for name, value in zip(TABLE.names, vector, strict=True)}


class Scene:
    """A partition that was looked at, its snapshot, and its log."""

    def __init__(self, mode: str, made: Model | None = None) -> None:
        made = made or model()
        clock = {"mode": mode, "mark_seconds": 86_400}
        self.settings = Settings.model_validate({"clock": clock, "levels": USUAL_LEVELS})
        shop = Shop()
        shop.act([order("ann", START_MS, 1), view("bob", START_MS, 2)], START_MS)
        shop.adopt(made, START_MS)
        shop.sweep(AT_MS)
        shop.commit(AT_MS)
        (part,) = shop.parts
        position = msgspec.structs.replace(part.position, mark_ms=AT_MS)
        rows = part.rows
        self.rows = {name.decode(): rows[n : n + 1].copy() for n, name in enumerate(part.names)}
        users = {name: Shopper(row.copy()) for name, row in self.rows.items()}
        self.log: Any = SimpleNamespace(oracles={0: SimpleNamespace(users=users)})
        self.snapshot = Snapshot(position, position, {}, len(rows), [], {}, {})
        self.snapshots: Any = Snapshots(MemoryStore(), 1, SimpleNamespace(has=lambda _: True))  # type: ignore[arg-type]
        store = MemoryStore()
        store.lead("trainer")
        packed = TrainerState(model=made).pack(TABLE)
        assert store.put_model("trainer", packed, AT_MS)
        self.chains = Chains()
        self.check = LevelsCheck(self.settings, self.snapshots)
        self.check.read(store)

    def compare(self) -> list[str]:
        self.snapshot.rows = {name: row.tobytes() for name, row in self.rows.items()}
        self.check.compare(0, self.snapshot, self.log, self.chains)
        return self.check.check.offenders

    def put(self, user: str, level: str, step: str) -> None:
        names = self.snapshot.position.levels
        self.rows[user]["levels"][:, list(names).index(level)] = names[level].index(step) + 1


@pytest.mark.parametrize("mode", ["watermark", "live"])
def test_what_an_owner_told_is_right(mode: str) -> None:
    scene = Scene(mode)
    assert scene.compare() == []
    assert scene.check.check.counted == 2


@pytest.mark.parametrize("mode", ["watermark", "live"])
@pytest.mark.parametrize(
    ("user", "level", "step", "told"),
    [
        ("ann", "churn_risk", "low", "on low of churn_risk, and is below it"),
        ("ann", "purchase_stage", "loyal", "is below it"),
        ("bob", "churn_risk", "high", "has no score"),
        ("bob", "purchase_stage", "first_time", "is below it"),
    ],
)
def test_a_step_that_cannot_be_is_named(
    mode: str, user: str, level: str, step: str, told: str
) -> None:
    scene = Scene(mode)
    scene.put(user, level, step)
    (found,) = scene.compare()
    assert told in found
    assert user in found


@pytest.mark.parametrize("mode", ["watermark", "live"])
def test_how_unusual_somebody_is_is_found_anew(mode: str) -> None:
    scene = Scene(mode, model(levels=with_odd()))
    assert scene.compare() == []
    scene.put("ann", "oddness", "unusual")
    (found,) = scene.compare()
    assert "ann" in found
    assert "is on unusual of oddness, and is below it" in found


def test_who_was_not_taken_over_a_limit_by_time_is_named() -> None:
    """Ninety days before, she was on another step, and rightly."""
    scene = Scene("watermark")
    scene.put("ann", "churn_risk", "medium")
    assert len(scene.compare()) == 1
    scene = Scene("live")
    scene.put("ann", "churn_risk", "low")
    early = START_MS + DAY_MS
    scene.snapshot.position = msgspec.structs.replace(scene.snapshot.position, levels_ms=early)
    assert scene.compare() == [], "she may have been looked at then"


@pytest.mark.parametrize(
    ("version", "at_ms", "judged"), [(9, AT_MS, False), (1, AT_MS + 1, False), (1, AT_MS, True)]
)
def test_who_goes_where_delivered_changes_led_before_the_store_lost_commits_is_not_judged(
    version: int, at_ms: int, judged: bool
) -> None:
    scene = Scene("watermark")
    scene.put("ann", "churn_risk", "low")
    chain = (0, "ann", scene.snapshot.position.incarnation)
    scene.chains.take(chain, Step(version, None, 3, iso(at_ms), "here"))
    assert bool(scene.compare()) is judged
    assert scene.check.check.unjudged == (0 if judged else 1)


@pytest.mark.parametrize("other", [{"model": "0.9"}, {"levels_by": "others"}])
def test_what_was_looked_at_by_other_levels_is_not_judged(other: dict[str, str]) -> None:
    scene = Scene("watermark")
    scene.put("ann", "churn_risk", "low")
    scene.snapshot.position = msgspec.structs.replace(scene.snapshot.position, **other)
    assert scene.compare() == []
    assert scene.check.check.unjudged == 2


@pytest.mark.parametrize(
    ("changed", "ok"),
    [
        ({}, True),
        ({"value": 0.5}, False),
        ({"step_from": "high", "step_to": "medium"}, False),
        ({"step_to": "medium"}, False),
        ({"limit": 0.29}, True),
        ({"level": "of_before"}, True),
        ({"step_from": None}, True),
    ],
)
def test_a_crossing_leads_where_its_value_lies(changed: dict[str, Any], ok: bool) -> None:
    scene = Scene("watermark")
    told: dict[str, Any] = {
        "level": "churn_risk",
        "user": "ann",
        "step_from": "medium",
        "step_to": "high",
    }
    told |= {"of": "likely_back", "limit": 0.3, "value": 0.2}
    scene.check.take(0, told | changed, "here")
    assert scene.check.check.ok is ok
