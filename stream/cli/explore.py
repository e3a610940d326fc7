"""Writes and shows what `segstream explore` found.

Comes in: a study, and its facts. Goes out: pictures and one HTML page in a folder, and the facts for
people.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stream.cli.views import KIND_STYLES
from stream.config import ConfigError
from stream.insight.explore import Study
from stream.insight.facts import StudyFacts
from stream.units import percent, percents

NEEDS = "pictures need matplotlib and jinja2: pip install 'segstream[explore]'"


def write(found: Study, folder: Path, tell: Callable[[str], None]) -> dict[str, str]:
    """Draw the pictures and the page into a folder; returns the path of each by name.

    Raises:
        ConfigError: what draws is not installed, or the folder cannot be written.
    """
    try:
        # An extra, and slow to import.
        from stream.insight.charts import draw  # noqa: PLC0415
        from stream.insight.report import page  # noqa: PLC0415
    except ImportError:
        raise ConfigError(NEEDS) from None
    tell("drawing")
    pictures = draw(found)
    written = {name: folder / f"{name}.png" for name in pictures}
    report = folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, path in written.items():
            path.write_bytes(pictures[name])
        report.write_text(page(found, pictures), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out {folder}: cannot be written: {error.strerror}") from None
    return {"report": str(report), **{name: str(path) for name, path in written.items()}}


def see_that_it_can_draw() -> None:
    """Before minutes of work, not after.

    Raises:
        ConfigError: an extra is missing.
    """
    try:
        import jinja2  # noqa: F401, PLC0415 - an extra
        import matplotlib as mpl  # noqa: F401, PLC0415 - an extra
    except ImportError:
        raise ConfigError(NEEDS) from None


def _looked_at(facts: StudyFacts) -> str:
    """What was looked at, in words."""
    alone = len(facts["populations"]) == 1
    return facts["source"] if alone else f"the {facts['population']} of {facts['source']}"


def _populations(facts: StudyFacts) -> Table:
    """Every population, and what its users suggest."""
    shown = Table(title="Populations", title_justify="left")
    shown.add_column("name")
    for column in ("users", "segments", "suggested"):
        shown.add_column(column, justify="right")
    shown.add_column("how firm")
    for one in facts["populations"]:
        shown.add_row(
            one["name"],
            f"{one['users']:,}",
            str(one["configured"] or "auto"),
            "" if one["suggested"] is None else str(one["suggested"]),
            one["firmness"] or "too few users",
            style="bold" if one["name"] == facts["population"] else "",
        )
    return shown


def show(console: Console, facts: StudyFacts) -> None:
    """What was found, for people; the page says it at length."""
    verdict = {
        "firm": "there are gaps between them, and they last",
        "open": "there are gaps between them, but the segments do not last",
        "chosen": "there are no gaps, so it is a choice; up to this many the same ones come back",
        "loose": "there are no gaps, and no number of segments lasts",
    }[facts["firmness"]]
    console.print(
        Text.assemble(
            (f"{facts['suggested']} segments suggested", "bold"),
            f" for {_looked_at(facts)}: {verdict}",
        )
    )
    if len(facts["populations"]) > 1:
        console.print(_populations(facts))
    part = facts["sampled"] < facts["users"]
    if part:
        console.print(f"{facts['sampled']:,} of {facts['users']:,} users were looked at")
    shown = Table(title="Segments", title_justify="left")
    for column in ("", "name", "kind"):
        shown.add_column(column)
    for column in ("of those looked at" if part else "users", "share"):
        shown.add_column(column, justify="right")
    shares = percents([*(row["size"] for row in facts["segments"]), facts["noise"]])
    for row, share in zip(facts["segments"], shares, strict=False):
        shown.add_row(
            str(row["id"]),
            row["name"],
            Text(row["kind"], style=KIND_STYLES.get(row["kind"], "")),
            f"{row['size']:,}",
            share,
        )
    if facts["noise"]:
        shown.add_row("", "in no segment", "", f"{facts['noise']:,}", shares[-1])
    console.print(shown)
    curves = facts["curves"]
    table = Table(title="By number of segments", title_justify="left")
    for column in ("k", "weakest border", "same again", "inertia", "silhouette"):
        table.add_column(column, justify="right")
    for k, value in curves["inertia"].items():
        again = curves["stability"].get(k)
        border = curves["separation"].get(k)
        silhouette = curves["silhouette"].get(k)
        table.add_row(
            k,
            "" if border is None else percent(border),
            "" if again is None else f"{again['mean']:.2f}",
            f"{value:.2f}",
            "" if silhouette is None else f"{silhouette:.2f}",
            style="bold" if int(k) == facts["suggested"] else "",
        )
    console.print(table)
    for note in facts["notes"]:
        console.print(f"note: {note}", style="dim")
    console.print(f"the page: {facts['written']['report']}", soft_wrap=True)
