"""What the owner of a partition reads of the trainer's state, and nothing else of it.

Comes in: the state, as the trainer has stored it. Goes out: the model to put in force, and what the
trainer wants to be told. What the trainer keeps for its own next round is skipped unread, so it may change, and
grow, without the owners.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from stream.clustering import ALL_HASHES
from stream.model import Model


@dataclass(frozen=True)
class OwnerView:
    """What an owner needs of the trainer.

    Attributes:
        model: to put in force; None before the first.
        sample_due_ms: statistics of this time and later ones bring a sample of users.
        sample_thresholds: by population, the highest hash of users who are wanted in it.
        announced: name of the newest model that is on its topic for certain; told in live mode only.
        totals_in: samples to come before one that brings what scores come to in each segment.
    """

    model: Model | None = None
    sample_due_ms: int = 0
    sample_thresholds: Mapping[str, int] = field(default_factory=dict)
    announced: str = ""
    totals_in: int = 0

    @property
    def is_announced(self) -> bool:
        """Whether nothing can lose the model any more, because it is on its topic."""
        return self.model is None or self.model.name == self.announced

    @staticmethod
    def unpack(raw: bytes) -> OwnerView:
        """Of a trainer's state as it is stored."""
        stored = msgspec.json.decode(raw, type=_Stored)
        return OwnerView(
            None if stored.model is None else Model.from_published(stored.model),
            stored.sample_due_ms,
            {name: one.sample_threshold for name, one in stored.learned.items()},
            stored.announced,
            stored.totals_in,
        )


class _StoredPopulation(msgspec.Struct):
    sample_threshold: int = ALL_HASHES


class _Stored(msgspec.Struct):
    """The fields of a stored state that are read here, by their names there."""

    model: Any
    sample_due_ms: int
    learned: dict[str, _StoredPopulation] = {}
    announced: str = ""
    totals_in: int = 0
