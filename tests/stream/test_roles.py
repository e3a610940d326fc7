"""One leads, whoever stands by takes over; and what is declared of a role."""

from __future__ import annotations

from threading import Event

import pytest

from producers.topics import plan
from stream.config import Settings
from stream.rights import OWNER, RIGHTS
from stream.roles.leader import STANDBY_SECONDS, Lease, lead
from stream.store.memory import MemoryStore
from stream.wiring.roles import ROLES, SECTIONS, outlets


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
    settings = Settings()
    planned = {topic.name for topic in plan(settings, outlets(settings))}
    assert planned == {topic for role in ROLES.values() for topic in role.topics(settings)}


def test_every_section_of_the_settings_is_read_by_a_role() -> None:
    read = {section for role in ROLES.values() for section in role.settings}
    # These are read by `segstream campaigns`, and by no role yet.
    tried = {"campaigns", "campaign_limits"}
    assert read | set(SECTIONS) | tried == set(Settings.model_fields)
    assert not tried & read
