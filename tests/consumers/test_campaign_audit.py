"""The audit of campaigns finds nothing where nothing is wrong, and each fault where there is one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any

import pytest

from consumers.campaign_audit import KeptPartition, audit_campaigns
from consumers.campaigns import Campaigns
from producers.cloudevents import cloud_event
from stream.campaigns.declare import Limits
from stream.campaigns.keep import read_own
from stream.campaigns.triggers import TRIGGERED
from stream.config import Settings
from stream.events import CHANGED, LEVEL_CHANGED
from stream.records import change_id
from tests.consumers.test_campaigns import Kept, declare
from tests.fakes import FakeMessage
from tests.stream.campaigns.making import (
    HOUR_MS,
    LEVELS,
    START_MS,
    campaign,
    change,
    crossing,
    encoded,
)

KEY = b"secret of the namespace"
DECLARED = [
    campaign(settle="2h", holdout=0.3, arms={"a": 1, "b": 1}, cooldown="1d", goal={}),
    campaign("all", when={"kind_to": ["at_risk", "dormant"]}, priority=1),
    campaign("best", when={"kind_to": ["at_risk"], "steps": {"value_tier": ["high"]}}),
    campaign("risk", when={"level": "churn_risk", "step_to": ["high"]}, settle="1h"),
]


class Scene:
    """A role that has decided about a log, and the topics."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or declare(DECLARED)
        self.changes = []
        for n in range(120):
            one = change(f"u{n * 7 % 20}", START_MS + n * HOUR_MS // 3, n + 1)
            one["kind_to"] = ("at_risk", "loyal", "dormant")[n * 11 % 13 % 3]
            if n % 4 == 0:
                level, steps = list(LEVELS.items())[n % 3 % 2]
                told: dict[str, Any] = {"level": level, "step_to": steps[n // 4 % len(steps)]}
                one = crossing(one["user"], START_MS + n * HOUR_MS // 3, n + 1, **told)
            one["id"] = change_id(one["user"].encode(), KEY, 1, n + 1)
            self.changes.append(one)
        self.kept = Kept()
        role: Campaigns = self.kept.start(self.settings)
        for at in range(0, 120, 10):
            some = self.changes[at : at + 10]
            now_ms = START_MS + (at + 9) * HOUR_MS // 3
            messages = [FakeMessage(one, topic_name="segment-changes") for one in encoded(some)]
            self.kept.commit(role, role.decide(messages, now_ms))
        self.clock_ms = START_MS + 119 * HOUR_MS // 3
        self.triggers = list(self.kept.triggers)
        self.part = KeptPartition(0, 120, 0, self.clock_ms, 0, read_own(self.kept.own))

    def _read(self, _: Any, topic: str) -> Sequence[FakeMessage]:
        of_changes = topic == "segment-changes"
        found = [] if of_changes else [FakeMessage(b"of somebody else", topic_name=topic)]
        for place, one in enumerate(self.changes if of_changes else self.triggers):
            kind = (LEVEL_CHANGED if "level" in one else CHANGED) if of_changes else TRIGGERED
            headers = cloud_event("", "", kind, "", "")
            value = json.dumps(one).encode()
            found.append(FakeMessage(value, topic_name=topic, place=place, told=headers))
        return found

    def audit(self) -> dict[str, Any]:
        found = audit_campaigns(self.settings, KEY, [self.part], self._read)
        return {check.name.removeprefix("campaigns: "): check for check in found}


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    scene = Scene()
    assert len(scene.triggers) > 20
    scene.triggers.append(dict(scene.triggers[0]))
    for check in scene.audit().values():
        assert (check.ok, check.unjudged, check.offenders) == (True, 0, [])
        assert check.counted > 20


def _lose(scene: Scene) -> None:
    del scene.triggers[3]


def _invent(scene: Scene) -> None:
    scene.triggers.append(scene.triggers[0] | {"id": f"all-{DECLARED[1].version}-{'0' * 32}-1-7"})


def _say_twice(scene: Scene) -> None:
    scene.triggers.append(scene.triggers[0] | {"name_to": "another"})


def _treat_otherwise(scene: Scene) -> None:
    (one, *_) = [one for one in scene.triggers if one["campaign"] == "win-back"]
    one["arm"] = {"a": "b", "b": "a"}[one["arm"]]


def _concern_nobody(scene: Scene) -> None:
    scene.triggers[0]["change"] = next(
        one["id"] for one in scene.changes if one.get("kind_to") == "loyal"
    )


def _come_late(scene: Scene) -> None:
    scene.triggers[0]["valid_until"] = scene.triggers[0]["changed_at"]
    scene.triggers[0]["at"] = "2026-01-01T00:00:00.000Z"


def _miscount(scene: Scene) -> None:
    scene.part.own.counts["all"]["sent"] += 1


@pytest.mark.parametrize(
    ("spoil", "found_by"),
    [
        (_lose, "the log comes"),
        (_invent, "the log comes"),
        (_say_twice, "one payload"),
        (_treat_otherwise, "one payload"),
        (_concern_nobody, "a trigger follows"),
        (_come_late, "a trigger follows"),
        (_miscount, "every change"),
    ],
)
def test_a_fault_is_found(spoil: Callable[[Scene], None], found_by: str) -> None:
    scene = Scene()
    spoil(scene)
    (check,) = [check for name, check in scene.audit().items() if name.startswith(found_by)]
    assert not check.ok
    assert check.offenders


def test_what_is_newer_than_what_was_read_is_not_accused() -> None:
    scene = Scene()
    early = Scene()
    early.changes, early.triggers = scene.changes, scene.triggers
    early.kept = Kept()
    role = early.kept.start(early.settings)
    for at in range(0, 60, 10):
        messages = [
            FakeMessage(one, topic_name="segment-changes")
            for one in encoded(scene.changes[at : at + 10])
        ]
        early.kept.commit(role, role.decide(messages, START_MS + (at + 9) * HOUR_MS // 3))
    clock_ms = START_MS + 59 * HOUR_MS // 3
    early.part = KeptPartition(0, 60, 0, clock_ms, 0, read_own(early.kept.own))
    found = early.audit()
    assert all(check.ok for check in found.values())
    assert found["the log comes to the same triggers"].counted > 10


@pytest.mark.parametrize(
    ("other", "why"),
    [({"told_to": 1}, "campaign-control has records"), ({"read_to": 119}, "no more")],
)
def test_what_no_log_tells_is_not_judged(other: dict[str, Any], why: str) -> None:
    scene = Scene()
    scene.part = replace(scene.part, **other)
    check = scene.audit()["the log comes to the same triggers"]
    assert (check.ok, check.counted) == (True, 0)
    assert why in check.note


def _by_others(scene: Scene) -> list[dict[str, Any]]:
    """Records that somebody else puts on the change topic, each of another kind."""
    own = dict(scene.changes[0])
    later = own | {"id": change_id(own["user"].encode(), KEY, 1, 10_000)}
    return [
        {"id": "1.0-1", "event": "born", "segment": 3},
        {"id": own["id"]},
        own,
        own | {"id": f"{'0' * 32}-1-10000"},
        later | {"at": "2101-01-01T00:00:00Z"},
        later | {"to": 2**80},
    ]


def test_what_anybody_else_has_put_on_the_changes_is_told_and_accuses_nobody() -> None:
    quiet, disturbed = Scene(), Scene()
    others = _by_others(disturbed)
    disturbed.changes[60:60] = others
    disturbed.kept = Kept()
    role = disturbed.kept.start(disturbed.settings)
    for at in range(0, len(disturbed.changes), 9):
        some = disturbed.changes[at : at + 9]
        messages = [FakeMessage(one, topic_name="segment-changes") for one in encoded(some)]
        now_ms = max(map(role.time_ms, messages), default=0)
        disturbed.kept.commit(role, role.decide(messages, now_ms))
    by_id = itemgetter("id")
    assert sorted(disturbed.kept.triggers, key=by_id) == sorted(quiet.triggers, key=by_id)
    disturbed.triggers = disturbed.kept.triggers
    own = read_own(disturbed.kept.own)
    disturbed.part = KeptPartition(0, len(disturbed.changes), 0, disturbed.clock_ms, 0, own)
    for check in disturbed.audit().values():
        assert (check.ok, check.unjudged, check.offenders) == (True, 0, []), check.name
    (check,) = [c for name, c in disturbed.audit().items() if name.startswith("every record")]
    assert check.note.startswith("refused: 1 foreign, 1 time, 2 unreadable; somebody else writes")
    own.records = {**(own.records or {}), "change": 119}
    (check,) = [c for name, c in disturbed.audit().items() if name.startswith("every record")]
    assert not check.ok


def test_other_limits_and_another_order_are_no_fault_of_what_was_decided_before() -> None:
    """A campaign's version says nothing of the limits, and arms hang on the global holdout."""
    wider = Limits.model_validate({"global_holdout": 0.4, "per_user": {"day": 1}})
    for settings in (declare(DECLARED, wider), declare(DECLARED[::-1])):
        scene = Scene()
        role = scene.kept.start(settings)
        late = change("z", scene.clock_ms, 1)
        late["id"] = change_id(b"z", KEY, 1, 1)
        scene.changes.append(late)
        messages = [FakeMessage(one, topic_name="segment-changes") for one in encoded([late])]
        scene.kept.commit(role, role.decide(messages, scene.clock_ms))
        scene.settings, scene.triggers = settings, list(scene.kept.triggers)
        own = read_own(scene.kept.own)
        scene.part = KeptPartition(0, 121, 0, scene.clock_ms, 0, own)
        found = scene.audit()
        assert all(check.ok for check in found.values()), found
        assert "order or limits have changed" in found["the log comes to the same triggers"].note


def test_live_it_is_not_known_when_the_role_was_awake() -> None:
    scene = Scene(declare(DECLARED, mode="live"))
    check = scene.audit()["the log comes to the same triggers"]
    assert (check.ok, check.unjudged) == (True, len(scene.triggers))
    assert "awake" in check.note
