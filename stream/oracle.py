"""Recomputes the truth from the whole log, slowly and obviously.

Comes in: raw messages, one at a time, in offset order. Goes out: what became of each, and every
user's features at a time; `consumers/audit` and the tests hold the pipeline to it. Nothing here
is shared with the code it judges but the declared features, the hash of a text and the words.

What a message becomes, the first that fits:

1. without a value it is *empty*, over the limit *too large*, cut short *truncated*, otherwise no
   UTF-8 JSON *not json*;
2. what says that it is a mark is *ignored* where the wall clock rules; elsewhere it is a *forged
   mark* unless it is signed for its topic and partition, *bad time* if one of its times is (5), or
   if the time it ends had not begun when it was sent, otherwise a mark; what is no `track`
   (identify, page ..) is *ignored*;
3. fields of a wrong JSON type are *wrong type*, absent ones *missing field*;
4. nobody to count it for is *no user*;
5. a time that is not RFC 3339 with a zone, or outside 1995 to 2099, is *bad time*;
6. a number that is read and beyond `LARGEST_NUMBER` is *out of range*;
7. a name that no feature watches is *ignored*;
8. a time long before the record's is *late*; long after, it is clamped to the record's. A record's
   time outside the range of point 5, or ten years older than an event that is not after the wall
   clock, limits nothing. In a record after the wall clock, or one that limits nothing, a time after
   the wall clock is clamped to that, and not even then too late for it;
9. in another partition than that of its user, it is *misplaced*, where that is looked at;
10. a message id among the last `RING` of the same user and topic is a *duplicate*;
11. everything else is *applied*.
"""

from __future__ import annotations

import hmac
import json
import math
import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b, sha256
from time import time_ns
from typing import Any, NamedTuple

from stream.config import Worker
from stream.events import Counts, Reason
from stream.features import BUCKETS, RING, SESSION_GAP_MS, Feature
from stream.hashing import hash_text, partition_of
from stream.units import DAY_MS

CLICKSTREAM = 0
"""Index of the topic whose messages make sessions."""
LARGEST_NUMBER = 1e12
TEN_YEARS_DAYS = 3_652
LONGEST_USER_BYTES = 256
FIRST_YEAR, LAST_YEAR = 1995, 2099
NEAR_NOTHING = 1e-6
"""A mean or ratio over this little or less has nothing to tell."""

_OTHER_TYPES = ("identify", "page", "screen", "group", "alias")
_NUMBERS = ("quantity", "price", "revenue", "total", "value")
_RFC_3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]+))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - the zone is added by hand below


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
        recorded_ms: time of its record; 0 if that has none.
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
    recorded_ms: int = 0


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


