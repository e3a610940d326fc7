"""Messages are written into the partitions of their users, otherwise as they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from consumers.placement import Users
from producers.dead_letters import send_again
from producers.rekey import PORTION, RekeyReport, rekey
from stream.cli import rekey as command
from stream.config import ConfigError, Settings
from stream.hashing import partition_of
from tests.fakes import FakeMessage, RecordingBroker, mark_value
from tests.producers.test_dead_letters import letter
from tests.strategies import ORDER, START_MS, encoded

SETTINGS = Settings.model_validate({"worker": {"decoder": "plain"}})
READERS = Users(SETTINGS)
PARTITIONS = SETTINGS.topics.partitions


def record(value: bytes | None, place: int = 0, partition: int = 0, **options: Any) -> FakeMessage:
    return FakeMessage(value, b"other key", START_MS + place, "old", partition, place, **options)


def write(records: Sequence[FakeMessage], **options: Any) -> tuple[RekeyReport, RecordingBroker]:
    broker = RecordingBroker()
    made: Any = broker.producer
    report = rekey(SETTINGS, records, "clickstream", READERS, make_producer=made, **options)
    return report, broker


def test_each_comes_to_the_partition_of_its_user() -> None:
    users = [f"user {i}" for i in range(40)]
    report, broker = write([record(encoded(userId=user), i) for i, user in enumerate(users)])
    sent = broker.on("clickstream")
    assert [one.key for one in sent] == [user.encode() for user in users]
    assert [one.chosen for one in sent] == [partition_of(u.encode(), PARTITIONS) for u in users]
    assert [one.timestamp_ms for one in sent] == [START_MS + i for i in range(40)]
    moved = sum(partition_of(user.encode(), PARTITIONS) != 0 for user in users)
    assert report == RekeyReport(sent=40, moved=moved)


def test_whom_it_is_counted_for_is_the_key() -> None:
    values = [encoded(userId=None, anonymousId="a1"), encoded(userId="u1", anonymousId="a1")]
    _, broker = write([record(value) for value in values])
    assert [one.key for one in broker.on("clickstream")] == [b"a1", b"u1"]


def test_ids_that_the_settings_say_are_none_are_nobodys_key() -> None:
    """The worker counts such a message for the `anonymousId`, and would refuse it elsewhere."""
    settings = Settings.model_validate({"worker": {"placeholder_ids": ["web guest"]}})
    values = [encoded(userId="web guest", anonymousId="a1"), encoded(userId="null")]
    assert Users(settings).of(values) == ["a1", "null"]


def test_a_message_belongs_to_its_user_whatever_its_currency() -> None:
    settings = Settings.model_validate({"money": {"currency": "EUR"}})
    value = encoded(event=ORDER, properties={"revenue": 5.0, "currency": "SEK"})
    assert Users(settings).of([value]) == ["u1"]


def test_headers_are_kept() -> None:
    _, broker = write([record(encoded(), told=[("a", b"1"), ("b", None)])])
    assert broker.on("clickstream")[0].headers == {"a": b"1", "b": None}


def test_what_is_counted_for_nobody_keeps_its_key() -> None:
    values = [b"hello", None, encoded(userId=""), b'{"type": "identify"}']
    report, broker = write([record(value) for value in values])
    sent = broker.on("clickstream")
    assert [(one.key, one.value, one.chosen) for one in sent] == [
        (b"other key", value, -1) for value in values
    ]
    assert report == RekeyReport(sent=4, keyless=4)


def test_marks_are_left_out() -> None:
    report, broker = write([record(mark_value(START_MS)), record(encoded())])
    assert len(broker.on("clickstream")) == 1
    assert (report.sent, report.marks) == (1, 1)


def test_a_dry_run_only_counts() -> None:
    report, broker = write([record(encoded())] * 3, dry_run=True)
    assert report.sent == 3
    assert not broker.sent


def test_order_is_kept_over_portions() -> None:
    count = PORTION + 10
    values = [encoded(messageId=f"m{i}") for i in range(count)]
    told: list[int] = []
    report, broker = write([record(v, i) for i, v in enumerate(values)], told=told.append)
    assert [one.value for one in broker.on("clickstream")] == values
    assert (report.sent, told) == (count, [PORTION, count])


def test_letters_are_keyed_by_their_users_where_they_have_any() -> None:
    broker = RecordingBroker()
    found = [letter(1, value=encoded(userId="u7")), letter(2, value=b"hello")]

    def users_of(letters: Sequence[Any]) -> list[str | None]:
        return READERS.of([one.value for one in letters])

    send_again(SETTINGS, found, set(), users_of=users_of, make_producer=broker.producer)  # type: ignore[arg-type]
    first, second = broker.on("clickstream")
    assert (first.key, first.chosen) == (b"u7", partition_of(b"u7", PARTITIONS))
    assert (second.key, second.chosen) == (b"u1", -1)


@pytest.mark.parametrize(
    ("source", "target", "letters_only", "said"),
    [
        ("old", None, False, "go together"),
        (None, "clickstream", False, "go together"),
        ("old", "changes", False, "expected one of clickstream, purchases"),
        ("old", "clickstream", True, "copied whole"),
        ("clickstream", "purchases", False, "would count twice"),
    ],
)
def test_options_that_do_not_fit_are_told(
    source: str | None, target: str | None, letters_only: bool, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        command.see_options(SETTINGS, source, target, letters_only=letters_only)


def test_options_that_fit_are_right() -> None:
    command.see_options(SETTINGS, None, None, letters_only=True)
    command.see_options(SETTINGS, "old", "purchases", letters_only=False)
