"""Proves or refutes what the pipeline promises.

Comes in: the input topics, their dead letters, the topic of changes and the store. Goes out: an
`AuditReport`, one `Check` a promise, with the first offenders by name.

A pipeline at work is judged as of the moment at which the audit began to read a partition:

1. its position, which one commit wrote: messages up to there are the log, later ones a backlog;
2. its rows: none is older than the position; some may be newer;
3. its outbox: whatever a row has seen is there, or was delivered before;
4. its position again: users with messages between the two are *moving*, their rows not judged;
5. the topics, to their ends: whatever was delivered by then is read.

So whoever has a row of version v has a record of v, and whatever has no place in this order is newer
than what was read. It is counted as *unjudged*, never accused. A partition whose state was begun
anew, or put back, between 1 and 4 is not judged at all. `stream.oracle` folds the log, slowly and
obviously.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from hashlib import blake2b
from itertools import takewhile
from typing import Any

import msgspec
import numpy as np
from pydantic import ValidationError

from consumers.client import count_records, read_to_end
from consumers.records import Read, Record
from stream.config import Settings, Worker
from stream.errors import TopicMissingError
from stream.events import (
    CHANGED,
    LETTER_HEAD_BYTES,
    LETTER_RECEIPT,
    LETTER_TRUNCATED,
    LINEAGE,
    LINEAGE_RECORD,
    MEMBERSHIP,
    MEMBERSHIP_RECORD,
    SEGMENT_CHANGE,
    Counts,
    Reason,
    Rows,
)
from stream.hashing import change_identity, user_hashes
from stream.headers import EVENT_ID, EVENT_SPEC, EVENT_TYPE, SPEC_VERSION, headers_of
from stream.limits import PLACES
from stream.oracle import Fate, Judge, Marks, Message, Oracle, OracleUser
from stream.orders import ALL_BACK, KNOWN, NAMED, PACKED, PLACED, owners_of
from stream.placeholders import Placeholders
from stream.remembered import MESSAGE, keys_of, salt_of
from stream.rows import ROW_FORMAT
from stream.store.promises import ReaderStore
from stream.store.state import OutboxEntry, Position
from stream.units import DAY_MS, isos

OFFENDERS = 5
"""Named in a check; the others are only counted."""
SNAPSHOT_TRIES = 3
"""For a moment at which nothing is committed while a partition is read: then all of it is judged."""
TOLD_EVERY = 2_000
EVERY_ENTRY = 1 << 31
BEGINNING = "0-0"
WAIT_SECONDS = 0.001
RELATIVE, ABSOLUTE = 1e-6, 1e-9
"""Rounding of the vectorised fold, summed over a year of batches, is below these."""
HALF_A_MS = 0.5 / DAY_MS
NO_JSON = frozenset({Reason.TRUNCATED, Reason.NOT_JSON})
"""Two decoders may differ on whether a torn message was cut or is wrong; on nothing else."""

CHANGE_HEADERS = {EVENT_SPEC: SPEC_VERSION, EVENT_TYPE: CHANGED}


@dataclass(frozen=True)
class Progress:
    """How far an audit has come.

    Attributes:
        what: is being read, in words; a topic by its name.
        done: things read so far.
        total: of how many; None if nobody knows.
        beforehand: whether nothing is being read yet, and this says how much there is.
    """

    what: str
    done: int
    total: int | None
    beforehand: bool = False


@dataclass
class Check:
    """One promise.

    Attributes:
        counted: how many things were looked at.
        unjudged: how many were not: newer than what was read of the store, or not in the sample.
        wrong: how many of them break the promise.
        offenders: the first of those, in words.
        note: what else a reader should know.
    """

    name: str
    ok: bool = True
    counted: int = 0
    unjudged: int = 0
    wrong: int = 0
    offenders: list[str] = field(default_factory=list)
    note: str = ""

    def accuse(self, offender: str) -> None:
        self.ok = False
        self.wrong += 1
        if len(self.offenders) < OFFENDERS:
            self.offenders.append(offender)


@dataclass
class AuditReport:
    """What an audit found.

    Attributes:
        ok: every promise is kept.
        lost: changes that happened and are neither delivered nor waiting in the outbox.
        duplicated: change records delivered again under a known id with other bytes.
        repeated: change records delivered again with the same id and bytes, which is allowed:
            whoever drops known ids sees each of them once.
        unjudged: things that no check could judge, all checks together.
        rejected: messages refused.
        users: in the store.
        changes: different change records on their topic.
        pending: change records waiting in the outbox.
        counts: what became of all judged messages, as stored.
        backlog: messages not yet judged, by topic.
    """

    ok: bool
    checks: list[Check]
    lost: int
    duplicated: int
    repeated: int
    unjudged: int
    rejected: int
    users: int
    changes: int
    pending: int
    counts: dict[str, int]
    backlog: dict[str, int]


def audit(
    settings: Settings,
    store: ReaderStore,
    read: Read = read_to_end,
    *,
    sample: float = 1.0,
    progress: Callable[[Progress], None] | None = None,
) -> AuditReport:
    """Hold the store and the output topic to the input topics.

    A running pipeline may be audited: what is newer than what was read of it is counted apart.

    Args:
        settings: what to audit.
        store: its state.
        read: reads a topic to its end; tests give lists.
        sample: judge this share of the users, always the same ones, and count the others apart.
            What needs no look into a message stays exact: how many there are, and which change
            ids have more than one payload.
        progress: is told how far it is, and at first how much there is to read.

    Raises:
        StoreUnavailableError: the store does not answer.
        BrokerUnavailableError: the broker does not answer.
        TopicMissingError: an input topic or the topic of changes is not there.
    """
    return _Audit(settings, store, read, sample, progress).run()


@dataclass
class _Snapshot:
    """A partition of the store, read from one position to another.

    Attributes:
        position: before the rows were read: the log up to there is judged.
        after: when rows and outbox had been read.
        rows: of the users that are judged, none older than `position`.
        users: how many rows there are, of all users.
        ids: keys of the message ids that are remembered, by place.
        orders: what is remembered of orders, by place and key.
        moving: users with messages between the two positions.
        ahead: users whose events are after the wall clock still: when they count depends on when
            they were read, and that is not known.
        excused: how many events were after the wall clock when they were read, and are not any
            more. Nobody knows whose: of so many users a difference is not judged.
    """

    position: Position
    after: Position
    rows: dict[str, bytes]
    users: int
    outbox: list[OutboxEntry]
    ids: dict[int, bytes]
    orders: dict[tuple[int, bytes], bytes]
    moving: set[str] = field(default_factory=set)
    ahead: set[str] = field(default_factory=set)
    excused: int = 0

    @property
    def by_wall(self) -> bool:
        """Whether some events came from after the wall clock."""
        return bool(self.ahead or self.excused)


@dataclass(frozen=True)
class _Step:
    """A change, as far as the chain of changes is concerned.

    Attributes:
        kinds: that the user was told before, empty for none, and is told now.
    """

    version: int
    before: int | None
    after: int
    at: str
    where: str
    kinds: tuple[str, str] = ("", "")

    @property
    def turn(self) -> bool:
        """Whether the segment has become another, with the user in it."""
        return self.before == self.after


@dataclass(frozen=True)
class _Refusal:
    """A message to be refused.

    Attributes:
        heads: digests of the heads by which a value too large for its letter may be filed.
    """

    reason: Reason
    size: int
    digest: bytes
    heads: frozenset[tuple[int, bytes]]

    @staticmethod
    def of(reason: Reason, value: bytes) -> _Refusal:
        lengths = [1 << bits for bits in range(LETTER_HEAD_BYTES.bit_length() - 1, 64)]
        heads = [(n, _digest(value[:n])) for n in takewhile(lambda n: n < len(value), lengths)]
        return _Refusal(reason, len(value), _digest(value), frozenset(heads))

    def is_filed_as(self, value: bytes, truncated: str | None) -> bool:
        """Whether a letter has the untouched bytes, or says how many it has the head of."""
        if truncated is None:
            return _digest(value) == self.digest
        return truncated == str(self.size) and (len(value), _digest(value)) in self.heads


@dataclass
class _Extent:
    """Which offsets of a topic partition were read, of those below the committed one."""

    first: int
    next: int
    records: int = 0


class _Who(msgspec.Struct):
    """The user of a message, as far as a look at it tells."""

    userId: Any = None  # noqa: N815 - the message's own name
    anonymousId: Any = None  # noqa: N815 - the message's own name


class _Sample:
    """Some of the users, by a hash that is the same for every audit."""

    def __init__(self, share: float, worker: Worker) -> None:
        self.whole = share >= 1.0
        self._limit = int(share * (1 << 64))
        self._message_bytes = worker.message_bytes
        self._placeholders = Placeholders(worker.placeholder_ids)
        self._who = msgspec.json.Decoder(_Who)

    def has(self, user: bytes) -> bool:
        return self.whole or int.from_bytes(blake2b(user, digest_size=8).digest()) < self._limit

    def skips(self, value: bytes) -> bool:
        """Whether a message is of a user outside the sample; whatever is unclear is judged."""
        if self.whole or len(value) > self._message_bytes:
            return False
        try:
            who = self._who.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        for user in (who.userId, who.anonymousId):
            if user is None:
                continue
            if not isinstance(user, str):
                return False
            if user not in self._placeholders:
                return not self.has(user.encode())
        return False


class _Audit:
    def __init__(
        self,
        settings: Settings,
        store: ReaderStore,
        read: Read,
        share: float,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._read = read
        self._sample = _Sample(share, settings.worker)
        self._progress = progress
        self._totals: dict[str, int] = {}
        self._inputs = settings.topics.inputs
        self._table = settings.table()
        self._key = store.namespace_key()
        self._snapshots: dict[int, _Snapshot] = {}
        self._oracles: dict[int, Oracle] = {}
        self._extents: dict[tuple[int, int], _Extent] = {}
        self._refusals: dict[tuple[str, int, int], _Refusal] = {}
        self._unserved: Counter[int] = Counter()
        self._backlog: Counter[str] = Counter()
        self._digests: dict[str, bytes] = {}
        self._lineage: dict[str, bytes] = {}
        self._delivered: Counter[str] = Counter()
        self._contradicted: Counter[str] = Counter()
        self._chains: dict[tuple[int, str, int], list[_Step]] = {}
        self._told_again: dict[tuple[int, str, int], _Step] = {}
        self._begin_cut: set[int] = set()
        self._pending = 0
        self._lost = 0
        self._moved_on: set[int] = set()
        self._begun: set[int] = set()
        clock = settings.clock
        self._marks = Marks(self._key, clock.mark_seconds) if clock.mode == "watermark" else None
        partitions = settings.topics.partitions
        self._now_ms = time.time_ns() // 1_000_000
        self._judge = Judge(
            settings.features,
            settings.worker,
            self._marks,
            self._now_ms,
            partitions,
            settings.money,
        )

        self._log = Check("log_is_complete")
        self._state = Check("state_equals_log")
        self._conservation = Check("counts_are_conserved")
        self._letters = Check("refused_messages_are_filed")
        self._valid = Check("change_records_are_valid")
        self._payload = Check("one_payload_an_id")
        self._once = Check("each_change_is_delivered_once")
        self._versions = Check("versions_are_unbroken")
        self._from = Check("from_is_the_previous_to")
        self._assignment = Check("assignment_equals_changes")

    def run(self) -> AuditReport:
        self._measure()
        for partition in range(self._settings.topics.partitions):
            self._tell("partitions of the store", partition, self._settings.topics.partitions)
            self._take_snapshot(partition)
        for index, topic in enumerate(self._inputs):
            self._fold_topic(index, topic)
        for topic in self._inputs:
            self._check_letters(topic)
        self._read_changes()
        self._note_movement()
        for partition, snapshot in self._snapshots.items():
            self._tell("partitions compared", partition, self._settings.topics.partitions)
            if self._is_provable(partition, snapshot):
                self._check_counts(partition, snapshot)
                self._check_state(partition, snapshot)
                self._check_memory(partition, snapshot)
        self._check_unserved()
        self._check_chains()
        self._check_assignment()
        return self._report()

    # -- progress -----------------------------------------------------------------------------

    def _measure(self) -> None:
        """Find out how much there is to read, for whoever wants to know."""
        if self._progress is None:
            return
        topics = self._settings.topics
        for topic in (*self._inputs, *map(topics.dlq, self._inputs), topics.changes):
            try:
                self._totals[topic] = count_records(self._settings.broker, topic)
            except TopicMissingError:
                self._totals[topic] = 0
            self._progress(Progress(topic, 0, self._totals[topic], beforehand=True))

    def _tell(self, what: str, done: int, total: int | None) -> None:
        if self._progress is not None:
            self._progress(Progress(what, done, total))

    def _records(self, topic: str) -> Iterator[Record]:
        """Every record of a topic, telling how far it is."""
        done = 0
        for done, record in enumerate(self._read(self._settings.broker, topic), start=1):
            if done % TOLD_EVERY == 0:
                self._tell(topic, done, self._totals.get(topic))
            yield record
        self._tell(topic, done, done)

    # -- the store ----------------------------------------------------------------------------

    def _take_snapshot(self, partition: int) -> None:
        """Position, rows, outbox and position again, in this order; see above.

        A partition that has no state yet, or was begun anew or put back meanwhile, has none.
        """
        for _ in range(SNAPSHOT_TRIES):
            position = self._store.position(partition)
            if position is None:
                return
            rows: dict[str, bytes] = {}
            users = 0
            for user, row in self._store.load(partition):
                users += 1
                if self._sample.has(user):
                    rows[user.decode()] = row
            found = self._store.outbox({partition: BEGINNING}, EVERY_ENTRY, WAIT_SECONDS)
            outbox = found.get(partition, [])
            ids = dict(self._store.load_ids(partition))
            orders = {(place, key): kept for place, key, kept in self._store.load_orders(partition)}
            after = self._store.position(partition)
            if after == position:
                break
        if after is None or position is None or not _follows(after, position):
            return
        self._snapshots[partition] = _Snapshot(position, after, rows, users, outbox, ids, orders)
        self._oracles[partition] = Oracle(
            self._settings.features,
            self._settings.worker,
            self._marks,
            now_ms=self._now_ms,
            partitions=self._settings.topics.partitions,
            money=self._settings.money,
        )
        self._state.unjudged += users - len(rows)

    def _note_movement(self) -> None:
        """Which partitions have state by now, and which were committed to since their position."""
        for partition in range(self._settings.topics.partitions):
            now = self._store.position(partition)
            if now is not None:
                self._begun.add(partition)
            snapshot = self._snapshots.get(partition)
            if snapshot is not None and not snapshot.position == snapshot.after == now:
                self._moved_on.add(partition)

    # -- the input ----------------------------------------------------------------------------

    def _fold_topic(self, index: int, topic: str) -> None:
        for record in self._records(topic):
            partition, offset = _place(record)
            snapshot = self._snapshots.get(partition)
            if snapshot is None:
                self._unserved[partition] += 1
                self._backlog[topic] += 1
                continue
            if offset < _first(snapshot, index):
                continue
            value = _bytes(record.value())
            kind, timestamp_ms = record.timestamp()
            place = (topic, partition)
            message = Message(value, timestamp_ms if kind else None, index, place)
            if offset >= snapshot.position.offsets[index]:
                self._backlog[topic] += 1
                if offset < snapshot.after.offsets[index]:
                    event = self._judge.judge(message).event
                    snapshot.moving |= set() if event is None else {event.user}
                continue
            extent = self._extents.setdefault((index, partition), _Extent(offset, offset))
            extent.next = offset + 1
            extent.records += 1
            if self._sample.skips(value):
                self._conservation.unjudged += 1
                self._oracles[partition].pass_over(message)
                continue
            outcome = self._oracles[partition].take(message)
            event = outcome.event
            if event is not None and event.clamped and event.time_ms == self._now_ms:
                snapshot.ahead.add(event.user)
            if outcome.fate is Fate.REJECTED and outcome.reason is not None:
                where = (topic, partition, offset)
                self._refusals[where] = _Refusal.of(outcome.reason, value)

    def _is_provable(self, partition: int, snapshot: _Snapshot) -> bool:
        """Whether the log still holds everything that the stored state stands for."""
        before = self._log.wrong
        for index, topic in enumerate(self._inputs):
            self._log.counted += 1
            first, upto = _first(snapshot, index), snapshot.position.offsets[index]
            if upto == first:
                continue
            extent = self._extents.get((index, partition))
            if extent is None or extent.first > first or extent.next < upto:
                held = f"{extent.first} to {extent.next - 1}" if extent else "none of them"
                self._log.accuse(
                    f"{topic}/{partition}: the state stands for offsets {first} to {upto - 1}, "
                    f"the topic holds {held}"
                )
        if snapshot.position.schema != self._table.schema:
            self._log.accuse(
                f"partition {partition} holds rows of feature table {snapshot.position.schema}, "
                f"the settings declare {self._table.schema}"
            )
        remember = snapshot.position.remember
        if remember and remember != self._settings.worker.limits().told:
            self._log.accuse(f"partition {partition} remembers by other settings than there are")
        if self._log.wrong > before:
            self._log.note = (
                "state and counts of these partitions cannot be proved: the log was cut by its "
                "retention or made anew, or other settings wrote them"
            )
        return self._log.wrong == before

    # -- state and counts ---------------------------------------------------------------------

    def _check_counts(self, partition: int, snapshot: _Snapshot) -> None:
        check = self._conservation
        stored, true = snapshot.position.counts, self._oracles[partition].counts
        extents = [self._extents.get((index, partition)) for index in range(len(self._inputs))]
        judged = sum(0 if extent is None else extent.records for extent in extents)
        check.counted += true.consumed + true.marks
        # Of a sample only the sum is known: what became of the others was not looked at.
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

    def _check_state(self, partition: int, snapshot: _Snapshot) -> None:
        check = self._state
        users = self._oracles[partition].users
        whole = self._table.dtype.itemsize
        readable: dict[str, bytes] = {}
        if snapshot.users < snapshot.position.users:
            check.accuse(
                f"partition {partition} has {snapshot.users} users in the store, its position says "
                f"{snapshot.position.users}"
            )
        for user, row in snapshot.rows.items():
            if user in snapshot.moving:
                check.unjudged += 1
            elif user not in users:
                check.counted += 1
                check.accuse(f"{_name(partition, user)} is in the store, but not in the log")
            elif len(row) != whole:
                check.counted += 1
                check.accuse(
                    f"{_name(partition, user)}: a row of {len(row)} bytes instead of {whole}"
                )
            else:
                readable[user] = row
        for user in users:
            if user not in snapshot.rows and self._sample.has(user.encode()):
                check.counted += 1
                check.accuse(f"{_name(partition, user)} is in the log, but not in the store")
        rows = np.frombuffer(b"".join(readable.values()), dtype=self._table.dtype)
        # At time 0 nothing has aged: every sum as it stands. At the clock's time: what fades.
        newest = int(rows["as_of"].max(initial=0))
        times = (0, max(snapshot.position.clock_ms, newest))
        vectors = [self._table.vectors(rows, now) for now in times]
        excused = snapshot.excused
        for place, user in enumerate(readable):
            check.counted += 1
            found = self._differences(rows[place], users[user]) or self._other_values(
                [vector[place].tolist() for vector in vectors], times, users[user]
            )
            if not found:
                continue
            if user in snapshot.ahead or excused:
                excused -= user not in snapshot.ahead
                check.unjudged += 1
                check.note = "events came from after the wall clock: when they count is not known"
            else:
                check.accuse(f"{_name(partition, user)}: {found}")

    def _differences(self, row: Rows, user: OracleUser) -> str:
        """The first plain field that is not what it should be, in words."""
        for name, stored, true in (
            ("format", int(row["format"]), ROW_FORMAT),
            ("first event", int(row["first"]), user.first_ms),
            ("last event", int(row["seen"]), user.seen_ms),
            ("last click", int(row["click"]), user.click_ms or 0),
            ("as of", int(row["as_of"]), user.as_of_ms),
            ("arrivals", row["arrivals"].tolist(), user.arrivals),
        ):
            if stored != true:
                return f"{name} is {stored}, the log says {true}"
        return ""

    def _check_memory(self, partition: int, snapshot: _Snapshot) -> None:
        """What is remembered of messages and orders is what the log says: nothing counts twice."""
        check, oracle, position = self._state, self._oracles[partition], snapshot.position
        after = snapshot.after
        still = (position.offsets, position.ids, position.orders) == (
            after.offsets,
            after.ids,
            after.orders,
        )
        if not still or snapshot.by_wall:
            check.unjudged += 1
            return
        names = list(oracle.users)
        hashes = user_hashes([name.encode() for name in names], self._key).tolist()
        users = dict(zip(names, hashes, strict=True))
        for index, topic in enumerate(self._inputs):
            check.counted += 1
            stored = {
                key
                for place, keys in snapshot.ids.items()
                if place // PLACES == index
                for key in np.frombuffer(keys, np.uint64).tolist()
            }
            told = sum(count for _, count in (position.ids or [[], []])[index])
            if len(stored) != told:
                check.accuse(
                    f"partition {partition} has {len(stored)} message ids of {topic} in the store, "
                    f"its position says {told}"
                )
            remembered = [one for ids in oracle.topics[index].ids.values() for one in ids]
            true = self._keys(partition, index, users, remembered)
            if not (stored == true if self._sample.whole else stored >= true):
                check.accuse(
                    f"partition {partition} remembers other messages of {topic} than it should: "
                    f"{len(true - stored)} are missing, {len(stored - true)} are too many"
                )
            self._check_orders(partition, index, snapshot, users)

    def _keys(
        self, partition: int, topic: int, users: dict[str, int], ids: list[tuple[str, int]]
    ) -> set[int]:
        """Keys of message ids, as a store keeps them."""
        hashes = np.array([users[user] for user, _ in ids], np.uint64)
        salts = np.full(len(ids), salt_of(partition, topic), np.uint64)
        texts = np.array([message for _, message in ids], np.uint64)
        return set(keys_of(hashes, salts, texts, MESSAGE).tolist())

    def _check_orders(
        self, partition: int, topic: int, snapshot: _Snapshot, users: dict[str, int]
    ) -> None:
        """Whether the orders of a topic are remembered as the log says."""
        check, told = self._state, (snapshot.position.orders or [[], []])[topic]
        steps = {step % PLACES for step, _ in told}
        kept = [
            packed
            for (place, _), packed in snapshot.orders.items()
            if place // PLACES == topic and place % PLACES in steps
        ]
        check.counted += 1
        if len(kept) != sum(count for _, count in told):
            check.accuse(
                f"partition {partition} has {len(kept)} orders of {self._inputs[topic]} in the store, "
                f"its position says {sum(count for _, count in told)}"
            )
        rows = np.frombuffer(b"".join(kept), PACKED)
        names = ("user", "flags", "time_ms", "value", "quantity", "refunded", "refunded_quantity")
        stored = Counter(zip(*(rows[name].round(6).tolist() for name in names), strict=True))
        true: Counter[tuple[Any, ...]] = Counter()
        found = self._oracles[partition].orders_remembered(topic)
        hashes = np.array([users[user] for user, _ in found], np.uint64)
        owners = owners_of(hashes, np.full(len(found), salt_of(partition, topic), np.uint64))
        for owner, (_, order) in zip(owners.tolist(), found, strict=True):
            amounts = order.amounts
            flags = KNOWN * (amounts is not None) | PLACED * order.placed
            flags |= ALL_BACK * order.all_back | NAMED * order.has_name
            at = (0, 0.0, 0.0) if amounts is None else amounts[:3]
            back = [round(float(sum(part)), 6) for part in zip(*order.refunds, strict=True)]
            true[owner, flags, at[0], round(at[1], 6), round(at[2], 6), *(back or (0.0, 0.0))] += 1
        wrong = (true - stored) if not self._sample.whole else (true - stored) + (stored - true)
        if wrong:
            check.accuse(
                f"partition {partition} remembers orders of {self._inputs[topic]} otherwise than the"
                f" log says: {wrong.total()} of {true.total()}"
            )

    def _other_values(
        self, vectors: list[list[float]], times: Iterable[int], user: OracleUser
    ) -> str:
        """The first feature whose value is not what it should be, in words."""
        for vector, now in zip(vectors, times, strict=True):
            readings = user.readings(self._settings.features, now)
            for feature, stored in zip(self._settings.features, vector, strict=True):
                reading = readings[feature.name]
                if feature.aggregate in ("first", "last"):
                    agrees = reading.agrees(stored, 0.0, HALF_A_MS)
                else:
                    agrees = reading.agrees(stored, RELATIVE, ABSOLUTE)
                if not agrees:
                    return f"{feature.name} is {stored:.9g}, the log says {reading.value:.9g}"
        return ""

    def _check_unserved(self) -> None:
        """No state is no fault before the first start; afterwards it is a loss."""
        begun = bool(self._snapshots) or bool(self._delivered)
        for partition, messages in sorted(self._unserved.items()):
            if partition in self._begun:
                self._state.unjudged += 1
                self._state.note = "partitions that were begun, or put back, during the audit"
            elif begun:
                self._state.accuse(
                    f"partition {partition} has no state in the store, but {messages} messages"
                )
        if not self._snapshots and not self._state.note:
            self._state.note = "the store holds no state: nothing has been processed"

    # -- dead letters -------------------------------------------------------------------------

    def _check_letters(self, topic: str) -> None:
        check, dlq = self._letters, self._settings.topics.dlq(topic)
        filed: set[tuple[str, int, int]] = set()
        for record in self._read_if_there(dlq):
            headers = _headers(record)
            if LETTER_RECEIPT in headers:
                continue
            where = f"{dlq}/{record.partition()}@{record.offset()}"
            try:
                origin = (
                    headers["segstream-topic"],
                    int(headers["segstream-partition"]),
                    int(headers["segstream-offset"]),
                )
                reason = headers["segstream-reason"]
            except (KeyError, ValueError):
                check.counted += 1
                check.accuse(f"{where} does not say where it came from and why")
                continue
            filed.add(origin)
            refusal, value = self._refusals.get(origin), _bytes(record.value())
            name = "{}/{}@{}".format(*origin)
            if refusal is None and (not self._was_judged(origin) or self._sample.skips(value)):
                check.unjudged += 1
                continue
            check.counted += 1
            if refusal is None:
                check.accuse(f"{where}: {name} was filed as {reason}, but is not to be refused")
            elif reason != refusal.reason and not {reason, refusal.reason} <= NO_JSON:
                check.accuse(f"{where}: {name} was filed as {reason}, it is {refusal.reason}")
            elif not refusal.is_filed_as(value, headers.get(LETTER_TRUNCATED)):
                check.accuse(f"{where}: the bytes of {name} were changed")
        for origin, refusal in self._refusals.items():
            if origin[0] == topic and origin not in filed:
                name = "{}/{}@{}".format(*origin)
                check.accuse(f"{name} was refused ({refusal.reason}), but is not on {dlq}")

    def _read_if_there(self, topic: str) -> Iterator[Record]:
        try:
            yield from self._records(topic)
        except TopicMissingError:
            return

    def _was_judged(self, origin: tuple[str, int, int]) -> bool:
        topic, partition, offset = origin
        if topic not in self._inputs:
            return True
        extent = self._extents.get((self._inputs.index(topic), partition))
        return extent is not None and extent.first <= offset < extent.next

    # -- changes ------------------------------------------------------------------------------

    def _read_changes(self) -> None:
        topic, begun = self._settings.topics.changes, set[int]()
        for record in self._records(topic):
            partition, offset = _place(record)
            if partition not in begun:
                begun.add(partition)
                if offset > 0:
                    self._begin_cut.add(partition)
            where = f"{topic}/{partition}@{offset}"
            payload = _bytes(record.value())
            snapshot = self._snapshots.get(partition)
            own = snapshot is not None and offset >= snapshot.position.output
            headers = _headers(record)
            if headers.get(EVENT_TYPE) == MEMBERSHIP:
                self._check_membership(partition, payload, where)
            elif headers.get(EVENT_TYPE) == LINEAGE:
                self._check_lineage(payload, where, own=own)
            elif not self._sample.has(_bytes(record.key())) and EVENT_ID in headers:
                self._valid.unjudged += 1
                self._deliver(headers[EVENT_ID], payload, where)
            elif (change := self._valid_change(payload, where, own=own)) is not None:
                self._check_envelope(record, headers, change, where)
                if self._deliver(change["id"], payload, where):
                    self._take_change(partition, change, where)
        for partition, snapshot in self._snapshots.items():
            for entry in snapshot.outbox:
                for place, payload in enumerate(entry.changes):
                    where = f"outbox {partition}, entry {entry.id}, change {place}"
                    waiting = self._valid_change(payload, where, own=True)
                    if waiting is None:
                        continue
                    self._pending += waiting["id"] not in self._delivered
                    fresh = self._is_new(waiting["id"], payload, where)
                    if fresh and self._sample.has(waiting["user"].encode()):
                        self._take_change(partition, waiting, where)
        self._once.counted = len(self._delivered)

    def _deliver(self, name: str, payload: bytes, where: str) -> bool:
        """Count a delivery; True for the first of its change."""
        self._delivered[name] += 1
        new = self._is_new(name, payload, where)
        if not new and self._digests[name] != _digest(payload):
            self._contradicted[name] += 1
            self._once.accuse(f"change {name} was delivered again with other bytes ({where})")
        return new

    def _is_new(self, name: str, payload: bytes, where: str) -> bool:
        """Whether a change was not seen before; one that was says the same."""
        digest = _digest(payload)
        known = self._digests.setdefault(name, digest)
        if known is not digest and known != digest:
            self._payload.accuse(f"{where}: change {name} says something else than before")
        return known is digest

    def _valid_change(self, payload: bytes, where: str, *, own: bool) -> dict[str, Any] | None:
        """A change record; None if it is none, or of before the state began under another key."""
        try:
            change: dict[str, Any] = SEGMENT_CHANGE.validate_json(payload, strict=True)
        except ValidationError as error:
            self._valid.counted += 1
            problem = error.errors()[0]
            field_name = ".".join(map(str, problem["loc"])) or "record"
            self._valid.accuse(f"{where}: {field_name}: {problem['msg']}")
            return None
        strange = self._incarnation(change) is None
        if strange and not own:
            self._valid.unjudged += 1
            return None
        self._valid.counted += 1
        if strange:
            self._valid.accuse(
                f"{where}: the id {change['id']} is not that of user {change['user']!r}, "
                f"version {change['version']}"
            )
            return None
        return change

    def _incarnation(self, change: dict[str, Any]) -> int | None:
        """The incarnation in a change's id; None if the id is not that of its user and version."""
        begin = f"{change_identity(change['user'].encode(), self._key)}-"
        end = f"-{change['version']}"
        middle = change["id"].removeprefix(begin).removesuffix(end)
        whole = middle.isdecimal() and change["id"] == begin + middle + end
        return int(middle) if whole else None

    def _check_membership(self, partition: int, payload: bytes, where: str) -> None:
        """A membership tells again what a change has told: where that is gone, a chain begins here."""
        self._valid.counted += 1
        try:
            told = MEMBERSHIP_RECORD.validate_json(payload, strict=True)
            incarnation = int(told["id"].split("-")[1])
        except (ValidationError, IndexError, ValueError) as error:
            why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "no such id"
            self._valid.accuse(f"{where}: {why}")
            return
        chain = (partition, told["user"], incarnation)
        step = _Step(
            told["version"], None, told["segment"], told["since"], where, ("", told["kind"])
        )
        if step.version >= self._told_again.get(chain, step).version:
            self._told_again[chain] = step

    def _check_lineage(self, payload: bytes, where: str, *, own: bool) -> None:
        """A record of a segment is valid; told again, after a restart, it says the same.

        What stood there before the state began is of other models with the same numbers.
        """
        self._valid.counted += 1
        try:
            told = LINEAGE_RECORD.validate_json(payload, strict=True)
        except ValidationError as error:
            self._valid.accuse(f"{where}: {error.errors()[0]['msg']}")
            return
        if own and self._lineage.setdefault(told["id"], payload) != payload:
            self._valid.accuse(f"{where}: lineage {told['id']} was told in two ways")

    def _check_envelope(
        self, record: Record, headers: dict[str, str], change: dict[str, Any], where: str
    ) -> None:
        for name, value in {**CHANGE_HEADERS, EVENT_ID: change["id"]}.items():
            if headers.get(name) != value:
                self._valid.accuse(
                    f"{where}: header {name} is {headers.get(name)!r}, not {value!r}"
                )
                return
        if _bytes(record.key()) != change["user"].encode():
            self._valid.accuse(f"{where}: the key is not the user {change['user']!r}")

    def _take_change(self, partition: int, change: dict[str, Any], where: str) -> None:
        """Put a change at the end of its user's chain."""
        chain = (partition, change["user"], self._incarnation(change) or 0)
        kinds = change["kind_from"] or "", change["kind_to"]
        step = _Step(change["version"], change["from"], change["to"], change["at"], where, kinds)
        self._chains.setdefault(chain, []).append(step)

    def _check_chains(self) -> None:
        """Versions go 1, 2, 3 .., and each change begins where the one before ended."""
        self._payload.counted = len(self._digests)
        for chain, steps in self._chains.items():
            partition, user, _ = chain
            who = _name(partition, user)
            version, segment, kind = 0, None, ""
            if missing := self._not_there(chain, steps):
                # What came before cannot be on the topic; if it was told again, it is known all the same.
                self._versions.unjudged += missing
                told = self._told_again.get(chain)
                version, segment, kind = missing, steps[0].before, steps[0].kinds[0]
                if told is not None and told.version == version:
                    segment, kind = told.after, told.kinds[1]
            for step in steps:
                self._versions.counted += 1
                if step.version != version + 1:
                    self._versions.accuse(
                        f"{who}: version {step.version} follows {version} ({step.where})"
                    )
                else:
                    self._from.counted += 1
                    if step.before != segment:
                        self._from.accuse(
                            f"{who}: version {step.version} is from {_segment(step.before)}, but "
                            f"the user was in {_segment(segment)} ({step.where})"
                        )
                    elif step.kinds[0] != kind:
                        self._from.accuse(
                            f"{who}: version {step.version} is from kind {step.kinds[0] or 'none'}, "
                            f"but the user was told {kind or 'none'} ({step.where})"
                        )
                version, segment, kind = step.version, step.after, step.kinds[1]

    def _not_there(self, chain: tuple[int, str, int], steps: list[_Step]) -> int:
        """How many of a user's first changes are rightly not on the topic.

        Retention has deleted them, or they were on a topic that was made anew, and where the user was
        has been told again since.
        """
        first = steps[0].version if steps else 0
        told = self._told_again.get(chain)
        if chain[0] in self._begin_cut or (told is not None and told.version >= first - 1):
            return max(first - 1, 0)
        return 0

    def _check_assignment(self) -> None:
        """The last change of every user is where the store has them."""
        assigned: set[tuple[int, str, int]] = set()
        for partition, snapshot in self._snapshots.items():
            if snapshot.position.schema != self._table.schema:
                continue
            for user, blob in snapshot.rows.items():
                if len(blob) == self._table.dtype.itemsize:
                    row = np.frombuffer(blob, dtype=self._table.dtype)[0]
                    chain = (partition, user, snapshot.position.incarnation)
                    assigned.add(chain)
                    self._compare(chain, row, snapshot.position.kinds)
        for chain, steps in self._chains.items():
            if chain in assigned:
                continue
            if self._is_newer(chain):
                self._assignment.unjudged += 1
                continue
            self._count_lost(steps, 0)
            owner = self._snapshots.get(chain[0])
            if owner is None or owner.position.incarnation <= chain[2]:
                self._assignment.counted += 1
                self._assignment.accuse(
                    f"{_name(chain[0], chain[1])} has changes, but is not in the store"
                )

    def _is_newer(self, chain: tuple[int, str, int]) -> bool:
        """Whether a user's changes may all be of after what was read of the store."""
        partition, user, incarnation = chain
        snapshot = self._snapshots.get(partition)
        if snapshot is None:
            return partition in self._begun
        if partition not in self._moved_on:
            return False
        known = user in self._oracles[partition].users
        return incarnation > snapshot.position.incarnation or not known

    def _compare(self, chain: tuple[int, str, int], row: Any, kinds: list[str]) -> None:
        """A user's row against the last changes of theirs.

        Args:
            kinds: names of the codes of rows.
        """
        partition, user, _ = chain
        version, segment = int(row["version"]), int(row["segment"])
        steps = self._chains.get(chain, [])
        if partition in self._moved_on:
            judged = [step for step in steps if step.version <= version]
            self._assignment.unjudged += len(steps) - len(judged)
            steps = judged
        told = self._told_again.get(chain)
        if told is not None and told.version == version and not steps:
            self._assignment.counted += 1
            if told.after != segment:
                self._assignment.accuse(
                    f"{_name(partition, user)}: the store says {_segment(segment)}, version"
                    f" {version}; told again was {_segment(told.after)} ({told.where})"
                )
            return
        if version and not steps and partition in self._begin_cut:
            self._assignment.unjudged += 1
            return
        self._count_lost(steps, version, self._not_there(chain, steps))
        self._assignment.counted += 1
        last = max(steps, key=lambda step: step.version, default=_Step(0, None, 0, "", ""))
        if (last.version, last.after) != (version, segment):
            self._assignment.accuse(
                f"{_name(partition, user)}: the store says {_segment(segment)}, version {version};"
                f" the changes say {_segment(last.after)}, version {last.version}"
            )
            return
        kind = "" if not row["kind"] else kinds[row["kind"] - 1]
        if last.kinds[1] != kind:
            self._assignment.accuse(
                f"{_name(partition, user)}: the store says kind {kind or 'none'}; the last change "
                f"says {last.kinds[1] or 'none'}"
            )
            return
        moved = [step for step in steps if not step.turn]
        if last.turn and not moved:
            # What brought the user there is not on the topic any more.
            return
        move = max(moved, key=lambda step: step.version, default=last)
        before, since = int(row["previous"]), isos(row["since"].reshape(1))[0] if version else ""
        if (move.before or 0, move.at) != (before, since):
            self._assignment.accuse(
                f"{_name(partition, user)}: the store says from {_segment(before or None)}, "
                f"{since}; the last move says from {_segment(move.before)}, {move.at}"
            )

    def _count_lost(self, steps: list[_Step], version: int, not_there: int = 0) -> None:
        known = {step.version for step in steps}
        self._lost += max(version, *known, 0) - len(known) - not_there if known else version

    # -- the answer ---------------------------------------------------------------------------

    def _report(self) -> AuditReport:
        counts = Counts()
        for snapshot in self._snapshots.values():
            counts.add(snapshot.position.counts)
        if self._moved_on:
            self._assignment.note = (
                f"{len(self._moved_on)} partitions were written to during the audit; changes "
                "newer than what was read of the store are not judged"
            )
        again = sum(times - 1 for times in self._delivered.values())
        duplicated = sum(self._contradicted.values())
        if repeated := again - duplicated:
            self._once.note = (
                f"{repeated} were delivered again, with the same id and bytes: allowed, for whoever "
                "drops known ids sees each change once"
            )
        if not self._sample.whole:
            self._conservation.note = "of a sample of users: what became of all others is not known"
        checks = [
            self._log, self._state, self._conservation, self._letters, self._valid,
            self._payload, self._once, self._versions, self._from, self._assignment,
        ]  # fmt: skip
        return AuditReport(
            ok=all(check.ok for check in checks),
            checks=checks,
            lost=self._lost,
            duplicated=duplicated,
            repeated=repeated,
            unjudged=sum(check.unjudged for check in checks),
            rejected=counts.rejected,
            users=sum(snapshot.users for snapshot in self._snapshots.values()),
            changes=len(self._delivered),
            pending=self._pending,
            counts={"consumed": counts.consumed, **asdict(counts)},
            backlog={topic: self._backlog[topic] for topic in self._inputs},
        )


