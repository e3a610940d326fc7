"""Empties the outboxes of a role, acknowledging only what was delivered.

Comes in: outbox entries from the store. Goes out: CloudEvents (binary mode) on the topic of an `Outlet`,
partition by partition in order. The changes of segments go this way (`changes_outlet`), and the records of
every other role that sends any.

One publisher works at a time, by a lease; each partition's outbox is taken over with a token, so
an earlier publisher can no longer acknowledge anything. Who is refused gives up the lead: the lease
alone decides who takes over. What was sent without being acknowledged is found by reading back the
tail of the output and skipped by its ids, never by a high-water mark.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from confluent_kafka import Producer

from producers.client import producer_options
from producers.cloudevents import cloud_event
from producers.delivery import DeliveryError, Record, deliver
from stream import metrics
from stream.config import Settings
from stream.errors import BrokerUnavailableError, TopicMissingError, kafka_client
from stream.events import CHANGE_SCHEMA, CHANGED, LEVEL_CHANGED, LEVEL_SCHEMA
from stream.headers import event_source
from stream.roles.leader import Lease
from stream.roles.outlet import Further, Outlet
from stream.store.promises import PublisherStore
from stream.store.state import OutboxEntry, StoreUnavailableError
from stream.units import iso

log = logging.getLogger(__name__)

BEGINNING = "0-0"
WAIT_SECONDS = 0.2
FIRST_ENTRIES = 8
"""Taken at once from each partition before it is known how much is in them."""
COMPARE_SECONDS = 5.0
"""Between two looks at whether the output is still the same topic."""


def changes_outlet(settings: Settings) -> Outlet:
    """Of the changes of segments and levels."""
    return Outlet(
        "publisher",
        settings.topics.changes,
        event_source(settings.store.namespace, "activity"),
        CHANGED,
        CHANGE_SCHEMA,
        extensions={"kindto": "kind_to"},
        further=(
            Further("level", LEVEL_CHANGED, LEVEL_SCHEMA, {"level": "level", "stepto": "step_to"}),
        ),
        retention_seconds=settings.topics.changes_retention_seconds,
        remedy="`segstream republish` sends everybody's present segment",
    )


class Output(Protocol):
    """What the publisher asks of its topic; `consumers.output.Output` answers."""

    def delivered_ids(self, starts: Mapping[int, int]) -> tuple[dict[int, set[str]], list[int]]: ...
    def topic_ids(self, names: Sequence[str]) -> list[str]: ...


class OutboxPublisher:
    """Empties the outboxes of all partitions, and notices when the output lacks what it had.

    Args:
        store: of the role whose outboxes they are.
        output: the topic of the outlet.
    """

    def __init__(
        self,
        settings: Settings,
        store: PublisherStore,
        output: Output,
        outlet: Outlet,
        wall_seconds: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._store = store
        self._output = output
        self._outlet = outlet
        self._wall_seconds = wall_seconds
        self._lease = Lease(store, outlet.role, settings.publisher.lease_seconds)
        self._partitions = range(settings.topics.partitions)
        self._decode = msgspec.json.Decoder(_envelope(outlet)).decode
        self._told = metrics.Outbox(outlet.role)
        self._producer: Producer | None = None
        self._leads = False
        self._after: dict[int, str] = {}
        self._delivered_to: dict[int, int] = {}
        self._incarnations: dict[int, int] = {}
        self._unchecked: set[int] = set()
        self._known: dict[int, set[str]] = {}
        self._entries = 1
        self._looked = 0.0
        self._compared = 0.0
        self._has_looked = False

    @property
    def leads(self) -> bool:
        return self._leads

    def step(self) -> bool:
        """Deliver what is waiting; waits a moment if nothing is.

        Returns:
            Whether this publisher leads.

        Raises:
            StoreUnavailableError: the store does not answer; call again later.
            BrokerUnavailableError: not everything was confirmed; call again later.
        """
        try:
            if not self._hold_lease():
                return False
            self._compare_topic()
            if self._unchecked:
                # Before anything is taken, which may be handed on only for so long.
                self._read_back()
                # That may have taken longer than the lease.
                if not self._hold_lease():
                    return False
            asked = time.monotonic()
            found = self._store.outbox(self._after, self._entries, WAIT_SECONDS)
            self._adapt(found)
            found = self._of_taken(found)
            if found:
                if not self._has_looked:
                    # What cannot be delivered would else never be seen to wait.
                    self._observe(busy=True)
                self._publish(found, asked + WAIT_SECONDS)
            self._observe(bool(found))
        except (StoreUnavailableError, BrokerUnavailableError):
            # The store may have rolled back, the broker may have taken what it did not confirm.
            self._stop_leading()
            raise
        return self._leads

    def close(self) -> None:
        """Let a standby take over at once."""
        if self._leads:
            self._lease.release()
            self._stop_leading()
            self._told.left()

    def _adapt(self, found: Mapping[int, Sequence[OutboxEntry]]) -> None:
        """Take more entries at once if these were few changes, fewer if they were many.

        An entry has one change or a thousand, and after a refit every partition has many of the
        latter: what is in hand at once must not be what the store has.
        """
        changes = sum(len(entry.changes) for entries in found.values() for entry in entries)
        most = self._settings.publisher.batch_changes
        if changes > most:
            self._entries = max(self._entries * most // changes, 1)
        elif 2 * changes < most:
            self._entries = min(2 * self._entries, self._settings.publisher.batch_entries)

    def _hold_lease(self) -> bool:
        if not self._lease.hold():
            self._stop_leading()
            self._told.left()
            return False
        if not self._leads:
            for partition in self._partitions:
                self._take(partition)
            self._entries = min(FIRST_ENTRIES, self._settings.publisher.batch_entries)
            self._leads = True
            self._has_looked = False
            log.info("this publisher leads")
        return True

    def _stop_leading(self) -> None:
        """What it last saw of the outboxes stays told: it will lead again, or learn that another does."""
        self._leads = False
        self._lease.lose()

    def _take(self, partition: int) -> None:
        """Take over a partition's outbox from its beginning, if it has any state."""
        self._after[partition] = BEGINNING
        self._known.pop(partition, None)
        self._unchecked.discard(partition)
        self._delivered_to.pop(partition, None)
        self._incarnations.pop(partition, None)
        delivered_to = self._store.take_outbox(partition, self._lease.token)
        if delivered_to is not None:
            self._delivered_to[partition] = delivered_to
            self._unchecked.add(partition)

    def _of_taken(self, found: dict[int, list[OutboxEntry]]) -> dict[int, list[OutboxEntry]]:
        """What was found in outboxes that are ours; others, whose state is new, are ours next time.

        Not this time, because an outbox is to be read after it was taken, and from its beginning:
        that of a state begun anew counts from 1 again.
        """
        ours = {}
        for partition, entries in found.items():
            incarnation = entries[0].incarnation
            taken = partition in self._delivered_to
            if taken and self._incarnations.setdefault(partition, incarnation) == incarnation:
                ours[partition] = entries
            else:
                self._take(partition)
        return ours

    def _read_back(self) -> None:
        """See what was delivered but not acknowledged, of all partitions taken over, at once."""
        starts = {partition: self._delivered_to[partition] for partition in self._unchecked}
        known, short = self._output.delivered_ids(starts)
        self._known |= known
        self._unchecked.clear()
        if short:
            self._note_lack(f"partitions {', '.join(map(str, sorted(short)))} were cut short")

    def _compare_topic(self) -> None:
        """Now and then, see that the output is the topic that was written to before."""
        now = time.monotonic()
        if now - self._compared < COMPARE_SECONDS:
            return
        self._compared = now
        try:
            (topic_id,) = self._output.topic_ids([self._outlet.topic])
        except TopicMissingError as error:
            raise BrokerUnavailableError(str(error)) from None
        before, lacks = self._store.output()
        if before and topic_id and before != topic_id:
            self._begin_on_new_topic()
            self._note_lack("it was deleted and made anew", topic_id)
        elif topic_id and not before:
            self._store.note_output(topic_id, lacks)
        self._told.lacks(bool(self._store.output()[1]))

    def _begin_on_new_topic(self) -> None:
        """Nothing is delivered on it, as far as is known: offsets of the topic before mean nothing.

        Kept, they would say that it was cut short when a partition is first written to, and owners
        would look for what was delivered behind its end.
        """
        self._known.clear()
        for partition in self._delivered_to:
            if self._store.acknowledge(partition, self._lease.token, [], 0):
                self._delivered_to[partition] = 0
                self._unchecked.add(partition)

    def _note_lack(self, why: str, topic_id: str | None = None) -> None:
        """The output does not have what was delivered: say it until everybody's place is sent."""
        when = iso(round(self._wall_seconds() * 1_000))
        log.error(
            "topic %s: %s; what was delivered before is not all on it. %s",
            self._outlet.topic,
            why,
            self._outlet.remedy,
        )
        known = self._store.output()[0] if topic_id is None else topic_id
        self._store.note_output(known, f"{why}, noticed {when}")
        self._told.lacks(True)

    def _publish(self, found: dict[int, list[OutboxEntry]], since: float) -> None:
        """Deliver entries and acknowledge them.

        Args:
            since: about when they were taken, by the monotonic clock.
        """
        records: list[Record] = []
        where: list[int] = []
        skipped: dict[int, set[str]] = defaultdict(set)
        for partition, entries in found.items():
            known = self._known.get(partition, set())
            for entry in entries:
                for change in entry.changes:
                    envelope = self._decode(change)
                    if envelope.id in known:
                        skipped[partition].add(envelope.id)
                    else:
                        records.append(self._record(partition, change, envelope))
                        where.append(partition)
        if self._producer is None:
            self._producer = kafka_client(
                Producer,
                producer_options(
                    self._settings.broker,
                    linger_seconds=0.001,
                    # Records that the client gives up one by one leave a gap among those that it
                    # sends later. Before it does, all of them are purged at once.
                    deliver_seconds=2 * self._settings.publisher.deliver_seconds,
                ),
            )
        left = self._settings.publisher.deliver_seconds - (time.monotonic() - since)
        try:
            offsets = deliver(self._producer, records, left)
        except DeliveryError as error:
            self._producer = None
            metrics.delivery_retried()
            raise BrokerUnavailableError(
                f"records for {self._outlet.topic} not delivered: {error}"
            ) from error
        now = self._wall_seconds()
        ends = dict(zip(where, offsets, strict=True))
        if any(offset < self._delivered_to[partition] for partition, offset in ends.items()):
            # Either it was made anew, and the look at its id says so, or it was cut.
            self._compared = 0.0
            self._compare_topic()
            if not self._store.output()[1]:
                self._note_lack("it was cut short")
        for partition, offset in ends.items():
            self._delivered_to[partition] = offset + 1
        for partition, entries in found.items():
            self._acknowledge(partition, entries, skipped[partition])
            for entry in entries:
                self._told.delivered(len(entry.changes), max(now - entry.origin_ms / 1_000, 0.0))

    def _acknowledge(self, partition: int, entries: list[OutboxEntry], skipped: set[str]) -> None:
        """Let the store forget entries; give up the lead if the outbox is not ours any more.

        Which it is not either if the state was begun anew: then the lease is still ours at the next
        step, and everything is taken again.
        """
        ids = [entry.id for entry in entries]
        if not self._store.acknowledge(
            partition, self._lease.token, ids, self._delivered_to[partition]
        ):
            log.info("partition %d: another publisher, or new state; giving up the lead", partition)
            self._leads = False
            return
        self._after[partition] = ids[-1]
        # These cannot come again. Others are kept: after a roll-back of the store, what the output
        # has already is recorded again in time.
        if skipped:
            self._known[partition] -= skipped

    def _record(self, partition: int, change: bytes, envelope: Any) -> Record:
        outlet = self._outlet
        kind, schema, extensions = outlet.kind, outlet.schema, outlet.extensions
        for one in outlet.further:
            if getattr(envelope, one.marker) is not None:
                kind, schema, extensions = one.kind, one.schema, one.extensions
        told = {name: getattr(envelope, name) for name in extensions}
        more = {name: value for name, value in told.items() if value is not None}
        headers = cloud_event(
            envelope.id,
            outlet.source,
            kind,
            envelope.at,
            envelope.subject,
            schema,
            **more,
        )
        return Record(outlet.topic, change, envelope.subject.encode(), partition, headers)

    def _observe(self, busy: bool) -> None:
        """Once a second, see how full the outboxes are; begin anew if something was passed over."""
        now = time.monotonic()
        if self._has_looked and now - self._looked < 1.0:
            return
        self._has_looked, self._looked = True, now
        sizes = self._store.outbox_sizes(self._partitions)
        for partition, size in enumerate(sizes):
            self._told.measured(partition, size, self._age(partition) if size else 0.0)
        if not busy:
            for partition, size in enumerate(sizes):
                if size:
                    self._after[partition] = BEGINNING

    def _age(self, partition: int) -> float:
        """Seconds since the event behind the oldest entry of a partition."""
        oldest = self._store.outbox({partition: BEGINNING}, 1, 0.0).get(partition, [])
        return self._wall_seconds() - oldest[0].origin_ms / 1_000 if oldest else 0.0


def _envelope(outlet: Outlet) -> type[Any]:
    """The fields of a record that its headers repeat."""
    names = {"id": "id", "at": "at", "subject": outlet.subject}
    fields: list[Any] = [(name, str) for name in names]
    extensions = dict(outlet.extensions)
    for one in outlet.further:
        extensions |= one.extensions
    if not outlet.further:
        fields += [(name, str) for name in extensions]
    else:
        # Which of them a record has depends on its type.
        fields += [(name, str | None, None) for name in extensions]
    return msgspec.defstruct("Envelope", fields, rename=names | extensions)
