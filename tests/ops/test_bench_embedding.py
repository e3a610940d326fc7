"""Moves are counted by what people did, and a move back as one."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from ops.bench.embedding import BACK, PLACES, QUARTER, Played, Tally, count_moves, section
from stream.events import Floats, Ints
from stream.units import DAY_MS


def test_moves_are_of_who_acts_and_of_who_does_not() -> None:
    """The first goes away and back at once, acting; the second goes once, silent; the third stays."""
    silence = np.array([1.0, 30.0, 1.0])
    seen = Played(features=("days_since_seen", "place"))
    for week in range(QUARTER + 1):
        place = np.array([week == 3, week >= 5, 0], float)
        seen.weeks.append((week * 7 * DAY_MS, np.column_stack([silence, place])))

    def segments(some: Floats) -> Ints:
        return some[:, 1].astype(np.int64)

    tally = Tally(aucs=[0.6, 0.8], agreed=[0.5])
    count_moves(tally, seen, 0, np.arange(3), segments)
    assert tally.moves == {True: 2, False: 1}
    assert tally.weeks == {True: 2 * QUARTER, False: QUARTER}
    assert tally.back == 1, f"of the first, within {BACK} weeks"
    told = tally.told()
    assert told["auc"] == 0.7
    assert told["acting"] == 52 * 2 / (2 * QUARTER)
    text = section([{"shop": "a shop", "rows": {"mapped": told}}], datetime.now(UTC), "told")
    assert "| a shop | mapped | 0.700 | 4.0 | 4.0 | 33% | 0.50 |" in text


def test_a_bottleneck_is_as_narrow_as_it_is_called() -> None:
    random = np.random.default_rng(1)
    vectors = np.exp(random.normal(size=(300, 8)))
    for name, width in (("mapped features", 7), ("bottleneck of 3", 3)):
        into = PLACES[name](vectors, np.array([0.0, *[1.0] * 7]), 5)
        assert into(vectors[:20]).shape == (20, width)
        assert np.array_equal(
            into(vectors[:20]), PLACES[name](vectors, np.array([0.0, *[1.0] * 7]), 5)(vectors[:20])
        )
