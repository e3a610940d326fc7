"""Decides which users an audit judges.

Comes in: a share, and users or messages. Goes out: whether they are judged; the same ones in every audit.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import msgspec

from stream.config import Worker
from stream.placeholders import Placeholders


class _Who(msgspec.Struct):
    """The user of a message, as far as a look at it tells."""

    userId: Any = None  # noqa: N815 - the message's own name
    anonymousId: Any = None  # noqa: N815 - the message's own name


class Sample:
    """Some of the users, by a hash that is the same for every audit."""

    def __init__(self, share: float, worker: Worker) -> None:
        self.whole = share >= 1.0
        self._wrapped = bool(worker.unwrap)
        self._limit = int(share * (1 << 64))
        self._message_bytes = worker.message_bytes
        self._placeholders = Placeholders(worker.placeholder_ids)
        self._who = msgspec.json.Decoder(_Who)

    def has(self, user: bytes) -> bool:
        return self.whole or int.from_bytes(blake2b(user, digest_size=8).digest()) < self._limit

    def skips(self, value: bytes) -> bool:
        """Whether a message is of a user outside the sample; whatever is unclear is judged."""
        if self.whole or self._wrapped or len(value) > self._message_bytes:
            return False
        try:
            who = self._who.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        for user in (who.userId, who.anonymousId):
            if user is None:
                continue
            if not isinstance(user, str):
                return False
            if user not in self._placeholders:
                return not self.has(user.encode())
        return False
