"""Recomputes the truth from the whole log, slowly and obviously.

Comes in: raw messages, one at a time, in offset order. Goes out: what became of each, and every
user's features at a time; `consumers/audit` and the tests hold the pipeline to it. Nothing here
is shared with the code it judges but the declared features, the hash of a text and the words.

What a message becomes, the first that fits:

1. where `worker.unwrap` names a field and an object is there, that is the message; without a value it is *empty*, over the limit *too large*, cut short *truncated*, otherwise no
   UTF-8 JSON *not json*;
2. what says that it is a mark is *ignored* where the wall clock rules; elsewhere it is a *forged
   mark* unless it is signed for its topic and partition, *bad time* if one of its times is (6), or
   if the time it ends had not begun when it was sent, otherwise a mark; what is no `track`
   (identify, page .., and of any other type what names no event) is *ignored*;
3. without an event's name it is *missing field*, with one that is no text *wrong type*;
4. a name that no feature watches is *ignored*, whatever else there is;
5. nobody to count it for is *no user*, or *placeholder user*; one that has half a character is *not
   json*, one that is too long *out of range*;
6. a time that is not ISO 8601 with a zone, or outside 1995 to 2099, is *bad time*, none at all
   *missing field*;
7. where value and quantity are read, what decides them is *bad number*, *wrong type*, *out of range*
   or in an *unknown currency* if it is no good; see `oracle_reading`;
8. a time long before the record's is *late*; long after, it is clamped to the record's. A record's
   time outside the range of point 6, or ten years older than an event that is not after the wall
   clock, limits nothing. In a record after the wall clock, or one that limits nothing, a time after
   the wall clock is clamped to that, and not even then too late for it;
9. in another partition than that of its user, it is *misplaced*, where that is looked at;
10. a message id that counted before, of the same user and topic, is a *duplicate* as long as it is
   remembered (see `Topic`); so is an order that says nothing new of itself (see `OracleOrder`); an
   id of 0 is none;
11. everything else is *applied*.
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b, sha256
from time import time_ns
from typing import Any, NamedTuple

from stream.config import Money, Reviews, Worker
from stream.events import Counts, Reason
from stream.features import BUCKETS, SAME_OCCASION_DAYS, SESSION_GAP_MS, Feature
from stream.hashing import partition_of
from stream.oracle_reading import (
    FIRST_YEAR,
    LAST_YEAR,
    Reader,
    RefusedError,
    parse_object,
    parse_time,
    unwrapped,
)
from stream.units import DAY_MS

CLICKSTREAM = 0
"""Index of the topic whose messages make sessions."""
TEN_YEARS_DAYS = 3_652
PLACED, UPDATED = "Order Completed", "Order Updated"
REFUNDED, CANCELLED = "Order Refunded", "Order Cancelled"
EIGHTHS = 8
"""Of the time that something is remembered; it is forgotten an eighth after another."""
REACHED = 1.0 - 1e-9
"""Of an order's value: parts that add up to this much have taken all of it back."""
RATED_TEXTS = 10
"""Of good reviews, and of bad ones, before anything is said of a text without a rating."""
NEAR_NOTHING = 1e-6
"""A mean or ratio over this little or less has nothing to tell."""

_OTHER_TYPES = (b"identify", b"page", b"screen", b"group", b"alias")
_FIRST_MS = int(datetime(FIRST_YEAR, 1, 1, tzinfo=UTC).timestamp()) * 1_000
_END_MS = int(datetime(LAST_YEAR + 1, 1, 1, tzinfo=UTC).timestamp()) * 1_000


# -- one message -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Message:
    """What is needed of a Kafka record.

    Attributes:
        topic: index of the input topic.
        timestamp_ms: of the record; None if it has none. One that no event may have is none.
        place: name of the topic and partition, for which marks are signed.
    """

    value: bytes | None
    timestamp_ms: int | None
    topic: int
    place: tuple[str, int] = ("", 0)


class Event(NamedTuple):
    """A message worth counting.

    Attributes:
        id: hash of the message id.
        category: hash of the category, 0 for none.
        clamped: whether the time was cut back from the future.
        order: hash of the order id, 0 for none.
        whole: whether it takes back what is left of its order.
        rate: what a unit of its money is worth in the reporting currency.
        in_own: whether its money is in the currency of its order, whichever that is.
        currency: that it is in, as far as it says; empty for a sum in several, or where there is one only.
        recorded_ms: time of its record; 0 if that has none.
        rating: of a review, from -1 to 1; None for none.
        words: of the text of a review, as buckets.
    """

    user: str
    topic: int
    name: str
    time_ms: int
    id: int
    value: float
    quantity: float
    category: int
    clamped: bool = False
    order: int = 0
    whole: bool = False
    rate: float = 1.0
    in_own: bool = False
    currency: str = ""
    recorded_ms: int = 0
    rating: float | None = None
    words: tuple[int, ...] = ()


class Marks(NamedTuple):
    """What is needed to know the genuine marks of the shop's clock.

    Attributes:
        key: the namespace's secret.
        seconds: from one mark to the next.
    """

    key: bytes
    seconds: float


