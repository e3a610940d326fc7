"""Waits until what was left for the trainer is in force.

Comes in: the store, and what was left there. Goes out: the model that was learned with it. The trainer
reads it at its next round and refits with it; the model it publishes carries the publish rule, and
each partition cuts over in the commit of its adoption.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from stream.insight.facts import AppliedFacts, PlanFacts
from stream.insight.queries import model_in_force
from stream.model import Model
from stream.store.promises import ReaderStore
from stream.told import ToldError
from stream.tuning import Tuning

POLL_SECONDS = 0.1
"""A round's lineage stands in its model; in live mode rounds are seconds apart."""


class NotAppliedError(ToldError):
    """It was left for the trainer, and is not in force within the time given."""


@dataclass(frozen=True)
class Clock:
    """The clock of the one loop here, to be wound by hand in tests."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


CLOCK = Clock()


def wait(store: ReaderStore, tuning: Tuning, seconds: float, clock: Clock = CLOCK) -> Model:
    """The first model seen that was learned with a tuning.

    Raises:
        NotAppliedError: there is none within the time, or another tuning has taken the place.
    """
    deadline = clock.monotonic() + seconds
    while True:
        model = model_in_force(store)
        if model.tuning == tuning.id:
            return model
        found = store.wanted()
        if found is not None and Tuning.unpack(found).id != tuning.id:
            raise NotAppliedError("somebody else has applied something after this")
        if clock.monotonic() >= deadline:
            raise NotAppliedError(
                f"not in force after {seconds:g} s; it stays wanted, and the next round takes it up. "
                "Is a trainer running (segstream run trainer), and are there looks at everyone: "
                "by the wall clock every worker.sweep_seconds, else at the marks of a replay?"
            )
        clock.sleep(POLL_SECONDS)


def facts_of(plan: PlanFacts, tuning: Tuning, model: Model | None) -> AppliedFacts:
    """For ``--json``: the plan, and what came of it."""
    return {
        "plan": plan,
        "tuning": tuning.id,
        "in_force": model is not None,
        "model": None if model is None else model.name,
        # A later version of the same epoch tells its own lineage, not that of the refit.
        "lineage": None if model is None or model.version else list(model.lineage),
    }
