"""Durations, times and shares as people write them, and durations back.

Comes in: text such as ``30d``, milliseconds, shares. Goes out: seconds, ISO 8601, ``3.2 days``, ``12 %``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
DAY_MINUTES = DAY_MS // MINUTE_MS

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


def milliseconds(moment: datetime) -> int:
    """Milliseconds since 1970; a moment without a zone is UTC."""
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000)


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


def percent(share: float | None) -> str:
    """``<0.1 %``, ``0.3 %``, ``12 %``, ``>99 %``, ``100 %``; a dash where there is no share.

    Only none is 0 % and only all is 100 %.
    """
    if share is None:
        return "-"
    if 0 < share < 0.0095:
        return "<0.1 %" if share < 0.0005 else f"{100 * share:.1f} %"
    return ">99 %" if 0.995 <= share < 1 else f"{100 * share:.0f} %"


def exact_share(share: float) -> str:
    """``42 %``, ``99.4 %``, ``99.97 %``: the nearer to all, the finer."""
    if share >= 1.0:
        return "100 %"
    for digits, least in ((0, 0.985), (1, 0.9985), (2, 0.99985), (3, 0.999985)):
        if share < least:
            return f"{100 * share:.{digits}f} %"
    return ">99.998 %"


def percents(counts: Sequence[int]) -> list[str]:
    """What share of their sum each is, rounded so that all together are 100 %."""
    total = sum(counts)
    told = apportion(counts, 100) if total else [0] * len(counts)
    return [
        "<1 %"
        if share == 0 < count
        else ">99 %"
        if share == 100 and count < total
        else f"{share} %"
        for share, count in zip(told, counts, strict=True)
    ]


def apportion(counts: Sequence[float], total: int) -> list[int]:
    """Counts scaled so that they add up to a total, each rounded up or down, the largest rests up."""
    whole = sum(counts)
    if whole == 0:
        return [0] * len(counts)
    parts = [(int(count * total // whole), count * total % whole) for count in counts]
    short = total - sum(part for part, _ in parts)
    upwards = sorted(range(len(parts)), key=lambda place: -parts[place][1])[:short]
    return [part + (place in upwards) for place, (part, _) in enumerate(parts)]