class Fate(StrEnum):
    """What becomes of a message."""

    MARK = "mark"
    REJECTED = "rejected"
    IGNORED = "ignored"
    LATE = "late"
    DUPLICATE = "duplicate"
    APPLIED = "applied"


class Outcome(NamedTuple):
    """Fate of a message: with a reason if it is refused, with the event if it is counted."""

    fate: Fate
    reason: Reason | None = None
    event: Event | None = None


class Judge:
    """Decides about messages one by one, knowing the limits and which events are watched.

    Args:
        marks: where the shop's clock goes by marks; else None.
        now_ms: by the wall clock, when the log was read; None asks the machine's.
        partitions: how many a topic has; 0 where nobody looks where users lie.
        money: the reporting currency, and what others are worth in it.
        ratings: which there are.
        agreed: where none is declared, the one that was named first; empty where nobody named one.
    """

    def __init__(
        self,
        features: Sequence[Feature],
        worker: Worker,
        marks: Marks | None = None,
        now_ms: int | None = None,
        partitions: int = 0,
        money: Money | None = None,
        ratings: Reviews | None = None,
        agreed: str = "",
    ) -> None:
        self._marks = marks
        self._now_ms = now_ms
        self._partitions = partitions if worker.misplaced == "refuse" else 0
        self._reader = Reader(
            features, names_of(features), names_read(features), worker, money or Money(),
            ratings or Reviews(), agreed,
        )  # fmt: skip
        self._worker = worker

    def convert_by(self, money: Money) -> None:
        """From here on currencies are worth what these settings say."""
        self._reader.convert_by(money)

    def judge(self, message: Message) -> Outcome:
        """What becomes of a message; a duplicate is still *applied* here, see `Oracle`."""
        try:
            return self._judge(message)
        except RefusedError as refused:
            return Outcome(Fate.REJECTED, refused.reason)

    def _judge(self, message: Message) -> Outcome:
        if not message.value:
            raise RefusedError(Reason.EMPTY)
        if len(message.value) > self._worker.message_bytes:
            raise RefusedError(Reason.TOO_LARGE)
        track = unwrapped(parse_object(message.value), self._worker.unwrap)
        kind = track.get("type")
        if kind == "segstream-mark":
            return self._judge_mark(track, message.place)
        if _is_another_type(kind, names_event=track.get("event") is not None):
            return Outcome(Fate.IGNORED)
        said = self._reader.read(track)
        if said is None:
            return Outcome(Fate.IGNORED)
        counts_at = self._counts_at(said.time_ms, message.timestamp_ms)
        if counts_at is None:
            return Outcome(Fate.LATE)
        recorded_ms = self._recorded_at(said.time_ms, counts_at, message.timestamp_ms)
        is_at = partition_of(said.user.encode(), self._partitions) if self._partitions else None
        if is_at is not None and is_at != message.place[1]:
            raise RefusedError(Reason.MISPLACED)
        event = Event(
            user=said.user,
            topic=message.topic,
            name=said.name,
            time_ms=counts_at,
            id=said.id,
            value=said.value,
            quantity=said.quantity,
            category=said.category,
            clamped=counts_at < said.time_ms,
            order=said.order,
            whole=said.whole,
            rate=said.rate,
            in_own=said.in_own,
            currency=said.currency,
            recorded_ms=recorded_ms,
            rating=said.rating,
            words=said.words,
        )
        return Outcome(Fate.APPLIED, event=event)

    def _recorded_at(self, time_ms: int, counts_at: int, record_ms: int | None) -> int:
        """The time of a record: the event's where it limits nothing, and never after the wall clock."""
        now_ms = time_ns() // 1_000_000 if self._now_ms is None else self._now_ms
        present_ms = now_ms + int(self._worker.future_seconds * 1_000)
        if record_ms is None or not _FIRST_MS <= record_ms < _END_MS:
            return counts_at
        if time_ms <= present_ms and time_ms - record_ms > TEN_YEARS_DAYS * DAY_MS:
            return counts_at
        return now_ms if record_ms > present_ms else record_ms

    def _counts_at(self, time_ms: int, record_ms: int | None) -> int | None:
        """When an event counts, by its own time and its record's; None if it is late."""
        tolerance_ms = int(self._worker.future_seconds * 1_000)
        late_ms = int(self._worker.late_seconds * 1_000)
        now_ms = time_ns() // 1_000_000 if self._now_ms is None else self._now_ms
        in_future = time_ms > now_ms + tolerance_ms
        if record_ms is None or not _FIRST_MS <= record_ms < _END_MS:
            return now_ms if in_future else time_ms
        if not in_future and time_ms - record_ms > TEN_YEARS_DAYS * DAY_MS:
            return time_ms
        if record_ms > now_ms + tolerance_ms:
            if time_ms < now_ms - late_ms:
                return None
            return now_ms if in_future else time_ms
        if time_ms < record_ms - late_ms:
            return None
        return min(time_ms, record_ms + tolerance_ms)

    def _judge_mark(self, mark: Mapping[str, Any], place: tuple[str, int]) -> Outcome:
        if self._marks is None:
            return Outcome(Fate.IGNORED)
        key = blake2b(self._marks.key, digest_size=32, person=b"segstream-marks").digest()
        timestamp, sent_at = mark.get("timestamp"), mark.get("sentAt")
        signed = f"{place[0]}\n{place[1]}\n{timestamp}\n{sent_at}".encode()
        if mark.get("signature") != hmac.new(key, signed, sha256).hexdigest():
            raise RefusedError(Reason.FORGED_MARK)
        time_ms, sent_ms = parse_time(str(timestamp)), parse_time(str(sent_at))
        ahead = int(self._marks.seconds * 1_000) + int(self._worker.future_seconds * 1_000)
        if time_ms > sent_ms + ahead:
            raise RefusedError(Reason.BAD_TIME)
        return Outcome(Fate.MARK)


