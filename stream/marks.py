"""Signs the marks of the shop's clock, and knows the genuine ones.

Comes in: the namespace's secret, and what a mark says. Goes out: a `Mark` with its signature, or
whether one is genuine. Whoever can write an event could write a mark, too, and move everybody's time:
so a mark counts only with a signature over its topic, its partition and both its times, which nobody
can make without the secret. A copy of an old mark is genuine, and changes nothing: marks must rise.
"""

from __future__ import annotations

import hmac
from hashlib import blake2b

from stream.events import Mark
from stream.units import iso


class MarkSigner:
    """Signs and verifies under a key of its own, derived from the namespace's secret."""

    def __init__(self, namespace_key: bytes) -> None:
        self._key = blake2b(namespace_key, digest_size=32, person=b"segstream-marks").digest()

    def mark(self, topic: str, partition: int, time_ms: int, sent_ms: int) -> Mark:
        """A mark for one partition of a topic.

        Args:
            time_ms: of the shop.
            sent_ms: the wall clock's.
        """
        timestamp, sent_at = iso(time_ms), iso(sent_ms)
        return Mark(timestamp, sent_at, self._sign(topic, partition, timestamp, sent_at))

    def is_genuine(self, mark: Mark, topic: str, partition: int) -> bool:
        """Whether a mark was signed for this partition of this topic, with these times."""
        expected = self._sign(topic, partition, mark.timestamp, mark.sentAt)
        return hmac.compare_digest(mark.signature.encode(), expected.encode())

    def _sign(self, topic: str, partition: int, timestamp: str, sent_at: str) -> str:
        # No topic has a line feed in its name, and no partition: where each field ends is certain.
        signed = f"{topic}\n{partition}\n{timestamp}\n{sent_at}".encode()
        return hmac.digest(self._key, signed, "sha256").hex()
