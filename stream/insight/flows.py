"""Counts how users go from kind to kind, by the hour.

Comes in: changes as they are read. Goes out: flows within a time, for as long as is remembered. An hour is a
few numbers, so a week of them costs nothing, however many changes there were.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from stream.insight.facts import FlowsFacts, KindFlow, SegmentFlow
from stream.kinds import CHURN_RISK_KINDS
from stream.units import HOUR_MS, iso, parse_duration

HOURS = 8 * 24
"""So many are remembered: a week, and a day more for partitions that are behind."""


class _Hour(NamedTuple):
    """Changes of an hour: by kinds and cause, and by segments and whether the user came back."""

    kinds: Counter[tuple[str | None, str, str]]
    segments: Counter[tuple[Any, Any, bool]]


class Flows:
    """Flows of the last days by the clock of the changes. Not to be shared between threads."""

    def __init__(self) -> None:
        self._hours: dict[int, _Hour] = {}
        self._known_since_ms: int | None = None

    def take(self, change: Mapping[str, Any], at_ms: int) -> None:
        """Count a change, unless it is of long before the newest."""
        known = self._known_since_ms
        self._known_since_ms = at_ms if known is None else min(known, at_ms)
        hour = at_ms // HOUR_MS
        newest = max(self._hours, default=hour)
        if hour <= newest - HOURS:
            return
        if hour > newest:
            self._hours = {at: one for at, one in self._hours.items() if at > hour - HOURS}
        counted = self._hours.setdefault(hour, _Hour(Counter(), Counter()))
        kind_from, kind_to = change.get("kind_from"), change["kind_to"]
        if kind_from != kind_to:
            counted.kinds[kind_from, kind_to, str(change.get("cause", ""))] += 1
        came_back = kind_from in CHURN_RISK_KINDS and kind_to not in CHURN_RISK_KINDS
        counted.segments[change.get("from"), change.get("to"), came_back] += 1

    def facts(self, within: str, now_ms: int) -> FlowsFacts:
        """Flows within a time before now, to the hour; the largest first."""
        begin_ms = max(now_ms - round(float(parse_duration(within)) * 1_000), 0)
        # The hour in which it begins is part of it: an hour ago is at least an hour.
        hours = [one for at, one in self._hours.items() if at >= begin_ms // HOUR_MS]
        told = _kinds(hours)
        return {
            "within": within,
            "at": iso(now_ms),
            "since": iso(begin_ms // HOUR_MS * HOUR_MS),
            "known_since": None if self._known_since_ms is None else iso(self._known_since_ms),
            "changes": sum(one["changes"] for one in told),
            "came_back": sum(
                changes
                for hour in hours
                for (_, _, came_back), changes in hour.segments.items()
                if came_back
            ),
            "flows": told,
            "segments": _segments(hours),
        }


def _kinds(hours: Sequence[_Hour]) -> list[KindFlow]:
    found: dict[tuple[str | None, str], Counter[str]] = {}
    for hour in hours:
        for (kind_from, kind_to, cause), changes in hour.kinds.items():
            found.setdefault((kind_from, kind_to), Counter())[cause] += changes
    told: list[KindFlow] = [
        {
            "kind_from": kind_from,
            "kind_to": kind_to,
            "changes": causes.total(),
            "by_cause": dict(causes.most_common()),
        }
        for (kind_from, kind_to), causes in found.items()
    ]
    return sorted(told, key=lambda one: (-one["changes"], one["kind_from"] or "", one["kind_to"]))


def _segments(hours: Sequence[_Hour]) -> list[SegmentFlow]:
    found: dict[int, SegmentFlow] = {}

    def of(segment: int) -> SegmentFlow:
        nothing: SegmentFlow = {"segment": segment, "came": 0, "left": 0, "came_back": 0}
        return found.setdefault(segment, nothing)

    for hour in hours:
        for (before, after, came_back), changes in hour.segments.items():
            if before == after:
                continue
            if isinstance(before, int):
                of(before)["left"] += changes
            if isinstance(after, int):
                of(after)["came"] += changes
                of(after)["came_back"] += came_back * changes
    return [found[segment] for segment in sorted(found)]
