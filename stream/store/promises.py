"""What is promised of a store, to each who reads it.

Comes in: nothing; these are types. Goes out: for an owner, a publisher, a trainer, a reader and an
operator what each may ask of a store; `memory` and `redis` keep all of it.

Each method may raise `StoreUnavailableError`, which passes, or `StoreRefusedError`, which does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from stream.store.state import Answer, Commit, OutboxEntry, Position


class Namespace(Protocol):
    """What holds of a whole namespace."""

    def partitions(self) -> int:
        """The number of partitions that the namespace was begun with; 0 if it is new."""
        ...

    def namespace_key(self) -> bytes:
        """The namespace's secret, 32 bytes: of the settings, or drawn when first asked for."""
        ...

    def currency(self) -> str:
        """The currency that amounts of the namespace are in; empty until one was named."""
        ...

    def run(self) -> str:
        """Which run of the server this is; empty where it may not be asked.

        Only a server that was started again, or another one, can have lost what was applied.
        """
        ...


class Positions(Protocol):
    """How far partitions are."""

    def position(self, partition: int) -> Position | None:
        """Where a partition stands; None if nobody began it."""
        ...


class Partitions(Positions, Protocol):
    """All that a partition has, for whoever owns it and for whoever looks."""

    def load(self, partition: int) -> Iterator[tuple[bytes, bytes]]:
        """Every user of a partition with their row."""
        ...

    def load_ids(self, partition: int) -> Iterator[tuple[int, bytes]]:
        """The message ids that a partition remembers: each place that has any, with their keys."""
        ...

    def load_orders(self, partition: int) -> Iterator[tuple[int, bytes, bytes]]:
        """The orders that a partition remembers: place, key and what is kept of it."""
        ...

    def load_words(self, partition: int) -> Iterator[tuple[int, bytes, bytes]]:
        """The words that a partition has learned: topic, key and what is known of it."""
        ...


class Models(Protocol):
    """What the trainer has stored."""

    def model(self) -> tuple[int, bytes] | None:
        """The newest round and model, if there is one."""
        ...

    def round(self) -> int:
        """The newest completed round; 0 for none."""
        ...


class Outboxes(Protocol):
    """What waits to be delivered."""

    def outbox(
        self, after: Mapping[int, str], limit: int, wait_seconds: float
    ) -> dict[int, list[OutboxEntry]]:
        """The oldest undelivered entries of partitions, in order.

        Args:
            after: for each partition, the entry to begin behind; "0-0" begins at the oldest.
            limit: entries a partition at the most.
            wait_seconds: if there are none, how long to wait for one.
        """
        ...

    def outbox_sizes(self, partitions: Sequence[int]) -> list[int]:
        """Undelivered entries of each partition."""
        ...


class Output(Protocol):
    """What is known of the output topic."""

    def output(self) -> tuple[str, str]:
        """Id of the output topic that was last written to, and what it lacks, in words, or empty."""
        ...


class OutputNotes(Output, Protocol):
    """What is known of the output topic, for whoever finds more out."""

    def note_output(self, topic_id: str, lacks: str) -> None:
        """Keep the id of the output topic, and what it lacks."""
        ...


class Wishes(Protocol):
    """What persons want, for the trainer and for whoever looks."""

    def given_names(self) -> dict[int, str]:
        """Names that persons gave, by segment id."""
        ...

    def wanted(self) -> bytes | None:
        """What a person wants of the trainer; None if nobody ever wanted anything."""
        ...


class Leases(Protocol):
    """Who is the only one in a role."""

    def lease(self, role: str, token: str, seconds: float) -> bool:
        """Become, or stay, the only one in a role for this long; False if another is."""
        ...

    def release(self, role: str, token: str) -> None:
        """Leave a role now, if held."""
        ...


