"""The AsyncAPI document has every topic, and what it says of headers is what is sent."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pytest
import yaml

from consumers.decode import Reject
from ops.schemas import FOLDER, RECORDS, asyncapi
from producers import rejects, topics
from producers.cloudevents import cloud_event
from stream.campaigns.triggers import triggers_outlet
from stream.config import Settings
from stream.events import LINEAGE, Reason
from stream.webhooks.letters import letters_outlet
from tests.fakes import FakeMessage

DOCUMENT: dict[str, Any] = yaml.safe_load(asyncapi.FILE.read_text())
MESSAGES = DOCUMENT["components"]["messages"]


def test_the_file_is_what_is_declared() -> None:
    told = asyncapi.text(version("segstream"))
    assert asyncapi.FILE.read_text() == told, "write it anew: python -m ops.schemas"


def test_every_topic_is_a_channel_with_its_operation() -> None:
    plans = topics.plan(Settings(), [triggers_outlet(Settings()), letters_outlet(Settings())])
    planned = {plan.name: plan.partitions for plan in plans}
    channels = DOCUMENT["channels"]
    found = {name: one["bindings"]["kafka"]["partitions"] for name, one in channels.items()}
    assert found == planned
    used = [
        one["channel"]["$ref"].removeprefix("#/channels/")
        for one in DOCUMENT["operations"].values()
    ]
    assert sorted(used) == sorted(planned)
    assert all(one["address"] == name for name, one in channels.items())


def _references(part: Any) -> list[str]:
    if isinstance(part, dict):
        own = [part["$ref"]] if "$ref" in part else []
        return own + [found for value in part.values() for found in _references(value)]
    if isinstance(part, list):
        return [found for value in part for found in _references(value)]
    return []


def test_references_lead_somewhere() -> None:
    found = _references(DOCUMENT)
    assert {f"./{name}.json" for name in RECORDS} <= set(found)
    for reference in found:
        if reference.startswith("./"):
            assert (FOLDER / reference).exists(), reference
            continue
        part = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            part = part[step]


def test_every_message_is_on_a_channel() -> None:
    used = {name for one in DOCUMENT["channels"].values() for name in one["messages"]}
    assert used == MESSAGES.keys()


EVENTS = asyncapi.DATA | asyncapi.TRIGGERS | asyncapi.PARKED_DELIVERIES


@pytest.mark.parametrize("name", EVENTS)
def test_headers_of_a_cloud_event_are_those_that_are_sent(name: str) -> None:
    sent = dict(cloud_event("1", "/x", LINEAGE, "now", "ann"))
    headers = MESSAGES[name]["headers"]
    assert set(sent) <= set(headers["required"])
    assert headers["properties"]["ce_type"]["const"] == EVENTS[name][0]


def test_headers_of_a_dead_letter_are_those_that_are_filed() -> None:
    refused = Reject(Reason.NOT_JSON, "no JSON", FakeMessage(b"{"))
    letter = rejects._headers(refused)
    assert [name for name, _ in letter] == list(asyncapi.LETTER)
    assert set(MESSAGES["dead-letter"]["headers"]["required"]) == set(asyncapi.LETTER)
    reasons = MESSAGES["dead-letter"]["headers"]["properties"]["segstream-reason"]["enum"]
    assert reasons == [reason.value for reason in Reason]