class _RefusedError(Exception):
    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class Judge:
    """Decides about messages one by one, knowing the limits and which events are watched.

    Args:
        marks: where the shop's clock goes by marks; else None.
        now_ms: by the wall clock, when the log was read; None asks the machine's.
        partitions: how many a topic has; 0 where nobody looks where users lie.
    """

    def __init__(
        self,
        features: Sequence[Feature],
        worker: Worker,
        marks: Marks | None = None,
        now_ms: int | None = None,
        partitions: int = 0,
    ) -> None:
        self._marks = marks
        self._now_ms = now_ms
        self._partitions = partitions if worker.misplaced == "refuse" else 0
        self._names = {name: name for f in features for name in (*f.on, *f.minus)}
        self._read: set[str] = set()
        for feature in features:
            if feature.aggregate in ("sum", "mean") and feature.of in ("value", "quantity"):
                self._read.update((*feature.on, *feature.minus) or self._names)
        self._worker = worker

    def judge(self, message: Message) -> Outcome:
        """What becomes of a message; a duplicate is still *applied* here, see `Oracle`."""
        try:
            return self._judge(message)
        except _RefusedError as refused:
            return Outcome(Fate.REJECTED, refused.reason)

    def _judge(self, message: Message) -> Outcome:
        if not message.value:
            raise _RefusedError(Reason.EMPTY)
        if len(message.value) > self._worker.message_bytes:
            raise _RefusedError(Reason.TOO_LARGE)
        track = _parse(message.value)
        if track.get("type") == "segstream-mark":
            return self._judge_mark(track, message.place)
        if track.get("type") in _OTHER_TYPES:
            return Outcome(Fate.IGNORED)
        _check_types(track)
        user = _user(track)
        time_ms = parse_time(track["timestamp"])
        value, quantity = self._amounts(track)

        name = self._names.get(track["event"])
        if name is None:
            return Outcome(Fate.IGNORED)
        counts_at = self._counts_at(time_ms, message.timestamp_ms)
        if counts_at is None:
            return Outcome(Fate.LATE)
        time_ms, clamped = counts_at, counts_at < time_ms
        if self._partitions and partition_of(user.encode(), self._partitions) != message.place[1]:
            raise _RefusedError(Reason.MISPLACED)
        category = track.get("properties", {}).get("category")
        event = Event(
            user=user,
            topic=message.topic,
            name=name,
            time_ms=time_ms,
            id=hash_text(track["messageId"].encode()),
            value=value,
            quantity=quantity,
            category=_hash_category(category) if category else 0,
            clamped=clamped,
        )
        return Outcome(Fate.APPLIED, event=event)

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
            raise _RefusedError(Reason.FORGED_MARK)
        time_ms, sent_ms = parse_time(str(timestamp)), parse_time(str(sent_at))
        ahead = int(self._marks.seconds * 1_000) + int(self._worker.future_seconds * 1_000)
        if time_ms > sent_ms + ahead:
            raise _RefusedError(Reason.BAD_TIME)
        return Outcome(Fate.MARK)

    def _amounts(self, track: Mapping[str, Any]) -> tuple[float, float]:
        """Value and quantity; 0 and 1 where no feature reads them, whatever the message says."""
        properties = track.get("properties", {})
        numbers: dict[str, float] = {}
        for key in _NUMBERS:
            if properties.get(key) is not None:
                numbers[key] = properties[key]
                if not math.isfinite(numbers[key]):
                    raise _RefusedError(Reason.OUT_OF_RANGE)
        if track["event"] not in self._read:
            return 0.0, 1.0
        quantity = numbers.get("quantity", 1.0)
        value = 0.0
        if "price" in numbers:
            value = numbers["price"] * quantity
        for key in ("value", "total", "revenue"):
            value = numbers.get(key, value)
        for number in (value, quantity):
            if not abs(number) <= LARGEST_NUMBER:
                raise _RefusedError(Reason.OUT_OF_RANGE)
        return value, quantity


def parse_time(text: str) -> int:
    """Milliseconds since 1970 of an RFC 3339 text, cut to whole ones.

    Raises:
        _RefusedError: it is none, or outside `FIRST_YEAR` to `LAST_YEAR`.
    """
    match = _RFC_3339.fullmatch(text)
    if match is None:
        raise _RefusedError(Reason.BAD_TIME)
    date, clock, fraction, sign, hours, minutes = match.groups()
    try:
        moment = datetime.fromisoformat(f"{date}T{clock}")
    except ValueError:
        raise _RefusedError(Reason.BAD_TIME) from None
    if sign and (int(hours) > 23 or int(minutes) > 59):
        raise _RefusedError(Reason.BAD_TIME)
    seconds = (moment - _EPOCH) // timedelta(seconds=1)
    if sign:
        offset = int(hours) * 3_600 + int(minutes) * 60
        seconds -= offset if sign == "+" else -offset
    time_ms = seconds * 1_000 + int(((fraction or "") + "000")[:3])
    if not _FIRST_MS <= time_ms < _END_MS:
        raise _RefusedError(Reason.BAD_TIME)
    return time_ms


_FIRST_MS = int(datetime(FIRST_YEAR, 1, 1, tzinfo=UTC).timestamp()) * 1_000
_END_MS = int(datetime(LAST_YEAR + 1, 1, 1, tzinfo=UTC).timestamp()) * 1_000


