"""Reads a file's events as the worker would have them, portion by portion up to each mark.

Comes in: a file with its mapping. Goes out: events folded into whoever keeps users. Rows are mapped
and written as `replay` does and decoded as the worker does; only Kafka is left out. `explore` looks
at the end of a file, `plan` and the bench `year` play it mark by mark.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from consumers.decode import Decoder
from consumers.native import NativeReader
from producers.files import EventSorter, Source, read_sources, stem
from producers.mapping import (
    BAD_NUMBER,
    Event,
    Mapping,
    Refusal,
    encoded_message,
    topic_of,
)
from producers.replay import Refusals, iso_texts, refusal_lines
from stream.config import Settings
from stream.events import Counts, EventColumns
from stream.features import FeatureTable
from stream.partition import Partition

Fold = Callable[[Sequence[Callable[[Partition], EventColumns]]], int]
"""Folds what each topic has, and says how many events were duplicates; `Rehearsal.fold` is one."""


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


class History:
    """A file's events in the order of their times.

    Attributes:
        rows: in the file.
        mapped: events, once the rows of an order were added up.
        folded: events given out so far.
        counts: what became of them.
        notes: what a reader should know of how the files were read.
    """

    def __init__(
        self,
        settings: Settings,
        table: FeatureTable,
        files: Sequence[Path],
        sorter: EventSorter,
        refusals: Refusals,
    ) -> None:
        self.rows = self.mapped = self.folded = 0
        self.notes: tuple[str, ...] = ()
        self.counts = Counts()
        self._decoder = Decoder(table, settings.worker, money=settings.money)
        self._sources = [stem(file) for file in files]
        self._sorter = sorter
        self._refusals = refusals

    @property
    def refused(self) -> Counter[str]:
        """Rows and events refused so far, by reason."""
        return self._refusals.counts

    def refusal_lines(self) -> list[str]:
        """Of each reason for a refusal: count, first examples, and the mapping's key."""
        return refusal_lines(self._refusals.counts, self._refusals.examples)

    def play(self, fold: Fold, step_ms: int = 0, until_ms: int | None = None) -> Iterator[int]:
        """Fold events, and stop at each mark of the shop's clock, as a replay writes them.

        Yields the time of each mark, when every event before it has been folded and none from it
        on. The first mark is the last multiple of the step up to the first event, the last one the
        first multiple after the last event.

        Args:
            fold: is given a batch at a time.
            step_ms: from one mark to the next; 0 for no marks: then one yield, at the end, with
                the time of the last event.
            until_ms: events from here on are left out.
        """
        mark_ms, last_ms = 0, None
        for batch in self._sorter.batches():
            kept = batch if until_ms is None else [e for e in batch if e.time_ms < until_ms]
            if kept and last_ms is None:
                mark_ms = kept[0].time_ms // step_ms * step_ms if step_ms else 0
                if step_ms:
                    yield mark_ms
                    mark_ms += step_ms
            waiting = 0
            for place, event in enumerate(kept):
                while step_ms and event.time_ms >= mark_ms:
                    self._fold(fold, kept[waiting:place])
                    waiting = place
                    yield mark_ms
                    mark_ms += step_ms
            self._fold(fold, kept[waiting:])
            last_ms = kept[-1].time_ms if kept else last_ms
            if len(kept) < len(batch):
                break
        if last_ms is not None:
            yield mark_ms if step_ms else last_ms

    def _fold(self, fold: Fold, events: Sequence[Event]) -> None:
        """Events in order, through the bytes that `replay` would write and the worker would read."""
        if not events:
            return
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
        columns: list[Callable[[Partition], EventColumns]] = []
        for topic, messages in enumerate(records):
            if messages:
                batch = self._decoder.decode(messages).batch(topic, 0, len(messages))
                for reject in batch.rejects:
                    self._refusals(Refusal(0, reject.reason, reject.detail, {}))
                self.counts.add(batch.counts)
                columns.append(batch.columns)
        duplicates = fold(columns)
        self.counts.applied -= duplicates
        self.counts.duplicate += duplicates
        self.folded += len(events)


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
) -> Iterator[History]:
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
        history = History(settings, table, [one.file for one in sources], sorter, refusals)
        history.rows, history.mapped = read_sources(
            sources,
            sorter,
            refusals,
            lambda done: tell(f"reading, {done:,} rows"),
            latest_ms=wall_ms() + round(settings.worker.future_seconds * 1_000),
            keep_outliers=keep_outliers,
            placeholders=settings.worker.placeholder_ids,
            native=NativeReader(table, settings.worker, settings.money),
        )
        history.notes = tuple(sorter.notes)
        yield history
