"""Messages nobody should send: each under its own reason, and the good ones beside them count."""

from __future__ import annotations

import json
import re
import urllib.request
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from consumers.client import read_to_end
from ops.kafka.server import RealKafka
from producers.replay import InputWriter
from stream.config import Settings
from stream.config_layers import as_file
from stream.hashing import partition_of
from stream.units import DAY_MS, iso
from tests import harness
from tests.harness import Pipeline, milliseconds, value

pytestmark = pytest.mark.servers

START_MS = milliseconds("2026-03-02T08:00:00Z")
MINUTE_MS = 60_000
CLICKS, PURCHASES = 0, 1


class Message(NamedTuple):
    """What is written: to a topic, under a key, at a time of the shop."""

    topic: int
    user: str
    value: bytes | None
    time_ms: int
    fate: str = "applied"
    """A result of the conservation sum, or the reason of a refusal."""


def track(user: str, time_ms: int, number: int, **changes: Any) -> dict[str, Any]:
    """A good message; `changes` replace its fields, None takes one out."""
    message = {
        "type": "track",
        "event": "Product Viewed",
        "userId": user,
        "messageId": f"message-{number}",
        "timestamp": iso(time_ms),
        "properties": {"category": "hats"},
    } | changes
    return {key: field for key, field in message.items() if field is not None}