class OwnerStore(Namespace, Partitions, Models, Protocol):
    """What is promised to the owner of partitions.

    Every commit is all or nothing, is refused to whoever no longer owns the partition, and is
    recognised when it is repeated.
    """

    def begin(self, partitions: int) -> int:
        """Begin the namespace with so many partitions; the number that it was begun with."""
        ...

    def agree_currency(self, currency: str) -> str:
        """Make a currency that of the namespace, unless it has one; the one it has now."""
        ...

    def acquire(self, partition: int, token: str) -> tuple[int, Position] | None:
        """Take a partition over: commits under any other token are refused from now on.

        Returns the number of commits so far and the position, or None if there is no state.
        """
        ...

    def create(
        self, partition: int, token: str, position: Position, *, replace: bool = False
    ) -> bool:
        """Begin a partition's state; False if there is one already.

        What was delivered before `position.output` is none of its own.

        Args:
            replace: what there is of a state gives way; False if the token does not own it.
        """
        ...

    def is_whole(self, partition: int) -> bool:
        """Whether position and users are of the same moment; asked by the owner alone.

        They are written together. They differ only where one of them was lost, or put back alone.
        """
        ...

    def commit(self, partition: int, token: str, commit: Commit) -> Answer:
        """Apply a commit whole, or not at all; waits for the answer."""
        ...

    def submit(self, partition: int, token: str, commit: Commit) -> Answer | None:
        """Hand a commit over without waiting for it to be applied.

        Returns the answer if it is known already, or None: then `collect` has it. One commit of
        a partition is under way at a time.
        """
        ...

    def collect(self, partition: int, token: str, commit: Commit) -> Answer:
        """The answer to a submitted commit; waits for it."""
        ...

    def abandon(self, partition: int) -> None:
        """Forget a commit that is under way; it may or may not be applied."""
        ...

    def delivered_to(self, partitions: Sequence[int]) -> list[int]:
        """The offset that each partition's output is delivered and acknowledged up to."""
        ...


class PublisherStore(Leases, Outboxes, OutputNotes, Protocol):
    """What is promised to whoever delivers changes."""

    def take_outbox(self, partition: int, token: str) -> int | None:
        """Take over delivering a partition's outbox.

        Returns the offset delivered up to, or None if there is no state, so nothing to take over.
        """
        ...

    def acknowledge(
        self, partition: int, token: str, entries: Sequence[str], delivered_to: int
    ) -> bool:
        """Forget delivered entries, and keep how far the output is delivered.

        False if another has taken over, or if an entry is not there (any more): then `delivered_to`
        is as before, and of the entries those that are there are forgotten, for they were delivered.
        """
        ...


class TrainerStore(Leases, Namespace, Positions, Models, Wishes, Protocol):
    """What is promised to whoever learns."""

    def statistics(self, partitions: Sequence[int]) -> list[bytes | None]:
        """The last statistics of each partition."""
        ...

    def statistics_times(self, partitions: Sequence[int]) -> list[int]:
        """The first eight bytes of each partition's statistics as a number; 0 for none."""
        ...

    def lead(self, token: str) -> None:
        """Fence every earlier trainer."""
        ...

    def put_model(
        self, token: str, model: bytes, round_ms: int, looks: bytes | None = None
    ) -> bool:
        """Store the trainer's model and round; False if the token no longer leads.

        A round may lie before the last one: a clock was ahead.

        Args:
            looks: what scores are yet to be learned from, with the same call; None leaves what there is.
        """
        ...

    def looks(self) -> bytes | None:
        """What scores are yet to be learned from; None if nothing was ever stored."""
        ...


class ReaderStore(Namespace, Partitions, Models, Outboxes, Output, Wishes, Protocol):
    """What is promised to whoever only looks: commands, the audit, an API."""

    def row(self, partition: int, user: bytes) -> bytes | None:
        """One user's row; None if there is none."""
        ...

    def rows(self, users: Sequence[tuple[int, bytes]]) -> list[tuple[bytes, Position] | None]:
        """Rows of users, each in a partition, in one exchange; None for whom there is none.

        With each comes the position of its partition, of the row's moment or a later one.
        """
        ...

    def page(
        self, partition: int, cursor: int, about: int
    ) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Some users of a partition with their rows, and the cursor to go on with; 0 is begin and end.

        From 0 to 0 every user comes who is there all the time, some perhaps twice. Any number may be
        given as a cursor: it gives somebody or nobody.

        Args:
            about: how many; there may be more or fewer.
        """
        ...


class OperatorStore(ReaderStore, OutputNotes, Protocol):
    """What is promised to a person at work.

    They look, name segments, want something of the trainer, and make good what the output lacks.
    """

    def give_name(self, segment: int, name: str) -> None:
        """Keep a name that a person gave to a segment; the trainer takes it up."""
        ...

    def want(self, tuning: bytes) -> None:
        """Leave what a person wants of the trainer, in place of what was wanted before."""
        ...


class Store(OwnerStore, PublisherStore, TrainerStore, OperatorStore, Protocol):
    """Everything: what a store is, before it is given to somebody as less."""
