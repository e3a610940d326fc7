"""Declares levels: what a settings file may say, and the levels that most shops want.

Comes in: values of `[[levels]]`. Goes out: levels, each with its steps; `limits` finds where these begin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stream.kinds import Bounds

MOST_LEVELS = 8
"""A row has a byte for each."""
MOST_STEPS = 16
NAME = r"^[a-z][a-z0-9_]*$"


class Step(BaseModel):
    """One step: who is on it, unless they are on one declared before it.

    A step may be declared twice, one behind the other: whoever reaches either limit is on it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=NAME)
    of: str | None = Field(
        default=None, description="feature or score that it looks at; none: the level's"
    )
    least: float | None = Field(
        default=None, allow_inf_nan=False, description="the value from which on, in its own unit"
    )
    least_of_base: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="the same as so many times the share of customers who buy, of a probability",
    )
    least_quantile: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="the same as the value that this share of customers stay below",
    )

    @property
    def limits(self) -> int:
        """How many limits it has."""
        return sum(one is not None for one in (self.least, self.least_of_base, self.least_quantile))


class Rule(BaseModel):
    """Who is on a step whatever its limits say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: str = Field(description="name of the step")
    when: dict[str, Bounds] = Field(
        min_length=1,
        description="feature to limits, in natural units, min and max; all must hold. The last one is "
        "told as what was crossed",
    )

    @model_validator(mode="after")
    def _has_limits(self) -> Rule:
        for feature, bounds in self.when.items():
            if bounds.min_times is not None or bounds.max_times is not None:
                raise ValueError(
                    f"{self.step}: {feature!r} has no usual value here; give min or max"
                )
        return self


class Level(BaseModel):
    """One declared level: its steps, from the highest values down."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=NAME)
    of: str | None = Field(
        default=None,
        description="feature or score that its steps look at, where they name no other",
    )
    steps: tuple[Step, ...] = Field(
        min_length=2,
        max_length=MOST_STEPS,
        description="whoever reaches no step is on the last, which has no limit",
    )
    rules: tuple[Rule, ...] = Field(
        default=(), description="come before all steps; the first that holds counts"
    )
    slack: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="share of a limit by which a value must be beyond it before anybody crosses it; 0 "
        "for what does not tremble, such as a count of orders",
    )

    @model_validator(mode="after")
    def _has_limits(self) -> Level:
        names = [step.name for step in self.steps]
        apart = [name for name, _ in groupby(names)]
        for name in names:
            if apart.count(name) > 1:
                raise ValueError(
                    f"{self.name}: the step {name!r} is there twice, and not one behind the other"
                )
        *limited, last = self.steps
        if last.name in names[:-1]:
            raise ValueError(f"{self.name}: the last step, {last.name!r}, is there twice")
        for step in limited:
            if step.limits != 1:
                raise ValueError(
                    f"{self.name}: the step {step.name!r} needs one of least, least_of_base and "
                    "least_quantile; only the last step has none"
                )
            if self.looks_at(step) is None:
                raise ValueError(
                    f"{self.name}: the step {step.name!r} looks at nothing; give it, or the level, an of"
                )
        if last.limits or last.of is not None:
            raise ValueError(
                f"{self.name}: the last step, {last.name!r}, takes everyone else: it has no limit and no "
                "of"
            )
        for rule in self.rules:
            if rule.step not in names:
                raise ValueError(
                    f"{self.name}: a rule is for {rule.step!r}, which is no step of it"
                )
        return self

    def looks_at(self, step: Step) -> str | None:
        """The feature or score that a step looks at."""
        return step.of or self.of

    @property
    def inputs(self) -> tuple[str, ...]:
        """Features and scores that its steps look at, each once."""
        found = dict.fromkeys(self.looks_at(step) for step in self.steps[:-1])
        return tuple(name for name in found if name is not None)

    @property
    def asked(self) -> tuple[str, ...]:
        """Features that its rules look at, each once."""
        return tuple(dict.fromkeys(name for rule in self.rules for name in rule.when))


def step_names(levels: Sequence[Level]) -> dict[str, tuple[str, ...]]:
    """Of each level the names of its steps, from the highest down, each once."""
    return {level.name: tuple(dict.fromkeys(step.name for step in level.steps)) for level in levels}


def check(levels: Sequence[Level], features: Sequence[str], scores: Mapping[str, str]) -> None:
    """See that levels look at what there is.

    Args:
        scores: what each is of, by name.

    Raises:
        ValueError: names the level, and what is wrong with it.
    """
    if len(levels) > MOST_LEVELS:
        raise ValueError(f"levels: {len(levels)} are more than {MOST_LEVELS}")
    names = [level.name for level in levels]
    for level in levels:
        if names.count(level.name) > 1:
            raise ValueError(f"levels: the name {level.name!r} is used twice")
        for name in level.inputs:
            if name not in features and name not in scores:
                raise ValueError(
                    f"levels: {level.name!r} looks at {name!r}, which is no feature and no score"
                )
        for name in level.asked:
            if name not in features:
                raise ValueError(
                    f"levels: a rule of {level.name!r} looks at {name!r}, which is no feature"
                )
        for step in level.steps[:-1]:
            of = level.looks_at(step)
            if step.least_of_base is not None and scores.get(of or "") != "buy":
                raise ValueError(
                    f"levels: {level.name!r} has least_of_base of {of!r}, which is no probability"
                )


USUAL_LEVELS: tuple[Level, ...] = (
    Level(
        name="churn_risk",
        of="buy_probability_90d",
        steps=(
            Step(name="low", least_of_base=1.1),
            Step(name="medium", least_of_base=0.9),
            Step(name="medium", of="buy_probability_30d", least_of_base=1.0),
            Step(name="high"),
        ),
        rules=(
            Rule(
                step="high",
                when={
                    "orders_total": Bounds(min=10),
                    "days_since_order": Bounds(min=30),
                    "silence_in_gaps": Bounds(min=2.3),
                },
            ),
        ),
    ),
    Level(
        name="value_tier",
        steps=(
            Step(name="high", of="revenue_180d", least_quantile=0.9),
            Step(name="potential", of="expected_spend_90d", least_quantile=0.9),
            Step(name="regular"),
        ),
    ),
    Level(
        name="purchase_stage",
        of="orders_total",
        slack=0,
        steps=(
            Step(name="loyal", least=5),
            Step(name="repeat", least=2),
            Step(name="first_time", least=1),
            Step(name="prospect"),
        ),
    ),
)
"""What most shops with the default features and scores want; the guide shows them, the demo has the last. A best customer's probability is still
above the shop's when they have begun to drift away, so for them their own rhythm counts: 2.3 of their usual gaps, and
30 days, before which too many of them come back."""
