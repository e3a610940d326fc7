"""Decides how segstream itself stands in the benchmark, and nothing about how it learns.

`Segstream` makes a `Method` of anything that is `SegmenterLike`; `segstream` says which: the library's
class. It stands three times: told the window within which the judge calls a user active, which is the one
setting that matters; told nothing, so that nobody is ever forgotten; and with one margin between all segments.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ops.bench.learning.generator import Stream
from stream.events import Floats, Ints
from stream.segmenter import LEARNING, PUBLISH, Segmenter


class SegmenterLike(Protocol):
    """What is asked of it."""

    def update(self, users: Ints, vectors: Floats, time: float) -> object:
        """Learn from a micro-batch and publish."""

    def segment_of(self, users: Ints) -> Ints:
        """Published ids, 0 for none."""

    def assign(self, vectors: Floats) -> Ints:
        """Id of the nearest centroid."""

    @property
    def centroids(self) -> Floats:
        """In natural units."""

    @property
    def ids(self) -> Ints:
        """Of the centroids."""


class Segstream:
    """A segmenter as a `Method`."""

    def __init__(self, segmenter: SegmenterLike) -> None:
        self._segmenter = segmenter

    def update(self, users: Ints, vectors: Floats, time: float) -> None:
        self._segmenter.update(users, vectors, time)

    def labels(self, users: Ints) -> Ints:
        found = self._segmenter.segment_of(users)
        return np.where(found == 0, -1, found)

    def assign(self, vectors: Floats) -> Ints:
        return self._segmenter.assign(vectors)

    def centroids(self) -> tuple[Ints, Floats]:
        return self._segmenter.ids, self._segmenter.centroids


def segstream(
    stream: Stream,
    k: int,
    seed: int,
    workers: int = 1,
    *,
    forgets: bool = True,
    one_margin: bool = False,
) -> Segstream:
    """Ours, left to its defaults but for the seed.

    Args:
        forgets: whether it is told for how long a silent user counts as active.
        one_margin: whether near segments ask for no greater margin than others.
    """
    learning = LEARNING.model_copy(update={"seed": seed})
    return Segstream(
        Segmenter(
            stream.features,
            k,
            forget_after=stream.active_seconds if forgets else None,
            learning=learning,
            publish=PUBLISH.model_copy(update={"apart": 0.0}) if one_margin else PUBLISH,
            workers=workers,
        )
    )
