"""Every refused message is filed, with its reason and its bytes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stream.config import Worker
from stream.events import Reason
from stream.hashing import partition_of
from tests.consumers.audit.world import (
    World,
    failed,
    truthful,
)
from tests.strategies import (
    START_MS,
    VIEW,
    encoded,
)


def test_a_torn_number_may_have_been_filed_as_either() -> None:
    world = truthful()
    world.topics["purchases.dlq"][0].told[3] = ("segstream-reason", b"truncated")
    assert world.audit().ok


def test_a_letter_filed_ahead_of_the_commit_is_no_fault() -> None:
    world = truthful()
    world.refuse("purchases", 0, b"hello again", Reason.NOT_JSON)
    assert world.audit().ok


def test_a_message_refused_twice_may_have_two_letters() -> None:
    world = truthful()
    letters = world.topics["purchases.dlq"]
    letters.append(replace(letters[0], at_offset=len(letters)))
    assert world.audit().ok


def test_a_receipt_among_the_letters_is_no_letter() -> None:
    world = truthful()
    receipt = world.send("purchases.dlq", 0, b'["purchases/0/0"]')
    receipt.told = [("segstream-replayed", b"1")]
    assert failed(world.audit()) == {}


OVERSIZE = bytes(range(256)) * 4_096 + b"tail"
"""A value of a mebibyte and a little."""


def with_head(head: bytes, size: int = len(OVERSIZE)) -> World:
    """A truthful world with a letter that has only the head of a refused value."""
    world = truthful()
    world.refuse("purchases", 0, OVERSIZE, Reason.TOO_LARGE)
    letter = world.topics["purchases.dlq"][-1]
    letter.payload = head
    letter.told.append(("segstream-truncated", b"%d" % size))
    world.store._partitions.clear()
    world.process(0, {"ann": (3, 3), "bob": (2, 4)}, (world.change("bob", 2, 1, 4),))
    world.process(1, {"cid": (1, 2)})
    return world


@pytest.mark.parametrize("length", [1 << 16, 1 << 20])
def test_a_letter_may_have_the_head_of_what_does_not_fit(length: int) -> None:
    assert failed(with_head(OVERSIZE[:length]).audit()) == {}


@pytest.mark.parametrize(
    ("head", "size"),
    [
        (b"?" + OVERSIZE[1 : 1 << 16], len(OVERSIZE)),
        (OVERSIZE[: (1 << 16) - 1], len(OVERSIZE)),
        (OVERSIZE[: 1 << 10], len(OVERSIZE)),
        (OVERSIZE[: 1 << 16], len(OVERSIZE) + 1),
        (OVERSIZE, len(OVERSIZE)),
    ],
    ids=["bytes", "cut", "too short", "length", "whole"],
)
def test_any_other_head_is_a_change_of_bytes(head: bytes, size: int) -> None:
    [offender] = failed(with_head(head, size).audit())["refused_messages_are_filed"]
    assert "the bytes of purchases/0@" in offender


def test_a_cut_letter_has_to_say_so() -> None:
    world = with_head(OVERSIZE[: 1 << 16])
    world.topics["purchases.dlq"][-1].told.pop()
    assert failed(world.audit()).keys() == {"refused_messages_are_filed"}


def test_users_who_lie_elsewhere_belong_among_the_dead_letters() -> None:
    world = World()
    refuse = world.settings.model_copy(update={"worker": Worker()})
    by_place = {partition_of(name.encode(), 2): name for name in ("ann", "bob", "cleo", "dan")}
    assert set(by_place) == {0, 1}
    for number, name in by_place.items():
        world.click(number, name, 1)
    elsewhere = encoded(time_ms=START_MS, userId=by_place[1], event=VIEW, messageId="elsewhere")
    world.refuse("clickstream", 0, elsewhere, Reason.MISPLACED)
    world.settings = refuse
    for number in range(2):
        world.process(number)
    assert world.audit().ok
    world.topics["clickstream.dlq"].clear()
    assert not world.audit().ok
