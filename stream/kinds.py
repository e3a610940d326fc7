"""What kind of segment this is: champions, loyal, at risk, dormant.

Comes in: the members of each segment in natural units, and declared rules. Goes out: the first kind
whose limits the typical member keeps, and which kinds are better than which. A rule looks at features
and at two numbers more, `CUSTOMERS` and `OUTLOOK`, so that no number of days decides alone who is at
risk: a month's silence is nothing to one shop and the end to another. `naming`, `turns` and
`learning.refit` are next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from stream import rhythm
from stream.events import Floats, Ints

FALLBACK_KIND = "occasional"
FALLBACK_RANK = 2
"""Not as good as promising, and no worse than at risk."""
KIND_SLACK = 0.15
"""Of a limit: more than a centroid moves between two refits, less than two kinds lie apart."""
APART = 1.5
"""Times the odds of an order that a kind's customers have beside those of the next one: with fewer,
which of the two is better is seldom seen in a month's customers."""
CUSTOMERS = "customers"
"""Share of a segment's members who have ordered, however long ago."""
OUTLOOK = "outlook"
"""Mean chance of its customers to order within 90 days, held against the shop's; see `rhythm`."""
DERIVED = (CUSTOMERS, OUTLOOK)


class Bounds(BaseModel):
    """Limits on a value in natural units, both included.

    Attributes:
        min, max: as they stand.
        min_times, max_times: times the usual value: the median of those who have it at all, among the
            users who are learned together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: float | None = None
    max: float | None = None
    min_times: float | None = Field(default=None, ge=0)
    max_times: float | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _one_at_least(self) -> Bounds:
        if all(limit is None for limit in (self.min, self.max, self.min_times, self.max_times)):
            raise ValueError("give min, max, min_times or max_times")
        return self

    def span(self, usual: float = np.nan) -> tuple[float, float]:
        """The lowest and the highest value; none where a usual one is needed and there is none."""
        lows = [self.min, None if self.min_times is None else self.min_times * usual]
        highs = [self.max, None if self.max_times is None else self.max_times * usual]
        if np.isnan(usual) and (self.min_times is not None or self.max_times is not None):
            return np.inf, -np.inf
        return (
            max((one for one in lows if one is not None), default=-np.inf),
            min((one for one in highs if one is not None), default=np.inf),
        )

    def hold(self, value: float, slack: float = 0.0, usual: float = np.nan) -> bool:
        """Whether a value keeps the limits, each moved outwards by a share of itself."""
        low, high = self.span(usual)
        if np.isfinite(low):
            low -= slack * abs(low)
        if np.isfinite(high):
            high += slack * abs(high)
        return low <= value <= high


def limits_from(told: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Bounds], dict[str, Bounds]]:
    """Limits of a low and a high word, as they were dumped."""
    low, high = ({n: Bounds.model_validate(one) for n, one in side.items()} for side in told)
    return low, high


class KindRule(BaseModel):
    """A kind, and what a segment must look like to be of it; the first rule that holds wins."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str = Field(pattern=r"^[a-z][a-z_]*$")
    when: dict[str, Bounds] = Field(
        description="feature, `customers` or `outlook`, to limits; all must hold", min_length=1
    )
    rank: int | None = Field(
        default=None,
        ge=1,
        description="of two kinds with a rank, the higher is the better one: nobody rises to it "
        "but by what they do",
    )
    instead: str | None = Field(
        default=None,
        description="kind told instead of this one to who was told another before: nobody who is "
        "known becomes new",
    )
    never_said: tuple[str, ...] = Field(
        default=(),
        description="words that would speak against the kind in a segment's name; none: those of "
        "the default kind of that name",
    )


_AWAY = (
    "recent", "ordered recently", "ordering now", "spending now", "frequent", "newcomers",
    "browsing now", "browsed today", "browses a lot", "many visits", "fills carts",
    "browses for long", "buys when visiting",
)  # fmt: skip
_ORDERED = (
    "ordered recently", "no recent order", "ordering now", "few orders lately", "frequent", "rare orders",
    "spending now", "low spend lately", "high value", "low value", "big baskets", "small baskets",
)  # fmt: skip
"""What is said of orders says nothing of who has none."""
_HERE = ("silent", "no recent order", "few orders lately", "low spend lately", "looks only")


