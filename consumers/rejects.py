"""Stops when refusals pile up: a topic full of poison must not drain into the dead letters.

Comes in: for each block of messages, how many there were and which were refused. Goes out:
nothing, or `TooManyRejectsError`, which ends the worker before the block is committed.
"""

from __future__ import annotations

from collections import deque

from stream.config import Worker


class TooManyRejectsError(Exception):
    """More messages were refused than the limits allow; the message says which limit."""


class RejectGuard:
    """Watches one worker's refusals against the consecutive limit and the ratio limit."""

    def __init__(self, worker: Worker) -> None:
        self._consecutive_limit = worker.reject_consecutive_limit
        self._ratio_limit = worker.reject_ratio_limit
        self._window = worker.reject_ratio_window
        self._consecutive = 0
        self._blocks: deque[tuple[int, int]] = deque()
        self._messages = 0
        self._rejected = 0

    def saw(self, messages: int, rejected: int, trailing: int) -> None:
        """A block was decoded.

        Args:
            trailing: refusals since the block's last good message.

        Raises:
            TooManyRejectsError: a limit is reached.
        """
        self._consecutive = self._consecutive + rejected if rejected == messages else trailing
        if self._consecutive >= self._consecutive_limit:
            raise TooManyRejectsError(
                f"{self._consecutive} messages in a row were refused "
                f"(worker.reject_consecutive_limit = {self._consecutive_limit}); look at the "
                "dead-letter topic, mend the producer or raise the limit, and start again"
            )
        self._blocks.append((messages, rejected))
        self._messages += messages
        self._rejected += rejected
        while self._messages - self._blocks[0][0] >= self._window:
            old_messages, old_rejected = self._blocks.popleft()
            self._messages -= old_messages
            self._rejected -= old_rejected
        if self._messages >= self._window and self._rejected > self._ratio_limit * self._messages:
            raise TooManyRejectsError(
                f"{self._rejected} of the last {self._messages} messages were refused "
                f"(worker.reject_ratio_limit = {self._ratio_limit}); look at the dead-letter "
                "topic, mend the producer or raise the limit, and start again"
            )
