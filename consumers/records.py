"""Says what reading a topic to its end gives, for those who judge or show what is there.

Comes in: a broker's settings and a topic's name. Goes out: its records, each partition's in offset
order. `client.read_to_end` is a `Read`; tests give lists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from stream.config import Broker


class Record(Protocol):
    """What is needed of a `confluent_kafka.Message`."""

    def partition(self) -> int | None: ...
    def offset(self) -> int | None: ...
    def key(self) -> Any: ...
    def value(self) -> Any: ...
    def headers(self) -> Any: ...
    def timestamp(self) -> tuple[int, int]: ...


Read = Callable[[Broker, str], Iterable[Record]]
"""Reads a topic to its end, each partition in offset order."""
