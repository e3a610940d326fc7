"""Keeps, beside the offsets of the consumer group, that a partition had state.

Comes in: positions that were committed to the store. Goes out: group offsets for lag tools, with a note of
what the state stood for; and from such a note, whether a state that is not there was lost.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import NamedTuple

from consumers.clock import Time
from consumers.group import GroupMember
from consumers.owner import state_lost

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


class GroupOffsets:
    """Shows how far partitions have come, now and then.

    Args:
        label: of the namespace, or of a role in it.
    """

    def __init__(self, label: str, time: Time) -> None:
        self._label = label
        self._time = time
        self._shown = 0.0
        self._progress: dict[int, tuple[Sequence[int], str]] = {}

    def note(self, number: int, offsets: Sequence[int], incarnation: int, consumed: int) -> None:
        """A partition's newest commit."""
        self._progress[number] = offsets, f"{self._label}/{incarnation}/{consumed}"

    def show(self, member: GroupMember, served: Collection[int]) -> None:
        """Commit the newest as group offsets, if it is time; nothing is left to show then."""
        now = self._time.monotonic()
        if now - self._shown < SHOW_SECONDS or not self._progress:
            return
        self._shown = now
        member.show_offsets({n: one for n, one in self._progress.items() if n in served})
        self._progress.clear()
