"""Keeps a role going: what passes by itself is waited out, with a clear line a time.

Comes in: the work of a role as a callable. Goes out: its end, or the error that needs a person;
and to whoever asks for its health, that it waits, and for what.
"""

from __future__ import annotations

import logging
import time
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
from stream.errors import BrokerUnavailableError, TopicMissingError
from stream.health import Health, Pulse
from stream.store.state import StoreUnavailableError

log = logging.getLogger(__name__)

PASSING = (StoreUnavailableError, BrokerUnavailableError, TopicMissingError)
"""A topic may be made later, or be on its way to be made anew."""
HEALTHY_SECONDS = 60.0
"""Work that went on for this long had found broker and store: no attempt at them takes as much."""


def keep_going(
    role: str,
    work: Callable[[], None],
    stop: Event,
    health: Health,
    pulse: Pulse,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Call `work` until it returns; wait and call it again when broker, store or a topic is away.

    Waits grow from half a second to ten at the most, at random, so that many workers do not
    come back at once; after work that went well for a while they begin small again. Who waits is
    alive, but not ready: to be started again would help nobody, to be asked for work neither.

    Args:
        health: is told that the role is not ready; `work` says when it is again.
        clock: seconds that only rise.

    Raises:
        Exception: whatever `work` raises that does not pass by itself.
    """
    began = clock()

    def attempt() -> None:
        nonlocal began
        began = clock()
        work()

    def forgive(state: RetryCallState) -> None:
        if clock() - began > HEALTHY_SECONDS:
            state.attempt_number = 1

    def say(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, StoreUnavailableError):
            metrics.store_missed()
        else:
            metrics.broker_missed()
        health.ready(False, str(error), part=role)
        wait = state.next_action.sleep if state.next_action else 0.0
        log.warning("%s: %s; trying again in %.1f s", role, error, wait)

    def wait(seconds: float) -> None:
        pulse.beat()
        stop.wait(seconds)
        pulse.beat()

    retrying = Retrying(
        retry=retry_if_exception_type(PASSING),
        wait=wait_random_exponential(multiplier=0.5, max=10.0),
        stop=stop_when_event_set(stop),
        sleep=wait,
        after=forgive,
        before_sleep=say,
        reraise=True,
    )
    try:
        retrying(attempt)
    except PASSING:
        if not stop.is_set():
            raise
