"""Each user's changes make a chain, from where it can begin."""

from __future__ import annotations

import msgspec
import pytest

from stream.events import MEMBERSHIP, Cause
from stream.hashing import change_identity
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
