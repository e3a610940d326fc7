"""Each user's changes make a chain, from where it can begin."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from stream.events import CHANGED, MEMBERSHIP, Cause
from stream.hashing import change_identity
from stream.levels.declare import Level
from stream.units import DAY_MS, iso
from tests.consumers.audit.world import (
    ASSIGNED,
    FROM,
    VERSIONS,
    World,
    failed,
    truthful,
)
from tests.strategies import (
    START_MS,
)


def test_an_earlier_incarnation_has_a_chain_of_its_own() -> None:
    world = World()
    world.click(0, "ann", 0)
    world.announce(0, world.change("ann", 1, None, 3))
    world.announce(0, world.change("ann", 2, 3, 1))
    world.announce(0, world.change("ann", 1, None, 2, incarnation=2))
    world.process(0, {"ann": (1, 2)}, incarnation=2)
    assert failed(world.audit()) == {}


def membership(world: World, user: str, version: int, segment: int) -> bytes:
    key, incarnation = world.store.namespace_key(), 1
    return msgspec.json.encode(
        {
            "id": f"{change_identity(user.encode(), key)}-{incarnation}-{version}-abcd1234",
            "user": user,
            "version": version,
            "segment": segment,
            "name": f"segment {segment}",
            "kind": "at_risk",
            "since": iso(START_MS + version * DAY_MS),
            "last_event_at": iso(START_MS),
            "at": iso(START_MS + 9 * DAY_MS),
            "model": "1.4",
        }
    )


def tell_again(world: World, partition: int, user: str, version: int, segment: int) -> None:
    record = world.send(
        world.settings.topics.changes,
        partition,
        membership(world, user, version, segment),
    )
    record.told = [("ce_type", MEMBERSHIP.encode())]


def made_anew(world: World) -> None:
    """The topic of changes was deleted and made anew: what was delivered is on no topic."""
    world.topics[world.settings.topics.changes].clear()


def test_where_everybody_was_told_again_a_chain_may_begin_there() -> None:
    world = truthful()
    made_anew(world)
    assert {VERSIONS, ASSIGNED} <= failed(world.audit()).keys(), "nobody was told"
    tell_again(world, 0, "ann", 3, 3)
    tell_again(world, 1, "cid", 1, 2)
    tell_again(world, 0, "bob", 1, 1)
    report = world.audit()
    assert failed(report) == {}
    assert (report.lost, report.pending) == (0, 1)

    # A change after that goes on from what was told.
    world.announce(0, world.change("ann", 4, 3, 1))
    del world.store._partitions[0]
    world.process(0, {"ann": (4, 1), "bob": (2, 4)}, (world.change("bob", 2, 1, 4),))
    report = world.audit()
    assert failed(report) == {}
    assert report.lost == 0


@pytest.mark.parametrize(
    ("version", "segment", "checks"),
    [(3, 2, {ASSIGNED}), (2, 1, {ASSIGNED}), (1, 3, {ASSIGNED})],
    ids=["another segment", "an older one", "a much older one"],
)
def test_what_was_told_again_has_to_be_so(version: int, segment: int, checks: set[str]) -> None:
    world = truthful()
    made_anew(world)
    tell_again(world, 1, "cid", 1, 2)
    tell_again(world, 0, "bob", 1, 1)
    tell_again(world, 0, "ann", version, segment)
    assert failed(world.audit()).keys() == checks


def test_a_change_after_what_was_told_again_begins_there() -> None:
    world = truthful()
    made_anew(world)
    tell_again(world, 1, "cid", 1, 2)
    tell_again(world, 0, "bob", 1, 1)
    tell_again(world, 0, "ann", 3, 2)
    world.announce(0, world.change("ann", 4, 3, 1))
    del world.store._partitions[0]
    world.process(0, {"ann": (4, 1), "bob": (2, 4)}, (world.change("bob", 2, 1, 4),))
    assert failed(world.audit()).keys() == {FROM}


def test_what_retention_has_deleted_of_the_output_is_not_judged() -> None:
    world = truthful()
    topic = world.settings.topics.changes
    kept = [one for one in world.topics[topic] if one.in_partition == 1 or one.at_offset >= 2]
    world.topics[topic] = kept
    report = world.audit()
    assert failed(report) == {}
    assert report.lost == 0
    unjudged = {check.name: check.unjudged for check in report.checks}
    assert unjudged[VERSIONS] > 0


def turned(**rest: str) -> World:
    """A user who came to segment 3, which then turned into another kind."""
    world = World()
    world.click(0, "ann", 0)
    world.announce(0, world.change("ann", 1, None, 3))
    turn = {"kind_to": "dormant", "cause": Cause.SEGMENT_TURNED} | rest
    world.announce(0, world.change("ann", 2, 3, 3, **turn))
    world.process(0, {"ann": (2, 3)})
    world.reposition(0, kinds=["at_risk", "dormant"])
    world.edit(0, "ann", "kind", lambda _: 2)
    world.edit(0, "ann", "previous", lambda _: 0)
    world.edit(0, "ann", "since", lambda _: START_MS + DAY_MS)
    return world


def test_a_turn_moves_nobody_and_is_a_link_of_the_chain() -> None:
    assert failed(turned().audit()) == {}


def test_a_turn_from_a_kind_that_was_not_told_is_named() -> None:
    offenders = failed(turned(kind_from="loyal").audit())["from_is_the_previous_to"]
    assert "from kind loyal, but the user was told at_risk" in offenders[0]


def test_a_row_that_knows_another_kind_than_was_told_is_named() -> None:
    world = turned()
    world.edit(0, "ann", "kind", lambda _: 1)
    offenders = failed(world.audit())[ASSIGNED]
    assert "the store says kind at_risk; the last change says dormant" in offenders[0]


def test_a_row_that_came_when_its_segment_turned_is_named() -> None:
    world = turned()
    world.edit(0, "ann", "since", lambda _: START_MS + 2 * DAY_MS)
    assert "the last move says" in failed(world.audit())[ASSIGNED][0]


# -- levels ----------------------------------------------------------------------------------------

STAGE = Level.model_validate(
    {
        "name": "stage",
        "of": "orders_ever",
        "steps": [{"name": "customer", "least": 1}, {"name": "prospect"}],
    }
)


def with_levels(*crossings: tuple[int, str | None, str | None], last: int = 4) -> World:
    """Ann's segment changes are versions 1 and 3."""
    world = World(levels=(STAGE,))
    world.click(0, "ann", 0)
    records = {1: world.change("ann", 1, None, 3), 3: world.change("ann", 3, 3, 1)}
    records |= {number: world.crossing("ann", number, *steps) for number, *steps in crossings}
    for number in sorted(records):
        world.announce(0, records[number])
    world.process(0, {"ann": (last, 1)})
    return world


