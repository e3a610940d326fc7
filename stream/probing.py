"""Probes the table of `keytable` a key at a time, compiled: a third of what numpy's columns take.

Comes in: a table's columns and a batch of keys. Goes out: the place of each key. The extra
``segstream[fast]``: to import this module loads numba.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import types

from stream.compiling import compiled_for
from stream.events import Hashes, Ints

Numbers = npt.NDArray[np.uint32]

_KEYS = types.Array(types.uint64, 1, "A")
_NUMBERS = types.Array(types.uint32, 1, "A")
_WANTED = types.Array(types.uint64, 1, "A", readonly=True)
_THEIRS = types.Array(types.uint32, 1, "A", readonly=True)
_HALF = np.uint64(32)
_FREE, _ONE = np.uint64(0), np.uint64(1)


@compiled_for(_KEYS, _NUMBERS, _WANTED, _THEIRS, types.int64[::1])
def put(keys: Hashes, lanes: Numbers, wanted: Hashes, whose: Numbers, places: Ints) -> int:
    """Find keys, and put in those that are not there; returns how many. There must be room.

    Args:
        keys, lanes: at the places of the table.
        whose: lane of each wanted key.
        places: takes in the place of each.
    """
    size, new = np.uint64(len(keys)), 0
    for one in range(len(wanted)):
        key = wanted[one]
        at = ((key >> _HALF) * size) >> _HALF
        while keys[at] != key:
            if keys[at] == _FREE:
                keys[at] = key
                lanes[at] = whose[one]
                new += 1
                break
            at += _ONE
            if at == size:
                at = _FREE
        places[one] = at
    return new


@compiled_for(_KEYS, _NUMBERS, _NUMBERS, _WANTED, _THEIRS, _THEIRS)
def lay(
    keys: Hashes, numbers: Numbers, lanes: Numbers, wanted: Hashes, kept: Numbers, whose: Numbers
) -> int:
    """Put distinct keys into a table that has none of them; returns how many. There must be room.

    Args:
        keys, numbers, lanes: at the places of the table.
        kept, whose: number and lane of each wanted key.
    """
    size = np.uint64(len(keys))
    for one in range(len(wanted)):
        at = ((wanted[one] >> _HALF) * size) >> _HALF
        while keys[at] != _FREE:
            at += _ONE
            if at == size:
                at = _FREE
        keys[at] = wanted[one]
        numbers[at] = kept[one]
        lanes[at] = whose[one]
    return len(wanted)
