"""The AsyncAPI document has every topic, and what it says of headers is what is sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from consumers.decode import Reject
from ops.schemas import ASYNCAPI, FOLDER
from producers import membership, models, parked, rejects, topics
from producers.outbox import OutboxPublisher, changes_outlet
from stream.campaigns.triggers import triggers_outlet
from stream.cli.main import app
from stream.config import Settings
from stream.events import LETTER_RECEIPT, LineageRecord, Reason
from stream.membership import Membership
from stream.roles.outlet import Outlet
from stream.schemas import RECORDS
from stream.store.memory import MemoryStore
from stream.webhooks.letters import letters_outlet
from stream.wiring import asyncapi
from tests.fakes import FakeMessage
from tests.stream.webhooks.making import trigger

DOCUMENT: dict[str, Any] = yaml.safe_load(ASYNCAPI.read_text())
MESSAGES = DOCUMENT["components"]["messages"]
SETTINGS = Settings()
NOW = "2026-11-26T09:00:00.000Z"


def _operations(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {
        (one["action"], one["channel"]["$ref"].removeprefix("#/channels/"))
        for one in document["operations"].values()
    }


def test_every_topic_is_a_channel_that_somebody_uses() -> None:
    plans = topics.plan(SETTINGS, [triggers_outlet(SETTINGS), letters_outlet(SETTINGS)])
    planned = {plan.name: plan.partitions for plan in plans}
    channels = DOCUMENT["channels"]
    found = {name: one["bindings"]["kafka"]["partitions"] for name, one in channels.items()}
    assert found == planned
    assert {channel for _, channel in _operations(DOCUMENT)} == set(planned)
    assert all(one["address"] == name for name, one in channels.items())


def test_segstream_only_reads_what_others_write_and_reads_what_its_roles_read() -> None:
    sent = {channel for action, channel in _operations(DOCUMENT) if action == "send"}
    read = {channel for action, channel in _operations(DOCUMENT) if action == "receive"}
    assert sent & set(SETTINGS.topics.inputs) == set()
    assert {*SETTINGS.topics.inputs, "segment-changes", "campaign-triggers"} <= read


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


# -- what is really sent ----------------------------------------------------------------------


class UnaskedOutput:
    """An output for whoever only makes headers: to ask it is a fault of the test."""

    def delivered_ids(self, starts: Mapping[int, int]) -> tuple[dict[int, set[str]], list[int]]:
        raise AssertionError(f"asked what was delivered from {starts} on")

    def topic_ids(self, names: Sequence[str]) -> list[str]:
        raise AssertionError(f"asked for the ids of {names}")


def _by(outlet: Outlet, **fields: str) -> dict[str, Any]:
    """Headers of a record that a publisher sends for an outlet."""
    publisher = OutboxPublisher(SETTINGS, MemoryStore(), UnaskedOutput(), outlet)
    record = json.dumps({"id": "1", "at": NOW, "user": "ann", **fields}).encode()
    return dict(publisher._record(0, record, publisher._decode(record)).headers)


def _lineage() -> LineageRecord:
    return {
        "id": "5.0-8", "at": NOW, "segment": 8, "event": "renamed", "others": [], "model": "5.0",
        "name": "Regulars", "kind": "regular", "users": 12,
    }  # fmt: skip


def _letter() -> Any:
    return {"id": "crm/1/0", "endpoint": "crm", "user": "ann", "trigger": trigger()}


SENT: dict[str, Callable[[], Any]] = {
    "segment-change": lambda: _by(changes_outlet(SETTINGS), kind_to="at_risk"),
    "level-change": lambda: _by(changes_outlet(SETTINGS), level="churn_risk", step_to="high"),
    "segment-lineage": lambda: dict(models.ModelAnnouncer(SETTINGS)._event(_lineage()).headers),
    "segment-membership": lambda: dict(
        membership._record(SETTINGS, 0, Membership("1", b"ann", "at_risk", b"{}"), 0).headers
    ),
    "campaign-trigger": lambda: _by(triggers_outlet(SETTINGS), campaign="win-back", arm="mail"),
    "webhook-letter": lambda: _by(letters_outlet(SETTINGS), endpoint="crm"),
    "webhook-replay": lambda: dict(
        parked._request(SETTINGS, _letter(), "t", 0, NOW, late=False).headers
    ),
    "webhook-enable": lambda: dict(
        next(iter(parked._enabling(SETTINGS, ["crm"], "t", NOW))).headers
    ),
}


def test_every_type_of_event_is_looked_at() -> None:
    assert SENT.keys() == asyncapi.events(SETTINGS).keys()
    assert SENT.keys() < RECORDS.keys()


@pytest.mark.parametrize("name", SENT)
def test_headers_of_a_cloud_event_are_those_that_are_sent(name: str) -> None:
    sent = SENT[name]()
    headers = MESSAGES[name]["headers"]
    assert list(sent) == headers["required"]
    Draft202012Validator(headers).validate(sent)
    assert sent["ce_dataschema"] == RECORDS[name].uri
    assert sent["ce_source"].startswith("/segstream/segstream/"), "the default namespace"


def test_headers_of_a_dead_letter_are_those_that_are_filed() -> None:
    refused = Reject(Reason.NOT_JSON, "no JSON", FakeMessage(b"{"))
    letter = rejects._headers(refused)
    assert [name for name, _ in letter] == list(asyncapi.LETTER)
    assert set(MESSAGES["dead-letter"]["headers"]["required"]) == set(asyncapi.LETTER)
    reasons = MESSAGES["dead-letter"]["headers"]["properties"]["segstream-reason"]["enum"]
    assert reasons == [reason.value for reason in Reason]
    assert MESSAGES["dead-letter-receipt"]["headers"]["required"] == [LETTER_RECEIPT]


# -- the command ------------------------------------------------------------------------------


def test_the_command_writes_what_is_true_of_ones_own_settings(tmp_path: Path) -> None:
    folder = tmp_path / "contracts"
    named = ["--set", "store.namespace=shop", "--set", "topics.changes=moves"]
    done = CliRunner().invoke(app, [*named, "schemas", str(folder)])
    assert done.exit_code == 0, done.output
    assert {path.name for path in folder.iterdir()} == {
        "asyncapi.json",
        *(f"{name}.json" for name in RECORDS),
    }
    for name in RECORDS:
        assert (folder / f"{name}.json").read_text() == (FOLDER / f"{name}.json").read_text()
    told = json.loads((folder / "asyncapi.json").read_text())
    assert "moves" in told["channels"]
    headers = told["components"]["messages"]["segment-change"]["headers"]["properties"]
    assert headers["ce_source"] == {"const": "/segstream/shop/activity"}
