"""Decides the same as `decide`, one change at a time, in plain Python: slow, and with none of its code.

Comes in: change records and what time it is. Goes out: outcomes, one a tuple. Tests and audits hold the
columns to it. Only the declaration is shared.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from stream.campaigns.declare import Campaign, Limits

_MASK = (1 << 64) - 1
DAY = 86_400_000


class Told(NamedTuple):
    """An outcome, as `decide` has it in columns."""

    user: str
    campaign: str
    outcome: str
    arm: str
    at_ms: int
    change: str
    counted: bool


@dataclass
class _Pending:
    change: dict[str, Any]
    changed_ms: int
    arm: str
    due_ms: int
    stage: str


@dataclass
class _User:
    clock_ms: int | None = None
    suppressed: bool = False
    traits: dict[str, Any] = field(default_factory=dict)
    zone: str | None = None
    sends: list[int] = field(default_factory=list)
    pending: dict[str, _Pending] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    counted: set[str] = field(default_factory=set)
    steps: dict[str, str | None] = field(default_factory=dict)


class Oracle:
    """Campaigns, decided about one change at a time.

    Attributes:
        counts: by campaign and outcome; `unmatched` too.
        seen: changes looked at, by campaign.
    """

    def __init__(self, campaigns: Iterable[Campaign], limits: Limits, key: bytes = b"") -> None:
        self._campaigns = list(campaigns)
        self._limits, self._key = limits, key
        self._users: dict[str, _User] = {}
        self.counts: Counter[tuple[str, str]] = Counter()
        self.seen: Counter[str] = Counter()
        self._paused: set[str] = set()

    def suppress(self, user: str, *, suppressed: bool = True) -> None:
        self._user(user).suppressed = suppressed

    def tell_traits(self, user: str, traits: Mapping[str, Any]) -> None:
        self._user(user).traits.update(traits)

    def pause(self, campaign: str, *, paused: bool = True) -> None:
        (self._paused.add if paused else self._paused.discard)(campaign)

    def set_zone(self, user: str, name: str | None) -> None:
        self._user(user).zone = name

    def _user(self, user: str) -> _User:
        return self._users.setdefault(user, _User())

    def change(self, change: Mapping[str, Any], wall_ms: int | None = None) -> list[Told]:
        """Decide about one change."""
        told: list[Told] = []
        user, changed_ms = self._user(change["user"]), _ms(change["at"])
        now = max(x for x in (changed_ms, user.clock_ms, wall_ms) if x is not None)
        self._release(change["user"], now, wall_ms, told)
        user.clock_ms = now
        if change["cause"] == "erased":
            user.suppressed = True
            user.steps.clear()
        if "level" in change:
            user.steps[change["level"]] = change["step_to"]
        for campaign in self._campaigns:
            pending = user.pending.get(campaign.name)
            if pending is not None and not _still(campaign, change):
                self._end_pending(user, campaign, pending)
                told.append(self._tell(pending.change, campaign, "undone", pending.arm, now))
        self._offer(user, dict(change), changed_ms, now, told)
        return told

    def advance(self, now_ms: int, wall_ms: int | None = None) -> list[Told]:
        """Decide about what was put off."""
        told: list[Told] = []
        for name in self._users:
            self._release(name, now_ms, wall_ms, told)
        return told

    def _release(self, name: str, until: int, wall_ms: int | None, told: list[Told]) -> None:
        user = self._users[name]
        while True:
            due = [
                (pending.due_ms, -campaign.priority, place, campaign, pending)
                for place, campaign in enumerate(self._campaigns)
                if (pending := user.pending.get(campaign.name)) and pending.due_ms <= until
            ]
            if not due:
                return
            *_, campaign, pending = min(due, key=lambda one: one[:3])
            now = max(x for x in (pending.due_ms, user.clock_ms, wall_ms) if x is not None)
            user.clock_ms = now
            self._end_pending(user, campaign, pending)
            outcome = "sending"
            if not _runs(campaign, now):
                outcome = "ended"
            elif campaign.name in self._paused:
                outcome = "paused"
            elif self._gets_nothing(user):
                outcome = "suppressed"
            elif self._is_capped(user, now):
                outcome = "capped"
            self._conclude(
                user, campaign, pending.change, pending.changed_ms, pending.arm, now, outcome,
                told, counted=False,
            )  # fmt: skip

    def _offer(
        self, user: _User, change: dict[str, Any], changed_ms: int, now: int, told: list[Told]
    ) -> None:
        contenders: list[tuple[Campaign, str, bool]] = []
        for campaign in self._campaigns:
            self.seen[campaign.name] += 1
            stands = all(user.steps.get(n) in any_of for n, any_of in campaign.when.steps.items())
            if not (stands and matches(campaign, change)):
                self.counts[campaign.name, "unmatched"] += 1
                continue
            if not _runs(campaign, now):
                told.append(self._tell(change, campaign, "ended", None, now))
                continue
            if campaign.name in self._paused:
                told.append(self._tell(change, campaign, "paused", None, now))
                continue
            if self._gets_nothing(user):
                told.append(self._tell(change, campaign, "suppressed", None, now))
                continue
            arm = self.arm(campaign, change["user"])
            counted = campaign.goal is not None and campaign.name not in user.counted
            if counted:
                user.counted.add(campaign.name)
            if arm in ("holdout", "global_holdout"):
                told.append(self._tell(change, campaign, "holdout", arm, now, counted))
            else:
                contenders.append((campaign, arm, counted))
        # Stable: of one priority the first declared comes first.
        contenders.sort(key=lambda one: -one[0].priority)
        groups: set[str] = set()
        for campaign, arm, counted in contenders:
            outcome = "sending"
            sent = user.sent.get(campaign.name)
            if campaign.group is not None and campaign.group in groups:
                outcome = "outranked"
            elif campaign.name in user.pending or (
                sent is not None and now - sent < campaign.cooldown * 1_000
            ):
                outcome = "cooling"
            elif self._is_capped(user, now):
                outcome = "capped"
            elif campaign.settle:
                outcome = "settling"
            if campaign.group is not None:
                groups.add(campaign.group)
            self._conclude(user, campaign, change, changed_ms, arm, now, outcome, told, counted)

    def _gets_nothing(self, user: _User) -> bool:
        if user.suppressed:
            return True
        for name, values in self._limits.suppress.items():
            if (trait := user.traits.get(name)) is None:
                continue
            told = json.dumps(trait).strip('" ').lower()
            if any(told == json.dumps(value).strip('" ').lower() for value in values):
                return True
        return False

    def _conclude(
        self,
        user: _User,
        campaign: Campaign,
        change: dict[str, Any],
        changed_ms: int,
        arm: str,
        now: int,
        outcome: str,
        told: list[Told],
        counted: bool,
    ) -> None:
        due = now + round(campaign.settle * 1_000)
        if outcome == "sending":
            outcome = "sent"
            free = now if campaign.quiet is None else self._not_quiet(user, campaign, now)
            if free > now and campaign.quiet is not None and campaign.quiet.then == "drop":
                outcome = "quiet"
            elif free - changed_ms > campaign.valid_for * 1_000:
                outcome = "expired"
            elif free > now:
                outcome, due = "waiting", free
        if outcome in ("settling", "waiting"):
            user.pending[campaign.name] = _Pending(change, changed_ms, arm, due, outcome)
        if outcome == "sent":
            user.sent[campaign.name] = now
            user.sends.append(now)
        told.append(self._tell(change, campaign, outcome, arm, now, counted))

    def _end_pending(self, user: _User, campaign: Campaign, pending: _Pending) -> None:
        self.counts[campaign.name, pending.stage] -= 1
        del user.pending[campaign.name]

    def _tell(
        self,
        change: dict[str, Any],
        campaign: Campaign,
        outcome: str,
        arm: str | None,
        now: int,
        counted: bool = False,
    ) -> Told:
        self.counts[campaign.name, outcome] += 1
        shown = "" if arm is None or outcome in ("ended", "paused", "suppressed") else arm
        return Told(change["user"], campaign.name, outcome, shown, now, change["id"], counted)

    def _is_capped(self, user: _User, now: int) -> bool:
        most = self._limits.per_user
        return any(
            cap is not None and sum(now - sent < period for sent in user.sends) >= cap
            for cap, period in ((most.day, DAY), (most.week, 7 * DAY))
        )

    def _not_quiet(self, user: _User, campaign: Campaign, now: int) -> int:
        """Minute by minute."""
        assert campaign.quiet is not None
        zone = ZoneInfo(user.zone or campaign.quiet.zone)
        moment = now
        while _is_quiet(campaign, moment, zone):
            moment = (moment // 60_000 + 1) * 60_000
        return moment

    def arm(self, campaign: Campaign, user: str) -> str:
        """Where a user is for a campaign."""
        digest = blake2b(user.encode(), digest_size=8, key=self._key, person=b"segstream arms")
        number = int.from_bytes(digest.digest(), "little")
        if self._draw(number, "*") < self._limits.global_holdout:
            return "global_holdout"
        if self._draw(number, f"{campaign.name}/holdout") < campaign.holdout:
            return "holdout"
        return min(
            campaign.arms,
            key=lambda arm: (
                -math.log(self._draw(number, f"{campaign.name}/arm/{arm}")) / campaign.arms[arm]
            ),
        )

    def _draw(self, user: int, purpose: str) -> float:
        digest = blake2b(purpose.encode(), digest_size=8, key=self._key, person=b"segstream salt")
        salt = int.from_bytes(digest.digest(), "little")
        mixed = _scramble((_scramble(user ^ salt) + salt) & _MASK)
        return ((mixed >> 12) + 0.5) / 2**52


def came_to(value: bytes, key: bytes, *, scored: bool) -> str:
    """What a record of the change topic is: `change`, `of_segments`, or why it is neither.

    Args:
        scored: a campaign looks at scores, so those must be numbers.
    """
    try:
        told = json.loads(value.decode())
    except (ValueError, RecursionError):
        return "unreadable"
    if not isinstance(told, dict):
        return "unreadable"
    if not _is_whole(told, scored=scored):
        of_segments = isinstance(told.get("event"), str) and _is_number(told.get("segment"))
        return "of_segments" if of_segments else "unreadable"
    if not _EARLIEST <= _moment(told["at"]) < _LATEST:
        return "time"
    digest = blake2b(told["user"].encode(), digest_size=16, key=key, person=b"segstream change")
    parts = told["id"].split("-")
    if len(parts) != 3 or parts[0] != digest.hexdigest():
        return "foreign"
    numbers = [int(part) if part.isdecimal() and len(part) < 20 else -1 for part in parts[1:]]
    return "change" if 0 <= numbers[0] <= 1 << 62 and 0 <= numbers[1] < 1 << 31 else "foreign"


_EARLIEST, _LATEST = datetime(1995, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
_SEGMENT, _TEXT = ("from", "to"), ("name_from", "name_to", "kind_from", "kind_to")
_TEXTS = (*_TEXT, "level", "step_from", "step_to", "population_from", "population_to")


def _is_whole(told: Mapping[str, Any], *, scored: bool) -> bool:
    """Whether all fields of a change are there, each of its kind."""
    why, scores = told.get("why"), told.get("scores", {})
    kinds = [
        *(isinstance(told.get(name), str) for name in ("id", "user", "cause", "at")),
        _is_number(told.get("version")),
        *(told.get(n) is None or isinstance(told[n], str) for n in _TEXTS),
        *(
            told.get(n) is None or (_is_number(told[n]) and 0 <= told[n] < 1 << 31)
            for n in _SEGMENT
        ),
        told.get("provisional") is None or isinstance(told["provisional"], bool),
        isinstance(why, list)
        and all(isinstance(one, dict) and isinstance(one.get("feature"), str) for one in why),
        not scored
        or (
            isinstance(scores, dict)
            and all(type(value) in (int, float) for value in scores.values())
        ),
    ]
    if not all(kinds):
        return False
    try:
        zoned = _moment(told["at"]).tzinfo is not None
        told["user"].encode()
    except (ValueError, OverflowError):
        return False
    given = [told.get(name) is not None for name in ("to", "name_to", "kind_to", "provisional")]
    return zoned and (all(given) if told.get("level") is None else not any(given))


def _is_number(value: Any) -> bool:
    return type(value) is int


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _scramble(value: int) -> int:
    """The finaliser of SplitMix64."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1_000)


