"""What a part of a user's row promises, and how features are read from rows.

Comes in: a batch, or rows at a time. Goes out: the part folded on, or columns of feature values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar, TypeAlias, TypeVar

import numpy as np

from stream.events import Floats, Rows
from stream.features.batch import Batch
from stream.rows import Layout


class Reading:
    """Rows at a time, while their features are read.

    Attributes:
        columns: features read so far, by place.
    """

    def __init__(self, rows: Rows, now_ms: int) -> None:
        self.rows = rows
        self.now_ms = now_ms
        self.columns: dict[int, Floats] = {}
        self._elapsed = np.maximum(now_ms - rows["as_of"], 0)
        self._decayed: dict[float, Floats] = {}

    def decayed(self, half_life: float) -> Floats:
        """What is left by now of each one there was when sums were brought up to date."""
        found = self._decayed.get(half_life)
        if found is None:
            left = np.exp2(self._elapsed / (-1_000 * half_life))
            found = self._decayed[half_life] = np.where(self.rows["as_of"] > 0, left, 0.0)
        return found


Read: TypeAlias = Callable[[Reading], Floats]
"""Reads a feature of each row, in natural units, without changing any."""


class Part(ABC):
    """A field of the row, and all that features keep in it.

    Attributes:
        field: its name.
    """

    field: ClassVar[str]

    @abstractmethod
    def layout(self) -> tuple[str, tuple[int, ...]]:
        """The type and shape of the field, once every feature has its place."""

    @abstractmethod
    def fold(self, batch: Batch) -> None:
        """Fold a batch into the field of `batch.mine`."""


P = TypeVar("P", bound=Part)


class Parts:
    """The parts of a table's rows: one of each kind, made when it is first asked for.

    Attributes:
        names: of all features, by place.
    """

    def __init__(self, names: tuple[str, ...], first: Iterable[type[Part]]) -> None:
        self.names = names
        self._parts: dict[type[Part], Part] = {}
        for kind in first:
            self.of(kind)

    def of(self, kind: type[P]) -> P:
        """The table's part of a kind."""
        found = self._parts.get(kind)
        if found is None:
            found = self._parts[kind] = kind()
        assert isinstance(found, kind)
        return found

    def fields(self) -> list[Layout]:
        """Of the row, in the order in which the parts were made."""
        return [(part.field, *part.layout()) for part in self._parts.values()]

    def fold(self, batch: Batch) -> None:
        """Fold a batch into all of them; none reads what another one keeps."""
        for part in self._parts.values():
            part.fold(batch)


T = TypeVar("T")


def index_of(items: list[T], item: T) -> int:
    """The item's place in the list, which takes it in if it is new."""
    if item not in items:
        items.append(item)
    return items.index(item)
