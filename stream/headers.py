"""Reads the headers of a Kafka record, whatever a stranger put there.

Comes in: a record. Goes out: its headers as pairs, or None where the client cannot tell them. Who
read them here once must keep them: to read them again may crash the interpreter.
"""

from __future__ import annotations

from typing import Any, Protocol


class WithHeaders(Protocol):
    """What is needed of a Kafka record."""

    def headers(self) -> Any: ...


def headers_of(record: WithHeaders) -> list[tuple[str, bytes | None]] | None:
    """Names and values in their order; None if a name is no UTF-8.

    confluent-kafka then fails once, and from then on gives a list with holes in the memory: nobody
    may touch that.
    """
    try:
        found = record.headers()
    except (SystemError, UnicodeDecodeError):
        return None
    return [(name, _bytes(value)) for name, value in found or ()]


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
