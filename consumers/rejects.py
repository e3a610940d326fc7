"""Watches refusals that pile up: raises an alert, or stops, and bounds the rate of letters.

Comes in: what was read, and which of it was refused. Goes out: an alert in metrics and log, or
`TooManyRejectsError` where stopping is what was chosen; and until when a topic's partition should not
be read on, because letters come faster than they may be filed. No letter is ever dropped: whoever can
write one event must not be able to stop a shop, nor to fill its broker, nor to hide what was refused.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from stream import metrics
from stream.config import Topics, Worker
from stream.events import Reason
from stream.told import ToldError

log = logging.getLogger(__name__)

SAY_SECONDS = 60.0
"""Between two warnings of one flood."""
BURST_SECONDS = 1.0
"""Letters of this much time may come at once before anything waits."""
NAMED = 3
"""How many reasons are told, the commonest first."""


class TooManyRejectsError(ToldError):
    """More messages were refused than the limits allow; says which limit, and the reasons."""


class Refused(Protocol):
    """A refused message; `consumers.decode.Reject` is one."""

    @property
    def reason(self) -> Reason: ...
    @property
    def message(self) -> Any: ...


class RejectGuard:
    """Watches one worker's refusals against the consecutive limit and the ratio limit."""

    def __init__(self, worker: Worker, topics: Topics, clock: Callable[[], float]) -> None:
        self._worker = worker
        self._topics = topics
        self._clock = clock
        self._consecutive = 0
        self._blocks: deque[tuple[int, int]] = deque()
        self._messages = 0
        self._rejected = 0
        kept = max(worker.reject_ratio_window, worker.reject_consecutive_limit)
        self._recent: deque[tuple[Reason, str]] = deque(maxlen=kept)
        self._alert = False
        self._say_at = self._seen_at = 0.0
        self._paid_until = 0.0

    def saw(self, stretches: Iterable[tuple[int, int]], refused: Sequence[Refused]) -> str | None:
        """A block was decoded.

        Args:
            stretches: of good messages and the refused ones behind them: how many there were, how
                many refused.
            refused: the refused ones.

        Returns:
            What is to be said if a limit was reached anywhere in the block.
        """
        self._recent.extend((one.reason, one.message.topic()) for one in refused)
        flood: str | None = None
        for messages, rejected in stretches:
            flood = self._count(messages, rejected) or flood
        return flood and f"{flood}: {self._reasons()}"

    def alert(self, flood: str | None) -> None:
        """Show that there is a flood, or that there is none any more."""
        now = self._clock()
        if flood is not None:
            self._seen_at = now
            if not self._alert or now >= self._say_at:
                log.warning("%s; going on (worker.on_reject_flood = alert)", flood)
                self._say_at = now + SAY_SECONDS
        elif self._alert:
            log.warning("refusals are below their limits again")
        self._alert = flood is not None
        metrics.reject_alert(self._alert)

    def calm(self) -> None:
        """A flood is over when nothing was refused for a while, even if no good message came."""
        if self._alert and self._clock() - self._seen_at > SAY_SECONDS:
            self.alert(None)

    def wait_for(self, letters: int) -> float:
        """Letters will be filed; until when no more of them should be read, by the clock."""
        begun = max(self._paid_until, self._clock() - BURST_SECONDS)
        self._paid_until = begun + letters / self._worker.letters_per_second
        return self._paid_until

    def _count(self, messages: int, rejected: int) -> str | None:
        """Count a run of messages; tells in words which limit it reaches."""
        worker = self._worker
        self._consecutive = rejected + (self._consecutive if rejected == messages else 0)
        self._blocks.append((messages, rejected))
        self._messages += messages
        self._rejected += rejected
        window = worker.reject_ratio_window
        while self._messages - self._blocks[0][0] >= window:
            old_messages, old_rejected = self._blocks.popleft()
            self._messages -= old_messages
            self._rejected -= old_rejected
        if self._consecutive >= worker.reject_consecutive_limit:
            return (
                f"{self._consecutive} messages in a row were refused "
                f"(worker.reject_consecutive_limit = {worker.reject_consecutive_limit})"
            )
        limit = worker.reject_ratio_limit
        if self._messages >= window and self._rejected > limit * self._messages:
            return (
                f"{self._rejected} of the last {self._messages} messages were refused "
                f"(worker.reject_ratio_limit = {limit:g})"
            )
        return None

    def _reasons(self) -> str:
        """The commonest reasons of late with their counts, and where the letters are."""
        reasons = Counter(reason for reason, _ in self._recent).most_common(NAMED)
        told = ", ".join(f"{count} {reason}" for reason, count in reasons)
        topics = sorted({self._topics.dlq(topic) for _, topic in self._recent})
        return f"{told}; their letters are on {' and '.join(topics)} (see `segstream dlq list`)"
