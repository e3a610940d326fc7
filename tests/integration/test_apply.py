"""`plan` and `apply` on a running pipeline: foretold, in force at once, and everyone told."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ops.kafka.server import RealKafka
from producers.replay import InputWriter
from stream.config import Settings
from stream.learning.state import TrainerState
from stream.model import Model
from stream.units import DAY_MS, iso
from tests import harness
from tests.harness import Pipeline
from tests.integration.processes import segstream

pytestmark = [pytest.mark.servers, pytest.mark.slow]

USERS = 800
CLICKS, PURCHASES = 0, 1
SORTS = (
    # Days since the first and the last visit, visits, orders, and what one is worth.
    (60.0, 1.0, 20, 8, 90.0),
    (50.0, 5.0, 8, 3, 25.0),
    (6.0, 0.5, 6, 1, 30.0),
    (55.0, 40.0, 4, 1, 15.0),
    (30.0, 2.0, 12, 0, 0.0),
)
"""Champions, regulars, newcomers, the lost, and those who only look."""


def messages(now_ms: int) -> Iterator[tuple[int, str, dict[str, Any], int]]:
    """What 800 shoppers did in the last two months."""
    rng = np.random.default_rng(20_261_121)
    for number in range(USERS):
        first, last, visits, orders, worth = SORTS[number % len(SORTS)]
        user = f"shopper-{number}"
        days = np.sort(rng.uniform(last, first * rng.uniform(0.8, 1.2), visits + orders))[::-1]
        bought = set(rng.choice(len(days), orders, replace=False).tolist())
        for place, day in enumerate(days.tolist()):
            at = now_ms - int(day * DAY_MS)
            properties: dict[str, Any] = {"category": f"c{rng.integers(5)}"}
            event, topic = "Product Viewed", CLICKS
            if place in bought:
                event, topic = "Order Completed", PURCHASES
                properties = {"revenue": round(float(worth * rng.lognormal(0, 0.2)), 2)}
            message = {
                "type": "track",
                "event": event,
                "userId": user,
                "messageId": f"{user}-{place}",
                "timestamp": iso(at),
                "properties": properties,
            }
            yield topic, user, message, at


def in_force(pipeline: Pipeline, tuned: bool) -> Model | None:
    """The trainer's model, once every partition has adopted it and every change is delivered."""
    found = pipeline.store.model()
    model = None if found is None else TrainerState.unpack(found[1]).model
    if model is None or bool(model.tuning) is not tuned:
        return None
    positions = pipeline.positions()
    adopted = all(p is not None and p.model == model.name for p in positions)
    empty = not any(pipeline.store.outbox_sizes(range(len(positions))))
    return model if adopted and empty else None


def settings_of(kafka: RealKafka, redis_url: str) -> Settings:
    live: harness.Sections = {
        "clock": {"mode": "live"},
        "worker": {"sweep_seconds": 0.5},
        # Nothing but `apply` is a reason to refit.
        "learning": {"refit_seconds": 86_400.0, "segments": 5, "alarm_share": 1.0},
    }
    return harness.watermark_settings(kafka.bootstrap, redis_url, live)


def test_what_is_planned_is_what_apply_does(
    kafka: RealKafka, redis_url: str, tmp_path: Path
) -> None:
    settings = settings_of(kafka, redis_url)
    with Pipeline(settings, tmp_path) as pipeline:
        pipeline.create_topics()
        with InputWriter(settings, None) as writer:
            for topic, user, message, at in messages(int(time.time() * 1_000)):
                writer.send(topic, user.encode(), json.dumps(message).encode(), at)
            writer.finish()
        pipeline.start("activity", "activity", "publisher")
        pipeline.wait("everyone's events", lambda: applied(pipeline) == sum_of_messages())
        # Only now, so that the first model knows everyone and no event moves anybody later.
        pipeline.start("trainer")
        pipeline.wait("the first model", lambda: in_force(pipeline, tuned=False) is not None)
        before = segments(pipeline)
        assert len(before) == USERS

        wanted = tmp_path / "wanted.toml"
        wanted.write_text(pipeline.config.read_text().replace("segments = 5", "segments = 3"))
        own = ("-c", str(pipeline.config))
        plan = segstream(*own, "plan", str(wanted), "--live", "--json")
        assert plan.code == 0, plan.err
        assert segments(pipeline) == before, "a plan changes nothing"
        done = segstream(*own, "apply", str(wanted), "--json")
        assert (done.code, done.facts["in_force"]) == (0, True), done.err
        pipeline.wait("the cut-over", lambda: in_force(pipeline, tuned=True) is not None)
        model = in_force(pipeline, tuned=True)
        assert model is not None

        after = segments(pipeline)
        assert set(after.values()) == set(model.ids.tolist())
        assert {len(part.ids) for part in model.parts if part.population == "customers"} == {3}
        moved = {user for user in after if after[user] != before[user]}
        told = plan.facts
        assert told["users"] == USERS
        foretold = {(cell["from"], cell["to"]): cell["users"] for cell in told["matrix"]}
        assert foretold == Counter((before[user], after[user]) for user in after)
        assert told["moving"] == len(moved) > USERS / 10

        changes = [c for c in pipeline.changes() if c["model"] == model.name]
        assert {c["user"] for c in changes} == moved
        for partition in range(settings.topics.partitions):
            # One commit, and so one moment, in which a partition's users are told of it.
            users = users_of(pipeline, partition)
            assert len({c["at"] for c in changes if c["user"] in users}) <= 1
        gone = {i for i in before.values() if i not in model.ids.tolist()}
        leaves = [c for c in changes if c["cause"] == "segment_retired"]
        assert Counter(c["user"] for c in leaves) == Counter(
            user for user in before if before[user] in gone
        )
        ended = {
            e["segment"] for e in pipeline.lineage() if e["event"] in ("absorbed", "dissolved")
        }
        assert gone <= ended
        pipeline.end()
        harness.assert_clean(pipeline.audit())


def sum_of_messages() -> int:
    return sum(visits + orders for _, _, visits, orders, _ in SORTS) * USERS // len(SORTS)


def applied(pipeline: Pipeline) -> int:
    return sum(p.counts.applied for p in pipeline.positions() if p is not None)


def users_of(pipeline: Pipeline, partition: int) -> set[str]:
    return {user.decode() for user, _ in pipeline.store.load(partition)}


def segments(pipeline: Pipeline) -> dict[str, int]:
    """Where the store has everyone."""
    found = {}
    for partition in range(pipeline.settings.topics.partitions):
        for user, raw in pipeline.store.load(partition):
            row = np.frombuffer(raw, dtype=pipeline.table.dtype)[0]
            found[user.decode()] = int(row["segment"])
    return found
