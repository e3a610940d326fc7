"""Commands that say whether all is well: audit, doctor, settings in force.

Comes in: settings. Goes out: what holds and what does not, shown.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from consumers.doctor import examine
from producers import topics as topic_plans
from producers.texts import FileError
from stream import config_layers
from stream.cli import auditing, views
from stream.cli.arguments import AsJson
from stream.cli.invocation import invocation
from stream.cli.terminal import show
from stream.masking import mask_facts
from stream.safe import safe
from stream.schemas import schemas
from stream.told import NO
from stream.wiring import asyncapi, roles
from stream.wiring.auditing import audit as run_audit

commands = typer.Typer()
config_app = typer.Typer(no_args_is_help=True, help="The settings in force.")
commands.add_typer(config_app, name="config")


@commands.command(epilog="Example: `segstream audit --sample 0.1`")
def audit(
    sample: Annotated[
        float,
        typer.Option(
            min=0.0001, max=1.0, help="Judge this share of the users, always the same ones."
        ),
    ] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Recompute everything from the log, slowly, and compare. Exit 1 if anything is off.

    A pipeline at work may be audited: what is newer than what was read of it is counted apart.
    """
    settings = invocation.settings()
    with roles.open_store(settings) as store, auditing.progress(invocation.err, sample) as progress:
        report = run_audit(settings, store, sample=sample, progress=progress)
    show(asdict(report), as_json, lambda shown: auditing.show(invocation.out, shown))
    if not report.ok:
        raise typer.Exit(NO)


@commands.command(epilog="Example: `segstream -c shop.toml doctor`")
def doctor(as_json: AsJson = False) -> None:
    """Can the broker and the store be reached, and are they set up safely?"""
    settings = invocation.settings()
    findings = examine(
        settings,
        lambda: topic_plans.apply(settings, create=False, outlets=roles.outlets(settings)),
    )
    well = all(finding.ok for finding in findings)
    facts = mask_facts({"ok": well, "findings": [asdict(finding) for finding in findings]})
    show(facts, as_json, _show_findings)
    if not well:
        raise typer.Exit(NO)


def _show_findings(facts: dict[str, Any]) -> None:
    for one in facts["findings"]:
        verdict = Text("ok  ", "green") if one["ok"] else Text("BAD ", "bold red")
        invocation.out.print(
            Text.assemble(verdict, (f"{one['subject']}: ", "bold"), one["finding"])
        )
        if one["remedy"] and not one["ok"]:
            invocation.out.print(f"      remedy: {one['remedy']}")


@commands.command("schemas", epilog="Example: `segstream -c shop.toml schemas contracts`")
def write_schemas(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", file_okay=False, help="Made if it is not there.")
    ],
) -> None:
    """Write the JSON Schemas of all records, and an AsyncAPI document of all topics.

    Topics, partitions and sources are those of your settings.
    """
    settings = invocation.settings()
    told = json.dumps(asyncapi.document(settings, version("segstream")), indent=2) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in {**schemas(), "asyncapi.json": told}.items():
            (folder / name).write_text(text, encoding="utf-8")
            invocation.err.print(f"wrote {safe(str(folder / name))}", soft_wrap=True)
    except OSError as error:
        raise FileError(f"{folder}: cannot be written: {error.strerror}") from None


@config_app.command("show", epilog="Example: `segstream --set learning.segments=6 config show`")
def config_show(as_json: AsJson = False) -> None:
    """Every setting in force, its unit, its meaning, and where it came from."""
    settings, origins = invocation.load()
    show({"settings": config_layers.effective(settings, origins)}, as_json, _show_settings)


def _show_settings(facts: dict[str, Any]) -> None:
    rows = [row for row in facts["settings"] if not isinstance(row["value"], list)]
    if invocation.out.width >= views.WIDE:
        table = Table(title="Settings", title_justify="left")
        table.add_column("key", no_wrap=True)
        for column in ("value", "unit", "from", "meaning"):
            table.add_column(column, overflow="fold")
        for row in rows:
            meaning = row["meaning"] or ""
            table.add_row(row["key"], str(row["value"]), row["unit"] or "", row["origin"], meaning)
        invocation.out.print(table)
    else:
        for row in rows:
            unit = f" {row['unit']}" if row["unit"] else ""
            value = (f"{row['value']}{unit}", "cyan")
            invocation.out.print(
                Text.assemble((row["key"], "bold"), " = ", value, f"  ({row['origin']})")
            )
            invocation.out.print(Padding(row["meaning"] or "", (0, 0, 0, 4)))
    for row in facts["settings"]:
        if isinstance(row["value"], list):
            invocation.out.print(f"\n{row['key']} = [")
            for item in row["value"]:
                invocation.out.print(f"    {config_layers.as_toml(item)},", soft_wrap=True)
            invocation.out.print("]")
