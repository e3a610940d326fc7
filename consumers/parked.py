"""Reads the deliveries that were given up: which endpoint, why, and which were sent again.

Comes in: the topic of parked deliveries. Goes out: each letter once, and the ids of those that somebody asked
to send again. `producers.parked` asks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from consumers.client import read_to_end
from consumers.records import Read
from stream.config import Settings
from stream.headers import event_type
from stream.unreadable import UNREADABLE
from stream.webhooks.letters import PARKED, REPLAY, Letter, Replay, topic_of

_read_letter = msgspec.json.Decoder(Letter).decode
_read_replay = msgspec.json.Decoder(Replay).decode


@dataclass
class Parked:
    """What is on the topic.

    Attributes:
        letters: by id, in the order in which they were filed in each partition.
        partitions: where each letter is.
        replayed: ids of those that somebody asked to send again.
    """

    letters: dict[str, Letter] = field(default_factory=dict)
    partitions: dict[str, int] = field(default_factory=dict)
    replayed: set[str] = field(default_factory=set)


def parked(settings: Settings, read: Read = read_to_end) -> Parked:
    """Read the topic to its end; what cannot be read is passed over.

    Raises:
        BrokerUnavailableError: the broker does not answer.
        TopicMissingError: there is no such topic.
    """
    found = Parked()
    for record in read(settings.broker, topic_of(settings)):
        kind = event_type(record)
        value = record.value() or b""
        try:
            if kind == PARKED:
                letter = _read_letter(value)
                found.letters.setdefault(letter["id"], letter)
                found.partitions[letter["id"]] = record.partition() or 0
            elif kind == REPLAY:
                found.replayed.add(_read_replay(value)["letter"]["id"])
        except UNREADABLE:
            continue
    return found