def matches(campaign: Campaign, change: Mapping[str, Any]) -> bool:
    """Whether a change concerns a campaign, of a user who is on the steps that it asks for."""
    when = campaign.when
    if change.get("level") != when.level:
        return False
    if when.level is not None:
        return (
            change["cause"] in [cause.value for cause in when.cause]
            and (not when.step_from or change["step_from"] in when.step_from)
            and (not when.step_to or change["step_to"] in when.step_to)
            and _scores_hold(campaign, change)
            and (not when.reasons or any(why["feature"] in when.reasons for why in change["why"]))
        )
    checks = [
        change["cause"] in [cause.value for cause in when.cause],
        when.provisional or not change["provisional"],
        _goes_to(campaign, change),
    ]
    if when.kind_from:
        checks.append(change["kind_from"] in when.kind_from)
    if when.segment_from:
        checks.append(change["from"] in when.segment_from)
    if when.population_from:
        checks.append(change.get("population_from") in when.population_from)
    if when.reasons:
        checks.append(any(why["feature"] in when.reasons for why in change["why"]))
    return all(checks)


def _goes_to(campaign: Campaign, change: Mapping[str, Any]) -> bool:
    when = campaign.when
    if when.kind_to and change["kind_to"] not in when.kind_to:
        return False
    if when.segment_to and change["to"] not in when.segment_to:
        return False
    if when.population_to and change.get("population_to") not in when.population_to:
        return False
    return _scores_hold(campaign, change)


