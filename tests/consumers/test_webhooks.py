"""The role of webhooks: what is tried when, what is kept, and what is passed over."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from consumers.parked import parked
from consumers.role import NOTHING, Decided
from consumers.webhooks import Webhooks
from producers.cloudevents import cloud_event
from stream.campaigns.triggers import CampaignTrigger
from stream.config import ConfigError, Settings
from stream.masking import MASK
from stream.metrics import REGISTRY
from stream.records import change_id
from stream.units import iso
from stream.webhooks.letters import ENABLE, PARKED, REPLAY, topic_of
from stream.webhooks.queue import Attempt, Reason
from stream.webhooks.schedule import Answer
from stream.wiring.parked import parked_facts, replay
from tests.fakes import FakeMessage
from tests.stream.webhooks import making
from tests.stream.webhooks.making import NOW_MS

CAMPAIGN = {"name": "win-back", "when": {"kind_to": ["at_risk"]}}
Done = Callable[[str, Answer], None]


KEY = b"secret of the namespace"


def trigger(number: int = 1, **fields: Any) -> CampaignTrigger:
    return making.trigger(number, KEY, **fields)


def declared(*names: str, **webhooks: Any) -> Settings:
    endpoints = [
        {"name": name, "url": f"https://{name}.example/", "secrets": ["env:S"]} for name in names
    ]
    return Settings.model_validate(
        {"campaigns": [CAMPAIGN], "endpoints": endpoints, "webhooks": webhooks}
    )


class Sender:
    """Notes attempts; the test says what they come to."""

    def __init__(self) -> None:
        self.under_way: list[tuple[Attempt, Done]] = []

    def send(self, attempts: Sequence[Attempt], done: Done) -> None:
        self.under_way += [(one, done) for one in attempts]

    def all_come_to(self, answer: Answer) -> list[str]:
        ended, self.under_way = self.under_way, []
        for attempt, done in ended:
            done(attempt.key, answer)
        return [attempt.trigger["id"] for attempt, _ in ended]


class Scene:
    """A partition of the role with its store and sender."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.rows: dict[bytes, bytes] = {}
        self.own = b""
        self.letters: list[bytes] = []
        self.start()

    def start(self) -> None:
        self.sender = Sender()
        self.role = Webhooks(self.settings, 3, self.sender.send, KEY)
        self.role.load(self.rows.items())
        self.role.begin(self.own, [])

    def step(self, *messages: FakeMessage, now_ms: int = NOW_MS) -> Decided:
        decided = self.role.decide(list(messages), now_ms)
        for place, name in enumerate(decided.users):
            size = len(decided.rows) // len(decided.users)
            self.rows[name] = decided.rows[place * size : (place + 1) * size]
        for name in decided.gone:
            self.rows.pop(name, None)
        self.own = self.own if decided.own is None else decided.own
        self.letters += decided.records
        assert len(self.role) == len(self.rows)
        if decided.tell is not None:
            decided.tell()
        return decided

    def trigger(self, number: int = 1, **fields: Any) -> FakeMessage:
        value = msgspec.json.encode(trigger(number, **fields))
        return FakeMessage(value, topic_name=self.settings.topics.triggers)

    def asked(self, kind: str, value: Any) -> FakeMessage:
        headers = cloud_event("", "", kind, "", "")
        encoded = msgspec.json.encode(value)
        return FakeMessage(encoded, topic_name=topic_of(self.settings), told=headers)


def test_a_trigger_is_sent_to_every_endpoint_once_it_is_kept() -> None:
    scene = Scene(declared("crm", "mail"))
    decided = scene.role.decide([scene.trigger()], NOW_MS)
    assert scene.sender.under_way == []
    assert len(decided.users) == 2
    assert decided.tell is not None
    decided.tell()
    assert {one.endpoint.name for one, _ in scene.sender.under_way} == {"crm", "mail"}


def test_what_arrived_is_told_with_the_next_step_and_kept_no_longer() -> None:
    scene = Scene(declared("crm"))
    scene.step(scene.trigger())
    assert scene.sender.all_come_to(Answer(204)) == [trigger()["id"]]
    scene.step()
    assert (scene.rows, scene.letters) == ({}, [])
    assert scene.step() == NOTHING


def test_after_a_crash_what_was_under_way_is_tried_again() -> None:
    scene = Scene(declared("crm"))
    scene.step(scene.trigger())
    scene.start()
    scene.step()
    assert scene.sender.all_come_to(Answer(200)) == [trigger()["id"]]


def test_what_is_given_up_is_a_letter_and_is_sent_again_when_asked() -> None:
    scene = Scene(declared("crm", retry_seconds=[]))
    scene.step(scene.trigger())
    scene.sender.all_come_to(Answer(500))
    scene.step()
    (letter,) = map(json.loads, scene.letters)
    assert (letter["reason"], letter["detail"]) == ("exhausted", "HTTP 500")
    request = {"id": "r", "at": iso(NOW_MS), "letter": letter, "late": False}
    scene.step(scene.asked(REPLAY, request))
    assert scene.sender.all_come_to(Answer(500)) == [trigger()["id"]]
    scene.step()
    first, second = map(json.loads, scene.letters)
    assert (first["round"], second["round"]) == (0, 1)
    assert first["id"] != second["id"]


