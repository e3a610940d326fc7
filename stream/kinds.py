"""What kind of segment a centroid is: champions, loyal, at risk, dormant.

Comes in: a centroid in natural units, and declared rules. Goes out: the first kind whose limits it
keeps. `naming` and `learning.refit` are next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stream.events import Floats

FALLBACK_KIND = "occasional"
KIND_SLACK = 0.15
"""Of a limit: more than a centroid moves between two refits, less than two kinds lie apart."""


class Bounds(BaseModel):
    """Limits on a centroid's value of a feature, in natural units, both included."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _one_at_least(self) -> Bounds:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        return self

    def hold(self, value: float, slack: float = 0.0) -> bool:
        """Whether a value keeps the limits, each moved outwards by a share of itself."""
        low = self.min is None or value >= self.min - slack * abs(self.min)
        return low and (self.max is None or value <= self.max + slack * abs(self.max))


class KindRule(BaseModel):
    """A kind, and what a centroid must look like to be of it; the first rule that holds wins."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str = Field(pattern=r"^[a-z][a-z_]*$")
    when: dict[str, Bounds] = Field(description="feature to limits; all must hold", min_length=1)


def _kind(kind: str, **when: tuple[float | None, float | None]) -> KindRule:
    return KindRule(
        kind=kind, when={name: Bounds(min=low, max=high) for name, (low, high) in when.items()}
    )


DEFAULT_KINDS: tuple[KindRule, ...] = (
    _kind("dormant", days_since_seen=(120, None)),
    _kind("at_risk", days_since_seen=(45, None)),
    _kind("champion", orders_30d=(2, None), days_since_order=(None, 30)),
    _kind("browsing", orders_180d=(None, 0.25), views_7d=(0.5, None)),
    _kind("new", tenure_days=(None, 14), orders_180d=(None, 2)),
    _kind("loyal", orders_180d=(1.5, None)),
    _kind("promising", orders_180d=(0.4, None)),
)
CHURN_RISK_KINDS = ("at_risk", "dormant")


def kind_of(
    profile: Mapping[str, float], rules: Sequence[KindRule], current: str | None = None
) -> str:
    """The first kind whose limits a profile in natural units keeps.

    A segment that has a kind keeps it while the limits, loosened by `KIND_SLACK`, still hold:
    a centroid that trembles on a limit must not change what campaigns think of its users.
    """
    for rule in rules:
        slack = KIND_SLACK if rule.kind == current else 0.0
        if all(bounds.hold(profile[name], slack) for name, bounds in rule.when.items()):
            return rule.kind
    return FALLBACK_KIND


def kinds(
    natural: Floats,
    names: Sequence[str],
    rules: Sequence[KindRule],
    current: Sequence[str | None],
) -> list[str]:
    """Kind of each centroid, from its values in natural units and the kind it had.

    Args:
        names: of the features.
    """
    return [
        kind_of(dict(zip(names, row, strict=True)), rules, before)
        for row, before in zip(natural.tolist(), current, strict=True)
    ]
