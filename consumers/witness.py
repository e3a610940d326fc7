"""Keeps, beside the offsets of the consumer group, that a partition had state.

Comes in: positions that were committed to the store. Goes out: group offsets for lag tools, with a note of
what the state stood for; and from such a note, whether a state that is not there was lost.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import NamedTuple

from consumers.clock import Time
from consumers.group import GroupMember
from consumers.owner import state_lost
from stream.store.state import Position

log = logging.getLogger(__name__)

SHOW_SECONDS = 1.0


class Witness(NamedTuple):
    """What is known of a state that there was.

    Attributes:
        consumed: messages that the state stood for.
    """

    incarnation: int
    consumed: int


def witness(member: GroupMember, number: int, label: str) -> Witness | None:
    """What the group's offsets say of a partition's state.

    Args:
        label: of the namespace, or of a role in it; what others have noted says nothing.
    """
    for note in member.group_notes(number):
        noted, *told = note.rsplit("/", 2)
        if noted == label and len(told) == 2:
            return Witness(*map(int, told))
    return None


def see_nothing_lost(member: GroupMember, number: int, label: str, *, accept_loss: bool) -> int:
    """Whether a partition that has no state never had one; the incarnation before, 0 for none.

    Raises:
        StateLostError: it had one, and the loss may not be accepted.
    """
    served = witness(member, number, label)
    if served is None:
        return 0
    if not served.consumed:
        log.warning("partition %d starts anew: its state was lost, but nothing was in it", number)
    elif accept_loss:
        log.warning("partition %d starts anew: its state was lost", number)
    else:
        raise state_lost(number)
    return served.incarnation


def note_of(position: Position, namespace: str) -> str:
    """What is kept of a position."""
    consumed = position.counts.consumed + position.counts.marks
    return f"{namespace}/{position.incarnation}/{consumed}"


class GroupOffsets:
    """Shows how far partitions have come, now and then."""

    def __init__(self, namespace: str, time: Time) -> None:
        self._namespace = namespace
        self._time = time
        self._shown = 0.0

    def show(
        self, member: GroupMember, progress: dict[int, Position], served: Collection[int]
    ) -> None:
        """Commit the newest positions as group offsets, if it is time; none of them is left then."""
        now = self._time.monotonic()
        if now - self._shown < SHOW_SECONDS or not progress:
            return
        self._shown = now
        member.show_offsets(
            {
                number: (position.offsets, note_of(position, self._namespace))
                for number, position in progress.items()
                if number in served
            }
        )
        progress.clear()
