"""Reads the dead letters: what was refused, why, and what of it was sent again.

Comes in: the dead-letter topics. Goes out: `Letter`s, each message once however often it was filed, and
a `Survey` of them by topic and reason. `producers.dead_letters` sends letters again, and leaves a
receipt among them; who reads here knows by it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from consumers.client import read_to_end
from consumers.records import Read, Record
from stream.config import Settings
from stream.errors import TopicMissingError
from stream.events import LETTER_ORIGINAL, LETTER_RECEIPT, LETTER_TRUNCATED, Mark
from stream.headers import headers_of
from stream.unreadable import UNREADABLE


@dataclass(frozen=True)
class Letter:
    """A refused message as it was filed.

    Attributes:
        id: of the message, as topic/partition/offset.
        timestamp_ms: of the message's record; None if it had none.
        filed_ms: when the letter was written.
        headers: the message's own.
        lacks: what of the message is not in the letter, or not whole: value, key, headers.
        size: of the value, in bytes, of which the letter may have only the head.
    """

    id: str
    topic: str
    reason: str
    detail: str
    timestamp_ms: int | None
    filed_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    lacks: tuple[str, ...]
    size: int

    @property
    def is_mark(self) -> bool:
        """Whether the message says that it is a mark of the shop's clock."""
        try:
            said = msgspec.json.decode(self.value or b"")
        except UNREADABLE:
            return False
        return isinstance(said, dict) and said.get("type") == Mark.__struct_config__.tag


@dataclass
class Summary:
    """Letters of one topic and reason.

    Attributes:
        letters: how many messages were refused.
        replayed: how many of these were sent again.
        first_ms: when the first letter was filed.
        last_ms: when the last one was.
        example: id of the last one.
    """

    topic: str
    reason: str
    letters: int = 0
    replayed: int = 0
    first_ms: int = 0
    last_ms: int = 0
    example: str = ""


@dataclass
class Survey:
    """What is among the dead letters.

    Attributes:
        summaries: by topic and reason, most letters first.
        again: letters that were filed more than once, by how many too many.
        replayed: ids of the messages that were sent again.
        strangers: records that are no letters.
    """

    summaries: list[Summary]
    again: int = 0
    replayed: set[str] = field(default_factory=set)
    strangers: int = 0


def survey(settings: Settings, read: Read = read_to_end) -> Survey:
    """Count the letters by topic and reason, each message once.

    Raises:
        BrokerUnavailableError: the broker does not answer.
    """
    found = Survey([])
    by_reason: dict[tuple[str, str], Summary] = {}
    kept: dict[str, Summary] = {}
    for letter in _letters(settings, read):
        if isinstance(letter, set):
            found.replayed |= letter
        elif letter is None:
            found.strangers += 1
        elif letter.id in kept:
            found.again += 1
        else:
            key = letter.topic, letter.reason
            summary = kept[letter.id] = by_reason.setdefault(key, Summary(*key))
            summary.letters += 1
            summary.first_ms = min(summary.first_ms or letter.filed_ms, letter.filed_ms)
            summary.last_ms = max(summary.last_ms, letter.filed_ms)
            summary.example = letter.id
    for name in found.replayed & kept.keys():
        kept[name].replayed += 1
    found.summaries = sorted(by_reason.values(), key=lambda one: -one.letters)
    return found


def letters(
    settings: Settings, read: Read = read_to_end, *, reason: str | None = None
) -> Iterator[Letter]:
    """Letters, each partition's in the order in which they were filed, each message once.

    Args:
        settings: names broker and topics.
        read: reads a topic to its end.
        reason: only of this one.
    """
    seen: set[str] = set()
    for letter in _letters(settings, read):
        if isinstance(letter, Letter) and letter.id not in seen and reason in (None, letter.reason):
            seen.add(letter.id)
            yield letter


def choose(
    settings: Settings, reason: str, since_ms: int = 0, read: Read = read_to_end
) -> tuple[set[str], set[str]]:
    """Ids of the messages refused for a reason, and of all that were sent again."""
    chosen: set[str] = set()
    replayed: set[str] = set()
    for letter in _letters(settings, read):
        if isinstance(letter, set):
            replayed |= letter
        elif letter is not None and letter.reason == reason and letter.filed_ms >= since_ms:
            chosen.add(letter.id)
    return chosen, replayed


def _letters(settings: Settings, read: Read) -> Iterator[Letter | set[str] | None]:
    """Everything on the dead-letter topics: letters, ids of a receipt, or None for anything else."""
    for topic in settings.topics.inputs:
        try:
            for record in read(settings.broker, settings.topics.dlq(topic)):
                yield _letter_of(record, topic)
        except TopicMissingError:
            continue


def _letter_of(record: Record, topic: str) -> Letter | set[str] | None:
    headers = headers_of(record) or []
    # Ours stand first, whatever names the message's own have.
    told = {name: (value or b"").decode(errors="replace") for name, value in reversed(headers)}
    value = _bytes(record.value())
    if LETTER_RECEIPT in told:
        return _ids_of(value or b"")
    partition, offset = told.get("segstream-partition", ""), told.get("segstream-offset", "")
    known = told.get("segstream-topic") == topic and "segstream-reason" in told
    if not known or not partition.isdecimal() or not offset.isdecimal():
        return None
    lacks = [part for part in ("key", "headers") if f"{LETTER_TRUNCATED}-{part}" in told]
    if LETTER_TRUNCATED in told:
        lacks.insert(0, "value")
    size = told.get(LETTER_TRUNCATED, "")
    stamp = told.get("segstream-timestamp", "")
    return Letter(
        id=f"{topic}/{partition}/{offset}",
        topic=topic,
        reason=told["segstream-reason"],
        detail=told.get("segstream-detail", ""),
        timestamp_ms=int(stamp) if stamp.isdecimal() else None,
        filed_ms=record.timestamp()[1],
        key=_bytes(record.key()),
        value=value,
        headers=tuple(
            (name.removeprefix(LETTER_ORIGINAL), content)
            for name, content in headers
            if name.startswith(LETTER_ORIGINAL)
        ),
        lacks=tuple(lacks),
        size=int(size) if size.isdecimal() else len(value or b""),
    )


def _ids_of(value: bytes) -> set[str]:
    try:
        return set(msgspec.json.decode(value, type=list[str]))
    except UNREADABLE:
        return set()


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
