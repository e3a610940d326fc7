"""Partitions that are assigned and wait for their moment to be taken over.

Comes in: partitions that came in halves, that turned out to be another's, or whose state the store may have
put back. Goes out: those whose moment has come. Two things are waited for:

- another owner's session to end, so that a member that slept through its session has been told;
- what a publisher has in hand to be on the output. A store that lost commits does not know what was made of
  them, and the output does, once it is there: so such a partition *settles* first.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from confluent_kafka import KafkaException

from consumers.clock import Time
from consumers.group import GroupMember
from consumers.owner import NotOursError
from stream.config import Settings
from stream.errors import BrokerUnavailableError

log = logging.getLogger(__name__)

SLOW_SECONDS = 0.5
"""A broker that takes longer than this to say where a partition ends may hold records back."""


class Waiting:
    """The partitions of one member that wait.

    Args:
        output: the topic that a publisher writes to; each partition has its own there.
    """

    def __init__(self, settings: Settings, member: GroupMember, output: str, time: Time) -> None:
        self._session_seconds = settings.broker.session_timeout_seconds
        self._settle_seconds = settings.publisher.settle_seconds
        self._member = member
        self._output = output
        self._time = time
        self._later: dict[int, float] = {}
        self._suspect: set[int] = set()
        self._settling: set[int] = set()
        self._asked = 0.0

    def later(self, numbers: Iterable[int], seconds: float = 0.0) -> None:
        """Partitions are due when so much time has passed."""
        moment = self._time.monotonic() + seconds if seconds else 0.0
        self._later |= dict.fromkeys(numbers, moment)

    def again(self, number: int, error: NotOursError) -> None:
        """A partition was dropped; it is due again, if it is still assigned.

        After another owner fenced us, it is due only when a session has passed. By then the group has told
        a member that slept through its session that the partition is no longer its own.
        """
        if not error.fenced:
            self._suspect.add(number)
        if self._member.has(number):
            self.later([number], self._session_seconds if error.fenced else 0.0)

    def due(self) -> list[int]:
        """Partitions whose moment has come, and that are still assigned; they wait no more."""
        self._wait_for_output()
        now = self._time.monotonic()
        due = [number for number, moment in self._later.items() if moment <= now]
        for number in due:
            del self._later[number]
        return [number for number in due if self._member.has(number)]

    def must_settle(self, number: int, known_run: str, run: str) -> bool:
        """Whether a partition waits for the output before it is taken over; it is due again then.

        Only a store that was started again, or another one, can have lost commits whose changes are
        still on their way; or one whose partition is not where its owner left it.

        Args:
            known_run: of the store's server, when the partition was taken over before.
            run: the one now.
        """
        put_back = number in self._suspect or bool(known_run and known_run != run)
        if number in self._settling or not put_back:
            return False
        self._settling.add(number)
        self.later([number], self._settle_seconds)
        log.warning(
            "partition %d: the store was started again, or put back; waiting %.0f s for "
            "what is on its way to the output",
            number,
            self._settle_seconds,
        )
        return True

    def served(self, number: int) -> None:
        """A partition is served: nothing is held against it any more."""
        self._suspect.discard(number)
        self._settling.discard(number)

    def forget(self, number: int) -> None:
        """A partition is not to be served; if it is again, it settles anew."""
        self._settling.discard(number)

    def _wait_for_output(self) -> None:
        """See that the broker answers while partitions settle.

        A publisher gives up what it could not hand over in time. But a broker may have taken a record in
        and write it later. So whenever a broker is slow to answer, the time begins anew.
        """
        began = self._time.monotonic()
        if not self._settling or began - self._asked < SLOW_SECONDS:
            return
        for number in self._settling:
            try:
                self._member.extent(self._output, number)
                slow = self._time.monotonic() - began > SLOW_SECONDS
            except (KafkaException, BrokerUnavailableError):
                slow = True
            if slow:
                self.later(self._settling, self._settle_seconds)
                break
        self._asked = self._time.monotonic()
