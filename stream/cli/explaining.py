"""What `segstream user --why` and `segstream segments --rules` show.

Comes in: a reader of the store, or a sample of its users. Goes out: plain dicts for ``--json``, and
rich text of the same dicts for people. `stream.insight.explain` and `stream.insight.rules` find it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from stream.cli import views
from stream.cli.explore import ExploreError, People
from stream.cli.views import KIND_STYLES, exact, natural, reading
from stream.events import Rows
from stream.features import Feature, FeatureTable
from stream.insight.explain import MOST_ACTS, acts, departures, margin, nearest_other, proposals
from stream.insight.rules import Condition, Rule, find_rules
from stream.model import Model
from stream.segments import EVIDENCE, columns_of
from stream.units import iso, percent

PROPOSALS = 3
PARTS = 8


# -- one user ----------------------------------------------------------------------------------


def why(reader: views.Reader, name: str) -> dict[str, Any] | None:
    """Facts of `segstream user --why`; None while the user is in no segment of the model.

    Raises:
        UnknownUserError: no event of that user has been applied.
    """
    _, row, now_ms = reader.row_of(name)
    try:
        model = views.trainer_state(reader.store).model
    except views.NoModelError:
        return None
    assert model is not None
    own = int(columns_of(row["segment"], model.ids)[0])
    if own < 0 or len(model.ids) < 2:
        return None
    table = reader.table
    rule = model.rule or reader.settings.publish.rule()
    vector = table.vectors(row, now_ms)[0]
    nearest = nearest_other(vector, model, own)
    targets = {nearest: "nearest"}
    back = int(columns_of(row["previous"], model.ids)[0])
    if back == nearest:
        targets[nearest] = "nearest, and where they were before"
    elif back >= 0:
        targets[back] = "where they were before"
    return {
        "margin": asdict(margin(vector, model, table.features, own)),
        "margin_needed": rule.margin,
        "silence_margin_needed": rule.by_silence,
        "evidence": _evidence(row),
        "moves": [
            {
                **_told(model, int(model.ids[target])),
                "is": relation,
                "changes": [
                    asdict(one)
                    for one in proposals(vector, model, table.features, own, target, rule)[
                        :PROPOSALS
                    ]
                ],
            }
            for target, relation in targets.items()
        ],
        "acts": [
            asdict(one) | _told(model, one.to) for one in acts(row, table, model, rule, now_ms)
        ],
        "silence": [
            {"days": one.days, "at": iso(one.at_ms), **_told(model, one.to)}
            for one in departures(row, table, model, rule, now_ms)
        ],
    }


def _evidence(row: Rows) -> dict[str, Any] | None:
    """What a user's acts so far add up to, and towards which segment; None if to nothing."""
    evidence = int(row["evidence"][0])
    return {"segment": int(row["candidate"][0]), "z": evidence / EVIDENCE} if evidence else None


def _told(model: Model, segment: int) -> dict[str, Any]:
    known = model.by_id[segment]
    return {"segment": known.id, "name": known.name, "kind": known.kind}


def show_why(console: Console, facts: dict[str, Any] | None, table: FeatureTable) -> None:
    """`segstream user --why` for people."""
    if facts is None:
        console.print("why: they are in no segment of the model in force, so nothing holds them")
        return
    known = {feature.name: feature for feature in table.features}
    border = facts["margin"]
    names = {one["segment"]: one["name"] for one in facts["moves"]}
    console.print(_margin_table(facts, known))
    z, limit = border["z"], facts["margin_needed"]
    due = z > limit
    silence = facts["silence_margin_needed"]
    by_time = f", or over {silence:g} by silence alone" if silence < limit else ""
    verdict = "due to move" if due else f"moves over {limit:g}{by_time}"
    console.print(
        f"z {z:.2f} towards {border['other']}, {names[border['other']]}: 0 is the border; {verdict}"
    )
    if leaning := facts["evidence"]:
        console.print(
            f"their acts so far add up to {leaning['z']:.2f} towards {leaning['segment']}, "
            "which counts as long as it is the nearest"
        )
    for move in facts["moves"]:
        console.print(_move_title(move))
        for change in move["changes"]:
            console.print(_change_line(change, known[change["feature"]]))
        if due and move["segment"] == border["other"]:
            console.print(
                "  nothing has to: that move is due already, and waits for the next look or for "
                "the end of the dwell time"
            )
        elif not move["changes"]:
            console.print("  no single feature can, within what shoppers have")
    if not due and not any(departure["days"] == 0 for departure in facts["silence"]):
        console.print(Text("If they act now", style="bold"))
        for act in facts["acts"]:
            console.print(_going_to(_act(act, table), act))
        if not facts["acts"]:
            console.print(f"  up to {MOST_ACTS} events of any one kind leave them where they are")
    console.print(Text("If they stay silent", style="bold"))
    for departure in facts["silence"]:
        console.print(_going_to(_days(departure["days"]), departure))
    if not facts["silence"]:
        console.print("  they stay where they are for two years and longer")


