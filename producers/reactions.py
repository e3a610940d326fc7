"""Simulated shoppers who react to campaigns with a declared effect, so that a measured one has a truth beside it.

Comes in: triggers, and the orders that shoppers place by themselves. Goes out: orders that they place more, and
what these truly changed.

Whether a shopper reacts is a hash of the trigger's id: the same trigger has the same reaction. What they would have
done anyway is not touched by it.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Any, NamedTuple

from producers.messages import MessageProperties, TrackMessage, encode_message, topic_of
from stream.events import ORDER_COMPLETED
from stream.units import DAY_MS, iso

DELAY_DAYS = 1.5
"""A reaction comes at some time within this."""
VALUE = 40.0


class Order(NamedTuple):
    """An order to send now; fields as in `traffic.Outgoing`."""

    topic: int
    key: bytes
    value: bytes
    time_ms: int


class _Reaction(NamedTuple):
    """A trigger, and when the shopper ordered for it; None for not at all."""

    campaign: str
    arm: str
    user: str
    at_ms: int
    ordered_ms: int | None


class Truth(NamedTuple):
    """What a campaign truly changed for the users of an arm.

    Attributes:
        users: whose window is over.
        conversion: of them, with the reactions less without.
    """

    users: int
    conversion: float


class Reactions:
    """What shoppers do about triggers.

    Args:
        chances: by campaign, that a shopper places an order more.
        listen: gives the triggers that came since it was last asked.
    """

    def __init__(
        self, chances: Mapping[str, float], listen: Callable[[], Iterable[Mapping[str, Any]]]
    ) -> None:
        self._chances, self._listen = chances, listen
        self._due: list[tuple[int, str]] = []
        self._triggers: dict[str, tuple[str, str, str, int]] = {}
        self._ordered: dict[str, int] = {}
        self._by_themselves: dict[str, list[int]] = defaultdict(list)

    def ordered(self, user: str, at_ms: int) -> None:
        """A shopper ordered by themselves."""
        self._by_themselves[user].append(at_ms)

    def due(self, now_ms: int) -> list[Order]:
        """Orders to send at this time of the shop."""
        for trigger in self._listen():
            self._take(trigger, now_ms)
        orders = []
        while self._due and self._due[0][0] <= now_ms:
            _, name = heapq.heappop(self._due)
            user = self._triggers[name][2]
            self._ordered[name] = now_ms
            orders.append(_order(user, name, now_ms))
        return orders

    def truth(self, within_ms: Mapping[str, int], until_ms: int) -> dict[tuple[str, str], Truth]:
        """By campaign and arm, of users whose window was over by then.

        Args:
            within_ms: length of each campaign's window.
        """
        changed: dict[tuple[str, str], list[bool]] = defaultdict(list)
        reactions: dict[str, list[_Reaction]] = defaultdict(list)
        for name, (campaign, arm, user, at_ms) in self._triggers.items():
            reactions[user].append(_Reaction(campaign, arm, user, at_ms, self._ordered.get(name)))
        for user, mine in reactions.items():
            for one in mine:
                end_ms = one.at_ms + within_ms[one.campaign]
                if end_ms > until_ms:
                    continue
                others = [*self._by_themselves.get(user, ())]
                others += [r.ordered_ms for r in mine if r is not one and r.ordered_ms is not None]
                anyway = any(one.at_ms <= at_ms < end_ms for at_ms in others)
                reacted = one.ordered_ms is not None and one.at_ms <= one.ordered_ms < end_ms
                changed[one.campaign, one.arm].append(reacted and not anyway)
        return {key: Truth(len(of), sum(of) / len(of)) for key, of in changed.items()}

    def _take(self, trigger: Mapping[str, Any], now_ms: int) -> None:
        name = trigger["id"]
        if name in self._triggers:
            return
        at_ms = round(datetime.fromisoformat(trigger["at"]).timestamp() * 1_000)
        self._triggers[name] = trigger["campaign"], trigger["arm"], trigger["user"], at_ms
        if _draw(name, "reacts") < self._chances.get(trigger["campaign"], 0.0):
            delay_ms = round(_draw(name, "when") * DELAY_DAYS * DAY_MS)
            heapq.heappush(self._due, (now_ms + delay_ms, name))


def _draw(name: str, purpose: str) -> float:
    digest = blake2b(f"{purpose}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64


def _order(user: str, trigger: str, at_ms: int) -> Order:
    message = TrackMessage(
        ORDER_COMPLETED,
        user,
        f"reaction-{trigger}",
        iso(at_ms),
        MessageProperties(quantity=1, revenue=VALUE),
        None,
    )
    topic = topic_of(ORDER_COMPLETED)
    return Order(topic, user.encode(), encode_message(message), at_ms)
