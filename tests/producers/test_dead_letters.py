"""A message is sent again as it was, once, unless somebody wants it."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

import msgspec
import pytest

from consumers.letters import Letter
from producers import dead_letters
from producers.dead_letters import LetterReport, send_again
from producers.delivery import DeliveryError
from stream.config import Settings
from tests.fakes import RecordingBroker

SETTINGS = Settings()
GOOD = Letter(
    id="clickstream/3/0", topic="clickstream", reason="not_json", detail="why",
    timestamp_ms=1_764_547_200_123, filed_ms=1_764_547_300_000, key=b"u1", value=b"\x00\xff",
    headers=(("a", None), ("b", b"\xff")), lacks=(), size=2,
)  # fmt: skip


def letter(place: int, **changes: Any) -> Letter:
    topic = changes.get("topic", "clickstream")
    fields = {name: getattr(GOOD, name) for name in GOOD.__dataclass_fields__}
    return Letter(**(fields | {"id": f"{topic}/3/{place}"} | changes))


def send(broker: RecordingBroker, *letters: Letter, **options: Any) -> LetterReport:
    replayed = options.pop("replayed", set())
    return send_again(SETTINGS, letters, replayed, make_producer=broker.producer, **options)  # type: ignore[arg-type]


def receipts(broker: RecordingBroker, topic: str = "clickstream.dlq") -> list[list[str]]:
    return [msgspec.json.decode(sent.value or b"") for sent in broker.on(topic)]


def test_a_message_is_sent_as_it_was() -> None:
    broker = RecordingBroker()
    assert send(broker, GOOD) == LetterReport(Counter(clickstream=1))
    [sent] = broker.on("clickstream")
    assert (sent.key, sent.value) == (b"u1", b"\x00\xff")
    assert sent.headers == {"a": None, "b": b"\xff", "segstream-replayed-from": GOOD.id}
    assert sent.timestamp_ms == GOOD.timestamp_ms
    assert sent.chosen == -1, "the key chooses its partition"
    assert receipts(broker) == [[GOOD.id]]
    assert broker.sent[-1].headers == {"segstream-replayed": "1"}


def test_a_message_without_a_time_gets_none_made_up() -> None:
    broker = RecordingBroker()
    send(broker, letter(1, timestamp_ms=None, key=None, value=None))
    [sent] = broker.on("clickstream")
    assert (sent.key, sent.value, sent.timestamp_ms) == (None, None, None)


def test_what_is_not_whole_no_event_or_sent_before_is_counted() -> None:
    broker = RecordingBroker()
    report = send(
        broker,
        letter(1, value=b'{"type":"segstream-mark"}'),
        letter(2, lacks=("value",)),
        letter(3, lacks=("headers",)),
        letter(4),
        letter(5),
        replayed={"clickstream/3/4"},
    )
    assert report == LetterReport(Counter(clickstream=1), before=1, incomplete=2, marks=1)
    assert receipts(broker) == [["clickstream/3/5"]]


def test_a_limit_leaves_the_rest_for_the_next_time() -> None:
    broker = RecordingBroker()
    report = send(broker, *(letter(place) for place in range(5)), limit=2)
    assert report == LetterReport(Counter(clickstream=2), beyond=3)
    assert receipts(broker) == [["clickstream/3/0", "clickstream/3/1"]]


def test_a_dry_run_sends_nothing() -> None:
    broker = RecordingBroker()
    assert send(broker, GOOD, letter(1), dry_run=True) == LetterReport(Counter(clickstream=2))
    assert (broker.sent, broker.producers) == ([], [])


def test_each_portion_has_its_receipts_on_its_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "PORTION", 3)
    broker, told = RecordingBroker(), list[int]()
    found = [letter(n, topic=("clickstream", "purchases")[n % 2]) for n in range(8)]
    assert send(broker, *found, told=told.append).sent == 8
    assert told == [3, 6, 8]
    assert [len(ids) for ids in receipts(broker)] == [2, 1, 1]
    assert [len(ids) for ids in receipts(broker, "purchases.dlq")] == [1, 2, 1]
    names = [sent.topic for sent in broker.sent]
    assert names.index("clickstream.dlq") == 3


def test_what_was_not_confirmed_has_no_receipt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "PORTION", 2)
    broker = RecordingBroker(trouble=deque(["", "", "refused"]))
    with pytest.raises(DeliveryError):
        send(broker, *(letter(place) for place in range(6)))
    assert receipts(broker) == [["clickstream/3/0", "clickstream/3/1"]]
