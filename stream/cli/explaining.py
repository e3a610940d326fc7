"""What `segstream user --why` and `segstream segments --rules` show.

Comes in: facts of `stream.insight.why` and `stream.insight.rule_facts`. Goes out: rich text for people.
"""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from stream.cli.views import KIND_STYLES, level_line
from stream.features import Feature, FeatureTable
from stream.insight.ahead import MOST_ACTS
from stream.insight.facts import (
    Act,
    Condition,
    LevelAct,
    LevelWhy,
    Margin,
    Move,
    NamedSegment,
    PopulationRule,
    Proposal,
    RulesFacts,
    ScoreWhy,
    Shares,
    UnusualWhy,
    WhyFacts,
)
from stream.insight.values import exact, natural, reading
from stream.units import exact_share, percent

PARTS = 8


# -- one user ----------------------------------------------------------------------------------


def show_why(console: Console, facts: WhyFacts | None, table: FeatureTable) -> None:
    """`segstream user --why` for people."""
    if facts is None:
        console.print("why: they are in no segment of the model in force, so nothing holds them")
        return
    known = {feature.name: feature for feature in table.features}
    if facts["population"]["when"]:
        console.print(f"they are among the {said_population(facts['population'])}")
    border = facts["margin"]
    due = _is_due(facts)
    if border is None:
        console.print("their population has no other segment; only its rule can move them")
    else:
        _show_margin(console, facts, border, known, due=due)
    if rest := facts["rests_until"]:
        console.print(
            f"they rest until {rest}: so long a silence says nothing of them, and until then only acts, or a "
            "population's rule, move them"
        )
    if leaning := facts["evidence"]:
        console.print(
            f"their acts so far add up to {leaning['z']:.2f} towards {leaning['segment']}, "
            "which counts as long as it is the nearest"
        )
    _show_moves(console, facts, known, due=due)
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
    _show_scores(console, facts, known)
    for level in facts["levels"]:
        _show_level(console, level, table)


def _show_moves(console: Console, facts: WhyFacts, known: dict[str, Feature], *, due: bool) -> None:
    """What alone would move them to each segment that is near."""
    border = facts["margin"]
    for move in facts["moves"]:
        console.print(_move_title(move))
        if until := move["acts_only_until"]:
            console.print(
                f"  they left it lately: until {until} only acts, or a population's rule, take them back"
            )
        for change in move["changes"]:
            console.print(_change_line(change, known[change["feature"]]))
        if due and border is not None and move["segment"] == border["other"]:
            console.print(
                "  nothing has to: that move is due already, and waits for the next look or for "
                "the end of the dwell time"
            )
        elif not move["changes"]:
            console.print("  no single feature can, within what shoppers have")


def _show_level(console: Console, level: LevelWhy, table: FeatureTable) -> None:
    """What would take them to another step of a level."""
    console.print(Text(level_line(level), style="bold"))
    for act in level["acts"]:
        console.print(f"  {_act(act, table)}: {act['step'] or 'none'}")
    for turn in level["silence"]:
        when = _days(turn["days"]) + (" of silence" if turn["days"] else "")
        console.print(f"  {when}: {turn['step'] or 'none'}")
    if not level["silence"]:
        console.print("  silence leaves them there for two years and longer")


def _show_scores(console: Console, facts: WhyFacts, known: dict[str, Feature]) -> None:
    """What carries each probability, for money follows from one of them; and what makes them unusual."""
    for score in facts["scores"]:
        if score["of"] == "buy":
            console.print(_score_table(score, known))
    if (unusual := facts["unusual"]) and unusual["distance"] > 0:
        console.print(_unusual_table(unusual, known))


def _is_due(facts: WhyFacts) -> bool:
    """Whether they move without any act of theirs, once they are looked at and the dwell time is over."""
    border, nearest = facts["margin"], facts["moves"][:1]
    held = facts["rests_until"] or any(move["acts_only_until"] for move in nearest)
    return border is not None and border["z"] > facts["margin_needed"] and not held


def _show_margin(
    console: Console, facts: WhyFacts, border: Margin, known: dict[str, Feature], *, due: bool
) -> None:
    """How far they are from the border to the nearest other segment."""
    names = {one["segment"]: one["name"] for one in facts["moves"]}
    console.print(_margin_table(border, known))
    z, limit = border["z"], facts["margin_needed"]
    silence = facts["silence_margin_needed"]
    by_time = f", or over {silence:.2g} by silence alone" if silence < limit else ""
    verdict = "due to move" if due else f"moves over {limit:.2g}{by_time}"
    console.print(
        f"z {z:.2f} towards {border['other']}, {names[border['other']]}: 0 is the border; {verdict}"
    )


