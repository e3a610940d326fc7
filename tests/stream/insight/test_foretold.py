"""What is foretold is shown with what carries it, and of whom there is nothing to say, nothing is said."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from stream.cli import explaining, views
from stream.config import Settings
from stream.insight import foretold, queries, why
from stream.insight.facts import SegmentsFacts, UserFacts
from stream.learning.state import TrainerState
from stream.scores.declare import INPUTS
from stream.scores.model import LearnedScore, Scores
from stream.scores.progress import Came, Horizon
from stream.scores.unusual import Habits, Usual
from stream.store.memory import MemoryStore
from stream.store.state import Commit, Position
from stream.units import exact_share
from tests.stream.insight.test_facts import fits
from tests.stream.test_partition import TABLE, history, models, steady

NOW_MS = history()[-1].now_ms
SETTINGS = Settings.model_validate({"topics": {"partitions": 1}, "clock": {"mode": "watermark"}})
K = len(INPUTS)
TURNS = Settings().foretold().turns
BUY = (-0.5, *(0.1 * (-1) ** place for place in range(K)), *(0.05 for _ in range(2 * K)))
SCORES = Scores(
    INPUTS, TURNS, (2.0,) * K, (1.0,) * K, 30.0,
    (
        LearnedScore("buy_probability_90d", "buy", 90.0, BUY, (), 0.4, 812, 0.79, 0.51, 0.02),
        LearnedScore(
            "expected_spend_90d", "spend", 90.0, BUY, (0.2, *(0.0,) * (3 * K)), 0.4, 812,
            captured=0.55, total=1.02,
        ),
    ),
)  # fmt: skip
SEGMENT = int(models()[-1].ids[0])
PEOPLE = Usual(
    ("orders_30d", "tenure_days"), (Habits(SEGMENT, (0.1, 0.2), (0.5, 0.5)),),
    ((1.0, -0.5), (0.0, 1.0)), (0.0, 0.9), (0.0, 2.0), 0.3, 640,
)  # fmt: skip
MODEL = replace(models()[-1], scores=SCORES.with_unusual("unusual", PEOPLE))
STATE = TrainerState(
    model=MODEL,
    round_ms=NOW_MS,
    users=len(steady().rows),
    scored={SEGMENT: [4.0, 5.0, 1.0, 100.0, 3.0]},
    came=(Horizon(90.0, {SEGMENT: Came(40, 12.0, 10.0, 800.0, 880.0), 999: Came(1, 1, 1, 1, 1)}),),
)


def shown(show: Any, *arguments: Any) -> str:
    out = io.StringIO()
    show(Console(file=out, width=160), *arguments)
    return out.getvalue()


@pytest.fixture(scope="module")
def reader() -> queries.Reader:
    store = MemoryStore()
    store.create(0, "owner", Position([0, 0], TABLE.schema))
    kinds = steady().partition.position.kinds
    position = Position([1, 1], TABLE.schema, clock_ms=NOW_MS, model=MODEL.name, kinds=kinds)
    rows = steady().rows
    store.commit(0, "owner", Commit(0, position, list(rows), b"".join(rows.values())))
    store.lead("trainer")
    assert store.put_model("trainer", STATE.pack(TABLE), NOW_MS)
    return queries.Reader(SETTINGS, store, TABLE)


def customers(reader: queries.Reader) -> dict[bool, list[str]]:
    """Names of users who have ordered, and of those who have not."""
    found: dict[bool, list[str]] = {True: [], False: []}
    place = TABLE.names.index("orders_total")
    for name in steady().rows:
        row, now_ms, _ = reader.row_of(name.decode())
        orders = TABLE.vectors(row, now_ms)[0, place]
        found[bool(orders > 0.5)].append(name.decode())
    return found


def test_a_customer_has_scores_and_others_have_none(reader: queries.Reader) -> None:
    known = customers(reader)
    buyer = reader.user(known[True][0], lambda _: [])
    assert fits(buyer, UserFacts)
    likely, money, _ = buyer["scores"]
    assert likely["score"] == "buy_probability_90d"
    assert 0 < likely["value"] < 1
    assert money["unit"] == "money"
    text = shown(views.show_user, buyer, TABLE)
    assert "foretold: buy_probability_90d " in text
    other = reader.user(known[False][0], lambda _: [])
    assert [one["score"] for one in other["scores"]] == ["unusual"]
    assert "foretold" not in shown(views.show_user, other, TABLE)


def test_what_carries_a_score_adds_up(reader: queries.Reader) -> None:
    name = customers(reader)[True][0]
    told = why.why(reader, name)
    assert told is not None
    likely, money = told["scores"]
    assert math.isclose(
        likely["log_odds"], likely["average"] + sum(part["log_odds"] for part in likely["parts"])
    )
    assert math.isclose(likely["value"], 1 / (1 + math.exp(-likely["log_odds"])))
    sizes = [abs(part["log_odds"]) for part in likely["parts"]]
    assert sizes == sorted(sizes, reverse=True)
    assert money["log_odds"] == likely["log_odds"]
    text = shown(explaining.show_why, told, TABLE)
    assert "What carries buy_probability_90d" in text
    assert f"{likely['log_odds']:+.3f}" in text


def test_segments_tell_what_scores_come_to(reader: queries.Reader) -> None:
    found = queries.segments(queries.trainer_state(reader.store), TABLE)
    assert fits(found, SegmentsFacts)
    scored = {one["id"]: one["scores"] for one in found["segments"]}
    assert scored[SEGMENT] == [
        {"score": "buy_probability_90d", "unit": "probability", "users": 4, "mean": 0.25, "total": 1.0,
         "looks": 40, "foretold": 0.3, "came": 0.25},
        {"score": "expected_spend_90d", "unit": "money", "users": 4, "mean": 25.0, "total": 100.0,
         "looks": 40, "foretold": 20.0, "came": 22.0},
        {"score": "unusual", "unit": "share who are less far", "users": 5, "mean": 0.6, "total": 3.0,
         "looks": 0, "foretold": None, "came": None},
    ]  # fmt: skip
    assert all(not scores for segment, scores in scored.items() if segment != SEGMENT)
    text = shown(views.show_segments, found, TABLE)
    assert "25 %" in text
    assert "unusual: held against 640 users" in text
    told = "buy_probability_90d: 25 % of 40 looked at came back, 30 % foretold"
    assert f"{SEGMENT}: {told}" in text
    assert "learned from 812 looks, 40 % of them with an order; AUC 0.790" in text
    assert "spent 55 % of all, and all that was predicted is 1.02 of what was spent" in text
    small = io.StringIO()
    views.show_segments(Console(file=small, width=90), found, TABLE)
    assert "buy_probability_90d 25 %; expected_spend_90d 25" in " ".join(small.getvalue().split())


def test_without_scores_nothing_is_foretold() -> None:
    bare = models()[-1]
    vector = TABLE.vectors(steady().partition.rows[:1], NOW_MS)[0]
    assert foretold.learned(bare) == []
    assert foretold.of_user(bare, vector, TABLE) == []
    assert foretold.why(bare, vector, TABLE) == []
    assert foretold.why_unusual(bare, vector, TABLE) is None


def test_what_was_counted_of_other_scores_is_not_told() -> None:
    assert foretold.of_segment(MODEL, {SEGMENT: [4.0, 1.0]}, SEGMENT) == []
    assert foretold.of_segment(MODEL, {SEGMENT: [0.0] * 5}, SEGMENT) == []


def test_whoever_looks_only_may_be_unusual(reader: queries.Reader) -> None:
    """Nothing is foretold of who has not ordered; a bot is one of these."""
    name = customers(reader)[False][0]
    told = reader.user(name, lambda _: [])
    (odd,) = told["scores"]
    assert odd["score"] == "unusual"
    assert (
        f"farther from what people like them do than {exact_share(odd['value'])} of all"
        in shown(views.show_user, told, TABLE)
    )
    facts = why.why(reader, name)
    assert facts is not None
    unusual = facts["unusual"]
    assert unusual is not None
    assert facts["scores"] == []
    assert unusual["value"] == odd["value"]
    assert unusual["segment"] == SEGMENT
    assert math.isclose(sum(part["squared"] for part in unusual["parts"]), unusual["distance"] ** 2)
    sizes = [part["squared"] for part in unusual["parts"]]
    assert sizes == sorted(sizes, reverse=True)
    text = " ".join(shown(explaining.show_why, facts, TABLE).split())
    assert f"than {exact_share(odd['value'])} of all: held against {SEGMENT}, " in text
    assert f"{sizes[0] / unusual['distance'] ** 2:.0%}" in text
