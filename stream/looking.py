"""Looks at users under a model: where they lie, and who moves by the publish rule.

Comes in: rows and vectors. Goes out: their places in the model, and the rule's answer. `segments` has the
rule; `partition` and `acting` ask.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stream.events import CAUSES, Cause, Floats, Rows
from stream.model import Model, Placed
from stream.segments import Look, PublishRule, look


def look_under(
    model: Model,
    rule: PublishRule,
    rows: Rows,
    vectors: Floats,
    causes: npt.NDArray[np.uint8],
    now_ms: int,
    looked_under: str = "",
) -> tuple[Placed, Look]:
    """Look at users under a model; rows change in place.

    Args:
        looked_under: the model under which everyone was looked at last; empty for none.
    """
    placed = model.place(vectors, rows["segment"])
    if looked_under and len(model.populations) > 1:
        # An adoption may find that time has passed, too: no model took them to a population that
        # was known before.
        known = model.known_since(looked_under)[placed.populations]
        by_model = placed.crossing & known & (causes == CAUSES.index(Cause.MODEL_MOVED))
        causes = np.where(by_model, CAUSES.index(Cause.TIME_PASSED), causes).astype(np.uint8)
    answer = look(
        rows, placed.squared, model.ids, model.gaps, rule, causes, now_ms, placed.crossing,
        model.nearness, rule.resting(model.populations.features, vectors),
    )  # fmt: skip
    return placed, answer
