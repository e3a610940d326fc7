"""The runtime of any role that owns partitions: reads topics, decides, keeps state, fills an outbox.

Comes in: messages of the role's topics. Goes out: one commit after the other to the role's store: rows, the
partition's own state, offsets and records for its outbox together; the role's publisher is next. What is
decided is a `Decision`'s: it meets messages and a time, and no clock, no store and no topic. So a role is
declared in one file, and survives what the activity workers survive, by the same protocol. Two things it
lacks: it sees only at the next take-over that a topic was made anew, and it does not look whether its group
serves another namespace too.
"""

from __future__ import annotations

import logging
import time as time_module
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

import msgspec

from consumers.client import activity_options, membership
from consumers.clock import SteadyClock, Time
from consumers.decode import Message
from consumers.group import GroupMember, broker_errors
from consumers.group_namespace import client_id
from consumers.intake import CONSUME
from consumers.owner import LOST_REMEDY, NotOursError, Owner, StateLostError, Terms, new_token
from consumers.plain import parse_time
from consumers.topic_watch import see_same_topics
from consumers.waiting import Waiting
from consumers.witness import GroupOffsets, see_nothing_lost
from stream import metrics
from stream.config import Settings
from stream.health import Health, Pulse
from stream.namespace import see_counts, see_number
from stream.roles.outlet import Outlet
from stream.roles.state import RoleCommit, RolePosition, RoleStore
from stream.store.state import Answer, OutboxEntry, StoreUnavailableError
from stream.unreadable import UNREADABLE

log = logging.getLogger(__name__)

POLL_SECONDS = 0.001
LOADED_AT_ONCE = 5_000
"""Rows between two beats of the pulse while a partition loads."""
LOAD_SECONDS = 0.5
"""Time of a rebalance for loading rows, while the others wait for us."""
LOOK_AROUND_SECONDS = 1.0
RECORDS_PER_ENTRY = 1_000


@dataclass(frozen=True)
class Decided:
    """What a step of a decision brings.

    Attributes:
        users: names of rows to write.
        rows: their bytes, one after the other, all of one length.
        gone: names of rows to delete.
        own: replaces what is kept of the partition itself; None leaves it.
        records: for the outbox, in order, as JSON without line feeds; see `Outlet` for their fields.
        tell: called once it is committed, to count it, or to go on with what had to be kept first.
    """

    users: Sequence[bytes] = ()
    rows: bytes = b""
    gone: Sequence[bytes] = ()
    own: bytes | None = None
    records: Sequence[bytes] = ()
    tell: Callable[[], None] | None = None


NOTHING = Decided()


class _Dated(msgspec.Struct):
    at: str = ""


_dated = msgspec.json.Decoder(_Dated).decode


def event_time(message: Message) -> int:
    """When that happened which a message tells of: its field ``at``, or the time of its record.

    A change that was made by a replay was sent today, and happened when the shop's clock said so.
    """
    try:
        time_ms = parse_time(_dated(message.value() or b"").at)
    except UNREADABLE:
        time_ms = -1
    return time_ms if time_ms >= 0 else message.timestamp()[1]


