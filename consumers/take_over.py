"""Takes partitions over: from *assigned* to *served*, without keeping those that are served waiting.

Comes in: numbers of partitions. Goes out: for each, `serve` with its users loaded and a token that fences
whoever had it before. A partition is in one state at a time:

=========== ================================================================= ==================
state       it waits for                                                      next
=========== ================================================================= ==================
*later*     its moment (`waiting`): topics that came one after the other,     acquired
            another owner's session to end
*settling*  what a publisher had in hand of it to be on the output, because   acquired again
            the store may have lost commits (`waiting`)
*loading*   its users, a portion a turn                                       served
=========== ================================================================= ==================

A partition that settles is fenced at once. Whoever finds that a partition is another's, or not where it was
left, drops it, and it begins at *later*.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Protocol

import msgspec

from consumers.beginning import Beginning
from consumers.clock import Time
from consumers.group import GroupMember
from consumers.model_feed import ModelFeed
from consumers.owner import NotOursError, new_token
from consumers.topic_watch import see_same_topics
from consumers.waiting import Waiting
from stream.config import Settings
from stream.delivered import Delivered
from stream.features import FeatureTable
from stream.hashing import key_print
from stream.health import Pulse
from stream.memory import Memory
from stream.partition import Partition
from stream.priced import Priced, priced
from stream.store.promises import OwnerStore
from stream.store.state import Position

log = logging.getLogger(__name__)

LOAD_SHARE_SECONDS = 0.01
"""Time of a turn for loading users of a partition that was taken over, while others are served."""
LOAD_ALONE_SECONDS = 0.5
"""The same, while no partition is served, or a rebalance waits for us."""


class OutputTopic(Protocol):
    """What an owner asks of Kafka beside its input; `consumers.output.Output` answers."""

    def tails(self, starts: Mapping[int, int]) -> dict[int, list[Delivered]]: ...
    def topic_ids(self, names: Sequence[str]) -> list[str]: ...
    def group_members(self) -> list[str]: ...
    def first_currency(self) -> str: ...


@dataclass
class _Loading:
    """A partition that was taken over, and whose users are being loaded.

    Attributes:
        stored: users left to load.
        orders: orders left to load.
        tail: what the output has and the state may not know.
        wait_to_read: whether its topics are paused, and not where the state is.
    """

    partition: Partition
    token: str
    stored: Iterator[tuple[bytes, bytes]]
    orders: Iterator[tuple[int, bytes, bytes]]
    tail: Sequence[Delivered]
    wait_to_read: bool = False


class TakeOver:
    """The partitions of a worker that are assigned and not served yet.

    Attributes:
        waiting: those that are not loading yet.

    Args:
        drop: is told of a partition that turns out to be another's.
        serve: is given a partition that is loaded, and its token.
    """

    def __init__(
        self,
        settings: Settings,
        table: FeatureTable,
        store: OwnerStore,
        output: OutputTopic,
        member: GroupMember,
        feed: ModelFeed,
        drop: Callable[[int, NotOursError], None],
        serve: Callable[[Partition, str], None],
        pulse: Pulse,
        time: Time,
    ) -> None:
        self._settings = settings
        self._table = table
        self._store = store
        self._output = output
        self._member = member
        self._feed = feed
        self._drop = drop
        self._serve = serve
        self._pulse = pulse
        self._time = time
        self._beginning = Beginning(settings, table.schema, store, member)
        self._rule = settings.publish.rule()
        self._memory = Memory(settings.worker.limits())
        self._by_marks = settings.clock.mode == "watermark"
        self._loading: dict[int, _Loading] = {}
        self.waiting = Waiting(settings, member, settings.topics.changes, time)

    @property
    def loading(self) -> AbstractSet[int]:
        """Partitions whose users are being loaded."""
        return self._loading.keys()

    def will_read_from(self, number: int) -> Sequence[int] | None:
        """Offsets from which a partition that is being loaded is read once it is served; None of any other."""
        loading = self._loading.get(number)
        return None if loading is None else loading.partition.position.offsets

    def now(self, numbers: Iterable[int]) -> None:
        """Take partitions over within a rebalance, and load what can be loaded in a moment."""
        together = set(numbers)
        self._acquire(sorted(together))
        # Not those that still wait to be read: what is in hand of them is beyond their state.
        self._load(LOAD_ALONE_SECONDS, self._loading.keys() & together)

    def forget(self, number: int) -> None:
        """A partition is not to be served any more."""
        loading = self._loading.pop(number, None)
        if loading is not None:
            loading.partition.past.release()
        self.waiting.forget(number)

    def go_on(self, served: AbstractSet[int]) -> None:
        """Take over what is due, and load a portion."""
        here = served | self._loading.keys()
        self._acquire([number for number in self.waiting.due() if number not in here])
        for loading in self._loading.values():
            loading.wait_to_read = True
        self._load(LOAD_SHARE_SECONDS if served else LOAD_ALONE_SECONDS, self._loading.keys())

    # -- acquiring ----------------------------------------------------------------------------

    def _acquire(self, numbers: Sequence[int]) -> None:
        """Fence whoever owned the partitions, and begin to load their users.

        A partition whose state the store may have put back is fenced at once, but taken over later,
        when what a publisher had in hand is on the output.
        """
        if not numbers:
            return
        ids = self._output.topic_ids([*self._settings.topics.inputs, self._settings.topics.changes])
        run = self._store.run()
        self._feed.refresh()
        taken: dict[int, tuple[str, int, Position]] = {}
        for number in numbers:
            token = new_token()
            try:
                sequence, position = self._beginning.acquire(number, token)
            except NotOursError as error:
                self._drop(number, error)
                continue
            see_same_topics(
                self._settings.store.namespace, self._settings.topics.inputs, position.topics, ids
            )
            decides_anew = self._decides_at_the_wall_clock(position)
            if decides_anew and self.waiting.must_settle(number, position.store_run, run):
                continue
            taken[number] = (token, sequence, position)
        tails = self._tails({n: position for n, (_, _, position) in taken.items()}, ids)
        for number, (token, sequence, position) in taken.items():
            here = msgspec.structs.replace(
                position,
                topics=ids,
                store_run=run,
                secret=key_print(self._store.namespace_key()),
                known_to=_known_to(position, ids),
                priced=self._priced(position),
            )
            self._loading[number] = _Loading(
                self._partition(sequence, number, here),
                token,
                iter(self._store.load(number)),
                iter(self._store.load_orders(number)),
                tails.get(number, []),
            )

    def _decides_at_the_wall_clock(self, position: Position) -> bool:
        """Whether the same events, read again, may lead to other decisions; by marks they do not."""
        return not self._by_marks or (not position.mark_ms and bool(position.model))

    def _is_behind(self, position: Position) -> bool:
        """Whether a partition alone was put back: the trainer's rounds are beyond its mark.

        From there on it may decide by newer models than it did before.
        """
        return self._by_marks and 0 < position.mark_ms < self._feed.round_ms

    def _tails(
        self, positions: Mapping[int, Position], ids: Sequence[str]
    ) -> dict[int, list[Delivered]]:
        """What the output has of partitions just taken over, and their state may not know."""
        starts = {
            number: _known_to(position, ids)
            for number, position in positions.items()
            if self._decides_at_the_wall_clock(position) or self._is_behind(position)
        }
        return self._output.tails(starts) if starts else {}

    # -- loading ------------------------------------------------------------------------------

    def _load(self, seconds: float, numbers: Iterable[int]) -> None:
        """Load users of partitions taken over, for so long, and serve those that have all.

        What a worker serves already goes on meanwhile.
        """
        deadline = self._time.monotonic() + seconds
        for number in list(numbers):
            loading = self._loading[number]
            if not self._load_until(deadline, loading):
                return
            loading.partition.past.load_ids(self._store.load_ids(number))
            loading.partition.past.load_words(self._store.load_words(number))
            try:
                partition = self._see_that_all_are_there(loading)
            except NotOursError as error:
                self._drop(number, error)
                continue
            del self._loading[number]
            in_time = self._is_behind(partition.position)
            if changed := partition.take_delivered(loading.tail, in_time=in_time):
                log.warning(
                    "partition %d: the store had lost where %d users are by what was delivered; it "
                    "is taken from the output",
                    number,
                    changed,
                )
            self.waiting.served(number)
            self._serve(partition, loading.token)
            if loading.wait_to_read:
                self._member.read_on_from(number, partition.position.offsets)

    def _load_until(self, deadline: float, loading: _Loading) -> bool:
        """Load users and orders; False if the deadline came first."""
        partition = loading.partition
        while partition.load_some(loading.stored) or partition.past.load_some_orders(
            loading.orders
        ):
            self._pulse.beat()
            if self._time.monotonic() > deadline:
                return False
        return True

    def _see_that_all_are_there(self, loading: _Loading) -> Partition:
        """The partition, if it has as many users as its position says, and of the same moment.

        Raises:
            StateLostError: it has not, and the settings do not accept that.
            NotOursError: another has taken the partition over meanwhile.
        """
        partition = loading.partition
        number, position = partition.number, partition.position
        lack = self._beginning.lack_of(partition)
        if not lack:
            return partition
        self._beginning.accept(lack)
        partition.past.release()
        sequence, begun = self._beginning.again(number, loading.token, position)
        return self._partition(
            sequence,
            number,
            msgspec.structs.replace(
                begun,
                topics=position.topics,
                store_run=position.store_run,
                priced=self._priced(begun),
            ),
        )

    def _priced(self, position: Position) -> list[Priced]:
        """By which rates amounts of a partition were converted, and are from here on."""
        first = position.first or [0] * len(position.offsets)
        return priced(position.priced, position.offsets, first, self._settings.money)

    def _partition(self, sequence: int, number: int, position: Position) -> Partition:
        return Partition(
            number,
            self._table,
            self._rule,
            position,
            sequence,
            key=self._store.namespace_key(),
            populations=self._settings.divided(),
            memory=self._memory,
        )


def _known_to(position: Position, ids: Sequence[str]) -> int:
    """The offset up to which the output is part of the state; 0 for an output that was made anew."""
    return 0 if position.topics and position.topics[2] != ids[2] else position.known_to
