"""Keeps a role going: what passes by itself is waited out, with a clear line a time.

Comes in: the work of a role as a callable. Goes out: its end, or the error that needs a person.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Event

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_when_event_set,
    wait_random_exponential,
)

from stream import metrics
from stream.errors import BrokerUnavailableError
from stream.state import StoreUnavailableError

log = logging.getLogger(__name__)

PASSING = (StoreUnavailableError, BrokerUnavailableError)


def keep_going(role: str, work: Callable[[], None], stop: Event) -> None:
    """Call `work` until it returns; wait and call it again when the broker or store is away.

    Waits grow from half a second to ten at the most, at random, so that many workers do not
    come back at once.

    Raises:
        Exception: whatever `work` raises that does not pass by itself.
    """

    def say(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, StoreUnavailableError):
            metrics.store_missed()
        else:
            metrics.broker_missed()
        wait = state.next_action.sleep if state.next_action else 0.0
        log.warning("%s: %s; trying again in %.1f s", role, error, wait)

    def wait(seconds: float) -> None:
        stop.wait(seconds)

    retrying = Retrying(
        retry=retry_if_exception_type(PASSING),
        wait=wait_random_exponential(multiplier=0.5, max=10.0),
        stop=stop_when_event_set(stop),
        sleep=wait,
        before_sleep=say,
        reraise=True,
    )
    try:
        retrying(work)
    except PASSING:
        if not stop.is_set():
            raise
