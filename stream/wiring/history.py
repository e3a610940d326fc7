"""Opens files as a history: their events as the worker would have them.

Comes in: files with their mappings. Goes out: a `History` to be played. Rows are mapped and written as
`replay` does and decoded as the worker does; only Kafka is left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from consumers.decode import Decoder
from consumers.native import NativeReader
from producers.files import Source, read_sources
from producers.mapped import BAD_NUMBER, Event, Refusal
from producers.mapping import Mapping
from producers.messages import encoded_message, topic_of
from producers.replay import Refusals, iso_texts, refusal_lines
from producers.sorting import EventSorter
from producers.tables.opening import stem
from stream.config import Settings
from stream.events import Counts
from stream.features import FeatureTable
from stream.insight.history import Columns, History, OpenHistory, Portion


@dataclass(frozen=True)
class StampedMessage:
    """An event's message as the worker meets it, its record stamped with the event's time."""

    raw: bytes
    time_ms: int

    def value(self) -> bytes:
        return self.raw

    def timestamp(self) -> tuple[int, int]:
        return (0, self.time_ms)

    def offset(self) -> int:
        return 0


class _AsTheWorker:
    """Reads events through the bytes that `replay` would write and the worker would read."""

    def __init__(
        self,
        settings: Settings,
        table: FeatureTable,
        files: Sequence[Path],
        refusals: Refusals,
    ) -> None:
        self._decoder = Decoder(
            table, settings.worker, money=settings.money, ratings=settings.reviews, agree=str
        )
        self._sources = [stem(file) for file in files]
        self._refusals = refusals

    def __call__(self, events: Sequence[Event]) -> Portion:
        records: tuple[list[StampedMessage], list[StampedMessage]] = ([], [])
        times = iso_texts(np.array([event.time_ms for event in events], dtype=np.int64))
        for event, timestamp in zip(events, times, strict=True):
            try:
                value = encoded_message(event, timestamp, self._sources[event.file])
            except ValueError as error:
                shown = {"user": event.user, "order": event.order}
                self._refusals(Refusal(event.row, BAD_NUMBER, str(error), shown))
                continue
            record = StampedMessage(value, event.time_ms)
            records[topic_of(event.event)].append(record)
        columns: list[Columns] = []
        counts = Counts()
        for topic, messages in enumerate(records):
            if messages:
                batch = self._decoder.decode(messages).batch(topic, 0, len(messages))
                for reject in batch.rejects:
                    self._refusals(Refusal(0, reject.reason, reject.detail, {}))
                counts.add(batch.counts)
                columns.append(batch.columns)
        return Portion(columns, counts)


@contextmanager
def open_history(
    settings: Settings,
    table: FeatureTable,
    file: Path,
    mapping: Mapping,
    tell: Callable[[str], None] = lambda _: None,
    more: Sequence[Source] = (),
    *,
    keep_outliers: bool = False,
    wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
) -> Iterator[History[Event]]:
    """Read and sort a file's events, to be played once.

    Args:
        more: further files, whose events are merged with the first one's.
        keep_outliers: whether events far from all others stay in.
        wall_ms: what time it is; nothing happens after it.

    Raises:
        FileError: a file cannot be read.
        MappingError: it lacks a column.
    """
    sources = [Source(file, mapping), *more]
    with Refusals() as refusals, EventSorter() as sorter:
        rows, mapped = read_sources(
            sources,
            sorter,
            refusals,
            lambda done: tell(f"reading, {done:,} rows"),
            latest_ms=wall_ms() + round(settings.worker.future_seconds * 1_000),
            keep_outliers=keep_outliers,
            placeholders=settings.worker.placeholder_ids,
            native=NativeReader(table, settings.worker, settings.money, settings.reviews),
            money=settings.money,
            ratings=settings.reviews,
        )
        files = [one.file for one in sources]
        yield History(
            sorter.batches(),
            _AsTheWorker(settings, table, files, refusals),
            files=files,
            rows=rows,
            mapped=mapped,
            refused=refusals.counts,
            refusal_lines=lambda: refusal_lines(refusals.counts, refusals.examples),
            notes=tuple(sorter.notes),
        )


def opener(
    sources: Sequence[Source],
    tell: Callable[[str], None] = lambda _: None,
    *,
    keep_outliers: bool = False,
) -> OpenHistory:
    """What opens these files under whichever settings it is given; see `open_history`."""
    first, *more = sources

    def opened(settings: Settings, table: FeatureTable) -> AbstractContextManager[History[Event]]:
        return open_history(settings, table, *first, tell, more, keep_outliers=keep_outliers)

    return opened
