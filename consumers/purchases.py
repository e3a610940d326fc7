"""Reads orders and refunds for whoever measures what users buy, as the activity workers read them.

Comes in: messages of the topic of purchases. Goes out: columns, and up to when all of them are known.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from consumers.decode import Block, Decoder, Message
from stream.campaigns.purchases import PurchaseColumns, Read
from stream.config import Settings
from stream.features import DEFAULT_FEATURES, FeatureTable
from stream.marks import MarkSigner


class PurchaseReader:
    """Reads one partition's purchases.

    Args:
        secret: of the namespace; it knows genuine marks.
    """

    def __init__(self, settings: Settings, secret: bytes) -> None:
        # Whatever features are declared, the built-in ones read all there is of an order.
        table = FeatureTable(DEFAULT_FEATURES, settings.worker.shop_events)
        assert table.orders is not None
        self._kinds = table.orders
        self._by_marks = settings.clock.mode == "watermark"
        self._decoder = Decoder(
            table,
            settings.worker.model_copy(update={"decoder": "plain"}),
            MarkSigner(secret) if self._by_marks else None,
            settings.clock.mark_seconds,
            settings.money,
        )
        self._has_marks = False

    def read(self, messages: Sequence[Message]) -> Read:
        """What messages say; those that cannot be read are told of by the activity workers."""
        block = self._decoder.decode(messages)
        kinds = self._kinds
        said = np.flatnonzero(block.applied)
        kind = block.kind[said]
        placed = (kind == kinds.completed) | (kind == kinds.updated)
        of_orders = placed | kinds.takes_back[kind]
        said, placed = said[of_orders], placed[of_orders]
        purchases = PurchaseColumns(
            block.order[said],
            block.id[said],
            block.time_ms[said],
            block.value[said],
            block.whole[said],
            ~placed,
            block.rate[said],
            block.currency[said],
        )
        return Read([block.users[place] for place in said.tolist()], purchases, self._until(block))

    def _until(self, block: Block) -> int:
        """Live the time of the newest record; else the last mark, or event where a log has no marks."""
        if not self._by_marks:
            return int(block.appended_ms.max(initial=0))
        if block.marks:
            self._has_marks = True
            return max(time_ms for time_ms, _ in block.marks.values())
        return 0 if self._has_marks else int(block.time_ms.max(initial=0))