def _score_table(score: ScoreWhy, known: dict[str, Feature]) -> Table:
    """What carries a probability, in log-odds."""
    shown = Table(
        title=f"What carries {score['score']}, {percent(score['value'])}", title_justify="left"
    )
    shown.add_column("feature")
    shown.add_column("theirs", justify="right")
    shown.add_column("unit")
    shown.add_column("adds, log-odds", justify="right")
    shown.add_row("a customer who is average in all", "", "", f"{score['average']:+.3f}")
    for part in score["parts"][:PARTS]:
        shown.add_row(
            part["feature"],
            exact(part["value"], known[part["feature"]]),
            part["unit"],
            Text(f"{part['log_odds']:+.3f}", "yellow" if part["log_odds"] < 0 else ""),
        )
    if rest := score["parts"][PARTS:]:
        others = sum(part["log_odds"] for part in rest)
        shown.add_row(f"{len(rest)} others", "", "", f"{others:+.3f}")
    shown.add_section()
    shown.add_row("all", "", "", f"{score['log_odds']:+.3f}", style="bold")
    return shown


def _unusual_table(unusual: UnusualWhy, known: dict[str, Feature]) -> Table:
    """What a user does that people like them do not."""
    shown = Table(
        title=f"Farther from what people like them do than {exact_share(unusual['value'])} of all: held "
        f"against {unusual['segment']}, {unusual['name']}",
        title_justify="left",
    )
    shown.add_column("feature")
    shown.add_column("theirs", justify="right")
    shown.add_column("usual there", justify="right")
    shown.add_column("unit")
    shown.add_column("makes", justify="right")
    all_parts = unusual["distance"] ** 2
    for part in unusual["parts"][:PARTS]:
        if part["squared"] > 0 and all_parts > 0:
            feature = known[part["feature"]]
            shown.add_row(
                part["feature"],
                exact(part["value"], feature),
                exact(part["usual"], feature),
                part["unit"],
                f"{part['squared'] / all_parts:.0%}",
            )
    return shown


def said_population(rule: PopulationRule) -> str:
    """A population by its rule, such as ``customers: orders_total ≥ 1``."""
    said = [
        f"{name} {sign} {_number(limits[end])}"
        for name, limits in rule["when"].items()
        for end, sign in (("min", "≥"), ("max", "≤"))
        if end in limits
    ]
    return f"{rule['name']}: {' and '.join(said)}" if said else f"{rule['name']}: everyone else"


def _margin_table(border: Margin, known: dict[str, Feature]) -> Table:
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


def _move_title(move: Move) -> Text:
    return Text.assemble(
        ("What alone would move them", "bold"),
        f" to {move['segment']}, {move['name']} (",
        (move["kind"], KIND_STYLES.get(move["kind"], "")),
        f"; {move['is']})",
    )


def _change_line(change: Proposal, feature: Feature) -> str:
    word = "up" if change["needed"] > change["value"] else "down"
    return (
        f"  {change['feature']} {word} from {exact(change['value'], feature)} to "
        f"{natural(change['needed'])} {change['unit']}".rstrip()
        + f"  ({change['sd']:+.2f} sd, {change['how']})"
    )


def _going_to(when: str, facts: NamedSegment) -> Text:
    return Text.assemble(
        f"  {when}: to {facts['segment']}, {facts['name']} (",
        (facts["kind"], KIND_STYLES.get(facts["kind"], "")),
        ")",
    )


def _act(act: Act | LevelAct, table: FeatureTable) -> str:
    """Such as ``2 x Order Completed, 17.5 money each``."""
    units: dict[str | None, str] = {
        feature.of: feature.unit for feature in table.features if act["event"] in feature.on
    }
    numbers = [
        f"{natural(number)} {units[of]}".rstrip()
        for of, number in (("value", act["value"]), ("quantity", act["quantity"]))
        if number
    ]
    each = " each" if numbers and act["times"] > 1 else ""
    return ", ".join([f"{act['times']} x {act['event']}", *numbers]) + each


def _days(days: int) -> str:
    return "at the next look" if days == 0 else "in 1 day" if days == 1 else f"in {days} days"


# -- rules for all -----------------------------------------------------------------------------


def show_rules(console: Console, facts: RulesFacts, table: FeatureTable) -> None:
    """`segstream segments --rules` for people."""
    known = {feature.name: feature for feature in table.features}
    console.print(Text("Who is in which", style="bold"))
    rules = {one["name"]: one for one in facts["populations"]}
    before = None
    for one in facts["segments"]:
        if len(rules) > 1 and one["population"] != before:
            before = one["population"]
            console.print(Text(said_population(rules[before]), style="italic"))
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


def _shares(facts: Shares) -> str:
    covers, purity = facts["covers"], facts["purity"]
    if covers is None or purity is None:
        return "nobody to judge it on"
    return f"{percent(covers)} of its members, {percent(purity)} pure"


def _said(condition: Condition, feature: Feature) -> str:
    """A condition in words."""
    above, upto = condition["above"], condition["upto"]
    never = feature.aggregate == "last" and feature.absent > 0 and upto is None
    after = " or never" if never and above is not None and above < feature.absent else ""
    name = condition["feature"]
    if upto is None:
        assert above is not None, "a condition has a limit"
        return f"{name} > {_number(above)}{after}"
    if above is None:
        return f"{name} ≤ {_number(upto)}"
    return f"{_number(above)} < {name} ≤ {_number(upto)}"


def _number(value: float) -> str:
    """A threshold to its last digit, for it is judged as it is read; never with an exponent."""
    text = f"{value:,.10f}"
    return text.rstrip("0").rstrip(".")
