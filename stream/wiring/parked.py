"""Facts of deliveries that were given up, and of those that are to be sent again.

Comes in: letters. Goes out: facts; `stream.cli.webhooks` shows them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from typing_extensions import TypedDict

from consumers.parked import Parked
from producers.parked import replay as ask
from stream.config import ConfigError, Settings
from stream.units import iso
from stream.webhooks.letters import Letter


class ParkedReason(TypedDict):
    """What was given up for an endpoint for one reason."""

    endpoint: str
    reason: str
    letters: int
    replayed: int
    first: str
    last: str
    detail: str
    example: str


class ParkedFacts(TypedDict):
    """How many deliveries were given up."""

    letters: int
    reasons: list[ParkedReason]


class ReplayedFacts(TypedDict):
    """How many letters are to be sent again, or would be, and what became of the others."""

    asked: int
    would_ask: int
    endpoints: dict[str, int]
    sent_before: int
    too_late: int
    undeclared: int
    beyond_limit: int


def parked_facts(found: Parked) -> ParkedFacts:
    """How many deliveries were given up, by endpoint and reason."""
    reasons: dict[tuple[str, str], ParkedReason] = {}
    for letter in found.letters.values():
        key = letter["endpoint"], letter["reason"]
        if key not in reasons:
            reasons[key] = {
                "endpoint": letter["endpoint"],
                "reason": letter["reason"],
                "letters": 0,
                "replayed": 0,
                "first": letter["at"],
                "last": letter["at"],
                "detail": letter["detail"],
                "example": letter["id"],
            }
        one = reasons[key]
        one["letters"] += 1
        one["replayed"] += letter["id"] in found.replayed
        one["first"] = min(one["first"], letter["at"])
        if letter["at"] >= one["last"]:
            one |= {"last": letter["at"], "detail": letter["detail"], "example": letter["id"]}
    told = sorted(reasons.values(), key=lambda one: (-one["letters"], one["endpoint"]))
    return {"letters": len(found.letters), "reasons": told}


def replay(
    settings: Settings,
    found: Parked,
    now_ms: int,
    *,
    endpoint: str | None,
    reason: str | None,
    since_ms: int,
    limit: int | None,
    again: bool,
    late: bool,
    dry_run: bool,
    told: Callable[[int], None],
) -> ReplayedFacts:
    """Ask the role to send letters again.

    Args:
        since_ms: only letters filed from then on.
        again: also those that were asked for before.
        late: also those whose trigger is no longer valid.
        told: is told how many were asked for so far.

    Raises:
        ConfigError: there is no such endpoint, neither declared nor among the letters.
    """
    declared = [one.name for one in settings.endpoints]
    _see_endpoint(endpoint, [*declared, *(one["endpoint"] for one in found.letters.values())])
    now, since = iso(now_ms), iso(since_ms)
    facts: ReplayedFacts = {
        "asked": 0, "would_ask": 0, "endpoints": {}, "sent_before": 0, "too_late": 0, "undeclared": 0,
        "beyond_limit": 0,
    }  # fmt: skip
    chosen: list[Letter] = []
    for letter in found.letters.values():
        if (
            (endpoint is not None and letter["endpoint"] != endpoint)
            or (reason is not None and letter["reason"] != reason)
            or letter["at"] < since
        ):
            continue
        if letter["endpoint"] not in declared:
            facts["undeclared"] += 1
        elif letter["id"] in found.replayed and not again:
            facts["sent_before"] += 1
        elif letter["trigger"]["valid_until"] < now and not late:
            facts["too_late"] += 1
        elif limit is not None and len(chosen) == limit:
            facts["beyond_limit"] += 1
        else:
            chosen.append(letter)
    facts["endpoints"] = dict(Counter(letter["endpoint"] for letter in chosen))
    if dry_run:
        facts["would_ask"] = len(chosen)
    else:
        facts["asked"] = ask(settings, chosen, found.partitions, now, late=late, told=told)
    return facts


def _see_endpoint(endpoint: str | None, known: Iterable[str]) -> None:
    names = dict.fromkeys(known)
    if endpoint is not None and endpoint not in names:
        told = ", ".join(names) or "none"
        raise ConfigError(f"--endpoint {endpoint}: there is no such endpoint, but {told}")
