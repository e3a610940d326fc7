"""Follows the model that the trainer has published.

Comes in: the store. Goes out: the newest completed round and its model; whether a partition has yet to
adopt that; which users the trainer wants to see. The two clocks are next.
"""

from __future__ import annotations

import logging

from consumers.clock import Time
from stream import metrics
from stream.learning.owner_view import OwnerView
from stream.model import Model
from stream.partition import Partition
from stream.store.promises import Models
from stream.store.state import StoreUnavailableError
from stream.sweeps import SampleRequest

log = logging.getLogger(__name__)

ROUND_CHECK_SECONDS = 0.25
"""Between two looks for a round that nobody waits for: a model is used that much later at most."""


class ModelFeed:
    """The trainer's newest state, as far as it is known.

    Attributes:
        round_ms: the newest completed round; 0 for none.

    Args:
        schema: of the features; a model of others is not taken up.
        sample_users: how many of each population the trainer wants to see.
        announced: whether a model is taken up only when it is on its topic. In live mode it must be: a
            store that goes back loses it, the trainer learns another under its name, and what owners had
            told by then would be told of a model that nobody knows. From mark to mark the same is
            learned again.
    """

    def __init__(
        self, store: Models, schema: str, sample_users: int, time: Time, *, announced: bool
    ) -> None:
        self.round_ms = 0
        self._store = store
        self._schema = schema
        self._sample_users = sample_users
        self._time = time
        self._announced = announced
        self._trainer = OwnerView()
        self._looked = 0.0

    @property
    def model(self) -> Model | None:
        """The newest model."""
        return self._trainer.model

    def look(self, every_seconds: float) -> None:
        """Fetch the trainer's state when it has completed another round; now and then, look.

        Args:
            every_seconds: less since the last look is too early for another.
        """
        now = self._time.monotonic()
        if now - self._looked < every_seconds:
            return
        self._looked = now
        try:
            self.refresh()
        except StoreUnavailableError:
            metrics.store_missed()

    def refresh(self) -> None:
        """Look now.

        Raises:
            StoreUnavailableError: the store does not answer.
        """
        if self._store.round() == self.round_ms:
            return
        found = self._store.model()
        if found is None:
            # The store rolled back to before the first round.
            self.round_ms, self._trainer = 0, OwnerView()
            return
        trainer = OwnerView.unpack(found[1])
        if trainer.model is not None and trainer.model.schema != self._schema:
            log.warning("the trainer's model is of another feature table; not adopted")
            return
        if self._announced and not trainer.is_announced:
            return
        self.round_ms, self._trainer = found[0], trainer

    def newer(self, partition: Partition) -> Model | None:
        """The trainer's model, if it is not in force in the partition."""
        model, used = self._trainer.model, partition.model
        if model is None or (used is not None and used.name == model.name):
            return None
        return model

    def sample_request(self, at_ms: int) -> SampleRequest | None:
        """Which users the trainer wants to see with statistics of a time."""
        return SampleRequest.of(self._trainer, at_ms, self._sample_users)
