"""A refused message is filed with its origin, its reason and its untouched bytes."""

from __future__ import annotations

from collections import deque

import pytest

from consumers.decode import Reject
from producers import rejects
from producers.rejects import DeadLetters
from stream.config import Settings
from stream.errors import BrokerUnavailableError
from stream.events import Reason
from tests.fakes import FakeMessage, RecordingBroker


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> RecordingBroker:
    made = RecordingBroker()
    monkeypatch.setattr(rejects, "Producer", made.producer)
    return made


def refused(value: bytes | None, key: bytes | None = b"u1", detail: str = "why") -> Reject:
    message = FakeMessage(value, key, 1_764_547_200_123, "purchases", 3, 17)
    return Reject(Reason.NOT_JSON, detail, message)


def test_bytes_are_untouched_and_headers_say_whence_and_why(broker: RecordingBroker) -> None:
    raw = b"\xff\x00{broken\r\n"
    DeadLetters(Settings()).file([refused(raw)])
    [sent] = broker.on("purchases.dlq")
    assert (sent.value, sent.key) == (raw, b"u1")
    assert sent.headers == {
        "segstream-topic": "purchases",
        "segstream-partition": "3",
        "segstream-offset": "17",
        "segstream-timestamp": "1764547200123",
        "segstream-reason": "not_json",
        "segstream-detail": "why",
    }


def test_a_message_without_value_or_key_is_filed_too(broker: RecordingBroker) -> None:
    DeadLetters(Settings()).file([refused(None, None)])
    [sent] = broker.sent
    assert (sent.value, sent.key) == (None, None)


def test_a_long_detail_is_cut(broker: RecordingBroker) -> None:
    DeadLetters(Settings()).file([refused(b"x", detail="é" * 9_000)])
    [sent] = broker.sent
    assert sent.headers["segstream-detail"] == "é" * 500


def test_the_suffix_is_a_setting(broker: RecordingBroker) -> None:
    settings = Settings.model_validate({"topics": {"dlq_suffix": "-dead"}})
    DeadLetters(settings).file([refused(b"x")])
    assert broker.sent[0].topic == "purchases-dead"


@pytest.mark.parametrize("trouble", ["refused", "silent", "unconfirmed"])
def test_what_is_not_confirmed_is_an_error_and_filed_anew_by_another_producer(
    broker: RecordingBroker, trouble: str
) -> None:
    broker.trouble = deque([trouble])
    letters = DeadLetters(Settings())
    with pytest.raises(BrokerUnavailableError, match="dead letters not delivered"):
        letters.file([refused(b"x")])
    assert broker.producers[0].purged
    letters.file([refused(b"x")])
    letters.file([refused(b"y")])
    assert len(broker.producers) == 2
    assert [sent.value for sent in broker.sent][-2:] == [b"x", b"y"]


def test_no_producer_is_made_before_there_is_something_to_file(broker: RecordingBroker) -> None:
    DeadLetters(Settings())
    assert broker.producers == []