def test_segments_and_levels_are_one_chain() -> None:
    world = with_levels((2, "prospect", "customer"), (4, "customer", "prospect"))
    report = world.audit()
    assert failed(report) == {}
    assert report.changes == 4


def test_a_crossing_begins_on_the_step_where_the_one_before_ended() -> None:
    broken = with_levels((2, "prospect", "customer"), (4, "prospect", "customer"))
    assert failed(broken.audit()).keys() == {FROM}
    nowhere = with_levels((2, "prospect", "prospect"), (4, "prospect", "customer"))
    assert failed(nowhere.audit()).keys() == {FROM}


def test_a_crossing_that_is_missing_breaks_the_versions() -> None:
    world = with_levels((4, "prospect", "customer"))
    assert VERSIONS in failed(world.audit())
    assert world.audit().lost == 1


@pytest.mark.parametrize("code", [0, 2])
def test_the_store_has_everyone_on_the_step_that_was_told_last(code: int) -> None:
    world = with_levels((2, "prospect", "customer"), (4, "customer", "prospect"), last=4)
    assert failed(world.audit()) == {}

    def other(levels: Any) -> Any:
        levels[0] = 0 if code == 0 else 1
        return levels

    world.edit(0, "ann", "levels", other)
    (told,) = failed(world.audit())[ASSIGNED]
    assert "the last change says prospect" in told


def test_a_step_that_nobody_was_told_is_found() -> None:
    world = World(levels=(STAGE,))
    world.click(0, "ann", 0)
    world.announce(0, world.change("ann", 1, None, 3))
    world.process(0, {"ann": (1, 3)})
    assert failed(world.audit()) == {}

    def customer(levels: Any) -> Any:
        levels[0] = 1
        return levels

    world.edit(0, "ann", "levels", customer)
    (told,) = failed(world.audit())[ASSIGNED]
    assert "stage customer; the last change says none" in told


def test_a_crossing_that_waits_is_known_and_its_type_is_looked_at() -> None:
    world = World(levels=(STAGE,))
    world.click(0, "ann", 0)
    world.announce(0, world.change("ann", 1, None, 3))
    waiting = world.crossing("ann", 2, "prospect", "customer")
    world.process(0, {"ann": (2, 3)}, (waiting,))
    assert (failed(world.audit()), world.audit().pending) == ({}, 1)
    record = world.announce(0, waiting)
    assert (failed(world.audit()), world.audit().pending) == ({}, 0)
    record.told[-1] = ("ce_type", CHANGED.encode())
    assert failed(world.audit()).keys() == {"change_records_are_valid"}


def test_where_retention_has_deleted_the_moves_crossings_are_judged_all_the_same() -> None:
    world = with_levels((2, "prospect", "customer"), (4, "customer", "prospect"))
    topic = world.settings.topics.changes
    world.topics[topic] = [one for one in world.topics[topic] if one.at_offset >= 3]
    assert failed(world.audit()) == {}
    world.edit(0, "ann", "levels", lambda levels: levels * 0)
    assert failed(world.audit()).keys() == {ASSIGNED}
