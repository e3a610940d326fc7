"""Who is in which segment, in a few conditions each.

Comes in: a sample of users, and the model. Goes out: facts; `rules` finds them, and
`stream.cli.explaining` shows them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from stream.features import FeatureTable
from stream.insight import facts
from stream.insight.explore import ExploreError, People
from stream.insight.facts import RulesFacts
from stream.insight.queries import limits, segment_facts
from stream.insight.rules import Condition, Rule, Rules, find_rules
from stream.model import Model, PopulationModel


def rules(people: People, model: Model, table: FeatureTable) -> RulesFacts:
    """The rules of every segment.

    Raises:
        ExploreError: nobody is in a segment of the model yet.
    """
    by_population: list[tuple[PopulationModel, int, Rules]] = []
    for part in model.parts:
        place = model.populations.names.index(part.population)
        among = people.among(place)
        with suppress(ValueError):  # nobody to learn from
            found = find_rules(among.vectors, among.hashes, among.segments, part.ids.tolist())
            by_population.append((part, people.totals[place], found))
    if not by_population:
        raise ExploreError(f"{people.source}: rules need users in segments to be learned from")
    judged = [(one.fidelity, users) for _, users, one in by_population if one.fidelity is not None]
    whole = sum(users for _, users in judged)
    return {
        "populations": [
            {"name": one.name, "when": limits(one)} for one in model.populations.declared
        ],
        "fidelity": sum(share * users for share, users in judged) / whole if whole else None,
        "learned_from": sum(one.learned_from for _, _, one in by_population),
        "judged_on": sum(one.judged_on for _, _, one in by_population),
        "users": people.total,
        "segments": [
            {
                **segment_facts(model, one.segment),
                "population": part.population,
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
            for part, _, found in by_population
            for one in found.segments
        ],
    }


def _that_find_somebody(rules: Sequence[Rule]) -> Sequence[Rule]:
    """Where there are several rules, those that hold for nobody are left out."""
    return [rule for rule in rules if rule.users] or rules[:1]


def _condition(condition: Condition, table: FeatureTable) -> facts.Condition:
    feature = table.features[condition.feature]
    return {
        "feature": feature.name,
        "above": condition.above,
        "upto": condition.upto,
        "unit": feature.unit,
    }
