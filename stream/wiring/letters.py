"""Facts of dead letters: how many of which reason, examples, and what became of those sent again.

Comes in: a survey, letters, a report. Goes out: facts; `stream.cli.dlq` shows them.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from itertools import islice
from typing import Any

from consumers.letters import Letter, Survey
from producers.dead_letters import LetterReport
from stream.units import iso


def survey_facts(found: Survey) -> dict[str, Any]:
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


def letter_facts(found: Iterable[Letter], limit: int) -> dict[str, Any]:
    """The first so many of some letters, whole."""
    return {"letters": list(map(_facts, islice(found, limit)))}


def _facts(letter: Letter) -> dict[str, Any]:
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


def _content(raw: bytes | None) -> dict[str, str | None]:
    """Bytes as text if they are UTF-8, else in base64."""
    try:
        return {"text": None if raw is None else raw.decode()}
    except UnicodeDecodeError:
        return {"base64": b64encode(raw or b"").decode()}


def replay_facts(report: LetterReport, *, dry_run: bool) -> dict[str, Any]:
    return sent_facts(report.sent, dry_run=dry_run) | {
        "topics": dict(report.topics),
        "sent_before": report.before,
        "incomplete": report.incomplete,
        "marks": report.marks,
        "beyond_limit": report.beyond,
    }


def _iso(time_ms: int) -> str:
    """A time, if it is one that can be written."""
    return iso(time_ms) if 0 <= time_ms < 253_402_300_800_000 else f"{time_ms} ms"


def sent_facts(count: int, *, dry_run: bool) -> dict[str, Any]:
    """How many messages were sent, or would be."""
    return {"sent": 0 if dry_run else count, "would_send": count if dry_run else 0}
