"""Each format says what its receiver's documentation asks for."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from stream.webhooks.bodies import audience, body
from stream.webhooks.declare import Format
from tests.stream.webhooks.making import NOW_MS, trigger

KEY = "the-key"
SOURCE = "/segstream/shop/campaigns"


def told(form: Format, **fields: Any) -> tuple[dict[str, str], Any]:
    made = body(form, trigger(**fields), [KEY, "an older one"], SOURCE)
    return made.headers, json.loads(made.content)


def test_standard_webhooks_have_type_timestamp_and_data() -> None:
    headers, found = told(Format.STANDARD)
    assert headers == {"content-type": "application/json"}
    assert found == {
        "type": "segstream.campaign.triggered",
        "timestamp": trigger()["at"],
        "data": trigger(),
    }


def test_a_structured_cloudevent_is_whole() -> None:
    headers, found = told(Format.CLOUDEVENTS)
    assert headers == {"content-type": "application/cloudevents+json"}
    assert found.pop("data") == trigger()
    assert found == {
        "specversion": "1.0",
        "id": trigger()["id"],
        "source": SOURCE,
        "dataschema": "urn:segstream:schema:campaign-trigger:1",
        "type": "segstream.campaign.triggered",
        "subject": "u1",
        "time": trigger()["at"],
        "datacontenttype": "application/json",
        "campaign": "win-back",
        "arm": "coupon",
    }


def test_segment_is_told_of_both_audiences_and_of_traits() -> None:
    headers, found = told(Format.SEGMENT)
    assert headers["authorization"] == "Basic " + base64.b64encode(b"the-key:").decode()
    left, entered, identify = found["batch"]
    assert (left["type"], left["event"]) == ("track", "Audience Exited")
    assert left["properties"]["audience_key"] == "segstream_loyal"
    assert left["properties"]["segstream_loyal"] is False
    assert (entered["type"], entered["event"]) == ("track", "Audience Entered")
    assert entered["properties"]["audience_key"] == "segstream_at_risk"
    assert entered["properties"]["segstream_at_risk"] is True
    assert identify["type"] == "identify"
    assert identify["traits"]["segstream_loyal"] is False
    assert identify["traits"]["segstream_at_risk"] is True
    assert {call["userId"] for call in found["batch"]} == {"u1"}
    ids = [call["messageId"] for call in found["batch"]]
    assert len(set(ids)) == 3
    assert all(name.startswith(trigger()["id"]) for name in ids)


@pytest.mark.parametrize("kind", [None, "at_risk"])
def test_segment_is_told_of_no_audience_that_was_not_left(kind: str | None) -> None:
    _, found = told(Format.SEGMENT, kind_from=kind)
    assert [call.get("event") for call in found["batch"]] == ["Audience Entered", None]


CROSSING: dict[str, Any] = {
    "from": None,
    "to": None,
    "name_from": None,
    "name_to": None,
    "kind_from": None,
    "kind_to": None,
    "level": "churn_risk",
    "step_from": "medium",
    "step_to": "high",
}


@pytest.mark.parametrize(
    ("step_from", "step_to", "events"),
    [
        ("medium", "high", ["Audience Exited", "Audience Entered", None]),
        (None, "high", ["Audience Entered", None]),
        ("medium", None, ["Audience Exited", None]),
    ],
)
def test_of_a_level_the_audiences_are_its_steps(
    step_from: str | None, step_to: str | None, events: list[str | None]
) -> None:
    _, found = told(Format.SEGMENT, **CROSSING | {"step_from": step_from, "step_to": step_to})
    assert [call.get("event") for call in found["batch"]] == events
    traits = found["batch"][-1]["traits"]
    assert traits["segstream_churn_risk"] == step_to
    assert traits.get("segstream_churn_risk_high", False) is (step_to == "high")
    assert traits.get("segstream_churn_risk_medium") is (False if step_from else None)
    assert "segstream_segment" not in traits


def test_every_format_tells_a_crossing() -> None:
    for form in Format:
        assert b"high" in body(form, trigger(**CROSSING), [KEY], SOURCE).content
    identify = json.loads(body(Format.DITTOFEED, trigger(**CROSSING), [KEY], SOURCE).content)
    assert identify["batch"][0]["traits"] == {"segstream_churn_risk": "high"}


def test_klaviyo_gets_an_event_that_it_can_tell_from_its_repeat() -> None:
    headers, found = told(Format.KLAVIYO, name_from=None)
    assert headers["authorization"] == "Klaviyo-API-Key the-key"
    assert headers["revision"] == "2025-01-15"
    assert found["data"]["type"] == "event"
    attributes = found["data"]["attributes"]
    assert attributes["unique_id"] == trigger()["id"]
    assert attributes["time"] == trigger()["at"]
    assert attributes["metric"]["data"]["attributes"] == {"name": "segstream win-back"}
    assert attributes["profile"]["data"]["attributes"] == {"external_id": "u1"}
    assert attributes["properties"]["arm"] == "coupon"
    assert "name_from" not in attributes["properties"]


@pytest.mark.parametrize(("key", "header"), [(KEY, "Bearer the-key"), ("Basic a2V5", "Basic a2V5")])
def test_dittofeed_gets_a_batch_with_an_id_each(key: str, header: str) -> None:
    made = body(Format.DITTOFEED, trigger(), [key], SOURCE)
    assert made.headers["authorization"] == header
    identify, track = json.loads(made.content)["batch"]
    assert (identify["type"], track["type"]) == ("identify", "track")
    assert track["event"] == "segstream win-back"
    assert track["properties"]["campaign"] == "win-back"
    assert identify["traits"]["segstream_kind"] == "at_risk"
    assert identify["messageId"] != track["messageId"]
    assert {identify["userId"], track["userId"]} == {"u1"}


def test_the_same_trigger_is_the_same_bytes() -> None:
    for form in Format:
        assert body(form, trigger(), [KEY], SOURCE) == body(form, trigger(), [KEY], SOURCE)
    assert len({body(form, trigger(at=str(NOW_MS)), [KEY], SOURCE).content for form in Format}) == 5


def test_an_audience_has_a_key_of_plain_letters() -> None:
    assert audience("At risk & co") == "segstream_at_risk_co"
