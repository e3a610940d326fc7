"""One leads, whoever stands by takes over; and what is declared of a role."""

from __future__ import annotations

from threading import Event

import pytest

from consumers.owner import StateLostError
from producers.topics import plan
from stream import metrics
from stream.config import Settings
from stream.health import Health
from stream.rights import OWNER, RIGHTS
from stream.roles.leader import STANDBY_SECONDS, Lease, lead
from stream.roles.registry import Role
from stream.store.memory import MemoryStore
from stream.wiring import roles
from stream.wiring.roles import ROLES, SECTIONS, outlets, wanted


class Waits(Event):
    """An event that notes how long is waited for it, and is set after so many waits."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.waited: list[float] = []
        self._most = most

    def wait(self, timeout: float | None = None) -> bool:
        self.waited.append(timeout or 0.0)
        if len(self.waited) == self._most:
            self.set()
        return self.is_set()


class Worker:
    """Leads from its third step on; has work in its fourth."""

    def __init__(self, fails_at: int = 0) -> None:
        self.steps = 0
        self.closed = False
        self._fails_at = fails_at

    @property
    def leads(self) -> bool:
        return self.steps >= 3

    def step(self) -> bool:
        self.steps += 1
        if self.steps == self._fails_at:
            raise RuntimeError
        return self.steps == 4

    def close(self) -> None:
        self.closed = True


def test_a_standby_looks_now_and_then_a_leader_rests_when_idle() -> None:
    worker, stop, alive = Worker(), Waits(4), []
    lead(worker, stop, lambda: alive.append(worker.steps), 0.05)
    assert stop.waited == [STANDBY_SECONDS, STANDBY_SECONDS, 0.05, 0.05]
    assert alive == [1, 2, 3, 4, 5]
    assert worker.closed


def test_who_fails_keeps_the_lease_to_go_on_with_it() -> None:
    worker = Worker(fails_at=2)
    with pytest.raises(RuntimeError):
        lead(worker, Waits(9), lambda: None, 0.05)
    assert not worker.closed


def test_a_lease_has_one_holder() -> None:
    store = MemoryStore()
    first, second = Lease(store, "trainer", 5.0), Lease(store, "trainer", 5.0)
    other = Lease(store, "publisher", 5.0)
    assert first.token != second.token
    assert first.hold()
    assert first.hold()
    assert not second.hold()
    assert other.hold()
    first.release()
    assert second.hold()
    assert not first.hold()


def test_each_role_has_its_rights_and_its_place_in_the_demo() -> None:
    for role in ROLES.values():
        assert RIGHTS.get(role.name, OWNER) == role.rights
        assert role.replicas > 0
        assert role.meaning.endswith(".")


def test_the_topics_that_are_planned_are_those_of_the_roles() -> None:
    campaign = {"name": "win-back", "when": {"kind_to": ["at_risk"]}}
    endpoint = {"name": "crm", "url": "https://crm.example/", "secrets": ["env:CRM"]}
    settings = Settings.model_validate({"campaigns": [campaign], "endpoints": [endpoint]})
    planned = {topic.name for topic in plan(settings, outlets(settings))}
    assert planned == {topic for role in ROLES.values() for topic in role.topics(settings)}
    assert settings.topics.triggers in planned


def test_without_campaigns_nobody_decides_about_them() -> None:
    settings = Settings()
    assert [role.name for role in wanted(settings)] == ["activity", "trainer", "publisher"]
    planned = {topic.name for topic in plan(settings, outlets(settings))}
    assert settings.topics.triggers not in planned


def test_every_section_of_the_settings_is_read_by_a_role() -> None:
    read = {section for role in ROLES.values() for section in role.settings}
    assert read | set(SECTIONS) == set(Settings.model_fields)


class Lingers(Event):
    """An event that notes how long is waited for it, and what is told meanwhile."""

    waited: float | None = None
    told: float | None = None

    def wait(self, timeout: float | None = None) -> bool:
        Lingers.waited = timeout
        labels = {"role": "doomed", "error": "StateLostError"}
        Lingers.told = metrics.REGISTRY.get_sample_value("segstream_role_failed", labels)
        return False


def test_a_role_that_needs_a_person_says_so_before_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(settings: Settings, stop: Event, health: Health) -> None:
        del settings, stop, health
        raise StateLostError("gone")

    doomed = Role(
        "doomed",
        "Ends at once.",
        (fail,),
        topics=lambda _: [],
        settings=(),
        rights=(),
        errors=(StateLostError,),
    )
    monkeypatch.setitem(ROLES, "doomed", doomed)
    monkeypatch.setattr(roles, "Event", Lingers)
    settings = Settings.model_validate({"metrics": {"linger_seconds": 7}})
    try:
        with pytest.raises(StateLostError):
            roles.run(settings, ["doomed"], Event())
        ready = metrics.REGISTRY.get_sample_value("segstream_role_ready", {"role": "doomed"})
        assert ready == 0
    finally:
        metrics.roles_told_by(dict)
    assert (Lingers.waited, Lingers.told) == (7, 1)


def test_an_error_that_no_role_declares_is_another() -> None:
    assert roles.failure_name(ROLES["activity"], StateLostError()) == "StateLostError"
    assert roles.failure_name(ROLES["trainer"], StateLostError()) == roles.OTHER_ERROR
