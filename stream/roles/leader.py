"""One leads in a role at a time: the lease that says who, and the loop of leader and standby.

Comes in: a store that keeps leases, and a `Leader`. Goes out: its steps, one after the other, until it
is told to stop; then the lease is given back, so that a standby takes over at once.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from threading import Event
from typing import Protocol

from stream import metrics
from stream.store.promises import Leases

STANDBY_SECONDS = 0.2
"""How often a standby looks whether the lease is free."""


class Lease:
    """The right to lead in a role, for as long as it is renewed.

    Attributes:
        token: of this holder, drawn once; fences what earlier holders write.
    """

    def __init__(self, store: Leases, role: str, seconds: float) -> None:
        self._store = store
        self._role = role
        self._seconds = seconds
        self.token = secrets.token_hex(8)

    def hold(self) -> bool:
        """Take or renew it; False if another holds it."""
        if not self._store.lease(self._role, self.token, self._seconds):
            self.lose()
            return False
        metrics.lease_held(self._role, self._seconds)
        return True

    def lose(self) -> None:
        """The lease is another's, or nobody's: nothing is written, only the metric changes."""
        metrics.lease_missed(self._role)

    def release(self) -> None:
        """Give it back, so that a standby can take it now."""
        self._store.release(self._role, self.token)
        self.lose()


class Leader(Protocol):
    """What a role does of which one leads."""

    @property
    def leads(self) -> bool: ...

    def step(self) -> bool:
        """Do what is due; False if there was nothing, so that a wait does no harm."""
        ...

    def close(self) -> None:
        """Let a standby take over at once."""
        ...


def lead(leader: Leader, stop: Event, alive: Callable[[], None], idle_seconds: float) -> None:
    """Take steps until told to stop.

    Args:
        alive: is called after each step.
        idle_seconds: how long a leader waits that had nothing to do.
    """
    try:
        while not stop.is_set():
            busy = leader.step()
            alive()
            if not busy:
                stop.wait(idle_seconds if leader.leads else STANDBY_SECONDS)
    finally:
        if stop.is_set():
            leader.close()
