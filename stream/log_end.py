"""What the input topics end with: how far the shop's clock has come, and what was said since.

Comes in: from a reader of topics (`consumers.log_end`). Goes out: to whoever writes on (`replay`),
to be told what would come too late and what is there already.
"""

from __future__ import annotations

from typing import NamedTuple


class LogEnd(NamedTuple):
    """The end of the input topics.

    Attributes:
        mark_ms: every partition has the mark of this time, and with it whatever came before; 0 if
            one has none.
        latest_ms: the newest mark of any partition: the pipeline's clock, once it has read that.
        ids: message ids after `mark_ms`, or, without marks, the last few of each partition, with
            the times of their records.
    """

    mark_ms: int
    latest_ms: int
    ids: dict[str, int]
