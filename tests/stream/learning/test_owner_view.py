"""What owners read of the trainer's state, and that the rest of it is none of their business."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from stream.learning.owner_view import OwnerView
from stream.learning.state import Learned, TrainerState
from tests.stream.test_trainer import TABLE, a_shop, first_state

SAMPLED = replace(
    first_state(a_shop()), sample_due_ms=70_000, sample_due_updates=5, announced="1.0", totals_in=3
)
OWNERS_READ = {"model", "sample_due_ms", "learned", "announced", "totals_in"}


def as_told(view: OwnerView) -> tuple[Any, int, dict[str, int], str, int]:
    """A view as something to compare."""
    model = None if view.model is None else view.model.published(TABLE)
    return model, view.sample_due_ms, dict(view.sample_thresholds), view.announced, view.totals_in


@pytest.mark.parametrize("state", [TrainerState(), SAMPLED], ids=["nothing yet", "a model"])
def test_owners_read_from_the_store_what_the_trainer_has(state: TrainerState) -> None:
    stored = OwnerView.unpack(state.pack(TABLE))
    assert as_told(stored) == as_told(state.owner_view)
    assert as_told(stored)[1:] == (
        state.sample_due_ms,
        {name: known.sample_threshold for name, known in state.learned.items()},
        state.announced,
        state.totals_in,
    )
    assert (stored.model is None) == (state.model is None)


def test_what_only_the_trainer_keeps_may_change_without_owners() -> None:
    """Whatever becomes of its fields, and whichever are new, owners read what they read before."""
    stored = json.loads(SAMPLED.pack(TABLE))
    assert set(stored) > OWNERS_READ
    changed = {name: stored[name] if name in OWNERS_READ else ["changed"] for name in stored}
    changed["new"] = {"of": "the trainer"}
    changed["learned"] = {
        name: {**dict.fromkeys(known, "changed"), "sample_threshold": known["sample_threshold"]}
        | {"new": 1}
        for name, known in stored["learned"].items()
    }
    raw = json.dumps(changed).encode()
    with pytest.raises(msgspec.ValidationError):
        TrainerState.unpack(raw)
    assert as_told(OwnerView.unpack(raw)) == as_told(SAMPLED.owner_view)


@pytest.mark.parametrize("name", ["model", "sample_due_ms"])
def test_a_state_without_what_owners_need_is_refused(name: str) -> None:
    stored = json.loads(SAMPLED.pack(TABLE))
    del stored[name]
    with pytest.raises(msgspec.ValidationError):
        OwnerView.unpack(json.dumps(stored).encode())


def test_the_threshold_of_a_population_is_told_by_its_name() -> None:
    state = TrainerState(learned={"new": Learned(sample_threshold=7), "old": Learned()})
    told = OwnerView.unpack(state.pack(TABLE)).sample_thresholds
    assert told == {"new": 7, "old": Learned().sample_threshold}
