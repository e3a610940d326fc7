"""Columns of users: what is known of each, by slot, with room for more users than there are.

Comes in: users by name. Goes out: a slot each, and columns to work on; `partition` keeps rows, hashes and flags
this way.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

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
            # As they lie in memory: numpy would copy rows a field at a time.
            whole = np.dtype((np.void, column.dtype.itemsize))
            sized.view(whole)[:kept] = column.view(whole)[:kept]
            self[name] = sized
        self.room = room


class Slots(dict[str, int]):
    """User to slot; an unknown user gets the next one.

    Attributes:
        names: of users, in UTF-8, by slot.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: list[bytes] = []

    def __missing__(self, user: str) -> int:
        slot = self[user] = len(self.names)
        self.names.append(user.encode())
        return slot

    def take_in(self, users: list[bytes]) -> list[bytes]:
        """Give slots to users, each named once; returns those that had none yet."""
        texts = list(map(bytes.decode, users))
        if not self.keys().isdisjoint(texts):
            users = [user for user, text in zip(users, texts, strict=True) if text not in self]
            texts = list(map(bytes.decode, users))
        self.update(zip(texts, count(len(self.names))))
        self.names += users
        return users
