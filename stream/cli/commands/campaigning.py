"""Commands about campaigns: what they would send, what they did, whether it helped, and to stop them.

Comes in: settings files, and names of campaigns and users. Goes out: facts of `insight`, shown, and records on
`campaign-control`.
"""

from __future__ import annotations

import getpass
import time
from pathlib import Path
from typing import Annotated

import typer

from consumers.change_log import ChangeLog
from producers import control
from stream import config, config_layers
from stream.campaigns.control import ControlRecord
from stream.cli import campaigns as campaigns_view
from stream.cli.arguments import (
    AsJson,
    KeepOutliers,
    Live,
    SourceFiles,
    SourceMappings,
    sources_of,
)
from stream.cli.invocation import invocation
from stream.cli.terminal import show
from stream.insight import campaign_facts, trial
from stream.insight.facts import CheckFacts, ControlFacts
from stream.units import iso
from stream.wiring import campaigns, roles
from stream.wiring.history import opener

TRY_EXAMPLE = (
    "Example: `segstream campaigns try shop.toml orders.csv --mapping simple`\n\n"
    "Without Kafka and Redis. On the changes of a running pipeline: `segstream campaigns try "
    "shop.toml --live`. Nothing is sent"
)

CampaignsFile = Annotated[
    Path, typer.Argument(metavar="CONFIG.toml", help="The settings, with [[campaigns]].")
]
CampaignName = Annotated[str, typer.Argument(metavar="CAMPAIGN", help="Its name.")]

commands = typer.Typer()
campaigns_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Campaigns: what is declared, what would be sent, what was, and whether it helped.",
)
commands.add_typer(campaigns_app, name="campaigns")


@campaigns_app.command("check", epilog="Example: `segstream campaigns check shop.toml`")
def check_campaigns(file: CampaignsFile, as_json: AsJson = False) -> None:
    """Are the campaigns of a settings file declared so that they can run?"""
    wanted = config_layers.load(file)[0]
    trial.see_that_there_are_some(wanted)
    facts: CheckFacts = {"campaigns": trial.declared(wanted)}
    show(facts, as_json, lambda shown: campaigns_view.show_check(invocation.out, shown))


@campaigns_app.command("try", epilog=TRY_EXAMPLE)
def try_campaigns(
    config_file: CampaignsFile,
    files: SourceFiles = None,
    mapping: SourceMappings = None,
    live: Live = False,
    keep_outliers: KeepOutliers = False,
    as_json: AsJson = False,
) -> None:
    """What would campaigns have decided about changes that have happened? Nothing is sent."""
    sources = sources_of(files, mapping, live=live)
    wanted = config_layers.load(config_file)[0]
    trial.see_that_there_are_some(wanted)
    with invocation.telling("reading") as tell:
        if sources:
            opened = opener(sources, tell, keep_outliers=keep_outliers)
            facts = trial.on_history(wanted, opened, tell)
        else:
            known = invocation.running(wanted)
            with roles.open_store(known) as store:
                key = store.namespace_key()
            facts = trial.on_changes(
                wanted, key, ChangeLog(known).read(levels=True), known.topics.changes
            )
    show(facts, as_json, lambda shown: campaigns_view.show_trial(invocation.out, shown))


@campaigns_app.command("list", epilog="Example: `segstream campaigns list`")
def list_campaigns(as_json: AsJson = False) -> None:
    """What have campaigns sent so far, and did it help?"""
    settings = invocation.settings()
    facts = campaign_facts.campaigns_facts(settings, campaigns.state(settings))
    show(facts, as_json, lambda shown: campaigns_view.show_list(invocation.out, shown))


@campaigns_app.command("show", epilog="Example: `segstream campaigns show win-back`")
def show_campaign(name: CampaignName, as_json: AsJson = False) -> None:
    """A campaign whole: what became of changes, and its effect by arm, with intervals."""
    settings = invocation.settings()
    found = campaign_facts.campaigns_facts(settings, campaigns.state(settings), name)
    show(
        found["campaigns"][0], as_json, lambda shown: campaigns_view.show_one(invocation.out, shown)
    )


By = Annotated[
    str | None,
    typer.Option("--by", help="Who says so, for the record; who is logged in by default."),
]


def _say(record: ControlRecord, by: str | None, as_json: bool) -> None:
    """Leave a record on the topic of control, with who said it and when."""
    whole: ControlRecord = {
        "at": iso(time.time_ns() // 1_000_000),
        "by": by or getpass.getuser(),
        **record,
    }
    settings = invocation.settings()
    facts: ControlFacts = {"record": dict(whole), "partitions": control.say(settings, whole)}
    show(facts, as_json, lambda shown: campaigns_view.show_control(invocation.out, shown))


def _see_declared(name: str) -> None:
    declared = [one.name for one in invocation.settings().campaigns]
    if name not in declared:
        raise config.ConfigError(
            f"there is no campaign {name!r}, but {', '.join(declared) or 'none'}"
        )


def _pause(name: str, by: str | None, as_json: bool, *, paused: bool) -> None:
    _see_declared(name)
    _say({"campaign": name, "paused": paused}, by, as_json)


@campaigns_app.command("pause", epilog="Example: `segstream campaigns pause win-back`")
def pause_campaign(name: CampaignName, by: By = None, as_json: AsJson = False) -> None:
    """Send nothing of a campaign any more, not even what is under way."""
    _pause(name, by, as_json, paused=True)


@campaigns_app.command("resume", epilog="Example: `segstream campaigns resume win-back`")
def resume_campaign(name: CampaignName, by: By = None, as_json: AsJson = False) -> None:
    """Let a paused campaign go on, with the changes that come from now on."""
    _pause(name, by, as_json, paused=False)


@campaigns_app.command("suppress", epilog="Example: `segstream campaigns suppress u42`")
def suppress_user(
    user: Annotated[str, typer.Argument(metavar="USER", help="The user's id.")],
    undo: Annotated[bool, typer.Option("--undo", help="They may get something again.")] = False,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Send a user nothing of any campaign any more, not even what waits for an endpoint."""
    _say({"user": user, "suppressed": not undo}, by, as_json)