def _margin_table(facts: dict[str, Any], known: dict[str, Feature]) -> Table:
    border = facts["margin"]
    shown = Table(
        title=f"What holds them in {border['own']}, and what pulls to {border['other']}",
        title_justify="left",
    )
    shown.add_column("feature")
    for column in ("theirs", f"in {border['own']}", f"in {border['other']}"):
        shown.add_column(column, justify="right")
    shown.add_column("unit")
    shown.add_column("pull, sd²", justify="right")
    for part in border["parts"][:PARTS]:
        feature = known[part["feature"]]
        shown.add_row(
            part["feature"],
            exact(part["value"], feature),
            *(reading(part[which], feature) for which in ("own", "other")),
            part["unit"],
            Text(f"{part['contribution']:+.3f}", "yellow" if part["contribution"] > 0 else ""),
        )
    rest = border["parts"][PARTS:]
    if rest:
        others = sum(part["contribution"] for part in rest)
        shown.add_row(f"{len(rest)} others", "", "", "", "", f"{others:+.3f}")
    shown.add_section()
    shown.add_row("all", "", "", "", "", f"{border['difference']:+.3f}", style="bold")
    return shown


def _move_title(move: dict[str, Any]) -> Text:
    return Text.assemble(
        ("What alone would move them", "bold"),
        f" to {move['segment']}, {move['name']} (",
        (move["kind"], KIND_STYLES.get(move["kind"], "")),
        f"; {move['is']})",
    )


def _change_line(change: dict[str, Any], feature: Feature) -> str:
    word = "up" if change["needed"] > change["value"] else "down"
    return (
        f"  {change['feature']} {word} from {exact(change['value'], feature)} to "
        f"{natural(change['needed'])} {change['unit']}".rstrip()
        + f"  ({change['sd']:+.2f} sd, {change['how']})"
    )


def _going_to(when: str, facts: dict[str, Any]) -> Text:
    return Text.assemble(
        f"  {when}: to {facts['segment']}, {facts['name']} (",
        (facts["kind"], KIND_STYLES.get(facts["kind"], "")),
        ")",
    )


def _act(act: dict[str, Any], table: FeatureTable) -> str:
    """Such as ``2 x Order Completed, 17.5 money each``."""
    units = {feature.of: feature.unit for feature in table.features if act["event"] in feature.on}
    numbers = [
        f"{natural(act[of])} {units[of]}".rstrip() for of in ("value", "quantity") if act[of]
    ]
    each = " each" if numbers and act["times"] > 1 else ""
    return ", ".join([f"{act['times']} x {act['event']}", *numbers]) + each


def _days(days: int) -> str:
    return "at the next look" if days == 0 else "in 1 day" if days == 1 else f"in {days} days"


# -- rules for all -----------------------------------------------------------------------------


def rules(people: People, model: Model, table: FeatureTable) -> dict[str, Any]:
    """Facts of `segstream segments --rules`, under its key `rules`.

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
                **_told(model, one.segment),
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


def _condition(condition: Condition, table: FeatureTable) -> dict[str, Any]:
    feature = table.features[condition.feature]
    return {
        "feature": feature.name,
        "above": condition.above,
        "upto": condition.upto,
        "unit": feature.unit,
    }


def show_rules(console: Console, facts: dict[str, Any], table: FeatureTable) -> None:
    """`segstream segments --rules` for people."""
    known = {feature.name: feature for feature in table.features}
    console.print(Text("Who is in which", style="bold"))
    for one in facts["segments"]:
        console.print(
            Text.assemble(
                (f"{one['segment']} {one['name']}", "bold"),
                " (",
                (one["kind"], KIND_STYLES.get(one["kind"], "")),
                f"): {_shares(one)}" if one["rules"] else "): nothing tells them from all others",
                "; others' rules hold of some of them" if one["overlaps"] else "",
            )
        )
        for rule in one["rules"]:
            said = " and ".join(_said(c, known[c["feature"]]) for c in rule["conditions"])
            shares = f"  ({_shares(rule)})" if len(one["rules"]) > 1 else ""
            line = Text.assemble(said or "everyone", (shares, "dim"))
            console.print(Padding(line, (0, 0, 0, 4)))
    agreement = facts["fidelity"]
    judged = "nobody was left to judge them on" if agreement is None else (
        f"they put {percent(agreement)} of {facts['judged_on']:,} other users where they are"
    )  # fmt: skip
    console.print(f"learned from {facts['learned_from']:,} of {facts['users']:,} users; {judged}")


def _shares(facts: dict[str, Any]) -> str:
    covers, purity = facts["covers"], facts["purity"]
    if covers is None or purity is None:
        return "nobody to judge it on"
    return f"{percent(covers)} of its members, {percent(purity)} pure"


def _said(condition: dict[str, Any], feature: Feature) -> str:
    """A condition in words."""
    above, upto = condition["above"], condition["upto"]
    never = feature.aggregate == "last" and feature.absent > 0 and upto is None
    after = " or never" if never and above is not None and above < feature.absent else ""
    name = condition["feature"]
    if above is None:
        return f"{name} ≤ {_number(upto)}"
    if upto is None:
        return f"{name} > {_number(above)}{after}"
    return f"{_number(above)} < {name} ≤ {_number(upto)}"


def _number(value: float) -> str:
    """A threshold to its last digit, for it is judged as it is read; never with an exponent."""
    text = f"{value:,.10f}"
    return text.rstrip("0").rstrip(".")
