"""The role that decides about campaigns: reads changes, sends triggers.

Comes in: records of `segment-changes`; orders and refunds of `purchases`, for the effect; and on `campaign-control`
who gets nothing, in which zone users are, and which campaign is paused. Goes out: rows of users, the partition's own
state and triggers for `campaign-triggers`, in one commit with the offsets (`consumers.role`).

By the wall clock nothing is decided as of a time that has passed. From mark to mark, time is that of the
changes, and what was put off is decided a mark later, because the changes of one mark come in any order.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from consumers.decode import Message
from consumers.plain import parse_time
from consumers.purchases import PurchaseReader
from consumers.role import NOTHING, Decided, Decision, OwningRole
from stream import metrics
from stream.campaigns.arms import arm_names
from stream.campaigns.changes import REFUSED
from stream.campaigns.control import Told, read_told
from stream.campaigns.decide import LAST, Decisions
from stream.campaigns.keep import Keeper
from stream.campaigns.triggers import ROLE, encoded, is_sent, triggers, triggers_outlet
from stream.campaigns.windows import Sums
from stream.config import Settings
from stream.events import Bools, Ints
from stream.hashing import partitions_of
from stream.levels.declare import step_names
from stream.records import is_of
from stream.times import EARLIEST_MS, LATEST_MS
from stream.unreadable import UNREADABLE

IDLE_MS = 60_000
"""When no purchase has come for this long, live, there is none that is not read."""


class _Sent(msgspec.Struct):
    """The fields of a trigger that was delivered."""

    id: str
    user: str
    campaign: str
    version: str
    change: str
    at: str


class _Dated(msgspec.Struct):
    """The fields by which it is known when a change happened, and whether it is one."""

    id: str
    user: str
    at: str
    to: int | None = None
    level: str | None = None


_read_dated = msgspec.json.Decoder(_Dated).decode
_read_sent = msgspec.json.Decoder(_Sent).decode


class Campaigns(Decision):
    """Campaigns on one partition of the changes.

    Args:
        number: of the partition.
        secret: of the namespace; it puts users into arms.
    """

    def __init__(self, settings: Settings, number: int, secret: bytes) -> None:
        self._settings, self._number, self._secret = settings, number, secret
        self._is_here = None if settings.worker.misplaced == "accept" else self._are_here
        self._by_marks = settings.clock.mode == "watermark"
        self._ahead_ms = round(min(settings.worker.future_seconds * 1_000, LATEST_MS))
        self._behind_ms = round(settings.clock.mark_seconds * 1_000) if self._by_marks else 0
        self._loaded: dict[bytes, bytes] = {}
        self._keeper: Keeper | None = None
        self._delivered: set[str] = set()
        self._corrected: list[int] = []
        self._reader = PurchaseReader(settings, secret)
        self._heard_ms: int | None = None

    def __len__(self) -> int:
        return len(self._loaded) if self._keeper is None else self._keeper.rows

    def load(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        self._loaded.update(rows)

    def begin(self, own: bytes, delivered: Sequence[bytes]) -> None:
        settings = self._settings
        self._keeper = Keeper(
            settings.campaigns, settings.campaign_limits, self._secret, own, self._loaded,
            step_names(settings.levels), verified=True,
        )  # fmt: skip
        self._loaded = {}
        for record in delivered:
            sent = self._own_trigger(record)
            if sent is None:
                continue
            self._delivered.add(sent.id)
            slot = self._keeper.sent(sent.user, sent.campaign, parse_time(sent.at))
            if slot is not None:
                self._corrected.append(slot)

    def _own_trigger(self, record: bytes) -> _Sent | None:
        """A trigger that the role has sent; None for what anybody else has put on its topic."""
        try:
            sent = _read_sent(record)
        except UNREADABLE:
            return None
        if not is_sent(sent.id, sent.campaign, sent.version, sent.change, sent.user, self._secret):
            return None
        return sent if EARLIEST_MS <= parse_time(sent.at) < LATEST_MS else None

    def time_ms(self, message: Message) -> int:
        """When a change happened; 0 for what is no change, which must not move the shop's clock.

        A purchase is none: it may be read long before the changes of its time.
        """
        try:
            told = _read_dated(message.value() or b"")
        except UNREADABLE:
            return 0
        is_change = told.to is not None or told.level is not None
        if not is_change or not is_of(told.id, told.user, self._secret):
            return 0
        at_ms = parse_time(told.at)
        return at_ms if EARLIEST_MS <= at_ms < LATEST_MS else 0

    def decide(self, messages: Sequence[Message], now_ms: int) -> Decided:
        keeper = self._keeper
        assert keeper is not None
        decider, windows = keeper.decider, keeper.windows
        before = _Before(
            decider.counts.copy(), decider.pairs_seen.copy(), dict(windows.sums),
            Counter(decider.reader.counts),
        )  # fmt: skip
        wall_ms = None if self._by_marks else now_ms
        by_topic: dict[str, list[Message]] = defaultdict(list)
        for message in messages:
            by_topic[message.topic()].append(message)
        topics = self._settings.topics
        told, obeyed = self._obey(by_topic[topics.control])
        bought = self._take_purchases(by_topic[topics.purchases], now_ms)
        # By marks the past is played, and nobody knows what its last moment is.
        latest_ms = LATEST_MS if wall_ms is None else min(wall_ms + self._ahead_ms + 1, LATEST_MS)
        records = (one.value() or b"" for one in by_topic[topics.changes])
        changes = keeper.read(records, latest_ms, self._is_here)
        decisions = Decisions.concatenate(
            [
                decider.decide(changes, wall_ms),
                decider.advance(now_ms - self._behind_ms, wall_ms),
            ]
        )
        keeper.forget(changes.slot)
        measured = decisions.where(decisions.counted)
        windows.opened(measured.version, measured.arm, measured.at_ms)
        known_ms = min(keeper.bought_ms, now_ms)
        closed = windows.close(known_ms, decider.take_replaced())
        corrected: Ints = np.array(self._corrected, np.int64)
        touched = np.unique(
            np.concatenate([changes.slot, decisions.slot, corrected, told, bought, closed])
        )
        if not len(touched) and not obeyed:
            # That a mark has passed is kept, for it does not come again; and how many records came to what.
            passed = self._by_marks and by_topic[topics.purchases]
            if passed or before.records != decider.reader.counts:
                return Decided(own=keeper.own(), tell=before.teller(keeper))
            return NOTHING
        self._corrected = []
        packed = keeper.pack(touched, known_ms)
        sent = [
            encoded(record)
            for record in triggers(decider, decisions, self._secret)
            if record["id"] not in self._delivered
        ]
        return Decided(packed.users, packed.rows, (), keeper.own(), sent, before.teller(keeper))

    # -- steps -----------------------------------------------------------------------------------

    def _obey(self, messages: Sequence[Message]) -> tuple[Ints, bool]:
        """Take in what people say; returns the users it was about, and whether there was anything."""
        assert self._keeper is not None
        decider, slots, obeyed = self._keeper.decider, [], False
        for message in messages:
            told = read_told(message.value() or b"")
            if told is None:
                metrics.campaign_control_unreadable()
                continue
            if told.campaign and told.paused is not None:
                obeyed = True
                decider.pause(told.campaign, paused=told.paused)
            if told.user:
                if self._is_misplaced(told.user, message.partition()):
                    # It is obeyed here, where the user may not be: nobody else reads it.
                    metrics.campaign_control_unreadable()
                zone = self._zone_of(told)
                traits = self._settings.campaign_limits.suppressing(told.traits or {})
                if told.suppressed is None and zone is UNSET and not traits:
                    continue
                obeyed = True
                slots.append(decider.users.slot_of(told.user))
                if told.suppressed is not None:
                    decider.suppress(told.user, suppressed=told.suppressed)
                decider.tell_traits(told.user, traits)
                if zone is not UNSET:
                    try:
                        decider.set_zone(told.user, zone)
                    except ValueError:
                        metrics.campaign_control_unreadable()
        return np.array(slots, np.int64), obeyed

    def _are_here(self, users: Sequence[bytes]) -> Bools:
        here: Bools = partitions_of(users, self._settings.topics.partitions) == self._number
        return here

    def _zone_of(self, told: Told) -> str | UnsetType | None:
        """The zone that is told of a user, by itself or as a trait."""
        name = self._settings.campaign_limits.zone_trait
        if told.zone is not UNSET or name is None or name not in (told.traits or {}):
            return told.zone
        assert told.traits is not None
        zone = told.traits[name]
        return None if zone is None else str(zone)

    def _is_misplaced(self, user: str, partition: int) -> bool:
        """Whether a record lies in another partition than its user's, as far as users have one."""
        if self._settings.worker.misplaced == "accept":
            return False
        home = partitions_of([user.encode()], self._settings.topics.partitions)
        return int(home[0]) != partition

    def _take_purchases(self, messages: Sequence[Message], now_ms: int) -> Ints:
        """Take in orders and refunds; returns the users whose they are."""
        keeper = self._keeper
        assert keeper is not None
        if messages:
            self._heard_ms = now_ms
            read = self._reader.read(messages)
            keeper.bought_ms = max(keeper.bought_ms, read.until_ms)
            if keeper.decider.book.measured.any():
                return keeper.buy(read)
        elif not self._by_marks:
            # Nothing has come for a while: there is nothing that is not read.
            self._heard_ms = now_ms if self._heard_ms is None else self._heard_ms
            if now_ms - self._heard_ms >= IDLE_MS:
                keeper.bought_ms = max(keeper.bought_ms, now_ms)
        return np.empty(0, np.int64)