def encoded(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode()


def good(user: str, time_ms: int, number: int) -> Message:
    return Message(CLICKS, user, encoded(track(user, time_ms, number)), time_ms)


def bad_messages(user: str, time_ms: int) -> Iterable[Message]:
    """One or more of every sort, and what must become of each."""

    def message(fate: str, raw: bytes | None, topic: int = CLICKS) -> Message:
        return Message(topic, user, raw, time_ms, fate)

    def changed(fate: str, number: int, **changes: Any) -> Message:
        return message(fate, encoded(track(user, time_ms, number, **changes)))

    whole = encoded(track(user, time_ms, 900))
    order = {"event": "Order Completed"}
    yield message("empty", None)
    yield message("empty", b"")
    yield message("truncated", whole[: len(whole) // 2])
    yield message("not_json", b"this is no JSON at all")
    yield message("not_json", b"\xff\xfe" + whole)
    yield message("not_json", whole.replace(b"hats", b"h\xe4ts"))
    yield message("wrong_type", b'["a list"]')
    yield changed("too_large", 901, properties={"category": "x" * 70_000})
    yield changed("wrong_type", 902, event=17)
    yield changed("wrong_type", 903, userId=["shopper"])
    yield message(
        "bad_number",
        encoded(track(user, time_ms, 904, **order, properties={"revenue": "twelve"})),
        PURCHASES,
    )
    yield changed("missing_field", 905, event=None)
    yield changed("missing_field", 906, timestamp=None)
    yield changed("no_user", 907, userId=None)
    yield changed("no_user", 908, userId="")
    yield changed("placeholder_user", 917, userId="undefined")
    yield changed("bad_time", 909, timestamp="the day before yesterday")
    yield changed("bad_time", 910, timestamp="2026-03-02T08:00:00")
    yield changed("out_of_range", 911, userId="u" * 300)
    yield message(
        "out_of_range",
        encoded(track(user, time_ms, 912, **order, properties={"revenue": 1e15})),
        PURCHASES,
    )
    yield changed("late", 913, timestamp=iso(time_ms - 91 * DAY_MS))
    yield changed("clamped", 914, timestamp=iso(time_ms + DAY_MS))
    yield changed("ignored", 915, event="Kitchen Sink Installed")
    yield changed("ignored", 916, type="identify", event=None)


def write(settings: Settings, messages: Iterable[Message]) -> None:
    with InputWriter(settings, harness.signer_of(settings)) as writer:
        for message in messages:
            writer.send(message.topic, message.user.encode(), message.value, message.time_ms)
        writer.finish()


def metric(pages: str, name: str) -> dict[str, float]:
    """A metric's values by their one label, from the worker itself."""
    with urllib.request.urlopen(f"{pages}/metrics", timeout=10) as answer:  # noqa: S310 - our own
        text = answer.read().decode()
    found = re.findall(rf'^{name}(?:{{\w+="([^"]*)"}})? (\S+)$', text, re.MULTILINE)
    return {label: float(number) for label, number in found}


def test_each_bad_message_is_counted_under_its_own_reason(
    kafka: RealKafka, redis_url: str, tmp_path: Path
) -> None:
    # Most of this is bad; what the limits do is the next test.
    settings = harness.watermark_settings(
        kafka.bootstrap, redis_url, harness.COMPILED, {"worker": {"reject_ratio_limit": 1.0}}
    )
    messages: list[Message] = []
    users = [f"shopper-{n}" for n in range(12)]
    for number, user in enumerate(users):
        at = START_MS + number * MINUTE_MS
        messages.append(good(user, at, 1))
        messages.extend(bad_messages(user, at))
        messages.append(good(user, at + 1_000, 2))
        doubled = good(user, at + 2_000, 3)
        messages += [doubled, doubled._replace(fate="duplicate")]
    expected = Counter(message.fate for message in messages)
    results = {"applied": expected["applied"] + expected["clamped"]}
    results |= {name: expected[name] for name in ("duplicate", "late", "ignored")}
    reasons = {fate: count for fate, count in expected.items() if fate not in (*results, "clamped")}
    results["rejected"] = sum(reasons.values())

    with Pipeline(settings, tmp_path) as pipeline:
        pipeline.create_topics()
        (worker,) = pipeline.start("all")
        write(settings, messages)
        pipeline.wait_for_mark(START_MS // DAY_MS * DAY_MS + DAY_MS)

        assert worker.running
        pages = re.search(r"http://127[.]0[.]0[.]1:[0-9]+", worker.said("/metrics"))
        assert pages is not None
        assert metric(pages[0], "segstream_events_total") == results
        assert metric(pages[0], "segstream_events_clamped_total") == {"": expected["clamped"]}
        refused = metric(pages[0], "segstream_rejects_total")
        assert {reason: count for reason, count in refused.items() if count} == reasons
        report = pipeline.audit()
        harness.assert_clean(report)
        assert {name: report.counts[name] for name in results} == results

        # Good neighbours were applied: two views and the first of the doubled, and the clamped.
        outcome = pipeline.outcome()
        assert set(outcome.users) == set(users)
        for row in outcome.users.values():
            # The repeated one arrived, and was not counted twice.
            assert np.frombuffer(row["arrivals"], dtype="<u4").tolist() == [5, 0]
        pipeline.end()
    _assert_letters_are_untouched(settings, messages, reasons)


def _assert_letters_are_untouched(
    settings: Settings, messages: list[Message], reasons: dict[str, int]
) -> None:
    """Each dead letter has the bytes, the key and the origin of what was sent, and the reason."""
    sent = Counter((m.fate, m.value or b"") for m in messages if m.fate in reasons)
    filed: Counter[tuple[str, bytes]] = Counter()
    for topic in settings.topics.inputs:
        origin = {(m.partition(), m.offset()): m for m in read_to_end(settings.broker, topic)}
        for letter in read_to_end(settings.broker, settings.topics.dlq(topic)):
            headers = harness.headers(letter)
            assert headers["segstream-topic"] == topic
            source = origin[int(headers["segstream-partition"]), int(headers["segstream-offset"])]
            assert (letter.value(), letter.key()) == (source.value(), source.key())
            assert headers["segstream-timestamp"] == str(source.timestamp()[1])
            assert headers["segstream-detail"]
            filed[headers["segstream-reason"], value(letter)] += 1
    assert filed == sent


@pytest.mark.parametrize(
    ("limit", "bad_of_three", "said"),
    [
        ({"reject_consecutive_limit": 20}, 3, "worker.reject_consecutive_limit = 20"),
        (
            {"reject_ratio_limit": 0.5, "reject_ratio_window": 30},
            2,
            "worker.reject_ratio_limit = 0.5",
        ),
    ],
    ids=["consecutive", "ratio"],
)
def test_piling_refusals_stop_the_worker_where_that_was_chosen(
    kafka: RealKafka,
    redis_url: str,
    tmp_path: Path,
    limit: dict[str, float],
    bad_of_three: int,
    said: str,
) -> None:
    user, second_day = "shopper-1", START_MS + DAY_MS
    fine = [good(user, START_MS + number, number) for number in range(40)]
    poison = [
        good(user, second_day + number, 100 + number)
        if number % 3 >= bad_of_three
        else Message(CLICKS, user, b"poison", second_day + number, "not_json")
        for number in range(300)
    ]
    chosen = {"worker": limit | {"on_reject_flood": "stop"}}
    settings = harness.watermark_settings(kafka.bootstrap, redis_url, chosen)
    with Pipeline(settings, tmp_path) as pipeline:
        pipeline.create_topics()
        write(settings, fine)
        worker, _ = pipeline.start("activity", "trainer")
        pipeline.wait_for_mark(START_MS // DAY_MS * DAY_MS + DAY_MS)
        before = pipeline.positions()
        write(settings, poison)

        assert worker.exit_code() == 1
        last_words = worker.said("segstream:")
        assert said in last_words
        assert "start again" in last_words
        assert re.search(r": \d+ not_json; their letters are on \S+-clickstream[.]dlq", last_words)
        assert "Traceback" not in worker.said()
        # The others have no poison in them, and may have gone on.
        held = partition_of(user.encode(), settings.topics.partitions)
        then, now = before[held], pipeline.positions()[held]
        assert then is not None
        assert now is not None
        assert (now.counts, now.offsets) == (then.counts, then.offsets)
        # Whoever looks finds the letters, though the messages are not passed.
        assert len(letter_ids(settings)) >= (20 if bad_of_three == 3 else 15)

        # It does as the message says: where it shall go on, it goes on where it was.
        goes_on = settings.worker.model_copy(update={"on_reject_flood": "alert"})
        pipeline.config.write_text(as_file(settings.model_copy(update={"worker": goes_on})))
        pipeline.start("activity")
        pipeline.wait_for_mark(START_MS // DAY_MS * DAY_MS + 2 * DAY_MS)
        report = pipeline.audit()
        harness.assert_clean(report)
        assert report.rejected == sum(message.fate == "not_json" for message in poison)
        ids = letter_ids(settings)
        assert len(ids) == report.rejected
        assert max(ids.values()) <= 2, "filed again only by who was started again"
        pipeline.end()


def letter_ids(settings: Settings) -> Counter[str]:
    """Ids of the dead letters, and how often each was filed."""
    return Counter(
        harness.headers(letter)["segstream-id"]
        for topic in settings.topics.inputs
        for letter in read_to_end(settings.broker, settings.topics.dlq(topic))
    )


def test_a_flood_stops_nobody_by_default(kafka: RealKafka, redis_url: str, tmp_path: Path) -> None:
    """A thousand in a row, then good ones again: an alert, every letter filed, nobody stops."""
    user = "shopper-1"
    poison = [Message(CLICKS, user, b"poison", START_MS + n, "not_json") for n in range(2_000)]
    fine = [good(user, START_MS + 10_000 + number, number) for number in range(12_000)]
    settings = harness.watermark_settings(kafka.bootstrap, redis_url)
    with Pipeline(settings, tmp_path) as pipeline:
        pipeline.create_topics()
        write(settings, [*poison, *fine])
        (worker,) = pipeline.start("all")
        pipeline.wait_for_mark(START_MS // DAY_MS * DAY_MS + DAY_MS)
        assert worker.running
        said = worker.said("refused")
        assert "worker.reject_consecutive_limit = 1000" in said
        assert "on_reject_flood = alert" in said
        report = pipeline.audit()
        harness.assert_clean(report)
        assert (report.rejected, report.counts["applied"]) == (2_000, 12_000)
        assert letter_ids(settings).total() == len(letter_ids(settings)) == 2_000
        pages = re.search(r"http://127[.]0[.]0[.]1:[0-9]+", worker.said("/metrics"))
        assert pages is not None
        assert metric(pages[0], "segstream_reject_alert") == {"": 0.0}
        pipeline.end()
