"""What a person may set anew while the pipeline runs, and what it does to a round.

Comes in: a settings file, at `segstream apply`. Goes out: a value for the store, which the trainer
keeps to from its next round on, whatever its own settings file says. How events fold into rows is no
part of it: rows that are folded already would mean something else.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from stream.config import Learning, Publish, Settings
from stream.kinds import KindRule, limits_from
from stream.model import Axes, GivenAxes
from stream.populations import Population, Populations
from stream.segments import PublishRule

DEFAULT_RULE = Publish().rule()
OWNERS_SHARE = frozenset({"sample_users"})
"""Settings of learning that workers have to agree with: they stay those the roles were started with."""


@dataclass(frozen=True)
class Started:
    """What a round goes by, as the trainer was started or as a person wants it.

    Attributes:
        publish: the rule that owners go by, which says who will be in which segment.
    """

    axes: Axes
    learning: Learning
    rules: Sequence[KindRule]
    populations: Sequence[Population] = ()
    publish: PublishRule = DEFAULT_RULE

    def divided(self) -> Populations:
        """The populations, compiled."""
        return Populations.of(self.populations, self.axes.names)


class Tuning(msgspec.Struct, frozen=True):
    """Learning, publish rule, weights, words, kinds and populations, as a person wants them.

    Attributes:
        id: drawn once; the model that is learned with it first, and all after it, carry it.
        schema: of the feature table it is for.
        learning, publish: values by setting.
        weights, words, limits: by feature; limits as `features.Feature` has them.
        kinds: the rules, first match first.
        populations: as declared; None of an older version, which knew of none.
    """

    id: str
    schema: str
    learning: dict[str, Any]
    publish: dict[str, Any]
    weights: dict[str, float]
    words: dict[str, tuple[str, str]]
    kinds: list[dict[str, Any]]
    populations: list[dict[str, Any]] | None = None
    limits: dict[str, list[dict[str, Any]]] = {}

    @staticmethod
    def of(settings: Settings) -> Tuning:
        """What a settings file says of it, under a new id."""
        return Tuning(
            id=secrets.token_hex(8),
            schema=settings.table().schema,
            learning=settings.learning.model_dump(exclude=set(OWNERS_SHARE)),
            publish=settings.publish.model_dump(),
            weights={feature.name: feature.weight for feature in settings.features},
            words={feature.name: feature.words for feature in settings.features},
            kinds=[rule.model_dump(mode="json") for rule in settings.kinds],
            populations=[one.model_dump() for one in settings.populations],
            limits={
                feature.name: [
                    {name: bounds.model_dump(exclude_none=True) for name, bounds in side.items()}
                    for side in feature.limits
                ]
                for feature in settings.features
            },
        )

    def pack(self) -> bytes:
        return msgspec.json.encode(self)

    @staticmethod
    def unpack(raw: bytes) -> Tuning:
        return msgspec.json.decode(raw, type=Tuning)

    def new_to(self, current: Tuning | None, schema: str) -> bool:
        """Whether it is for this feature table, and not what is in force already."""
        return self.schema == schema and (current is None or current.id != self.id)

    def rule(self) -> PublishRule:
        return Publish.model_validate(_known(self.publish, Publish)).rule()

    def over(self, started: Started) -> Started:
        """What a round goes by, instead of what the trainer was started with."""
        axes = started.axes
        tuned = GivenAxes(
            names=axes.names,
            units=axes.units,
            words=tuple(self.words[name] for name in axes.names),
            limits=tuple(
                limits_from(self.limits[name]) if name in self.limits else known
                for name, known in zip(axes.names, axes.limits, strict=True)
            ),
            weights=np.array([self.weights[name] for name in axes.names]),
            schema=axes.schema,
        )
        values = started.learning.model_dump() | _known(self.learning, Learning)
        populations = started.populations
        if self.populations is not None:
            populations = [
                Population.model_validate(_known(one, Population)) for one in self.populations
            ]
        return Started(
            tuned,
            Learning.model_validate(values),
            [KindRule.model_validate(rule) for rule in self.kinds],
            populations,
            self.rule(),
        )


def _known(
    values: dict[str, Any], section: type[Learning | Publish | Population]
) -> dict[str, Any]:
    """Those that there are: a later version may have been downgraded to this one."""
    return {name: value for name, value in values.items() if name in section.model_fields}