def _parse(value: bytes) -> dict[str, Any]:
    cut_short = False
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data":
            raise _RefusedError(Reason.NOT_JSON) from None
        # The cut went through a character; what stands before it decides.
        text, cut_short = value[: error.start].decode(), True
    try:
        parsed = json.loads(
            text, parse_int=float, parse_constant=_no_constant, object_pairs_hook=_object
        )
        _see_that_it_is_text(parsed)
    except json.JSONDecodeError as error:
        raise _RefusedError(_why_no_json(text, error)) from None
    except (UnicodeEncodeError, RecursionError):
        # Half a surrogate pair is no text; a thousand brackets deep is no message.
        raise _RefusedError(Reason.NOT_JSON) from None
    if cut_short:
        raise _RefusedError(Reason.NOT_JSON)
    if not isinstance(parsed, dict):
        raise _RefusedError(Reason.WRONG_TYPE)
    return parsed


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of members of one name the last counts; the others must be readable all the same."""
    for name, value in pairs:
        name.encode()
        _see_that_it_is_text(value)
    return dict(pairs)


def _see_that_it_is_text(value: Any) -> None:
    """Python reads half a surrogate pair; objects have been looked at when they were made."""
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, list):
        for one in value:
            _see_that_it_is_text(one)


def _no_constant(_name: str) -> None:
    """NaN and Infinity, which Python reads and JSON does not know."""
    raise _RefusedError(Reason.NOT_JSON)


def _why_no_json(text: str, error: json.JSONDecodeError) -> Reason:
    """Truncated, if more text could have made it JSON; a number cut in two is taken for wrong."""
    if error.msg.startswith("Invalid control character"):
        return Reason.NOT_JSON
    rest = text[error.pos :].strip(" \t\r\n")
    unfinished = (
        not rest
        or error.msg.startswith("Unterminated string")
        or (error.msg == "Expecting value" and _begins_literal(rest))
        or (error.msg.startswith("Invalid \\u") and _begins_escape(rest))
    )
    return Reason.TRUNCATED if unfinished else Reason.NOT_JSON


def _begins_escape(rest: str) -> bool:
    """Too short for four digits; Python also complains of an escape that nothing follows."""
    return len(rest) < len("uXXXX") or re.fullmatch("u[0-9a-fA-F]{4}", rest) is not None


def _begins_literal(rest: str) -> bool:
    return any(literal.startswith(rest) for literal in ("true", "false", "null"))


def _check_types(track: Mapping[str, Any]) -> None:
    texts = ("event", "messageId", "timestamp")
    for key in texts:
        if key in track and not isinstance(track[key], str):
            raise _RefusedError(Reason.WRONG_TYPE)
    if not isinstance(track.get("userId"), str | None):
        raise _RefusedError(Reason.WRONG_TYPE)
    properties = track.get("properties", {})
    if not isinstance(properties, dict):
        raise _RefusedError(Reason.WRONG_TYPE)
    if not isinstance(properties.get("category"), str | None):
        raise _RefusedError(Reason.WRONG_TYPE)
    for key in _NUMBERS:
        number = properties.get(key)
        if not isinstance(number, float | None):
            raise _RefusedError(Reason.WRONG_TYPE)
    for key in texts:
        if key not in track:
            raise _RefusedError(Reason.MISSING_FIELD)


def _user(track: Mapping[str, Any]) -> str:
    user = track.get("userId")
    if user is None:
        user = track.get("anonymousId")
    if not isinstance(user, str) or not user:
        raise _RefusedError(Reason.NO_USER)
    if len(user.encode()) > LONGEST_USER_BYTES:
        raise _RefusedError(Reason.OUT_OF_RANGE)
    return user


@lru_cache(maxsize=4_096)
def _hash_category(category: str) -> int:
    return hash_text(category.encode())


# -- one user --------------------------------------------------------------------------------


class Applied(NamedTuple):
    """An event as it counted.

    Attributes:
        opens: whether it opened a session.
        browsed_seconds: since the click before, 0 if that was another session.
    """

    name: str
    time_ms: int
    value: float
    quantity: float
    category: int
    opens: bool
    browsed_seconds: float


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
        recent: the last message ids, by topic, oldest first.
        arrivals: how many messages there were, duplicates included, by topic.
        click_ms: newest time of a click; None before the first.
    """

    events: list[Applied] = field(default_factory=list)
    recent: tuple[deque[int], deque[int]] = field(
        default_factory=lambda: (deque(maxlen=RING), deque(maxlen=RING))
    )
    arrivals: list[int] = field(default_factory=lambda: [0, 0])
    click_ms: int | None = None

    @property
    def first_ms(self) -> int:
        return min(event.time_ms for event in self.events)

    @property
    def seen_ms(self) -> int:
        return max(event.time_ms for event in self.events)

    def fold_event(self, event: Event) -> bool:
        """Count an event; False if it is a duplicate."""
        recent = self.recent[event.topic]
        duplicate = event.id in recent
        recent.append(event.id)
        self.arrivals[event.topic] += 1
        if duplicate:
            return False
        opens, browsed = False, 0.0
        if event.topic == CLICKSTREAM:
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
            )
        )
        return True

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
        aged_to = max(now_ms, self.seen_ms)
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
                return _days_since([e.time_ms for e in self.events], min, now_ms, feature)
            case "last":
                times = [e.time_ms for e in self.events if _watches(feature.on, e)]
                return _days_since(times, max, now_ms, feature)
            case "distinct":
                return self._distinct(feature, now_ms)
            case "mean":
                top = _timed(feature, _contributions(feature, self.events), now_ms, aged_to)
                counted = [(e.time_ms, 1.0) for e in self.events if _watches(feature.on, e)]
                bottom = _timed(feature, counted, now_ms, aged_to)
                return _divide(top, bottom, feature.absent)
            case _:
                return _timed(feature, _contributions(feature, self.events), now_ms, aged_to)

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