class Decision(Protocol):
    """What a role decides in one partition. It holds the rows in memory, in whatever form it likes."""

    def __len__(self) -> int:
        """How many rows it has."""
        ...

    def load(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Take in some of the rows that the store has; one may come twice."""
        ...

    def begin(self, own: bytes, delivered: Sequence[bytes]) -> None:
        """All rows are loaded: go on from there. A decision that keeps only rows has nothing to do.

        Args:
            own: what was kept of the partition itself; empty if nothing was.
            delivered: newest records of the role on its topic. They were sent, whatever the state
                says: a store that lost its last second does not know of them. Others are known.
        """
        del own, delivered

    def close(self) -> None:
        """The partition is served here no more; whoever only decides need not care."""
        return

    def time_ms(self, message: Message) -> int:
        """When that happened which a message tells of; 0 for what must not move the clock."""
        return event_time(message)

    def decide(self, messages: Sequence[Message], now_ms: int) -> Decided:
        """Take in messages, in order within each topic, and do what is due by now.

        Args:
            messages: none, if it is only time that has passed.
            now_ms: never goes back. Live the wall clock's; from mark to mark that of the newest
                message (`time_ms`), so that a year replayed decides what the year would
                have decided.
        """
        ...


@dataclass(frozen=True)
class OwningRole:
    """A role that owns partitions, as it is declared.

    Attributes:
        meaning: a line for the command's help.
        reads: its topics, which lie alike: as many partitions as `topics.partitions` says.
        decision: makes the `Decision` of a partition, from settings, its number and the namespace's
            secret.
        outlet: where its records go; None if it sends none.
        version: of its rows; those of another version are refused.
        tick_seconds: so often at least it is asked what is due.
        wall_clock: whether it goes by the wall clock, whatever clock the pipeline has.
    """

    name: str
    meaning: str
    reads: Callable[[Settings], Sequence[str]]
    decision: Callable[[Settings, int, bytes], Decision]
    outlet: Callable[[Settings], Outlet] | None = None
    version: str = "1"
    tick_seconds: float = 1.0
    wall_clock: bool = False


class OutputTopic(Protocol):
    """What is asked of Kafka beside the messages; `consumers.output.Output` answers."""

    def values(self, partition: int, start: int) -> list[bytes]: ...
    def topic_ids(self, names: Sequence[str]) -> list[str]: ...


@dataclass
class _Owned:
    """A partition of the role.

    Attributes:
        position: as of the last commit, with what the next one will say.
        stored: rows left to load; None once it is served.
        held: messages that no step has taken yet.
        stepped: when it was last asked what is due.
        wait_to_read: whether its topics are paused, and not where the state is.
    """

    decision: Decision
    owner: Owner[RoleCommit]
    sequence: int
    position: RolePosition
    stored: Iterator[tuple[bytes, bytes]] | None
    wait_to_read: bool = False
    held: list[Any] = field(default_factory=list)
    paused: bool = False
    stepped: float = 0.0


class RoleWorker:
    """One member of a role's group; made to `run` once.

    Args:
        secret: of the namespace.
    """

    def __init__(
        self,
        role: OwningRole,
        settings: Settings,
        store: RoleStore,
        output: OutputTopic,
        health: Health,
        pulse: Pulse,
        time: Time = time_module,
        secret: bytes = b"",
    ) -> None:
        self._role = role
        self._secret = secret
        self._settings = settings
        self._store = store
        self._output = output
        self._health = health
        self._pulse = pulse
        self._time = time
        self._topics = tuple(role.reads(settings))
        self._outlet = role.outlet(settings) if role.outlet else None
        self._by_marks = settings.clock.mode == "watermark" and not role.wall_clock
        self._now = SteadyClock(self._wall_ms, time.monotonic)
        self._terms: Terms[RoleCommit] = Terms(
            store,
            time,
            settings.store.commit_deadline_seconds,
            settings.store.accept_loss,
            self._ready,
        )
        # Of the namespace and the role: another one in the same group says nothing of this one.
        self._label = f"{settings.store.namespace}.{role.name}"
        self._group_offsets = GroupOffsets(self._label, time)
        self._owned: dict[int, _Owned] = {}
        self._looked_around = 0.0
        protocol = membership(settings.broker)
        options = activity_options(settings.broker, protocol, client_id(self._label))
        options["group.id"] = f"{settings.broker.group}.{role.name}"
        timeout = settings.store.timeout_seconds
        self._member = GroupMember(self._topics, self, options, timeout)
        output_topic = self._topics[0] if self._outlet is None else self._outlet.topic
        self._waiting = Waiting(settings, self._member, output_topic, time)

    def run(self, stop: Callable[[], bool]) -> None:
        """Own and serve partitions until told to stop.

        Raises:
            StoreUnavailableError, BrokerUnavailableError, TopicMissingError: start another later.
            Exception: any other needs a person.
        """
        try:
            with broker_errors():
                see_counts(
                    self._settings, self._member.partition_counts(), self._store.partitions()
                )
                self._member.subscribe()
                self._ready(True, "")
                while not stop():
                    self._turn()
                self.revoked(list(self._owned))
        finally:
            for number in list(self._owned):
                self._forget(number)
            self._member.close()

    def _turn(self) -> None:
        waits = any(owned.owner.is_committing for owned in self._owned.values())
        patience = POLL_SECONDS if waits else self._settings.worker.batch_seconds
        self._take_in(self._member.poll(CONSUME, patience))
        self._pulse.beat()
        self._take_over([n for n in self._waiting.due() if n not in self._owned])
        for owned in self._owned.values():
            owned.wait_to_read = owned.stored is not None
        for number in list(self._owned):
            self._step(number)
        self._group_offsets.show(self._member, self._owned)
        self._look_around()

    def _take_in(self, messages: Iterable[Any]) -> None:
        for message in messages:
            owned = self._owned.get(message.partition())
            if owned is not None and owned.stored is None:
                owned.held.append(message)

    def _step(self, number: int) -> None:
        """Load a portion, go on with the commit under way, or decide.

        A partition is dropped if the store says that it is another's.
        """
        owned = self._owned[number]
        try:
            if owned.stored is not None:
                self._load(number, owned, owned.stored)
            elif owned.owner.collect():
                self._decide(number, owned)
            self._throttle(number, owned)
        except NotOursError as error:
            log.warning("%s: partition %d: %s", self._role.name, number, error)
            self._forget(number)
            self._waiting.again(number, error)

    def _decide(self, number: int, owned: _Owned) -> None:
        """Hand over what was read, and commit what comes of it."""
        now = self._time.monotonic()
        if not owned.held and now - owned.stepped < self._role.tick_seconds:
            return
        owned.stepped = now
        messages, offsets = self._unread(owned.held, owned.owner.offsets)
        owned.held = []
        clock_ms = self._clock(owned, messages)
        decided = owned.decision.decide(messages, clock_ms)
        if not messages and decided == NOTHING:
            return
        owned.owner.offsets = offsets
        position = msgspec.structs.replace(
            owned.position,
            offsets=offsets,
            rows=len(owned.decision),
            records=owned.position.records + len(messages),
            clock_ms=clock_ms,
        )
        commit = RoleCommit(
            owned.sequence,
            position,
            decided.users,
            decided.rows,
            decided.gone,
            decided.own,
            self._entries(decided.records, messages, position.incarnation),
        )

        def applied() -> None:
            owned.sequence += 1
            # More may be known of the output by now.
            known_to = owned.position.known_to
            owned.position = msgspec.structs.replace(position, known_to=known_to)
            self._group_offsets.note(
                number, position.offsets, position.incarnation, position.records
            )
            metrics.role_records(self._role.name, len(messages))
            if decided.tell is not None:
                decided.tell()

        owned.owner.begin(commit, applied)

    def _unread(self, held: list[Any], offsets: Sequence[int]) -> tuple[list[Any], list[int]]:
        """Messages that are not part of the state, and the offsets behind them.

        A rebalance may bring one twice.
        """
        next_offsets = list(offsets)
        fresh = []
        for message in held:
            topic = self._topics.index(message.topic())
            if message.offset() >= next_offsets[topic]:
                next_offsets[topic] = message.offset() + 1
                fresh.append(message)
        return fresh, next_offsets

    def _clock(self, owned: _Owned, messages: Sequence[Any]) -> int:
        before_ms = owned.position.clock_ms
        if not self._by_marks:
            return max(before_ms, self._now.now_ms())
        return max(before_ms, max(map(owned.decision.time_ms, messages), default=0))

    def _entries(
        self, records: Sequence[bytes], messages: Sequence[Any], incarnation: int
    ) -> list[OutboxEntry]:
        if not records:
            return []
        if self._outlet is None:
            raise TypeError(f"role {self._role.name} has no outlet for its records")
        origin = min((message.timestamp()[1] for message in messages), default=self._wall_ms())
        return [
            OutboxEntry(origin, tuple(records[at : at + RECORDS_PER_ENTRY]), incarnation)
            for at in range(0, len(records), RECORDS_PER_ENTRY)
        ]

    def _throttle(self, number: int, owned: _Owned) -> None:
        """Read a partition no further while too much of it is held; the member is polled on."""
        limit = self._settings.worker.buffer_events
        if owned.stored is not None or owned.paused == (len(owned.held) > limit // 2):
            return
        if owned.paused or len(owned.held) > limit:
            change = self._member.resume if owned.paused else self._member.pause
            for topic in range(len(self._topics)):
                change(number, topic)
            owned.paused = not owned.paused

    # -- partitions come and go ---------------------------------------------------------------

    def assigned(self, together: Sequence[int], completed: Sequence[int]) -> None:
        """See `group.Owners`: what loads in a moment is read from now on, the rest when it has."""
        self._waiting.later(completed)
        self._take_over(together)
        deadline = self._time.monotonic() + LOAD_SECONDS
        for number in together:
            while self._is_loading(number) and self._time.monotonic() < deadline:
                self._pulse.beat()
                self._step(number)

    def _is_loading(self, number: int) -> bool:
        owned = self._owned.get(number)
        return owned is not None and owned.stored is not None

    def read_from(self, number: int) -> Sequence[int] | None:
        """See `group.Owners`."""
        owned = self._owned.get(number)
        return None if owned is None or self._is_loading(number) else owned.owner.offsets

    def will_read_from(self, number: int) -> Sequence[int] | None:
        """See `group.Owners`."""
        owned = self._owned.get(number)
        return None if owned is None else owned.owner.offsets

    def revoked(self, numbers: Iterable[int]) -> None:
        """See `group.Owners`."""
        deadline = self._time.monotonic() + self._settings.store.timeout_seconds
        for number in numbers:
            while self._time.monotonic() < deadline:
                owned = self._owned.get(number)
                if owned is None or not (owned.owner.is_committing or owned.held):
                    break
                self._step(number)
                self._time.sleep(POLL_SECONDS)

    def lost(self, numbers: Iterable[int]) -> None:
        """See `group.Owners`."""
        for number in numbers:
            self._forget(number)

    def _take_over(self, numbers: Sequence[int]) -> None:
        """Fence whoever owned partitions, and begin to load their rows."""
        if not numbers:
            return
        ids = self._output.topic_ids(self._topics)
        run = self._store.run()
        for number in numbers:
            token = new_token()
            sequence, position = self._acquire(number, token)
            see_same_topics(self._label, self._topics, position.topics, ids)
            if self._waiting.must_settle(number, position.store_run, run):
                continue
            here = msgspec.structs.replace(position, topics=ids, store_run=run)
            self._owned[number] = _Owned(
                self._role.decision(self._settings, number, self._secret),
                Owner(number, token, list(position.offsets), self._terms),
                sequence,
                here,
                iter(self._store.load(number)),
            )
            metrics.role_partitions(self._role.name, len(self._owned))

    def _acquire(self, number: int, token: str) -> tuple[int, RolePosition]:
        """A partition's commits and position; begun where the log begins if it has none."""
        see_number(self._settings, number)
        found = self._store.acquire(number, token)
        if found is None:
            accept_loss = self._settings.store.accept_loss
            before = see_nothing_lost(self._member, number, self._label, accept_loss=accept_loss)
            self._create(number, token, before)
            found = self._store.acquire(number, token)
            if found is None:
                raise StateLostError(f"partition {number} of {self._label} is gone. {LOST_REMEDY}")
        if found[1].version != self._role.version:
            raise StateLostError(
                f"partition {number} of {self._label} has rows of version {found[1].version}, and "
                f"this program makes {self._role.version}; go back to the program that wrote them, or "
                "use another store.namespace and another broker.group, and replay the log"
            )
        return found

    def _create(self, number: int, token: str, before: int, *, replace: bool = False) -> bool:
        """Begin a partition's state where the log begins; see `Store.create`.

        Args:
            before: an incarnation of it that there was.
        """
        first = [self._member.extent(topic, number)[0] for topic in self._topics]
        output = 0 if self._outlet is None else self._member.extent(self._outlet.topic, number)[1]
        begun = RolePosition(
            first, self._role.version, max(output, before) + 1, output=output, known_to=output
        )
        return self._store.create(number, token, begun, replace=replace)

    def _load(self, number: int, owned: _Owned, stored: Iterator[tuple[bytes, bytes]]) -> None:
        """Load a portion of the rows; with the last one, the partition is served."""
        if portion := list(islice(stored, LOADED_AT_ONCE)):
            owned.decision.load(portion)
            return
        if len(owned.decision) < owned.position.rows or not self._store.is_whole(number):
            self._begin_again(number, owned)
            return
        known_to = owned.position.known_to
        tail = [] if self._outlet is None else self._output.values(number, known_to)
        owned.decision.begin(self._store.own(number), tail)
        owned.stored = None
        self._waiting.served(number)
        if owned.wait_to_read:
            self._member.read_on_from(number, owned.owner.offsets)
        log.info(
            "%s: partition %d taken over: %d rows, commit %d",
            self._role.name,
            number,
            len(owned.decision),
            owned.sequence,
        )

    def _begin_again(self, number: int, owned: _Owned) -> None:
        """Replace a state whose rows are not all there, if that may be.

        Raises:
            StateLostError: it may not be.
            NotOursError: another has taken the partition over meanwhile.
        """
        lack = (
            f"partition {number} of {self._label} has {len(owned.decision)} of "
            f"{owned.position.rows} rows in the store, or they are not of one moment"
        )
        if not self._settings.store.accept_loss:
            raise StateLostError(f"{lack}. {LOST_REMEDY}")
        log.warning("%s; it starts anew", lack)
        if not self._create(number, owned.owner.token, owned.position.incarnation, replace=True):
            raise NotOursError(Answer.FENCED)
        self._forget(number)
        self._waiting.later([number])

    def _forget(self, number: int) -> None:
        """Drop a partition and everything of it that was not committed."""
        self._waiting.forget(number)
        if (owned := self._owned.pop(number, None)) is not None:
            owned.decision.close()
            self._store.abandon(number)
            metrics.role_partitions(self._role.name, len(self._owned))

    # -- now and then -------------------------------------------------------------------------

    def _look_around(self) -> None:
        """See how far the output is delivered: what stands before it is part of the state."""
        now = self._time.monotonic()
        if self._outlet is None or now - self._looked_around < LOOK_AROUND_SECONDS:
            return
        self._looked_around = now
        served = [n for n, owned in self._owned.items() if owned.stored is None]
        try:
            delivered = self._store.delivered_to(served) if served else []
        except StoreUnavailableError:
            metrics.store_missed()
            return
        for number, upto in zip(served, delivered, strict=True):
            owned = self._owned[number]
            owned.position = msgspec.structs.replace(owned.position, known_to=upto)

    def _wall_ms(self) -> int:
        return self._time.time_ns() // 1_000_000

    def _ready(self, is_ready: bool, reason: str) -> None:
        self._health.ready(is_ready, reason, part=self._role.name)
