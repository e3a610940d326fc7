"""Columns of users: what is known of each, by slot, with room for more users than there are.

Comes in: users by name. Goes out: a slot each, and columns to work on. `partition` keeps rows, hashes and
flags this way, and the library (`shard`) rows, hashes and vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count, repeat
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from stream.events import Ints
from stream.rows import whole

User = TypeVar("User")
Name = TypeVar("Name")
Kind: TypeAlias = tuple[npt.DTypeLike, tuple[int, ...]]
"""Type of a column, and shape of a user's value in it."""


class UserColumns(dict[str, npt.NDArray[Any]]):
    """Columns by name, all of one length; what nobody uses is zero.

    Args:
        kinds: of the columns, by name.
        room: for so many users.
    """

    def __init__(self, kinds: Mapping[str, Kind], room: int = 0) -> None:
        super().__init__(
            (name, np.zeros((room, *shape), kind)) for name, (kind, shape) in kinds.items()
        )
        self.room = room

    def resize(self, room: int) -> None:
        """Have room for so many users; those who have none are gone."""
        for name, column in self.items():
            # What is not used yet is not written to either, so it takes no memory.
            sized = np.zeros((room, *column.shape[1:]), column.dtype)
            kept = min(room, self.room)
            whole(sized)[:kept] = whole(column)[:kept]
            self[name] = sized
        self.room = room

    def close_up(self, holes: Ints, movers: Ints, before: int, after: int) -> None:
        """Move users to slots that are free, where so many are left of so many before."""
        for column in self.values():
            column[holes] = column[movers]
            column[after:before] = np.zeros(1, column.dtype)  # whoever comes next is new


class Slots(dict[User, int], Generic[User, Name]):
    """User to slot; an unknown user gets the next one.

    Attributes:
        names: of users, by slot.

    Args:
        name: gives the name that a user is kept by.
    """

    def __init__(self, name: Callable[[User], Name]) -> None:
        super().__init__()
        self.names: list[Name] = []
        self._name = name

    def __missing__(self, user: User) -> int:
        slot = self[user] = len(self.names)
        self.names.append(self._name(user))
        return slot

    def find(self, users: Sequence[User]) -> Ints:
        """Slot of each user; -1 of whom nothing is known."""
        return np.fromiter(map(self.get, users, repeat(-1)), np.int64, len(users))

    def find_or_give(self, users: Sequence[User]) -> Ints:
        """Slot of each user; unknown ones get one."""
        return np.fromiter(map(self.__getitem__, users), np.int64, len(users))


class TextSlots(Slots[str, bytes]):
    """Slots of users who are texts, and kept in UTF-8."""

    def __init__(self) -> None:
        super().__init__(str.encode)

    def take_in(self, users: list[bytes]) -> list[bytes]:
        """Give slots to users, each named once; returns those that had none yet."""
        texts = list(map(bytes.decode, users))
        if not self.keys().isdisjoint(texts):
            users = [user for user, text in zip(users, texts, strict=True) if text not in self]
            texts = list(map(bytes.decode, users))
        self.update(zip(texts, count(len(self.names))))
        self.names += users
        return users


class PlainSlots(Slots[Any, Any]):
    """Slots of users who are kept as they are, and may leave."""

    def __init__(self) -> None:
        super().__init__(lambda user: user)

    def drop(self, gone: Ints) -> tuple[Ints, Ints]:
        """Forget users, by slot; the last ones take their places.

        Returns:
            The places that are taken, and the slots that their new users had.
        """
        before, after = len(self.names), len(self.names) - len(gone)
        for slot in gone.tolist():
            del self[self.names[slot]]
        holes = gone[gone < after]
        movers: Ints = np.setdiff1d(np.arange(after, before), gone)
        for hole, slot in zip(holes.tolist(), movers.tolist(), strict=True):
            self.names[hole] = self.names[slot]
            self[self.names[hole]] = hole
        del self.names[after:]
        return holes, movers