def _is_another_type(kind: Any, *, names_event: bool) -> bool:
    """Whether a message of this type is no `track`; one without a type, or of a strange one, may be."""
    if not isinstance(kind, str):
        return False
    name = kind.strip(" \t\n\r\v\f").encode(errors="surrogatepass").lower()
    return name in _OTHER_TYPES or (name not in (b"", b"track") and not names_event)


# -- one user --------------------------------------------------------------------------------


class Applied(NamedTuple):
    """An event as it counted.

    Attributes:
        opens: whether it opened a session.
        browsed_seconds: since the click before, 0 if that was another session.
        acts: whether the user did it, and not the shop.
        is_order: whether it tells of an order, whose amounts are kept with the order.
        is_update: whether it corrects an order, and counts by itself only where it is named.
        arrived: whether a message says so itself; of an order, a correction may be all there is.
        sentiment: of a review; None for none that is known.
    """

    name: str
    time_ms: int
    value: float
    quantity: float
    category: int
    opens: bool = False
    browsed_seconds: float = 0.0
    acts: bool = True
    is_order: bool = False
    is_update: bool = False
    topic: int = CLICKSTREAM
    arrived: bool = True
    sentiment: float | None = None


class Amounts(NamedTuple):
    """What an order counts: as it was placed, and what is left of it."""

    time_ms: int
    value: float
    quantity: float
    orders_left: float
    value_left: float
    quantity_left: float


class Statement(NamedTuple):
    """What a message said of an order.

    Attributes:
        amounts: value and quantity, in the currency it was said in; None if it changes neither.
        unit: worth of a unit of the currency that it names; None if it names none.
        otherwise: the same of the currency that is meant where no message names one.
        currency: that it names, or that is meant where no message names one.
        late: whether the order itself came only now, after an update of it.
    """

    time_ms: int
    amounts: tuple[float, float] | None
    unit: float | None
    otherwise: float
    currency: str
    late: bool = False


@dataclass
class OracleOrder:
    """An order: everything that was said of it, and everything that was taken back.

    Attributes:
        identity: its id, or that of its first message, or nothing.
        step: of the topic's clock at its first message.
        said: by every message that places or corrects it.
        refunds: (value, quantity, whether the value is in the order's currency) of each.
        heard: first currency that a refund named before there was an order, and what it was worth.
        all_back: whether a refund without an amount has taken all of it back.
        past: what it counted before it was corrected.
        amounts: what it counts; None as long as nobody has said that there is such an order.
    """

    identity: tuple[str, int] | None
    step: int
    said: list[Statement] = field(default_factory=list)
    placed: bool = False
    refunds: list[tuple[float, float, bool]] = field(default_factory=list)
    heard: tuple[str, float] = ("", 1.0)
    all_back: bool = False
    past: list[Amounts] = field(default_factory=list)
    amounts: Amounts | None = None

    @property
    def has_name(self) -> bool:
        return self.identity is not None and self.identity[0] == "order"

    @property
    def money(self) -> tuple[str, float]:
        """Its currency, the one that was named last, and what a unit of it is worth."""
        named = [one for one in self.said if one.unit is not None]
        for one in [one for one in reversed(named) if not one.late] + named[:1]:
            assert one.unit is not None
            return one.currency, one.unit
        return (self.said[0].currency, self.said[0].otherwise) if self.said else self.heard

    @property
    def rate(self) -> float:
        return self.money[1]

    def unit_of(self, event: Event) -> float:
        """What a unit of a message's money is worth here: of the order's own currency what it first was."""
        currency, unit = self.money
        return unit if currency and event.currency == currency else event.rate

    def _counted(self) -> Amounts | None:
        """What it counts by everything that was said and taken back."""
        if not self.said:
            return None
        time, rate = min(one.time_ms for one in self.said), self.rate
        last = [one for one in self.said if one.amounts is not None][-1]
        assert last.amounts is not None
        value = last.amounts[0] * (rate if last.unit is None else last.unit)
        quantity = last.amounts[1]
        back = sum(value * rate if own else value for value, _, own in self.refunds)
        pieces = sum(pieces for _, pieces, _ in self.refunds)
        if self.all_back or (back > 0 and back >= REACHED * value):
            return Amounts(time, value, quantity, 0.0, 0.0, 0.0)
        left = quantity - min(pieces, quantity)
        return Amounts(time, value, quantity, 1.0, value - back, left)

    def say(self, event: Event, placed: bool) -> bool:
        """Take in a message; False if it says nothing new."""
        before, first = self.amounts, placed and not self.placed
        silent, late = event.whole and before is not None, False
        if before is not None:
            # The updates that came first have happened later.
            late = first and before.value > 0
            late = late and all(event.time_ms < one.time_ms for one in self.said)
        amounts = None if silent or late else (event.value / event.rate, event.quantity)
        unit = self.unit_of(event)
        named = None if event.in_own else unit
        self.said.append(Statement(event.time_ms, amounts, named, unit, event.currency, late))
        self.placed = self.placed or placed
        now = self._counted()
        if before is not None and now is not None and not first and _is_same(now, before):
            self.said.pop()
            return False
        self._becomes(now)
        return True

    def hear(self, event: Event) -> float:
        """A refund says something of the order's currency; what a unit of its money is worth here."""
        if not self.said and not self.heard[0] and event.currency and not event.in_own:
            self.heard = event.currency, event.rate
        return self.unit_of(event)

    def take_back(self, value: float, quantity: float, whole: bool, *, own: bool = False) -> None:
        self.refunds.append((value, quantity, own))
        self.all_back = self.all_back or whole
        self._becomes(self._counted())

    def _becomes(self, now: Amounts | None) -> None:
        if self.amounts is not None:
            self.past.append(self.amounts)
        self.amounts = now


