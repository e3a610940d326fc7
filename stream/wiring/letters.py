"""Facts of dead letters: how many of which reason, examples, and what became of those sent again.

Comes in: a survey, letters, a report. Goes out: facts; `stream.cli.dlq` shows them.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import NotRequired, Required

from typing_extensions import TypedDict

from consumers.letters import Letter, Survey, choose, letters
from producers.dead_letters import LetterReport, UsersOf, send_again
from stream.config import Settings
from stream.units import iso


class ReasonFacts(TypedDict):
    """What was refused of a topic for one reason."""

    topic: str
    reason: str
    letters: int
    replayed: int
    first: str
    last: str
    example: str


class SurveyFacts(TypedDict):
    """How many messages were refused, and letters filed again; `strangers` are records that are no letters."""

    letters: int
    filed_again: int
    strangers: int
    reasons: list[ReasonFacts]


class Content(TypedDict, total=False):
    """Bytes as text if they are UTF-8, else in base64; a text of None is none."""

    text: str | None
    base64: str


class Header(Content):
    name: Required[str]


class LetterFacts(TypedDict):
    """A dead letter whole; `lacks` names what of its message it does not have."""

    id: str
    reason: str
    detail: str
    filed: str
    timestamp: str | None
    lacks: list[str]
    bytes: int
    key: Content
    value: Content
    headers: list[Header]


class LettersFacts(TypedDict):
    letters: list[LetterFacts]


class SentFacts(TypedDict):
    """How many messages were sent to which topics, or would be, and what became of the others."""

    sent: int
    would_send: int
    topics: dict[str, int]
    sent_before: NotRequired[int]
    incomplete: NotRequired[int]
    marks: NotRequired[int]
    beyond_limit: NotRequired[int]
    other_partition: NotRequired[int]
    keyless: NotRequired[int]


def survey_facts(found: Survey) -> SurveyFacts:
    """How many messages were refused, by topic and reason."""
    return {
        "letters": sum(one.letters for one in found.summaries),
        "filed_again": found.again,
        "strangers": found.strangers,
        "reasons": [
            {
                "topic": one.topic,
                "reason": one.reason,
                "letters": one.letters,
                "replayed": one.replayed,
                "first": _iso(one.first_ms),
                "last": _iso(one.last_ms),
                "example": one.example,
            }
            for one in found.summaries
        ],
    }


def letter_facts(found: Iterable[Letter], limit: int) -> LettersFacts:
    """The first so many of some letters, whole."""
    return {"letters": list(map(_facts, islice(found, limit)))}


def _facts(letter: Letter) -> LetterFacts:
    return {
        "id": letter.id,
        "reason": letter.reason,
        "detail": letter.detail,
        "filed": _iso(letter.filed_ms),
        "timestamp": None if letter.timestamp_ms is None else _iso(letter.timestamp_ms),
        "lacks": list(letter.lacks),
        "bytes": letter.size,
        "key": _content(letter.key),
        "value": _content(letter.value),
        "headers": [{"name": name, **_content(value)} for name, value in letter.headers],
    }


def _content(raw: bytes | None) -> Content:
    """Bytes as text if they are UTF-8, else in base64."""
    try:
        return {"text": None if raw is None else raw.decode()}
    except UnicodeDecodeError:
        return {"base64": b64encode(raw or b"").decode()}


def replay(
    settings: Settings,
    reason: str,
    since_ms: int,
    limit: int | None,
    *,
    again: bool,
    dry_run: bool,
    told: Callable[[int], None],
) -> SentFacts:
    """Send letters of a reason to the topics they came from.

    Args:
        since_ms: only letters filed from then on.
        again: also those that were sent again before.
        told: is told how many were sent so far.
    """
    report = send_chosen(settings, reason, since_ms, limit, again=again, dry_run=dry_run, told=told)
    return chosen_facts(report, dry_run=dry_run) | {"marks": report.marks}


def send_chosen(
    settings: Settings,
    reason: str,
    since_ms: int,
    limit: int | None,
    *,
    again: bool = False,
    dry_run: bool,
    told: Callable[[int], None],
    users_of: UsersOf | None = None,
) -> LetterReport:
    """Send letters of a reason; see `replay`, and `producers.dead_letters.send_again`."""
    # As of now: what is refused again while this goes on is another letter.
    wanted, replayed = choose(settings, reason, since_ms)
    return send_again(
        settings,
        (one for one in letters(settings, reason=reason) if one.id in wanted),
        set() if again else replayed,
        limit=limit,
        dry_run=dry_run,
        users_of=users_of,
        told=told,
    )


def chosen_facts(report: LetterReport, *, dry_run: bool) -> SentFacts:
    """What became of letters that were chosen."""
    return sent_facts(report.sent, report.topics, dry_run=dry_run) | {
        "sent_before": report.before,
        "incomplete": report.incomplete,
        "beyond_limit": report.beyond,
    }


def _iso(time_ms: int) -> str:
    """A time, if it is one that can be written."""
    return iso(time_ms) if 0 <= time_ms < 253_402_300_800_000 else f"{time_ms} ms"


def sent_facts(count: int, topics: Mapping[str, int], *, dry_run: bool) -> SentFacts:
    """How many messages were sent to which topics, or would be."""
    return {
        "sent": 0 if dry_run else count,
        "would_send": count if dry_run else 0,
        "topics": dict(topics),
    }
