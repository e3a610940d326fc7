"""What is said of a user adds up, is enough, and is no more than enough."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from stream.cli import main, roles, views
from stream.clustering import GRID, FeatureMap, distances, on_grid
from stream.config import Settings
from stream.events import Floats, Rows
from stream.explain import How, _enough, departures, how, margin, nearest_other, proposals
from stream.features import Feature
from stream.learning import TrainerState
from stream.model import Model, Segment
from stream.partition import Partition
from stream.segments import PublishRule
from stream.state import Commit, MemoryStore, Position
from stream.units import DAY_MS, iso
from tests.strategies import EVERY_AGGREGATE
from tests.stream.test_partition import RULE, TABLE, history, models, steady

NAMES = TABLE.names


@lru_cache(maxsize=1)
def everyone() -> Rows:
    return np.frombuffer(b"".join(steady().rows.values()), TABLE.dtype)


def now_ms() -> int:
    return history()[-1].now_ms


def some_model(rng: np.random.Generator, k: int) -> Model:
    """A model whose features have limits of every kind: wide, narrow, one-sided, none at all."""
    features = len(NAMES)
    low = rng.uniform(-2.0, 0.0, features) * rng.choice([0.0, 1.0], features)
    high = low + rng.uniform(0.0, 5.0, features) * rng.choice([0.0, 1.0], features, p=[0.1, 0.9])
    scale = rng.uniform(0.2, 2.0, features)
    mapping = FeatureMap(
        low=low,
        high=high,
        centre=rng.uniform(low, high),
        scale=scale,
        weights=rng.integers(0, 65, features) / 64,
    )
    return Model(
        epoch=1,
        version=0,
        at_ms=0,
        schema=TABLE.schema,
        map=mapping,
        centroids=on_grid(rng.uniform(-2.0, 2.0, (k, features))),
        segments=tuple(Segment(10 + 3 * n, f"s{n}", "loyal", 1, "1.0") for n in range(k)),
    )


def some_vector(rng: np.random.Generator, model: Model, own: int) -> Floats:
    """Somewhere about a centroid, often outside the limits of a feature."""
    about = model.centroids[own] + rng.normal(0.0, 0.7, len(NAMES))
    vector: Floats = model.map.invert(about)
    return vector


def would_move(vector: Floats, model: Model, own: int, target: int, rule: PublishRule) -> bool:
    """The publish rule in plain words: nearest of all, and over the margin."""
    mapped = model.map.apply(vector[None])
    squared = [Fraction(d) for d in distances(mapped, model.centroids, model.map.weights)[0]]
    nearest = all(squared[target] < d for c, d in enumerate(squared) if c != target)
    gap = Fraction(float(model.gaps[own, target])) or Fraction(1)
    return nearest and float((squared[own] - squared[target]) / (2 * gap)) > rule.margin_twice


# -- the margin --------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
@settings(max_examples=60, deadline=None)
def test_the_parts_of_a_margin_add_up_exactly(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    model = some_model(rng, k)
    own = int(rng.integers(k))
    vector = some_vector(rng, model, own)
    found = margin(vector, model, TABLE.features, own)
    squared = distances(model.map.apply(vector[None]), model.centroids, model.map.weights)[0]
    other = model.ids.tolist().index(found.other)
    assert other == nearest_other(vector, model, own) != own
    assert squared[other] == min(d for c, d in enumerate(squared) if c != own)
    total = sum((Fraction(part.contribution) for part in found.parts), Fraction(0))
    assert total == Fraction(found.difference) == Fraction(squared[own]) - Fraction(squared[other])
    assert sorted(part.feature for part in found.parts) == sorted(NAMES)
    sizes = [abs(part.contribution) for part in found.parts]
    assert sizes == sorted(sizes, reverse=True)


def test_a_margin_is_a_half_at_the_centroids() -> None:
    model = some_model(np.random.default_rng(4), 2)
    model = replace(model, map=replace(model.map, low=np.full(len(NAMES), -50.0),
                                       high=np.full(len(NAMES), 50.0)))  # fmt: skip
    here, there = model.natural()
    assert margin(here, model, TABLE.features, 0).z == -0.5
    assert margin(there, model, TABLE.features, 0).z == 0.5


def test_a_model_of_one_segment_has_no_margin() -> None:
    model = some_model(np.random.default_rng(1), 1)
    with pytest.raises(ValueError, match="no other segment"):
        margin(np.zeros(len(NAMES)), model, TABLE.features, 0)


# -- what would move them ----------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.sampled_from([0.0, 0.1, 0.125, 0.4]))
@settings(max_examples=80, deadline=None)
def test_a_proposal_is_enough_and_no_less_is(seed: int, k: int, margin_twice: float) -> None:
    rng = np.random.default_rng(seed)
    model, rule = some_model(rng, k), replace(RULE, margin_twice=margin_twice)
    own = int(rng.integers(k))
    target = int((own + rng.integers(1, k)) % k)
    vector = some_vector(rng, model, own)
    found = {p.feature: p for p in proposals(vector, model, TABLE.features, own, target, rule)}
    if would_move(vector, model, own, target, rule):
        assert not found, "nothing is needed"
        return
    mapped = model.map.apply(vector[None])[0]
    for column, name in enumerate(NAMES):
        changed = vector.copy()
        if (proposal := found.get(name)) is None:
            # Nothing within the limits does it; two centroids may leave a gap of a grid point.
            low, high = model.map.apply(np.array([[-1e9] * len(NAMES), [1e9] * len(NAMES)]))
            there = np.repeat(mapped[None], 60, axis=0)
            there[:, column] = on_grid(np.linspace(low[column], high[column], 60))
            assert not _enough(there, model, own, target, rule).any(), name
            continue
        changed[column] = proposal.needed
        assert would_move(changed, model, own, target, rule)
        assert proposal.value == vector[column]
        moved = model.map.apply(changed[None])[0]
        assert moved[column] - mapped[column] == pytest.approx(proposal.sd, abs=1e-12)
        step = np.sign(proposal.sd) / GRID
        for less in (2 * step, proposal.sd / 2, proposal.sd):
            there = mapped.copy()
            there[column] += on_grid(np.array(proposal.sd - less))
            if abs(there[column] - mapped[column]) < abs(proposal.sd):
                changed[column] = model.map.invert(there)[column]
                assert not would_move(changed, model, own, target, rule)
    sizes = [abs(proposal.sd) for proposal in found.values()]
    assert sizes == sorted(sizes)


def test_proposals_are_found_where_there_are_some() -> None:
    """Or the property above would hold of nothing."""
    found = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        model = some_model(rng, 3)
        found += bool(proposals(some_vector(rng, model, 0), model, TABLE.features, 0, 1, RULE))
    assert found > 15


def test_a_feature_without_weight_or_room_is_not_proposed() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        model = some_model(rng, 2)
        shut = model.map.low == model.map.high
        for one in proposals(some_vector(rng, model, 0), model, TABLE.features, 0, 1, RULE):
            column = NAMES.index(one.feature)
            assert model.map.weights[column] > 0
            assert not shut[column]


@pytest.mark.parametrize(
    ("name", "up", "down"),
    [
        ("tenure", "with time", "not theirs to change"),
        ("seen", "with time", "by acting"),
        ("orders_1d", "by acting", "with time"),
        ("categories_7d", "by acting", "with time"),
        ("net_1d", "by acting", "by either"),
        ("items_1d", "by acting", "by acting"),
        ("conversion", "by either", "by either"),
    ],
)
def test_what_makes_a_feature_rise_or_fall(name: str, up: How, down: How) -> None:
    feature: Feature = next(one for one in EVERY_AGGREGATE if one.name == name)
    assert (how(feature, rises=True), how(feature, rises=False)) == (up, down)


# -- silence -----------------------------------------------------------------------------------


def test_silence_moves_them_when_it_was_said() -> None:
    """A partition that is swept twice a day, without an event, does what was foretold."""
    model, days = models()[-1], 40
    partition = Partition(0, TABLE, RULE, Position([0, 0], TABLE.schema), 0)
    partition.load(steady().rows.items())
    partition.model = model
    for day in range(days + 1):
        for _ in range(2):
            partition.sweep(now_ms() + day * DAY_MS, 0)
    happened: dict[str, list[tuple[str, int]]] = {user.decode(): [] for user in steady().rows}
    for line in partition._pending:
        change = json.loads(line)
        happened[change["user"]].append((change["at"], change["to"]))
    before = everyone().tobytes()
    said = {
        user.decode(): [
            (iso(one.at_ms), one.to)
            for one in departures(everyone()[i : i + 1], TABLE, model, RULE, now_ms(), days)
        ]
        for i, user in enumerate(steady().rows)
    }
    assert everyone().tobytes() == before
    assert happened == said
    assert sum(map(len, said.values())) > 20


def test_who_is_in_a_retired_segment_leaves_at_once() -> None:
    row = everyone()[:1].copy()
    row["segment"] = 99
    found = departures(row, TABLE, models()[-1], RULE, now_ms(), 3)
    assert found[0].days == 0


# -- the command -------------------------------------------------------------------------------


def running() -> MemoryStore:
    """A store with the users of a small shop's history, and the model they are in."""
    store = MemoryStore()
    store.create(0, "owner", Position([0, 0], TABLE.schema))
    position = Position([1, 1], TABLE.schema, clock_ms=now_ms(), model=models()[-1].name)
    rows = steady().rows
    store.commit(0, "owner", Commit(0, position, list(rows), b"".join(rows.values())))
    store.lead("trainer")
    state = TrainerState(model=models()[-1], round_ms=now_ms(), users=len(rows))
    assert store.put_model("trainer", state.pack(TABLE), now_ms())
    return store


