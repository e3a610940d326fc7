"""What the trainer knows from round to round, and how it is stored.

Comes in: a state as `rounds` and `refit` make it. Goes out: bytes for the store, and the state again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from stream.drift import Drift
from stream.flapping import Tallies, Tally
from stream.lineage import Anchor
from stream.model import Axes, Model
from stream.rhythm import NOTHING_SEEN, Seen
from stream.tuning import Tuning

ALL_HASHES = (1 << 64) - 1


@dataclass(frozen=True)
class TrainerState:
    """All the trainer knows; what owners and readers need of it is in here too.

    Attributes:
        round_ms: the last completed round.
        refit_ms: the last refit, 0 before the first.
        updates: of users, ever, as of the last round.
        refit_updates: the same as of the last refit.
        sample_due_ms, sample_due_updates: when the next sample is due, see `sample_due`.
        sample_threshold: owners send only users whose hash is not above it.
        sizes: users published in each segment, by column of the model, at the last round.
        drift: what has been seen since the last refit.
        challenged: refits running in which a challenger was clearly better.
        anchor: what ids are held against, beside the model before.
        given: names that a person gave, by segment id.
        flapping: of everyone at the last round, by segment id.
        customers_seen: how soon customers ordered again, see `rhythm`.
        tuning: that a person wanted, from the refit on that was made for it.
        epochs_before: epochs that were told before this state began; none of them comes again.
        ids_before: the highest segment id that was told before.
        store_run: of the store's server when a trainer took the lead (live mode).
    """

    model: Model | None = None
    round_ms: int = 0
    refit_ms: int = 0
    updates: int = 0
    refit_updates: int = 0
    next_id: int = 1
    sample_due_ms: int = 0
    sample_due_updates: int = 0
    sample_threshold: int = ALL_HASHES
    users: int = 0
    sizes: tuple[int, ...] = ()
    drift: Drift | None = None
    challenged: int = 0
    anchor: Anchor | None = None
    given: Mapping[int, str] = field(default_factory=dict)
    flapping: Tallies = field(default_factory=dict)
    customers_seen: Seen = NOTHING_SEEN
    tuning: Tuning | None = None
    epochs_before: int = 0
    ids_before: int = 0
    store_run: str = ""

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
    """`TrainerState` as it is stored."""

    model: Any
    round_ms: int
    refit_ms: int
    updates: int
    refit_updates: int
    next_id: int
    sample_due_ms: int
    sample_due_updates: int
    sample_threshold: int
    users: int
    sizes: tuple[int, ...]
    drift: Drift | None
    challenged: int
    anchor: Anchor | None
    given: dict[int, str]
    flapping: dict[int, Tally] = {}
    customers_seen: Seen = NOTHING_SEEN
    tuning: Tuning | None = None
    epochs_before: int = 0
    ids_before: int = 0
    store_run: str = ""


_PLAIN = tuple(name for name in _Packed.__struct_fields__ if name != "model")
