"""A refused message is filed with its origin, its reason and its untouched bytes."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections import deque
from pathlib import Path

import confluent_kafka
import numpy as np
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from consumers.client import read_to_end
from consumers.decode import Reject
from ops.kafka.server import RealKafka
from producers import rejects, topics
from producers.rejects import DeadLetters
from stream.config import Settings
from stream.errors import BrokerUnavailableError
from stream.events import Reason
from stream.servers import LocalBroker
from tests.conftest import SettingsFor, unavailable
from tests.fakes import FakeMessage, RecordingBroker
from tests.harness import ROOT


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
        "segstream-id": "purchases/3/17",
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


def test_of_a_value_that_does_not_fit_the_head_is_filed_and_its_length(
    broker: RecordingBroker,
) -> None:
    values = [b"small", bytes(range(256)) * 12_288, b"y" * 1_900_000, b"z" * (1 << 20)]
    DeadLetters(Settings()).file([refused(value) for value in values])
    assert [sent.value for sent in broker.sent] == [values[0], values[1][: 1 << 20], *values[2:]]
    assert [sent.headers.get("segstream-truncated") for sent in broker.sent] == [
        None, "3145728", None, None
    ]  # fmt: skip


Told = list[tuple[str, str | bytes | None]]


def originals(told: Told | None) -> Told:
    """Headers on the letter of a message with these headers, our own aside."""
    message = FakeMessage(b"x", topic_name="purchases", told=told)
    letters = DeadLetters(Settings())
    reject = Reject(Reason.NOT_JSON, "why", message)
    record = letters._record(reject, rejects._headers(reject))
    own = ("segstream-id", "segstream-topic", "segstream-partition", "segstream-offset",
           "segstream-timestamp", "segstream-reason", "segstream-detail")  # fmt: skip
    assert tuple(name for name, _ in record.headers[: len(own)]) == own
    return record.headers[len(own) :]


def test_headers_of_the_message_are_kept_in_their_order_under_a_prefix() -> None:
    told: Told = [
        ("traceparent", b"00-1"), ("a", None), ("a", b"\xff\x00"), ("", b""),
        ("segstream-reason", b"made up"), ("Möbel", "é"),
    ]  # fmt: skip
    kept = originals(told)
    assert [name.removeprefix("segstream-original-") for name, _ in kept] == [n for n, _ in told]
    assert all(name.startswith("segstream-original-") for name, _ in kept)
    assert [value for _, value in kept] == [
        b"00-1",
        None,
        b"\xff\x00",
        b"",
        b"made up",
        "é".encode(),
    ]
    assert originals(None) == originals([]) == []


def test_more_headers_than_fit_beside_a_value_are_left_out() -> None:
    assert originals([("a", b"x" * 40_000)]) == [("segstream-truncated-headers", "40020")]
    [(name, size)] = originals([("", b"")] * 10_000)
    assert (name, size) == ("segstream-truncated-headers", "190000")


class Trap(FakeMessage):
    """A message whose headers confluent-kafka tells wrongly, as it does with names of no UTF-8."""

    asked = 0

    def headers(self) -> Told | None:
        self.asked += 1
        assert self.asked == 1, "what comes now has holes in the memory"
        raise SystemError("returned a result with an exception set")


def test_headers_that_the_client_cannot_read_are_left_out_and_not_read_again(
    broker: RecordingBroker,
) -> None:
    broker.topic_limit = 300_000
    DeadLetters(Settings()).file([Reject(Reason.NOT_JSON, "why", Trap(b"x" * 1_000_000))])
    assert broker.sent[-1].headers["segstream-truncated-headers"] == "unreadable"
    assert broker.sent[-1].headers["segstream-truncated"] == "1000000"
    trapped = Reject(Reason.NOT_JSON, "why", Trap(b"x"))
    letters, broker.trouble = DeadLetters(Settings()), deque(["refused"])
    with pytest.raises(BrokerUnavailableError):
        letters.file([trapped])
    letters.file([trapped])
    assert broker.sent[-1].headers["segstream-truncated-headers"] == "unreadable"


def test_details_that_no_text_can_hold_are_told_as_escapes(broker: RecordingBroker) -> None:
    DeadLetters(Settings()).file([refused(b"x", detail="half \ud800, NUL \0")])
    assert broker.sent[0].headers["segstream-detail"] == "half \\ud800, NUL \0"


@pytest.mark.parametrize("limit", ["limit", "topic_limit"])
def test_where_less_is_allowed_than_planned_a_shorter_head_is_filed(
    broker: RecordingBroker, limit: str
) -> None:
    setattr(broker, limit, 300_000)
    letters = DeadLetters(Settings())
    letters.file([refused(b"x" * 5_000_000), refused(b"y" * 250_000)])
    x, y = broker.sent[-2:]
    assert (len(x.value or b""), x.headers["segstream-truncated"]) == (1 << 18, "5000000")
    assert (len(y.value or b""), y.headers.get("segstream-truncated")) == (250_000, None)
    made = len(broker.producers)
    letters.file([refused(b"x" * 5_000_000)])
    assert len(broker.producers) == made, "once known, the limit need not be found again"


def test_where_not_even_the_shortest_head_fits_it_is_an_error(broker: RecordingBroker) -> None:
    broker.limit = 10_000
    with pytest.raises(BrokerUnavailableError, match="dead letters not delivered"):
        DeadLetters(Settings()).file([refused(b"x" * 5_000_000)])


def test_a_key_that_does_not_fit_is_cut_too(broker: RecordingBroker) -> None:
    DeadLetters(Settings()).file([refused(b"x", b"k" * 3_000_000)])
    [sent] = broker.sent
    assert (sent.value, sent.key) == (b"x", b"k" * 65_536)
    assert sent.headers["segstream-truncated-key"] == "3000000"


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


@pytest.mark.servers
def test_kafka_takes_the_head_of_what_no_topic_takes(
    kafka: RealKafka, settings_for: SettingsFor
) -> None:
    settings = settings_for(kafka.bootstrap, topics={"dlq_suffix": "-heads"})
    name = settings.topics.dlq("purchases")
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    small = NewTopic(name, 1, 1, config={"max.message.bytes": "300000"})
    admin.create_topics([small])[name].result(timeout=20)
    value = np.random.default_rng(1).bytes(3 << 20)  # nothing that compresses
    DeadLetters(settings).file([refused(value), refused(b"small")])
    letters = list(read_to_end(settings.broker, name))
    assert [letter.value() for letter in letters][-2:] == [value[: 1 << 18], b"small"]
    assert ("segstream-truncated", b"3145728") in (letters[-2].headers() or [])


def write_raw(bootstrap: str, topic: str, value: bytes, name: bytes) -> None:
    """Write a message with a header name of any bytes, which only librdkafka itself lets through."""
    folder = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
    found = next(iter(folder.glob("librdkafka*.so*")), None)
    if found is None:
        unavailable("needs the librdkafka of confluent-kafka's wheel")
    library = ctypes.CDLL(str(found))
    for function in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_headers_new"):
        getattr(library, function).restype = ctypes.c_void_p
    said = ctypes.create_string_buffer(512)
    conf = ctypes.c_void_p(library.rd_kafka_conf_new())
    library.rd_kafka_conf_set(conf, b"bootstrap.servers", bootstrap.encode(), said, 512)
    client = ctypes.c_void_p(library.rd_kafka_new(0, conf, said, 512))
    headers = ctypes.c_void_p(library.rd_kafka_headers_new(1))
    size = ctypes.c_ssize_t
    assert library.rd_kafka_header_add(headers, name, size(len(name)), b"v", size(1)) == 0
    # rd_kafka_producev: topic, partition, value, flags (copy), headers, end; by their numbers.
    assert library.rd_kafka_producev(
        client, 1, topic.encode(), 3, 0, 4, value, ctypes.c_size_t(len(value)), 7, 2,
        10, headers, 0,
    ) == 0  # fmt: skip
    assert library.rd_kafka_flush(client, 20_000) == 0
    library.rd_kafka_destroy(client)


@pytest.mark.servers
def test_a_header_name_that_is_no_text_ends_nothing(
    local_broker: LocalBroker, settings_for: SettingsFor
) -> None:
    settings = settings_for(local_broker.bootstrap)
    topics.apply(settings, create=True)
    name = settings.topics.clickstream
    write_raw(local_broker.bootstrap, name, b"poison", b"no \xff text")
    [message] = read_to_end(settings.broker, name)
    # Python forgets to look for failures of what it calls often; a crash would end all tests.
    often = f"""
from confluent_kafka import Message
from consumers.client import read_to_end
from stream.config import Broker
from stream.headers import headers_of
for _ in range(10_000):
    assert headers_of(Message(headers=[("a", b"b")])) == [("a", b"b")]
[message] = read_to_end(Broker(bootstrap={local_broker.bootstrap!r}), {name!r})
assert headers_of(message) is None
"""
    done = subprocess.run([sys.executable, "-c", often], cwd=ROOT, check=False, timeout=60)
    assert done.returncode == 0
    DeadLetters(settings).file([Reject(Reason.NOT_JSON, "why", message)])
    [letter] = read_to_end(settings.broker, settings.topics.dlq(name))
    assert letter.value() == b"poison"
    assert ("segstream-truncated-headers", b"unreadable") in (letter.headers() or [])
