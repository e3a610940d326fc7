"""Keeps the newest changes in memory, and hands them on to whoever follows.

Comes in: records of the topic of changes, from the thread that reads it. Goes out: those of a user, of a kind or
since a time; to each who follows, what has come, in order.

A record is kept as JSON once, and the same bytes go to everybody. Each who follows has a queue with an end: whoever
is slower than that is dropped, and delays neither the others nor the thread that reads.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from threading import Lock
from typing import Any, Literal, TypeAlias

import msgspec

from stream import metrics
from stream.insight.facts import FeedState, FlowsFacts
from stream.insight.flows import Flows
from stream.units import iso, milliseconds

_BATCH = 500
Tells: TypeAlias = Literal["change", "crossing", "lineage"]
"""That a user changed, that they crossed a limit of a level, or what became of a segment."""


class Kept(msgspec.Struct, frozen=True, gc=False):
    """A record as it is kept.

    Attributes:
        number: counted through since the start.
        user: empty for what became of a segment.
        kind: the one that it tells of: into it, or of the segment; empty for a crossing.
        data: the record as JSON, on one line.
    """

    number: int
    tells: Tells
    id: str
    user: str
    kind: str
    at_ms: int
    data: bytes


def _read(number: int, record: dict[str, Any]) -> Kept | None:
    """A record to keep; None for one that is not as ours are."""
    tells: Tells = (
        "change" if "kind_to" in record else "crossing" if "step_to" in record else "lineage"
    )
    name, at = record.get("id"), record.get("at")
    user = "" if tells == "lineage" else record.get("user")
    kind = {"change": record.get("kind_to"), "crossing": "", "lineage": record.get("kind")}[tells]
    if not all(isinstance(one, str) for one in (name, user, kind, at)):
        return None
    if not user and tells != "lineage":
        return None
    try:
        at_ms = milliseconds(datetime.fromisoformat(str(at)))
    except (ValueError, OverflowError):
        return None
    if at_ms < 0:
        return None
    data = msgspec.json.encode(record)
    return Kept(number, tells, str(name), str(user), str(kind), at_ms, data)


class Recent:
    """The newest records; may be asked from any thread.

    Args:
        most: so many are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = Lock()
        self._records: deque[Kept] = deque()
        self._by_user: dict[str, deque[Kept]] = {}
        self._by_id: dict[str, Kept] = {}
        self._flows = Flows()
        self._count = 0
        self._latest_ms: int | None = None

    def take(self, records: Iterable[dict[str, Any]]) -> list[Kept]:
        """Keep records, the oldest of them first; gives those that were not there before."""
        fresh = []
        with self._lock:
            for record in records:
                kept = _read(self._count, record)
                if kept is not None and kept.id not in self._by_id:
                    self._keep(kept, record)
                    fresh.append(kept)
        return fresh

    def _keep(self, kept: Kept, record: dict[str, Any]) -> None:
        self._count += 1
        self._records.append(kept)
        self._by_id[kept.id] = kept
        if kept.user:
            self._by_user.setdefault(kept.user, deque()).append(kept)
        if kept.tells == "change":
            self._flows.take(record, kept.at_ms)
            self._latest_ms = max(kept.at_ms, self._latest_ms or 0)
        if len(self._records) > self._most:
            self._forget(self._records.popleft())

    def _forget(self, kept: Kept) -> None:
        del self._by_id[kept.id]
        if kept.user:
            theirs = self._by_user[kept.user]
            theirs.popleft()
            if not theirs:
                del self._by_user[kept.user]

    def of_user(self, user: str, last: int, *, crossings: bool = False) -> list[Kept]:
        """The latest changes of a user, oldest first; crossings of levels, too, if wanted."""
        with self._lock:
            theirs = list(self._by_user.get(user, ()))
        return [kept for kept in theirs if crossings or kept.tells == "change"][-last:]

    def changes(
        self, last: int, kind: str | None = None, since_ms: int | None = None
    ) -> list[Kept]:
        """The latest changes of users, oldest first."""
        found: list[Kept] = []
        with self._lock:
            for kept in reversed(self._records):
                if not (kept.tells == "change" and kind in (None, kept.kind)):
                    continue
                if kept.at_ms >= (since_ms or 0):
                    found.append(kept)
                    if len(found) == last:
                        break
        return found[::-1]

    def lineage(self) -> list[Kept]:
        """What became of segments, oldest first."""
        with self._lock:
            return [kept for kept in self._records if kept.tells == "lineage"]

    def after(self, name: str) -> list[Kept] | None:
        """What came after a record; None if it is not there, or not any more."""
        with self._lock:
            if (known := self._by_id.get(name)) is None:
                return None
            behind = self._records[-1].number - known.number
            return [self._records[place] for place in range(-behind, 0)]

    def flows(self, within: str, now_ms: int) -> FlowsFacts:
        """See `Flows.facts`."""
        with self._lock:
            return self._flows.facts(within, now_ms)

    def since(self) -> str | None:
        """The time of the oldest record there is."""
        with self._lock:
            return iso(self._records[0].at_ms) if self._records else None

    def latest(self) -> str | None:
        """The latest time that a change told."""
        return None if self._latest_ms is None else iso(self._latest_ms)