def _follows(after: Position, before: Position) -> bool:
    """Whether commits alone led from one position to the other."""
    forward = all(a >= b for a, b in zip(after.offsets, before.offsets, strict=True))
    return forward and after.incarnation == before.incarnation


def _first(snapshot: _Snapshot, topic: int) -> int:
    """The offset of an input topic at which a partition's state began."""
    first = snapshot.position.first
    return first[topic] if first else 0


def _place(record: Record) -> tuple[int, int]:
    partition, offset = record.partition(), record.offset()
    if partition is None or offset is None:
        raise ValueError("a record that was read has a partition and an offset")
    return partition, offset


def _bytes(value: str | bytes | None) -> bytes:
    return value.encode() if isinstance(value, str) else value or b""


def _headers(record: Record) -> dict[str, str]:
    """Headers as text; what is none shows as such."""
    found = headers_of(record) or []
    return {name: (value or b"").decode(errors="replace") for name, value in found}


def _digest(payload: bytes) -> bytes:
    return blake2b(payload, digest_size=16).digest()


def _name(partition: int, user: str) -> str:
    return f"user {user!r} (partition {partition})"


def _segment(number: int | None) -> str:
    return f"segment {number}" if number else "no segment"


def explain(report: AuditReport) -> Iterator[str]:
    """The report in lines that a person can read, the worst in full."""
    for check in report.checks:
        mark = "ok  " if check.ok else "OFF "
        wrong = "" if check.ok else f", {check.wrong} wrong"
        apart = f", {check.unjudged} not judged" if check.unjudged else ""
        yield f"{mark}{check.name.replace('_', ' ')}: {check.counted} looked at{apart}{wrong}"
        for offender in check.offenders:
            yield f"      {offender}"
        if check.note:
            yield f"      {check.note}"
