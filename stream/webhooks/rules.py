"""What holds for the deliveries of a partition, whatever the endpoint.

Comes in: settings. Goes out: `Rules` for `queue`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Rules(NamedTuple):
    """See `stream.config.Webhooks`.

    Attributes:
        share: of the endpoints' limits that is this partition's.
    """

    retries_ms: Sequence[int]
    open_after: int
    open_ms: int
    most_open_ms: int
    waiting: int
    share: float
