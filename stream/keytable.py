"""Numbers by 64-bit keys, for millions of keys at a time, without a Python object a key.

Comes in: columns of keys that are hashes. Goes out: where each stands; `remembered` and `orders` keep
a number there. It is a hash table with open addressing and linear probing (Knuth, 6.4), whose
steps are taken for all keys of a batch at once; or by `probing`, where that is installed.
"""

from __future__ import annotations

from functools import cache
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from stream.events import Bools, Hashes, Ints

Numbers = npt.NDArray[np.uint32]
LOAD = 0.5
"""Places in use at the most: with more, a batch takes more and more rounds of probing."""
GROWTH = 2.0
"""Of the room that is needed, when a table is full: so each key is moved about once on average."""
LEAST = 1_024


class Probing(Protocol):
    """What `stream.probing` does."""

    def put(
        self, keys: Hashes, lanes: Numbers, wanted: Hashes, whose: Numbers, places: Ints
    ) -> int: ...

    def lay(
        self,
        keys: Hashes,
        numbers: Numbers,
        lanes: Numbers,
        wanted: Hashes,
        kept: Numbers,
        whose: Numbers,
    ) -> int: ...


@cache
def compiled() -> Probing | None:
    """The compiled one; None without the extra ``segstream[fast]``."""
    try:
        from stream import probing  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    return cast("Probing", probing)


class KeyTable:
    """Places of keys, and at each place a number and who put it there.

    Nothing is taken out one by one: `rebuild` leaves out what is no longer wanted.

    Args:
        room: for how many keys.

    Attributes:
        keys: at each place; 0 where there is none.
        numbers: what is kept for the key; 0 at first.
        lanes: whose the key is.
        used: places that have a key, or a few more: equal keys of a batch are counted each.
    """

    def __init__(self, room: int = 0) -> None:
        self._probing = compiled()
        self._reset(max(LEAST, int(room * GROWTH / LOAD)))

    def _reset(self, places: int) -> None:
        # What belongs to a place lies together: in a large table each look is a miss of the cache.
        cells = np.zeros((places, 2), np.uint64)
        halves = cells.view(np.uint32)
        self.keys: Hashes = cells[:, 0]
        self.numbers: Numbers = halves[:, 2]
        self.lanes: Numbers = halves[:, 3]
        self.used = 0

    def has_room(self, more: int) -> bool:
        """Whether so many more keys can be put in as it is."""
        return self.used + more <= LOAD * len(self.keys)

    def rebuild(self, wanted: Bools, more: int) -> None:
        """Keep the wanted places only, with room for so many more keys.

        Args:
            wanted: of each place; places without a key are none.
        """
        keep = np.flatnonzero(wanted & (self.keys > 0))
        keys, numbers, lanes = self.keys[keep], self.numbers[keep], self.lanes[keep]
        needed = int((len(keys) + more) / LOAD) + 1
        roomy = int(needed * GROWTH)
        # It grows while there is some room left, or it would be rebuilt again and again; and gives
        # room back only where most of it is free.
        size = len(self.keys)
        self._reset(size if needed <= 0.8 * size <= 3 * roomy else max(roomy, LEAST))
        self._lay(keys, numbers, lanes)

    def _lay(self, keys: Hashes, numbers: Numbers, lanes: Numbers) -> None:
        """Put distinct keys into the empty table, in the order of their homes.

        Each stands at its home, or behind the one before: where `put` would have led it or another
        one. They come almost in that order from the table before, so nearly nothing is sorted, and
        memory is written from one end to the other. To put in so many by `put` takes five times as long.
        """
        if self._probing is not None:
            self.used = self._probing.lay(self.keys, self.numbers, self.lanes, keys, numbers, lanes)
            return
        homes = self._homes(keys)
        order = np.argsort(homes, kind="stable")
        count = np.arange(len(keys))
        places = np.maximum.accumulate(homes[order] - count) + count
        # The last ones may be led beyond the end: they go on from the first place.
        inside = int(np.searchsorted(places, len(self.keys)))
        places, here = places[:inside], order[:inside]
        self.keys[places], self.numbers[places], self.lanes[places] = (
            keys[here], numbers[here], lanes[here],
        )  # fmt: skip
        self.used = inside
        beyond = order[inside:]
        self.numbers[self.put(keys[beyond], lanes[beyond])] = numbers[beyond]

    def find(self, keys: Hashes) -> Ints:
        """Place of each key, -1 where it is not there."""
        places = self._homes(keys)
        active = np.arange(len(keys))
        while len(active):
            here = self.keys[places[active]]
            absent = here == 0
            places[active[absent]] = -1
            active = active[~absent & (here != keys[active])]
            self._step(places, active)
        return places

    def put(self, keys: Hashes, lanes: Numbers) -> Ints:
        """Place of each key, which is put in if it is not there; equal keys share one.

        There must be room.
        """
        if self._probing is not None:
            found = np.empty(len(keys), np.int64)
            # Columns of packed rows are not aligned, and numba would take them for another type.
            wanted, whose = np.require(keys, np.uint64, "A"), np.require(lanes, np.uint32, "A")
            self.used += self._probing.put(self.keys, self.lanes, wanted, whose, found)
            return found
        places = self._homes(keys)
        left = self._claim(places, keys, lanes)
        while len(left):
            self._step(places, left)
            left = left[self._claim(places[left], keys[left], lanes[left])]
        return places

    def _claim(self, at: Ints, keys: Hashes, lanes: Numbers) -> Ints:
        """Take places for keys, where they are free; which of the keys have to go on."""
        here = self.keys[at]
        free = np.flatnonzero(here == 0)
        if len(free):
            # Several keys may want one place: the last one written has it, the others go on.
            wanted = at[free]
            self.keys[wanted] = keys[free]
            self.lanes[wanted] = lanes[free]
            here[free] = self.keys[wanted]
        behind = np.flatnonzero(here != keys)
        self.used += int(np.count_nonzero(here[free] == keys[free]))
        return behind

    def _homes(self, keys: Hashes) -> Ints:
        """Where the search for each key begins: its upper half, scaled to the number of places."""
        scaled = (keys >> np.uint64(32)) * np.uint64(len(self.keys))
        return (scaled >> np.uint64(32)).astype(np.int64)

    def _step(self, places: Ints, active: Ints) -> None:
        """Go on to the next place, behind the last one to the first."""
        after = places[active] + 1
        after[after == len(self.keys)] = 0
        places[active] = after
