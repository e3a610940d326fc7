"""Maps inputs of scores: one of a thousand is twice as far from one of thirty as that is from none.

Comes in: inputs in natural units. Goes out: their logs. `model` and `unusual` go by these.
"""

from __future__ import annotations

import numpy as np

from stream.events import Floats


def logs_of(inputs: Floats) -> Floats:
    """Signed logs of inputs in natural units."""
    logs: Floats = np.abs(inputs)
    logs += 1.0
    np.log(logs, out=logs)
    return np.copysign(logs, inputs, out=logs)
