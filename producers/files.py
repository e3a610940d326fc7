"""Reads files into a sorter, row by row as their mappings say.

Comes in: files and mappings. Goes out: mapped events in an `EventSorter`, and refusals; `replay` sends what
the sorter gives.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from producers.mapped import BAD_TIME, Event, Refusal
from producers.mapping import Mapping
from producers.row_mapper import RowMapper
from producers.sorting import EventSorter
from producers.tables.json_lines import fitting, messages
from producers.tables.opening import kind_of_file, open_table, stem
from producers.tables.table import BATCH_ROWS, Refuse
from producers.texts import FileError, is_utf8_after_all, open_utf8_lines
from stream.config import PLACEHOLDER_IDS, Money, Reviews
from stream.events import NativeLine, NoEvent
from stream.times import LATEST_MS
from stream.units import iso

if TYPE_CHECKING:
    from collections.abc import Collection

ReadNative = Callable[[Sequence[bytes]], Sequence[NativeLine | NoEvent]]
"""Reads lines that are messages; the worker's parser does, see `consumers.native`."""


class Source(NamedTuple):
    """A file and how it is read."""

    file: Path
    mapping: Mapping


def stage(
    file: Path,
    mapping: Mapping,
    sorter: EventSorter,
    refuse: Refuse,
    read: Callable[[int], None] | None = None,
    *,
    latest_ms: int = LATEST_MS,
    placeholders: Collection[str] = PLACEHOLDER_IDS,
    place: int = 0,
    native: ReadNative | None = None,
) -> int:
    """Map every row of a file into a sorter.

    A file is read twice if a number can mean two and other rows may tell which.

    Args:
        file: the file.
        mapping: how.
        sorter: takes the events, and notes of what they were read from.
        refuse: is told of each row that becomes no event.
        read: is told now and then how many rows have been read.
        latest_ms: later times have not come yet.
        placeholders: ids that name nobody and no order, whatever their case.
        place: of the file, among those that go into the sorter.
        native: reads lines that are messages, where the mapping says that they are.

    Returns:
        Rows of the file, refused ones among them.

    Raises:
        FileError: the file cannot be read.
        MappingError: the file lacks a column that the mapping needs.
    """
    unreadable = 0
    mapping = _for_this_kind(file, mapping)

    def refuse_row(refusal: Refusal) -> None:
        refuse(refusal._replace(file=file.name))

    if native is not None and mapping.native and kind_of_file(file) == "jsonl":
        return _stage_native(file, mapping, native, sorter, refuse_row, read, latest_ms, place)

    def refuse_line(refusal: Refusal) -> None:
        nonlocal unreadable
        unreadable += 1
        refuse_row(refusal)

    rows = 0
    undecided = array("q")
    with open_table(file, mapping, refuse_line) as table:
        mapper = RowMapper(mapping, table.columns, latest_ms, placeholders)
        for batch in table.batches:
            events: list[Event] = []
            for number, row in batch:
                mapped = mapper.try_map(number, row)
                if isinstance(mapped, Event):
                    events.append(mapped if place == 0 else mapped._replace(file=place))
                elif mapped is None:
                    undecided.append(number)
                else:
                    refuse_row(mapped)
            sorter.add(events, mapping.order_rows, reviews=mapping.tells_reviews)
            rows += len(batch)
            if read is not None:
                read(rows)
    notes = [] if table.note is None else [table.note]
    notes += mapper.notes()
    if kind_of_file(file) != "parquet" and is_utf8_after_all(file, mapping.encoding):
        notes.append(f"is UTF-8, but was read as the mapping says: encoding = {mapping.encoding!r}")
    sorter.notes += [f"{file.name}: {note}" for note in notes]
    if undecided:
        mapper.settle()
        with open_table(file, mapping, lambda _: None) as table:
            waiting = iter([*undecided, 0])
            next_number = next(waiting)
            for batch in table.batches:
                events = []
                for number, row in batch:
                    mapped = mapper.map(number, row)
                    if number != next_number:
                        continue  # mapped for what it says of the lines below
                    next_number = next(waiting)
                    if isinstance(mapped, Event):
                        events.append(mapped if place == 0 else mapped._replace(file=place))
                    else:
                        refuse_row(mapped)
                sorter.add(events, mapping.order_rows, reviews=mapping.tells_reviews)
    return rows + unreadable


def _for_this_kind(file: Path, mapping: Mapping) -> Mapping:
    """The mapping, or the one that it names for JSON if the file is of that shape."""
    return fitting(file, mapping) if kind_of_file(file) == "jsonl" else mapping


