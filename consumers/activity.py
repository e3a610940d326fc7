"""The activity role: turns clicks and purchases into saved features and recorded changes.

Comes in: bytes from Kafka, of the partitions this worker owns. Goes out: one commit after the other to the
store, refused messages to the dead letters. This is wiring: who is given what, and what is done in a turn.

======================== ===========================================================================
`group`                  is assigned partitions, and polls
`take_over`              fences who had them, and loads their users
`intake`                 decodes, sets refused messages aside, holds topics back
`live` or `watermark`    folds, looks at users, makes commits of the columns (`stream.partition`)
`ledger`, `owner`        bring the commits to the store, one at a time, and tell what they brought
`model_feed`             follows the trainer
======================== ===========================================================================

The outbox is the publisher's.
"""

from __future__ import annotations

import logging
import time as time_module
from collections.abc import Callable, Iterable, Sequence

from consumers.client import activity_options, membership
from consumers.clock import SteadyClock, Time
from consumers.decode import Decoder
from consumers.group import GroupMember, broker_errors
from consumers.group_namespace import client_id, see_group
from consumers.intake import CONSUME, DeadLetterSink, Intake
from consumers.lag import EndsWatch, LagMeter, statistics_options
from consumers.ledger import Ledger
from consumers.live import LiveClock
from consumers.model_feed import ModelFeed
from consumers.owner import NotOursError, Owner, Terms
from consumers.serving import Owned, PartitionClock
from consumers.take_over import OutputTopic, TakeOver
from consumers.topic_watch import TopicWatch
from consumers.watermark import MarkClock
from consumers.witness import GroupOffsets
from stream import metrics
from stream.config import Settings
from stream.errors import BrokerUnavailableError, TopicMissingError
from stream.health import Health, Pulse
from stream.marks import MarkSigner
from stream.namespace import see_counts, see_currency, see_partitions
from stream.partition import Partition
from stream.store.promises import OwnerStore
from stream.store.state import Commit, StoreUnavailableError

log = logging.getLogger(__name__)

POLL_SECONDS = 0.001
"""How long to wait for what somebody else has to do, such as a commit or a round. Kafka's finest clock."""
SETTLED_SECONDS = 60.0
"""A worker that has no partitions after this long gets none: others have them."""
LOOK_AROUND_SECONDS = 1.0
"""Between two looks at how far the output is delivered."""
TELL_LAG_SECONDS = 1.0