def _timed(
    feature: Feature, contributions: Sequence[tuple[int, float]], now_ms: int, aged_to: int
) -> Reading:
    """The sum of (time, amount): decayed, or of those in the window."""
    if not contributions:
        return Reading(0.0, 0.0)
    if feature.half_life is not None:
        half_life_ms = 1_000 * feature.half_life
        parts = [a * math.exp2((time - aged_to) / half_life_ms) for time, a in contributions]
    else:
        assert feature.window is not None
        tile_ms = int(feature.window * 1_000) // feature.tiles
        newest = max(now_ms, *(time for time, _ in contributions)) // tile_ms
        parts = [a for time, a in contributions if time // tile_ms > newest - feature.tiles]
    return Reading(math.fsum(parts), math.fsum(map(abs, parts)))


def _watches(names: Sequence[str], event: Applied) -> bool:
    """No names at all watch everything."""
    return not names or event.name in names


def _contributions(feature: Feature, events: Sequence[Applied]) -> list[tuple[int, float]]:
    """Time and amount of every event that a count, sum or mean is made of."""
    found = []
    for event in events:
        amount = 1.0
        if feature.of == "sessions":
            counts = event.opens
        elif feature.of == "browse_seconds":
            counts, amount = _watches(feature.on, event), event.browsed_seconds
            counts = counts and amount > 0
        else:
            counts = event.name in feature.minus or _watches(feature.on, event)
            if feature.of == "value":
                amount = event.value
            elif feature.of == "quantity":
                amount = event.quantity
        if counts:
            found.append((event.time_ms, -amount if event.name in feature.minus else amount))
    return found


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


# -- a whole log -----------------------------------------------------------------------------


class Oracle:
    """One partition's users and counts, as its messages so far make them.

    The messages of a topic come in offset order; how the two topics mix makes no difference.

    Args:
        marks, now_ms, partitions: see `Judge`.
    """

    def __init__(
        self,
        features: Sequence[Feature],
        worker: Worker,
        marks: Marks | None = None,
        now_ms: int | None = None,
        partitions: int = 0,
    ) -> None:
        self.users: dict[str, OracleUser] = {}
        self.counts = Counts()
        self._judge = Judge(features, worker, marks, now_ms, partitions)

    def take(self, message: Message) -> Outcome:
        """Count a message, and say what became of it."""
        outcome = self._judge.judge(message)
        if outcome.event is not None:
            user = self.users.setdefault(outcome.event.user, OracleUser())
            self.counts.clamped += outcome.event.clamped
            if not user.fold_event(outcome.event):
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


def fold_log(
    features: Sequence[Feature],
    worker: Worker,
    topics: Iterable[Iterable[Message]],
    marks: Marks | None = None,
    now_ms: int | None = None,
    partitions: int = 0,
) -> Oracle:
    """Fold the log of one partition, topic after topic, each in offset order."""
    oracle = Oracle(features, worker, marks, now_ms, partitions)
    for messages in topics:
        for message in messages:
            oracle.take(message)
    return oracle