@pytest.mark.parametrize(("late", "sent"), [(True, 1), (False, 0)])
def test_what_is_no_longer_valid_is_sent_only_if_that_was_asked_for(late: bool, sent: int) -> None:
    scene = Scene(declared("crm"))
    scene.step(scene.trigger(valid_until=iso(NOW_MS - 1)))
    assert scene.sender.under_way == []
    scene.step()
    (letter,) = map(json.loads, scene.letters)
    assert letter["reason"] == "expired"
    request = {"id": "r", "at": iso(NOW_MS), "letter": letter, "late": late}
    scene.step(scene.asked(REPLAY, request))
    assert len(scene.sender.under_way) == sent


def test_an_endpoint_that_said_410_is_tried_again_when_asked() -> None:
    scene = Scene(declared("crm"))
    scene.step(scene.trigger(1))
    scene.sender.all_come_to(Answer(410))
    scene.step(scene.trigger(2))
    scene.start()
    scene.step(scene.trigger(3))
    assert scene.sender.under_way == []
    scene.step(scene.asked(ENABLE, {"id": "e", "at": iso(NOW_MS), "endpoint": "crm"}))
    scene.step(scene.trigger(4))
    assert [one.trigger["user"] for one, _ in scene.sender.under_way] == ["u4"]


def test_what_cannot_be_read_is_passed_over_and_counted() -> None:
    scene = Scene(declared("crm"))

    def passed_over() -> float:
        labels = {"topic": scene.settings.topics.triggers}
        return REGISTRY.get_sample_value("segstream_webhook_unreadable_total", labels) or 0.0

    before = passed_over()
    deep = b"[" * 100_000 + b"]" * 100_000
    strangers = [b"", b"{", b"\xff", b"[]", b'{"id": 7}', b'{"campaign": "win-back"}', deep]
    # Nobody but campaigns of this namespace tells an endpoint anything.
    foreign = [
        making.trigger(),
        making.trigger(key=b"another namespace"),
        trigger() | {"user": "u2"},
        trigger() | {"campaign": "other"},
        trigger() | {"id": f"{trigger()['id']}\nx: y"},
    ]
    strangers += map(msgspec.json.encode, foreign)
    for topic in (scene.settings.topics.control, scene.settings.topics.changes):
        said = b'{"user": "u1", "cause": "erased", "traits": {"a": %b}}' % deep
        scene.step(FakeMessage(said, topic_name=topic))
    scene.step(*[FakeMessage(one, topic_name=scene.settings.topics.triggers) for one in strangers])
    assert passed_over() - before == len(strangers)
    scene.step(*[scene.asked(kind, {"id": 1}) for kind in (REPLAY, ENABLE, PARKED, "other")])
    letter = {
        "id": "crm/x/0", "endpoint": "crm", "reason": "gone", "detail": "", "attempts": 1, "round": 0,
        "at": iso(NOW_MS), "user": "u1", "campaign": "win-back", "trigger": making.trigger(),
    }  # fmt: skip
    scene.step(scene.asked(REPLAY, {"id": "r", "at": iso(NOW_MS), "letter": letter, "late": True}))
    assert (scene.rows, scene.letters, scene.sender.under_way) == ({}, [], [])


def test_it_is_told_how_many_wait_until_the_partition_goes() -> None:
    scene = Scene(declared("crm"))
    labels = {"endpoint": "crm", "partition": "3"}
    scene.step(scene.trigger(1), scene.trigger(2))
    assert REGISTRY.get_sample_value("segstream_webhook_waiting_deliveries", labels) == 2
    scene.role.close()
    assert REGISTRY.get_sample_value("segstream_webhook_waiting_deliveries", labels) is None


def test_an_erased_user_gets_nothing_even_of_what_comes_behind() -> None:
    scene = Scene(declared("crm"))
    topics = scene.settings.topics
    scene.step(scene.trigger(1), scene.trigger(2))
    scene.sender.under_way.clear()
    gone = {"id": change_id(b"u1", KEY, 1, 7), "user": "u1", "cause": "erased"}
    erased = msgspec.json.encode(gone)
    # Somebody else's word erases nobody.
    others = [msgspec.json.encode({"id": "u2-1-1", "user": "u2", "cause": "erased"})]
    others += [b"{", b'"erased"', msgspec.json.encode({"user": "erased", "cause": "user_moved"})]
    scene.step(*[FakeMessage(one, topic_name=topics.changes) for one in [*others, erased]])
    scene.start()
    scene.step(scene.trigger(3, user="u1"), scene.trigger(4, user="erased"))
    assert {one.trigger["user"] for one, _ in scene.sender.under_way} == {"u2", "erased"}