class ActivityWorker:
    """One member of the group of activity workers; made to `run` once.

    Args:
        time: the module, or what a test moves by hand.
    """

    def __init__(
        self,
        settings: Settings,
        store: OwnerStore,
        dead_letters: DeadLetterSink,
        output: OutputTopic,
        health: Health,
        pulse: Pulse,
        time: Time = time_module,
    ) -> None:
        self._settings = settings
        self._store = store
        self._output = output
        self._health = health
        self._pulse = pulse
        self._time = time
        table, worker = settings.table(), settings.worker
        by_marks = settings.clock.mode == "watermark"
        signer = MarkSigner(store.namespace_key()) if by_marks else None
        decoder = Decoder(
            table,
            worker,
            signer,
            settings.clock.mark_seconds,
            settings.money,
            settings.reviews,
            self._agree_on,
        )
        log.info("decoder: %s", decoder.way)
        now = SteadyClock(self._wall_ms, time.monotonic)
        self._terms: Terms[Commit] = Terms(
            store,
            time,
            settings.store.commit_deadline_seconds,
            settings.store.accept_loss,
            self._ready,
        )
        self._lag = LagMeter(settings.topics.inputs, self._wall_ms)
        self._group_offsets = GroupOffsets(settings.store.namespace, time)
        self._ledger = Ledger(self._lag, self._group_offsets, time)
        self._feed = ModelFeed(
            store, table.schema, settings.learning.sample_users, time, announced=not by_marks
        )
        self._partitions: PartitionClock = (
            MarkClock(
                settings.clock, worker, store, self._feed, self._ledger, self._guard,
                self._wall_ms, time,
            )
            if by_marks
            else LiveClock(worker, self._feed, self._ledger, self._guard, now, time)
        )  # fmt: skip
        self._intake = Intake(settings, decoder, dead_letters, self._partitions, now, time)
        self._topic_watch = TopicWatch(settings, output)
        self._looked_around = 0.0
        self._lag_told = 0.0
        protocol = membership(settings.broker)
        self._feed.refresh()
        name = client_id(settings.store.namespace)
        self._member = GroupMember(
            settings.topics.inputs,
            self,
            statistics_options(self._lag) | activity_options(settings.broker, protocol, name),
            settings.store.timeout_seconds,
        )
        self._take_over = TakeOver(
            settings, table, store, output, self._member, self._feed, self._drop, self._own,
            pulse, time,
        )  # fmt: skip

    # -- the loop -----------------------------------------------------------------------------

    def run(self, stop: Callable[[], bool]) -> None:
        """Own and serve partitions until told to stop.

        Raises:
            StoreUnavailableError, BrokerUnavailableError, TopicMissingError: start another later.
            Exception: any other needs a person.
        """
        watch = EndsWatch(self._member, self._lag, self._wall_ms)
        began, tells = self._time.monotonic(), False
        try:
            with broker_errors():
                watch.start()
                self._see_namespace()
                see_group(self._settings, self._output.group_members())
                self._member.subscribe()
                self._ready(True, "")
                while not stop():
                    self._turn()
                    # Until this one has something to tell, the lag that an outage left behind is told.
                    if not tells and self._has_lag_to_tell(began):
                        metrics.lag_told_by(self._lag.lags)
                        tells = True
                self._drain(list(self._partitions.served))
            metrics.lag_told_by(None)
        except (BrokerUnavailableError, StoreUnavailableError, TopicMissingError):
            self._lag.leave_behind()
            raise
        finally:
            for number in [*self._partitions.served, *self._take_over.loading]:
                self._forget(number)
            watch.stop()
            self._member.close()

    def _has_lag_to_tell(self, began: float) -> bool:
        return bool(self._lag.places()) or self._time.monotonic() - began > SETTLED_SECONDS

    def _agree_on(self, named: str) -> str:
        """The currency of the namespace; a message has named one."""
        if found := self._store.currency():
            return found
        # Which partition is read first is nobody's choice: the log decides, and says the same to everybody.
        return self._store.agree_currency(self._output.first_currency() or named)

    def _see_namespace(self) -> None:
        """See that topics, settings and namespace have one number of partitions, and one currency.

        Raises:
            ConfigError: they differ.
        """
        see_counts(self._settings, self._member.partition_counts(), self._store.partitions())
        see_partitions(self._settings, self._store.begin(self._settings.topics.partitions))
        if declared := self._settings.money.currency:
            see_currency(self._settings, self._store.agree_currency(declared))

    def _turn(self) -> None:
        """Gather for a moment, then do whatever is due."""
        self._gather()
        self._intake.sort()
        self._intake.calm()
        self._pulse.beat()
        self._take_over.go_on(self._partitions.served.keys())
        if (every := self._partitions.look_every()) is not None:
            self._feed.look(every)
        self._step(list(self._partitions.served))
        self._group_offsets.show(self._member, self._partitions.served)
        self._look_around()
        self._tell_lag()

    def _gather(self) -> None:
        """Read for a moment: longer while there is a backlog, shorter while somebody waits."""
        worker, partitions = self._settings.worker, self._partitions
        deadline = self._time.monotonic() + worker.batch_seconds
        most = min(worker.batch_events, worker.buffer_events)
        gathered = 0
        while True:
            left = deadline - self._time.monotonic()
            waits = partitions.is_waiting()
            messages = self._member.poll(CONSUME, min(left, POLL_SECONDS) if waits else left)
            gathered += self._intake.hold(messages)
            behind = len(messages) == CONSUME and partitions.gathers_on
            if gathered >= most or (left <= POLL_SECONDS and not behind):
                return
            if self._intake.are_letters_too_fast() or (waits and not partitions.gathers_on):
                return
            if waits:
                self._collect(list(partitions.served))

    def _step(self, numbers: Sequence[int]) -> None:
        """Do what is due for some partitions, once the letters of all that was read are safe."""
        self._intake.file_letters()
        self._collect(numbers)
        self._partitions.step(numbers)
        self._intake.throttle(self._served(numbers), self._member)

    def _collect(self, numbers: Iterable[int]) -> None:
        """Go on with the commits under way."""
        for owned in self._served(numbers):
            self._guard(owned.number, owned.owner.collect)

    def _served(self, numbers: Iterable[int]) -> list[Owned]:
        """Those of some partitions that are still served."""
        served = self._partitions.served
        return [served[number] for number in numbers if number in served]

    def _drain(self, numbers: Iterable[int]) -> None:
        """Fold and commit what partitions have gathered, as far as time allows."""
        deadline = self._time.monotonic() + self._settings.store.timeout_seconds
        for number in numbers:
            while self._served([number]) and self._time.monotonic() < deadline:
                owner = self._partitions.served[number].owner
                if not owner.is_committing and not self._partitions.has_more(number):
                    break
                self._step([number])
                if owner.is_committing:
                    self._time.sleep(POLL_SECONDS)

    # -- partitions come and go ---------------------------------------------------------------

    def assigned(self, together: Sequence[int], completed: Sequence[int]) -> None:
        """See `group.Owners`."""
        self._topic_watch.regrouped()
        self._take_over.waiting.later(completed)
        self._take_over.now(together)

    def read_from(self, number: int) -> Sequence[int] | None:
        """See `group.Owners`."""
        owned = self._partitions.served.get(number)
        return None if owned is None else owned.owner.offsets

    def will_read_from(self, number: int) -> Sequence[int] | None:
        """See `group.Owners`."""
        return self._take_over.will_read_from(number)

    def revoked(self, numbers: Iterable[int]) -> None:
        """See `group.Owners`."""
        self._intake.sort()
        self._drain(numbers)

    def lost(self, numbers: Iterable[int]) -> None:
        """See `group.Owners`."""
        for number in numbers:
            self._forget(number)

    def _own(self, partition: Partition, token: str) -> None:
        """Serve a partition that has been loaded, from now on."""
        number, position = partition.number, partition.position
        model = self._feed.model
        if model is not None and position.model == model.name:
            partition.model = model
        owner = Owner(number, token, list(position.offsets), self._terms)
        self._partitions.serve(partition, owner)
        self._lag.watch(number, position.offsets)
        metrics.partition_acquired(number, len(partition), *partition.past.counts)
        log.info(
            "partition %d taken over: %d users, commit %d",
            number,
            len(partition),
            partition.sequence,
        )

    def _guard(self, number: int, call: Callable[[], object]) -> None:
        """Do something for a partition; drop it if the store says that another worker owns it."""
        try:
            call()
        except NotOursError as error:
            self._drop(number, error)

    def _drop(self, number: int, error: NotOursError) -> None:
        """Drop a partition; take it over again later, if it is still assigned."""
        log.warning("partition %d: %s", number, error)
        self._forget(number)
        self._take_over.waiting.again(number, error)

    def _forget(self, number: int) -> None:
        """Drop a partition and everything of it that was not committed."""
        self._take_over.forget(number)
        self._intake.forget(number)
        self._lag.forget(number)
        owned = self._partitions.drop(number)
        if owned is not None:
            owned.partition.past.release()
            self._store.abandon(number)
            metrics.partition_released(number)

    # -- now and then -------------------------------------------------------------------------

    def _look_around(self) -> None:
        """See how far the output is delivered, and that the topics are the same."""
        now = self._time.monotonic()
        if now - self._looked_around < LOOK_AROUND_SECONDS:
            return
        self._looked_around = now
        served = self._partitions.served
        try:
            delivered = self._store.delivered_to(list(served)) if served else []
            for owned, upto in zip(served.values(), delivered, strict=True):
                owned.partition.knows_output(upto)
        except StoreUnavailableError:
            metrics.store_missed()
        self._topic_watch.look(now, [owned.partition.position for owned in served.values()])

    def _tell_lag(self) -> None:
        """Tell the meter what was read, and what is assigned and not served."""
        now = self._time.monotonic()
        if now - self._lag_told < TELL_LAG_SECONDS:
            return
        self._lag_told = now
        served = self._partitions.served
        for number, owned in served.items():
            read = zip(owned.reading.next_offsets, owned.owner.offsets, strict=True)
            self._lag.read(number, [offset or committed for offset, committed in read])
        for number in self._member.numbers() - served.keys():
            try:
                position = self._store.position(number)
            except StoreUnavailableError:
                return
            if position is not None:
                self._lag.stranded(number, position.offsets)

    def _wall_ms(self) -> int:
        return self._time.time_ns() // 1_000_000

    def _ready(self, is_ready: bool, reason: str) -> None:
        self._health.ready(is_ready, reason, part="activity")
