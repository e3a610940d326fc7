"""Shows segments, users and changes to people.

Comes in: facts of `stream.insight.queries`, and change records. Goes out: rich tables and lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stream.events import SegmentChange
from stream.features import FeatureTable
from stream.insight import foretold
from stream.insight.facts import (
    LevelFacts,
    LevelStep,
    Record,
    ScoreFacts,
    SegmentFacts,
    SegmentScore,
    SegmentsFacts,
    UserFacts,
)
from stream.insight.members import Member
from stream.insight.queries import is_young, marks_of
from stream.insight.values import exact, natural, reading
from stream.model import DECLARED
from stream.safe import safe
from stream.units import exact_share, percent, percents

FARTHER = foretold.UNITS["unusual"]
KIND_STYLES = {
    "champion": "bold green",
    "loyal": "green",
    "promising": "cyan",
    "new": "blue",
    "browsing": "white",
    "occasional": "white",
    "at_risk": "yellow",
    "dormant": "red",
    "gone_visitor": "dim",
}


def marks_line(segment: SegmentFacts, table: FeatureTable) -> str:
    """What marks a segment, in natural units."""
    known = {feature.name: feature for feature in table.features}
    return ", ".join(
        f"{entry['feature']} {reading(entry['value'], known[entry['feature']])}"
        for entry in marks_of(segment["profile"], table)
    )


WIDE, NARROW = 130, 100
"""Columns of a terminal from which on what marks a segment has a column of its own; below which it
is more readable without flapping (``--json`` has it)."""


def _heading(facts: SegmentsFacts, population: str) -> str:
    """A population, and how its number of segments came about if its users suggested it."""
    choice = next(one["choice"] for one in facts["populations"] if one["name"] == population)
    return population if choice in (None, DECLARED) else f"{population} (suggested, {choice})"


def in_groups(facts: SegmentsFacts) -> list[SegmentFacts]:
    """Segments by population, the largest first in each."""
    places = {one["name"]: place for place, one in enumerate(facts["populations"])}
    return sorted(facts["segments"], key=lambda row: (places[row["population"]], -row["size"]))


def segments_table(facts: SegmentsFacts, table: FeatureTable, columns: int) -> Table:
    """The segments by population, the largest first in each, for a terminal so wide."""
    wide, narrow = columns >= WIDE, columns < NARROW
    shown = Table(title=f"Segments of model {facts['model']}", title_justify="left")
    shown.add_column("id", justify="right")
    shown.add_column("name")
    shown.add_column("kind")
    shown.add_column("users", justify="right")
    shown.add_column("share", justify="right")
    if not narrow:
        shown.add_column("leave a day", justify="right")
        shown.add_column("of them back", justify="right")
    foretold = [one["score"] for one in facts["scores"]] if wide else []
    for name in foretold:
        shown.add_column(name.replace("_", " "), justify="right")
    if wide:
        shown.add_column("what marks it", overflow="fold")
    rows = in_groups(facts)
    populations = [one["name"] for one in facts["populations"]]
    before = None
    for row, share in zip(rows, percents([row["size"] for row in rows]), strict=True):
        if len(populations) > 1 and row["population"] != before:
            before = row["population"]
            shown.add_section()
            shown.add_row("", Text(_heading(facts, before), style="bold italic"))
        style = KIND_STYLES.get(row["kind"], "")
        flapping = row["flapping"]
        young = is_young(row)
        rates = [
            percent(None if young else flapping[name])
            for name in ("changes_per_user_day", "reverted_share")
        ]
        shown.add_row(
            str(row["id"]),
            row["name"],
            Text(row["kind"], style=style),
            f"{row['size']:,}",
            share,
            *([] if narrow else rates),
            *_scores_in(row, foretold),
            *([marks_line(row, table)] if wide else []),
        )
    return shown


def _scores_in(segment: SegmentFacts, names: list[str]) -> list[str]:
    """The mean of each score over the customers of a segment; empty where there are none."""
    means = {one["score"]: _score(one["mean"], one["unit"]) for one in segment["scores"]}
    return [means.get(name, "") for name in names]


def _score(value: float, unit: str) -> str:
    if unit == FARTHER:
        return exact_share(value)
    return percent(value) if unit == "probability" else natural(value)


def came_line(score: SegmentScore) -> str | None:
    """What came of what was foretold of people of a segment; None of money, and where nothing is over."""
    if score["foretold"] is None or score["came"] is None or score["unit"] != "probability":
        return None
    return (
        f"{score['score']}: {percent(score['came'])} of {score['looks']:,} looked at came back, "
        f"{percent(score['foretold'])} foretold"
    )


def score_line(score: ScoreFacts) -> str:
    """How good a score was so far."""
    if score["days"] is None:
        return f"{score['score']}: held against {score['labels']:,} users"
    learned = f"{score['score']}: learned from {score['labels']:,} looks"
    if score["captured"] is not None and score["total"] is not None:
        return (
            f"{learned}; the tenth with the highest spent {percent(score['captured'])} of all, and "
            f"all that was predicted is {score['total']:.2f} of what was spent"
        )
    if score["log_loss"] is None or score["calibration"] is None:
        return f"{learned}; too few predictions are over to judge it by"
    ranked = "" if score["auc"] is None else f"AUC {score['auc']:.3f}, "
    return (
        f"{learned}, {percent(score['base'])} of them with an order; {ranked}log loss "
        f"{score['log_loss']:.3f}, calibration error {score['calibration']:.3f}"
    )


_TOLD = {
    "born": "{0} is of the first model",
    "split": "{0} split off {1}",
    "succeeded": "{0} took the place of {1}",
    "emerged": "{0} is new",
    "absorbed": "{0} was absorbed by {1}",
    "dissolved": "{0} is no more, its users went several ways",
    "ceded": "{0} goes on, but most of its users are in {1} now",
    "renamed": "{0} has another name",
}


def lineage_line(event: Mapping[str, Any]) -> str:
    """What happened to a segment, in words."""
    others = ", ".join(str(other) for other in event["others"])
    if event["event"].startswith("kind:"):
        before, _, after = event["event"].removeprefix("kind:").partition("->")
        return f"{event['segment']} turned from {before} to {after}"
    return _TOLD[event["event"]].format(event["segment"], others)


def show_segments(console: Console, facts: SegmentsFacts, table: FeatureTable) -> None:
    """`segstream segments` for people."""
    console.print(segments_table(facts, table, console.width))
    if console.width < WIDE:
        for row in in_groups(facts):
            told = [f"{one['score']} {_score(one['mean'], one['unit'])}" for one in row["scores"]]
            console.print(f"  {row['id']}: {'; '.join([marks_line(row, table), *told])}")
    for one in facts["populations"]:
        if not one["segments"]:
            console.print(f"  {one['name']}: {one['users']:,} users, too few for segments yet")
    silhouette = facts["silhouette"]
    quality = f"inertia {facts['inertia']:.3f}"
    if silhouette is not None:
        quality += f", silhouette {silhouette:.3f} on the sample"
    console.print(f"{facts['users']:,} users at {facts['at']}; {quality}")
    if console.width >= NARROW:
        console.print(
            "leave a day: changes out of it by the days its users spent there, lately; of them "
            "back: soon, to the segment before",
            style="dim",
        )
    for row in in_groups(facts):
        for line in filter(None, map(came_line, row["scores"])):
            console.print(f"  {row['id']}: {line}")
    for score in facts["scores"]:
        console.print(f"  {score_line(score)}")
    for level in dict.fromkeys(one["level"] for one in facts["levels"]):
        told = [step_line(one) for one in facts["levels"] if one["level"] == level]
        console.print(f"  {level}: {', '.join(told)}")
    for event in facts["lineage"]:
        console.print(f"  lineage: {lineage_line(event)}")


def step_line(step: LevelStep) -> str:
    """A step of a level, how many are on it, and from where on."""
    limits = " or ".join(f"{one['of']} {natural(one['least'])}" for one in step["limits"])
    return f"{step['step']} {step['users']:,}" + (f" (from {limits} on)" if limits else "")


def show_user(console: Console, facts: UserFacts, table: FeatureTable) -> None:
    """`segstream user` for people."""
    known = {feature.name: feature for feature in table.features}
    segment = facts["segment"]
    title = f"User {facts['user']} at {facts['at']}"
    console.print(Text(title, style="bold"))
    if segment is None:
        console.print("in no segment yet")
    else:
        kind = Text(segment["kind"], style=KIND_STYLES.get(segment["kind"], ""))
        console.print(
            Text.assemble(
                f"segment {segment['id']}, {segment['name']} (",
                kind,
                f"), since {segment['since']}",
            )
        )
    if facts["last_seen"] is None:
        console.print("not seen yet: only the shop has acted")
    else:
        console.print(f"first seen {facts['first_seen']}, last seen {facts['last_seen']}")
    scores = facts.get("scores", [])
    told = [
        f"{one['score']} {_score(one['value'], one['unit'])}"
        for one in scores
        if one["unit"] != FARTHER
    ]
    if told:
        console.print(f"foretold: {', '.join(told)}")
    for one in scores:
        if one["unit"] == FARTHER:
            share = exact_share(one["value"])
            console.print(
                f"{one['score']}: farther from what people like them do than {share} of all"
            )
    for level in facts.get("levels", []):
        console.print(level_line(level))
    features = Table(title="Features now", title_justify="left")
    features.add_column("feature")
    features.add_column("value", justify="right")
    features.add_column("unit")
    for entry in facts["features"]:
        features.add_row(
            entry["feature"], exact(entry["value"], known[entry["feature"]]), entry["unit"]
        )
    console.print(features)
    if facts.get("distances"):
        near = Table(title="Nearest segments", title_justify="left")
        near.add_column("segment", justify="right")
        near.add_column("name")
        near.add_column("distance, sd", justify="right")
        for there in facts["distances"][:4]:
            near.add_row(str(there["segment"]), there["name"], f"{there['distance']:.2f}")
        console.print(near)
    if facts["changes"]:
        console.print(Text("Last changes", style="italic"))
        for change in facts["changes"]:
            console.print(change_line(change))


def level_line(level: LevelFacts) -> str:
    """Where somebody stands, with what that looks at."""
    values = ", ".join(
        f"{name} {natural(value)}" for name, value in level["looks_at"].items() if value is not None
    )
    return f"{level['level']}: {level['step'] or 'none'}" + (f" ({values})" if values else "")


def record_line(record: Record) -> Text:
    """A change, or what became of a segment, as a sentence."""
    if "event" not in record:
        return change_line(record)
    return Text.assemble(
        (f"{record['at'][:16].replace('T', ' ')}  ", "dim"),
        (lineage_line(record), "bold"),
        f"  {record['name']} (",
        (record["kind"], KIND_STYLES.get(record["kind"], "")),
        f"), {record['users']:,} users",
    )


def member_line(member: Member) -> Text:
    """A member of a segment as a line."""
    worth = "" if member.value is None else f"  worth {natural(member.value)}"
    return Text.assemble(
        (safe(member.user), "bold"),
        f"  {member.segment} {safe(member.name)}  ",
        (safe(member.kind), KIND_STYLES.get(member.kind, "")),
        f" since {member.kind_since[:10]}, last seen {member.last_seen[:10]}{worth}",
    )


def change_line(change: Record | SegmentChange) -> Text:
    """One change of a segment or level as a sentence."""
    if "level" in change:
        return _crossing_line(change)
    kind_to = change["kind_to"]
    line = Text(f"{change['at'][:16].replace('T', ' ')}  ", style="dim")
    line.append(f"{change['user']}", style="bold")
    if change["from"] is None:
        line.append("  enters ")
    else:
        line.append("  ")
        line.append(str(change["kind_from"] or "?"), KIND_STYLES.get(change["kind_from"] or "", ""))
        line.append(f" {change['from']} -> ")
    line.append(kind_to, KIND_STYLES.get(kind_to, ""))
    line.append(f" {change['to']}  ")
    line.append(change["cause"].replace("_", " "), "italic")
    reasons = [
        f"{reason['feature']} {natural(reason['value'])}"
        for reason in change["why"]
        if reason["contribution"] is None or reason["contribution"] > 0
    ]
    if reasons:
        line.append("  " + ", ".join(reasons), "dim")
    return line


def _crossing_line(change: Mapping[str, Any]) -> Text:
    line = Text(f"{change['at'][:16].replace('T', ' ')}  ", style="dim")
    line.append(change["user"], style="bold")
    line.append(f"  {change['level']} {change['step_from'] or 'none'} -> ")
    line.append(f"{change['step_to'] or 'none'}  ", "bold")
    line.append(change["cause"].replace("_", " "), "italic")
    value = "none" if change["value"] is None else natural(change["value"])
    line.append(f"  {change['of']} {value}, limit {natural(change['limit'])}", "dim")
    return line