def _stage_native(
    file: Path,
    mapping: Mapping,
    native: ReadNative,
    sorter: EventSorter,
    refuse: Refuse,
    read: Callable[[int], None] | None,
    latest_ms: int,
    place: int,
) -> int:
    """The same of lines that are messages; they go into the sorter as they are."""
    rows = 0
    batch: list[tuple[int, bytes]] = []

    def settle() -> None:
        events: list[Event] = []
        found = native([line for _, line in batch])
        for (number, line), one in zip(batch, found, strict=True):
            if isinstance(one, NoEvent):
                refuse(Refusal(number, one.reason, f"line {number}: {one.why}", {}))
            elif one.time_ms > latest_ms:
                why = f"line {number}: {iso(one.time_ms)} has not come yet"
                refuse(Refusal(number, BAD_TIME, why, {"user": one.user}))
            else:
                events.append(_message_event(one, number, line.decode(), place))
        sorter.add(events, mapping.order_rows)
        batch.clear()

    with open_utf8_lines(file, mapping.encoding) as lines:
        for number, line in messages(file, lines):
            batch.append((number, line))
            rows += 1
            if len(batch) == BATCH_ROWS:
                settle()
                if read is not None:
                    read(rows)
    settle()
    if read is not None:
        read(rows)
    return rows


def _message_event(line: NativeLine, number: int, message: str, place: int) -> Event:
    """An event whose message stands already."""
    return Event(
        line.time_ms, number, line.user, line.event, None, line.id, *(None,) * 5,
        currency=line.currency, file=place, raw=message.removeprefix("\ufeff"),
    )  # fmt: skip


def read_sources(
    sources: Sequence[Source],
    sorter: EventSorter,
    refuse: Refuse,
    read: Callable[[int], None] | None = None,
    *,
    latest_ms: int = LATEST_MS,
    placeholders: Collection[str] = PLACEHOLDER_IDS,
    keep_outliers: bool = False,
    native: ReadNative | None = None,
    money: Money | None = None,
    ratings: Reviews | None = None,
) -> tuple[int, int]:
    """Read files into a sorter, and bring their events into one order of time.

    Args:
        sources: the files; an event's `Event.file` is its place among them.
        sorter: gives the events back afterwards.
        refuse: is told of each row, and each order, that becomes no event.
        read: is told now and then how many rows have been read.
        latest_ms: later times have not come yet.
        placeholders: ids that name nobody and no order, whatever their case.
        keep_outliers: whether events far from all others stay in.
        native: see `stage`.
        money: what the worker makes of currencies; None does not ask.
        ratings: which ratings it takes; None does not ask.

    Returns:
        Rows of all files, refused ones among them, and events.

    Raises:
        FileError: a file cannot be read, or two have the same name.
        MappingError: a file lacks a column that its mapping needs.
    """
    names = [stem(source.file) for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise FileError(
                f"two of the files are called {name}: ids of their messages would be the same; "
                "rename one"
            )
    rows = 0

    def told(done: int) -> None:
        if read is not None:
            read(rows + done)

    for place, (file, mapping) in enumerate(sources):
        rows += stage(
            file,
            mapping,
            sorter,
            refuse,
            told,
            latest_ms=latest_ms,
            placeholders=placeholders,
            place=place,
            native=native,
        )

    def refuse_event(event: Event, reason: str, why: str) -> None:
        shown = {"user": event.user, "order": event.order}
        refuse(Refusal(event.row, reason, why, shown, sources[event.file].file.name))

    count = sorter.sort(refuse_event, keep_outliers=keep_outliers)
    notes = [
        None if money is None else _currency_note(sorter.currencies(), money),
        None if ratings is None else _rating_note(sorter, ratings),
    ]
    sorter.notes += [note for note in notes if note is not None]
    return rows, count


def _currency_note(found: Counter[str], money: Money) -> str | None:
    """What becomes of amounts in these currencies, where that is not what a shop would want."""
    if money.currency:
        known = {money.currency, *money.rates}
        strange = Counter({code: count for code, count in found.items() if code not in known})
        if not strange:
            return None
        return (
            f"amounts in currencies that money.rates does not have: {_told(strange)}; workers refuse "
            "their events"
        )
    if len(found) < 2:
        return None
    return (
        f"amounts in {len(found)} currencies ({_told(found)}): currencies are not added up, so workers "
        "refuse all but the first that they meet; set money.currency, and money.rates for the others"
    )


def _rating_note(sorter: EventSorter, ratings: Reviews) -> str | None:
    """What becomes of ratings that no review can give; nothing to tell where none are read."""
    worst, best = ratings.worst_rating, ratings.best_rating
    count, example = sorter.ratings_beyond(worst, best) if ratings.enabled else (0, 0.0)
    if not count:
        return None
    return (
        f"{count:,} ratings such as {example:g} are not within {worst:g} to {best:g}: workers refuse their "
        "events; say in reviews.worst_rating and reviews.best_rating which there are"
    )


def _told(counts: Counter[str]) -> str:
    shown = ", ".join(f"{count:,} {code}" for code, count in counts.most_common(5))
    return f"{shown} .." if len(counts) > 5 else shown
