"""Dead letters are read as they were filed, each message once, whatever else is on the topic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from consumers.decode import Reject
from consumers.letters import Letter, choose, letters, survey
from producers import rejects
from producers.dead_letters import send_again
from producers.rejects import DeadLetters
from stream.config import Broker, Settings
from stream.errors import TopicMissingError
from stream.events import Reason
from tests.fakes import FakeMessage, RecordingBroker

SETTINGS = Settings()
FIRST_MS = 1_764_547_200_000
Told = list[tuple[str, str | bytes | None]]


@dataclass
class Desk:
    """Topics of dead letters in memory; what is filed later has a later time."""

    topics: dict[str, list[FakeMessage]] = field(default_factory=dict)

    def file(self, *refused: Reject, letters: DeadLetters | None = None) -> Desk:
        """File letters as a worker does."""
        letters = letters or DeadLetters(SETTINGS)
        for one in refused:
            record = letters._record(one, rejects._headers(one))
            self.add(record.topic, record.value, record.key, list(record.headers))
        return self

    def add(self, topic: str, value: bytes | None, key: bytes | None, told: Told | None) -> None:
        records = self.topics.setdefault(topic, [])
        at = FIRST_MS + sum(map(len, self.topics.values())) * 1_000
        records.append(FakeMessage(value, key, at, topic, 0, len(records), told=told))

    def read(self, broker: Broker, topic: str) -> Iterator[FakeMessage]:
        assert broker == SETTINGS.broker
        if topic not in self.topics:
            raise TopicMissingError(topic)
        yield from self.topics[topic]

    def all(self, **choice: Any) -> list[Letter]:
        return list(letters(SETTINGS, self.read, **choice))


def refused(
    place: int,
    reason: Reason = Reason.NOT_JSON,
    value: bytes | None = b"x",
    topic: str = "clickstream",
    key: bytes | None = b"u1",
    told: Told | None = None,
) -> Reject:
    message = FakeMessage(value, key, FIRST_MS - 5, topic, 3, place, told=told)
    return Reject(reason, "why", message)


def test_a_letter_is_read_as_it_was_filed() -> None:
    told: Told = [("segstream-reason", b"made up"), ("a", None), ("a", b"\xff")]
    desk = Desk().file(refused(7, Reason.BAD_TIME, b"\x00\xff", "purchases", told=told))
    [letter] = desk.all()
    assert letter == Letter(
        id="purchases/3/7",
        topic="purchases",
        reason="bad_time",
        detail="why",
        timestamp_ms=FIRST_MS - 5,
        filed_ms=FIRST_MS,
        key=b"u1",
        value=b"\x00\xff",
        headers=(("segstream-reason", b"made up"), ("a", None), ("a", b"\xff")),
        lacks=(),
        size=2,
    )


def test_what_is_not_whole_is_said() -> None:
    long = refused(1, value=b"x" * 3_000_000, key=b"k" * 70_000, told=[("h", b"y" * 40_000)])
    [letter] = Desk().file(long).all()
    assert letter.lacks == ("value", "key", "headers")
    assert letter.size == 3_000_000


def test_a_message_without_value_key_or_time_has_a_letter() -> None:
    message = FakeMessage(None, None, -1, "clickstream", 0, 0)
    [letter] = Desk().file(Reject(Reason.EMPTY, "no value", message)).all()
    assert (letter.key, letter.value, letter.timestamp_ms, letter.size) == (None, None, None, 0)


def strange(desk: Desk) -> Desk:
    """What nobody of ours wrote to these topics."""
    letter = desk.file(refused(90)).topics["clickstream.dlq"].pop()
    assert letter.told is not None
    strangers: tuple[Told | None, ...] = (
        None,
        [],
        [("segstream-topic", b"clickstream")],
        [(n, b"elsewhere" if n == "segstream-topic" else v) for n, v in letter.told],
        [(n, b"-1" if n == "segstream-offset" else v) for n, v in letter.told],
        [(n, "\N{ARABIC-INDIC DIGIT FIVE}x" if n == "segstream-partition" else v)
         for n, v in letter.told],
        [("segstream-replayed", b"1")],
    )  # fmt: skip
    for told in strangers:
        desk.add("clickstream.dlq", b"not a list", None, told)
    return desk


def test_others_on_the_topic_are_no_letters() -> None:
    desk = strange(Desk()).file(refused(1))
    assert [letter.id for letter in desk.all()] == ["clickstream/3/1"]
    found = survey(SETTINGS, desk.read)
    assert (found.strangers, found.replayed) == (6, set())


def test_letters_are_counted_by_topic_and_reason_each_message_once() -> None:
    desk = Desk().file(
        *(refused(place) for place in range(5)),
        refused(5, Reason.BAD_TIME),
        refused(0, topic="purchases"),
        refused(1),
        refused(1),
    )
    found = survey(SETTINGS, desk.read)
    assert [(one.topic, one.reason, one.letters) for one in found.summaries] == [
        ("clickstream", "not_json", 5),
        ("clickstream", "bad_time", 1),
        ("purchases", "not_json", 1),
    ]
    assert found.again == 2
    first = found.summaries[0]
    assert (first.first_ms, first.last_ms) == (FIRST_MS, FIRST_MS + 4_000)
    assert first.example == "clickstream/3/4"
    assert [letter.id for letter in desk.all(reason="bad_time")] == ["clickstream/3/5"]
    assert len(desk.all()) == 7


def test_without_topics_there_are_no_letters() -> None:
    assert survey(SETTINGS, Desk().read).summaries == []
    assert Desk().all() == []


def test_receipts_tell_what_was_sent_again() -> None:
    desk = Desk().file(*(refused(place) for place in range(4)))
    broker = RecordingBroker()
    send_again(SETTINGS, desk.all()[:2], set(), make_producer=broker.producer)  # type: ignore[arg-type]
    for sent in broker.on("clickstream.dlq"):
        desk.add(sent.topic, sent.value, sent.key, list(sent.headers.items()))
    found = survey(SETTINGS, desk.read)
    assert found.replayed == {"clickstream/3/0", "clickstream/3/1"}
    assert [(one.letters, one.replayed) for one in found.summaries] == [(4, 2)]
    assert len(desk.all()) == 4, "a receipt is no letter"


def ids(places: Sequence[int]) -> set[str]:
    return {f"clickstream/3/{place}" for place in places}


def test_letters_are_chosen_by_reason_and_by_when_they_were_filed() -> None:
    desk = Desk().file(
        refused(0), refused(1, Reason.EMPTY), refused(2), refused(3), refused(0), refused(4)
    )
    assert choose(SETTINGS, "not_json", 0, desk.read) == (ids([0, 2, 3, 4]), set())
    assert choose(SETTINGS, "not_json", FIRST_MS + 3_000, desk.read) == (ids([0, 3, 4]), set())
    assert choose(SETTINGS, "no_such", 0, desk.read) == (set(), set())


@pytest.mark.parametrize(
    ("value", "is_mark"),
    [
        (b'{"type":"segstream-mark"}', True),
        (b'{"a":1,"type":"\\u0073egstream-mark"}', True),
        (b'{"type":"track","event":"segstream-mark"}', False),
        (b'{"type":"segstream-mark"', False),
        (b"[" * 5_000, False),
        (b'"\xff"', False),
        (b"[]", False),
        (None, False),
    ],
)
def test_marks_are_known_among_the_letters(value: bytes | None, is_mark: bool) -> None:
    [letter] = Desk().file(refused(1, value=value)).all()
    assert letter.is_mark == is_mark
