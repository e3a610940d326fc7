"""Proves or refutes what the pipeline promises.

Comes in: the input topics, their dead letters, the topic of changes and the store. Goes out: an
`AuditReport`, one `Check` a promise, with the first offenders by name.

The store is read first, the topics after it, so that whatever the store has delivered is on its
topic by then. Only messages from where a partition's state began to its committed offsets are
judged; what comes later is a backlog, no fault. `stream.oracle` folds them, slowly and obviously.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from hashlib import blake2b
from itertools import takewhile
from typing import Any, Protocol

import numpy as np
from pydantic import ValidationError

from consumers.client import read_to_end
from stream.config import Broker, Settings
from stream.errors import TopicMissingError
from stream.events import (
    CHANGED,
    LETTER_HEAD_BYTES,
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
from stream.features import RING, ROW_FORMAT, FeatureTable
from stream.hashing import change_identity
from stream.headers import headers_of
from stream.oracle import Fate, Marks, Message, Oracle, OracleUser
from stream.state import OutboxEntry, Position, Store
from stream.units import DAY_MS, isos

OFFENDERS = 5
"""Named in a check; the others are only counted."""
SNAPSHOT_TRIES = 5
EVERY_ENTRY = 1 << 31
BEGINNING = "0-0"
WAIT_SECONDS = 0.001
RELATIVE, ABSOLUTE = 1e-6, 1e-9
"""Rounding of the vectorised fold, summed over a year of batches, is below these."""
HALF_A_MS = 0.5 / DAY_MS
NO_JSON = frozenset({Reason.TRUNCATED, Reason.NOT_JSON})
"""Two decoders may differ on whether a torn message was cut or is wrong; on nothing else."""

CHANGE_HEADERS = {"ce_specversion": "1.0", "ce_type": CHANGED}


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


@dataclass
class Check:
    """One promise.

    Attributes:
        counted: how many things were looked at.
        wrong: how many of them break the promise.
        offenders: the first of those, in words.
        note: what else a reader should know.
    """

    name: str
    ok: bool = True
    counted: int = 0
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
        duplicated: change records delivered more than once.
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
    rejected: int
    users: int
    changes: int
    pending: int
    counts: dict[str, int]
    backlog: dict[str, int]


def audit(settings: Settings, store: Store, read: Read = read_to_end) -> AuditReport:
    """Hold the store and the output topic to the input topics.

    A running pipeline may be audited: its partitions are judged as of a moment at which they
    stood still. The more it has to do, the longer that moment may take to come.

    `read` reads a topic to its end; tests give lists.

    Raises:
        StoreUnavailableError: the store does not answer.
        BrokerUnavailableError: the broker does not answer.
        TopicMissingError: an input topic or the topic of changes is not there.
    """
    return _Audit(settings, store, read).run()


@dataclass
class _Snapshot:
    """A partition of the store at one moment."""

    position: Position
    rows: dict[str, bytes]
    outbox: list[OutboxEntry]
    still: bool


@dataclass(frozen=True)
class _Step:
    """A change, as far as the chain of changes is concerned."""

    version: int
    before: int | None
    after: int
    at: str
    where: str


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


class _Audit:
    def __init__(self, settings: Settings, store: Store, read: Read) -> None:
        self._settings = settings
        self._store = store
        self._read = read
        self._inputs = settings.topics.inputs
        self._table = FeatureTable(settings.features)
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
        self._chains: dict[tuple[int, str, int], list[_Step]] = {}
        self._pending = 0
        self._lost = 0
        self._moved_on: set[int] = set()

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
        for partition in range(self._settings.topics.partitions):
            self._take_snapshot(partition)
        for index, topic in enumerate(self._inputs):
            self._fold_topic(index, topic)
        for topic in self._inputs:
            self._check_letters(topic)
        self._read_changes()
        self._note_movement()
        for partition, snapshot in self._snapshots.items():
            if self._is_provable(partition, snapshot):
                self._check_counts(partition, snapshot)
                self._check_state(partition, snapshot)
        self._check_unserved()
        self._check_chains()
        self._check_assignment()
        return self._report()

    # -- the store ----------------------------------------------------------------------------

    def _take_snapshot(self, partition: int) -> None:
        """Position, rows and outbox of one moment: the position did not change around them."""
        position = self._store.position(partition)
        if position is None:
            return
        rows: dict[str, bytes] = {}
        outbox: list[OutboxEntry] = []
        still = False
        for _ in range(SNAPSHOT_TRIES):
            rows = {user.decode(): row for user, row in self._store.load(partition)}
            found = self._store.outbox({partition: BEGINNING}, EVERY_ENTRY, WAIT_SECONDS)
            outbox = found.get(partition, [])
            again = self._store.position(partition)
            still = again == position
            if still or again is None:
                break
            position = again
        self._snapshots[partition] = _Snapshot(position, rows, outbox, still)
        clock = self._settings.clock
        marks = Marks(self._key, clock.mark_seconds) if clock.mode == "watermark" else None
        self._oracles[partition] = Oracle(self._settings.features, self._settings.worker, marks)

    def _note_movement(self) -> None:
        """Partitions that were committed to since their snapshot: newer changes are theirs."""
        for partition, snapshot in self._snapshots.items():
            if self._store.position(partition) != snapshot.position:
                self._moved_on.add(partition)

    # -- the input ----------------------------------------------------------------------------

    def _fold_topic(self, index: int, topic: str) -> None:
        for record in self._read(self._settings.broker, topic):
            partition, offset = _place(record)
            snapshot = self._snapshots.get(partition)
            if snapshot is None:
                self._unserved[partition] += 1
            if snapshot is None or offset >= snapshot.position.offsets[index]:
                self._backlog[topic] += 1
                continue
            if offset < _first(snapshot, index):
                continue
            extent = self._extents.setdefault((index, partition), _Extent(offset, offset))
            extent.next = offset + 1
            value = _bytes(record.value())
            kind, timestamp_ms = record.timestamp()
            place = (topic, partition)
            message = Message(value, timestamp_ms if kind else None, index, place)
            outcome = self._oracles[partition].take(message)
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
        if not snapshot.still:
            self._log.accuse(f"partition {partition} is being written to without a pause")
        if snapshot.position.schema != self._table.schema:
            self._log.accuse(
                f"partition {partition} holds rows of feature table {snapshot.position.schema}, "
                f"the settings declare {self._table.schema}"
            )
        if self._log.wrong > before:
            self._log.note = (
                "state and counts of these partitions cannot be proved: the log was cut by its "
                "retention or made anew, the workers did not pause, or other settings wrote them"
            )
        return self._log.wrong == before

    # -- state and counts ---------------------------------------------------------------------

    def _check_counts(self, partition: int, snapshot: _Snapshot) -> None:
        check = self._conservation
        stored, true = snapshot.position.counts, self._oracles[partition].counts
        judged = true.consumed + true.marks
        check.counted += judged
        for name in (f.name for f in fields(Counts)):
            here, there = getattr(stored, name), getattr(true, name)
            if here != there:
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
        for user, row in snapshot.rows.items():
            if user not in users:
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
            if user not in snapshot.rows:
                check.counted += 1
                check.accuse(f"{_name(partition, user)} is in the log, but not in the store")
        rows = np.frombuffer(b"".join(readable.values()), dtype=self._table.dtype)
        # At time 0 nothing has aged: every sum as it stands. At the clock's time: what fades.
        newest = int(rows["seen"].max(initial=0))
        times = (0, max(snapshot.position.clock_ms, newest))
        vectors = [self._table.vectors(rows, now) for now in times]
        for place, user in enumerate(readable):
            check.counted += 1
            found = self._differences(rows[place], users[user]) or self._other_values(
                [vector[place].tolist() for vector in vectors], times, users[user]
            )
            if found:
                check.accuse(f"{_name(partition, user)}: {found}")

    def _differences(self, row: Rows, user: OracleUser) -> str:
        """The first plain field that is not what it should be, in words."""
        for name, stored, true in (
            ("format", int(row["format"]), ROW_FORMAT),
            ("first event", int(row["first"]), user.first_ms),
            ("last event", int(row["seen"]), user.seen_ms),
            ("last click", int(row["click"]), user.click_ms or 0),
            ("arrivals", row["arrivals"].tolist(), user.arrivals),
        ):
            if stored != true:
                return f"{name} is {stored}, the log says {true}"
        for topic, recent in zip(self._inputs, user.recent, strict=True):
            index = self._inputs.index(topic)
            ring, head = row["ring"][index].tolist(), user.arrivals[index] % RING
            if [i for i in ring[head:] + ring[:head] if i] != list(recent):
                return f"remembers other messages of {topic} than the last {len(recent)}"
        return ""

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
            if begun:
                self._state.accuse(
                    f"partition {partition} has no state in the store, but {messages} messages"
                )
        if not self._snapshots:
            self._state.note = "the store holds no state: nothing has been processed"

    # -- dead letters -------------------------------------------------------------------------

    def _check_letters(self, topic: str) -> None:
        check, dlq = self._letters, self._settings.topics.dlq(topic)
        filed: set[tuple[str, int, int]] = set()
        for record in self._read_if_there(dlq):
            check.counted += 1
            where = f"{dlq}/{record.partition()}@{record.offset()}"
            headers = _headers(record)
            try:
                origin = (
                    headers["segstream-topic"],
                    int(headers["segstream-partition"]),
                    int(headers["segstream-offset"]),
                )
                reason = headers["segstream-reason"]
            except (KeyError, ValueError):
                check.accuse(f"{where} does not say where it came from and why")
                continue
            filed.add(origin)
            refusal = self._refusals.get(origin)
            name = "{}/{}@{}".format(*origin)
            if refusal is None:
                if self._was_judged(origin):
                    check.accuse(f"{where}: {name} was filed as {reason}, but is not to be refused")
            elif reason != refusal.reason and not {reason, refusal.reason} <= NO_JSON:
                check.accuse(f"{where}: {name} was filed as {reason}, it is {refusal.reason}")
            elif not refusal.is_filed_as(_bytes(record.value()), headers.get(LETTER_TRUNCATED)):
                check.accuse(f"{where}: the bytes of {name} were changed")
        for origin, refusal in self._refusals.items():
            if origin[0] == topic and origin not in filed:
                name = "{}/{}@{}".format(*origin)
                check.accuse(f"{name} was refused ({refusal.reason}), but is not on {dlq}")

    def _read_if_there(self, topic: str) -> Iterator[Record]:
        try:
            yield from self._read(self._settings.broker, topic)
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
        topic = self._settings.topics.changes
        for record in self._read(self._settings.broker, topic):
            partition, offset = _place(record)
            where = f"{topic}/{partition}@{offset}"
            payload = _bytes(record.value())
            kind = _headers(record).get("ce_type")
            if kind == MEMBERSHIP:
                self._check_membership(payload, where)
                continue
            if kind == LINEAGE:
                snapshot = self._snapshots.get(partition)
                own = snapshot is None or offset >= snapshot.position.output
                self._check_lineage(payload, where, own=own)
                continue
            change = self._valid_change(payload, where)
            if change is None:
                continue
            self._check_envelope(record, change, where)
            self._delivered[change["id"]] += 1
            self._take_change(partition, change, payload, where)
        for partition, snapshot in self._snapshots.items():
            for entry in snapshot.outbox:
                for place, payload in enumerate(entry.changes):
                    where = f"outbox {partition}, entry {entry.id}, change {place}"
                    change = self._valid_change(payload, where)
                    if change is None:
                        continue
                    self._pending += change["id"] not in self._delivered
                    self._take_change(partition, change, payload, where)
        self._once.counted = len(self._delivered)
        for name, times in self._delivered.items():
            if times > 1:
                self._once.accuse(f"change {name} was delivered {times} times")

    def _valid_change(self, payload: bytes, where: str) -> dict[str, Any] | None:
        self._valid.counted += 1
        try:
            change: dict[str, Any] = SEGMENT_CHANGE.validate_json(payload, strict=True)
        except ValidationError as error:
            problem = error.errors()[0]
            field_name = ".".join(map(str, problem["loc"])) or "record"
            self._valid.accuse(f"{where}: {field_name}: {problem['msg']}")
            return None
        if self._incarnation(change) is None:
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

    def _check_membership(self, payload: bytes, where: str) -> None:
        """A membership tells again what a change has told; it is valid, and no part of the chain."""
        self._valid.counted += 1
        try:
            MEMBERSHIP_RECORD.validate_json(payload, strict=True)
        except ValidationError as error:
            self._valid.accuse(f"{where}: {error.errors()[0]['msg']}")

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

    def _check_envelope(self, record: Record, change: dict[str, Any], where: str) -> None:
        headers = _headers(record)
        for name, value in {**CHANGE_HEADERS, "ce_id": change["id"]}.items():
            if headers.get(name) != value:
                self._valid.accuse(
                    f"{where}: header {name} is {headers.get(name)!r}, not {value!r}"
                )
                return
        if _bytes(record.key()) != change["user"].encode():
            self._valid.accuse(f"{where}: the key is not the user {change['user']!r}")

    def _take_change(
        self, partition: int, change: dict[str, Any], payload: bytes, where: str
    ) -> None:
        """Put a change at the end of its user's chain, unless it is there already."""
        name, digest = change["id"], _digest(payload)
        known = self._digests.get(name)
        if known is None:
            self._digests[name] = digest
            chain = (partition, change["user"], self._incarnation(change) or 0)
            step = _Step(change["version"], change["from"], change["to"], change["at"], where)
            self._chains.setdefault(chain, []).append(step)
        elif known != digest:
            self._payload.accuse(f"{where}: change {name} says something else than before")

    def _check_chains(self) -> None:
        """Versions go 1, 2, 3 .., and each change begins where the one before ended."""
        self._payload.counted = len(self._digests)
        for (partition, user, _), steps in self._chains.items():
            who = _name(partition, user)
            version, segment = 0, None
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
                version, segment = step.version, step.after

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
                    self._compare(chain, row)
        for chain, steps in self._chains.items():
            if chain not in assigned:
                self._count_lost(steps, 0)
                owner = self._snapshots.get(chain[0])
                if owner is None or owner.position.incarnation <= chain[2]:
                    self._assignment.counted += 1
                    self._assignment.accuse(
                        f"{_name(chain[0], chain[1])} has changes, but is not in the store"
                    )

    def _compare(self, chain: tuple[int, str, int], row: Any) -> None:
        partition, user, _ = chain
        version, segment = int(row["version"]), int(row["segment"])
        steps = self._chains.get(chain, [])
        if partition in self._moved_on:
            steps = [step for step in steps if step.version <= version]
        self._count_lost(steps, version)
        self._assignment.counted += 1
        last = max(steps, key=lambda step: step.version, default=_Step(0, None, 0, "", ""))
        if (last.version, last.after) != (version, segment):
            self._assignment.accuse(
                f"{_name(partition, user)}: the store says {_segment(segment)}, version {version};"
                f" the changes say {_segment(last.after)}, version {last.version}"
            )
            return
        before, since = int(row["previous"]), isos(row["since"].reshape(1))[0] if version else ""
        if (last.before or 0, last.at) != (before, since):
            self._assignment.accuse(
                f"{_name(partition, user)}: the store says from {_segment(before or None)}, "
                f"{since}; the last change says from {_segment(last.before)}, {last.at}"
            )

    def _count_lost(self, steps: list[_Step], version: int) -> None:
        known = {step.version for step in steps}
        self._lost += max(version, *known, 0) - len(known) if known else version

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
        if not self._once.ok:
            self._once.note = "whoever drops known ids sees each of them once"
        checks = [
            self._log, self._state, self._conservation, self._letters, self._valid,
            self._payload, self._once, self._versions, self._from, self._assignment,
        ]  # fmt: skip
        return AuditReport(
            ok=all(check.ok for check in checks),
            checks=checks,
            lost=self._lost,
            duplicated=sum(times - 1 for times in self._delivered.values()),
            rejected=counts.rejected,
            users=sum(len(snapshot.rows) for snapshot in self._snapshots.values()),
            changes=len(self._delivered),
            pending=self._pending,
            counts={"consumed": counts.consumed, **asdict(counts)},
            backlog={topic: self._backlog[topic] for topic in self._inputs},
        )


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
        yield f"{mark}{check.name.replace('_', ' ')}: {check.counted} looked at{wrong}"
        for offender in check.offenders:
            yield f"      {offender}"
        if check.note:
            yield f"      {check.note}"