def _scores_hold(campaign: Campaign, change: Mapping[str, Any]) -> bool:
    told = change.get("scores", {})
    return all(limits.hold(told.get(name)) for name, limits in campaign.when.scores.items())


def _still(campaign: Campaign, change: Mapping[str, Any]) -> bool:
    when, level = campaign.when, change.get("level")
    if change["cause"] == "erased":
        return False
    if level is not None and level in when.steps and change["step_to"] not in when.steps[level]:
        return False
    if level != when.level:
        return True
    if level is not None:
        return change["step_to"] in when.step_to and _scores_hold(campaign, change)
    if not (when.kind_to or when.segment_to or when.population_to):
        return False
    return _goes_to(campaign, change)


def _runs(campaign: Campaign, now: int) -> bool:
    moment = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=now)
    if campaign.start is not None and moment < campaign.start:
        return False
    return campaign.end is None or moment < campaign.end


def _is_quiet(campaign: Campaign, moment_ms: int, zone: ZoneInfo) -> bool:
    assert campaign.quiet is not None
    local = datetime.fromtimestamp(moment_ms / 1_000, UTC).astimezone(zone)
    clock = f"{local:%H:%M}"
    begin, end = campaign.quiet.begin, campaign.quiet.end
    if begin < end:
        return begin <= clock < end
    return clock >= begin or clock < end
