"""Why a user is where they are, and what would move them.

Comes in: a reader of the store, and a user's id. Goes out: facts; `explain` works them out, and
`stream.cli.explaining` shows them.
"""

from __future__ import annotations

import math

from stream.events import Rows
from stream.insight import foretold, level_facts
from stream.insight.ahead import acted, silence
from stream.insight.explain import acts, departures, margin, nearest_other, proposals
from stream.insight.facts import Evidence, WhyFacts
from stream.insight.queries import NoModelError, Reader, limits, segment_facts
from stream.segments import EVIDENCE, columns_of
from stream.units import DAY_MS, iso

PROPOSALS = 3


def why(reader: Reader, name: str) -> WhyFacts | None:
    """What holds a user and what would move them; None while the user is in no segment of the model.

    Raises:
        UnknownUserError: no event of that user has been applied.
    """
    row, now_ms, position = reader.row_of(name)
    try:
        model = reader.model()
    except NoModelError:
        return None
    own = int(columns_of(row["segment"], model.ids)[0])
    if own < 0:
        return None
    table = reader.table
    rule = model.rule or reader.settings.publish.rule()
    vector = table.vectors(row, now_ms)[0]
    part = model.part_of(own)[0]
    declared = model.populations.declared[model.populations.names.index(part.population)]
    targets: dict[int, str] = {}
    back = int(columns_of(row["previous"], model.ids)[0])
    returns_ms = int(row["since"][0]) + rule.return_ms
    border, near = None, 0.0
    if len(part.ids) > 1:
        border = margin(vector, model, table.features, own)
        nearest = nearest_other(vector, model, own)
        near = float(model.nearness[own, nearest])
        targets[nearest] = "nearest"
        if back == nearest:
            targets[nearest] = "nearest, and where they were before"
        elif back >= 0 and model.part_of(back)[0] is part:
            targets[back] = "where they were before"
    by_act, by_silence = rule.asked_between(near)
    rest_days = rule.rest_days(model.populations.features, vector[None])
    rests_ms = 0 if rest_days is None else now_ms + math.ceil(float(rest_days[0]) * DAY_MS)
    after_acts, after_silence = acted(row, table, model, now_ms), silence(row, table, now_ms)
    return {
        "population": {"name": declared.name, "when": limits(declared)},
        "margin": border,
        "margin_needed": by_act,
        "silence_margin_needed": by_silence,
        "rests_until": _until(rests_ms, now_ms),
        "evidence": _evidence(row),
        "moves": [
            {
                **segment_facts(model, int(model.ids[target])),
                "is": relation,
                "acts_only_until": _until(returns_ms if target == back else 0, now_ms),
                "changes": proposals(vector, model, table.features, own, target, rule)[:PROPOSALS],
            }
            for target, relation in targets.items()
        ],
        "acts": acts(row, after_acts, table, model, rule),
        "silence": departures(row, after_silence, model, rule),
        "scores": foretold.why(model, vector, table),
        "unusual": foretold.why_unusual(model, vector, table),
        "levels": level_facts.why(model, row, position.levels, table, after_silence, after_acts),
    }


def _until(time_ms: int, now_ms: int) -> str | None:
    """A time to come; None for one that is over."""
    return iso(time_ms) if time_ms > now_ms else None


def _evidence(row: Rows) -> Evidence | None:
    """What a user's acts so far add up to, and towards which segment; None if it is nothing."""
    evidence = int(row["evidence"][0])
    return {"segment": int(row["candidate"][0]), "z": evidence / EVIDENCE} if evidence else None
