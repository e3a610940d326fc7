"""Says when to try again, when to leave an endpoint alone, and how fast to send.

Comes in: what an attempt came to, and what time it is. Goes out: times. `queue` asks.

An endpoint is left alone after some failures in a row (its circuit is open): then one attempt at a time
finds out whether it is back. What waits for it meanwhile uses up none of its attempts.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from hashlib import blake2b
from typing import NamedTuple

JITTER = 0.2
"""A wait is longer by up to this share, so that what failed together is not tried together."""
MOST_RETRY_AFTER_MS = 86_400_000
"""An endpoint that asks for a longer wait is asked again after a day."""
GONE = 410
BUSY = (429, 503)
"""With `Retry-After` they speak for the whole endpoint, and not for one request."""


class Answer(NamedTuple):
    """What an attempt came to.

    Attributes:
        status: of HTTP; None if there was no whole answer.
        retry_after: the header of that name; empty if there was none.
        error: why there was no answer, in words.
    """

    status: int | None
    retry_after: str = ""
    error: str = ""

    @property
    def arrived(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def told(self) -> str:
        """In a few words, for letters and logs."""
        return self.error if self.status is None else f"HTTP {self.status}"


def retry_at(
    retries_ms: Sequence[int], delivery: str, attempts: int, answer: Answer, now_ms: int
) -> int | None:
    """When to try a delivery again that failed; None if it was tried often enough.

    Args:
        retries_ms: waits after the first attempt, the second, and so on.
        delivery: its name, which the jitter hangs on.
        attempts: so far.
    """
    if attempts > len(retries_ms):
        return None
    digest = blake2b(f"{delivery}/{attempts}".encode(), digest_size=4).digest()
    wait_ms = retries_ms[attempts - 1] * (1 + JITTER * int.from_bytes(digest, "little") / 2**32)
    return now_ms + max(round(wait_ms), retry_after_ms(answer.retry_after, now_ms))


def retry_after_ms(header: str, now_ms: int) -> int:
    """How long `Retry-After` asks to wait: seconds or a date; 0 for what is neither."""
    text = header.strip()
    if text.isdecimal():
        asked_ms = int(text[:12]) * 1_000
    else:
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return 0
        when = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        asked_ms = round((when - datetime.fromtimestamp(now_ms / 1_000, UTC)).total_seconds() * 1e3)
    return min(max(asked_ms, 0), MOST_RETRY_AFTER_MS)


class Circuit:
    """Whether an endpoint is tried.

    Args:
        after: so many failures in a row open it.
        first_ms, most_ms: how long it stays open; twice as long each time that a probe fails.
    """

    def __init__(self, after: int, first_ms: int, most_ms: int) -> None:
        self._after, self._first_ms, self._most_ms = after, first_ms, most_ms
        self._failures = 0
        self._open_ms = first_ms
        self._until_ms = 0

    @property
    def is_open(self) -> bool:
        """Whether nothing but probes is tried."""
        return self._failures >= self._after

    def free(self, now_ms: int, under_way: int) -> int | None:
        """How many attempts may begin now; None for as many as there are."""
        if now_ms < self._until_ms:
            return 0
        if not self.is_open:
            return None
        return 0 if under_way else 1

    def arrived(self) -> None:
        """It answered well."""
        self._failures, self._open_ms, self._until_ms = 0, self._first_ms, 0

    def failed(self, answer: Answer, now_ms: int) -> None:
        """It did not."""
        was_open = self.is_open
        self._failures += 1
        if answer.status in BUSY:
            self._pause(now_ms + retry_after_ms(answer.retry_after, now_ms))
        # What was under way when it opened says nothing new.
        if self.is_open and not (was_open and now_ms < self._until_ms):
            if was_open:
                self._open_ms = min(2 * self._open_ms, self._most_ms)
            self._pause(now_ms + self._open_ms)

    def _pause(self, until_ms: int) -> None:
        self._until_ms = max(self._until_ms, until_ms)


class Rate:
    """So many attempts a second, and no more than those of one second at once.

    It begins empty: who takes a partition over cannot know what was sent a moment ago.
    """

    def __init__(self, per_second: float) -> None:
        self._per_ms = per_second / 1_000
        self._most = max(per_second, 1.0)
        self._left = 0.0
        self._at_ms: int | None = None

    def free(self, now_ms: int) -> int:
        """How many may begin now."""
        passed_ms = 0 if self._at_ms is None else now_ms - self._at_ms
        self._left = min(self._left + passed_ms * self._per_ms, self._most)
        self._at_ms = now_ms
        # A sum of many small parts is a little less than the whole.
        return int(self._left + 1e-6)

    def take(self, count: int) -> None:
        """So many began."""
        self._left -= count