def _is_same(now: Amounts, before: Amounts) -> bool:
    """Whether an order counts what it did; currencies that were converted may differ in a digit."""
    amounts = zip(now[1:], before[1:], strict=True)
    same = all(math.isclose(new, old, rel_tol=1e-12) for new, old in amounts)
    return same and now.time_ms == before.time_ms


@dataclass
class Topic:
    """The clock of a topic, and the message ids that are remembered by it.

    Attributes:
        clock_ms: the largest time of a record so far.
        ids: (user, id) by step, an eighth of the time to remember.
    """

    remember_ms: int
    clock_ms: int = 0
    ids: dict[int, set[tuple[str, int]]] = field(default_factory=dict)
    step: int = -1

    def tick(self, recorded_ms: int, most: int) -> None:
        """A record was read: where a step begins, forget what is too old, or too much."""
        self.clock_ms = max(self.clock_ms, recorded_ms)
        step = self.clock_ms // (self.remember_ms // EIGHTHS)
        if step == self.step:
            return
        begins, self.step = self.step >= 0, step
        for old in [old for old in self.ids if old < step - EIGHTHS]:
            del self.ids[old]
        while begins and sum(map(len, self.ids.values())) > most:
            del self.ids[min(self.ids)]

    def came_before(self, user: str, message: int) -> bool:
        """Whether a message came before; if not, it is remembered."""
        if any((user, message) in ids for ids in self.ids.values()):
            return True
        self.ids.setdefault(self.step, set()).add((user, message))
        return False


class Reading(NamedTuple):
    """A feature's value.

    Attributes:
        scale: size of the numbers it was computed from: what rounding is relative to, so that
            an order and its refund may leave a rest.
        undecided: it divides by what rounding alone puts on this or that side of nothing.
    """

    value: float
    scale: float
    undecided: bool = False

    def agrees(self, other: float, relative: float, absolute: float = 0.0) -> bool:
        """Whether another computation came to the same, but for rounding."""
        allowed = relative * max(abs(self.value), self.scale) + absolute
        return self.undecided or abs(other - self.value) <= allowed


