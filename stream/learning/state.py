"""What the trainer knows from round to round, and how it is stored.

Comes in: a state as `rounds` and `refit` make it. Goes out: bytes for the store, and the state again.
Owners read the same bytes as an `owner_view`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from stream.clustering import ALL_HASHES
from stream.drift import Drift
from stream.flapping import Tallies, Tally
from stream.learning.owner_view import OwnerView
from stream.lineage import Anchor
from stream.model import Axes, Model
from stream.rhythm import NOTHING_SEEN, Seen
from stream.scores.learner import NOTHING_LEARNED, Learner
from stream.scores.looks import Looks
from stream.scores.progress import Horizon
from stream.scores.step import NO_LOOKS
from stream.tuning import Tuning


class Learned(msgspec.Struct, frozen=True):
    """What the trainer knows of one population, beside what it published of it.

    Attributes:
        refit_ms: the last refit, 0 before the first.
        refit_updates: `TrainerState.updates` as of then.
        sample_threshold: owners send only users whose hash is not above it.
        users: in the population at the last round.
        drift: what has been seen since the last refit.
        challenged: refits in a row in which a challenger was clearly better.
        anchor: what ids are held against, beside the model before.
        suggested: number of segments, where that is left to what the users suggest; 0 for none yet.
        firmness: of the suggestion, see `choosing.Advice`.
        suggested_users: users of the population when it was made.
    """

    refit_ms: int = 0
    refit_updates: int = 0
    sample_threshold: int = ALL_HASHES
    users: int = 0
    drift: Drift | None = None
    challenged: int = 0
    anchor: Anchor | None = None
    suggested: int = 0
    firmness: str = ""
    suggested_users: int = 0


@dataclass(frozen=True)
class TrainerState:
    """All the trainer knows; what owners need of it is an `OwnerView`.

    Attributes:
        round_ms: the last completed round.
        updates: of users, ever, as of the last round.
        learned: by population.
        sample_due_ms, sample_due_updates: when the next sample is due, see `sample_due`.
        sizes: users published in each segment, by column of the model, at the last round.
        given: names that a person gave, by segment id.
        flapping: of everyone at the last round, by segment id.
        customers_seen: how soon customers ordered again, see `rhythm`.
        scorer: what was learned of scores; the model has what it came to.
        scored: what scores come to in each segment, by its id: customers, users, and the sum of each
            score over those of them who have it, in the order of the model's.
        totals_in: samples to come before one that tells it anew.
        came: what came of looks at the people of each segment, by horizon.
        on_steps: of each level, users on each step.
        looks: what scores are yet to be learned from; it is large, and is stored beside the rest.
        tuning: that a person wanted, from the refit on that was made for it.
        epochs_before: epochs that were told before this state began; none of them comes again.
        ids_before: the highest segment id that was told before.
        store_run: of the store's server when a trainer took the lead (live mode).
        announced: name of the newest model that is on its topic for certain (live mode).
    """

    model: Model | None = None
    round_ms: int = 0
    updates: int = 0
    learned: Mapping[str, Learned] = field(default_factory=dict)
    next_id: int = 1
    sample_due_ms: int = 0
    sample_due_updates: int = 0
    users: int = 0
    sizes: tuple[int, ...] = ()
    given: Mapping[int, str] = field(default_factory=dict)
    flapping: Tallies = field(default_factory=dict)
    customers_seen: Seen = NOTHING_SEEN
    scorer: Learner = NOTHING_LEARNED
    scored: Mapping[int, list[float]] = field(default_factory=dict)
    totals_in: int = 0
    came: tuple[Horizon, ...] = ()
    on_steps: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    looks: Looks = NO_LOOKS
    tuning: Tuning | None = None
    epochs_before: int = 0
    ids_before: int = 0
    store_run: str = ""
    announced: str = ""

    def of(self, population: str) -> Learned:
        """What is known of a population; nothing, of one that is new."""
        return self.learned.get(population, Learned())

    @property
    def owner_view(self) -> OwnerView:
        """What owners read when this state is stored."""
        thresholds = {name: known.sample_threshold for name, known in self.learned.items()}
        return OwnerView(self.model, self.sample_due_ms, thresholds, self.announced, self.totals_in)

    def pack(self, axes: Axes) -> bytes:
        told = {name: getattr(self, name) for name in _PLAIN}
        model = None if self.model is None else self.model.published(axes)
        return msgspec.json.encode({"model": model, **told})

    @staticmethod
    def unpack(raw: bytes) -> TrainerState:
        data = msgspec.json.decode(raw, type=_Packed)
        model = None if data.model is None else Model.from_published(data.model)
        return TrainerState(model=model, **{name: getattr(data, name) for name in _PLAIN})


class _Packed(msgspec.Struct):
    """`TrainerState` as it is stored; what was stored before there were populations is learned anew."""

    model: Any
    round_ms: int
    updates: int
    next_id: int
    sample_due_ms: int
    sample_due_updates: int
    users: int
    sizes: tuple[int, ...]
    given: dict[int, str]
    learned: dict[str, Learned] = {}
    flapping: dict[int, Tally] = {}
    customers_seen: Seen = NOTHING_SEEN
    scorer: Learner = NOTHING_LEARNED
    scored: dict[int, list[float]] = {}
    totals_in: int = 0
    came: tuple[Horizon, ...] = ()
    on_steps: dict[str, dict[str, int]] = {}
    tuning: Tuning | None = None
    epochs_before: int = 0
    ids_before: int = 0
    store_run: str = ""
    announced: str = ""


_PLAIN = tuple(name for name in _Packed.__struct_fields__ if name != "model")
