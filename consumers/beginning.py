"""Finds a partition's state, or begins it: what it takes over, what is lost, and what may be begun anew.

Comes in: a partition and a token. Goes out: its commits so far and its position; whoever had it before is
fenced then. `take_over` is next. A state that is gone, or was put back in part, stops the worker unless the
settings accept the loss: then it begins anew, as another incarnation.
"""

from __future__ import annotations

import logging

from consumers.group import GroupMember
from consumers.owner import LOST_REMEDY, NotOursError, StateLostError, state_lost
from consumers.witness import see_nothing_lost
from stream.config import Settings
from stream.hashing import key_print
from stream.namespace import see_number
from stream.partition import Partition
from stream.store.promises import OwnerStore
from stream.store.state import Answer, Position

log = logging.getLogger(__name__)


class Beginning:
    """How one worker's partitions begin.

    Args:
        schema: of the rows.
    """

    def __init__(
        self, settings: Settings, schema: str, store: OwnerStore, member: GroupMember
    ) -> None:
        self._settings = settings
        self._topics = settings.topics.inputs
        self._schema = schema
        self._store = store
        self._member = member

    def acquire(self, number: int, token: str) -> tuple[int, Position]:
        """Fence whoever owned a partition; its commits and position, begun anew if it has none.

        Raises:
            ConfigError: the partition is beyond the number that the namespace has.
            StateLostError: its state is gone, or was made with another secret, and the settings do not
                accept that.
            NotOursError: another has taken the partition over meanwhile.
        """
        see_number(self._settings, number)
        found = self._store.acquire(number, token)
        if found is None:
            self._begin_anew(number, token)
            found = self._store.acquire(number, token)
            if found is None:
                raise state_lost(number)
        return self._see_same_secret(number, token, found)

    def again(self, number: int, token: str, before: Position) -> tuple[int, Position]:
        """Replace a partition's state by a new one; gives its commits and position.

        Args:
            before: position of the state that is replaced.

        Raises:
            NotOursError: another has taken the partition over meanwhile.
        """
        if not self._create(number, token, before.incarnation, replace=True):
            raise NotOursError(Answer.FENCED)
        begun = self._store.acquire(number, token)
        if begun is None:
            raise state_lost(number)
        return begun

    def lack_of(self, partition: Partition) -> str:
        """What a loaded partition lacks of its state, in words; empty if it is all there."""
        number, users = partition.number, partition.position.users
        if len(partition) < users:
            return (
                f"partition {number} has {len(partition)} of {users} users in the store: "
                "rows have vanished"
            )
        if not self._store.is_whole(number):
            return (
                f"the position of partition {number} and its users are not of the same moment: "
                "one was put back without the other"
            )
        if missing := partition.past.missing():
            return f"partition {number} has {missing} in the store: the others have vanished"
        return ""

    def accept(self, lack: str, remedy: str = LOST_REMEDY) -> None:
        """Go on without what is lost.

        Args:
            lack: what that is, in words.

        Raises:
            StateLostError: the settings do not accept that.
        """
        if not self._settings.store.accept_loss:
            raise StateLostError(f"{lack}. {remedy}")
        log.warning("%s; it starts anew", lack)

    def _see_same_secret(
        self, number: int, token: str, found: tuple[int, Position]
    ) -> tuple[int, Position]:
        """A partition's commits and position, if its change ids are made with our secret.

        With another secret, the same change would have another id when it is told again.
        """
        told = found[1].secret
        if told in {"", key_print(self._store.namespace_key())}:
            return found
        namespace = self._settings.store.namespace
        self.accept(
            f"partition {number} was begun with another secret of namespace {namespace}: changes "
            "told again would have other ids",
            f"Put the secret back: store.namespace_key as it was, empty if it was not "
            f"set, and then the store's key {namespace}:key from its backup; or set "
            "store.accept_loss to start this partition anew from what the log still holds",
        )
        return self.again(number, token, found[1])

    def _begin_anew(self, number: int, token: str) -> None:
        """Start a partition that has no state, unless that means that its state was lost."""
        store = self._settings.store
        before = see_nothing_lost(
            self._member, number, store.namespace, accept_loss=store.accept_loss
        )
        self._create(number, token, before)

    def _create(self, number: int, token: str, before: int, *, replace: bool = False) -> bool:
        """Begin a partition's state where the log begins; see `Store.create`.

        Args:
            before: an incarnation of it that there was.
        """
        # What retention has deleted is gone; the state stands for the rest.
        first = [self._member.extent(topic, number)[0] for topic in self._topics]
        # Whoever wrote to the output before, also under another namespace, counted from fewer records: none of
        # their ids can come again.
        _, output = self._member.extent(self._settings.topics.changes, number)
        position = Position(
            offsets=first,
            schema=self._schema,
            incarnation=max(output, before) + 1,
            first=first,
            output=output,
            known_to=output,
            secret=key_print(self._store.namespace_key()),
        )
        return self._store.create(number, token, position, replace=replace)
