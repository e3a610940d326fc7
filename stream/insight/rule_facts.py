"""Who is in which segment, in a few conditions each.

Comes in: a sample of users, and the model. Goes out: facts; `rules` finds them, and
`stream.cli.explaining` shows them.
"""

from __future__ import annotations

from collections.abc import Sequence

from stream.features import FeatureTable
from stream.insight import facts
from stream.insight.explore import ExploreError, People
from stream.insight.facts import RulesFacts
from stream.insight.queries import segment_facts
from stream.insight.rules import Condition, Rule, find_rules
from stream.model import Model


def rules(people: People, model: Model, table: FeatureTable) -> RulesFacts:
    """The rules of every segment.

    Raises:
        ExploreError: nobody is in a segment of the model yet.
    """
    ids = model.ids.tolist()
    try:
        found = find_rules(people.vectors, people.hashes, people.segments, ids)
    except ValueError as error:
        raise ExploreError(f"{people.source}: {error}") from None
    return {
        "fidelity": found.fidelity,
        "learned_from": found.learned_from,
        "judged_on": found.judged_on,
        "users": people.total,
        "segments": [
            {
                **segment_facts(model, one.segment),
                "covers": one.covers,
                "purity": one.purity,
                "overlaps": one.overlaps,
                "rules": [
                    {
                        "conditions": [_condition(c, table) for c in rule.conditions],
                        "covers": rule.covers,
                        "purity": rule.purity,
                        "users": rule.users,
                    }
                    for rule in _that_find_somebody(one.rules)
                ],
            }
            for one in found.segments
        ],
    }


def _that_find_somebody(rules: Sequence[Rule]) -> Sequence[Rule]:
    """Of several rules those that hold of nobody are not worth a line."""
    return [rule for rule in rules if rule.users] or rules[:1]


def _condition(condition: Condition, table: FeatureTable) -> facts.Condition:
    feature = table.features[condition.feature]
    return {
        "feature": feature.name,
        "above": condition.above,
        "upto": condition.upto,
        "unit": feature.unit,
    }