class Reader:
    """One who follows: what waits for them, or that they were too slow.

    Attributes:
        past: number of the last record that they have already; -1 for none.
        dropped: whether they were too slow; nothing more comes.
    """

    def __init__(self, most: int, wants: Callable[[Kept], bool]) -> None:
        self._most = most
        self._wants = wants
        self._waiting: deque[Kept] = deque()
        self._came = asyncio.Event()
        self.past = -1
        self.dropped = False

    def offer(self, records: Iterable[Kept]) -> None:
        """Put what they want behind what waits; drops them if it is too much."""
        if self.dropped:
            return
        wanted = [kept for kept in records if kept.number > self.past and self._wants(kept)]
        if len(self._waiting) + len(wanted) > self._most:
            self.dropped = True
            self._waiting.clear()
            metrics.api_reader_dropped()
        elif wanted:
            self._waiting.extend(wanted)
        else:
            return
        self._came.set()

    def wake(self) -> None:
        """Look up now, whatever is there."""
        self._came.set()

    async def take(self, seconds: float) -> list[Kept]:
        """What waits, some at a time; nothing after this long, or once they are dropped."""
        if not self._waiting and not self.dropped:
            try:
                await asyncio.wait_for(self._came.wait(), seconds)
            except TimeoutError:
                return []
        some = [self._waiting.popleft() for _ in range(min(len(self._waiting), _BATCH))]
        if not self._waiting:
            self._came.clear()
        return some


class Feed:
    """Hands on what comes to all who follow. Belongs to the loop, but for `tell`.

    Args:
        readers: so many at the most.
        waits: so many records wait for one of them at the most.
    """

    def __init__(self, recent: Recent, readers: int, waits: int) -> None:
        self.recent = recent
        self.state: FeedState = "starting"
        self._most = readers
        self._waits = waits
        self._readers: set[Reader] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Readers are of this loop."""
        self._loop = loop

    def close(self) -> None:
        """Readers get nothing more: the process ends."""
        self._closed = True
        for reader in self._readers:
            reader.wake()

    @property
    def closed(self) -> bool:
        return self._closed

    def tell(self, records: Iterable[dict[str, Any]]) -> None:
        """Keep records and hand them on; from any thread, and it waits for nobody."""
        fresh = self.recent.take(records)
        if fresh and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._hand_on, fresh)

    def _hand_on(self, fresh: list[Kept]) -> None:
        for reader in self._readers:
            reader.offer(fresh)

    def join(self, wants: Callable[[Kept], bool]) -> Reader | None:
        """Follow from now on; None if there are too many already."""
        if len(self._readers) >= self._most:
            return None
        reader = Reader(self._waits, wants)
        self._readers.add(reader)
        metrics.api_readers(len(self._readers))
        return reader

    def leave(self, reader: Reader) -> None:
        """Follow no more."""
        self._readers.discard(reader)
        metrics.api_readers(len(self._readers))


def as_events(records: Iterable[Kept]) -> Iterator[bytes]:
    """Records as server-sent events."""
    for kept in records:
        # A name with a line's end in it would be another line.
        name = kept.id.encode() if kept.id.isprintable() else b""
        yield b"id: %b\ndata: %b\n\n" % (name, kept.data)