@dataclass(frozen=True)
class _Before:
    """What was counted before a step."""

    counts: Ints
    seen: Ints
    sums: Mapping[tuple[int, int], Sums]
    records: Counter[str]

    def teller(self, keeper: Keeper) -> Callable[[], None]:
        """Tells what a step has counted, once it is committed."""
        decider = keeper.decider
        seen, counts = decider.pairs_seen - self.seen, decider.counts - self.counts
        names = [campaign.name for campaign in decider.campaigns]
        records = decider.reader.counts - self.records
        sums = {
            key: (of, self.sums.get(key, Sums()))
            for key, of in keeper.windows.sums.items()
            if of is not self.sums.get(key)
        }

        def tell() -> None:
            for reason in REFUSED:
                metrics.campaign_record_refused(reason.value, records[reason])
            for number, name in enumerate(names):
                ended = {outcome.name.lower(): int(counts[number, outcome]) for outcome in LAST}
                metrics.campaign_decided(name, int(seen[number]), ended)
            for (number, arm), (now, before) in sums.items():
                version = decider.book.versions[number]
                metrics.campaign_measured(
                    version.name,
                    arm_names(version)[arm],
                    now.users - before.users,
                    now.converted - before.converted,
                    now.active - before.active,
                    now.revenue - before.revenue,
                )

        return tell


CAMPAIGNS = OwningRole(
    ROLE,
    "Campaigns: decides what becomes of changes, and sends triggers.",
    reads=lambda settings: [
        settings.topics.changes,
        settings.topics.purchases,
        settings.topics.control,
    ],
    decision=Campaigns,
    outlet=triggers_outlet,
    # Rows have orders, zones and flags since 2, traits since 3, currencies of orders since 4.
    version="4",
)
