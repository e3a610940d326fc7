"""A message of another form is refused with the field that looks like the one that is missing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from consumers.decode import Decoder
from consumers.plain import TIME_FIELDS
from stream.config import Worker
from stream.events import Reason
from stream.features import DEFAULT_FEATURES, FeatureTable
from tests.fakes import FakeMessage
from tests.fuzz.properties import WAYS
from tests.strategies import ORDER

TABLE = FeatureTable(DEFAULT_FEATURES)
TIME = "2026-01-05T09:00:00Z"
GOOD = {"type": "track", "event": ORDER, "userId": "ann", "timestamp": TIME}


def without(*names: str, **more: Any) -> dict[str, Any]:
    return {name: value for name, value in GOOD.items() if name not in names} | more


def refused(message: Any, way: Any) -> tuple[Reason, str]:
    value = json.dumps(message).encode()
    [reject] = Decoder(TABLE, Worker(decoder=way)).decode([FakeMessage(value)]).rejects.values()
    return reject.reason, reject.detail


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("message", "reason", "path", "field"),
    [
        (without("userId", user_id="ann"), Reason.NO_USER, "user_id", "userId"),
        (without("userId", userid=7), Reason.NO_USER, "userid", "userId"),
        (without("userId", customer_id="7"), Reason.NO_USER, "customer_id", "userId"),
        (
            without("userId", customer={"id": 7, "uid": "a"}),
            Reason.NO_USER,
            "customer.uid",
            "userId",
        ),
        (
            without("userId", properties={"distinct_id": "a"}),
            Reason.NO_USER,
            "properties.distinct_id",
            "userId",
        ),
        (without("userId", userId="", user_id="ann"), Reason.NO_USER, "user_id", "userId"),
        (without("timestamp", created_at=TIME), Reason.MISSING_FIELD, "created_at", "timestamp"),
        (without("timestamp", ts=1_767_603_600), Reason.MISSING_FIELD, "ts", "timestamp"),
        (
            without("timestamp", context={"time": TIME}),
            Reason.MISSING_FIELD,
            "context.time",
            "timestamp",
        ),
        (without("event", event_name=ORDER), Reason.MISSING_FIELD, "event_name", "event"),
        (without("event", "type", action=ORDER), Reason.MISSING_FIELD, "action", "event"),
    ],
)
def test_the_field_that_looks_like_it_is_told(
    way: Any, message: dict[str, Any], reason: Reason, path: str, field: str
) -> None:
    found, detail = refused(message, way)
    assert found is reason
    assert f"{path!r} looks like it: send it as {field!r}, or replay" in detail
    assert detail.endswith(f" = {path!r}")


@pytest.mark.parametrize(
    "message",
    [
        without("userId", user_id=""),
        without("userId", user_id=None),
        without("userId", user_id=True),
        without("userId", total=7),
        without("timestamp"),
        without("event"),
        # Of what kind a resource is, and no event's name.
        without("event", data={"type": "event", "attributes": {"metric": {"type": "metric"}}}),
        without("userId", **{f"field{n}": {"more": n} for n in range(600)}, user_id="late"),
    ],
)
def test_nothing_is_guessed_where_nothing_fits(message: dict[str, Any]) -> None:
    _, detail = refused(message, "plain")
    assert detail in {
        "neither userId nor anonymousId",
        f"the message has none of {', '.join(TIME_FIELDS)}",
        "the message names no event",
    }


INNER = json.dumps(GOOD)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ({"schema": {}, "payload": {"before": None, "after": GOOD, "op": "c"}}, "'payload.after'"),
        ({"before": None, "after": GOOD, "op": "c"}, "'after'"),
        ({"schema": {}, "payload": INNER}, "'payload'"),
        ({"Type": "Notification", "TopicArn": "arn", "Message": INNER}, "'Message'"),
        ({"detail-type": "order", "source": "shop", "detail": GOOD}, "'detail'"),
        ({"my": {"own": {"envelope": GOOD}}}, "'my.own.envelope'"),
        (
            {"payload": {"after": {"id": 1, "total": 2}, "op": "u"}},
            "by Debezium. Set worker.unwrap",
        ),
        ({"schema": {}, "payload": {"id": 1}}, "by Kafka Connect"),
        ({"Type": "Notification", "Message": "hello"}, "by SNS"),
        ({"detail-type": "x", "detail": {"id": 1}}, "by EventBridge"),
        ({"specversion": "1.0", "data": {"id": 1}}, "by CloudEvents"),
        (
            {"batch": [GOOD, GOOD]},
            "'batch' of the message holds 2: each must be a message of its own",
        ),
        ({"Records": [{"body": INNER}]}, "'Records' of the message holds 1"),
    ],
)
def test_what_is_wrapped_is_told_with_what_to_set(message: dict[str, Any], told: str) -> None:
    reason, detail = refused(message, "plain")
    assert reason is Reason.MISSING_FIELD
    assert told in detail
    assert ("worker.unwrap" in detail) is ("each must be" not in detail)


def test_no_value_of_a_message_is_told() -> None:
    private = "ann@example.com"
    for message in (
        without("userId", user_id=private),
        without("event", event_name=private),
        without("timestamp", created_at=private),
        {"schema": {}, "payload": {"email": private}},
    ):
        assert private not in refused(message, "plain")[1]