class Command:
    """Runs a command on a store, and says what it said."""

    def __init__(
        self, store: MemoryStore, patch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
        folder: Path,
    ) -> None:  # fmt: skip
        @contextmanager
        def opened(_: Settings) -> Iterator[MemoryStore]:
            yield store

        patch.setattr(roles, "open_store", opened)
        patch.setattr(main, "out", Console(highlight=False, width=160))
        patch.setattr(main, "err", Console(stderr=True, highlight=False, width=1_000))
        self.config = folder / "shop.toml"
        self.config.write_text('[topics]\npartitions = 1\n[clock]\nmode = "watermark"\n')
        self._patch, self._capfd = patch, capfd

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self._patch.setattr(sys, "argv", ["segstream", "-c", str(self.config), *arguments])
        with pytest.raises(SystemExit) as ended:
            main.main()
        said = self._capfd.readouterr()
        return int(str(ended.value.code or 0)), said.out, said.err


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    records = steady().records()
    monkeypatch.setattr(views.Reader, "changes", lambda _self, _partitions=None: iter(records))
    return Command(running(), monkeypatch, capfd, tmp_path)


def test_why(command: Command) -> None:
    code, said, _ = command("user", "user 1", "--why", "--json")
    assert code == 0
    facts: dict[str, Any] = json.loads(said.splitlines()[-1])
    border = facts["why"]["margin"]
    assert border["own"] == facts["segment"]["id"]
    parts = sum((Fraction(part["contribution"]) for part in border["parts"]), Fraction(0))
    assert parts == Fraction(border["difference"])
    assert facts["why"]["moves"][0]["segment"] == border["other"]
    assert all(len(move["changes"]) <= 3 for move in facts["why"]["moves"])
    days = [move["days"] for move in facts["why"]["silence"]]
    assert days
    assert days == sorted(days)


def test_why_for_people(command: Command) -> None:
    for user in ("user 2", "user 3", "user 7"):
        code, said, _ = command("user", user, "--why")
        assert code == 0
        assert "What holds them" in said
        assert "What alone would move them" in said
        assert "If they stay silent" in said


def test_why_nobody_is_asked_for(command: Command) -> None:
    code, said, _ = command("user", "user 2", "--json")
    assert code == 0
    assert "why" not in json.loads(said)


def test_why_of_an_unknown_user(command: Command) -> None:
    code, said, told = command("user", "nobody", "--why")
    assert (code, said) == (1, "")
    assert "unknown" in told


def test_rows_of_another_feature_table_are_refused(command: Command) -> None:
    with command.config.open("a") as file:
        file.write('[[features]]\nname = "seen"\naggregate = "last"\n[[kinds]]\nkind = "new"\n'
                   "when = { seen = { max = 3 } }\n")  # fmt: skip
    code, said, told = command("user", "user 2", "--why")
    assert (code, said) == (2, "")
    assert "feature table" in told