def test_a_user_who_is_suppressed_gets_nothing_until_that_is_taken_back() -> None:
    scene = Scene(declared("crm"))
    control = scene.settings.topics.control

    def told(**fields: Any) -> FakeMessage:
        return FakeMessage(msgspec.json.encode({"user": "u1"} | fields), topic_name=control)

    scene.step(
        told(suppressed=True), told(zone="Europe/London"), FakeMessage(b"{", topic_name=control)
    )
    scene.step(scene.trigger(1))
    assert scene.sender.under_way == []
    scene.step(told(suppressed=False))
    scene.step(scene.trigger(2, user="u1"))
    assert len(scene.sender.under_way) == 1


def test_a_trait_drops_what_waits_and_each_reason_is_one_by_itself() -> None:
    scene = Scene(
        Settings.model_validate(
            declared("crm").model_dump(by_alias=True)
            | {"campaign_limits": {"suppress": {"unsubscribed": True}}}
        )
    )
    control = scene.settings.topics.control

    def told(**fields: Any) -> FakeMessage:
        return FakeMessage(msgspec.json.encode(fields), topic_name=control)

    scene.step(scene.trigger(1, user="u1"), scene.trigger(2, user="u2"))
    # Between the decision and the delivery the user says no.
    scene.sender.all_come_to(Answer(500))
    scene.step(told(type="identify", userId="u1", traits={"unsubscribed": True}))
    scene.start()
    scene.step(now_ms=NOW_MS + 60_000)
    assert {one.trigger["user"] for one, _ in scene.sender.under_way} == {"u2"}
    scene.step(told(user="u1", suppressed=True), told(user="u1", suppressed=False))
    scene.step(scene.trigger(3, user="u1"))
    assert len(scene.sender.under_way) == 1
    scene.step(told(user="u1", traits={"unsubscribed": None}))
    scene.step(scene.trigger(4, user="u1"))
    assert {one.trigger["user"] for one, _ in scene.sender.under_way} == {"u1", "u2"}


def test_what_never_happened_to_an_endpoint_is_counted_as_0() -> None:
    Scene(declared("fresh"))
    for outcome in ("taken", "delivered", "dropped", *Reason):
        labels = {"endpoint": "fresh", "outcome": outcome}
        assert REGISTRY.get_sample_value("segstream_webhook_deliveries_total", labels) == 0


# -- letters -----------------------------------------------------------------------------------


def test_letters_are_counted_by_endpoint_and_reason() -> None:
    scene = Scene(declared("crm", "mail", retry_seconds=[]))
    scene.step(scene.trigger(1), scene.trigger(2))
    scene.sender.all_come_to(Answer(None, error="no answer in 20 s"))
    scene.step()
    records = [scene.asked(PARKED, json.loads(one)) for one in scene.letters]
    letter = json.loads(scene.letters[0])
    request = {"id": "r", "at": iso(NOW_MS), "letter": letter, "late": False}
    strangers = [FakeMessage(b"{}", topic_name=topic_of(scene.settings)), scene.asked(PARKED, {})]
    found = parked(
        scene.settings,
        lambda _broker, _topic: [*records, *records, *strangers, scene.asked(REPLAY, request)],
    )
    facts = parked_facts(found)
    assert facts["letters"] == 4
    assert sorted((one["endpoint"], one["letters"]) for one in facts["reasons"]) == [
        ("crm", 2),
        ("mail", 2),
    ]
    assert sum(one["replayed"] for one in facts["reasons"]) == 1
    assert {one["detail"] for one in facts["reasons"]} == {"no answer in 20 s"}
    assert MASK not in str(facts)


def test_only_what_has_an_endpoint_is_sent_again() -> None:
    scene = Scene(declared("crm", "mail", retry_seconds=[]))
    scene.step(scene.trigger(1), scene.trigger(2))
    scene.sender.all_come_to(Answer(500))
    scene.step()
    records = [scene.asked(PARKED, json.loads(one)) for one in scene.letters]
    found = parked(scene.settings, lambda _broker, _topic: records)
    options: dict[str, Any] = {
        "reason": None, "since_ms": 0, "limit": None, "again": False, "late": False,
        "dry_run": True, "told": lambda _: None,
    }  # fmt: skip
    without_mail = declared("crm")
    facts = replay(without_mail, found, NOW_MS, endpoint=None, **options)
    assert (facts["endpoints"], facts["would_ask"], facts["undeclared"]) == ({"crm": 2}, 2, 2)
    facts = replay(without_mail, found, NOW_MS, endpoint="mail", **options)
    assert (facts["would_ask"], facts["undeclared"]) == (0, 2)
    with pytest.raises(ConfigError, match=r"--endpoint crn: there is no such .* but crm, mail"):
        replay(without_mail, found, NOW_MS, endpoint="crn", **options)