def _kind(
    kind: str,
    rank: int,
    never_said: tuple[str, ...] = (),
    **when: tuple[float | None, float | None],
) -> KindRule:
    bounds = {name: Bounds(min=low, max=high) for name, (low, high) in when.items()}
    instead = "promising" if kind == "new" else None
    return KindRule(kind=kind, rank=rank, instead=instead, never_said=never_said, when=bounds)


DEFAULT_KINDS: tuple[KindRule, ...] = (
    _kind("gone_visitor", 1, (*_AWAY, *_ORDERED), customers=(None, 0.5), days_since_seen=(45, None)),
    _kind("browsing", 2, ("silent", *_ORDERED), customers=(None, 0.5)),
    _kind("dormant", 1, _AWAY, outlook=(None, 0.12), days_since_order=(120, None), days_since_seen=(120, None)),
    _kind("dormant", 1, _AWAY, outlook=(None, 0.3), days_since_order=(180, None), days_since_seen=(120, None)),
    _kind("at_risk", 2, _AWAY, outlook=(None, 0.35), days_since_order=(14, None)),
    _kind("at_risk", 2, _AWAY, outlook=(None, 0.45), days_since_order=(45, None)),
    _kind("new", 3, ("long known", "frequent", *_HERE), tenure_days=(None, 14), orders_180d=(None, 2)),
    _kind("champion", 5, ("rare orders", "low value", "newcomers", *_HERE), outlook=(0.85, None), orders_180d=(1.5, None)),
    _kind("loyal", 4, ("rare orders", "newcomers", *_HERE), outlook=(0.6, None), orders_180d=(1, None)),
    _kind("promising", 3, _HERE, outlook=(0.35, None)),
)  # fmt: skip
CHURN_RISK_KINDS = ("at_risk", "dormant")


@dataclass(frozen=True)
class Members:
    """Users whose segments are known.

    Attributes:
        vectors: in natural units, ``(users, features)``.
        labels: column of each one's segment.
        names: of the features.
        segments: how many there are, some perhaps without a member.
        seen: of how soon customers order again.
    """

    vectors: Floats
    labels: Ints
    names: tuple[str, ...]
    segments: int
    seen: rhythm.Seen = rhythm.NOTHING_SEEN

    @cached_property
    def counts(self) -> Ints:
        """How many members each segment has."""
        found: Ints = np.bincount(self.labels, minlength=self.segments)
        return found

    @cached_property
    def typical(self) -> Floats:
        """The median member of each segment, ``(segments, features)``; NaN where there is none."""
        found = np.full((self.segments, len(self.names)), np.nan)
        for column in range(self.segments):
            here = self.vectors[self.labels == column]
            if len(here):
                found[column] = np.median(here, axis=0)
        return found

    @cached_property
    def usual(self) -> Floats:
        """Of each feature, the median of those who have it; NaN if nobody does."""
        found = np.full(len(self.names), np.nan)
        for column, values in enumerate(self.vectors.T):
            if (there := values[values != 0]).size:
                found[column] = np.median(there)
        return found

    def mean(self, values: Floats) -> Floats:
        """Mean of each segment's members; 0 where there is none."""
        total = np.bincount(self.labels, values, minlength=self.segments)
        found: Floats = total / np.maximum(self.counts, 1)
        return found

    def profiles(self) -> list[dict[str, float]]:
        """What rules look at: of each segment, by name of the feature, and the `DERIVED` ones."""
        found = [dict(zip(self.names, row, strict=True)) for row in self.typical.tolist()]
        if rhythm.readable(self.names):
            ordered = rhythm.have_ordered(self.vectors, self.names)
            chance = np.zeros(len(ordered))
            known = rhythm.customers(self.vectors[ordered], self.names)
            chance[ordered] = rhythm.outlook(self.seen, known)
            share = self.mean(ordered.astype(float))
            outlook = self.mean(chance) / np.maximum(share, 1e-9)
            for profile, customers, likely in zip(
                found, share.tolist(), outlook.tolist(), strict=True
            ):
                profile |= {CUSTOMERS: customers, OUTLOOK: likely}
        return found


