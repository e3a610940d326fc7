"""Takes a message out of what programs put around it, where settings say in which field it is.

Comes in: values of messages, and `worker.unwrap`. Goes out: the values that are read in their place; `plain`
and `compiled` are next. Change capture, brokers' sinks and clouds wrap messages: Debezium in `payload.after`,
Kafka Connect in `payload`, SNS in `Message`, EventBridge in `detail`, CloudEvents in `data`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

BOM = b"\xef\xbb\xbf"
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_TEXT = msgspec.json.Decoder(str).decode


class Unwrapper:
    """Unwraps messages; none, where the path is empty.

    A message that has nothing there, such as a mark of the shop's clock, is read as it is. A field may hold
    an object or a text with one in it.

    Args:
        message_bytes: a larger message is left as it is, for it is refused.
    """

    def __init__(self, path: str, message_bytes: int) -> None:
        self._names = path.split(".") if path else []
        self._bytes = message_bytes

    def __call__(self, values: Sequence[Any]) -> Sequence[Any]:
        return list(map(self._inside, values)) if self._names else values

    def _inside(self, value: bytes | None) -> bytes | None:
        if not value or len(value) > self._bytes:
            return value
        try:
            if not value.isascii():
                value.decode()
            inner = value.removeprefix(BOM)
            for name in self._names:
                found = _FIELDS(inner).get(name)
                if found is None:
                    return value
                inner = bytes(found)
                if inner[:1] == b'"':
                    inner = _TEXT(inner).encode()
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return value
        return inner if inner.lstrip()[:1] == b"{" else value
