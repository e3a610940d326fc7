"""Says how each review of a batch feels, and learns from those that say it themselves.

Comes in: events of some partitions, and what each partition has learned. Goes out: a column of sentiments,
NaN where nothing is known. A rating is the user's own word, and is taken for it; a text without one is judged
by the texts before it. Reviews are gone through one by one, for each teaches how the next is read: of a topic
in offset order, so it makes no difference how they were cut into batches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from stream.events import Bools, EventColumns, Floats
from stream.reviews.wording import Wording

Wordings: TypeAlias = Sequence[Wording]
"""What a partition has learned, by topic."""


def sentiments(
    parts: Sequence[tuple[Wordings, int]], events: EventColumns, repeats: Bools
) -> Floats | None:
    """The sentiment of each event; None where there is no review.

    Args:
        parts: what each partition has learned, and how many of the first events are its own; the
            events stand partition by partition.
        repeats: which events came before; nothing is learned from them again.
    """
    reviews = events.reviews
    if reviews is None:
        return None
    found = np.full(len(events), np.nan)
    ends = np.cumsum([count for _, count in parts])
    places = reviews.places
    owners = np.searchsorted(ends, places, side="right").tolist()
    fresh = ~repeats[places]
    for at in np.flatnonzero(fresh).tolist():
        place, rating, words = int(places[at]), float(reviews.rating[at]), reviews.words[at]
        wording = parts[owners[at]][0][int(events.topic[place])]
        if math.isfinite(rating):
            found[place] = rating
            if len(words) and rating:
                wording.learn(words, good=rating > 0)
        elif len(words) and wording.knows:
            found[place] = 2.0 * wording.likely_good(words) - 1.0
    return found
