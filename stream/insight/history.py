"""A history, played portion by portion up to each mark of the shop's clock.

Comes in: batches of a shop's events in the order of their times, and what reads one. Goes out: events
folded into whoever keeps users, and the time of each mark. `explore` looks at the end of a history,
`plan` and `trial` rehearse it mark by mark; `stream.wiring.history` opens one from files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from stream.config import Settings
from stream.events import Counts, EventColumns
from stream.features import FeatureTable
from stream.partition import Partition
from stream.rehearsal import Marked, Rehearsal
from stream.units import DAY_MS, iso

BY_DAYS_MARK_MS = DAY_MS
BY_DAYS_REFIT_SECONDS = 7 * 86_400.0
BY_DAYS = "played with a mark a day and a refit a week: the settings are for the wall clock"

Columns: TypeAlias = Callable[[Partition], EventColumns]
"""Gives the events of a topic, once it is told the partition that knows their users."""
Fold: TypeAlias = Callable[[Sequence[Columns]], int]
"""Folds what each topic has, and says how many events were duplicates; `Rehearsal.fold` is one."""


class Timed(Protocol):
    """An event of a history, whatever it is made of."""

    @property
    def time_ms(self) -> int: ...


E = TypeVar("E", bound=Timed)


@dataclass(frozen=True)
class Portion:
    """What some events came to, once they were read as a worker reads them.

    Attributes:
        columns: of each topic that has any.
        counts: of the messages.
    """

    columns: Sequence[Columns]
    counts: Counts


class History(Generic[E]):
    """A shop's events in the order of their times, to be played once.

    Attributes:
        files: they come from.
        rows: in the files.
        mapped: events, once the rows of an order were added up.
        folded: events given out so far.
        counts: what became of them.
        refused: rows and events refused so far, by reason.
        refusal_lines: gives, of each reason for a refusal, count, first examples, and the mapping's
            key.
        notes: what a reader should know of how the files were read.
    """

    def __init__(
        self,
        batches: Iterable[Sequence[E]],
        read: Callable[[Sequence[E]], Portion],
        *,
        files: Sequence[Path],
        rows: int,
        mapped: int,
        refused: Counter[str],
        refusal_lines: Callable[[], list[str]],
        notes: tuple[str, ...],
    ) -> None:
        self.files = files
        self.rows, self.mapped, self.folded = rows, mapped, 0
        self.counts = Counts()
        self.refused, self.refusal_lines = refused, refusal_lines
        self.notes = notes
        self._batches, self._read = batches, read

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
        for batch in self._batches:
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

    def _fold(self, fold: Fold, events: Sequence[E]) -> None:
        if not events:
            return
        portion = self._read(events)
        self.counts.add(portion.counts)
        duplicates = fold(portion.columns)
        self.counts.applied -= duplicates
        self.counts.duplicate += duplicates
        self.folded += len(events)


OpenHistory: TypeAlias = Callable[[Settings, FeatureTable], AbstractContextManager[History[Any]]]
"""Opens a history under settings and a feature table; `stream.wiring.history.opener` makes one."""


class Rehearsed(NamedTuple):
    """A history that has been played through an owner and a trainer.

    Attributes:
        file: the first one.
        by_days: the settings are for the wall clock, so marks and refits were not theirs.
        notes: of how the files were read, and of what was refused.
    """

    rehearsal: Rehearsal
    file: Path
    by_days: bool
    notes: tuple[str, ...]


def rehearse(
    settings: Settings,
    open_history: OpenHistory,
    at_mark: Callable[[Marked], None] = lambda _: None,
    tell: Callable[[str], None] = lambda _: None,
) -> Rehearsed:
    """Play a history through an owner and a trainer in memory.

    Settings for the wall clock are played with a mark a day and a refit a week.

    Args:
        at_mark: is told what happened at each mark.

    Raises:
        Exception: whatever opening the history raises.
    """
    step_ms = round(settings.clock.mark_seconds * 1_000)
    by_days = settings.clock.mode == "live"
    if by_days:
        step_ms = BY_DAYS_MARK_MS
        learning = settings.learning.model_copy(update={"refit_seconds": BY_DAYS_REFIT_SECONDS})
        settings = settings.model_copy(update={"learning": learning})
    rehearsal = Rehearsal(settings)
    with open_history(settings, rehearsal.table) as history:
        file = history.files[0]
        for at_ms in history.play(rehearsal.fold, step_ms):
            tell(f"playing {file.name}, {iso(at_ms)[:10]}")
            at_mark(rehearsal.mark(at_ms))
        notes = history.notes
        if refused := history.refused.total():
            told = f"{refused:,} of {history.rows:,} rows or events were refused"
            notes = (*notes, told, *history.refusal_lines())
    return Rehearsed(rehearsal, file, by_days, notes)