def kind_of(
    profile: Mapping[str, float],
    rules: Sequence[KindRule],
    current: str | None = None,
    usual: Mapping[str, float] | None = None,
) -> str:
    """The first kind whose limits a profile in natural units keeps.

    A segment that has a kind keeps it while the limits, loosened by `KIND_SLACK`, still hold:
    a segment that trembles on a limit must not change what campaigns think of its users.

    Args:
        usual: value of each feature in the shop, for limits that go by it.
    """
    usual = usual or {}
    for rule in rules:
        slack = KIND_SLACK if rule.kind == current else 0.0
        if all(
            name in profile and bounds.hold(profile[name], slack, usual.get(name, np.nan))
            for name, bounds in rule.when.items()
        ):
            return rule.kind
    return FALLBACK_KIND


def kinds(members: Members, rules: Sequence[KindRule], current: Sequence[str | None]) -> list[str]:
    """Kind of each segment, from its members and the kind it had, which it keeps without any.

    Two kinds next to each other whose customers are about as likely to order are one: that of most of
    their members.
    """
    usual = dict(zip(members.names, members.usual.tolist(), strict=True))
    profiles, counts = members.profiles(), members.counts.tolist()
    found = [
        before if before is not None and not count else kind_of(profile, rules, before, usual)
        for profile, before, count in zip(profiles, current, counts, strict=True)
    ]
    return told_apart(found, profiles, counts, rules, current)


def told_apart(
    found: Sequence[str],
    profiles: Sequence[Mapping[str, float]],
    counts: Sequence[int],
    rules: Sequence[KindRule],
    current: Sequence[str | None],
) -> list[str]:
    """Kinds of segments, without those that their outlook does not tell from the next one.

    Of two such kinds the one with fewer members goes; but where all have been of one of them before, they
    stay of it, and a little longer (`KIND_SLACK`).

    Args:
        found: the kind of each by the rules.
        counts: of members.
        current: the kind of each before.
    """
    told = list(found)
    rank = {rule.kind: rule.rank for rule in reversed(rules) if rule.rank and OUTLOOK in rule.when}
    while True:
        held: dict[str, list[int]] = {}
        for place, (kind, profile, count) in enumerate(zip(told, profiles, counts, strict=True)):
            if kind in rank and OUTLOOK in profile and count:
                held.setdefault(kind, []).append(place)
        chain = sorted(held, key=lambda kind: -rank[kind])
        odds = {
            kind: _odds([(profiles[p][OUTLOOK], counts[p]) for p in held[kind]]) for kind in chain
        }
        alike: tuple[list[int], str] | None = None
        for better, worse in pairwise(chain):
            before = {current[place] for place in held[better] + held[worse]} - {None}
            were_one = len(before) == 1 and before <= {better, worse}
            least = APART * (1.0 + KIND_SLACK) if were_one else APART
            if odds[better] < least * odds[worse]:
                many = max(better, worse, key=lambda kind: sum(counts[p] for p in held[kind]))
                alike = held[better] + held[worse], before.pop() or many if were_one else many
                break
        if alike is None:
            return told
        for place in alike[0]:
            told[place] = alike[1]


def _odds(segments: Sequence[tuple[float, int]]) -> float:
    """Odds of an order, of the members of some segments together.

    Args:
        segments: outlook and members of each.
    """
    likely, counts = zip(*segments, strict=True)
    share = float(np.average(likely, weights=counts))
    return share / max(1.0 - share, 1e-9)


class Rung(NamedTuple):
    """What owners know of a kind.

    Attributes:
        rank: 0 for none: it is no better and no worse than any.
        instead: told in its place to who was told another kind before; empty for none.
    """

    kind: str
    rank: int
    instead: str


def ladder(rules: Sequence[KindRule]) -> tuple[Rung, ...]:
    """Every kind there is, first rule first."""
    rungs = {
        rule.kind: Rung(rule.kind, rule.rank or 0, rule.instead or "") for rule in reversed(rules)
    }
    ranked = any(rung.rank for rung in rungs.values())
    left = Rung(FALLBACK_KIND, FALLBACK_RANK if ranked else 0, "")
    return (*reversed(rungs.values()), *(() if FALLBACK_KIND in rungs else (left,)))
