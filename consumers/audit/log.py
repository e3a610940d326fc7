"""Folds the log up to each snapshot, and says whether it can prove what is stored.

Comes in: the records of the input topics. Goes out: an oracle for each partition, what must be among the dead
letters, what is not read yet; and two promises: the log is complete, and no message is without a count.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields
from itertools import takewhile

from consumers.audit.reading import bytes_of, digest_of, place_of
from consumers.audit.report import Check
from consumers.audit.sample import Sample
from consumers.audit.snapshot import Snapshot, Snapshots
from consumers.records import Record
from stream.config import Settings
from stream.events import LETTER_HEAD_BYTES, Counts, Reason
from stream.oracle import Fate, Judge, Marks, Message, Oracle
from stream.priced import Priced


@dataclass(frozen=True)
class Refusal:
    """A message to be refused.

    Attributes:
        heads: digests of the heads by which a value too large for its letter may be filed.
    """

    reason: Reason
    size: int
    digest: bytes
    heads: frozenset[tuple[int, bytes]]

    @staticmethod
    def of(reason: Reason, value: bytes) -> Refusal:
        lengths = [1 << bits for bits in range(LETTER_HEAD_BYTES.bit_length() - 1, 64)]
        heads = [(n, digest_of(value[:n])) for n in takewhile(lambda n: n < len(value), lengths)]
        return Refusal(reason, len(value), digest_of(value), frozenset(heads))

    def is_filed_as(self, value: bytes, truncated: str | None) -> bool:
        """Whether a letter has the untouched bytes, or says how many it has the head of."""
        if truncated is None:
            return digest_of(value) == self.digest
        return truncated == str(self.size) and (len(value), digest_of(value)) in self.heads


@dataclass
class _Extent:
    """Which offsets of a topic partition were read, of those below the committed one."""

    first: int
    next: int
    records: int = 0


class FoldedLog:
    """What the log says of each partition that there is a snapshot of.

    Attributes:
        complete: whether the log holds everything that the stored state stands for.
        conservation: whether every message is in exactly one count.
        oracles: by partition, all that its messages come to.
        refusals: messages to be refused, by topic, partition and offset.
        unserved: messages of partitions without a snapshot.
        backlog: messages behind the snapshots, by topic.

    Args:
        agreed: the currency that the namespace's amounts are in, as its store has it.
    """

    def __init__(
        self,
        settings: Settings,
        key: bytes,
        snapshots: Snapshots,
        sample: Sample,
        agreed: str,
    ) -> None:
        self.complete = Check("log_is_complete")
        self.conservation = Check("counts_are_conserved")
        self.refusals: dict[tuple[str, int, int], Refusal] = {}
        self.unserved: Counter[int] = Counter()
        self.backlog: Counter[str] = Counter()
        self._settings = settings
        self._snapshots = snapshots
        self._sample = sample
        self._inputs = settings.topics.inputs
        self._schema = settings.table().schema
        self._extents: dict[tuple[int, int], _Extent] = {}
        self._now_ms = time.time_ns() // 1_000_000
        clock, partitions = settings.clock, settings.topics.partitions
        marks = Marks(key, clock.mark_seconds) if clock.mode == "watermark" else None
        declared = settings.features, settings.worker, marks
        told = settings.money, settings.reviews, agreed
        self._judge = Judge(*declared, self._now_ms, partitions, *told)
        self._priced: dict[int, Priced] = {}
        self.oracles = {
            partition: Oracle(*declared, self._now_ms, partitions, *told) for partition in snapshots
        }

    def fold(self, index: int, topic: str, records: Iterable[Record]) -> None:
        """Take in the records of an input topic."""
        for record in records:
            partition, offset = place_of(record)
            snapshot = self._snapshots.get(partition)
            if snapshot is None:
                self.unserved[partition] += 1
                self.backlog[topic] += 1
                continue
            if offset < snapshot.first(index):
                continue
            value = bytes_of(record.value())
            kind, timestamp_ms = record.timestamp()
            place = (topic, partition)
            message = Message(value, timestamp_ms if kind else None, index, place)
            if offset >= snapshot.position.offsets[index]:
                self.backlog[topic] += 1
                if offset < snapshot.after.offsets[index]:
                    event = self._judge.judge(message).event
                    snapshot.moving |= set() if event is None else {event.user}
                continue
            extent = self._extents.setdefault((index, partition), _Extent(offset, offset))
            extent.next = offset + 1
            extent.records += 1
            self._convert(partition, snapshot.priced(index, offset))
            if self._sample.skips(value):
                self.conservation.unjudged += 1
                self.oracles[partition].pass_over(message)
                continue
            outcome = self.oracles[partition].take(message)
            event = outcome.event
            if event is not None and event.clamped and event.time_ms == self._now_ms:
                snapshot.ahead.add(event.user)
            if outcome.fate is Fate.REJECTED and outcome.reason is not None:
                where = (topic, partition, offset)
                self.refusals[where] = Refusal.of(outcome.reason, value)

    def _convert(self, partition: int, priced: Priced | None) -> None:
        """Have amounts converted as they were when the message was read."""
        if priced is not None and self._priced.get(partition) is not priced:
            self._priced[partition] = priced
            self.oracles[partition].convert_by(priced.money)

    def proves(self, partition: int, snapshot: Snapshot) -> bool:
        """Whether the log still holds everything that the stored state stands for."""
        before = self.complete.wrong
        for index, topic in enumerate(self._inputs):
            self.complete.counted += 1
            first, upto = snapshot.first(index), snapshot.position.offsets[index]
            if upto == first:
                continue
            extent = self._extents.get((index, partition))
            if extent is None or extent.first > first or extent.next < upto:
                held = f"{extent.first} to {extent.next - 1}" if extent else "none of them"
                self.complete.accuse(
                    f"{topic}/{partition}: the state stands for offsets {first} to {upto - 1}, "
                    f"the topic holds {held}"
                )
        if snapshot.position.schema != self._schema:
            self.complete.accuse(
                f"partition {partition} holds rows of feature table {snapshot.position.schema}, "
                f"the settings declare {self._schema}"
            )
        remember = snapshot.position.remember
        if remember and remember != self._settings.worker.limits().told:
            self.complete.accuse(
                f"partition {partition} remembers by other settings than there are"
            )
        if snapshot.forgets_rates:
            self.complete.accuse(
                f"partition {partition}: money.rates changed more often than is remembered, so it is not "
                "known what the first amounts were worth"
            )
        if self.complete.wrong > before:
            self.complete.note = (
                "state and counts of these partitions cannot be proved: the log was cut by its "
                "retention or made anew, or other settings wrote them"
            )
        return self.complete.wrong == before

    def check_counts(self, partition: int, snapshot: Snapshot) -> None:
        """Hold the stored counts to those of the log."""
        check = self.conservation
        stored, true = snapshot.position.counts, self.oracles[partition].counts
        extents = [self._extents.get((index, partition)) for index in range(len(self._inputs))]
        judged = sum(0 if extent is None else extent.records for extent in extents)
        check.counted += true.consumed + true.marks
        # In a sample only the sum is known: the messages of the others were not looked at.
        for name in (f.name for f in fields(Counts)) if self._sample.whole else ():
            here, there = getattr(stored, name), getattr(true, name)
            if name == "clamped" and here > there:
                # They were after the wall clock when they were read, and are not any more.
                snapshot.excused = here - there
                check.unjudged += 1
            elif here != there:
                check.accuse(f"partition {partition}: {here} {name}, the log says {there}")
        if stored.consumed + stored.marks != judged:
            check.accuse(
                f"partition {partition}: applied + duplicate + late + ignored + rejected + marks "
                f"= {stored.consumed + stored.marks} of {judged} messages"
            )

    def was_judged(self, origin: tuple[str, int, int]) -> bool:
        """Whether a message was looked at, by topic, partition and offset."""
        topic, partition, offset = origin
        if topic not in self._inputs:
            return True
        extent = self._extents.get((self._inputs.index(topic), partition))
        return extent is not None and extent.first <= offset < extent.next