@dataclass
class OracleUser:
    """Everything a user ever did, and what is needed to judge the next message.

    Attributes:
        events: applied ones, of each topic in offset order.
        orders: by topic, in the order in which they were first heard of.
        arrivals: how many messages there were, duplicates included, by topic.
        click_ms: newest time of a click; None before the first.
        as_of_ms: newest time of anything that counted; 0 before the first.
    """

    events: list[Applied] = field(default_factory=list)
    orders: tuple[list[OracleOrder], list[OracleOrder]] = field(default_factory=lambda: ([], []))
    arrivals: list[int] = field(default_factory=lambda: [0, 0])
    click_ms: int | None = None
    as_of_ms: int = 0

    @property
    def first_ms(self) -> int:
        return min((event.time_ms for event in self.events if event.acts), default=0)

    @property
    def seen_ms(self) -> int:
        """Newest time at which the user did something; 0 if only the shop did."""
        return max((event.time_ms for event in self.events if event.acts), default=0)

    def fold_event(
        self, event: Event, step: int, rules: Rules, sentiment: float | None = None
    ) -> bool:
        """Count an event that did not come before; False if it says nothing new of its order.

        Args:
            step: of the topic's clock, by which orders are remembered.
            sentiment: of a review.
        """
        acts = event.name not in rules.shop
        if rules.orders and event.name in (PLACED, UPDATED):
            if not self._order(event, step, acts):
                return False
        else:
            if rules.orders and event.name in (REFUNDED, CANCELLED):
                event = event._replace(value=self._refund(event, step))
            self._happen(event, acts, sentiment=sentiment)
        self.as_of_ms = max(self.as_of_ms, event.time_ms)
        return True

    def _happen(
        self,
        event: Event,
        acts: bool,
        *,
        is_order: bool = False,
        is_update: bool = False,
        sentiment: float | None = None,
    ) -> None:
        opens, browsed = False, 0.0
        if event.topic == CLICKSTREAM and acts:
            opens, browsed = self._browse(event.time_ms)
        self.events.append(
            Applied(
                event.name,
                event.time_ms,
                event.value,
                event.quantity,
                event.category,
                opens,
                browsed,
                acts,
                is_order,
                is_update,
                event.topic,
                sentiment=sentiment,
            )
        )

    def _order(self, event: Event, step: int, acts: bool) -> bool:
        placed = event.name == PLACED
        order = self._find(event, step)
        if order is None:
            identity = ("order", event.order) if event.order else ("message", event.id)
            order = OracleOrder(identity if identity[1] else None, step)
            self.orders[event.topic].append(order)
        first, new = placed and not order.placed, not order.said
        if not order.say(event, placed):
            return False
        unit = order.rate if event.in_own else order.unit_of(event)
        event = event._replace(value=event.value * (unit / event.rate))
        if first:
            self._happen(event, acts, is_order=True)
        if not placed:
            self._happen(event, acts=False, is_update=True)
            if new:
                # There is such an order: it was placed by then, though nobody said so.
                self.events.append(
                    Applied(
                        PLACED,
                        event.time_ms,
                        0.0,
                        0.0,
                        0,
                        acts=False,
                        is_order=True,
                        topic=event.topic,
                        arrived=False,
                    )
                )
        return True

    def _find(self, event: Event, step: int) -> OracleOrder | None:
        """The order that an event is about, if it is remembered."""
        identity = ("order", event.order) if event.order else ("message", event.id)
        for order in reversed(self.orders[event.topic]):
            if identity[1] and order.identity == identity and order.step >= step - EIGHTHS:
                return order
        return None

    def _refund(self, event: Event, step: int) -> float:
        """Take back what a refund says; what that is worth, in the reporting currency."""
        # In the currency of whichever order gives it, if the refund names none.
        value = event.value / event.rate
        quantity, whole, worth = event.quantity, event.whole, 0.0
        order = self._find(event, step) if event.order else None
        if order is not None:
            unit = order.hear(event)
            order.take_back(
                value if event.in_own else value * unit, quantity, whole, own=event.in_own
            )
            if order.amounts is None:
                return event.value
            return value * (order.rate if event.in_own else unit)
        for other in reversed(self.orders[event.topic]):
            amounts = other.amounts
            if amounts is None or other.step < step - EIGHTHS or (event.order and other.has_name):
                continue
            if amounts.orders_left == 0 or amounts.value_left < 0:
                continue
            if whole:
                other.take_back(0.0, 0.0, whole=True)
                return event.value
            if value > 0 and amounts.value_left > 0:
                unit = other.rate if event.in_own else other.unit_of(event)
                taken = min(amounts.value_left, value * unit)
                pieces = min(max(amounts.quantity_left, 0.0), quantity)
                other.take_back(taken, pieces, whole=False)
                # What was taken whole leaves nothing, whatever the division makes of it.
                value = 0.0 if taken == value * unit else value - taken / unit
                quantity, worth = quantity - pieces, worth + taken
        if event.order and (whole or value > 0 or (event.value <= 0 and event.quantity > 0)):
            held = OracleOrder(("order", event.order), step)
            self.orders[event.topic].append(held)
            unit = 1.0 if event.in_own else held.hear(event)
            held.take_back(value * unit, quantity, whole, own=event.in_own)
        return event.value if whole else worth + value * event.rate

    def _browse(self, time_ms: int) -> tuple[bool, float]:
        """Whether a click opens a session, and the seconds since the newest click before it."""
        before = self.click_ms
        self.click_ms = time_ms if before is None else max(before, time_ms)
        if before is None or time_ms - before > SESSION_GAP_MS:
            return True, 0.0
        return False, max(time_ms - before, 0) / 1_000

    # -- reading ------------------------------------------------------------------------------

    def vector(self, features: Sequence[Feature], now_ms: int) -> dict[str, float]:
        """Features at a time, in natural units."""
        readings = self.readings(features, now_ms)
        return {name: reading.value for name, reading in readings.items()}

    def readings(self, features: Sequence[Feature], now_ms: int) -> dict[str, Reading]:
        """Features at a time, with what is needed to compare them."""
        declared = {feature.name: feature for feature in features}
        # Asked for a time before the newest event, sums answer for the time of that event.
        aged_to = max(now_ms, self.as_of_ms)
        read: dict[str, Reading] = {}

        def of(name: str) -> Reading:
            if name not in read:
                feature = declared[name]
                if feature.aggregate == "ratio":
                    top, bottom = (of(part) for part in feature.ratio_parts)
                    read[name] = _divide(top, bottom, feature.absent)
                else:
                    read[name] = self._read(feature, now_ms, aged_to)
            return read[name]

        return {name: of(name) for name in declared}

    def _read(self, feature: Feature, now_ms: int, aged_to: int) -> Reading:
        match feature.aggregate:
            case "first":
                times = [e.time_ms for e in self.events if e.acts]
                return _days_since(times, min, now_ms, feature)
            case "last":
                times = [
                    e.time_ms
                    for e in self.events
                    if (_watches(feature.on, e) if feature.on else e.acts)
                ]
                return _days_since(times, max, now_ms, feature)
            case "distinct":
                return self._distinct(feature, now_ms)
            case "gap":
                return self._mean_gap(feature)
            case "mean":
                top = _timed(feature, self._contributions(feature), aged_to)
                of = "opinions" if feature.of == "sentiment" else None
                counts = feature.model_copy(update={"aggregate": "count", "of": of})
                bottom = _timed(feature, self._contributions(counts, bottom=True), aged_to)
                return _divide(top, bottom, feature.absent)
            case _:
                return _timed(feature, self._contributions(feature), aged_to)

    def _contributions(self, feature: Feature, *, bottom: bool = False) -> list[_Amount]:
        """Every amount that a count, sum or mean is made of.

        Args:
            bottom: of a mean: what it divides by takes away only what is taken back.
        """
        found: list[_Amount] = []
        nets = PLACED in feature.on and bool(_meant(feature.minus) & {REFUNDED, CANCELLED})
        minus = _meant(feature.minus) - ({REFUNDED, CANCELLED} if nets else set())
        if bottom:
            minus = frozenset()
        for event in self.events:
            amount = 1.0
            if feature.of == "sessions":
                counts = event.opens
            elif feature.of == "browse_seconds":
                counts, amount = _watches(feature.on, event), event.browsed_seconds
                counts = counts and amount > 0
            elif feature.of in ("sentiment", "opinions"):
                counts = _watches(feature.on, event) and event.sentiment is not None
                if feature.of == "sentiment":
                    amount = event.sentiment or 0.0
            else:
                counts = event.name in minus or _watches(feature.on, event)
                counts = counts and not event.is_order
                if feature.of == "value":
                    amount = event.value
                elif feature.of == "quantity":
                    amount = event.quantity
            if counts:
                sign = -1.0 if event.name in minus else 1.0
                found.append(_Amount(event.time_ms, sign * amount, abs(amount)))
        if feature.of in ("sessions", "browse_seconds", "sentiment", "opinions") or (
            feature.on and PLACED not in feature.on
        ):
            return found
        for order in (*self.orders[0], *self.orders[1]):
            now = order.amounts
            if now is None:
                continue
            amount = _of_order(now, feature.of, nets)
            found.append(_Amount(now.time_ms, amount, abs(amount)))
            # What it counted before is gone, but for the rounding that it left behind.
            for before in order.past:
                gone = abs(_of_order(before, feature.of, nets))
                found.append(_Amount(before.time_ms, 0.0, gone))
        return found

    def _gaps(self, names: tuple[str, ...]) -> list[tuple[int, float]]:
        """When a gap between events ended, and the days that it took; of each topic for itself."""
        found = []
        for topic in (0, 1):
            newest = None
            for time in self._times(names, topic):
                if newest is not None and (time - newest) / DAY_MS > SAME_OCCASION_DAYS:
                    found.append((time, (time - newest) / DAY_MS))
                newest = time if newest is None else max(newest, time)
        return found

    def _times(self, names: tuple[str, ...], topic: int) -> list[int]:
        """Of the events of a topic that a message told of, in its order."""
        return [
            event.time_ms
            for event in self.events
            if event.topic == topic and event.arrived and _watches(names, event)
        ]

    def _mean_gap(self, feature: Feature) -> Reading:
        as_of = max((*self._times(feature.on, 0), *self._times(feature.on, 1)), default=0)
        parts: list[tuple[float, float]] = []
        for time, days in self._gaps(feature.on):
            weight = 1.0
            if feature.half_life is not None:
                weight = math.exp2((time - as_of) / (1_000 * feature.half_life))
            parts.append((weight, weight * days))
        weights = math.fsum(weight for weight, _ in parts)
        days = math.fsum(part for _, part in parts)
        return _divide(Reading(days, days), Reading(weights, weights), feature.absent)

    def _distinct(self, feature: Feature, now_ms: int) -> Reading:
        """Categories seen, by linear counting over buckets that fade."""
        assert feature.half_life is not None
        newest: dict[int, int] = {}
        for event in self.events:
            if event.category and _watches(feature.on, event):
                bucket = event.category % BUCKETS
                newest[bucket] = max(newest.get(bucket, 0), event.time_ms // 1_000)
        ages = [max(now_ms // 1_000 - second, 0) for second in newest.values()]
        filled = math.fsum(math.exp2(-age / feature.half_life) for age in ages)
        free = max(1.0 - filled / BUCKETS, 0.5 / BUCKETS)
        return Reading(-BUCKETS * math.log(free), filled / free)


class _Amount(NamedTuple):
    """What counts at a time, and the size of the numbers that it was computed from."""

    time_ms: int
    amount: float
    size: float


def _of_order(amounts: Amounts, of: str | None, nets: bool) -> float:
    """What an order adds to a count, or to a sum of values or quantities."""
    if of == "value":
        return amounts.value_left if nets else amounts.value
    if of == "quantity":
        return amounts.quantity_left if nets else amounts.quantity
    return amounts.orders_left if nets else 1.0


def _timed(feature: Feature, amounts: Sequence[_Amount], aged_to: int) -> Reading:
    """The sum of amounts: decayed, or of those in the window."""
    parts: list[tuple[float, float]] = []
    for time, amount, size in amounts:
        if feature.half_life is None and feature.window is None:
            parts.append((amount, size))
        elif feature.half_life is not None:
            weight = math.exp2((time - aged_to) / (1_000 * feature.half_life))
            parts.append((amount * weight, size * weight))
        else:
            assert feature.window is not None
            tile_ms = int(feature.window * 1_000) // feature.tiles
            if time // tile_ms > aged_to // tile_ms - feature.tiles:
                parts.append((amount, size))
    return Reading(math.fsum(part for part, _ in parts), math.fsum(size for _, size in parts))


@lru_cache(maxsize=256)
def _meant(names: tuple[str, ...]) -> frozenset[str]:
    """What is cancelled is refunded."""
    return frozenset(names) | ({CANCELLED} if REFUNDED in names else set())


def _watches(names: tuple[str, ...], event: Applied) -> bool:
    """No names at all watch everything; an update counts with its order, unless named alone."""
    if event.is_update:
        return UPDATED in names and PLACED not in names
    return not names or event.name in _meant(names)


def names_of(features: Sequence[Feature]) -> set[str]:
    """Every event that a feature names, or means with one that it names."""
    names = {name for feature in features for name in (*feature.on, *feature.minus)}
    if PLACED in names:
        names.add(UPDATED)
    return set(_meant(tuple(sorted(names))))


def names_read(features: Sequence[Feature]) -> set[str]:
    """Events whose amounts somebody reads; of an order everything is, or nothing."""
    names, of_orders = names_of(features), {PLACED, UPDATED, REFUNDED, CANCELLED}
    read: set[str] = set()
    takes_back = False
    for feature in features:
        takes_back |= PLACED in feature.on and bool(_meant(feature.minus) & {REFUNDED, CANCELLED})
        if feature.aggregate in ("sum", "mean") and feature.of in ("value", "quantity"):
            named = (*feature.on, *feature.minus) or tuple(names)
            read |= names_of([feature]) if feature.on else set(named)
    if PLACED in names and (PLACED in read or takes_back):
        read |= of_orders & names
    return read


def _days_since(times: Sequence[int], which: Any, now_ms: int, feature: Feature) -> Reading:
    days = max(now_ms - which(times), 0) / DAY_MS if times else feature.absent
    return Reading(days, days)


def _divide(top: Reading, bottom: Reading, absent: float) -> Reading:
    unsure = abs(bottom.value - NEAR_NOTHING) <= 1e-9 * bottom.scale
    if unsure or top.undecided or bottom.undecided:
        return Reading(absent, 0.0, undecided=True)
    if bottom.value <= NEAR_NOTHING:
        return Reading(absent, 0.0)
    value = top.value / bottom.value
    return Reading(value, (top.scale + abs(value) * bottom.scale) / bottom.value)


class Rules(NamedTuple):
    """What is needed to know what an event means.

    Attributes:
        orders: whether any feature watches orders.
        shop: what the shop does, by name.
    """

    orders: bool
    shop: frozenset[str]


# -- reviews ---------------------------------------------------------------------------------


class OracleWording:
    """What the rated texts of a topic have taught so far: `likely_good` is a sum over words.

    AdaGrad on the logistic loss: a word's weight goes by the share of it that was wrong, over the root
    of what it has gone so far; weights are rounded, so that no order of adding up matters.
    """

    def __init__(self) -> None:
        self.weights: dict[int, float] = {}
        self.squares: dict[int, float] = {}
        self.level, self.level_squares = 0.0, 1e-2
        self.rated = {True: 0, False: 0}

    def likely_good(self, words: Sequence[int]) -> float:
        total = math.fsum(self.weights.get(word, 0.0) for word in words)
        if words:
            total *= 1.0 / math.sqrt(len(words))
        return 1.0 / (1.0 + math.exp(-min(max(total + self.level, -30.0), 30.0)))

    def sentiment(self, rating: float | None, words: Sequence[int]) -> float | None:
        """Of a review that counts; None if nothing is known of it."""
        if rating is None:
            seen_both = min(self.rated.values()) >= RATED_TEXTS
            return 2.0 * self.likely_good(words) - 1.0 if words and seen_both else None
        if words and rating != 0.0:
            self._learn(words, 1.0 if rating > 0 else 0.0)
            self.rated[rating > 0] += 1
        return rating

    def _learn(self, words: Sequence[int], label: float) -> None:
        wrong = self.likely_good(words) - label
        step = wrong * (1.0 / math.sqrt(len(words)))
        for word in words:
            squares = self.squares.get(word, 1e-2) + step * step
            moved = 0.3 * step / math.sqrt(squares)
            self.squares[word] = squares
            self.weights[word] = self.weights.get(word, 0.0) - round(moved * 2**20) / 2**20
        self.level_squares += wrong * wrong
        self.level -= 0.3 * wrong / math.sqrt(self.level_squares)


# -- a whole log -----------------------------------------------------------------------------


class Oracle:
    """One partition's users and counts, as its messages so far make them.

    The messages of a topic come in offset order; how the two topics mix makes no difference.

    Args:
        marks, now_ms, partitions, money, ratings, agreed: see `Judge`.

    Attributes:
        wordings: what reviews have taught, by topic.
    """

    def __init__(
        self,
        features: Sequence[Feature],
        worker: Worker,
        marks: Marks | None = None,
        now_ms: int | None = None,
        partitions: int = 0,
        money: Money | None = None,
        ratings: Reviews | None = None,
        agreed: str = "",
    ) -> None:
        self.users: dict[str, OracleUser] = {}
        self.counts = Counts()
        seconds = (worker.remember_clicks_seconds, worker.remember_purchases_seconds)
        self.topics = [Topic(round(one * 1_000)) for one in seconds]
        self._reads_reviews = any(feature.of == "sentiment" for feature in features)
        self.wordings = [OracleWording() for _ in self.topics]
        self._judge = Judge(features, worker, marks, now_ms, partitions, money, ratings, agreed)
        self._rules = Rules(PLACED in names_of(features), frozenset(worker.shop_events))
        self._most = worker.remembered_ids
        self._order_step_ms = round(worker.remember_orders_seconds * 1_000) // EIGHTHS

    def convert_by(self, money: Money) -> None:
        """From here on currencies are worth what these settings say."""
        self._judge.convert_by(money)

    def take(self, message: Message) -> Outcome:
        """Count a message, and say what became of it."""
        outcome = self._judge.judge(message)
        if outcome.event is not None:
            self.counts.clamped += outcome.event.clamped
            if not self.fold(outcome.event):
                outcome = outcome._replace(fate=Fate.DUPLICATE)
        match outcome.fate:
            case Fate.MARK:
                self.counts.marks += 1
            case Fate.REJECTED:
                self.counts.rejected += 1
            case Fate.IGNORED:
                self.counts.ignored += 1
            case Fate.LATE:
                self.counts.late += 1
            case Fate.DUPLICATE:
                self.counts.duplicate += 1
            case Fate.APPLIED:
                self.counts.applied += 1
        return outcome

    def pass_over(self, message: Message) -> None:
        """A message of a user who is not looked at still moves the clock of its topic.

        Where reviews are read, theirs teach what the words of others say, so these are counted.
        """
        if self._reads_reviews:
            event = self._judge.judge(message).event
            if event is not None and (event.rating is not None or event.words):
                self.fold(event)
                return
        recorded_ms = message.timestamp_ms
        if recorded_ms is not None and _FIRST_MS <= recorded_ms < _END_MS:
            self.topics[message.topic].tick(recorded_ms, self._most)

    def fold(self, event: Event) -> bool:
        """Count an event; False if it is a duplicate."""
        topic = self.topics[event.topic]
        topic.tick(event.recorded_ms or event.time_ms, self._most)
        user = self.users.setdefault(event.user, OracleUser())
        user.arrivals[event.topic] += 1
        if event.id and topic.came_before(event.user, event.id):
            return False
        sentiment = self.wordings[event.topic].sentiment(event.rating, event.words)
        step = topic.clock_ms // self._order_step_ms
        return user.fold_event(event, step, self._rules, sentiment)

    def orders_remembered(self, topic: int) -> list[tuple[str, OracleOrder]]:
        """Users and their orders that the topic's clock has not left behind."""
        oldest = self.topics[topic].clock_ms // self._order_step_ms - EIGHTHS
        return [
            (name, order)
            for name, user in self.users.items()
            for order in user.orders[topic]
            if order.step >= oldest
        ]


def fold_log(
    features: Sequence[Feature],
    worker: Worker,
    topics: Iterable[Iterable[Message]],
    marks: Marks | None = None,
    now_ms: int | None = None,
    partitions: int = 0,
    agreed: str = "",
) -> Oracle:
    """Fold the log of one partition, topic after topic, each in offset order."""
    oracle = Oracle(features, worker, marks, now_ms, partitions, agreed=agreed)
    for messages in topics:
        for message in messages:
            oracle.take(message)
    return oracle
