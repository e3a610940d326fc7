"""The role that decides about campaigns: reads changes, sends triggers.

Comes in: records of `segment-changes`. Goes out: rows of users, the partition's own state and triggers for
`campaign-triggers`, in one commit with the offsets (`consumers.role`).

By the wall clock nothing is decided as of a time that has passed. From mark to mark, time is that of the
changes, and what was put off is decided a mark later, because the changes of one mark come in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from consumers.decode import Message
from consumers.plain import parse_time
from consumers.role import NOTHING, Decided, Decision, OwningRole
from stream import metrics
from stream.campaigns.decide import LAST, Decisions
from stream.campaigns.keep import Keeper
from stream.campaigns.triggers import ROLE, encoded, triggers, triggers_outlet
from stream.config import Settings
from stream.events import Ints


class _Sent(msgspec.Struct):
    """The fields of a trigger that was delivered."""

    id: str
    user: str
    campaign: str
    at: str


class _Dated(msgspec.Struct):
    """The fields by which it is known when a change happened."""

    to: int
    at: str


_read_dated = msgspec.json.Decoder(_Dated).decode
_read_sent = msgspec.json.Decoder(_Sent).decode


class Campaigns(Decision):
    """Campaigns on one partition of the changes.

    Args:
        secret: of the namespace; it puts users into arms.
    """

    def __init__(self, settings: Settings, secret: bytes) -> None:
        self._settings, self._secret = settings, secret
        self._by_marks = settings.clock.mode == "watermark"
        self._behind_ms = round(settings.clock.mark_seconds * 1_000) if self._by_marks else 0
        self._loaded: dict[bytes, bytes] = {}
        self._keeper: Keeper | None = None
        self._delivered: set[str] = set()
        self._corrected: list[int] = []

    def __len__(self) -> int:
        return len(self._loaded) if self._keeper is None else self._keeper.rows

    def load(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        self._loaded.update(rows)

    def begin(self, own: bytes, delivered: Sequence[bytes]) -> None:
        settings = self._settings
        self._keeper = Keeper(
            settings.campaigns, settings.campaign_limits, self._secret, own, self._loaded
        )
        self._loaded = {}
        for record in delivered:
            sent = _read_sent(record)
            self._delivered.add(sent.id)
            slot = self._keeper.sent(sent.user, sent.campaign, parse_time(sent.at))
            if slot is not None:
                self._corrected.append(slot)

    def decide(self, messages: Sequence[Message], now_ms: int) -> Decided:
        keeper = self._keeper
        assert keeper is not None
        decider = keeper.decider
        before_counts, before_seen = decider.counts.copy(), decider.pairs_seen.copy()
        wall_ms = None if self._by_marks else now_ms
        changes = decider.reader.decode(message.value() or b"" for message in messages)
        changes = changes.where(keeper.fresh(changes.slot, changes.incarnation, changes.version))
        made = [
            decider.decide(changes, wall_ms),
            decider.advance(now_ms - self._behind_ms, wall_ms),
        ]
        decisions = Decisions.concatenate(made)
        corrected: Ints = np.array(self._corrected, np.int64)
        touched = np.unique(np.concatenate([changes.slot, decisions.slot, corrected]))
        if not len(touched):
            return NOTHING
        self._corrected = []
        packed = keeper.pack(touched)
        records = [
            encoded(record)
            for record in triggers(decider, decisions, self._secret)
            if record["id"] not in self._delivered
        ]
        seen, counts = decider.pairs_seen - before_seen, decider.counts - before_counts
        names = [campaign.name for campaign in decider.campaigns]

        def tell() -> None:
            for number, name in enumerate(names):
                ended = {outcome.name.lower(): int(counts[number, outcome]) for outcome in LAST}
                metrics.campaign_decided(name, int(seen[number]), ended)

        return Decided(packed.users, packed.rows, (), keeper.own(), records, tell)


def change_time(message: Message) -> int:
    """When a change happened; 0 for what is no change, which must not move the shop's clock."""
    try:
        return parse_time(_read_dated(message.value() or b"").at)
    except msgspec.MsgspecError:
        return 0


CAMPAIGNS = OwningRole(
    ROLE,
    "Campaigns: decides what becomes of changes, and sends triggers.",
    reads=lambda settings: [settings.topics.changes],
    decision=lambda settings, _number, secret: Campaigns(settings, secret),
    outlet=triggers_outlet,
    time_ms=change_time,
)
