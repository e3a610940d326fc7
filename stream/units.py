"""Durations and times as people write them, and back.

Comes in: text such as ``30d`` or milliseconds. Goes out: seconds, ISO 8601, or ``3.2 days``.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

DAY_MS = 86_400_000

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)?\s*$")


def parse_duration(value: Any) -> Any:
    """Seconds from a number, or from text like ``250ms``, ``10s``, ``6h``, ``30d``.

    Raises:
        ValueError: the text is no duration.
    """
    if not isinstance(value, str):
        return value
    match = _DURATION.match(value)
    if match is None:
        raise ValueError("expected a duration such as 250ms, 10s, 6h or 30d")
    return float(match[1]) * _SECONDS[match[2] or "s"]


def iso(time_ms: int) -> str:
    """Milliseconds since 1970 as ISO 8601 in UTC."""
    moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def isos(times_ms: npt.NDArray[np.int64]) -> list[str]:
    """The same of many times, ``(n,)``."""
    texts: list[str] = np.datetime_as_string(times_ms.astype("datetime64[ms]")).tolist()
    return [text + "Z" for text in texts]


def readable_duration(seconds: float) -> str:
    """``45 s``, ``3.2 hours``, ``12 days``: two significant digits, the largest fitting unit."""
    for name, size in (("days", 86_400.0), ("hours", 3_600.0), ("min", 60.0)):
        if abs(seconds) >= 2 * size:
            value = seconds / size
            return f"{value:.0f} {name}" if abs(value) >= 10 else f"{value:.1f} {name}"
    return f"{seconds:.0f} s" if abs(seconds) >= 10 else f"{seconds:.2g} s"
