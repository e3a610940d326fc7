"""Commands about campaigns at work: what they did, whether it helped, and to stop them; and webhooks.

Comes in: names of campaigns and users. Goes out: facts of `insight`, shown, and records on `campaign-control`.
"""

from __future__ import annotations

import getpass
import time
from datetime import datetime
from typing import Annotated

import typer

from consumers.parked import parked
from producers import control
from stream import config
from stream.campaigns.control import ControlRecord
from stream.cli import campaigns as campaigns_view
from stream.cli import webhooks as webhooks_view
from stream.cli.arguments import AsJson
from stream.cli.commands.planning import campaigns_app
from stream.cli.invocation import NO, invocation
from stream.cli.terminal import show
from stream.insight import campaign_facts
from stream.insight.facts import ControlFacts
from stream.units import iso, milliseconds
from stream.wiring import parked as parked_facts
from stream.wiring import roles

commands = typer.Typer()
webhooks_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Deliveries to endpoints that were given up, and to send them again.",
)
commands.add_typer(webhooks_app, name="webhooks")


@campaigns_app.command("list", epilog="Example: `segstream campaigns list`")
def list_campaigns(as_json: AsJson = False) -> None:
    """What have campaigns sent so far, and did it help?"""
    settings = invocation.settings()
    facts = campaign_facts.campaigns_facts(settings, roles.campaign_state(settings))
    show(facts, as_json, lambda shown: campaigns_view.show_list(invocation.out, shown))


@campaigns_app.command("show", epilog="Example: `segstream campaigns show win-back`")
def show_campaign(
    name: Annotated[str, typer.Argument(metavar="CAMPAIGN", help="Its name.")],
    as_json: AsJson = False,
) -> None:
    """A campaign whole: what became of changes, and its effect by arm, with intervals."""
    settings = invocation.settings()
    found = campaign_facts.campaigns_facts(settings, roles.campaign_state(settings), name)
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


@campaigns_app.command("pause", epilog="Example: `segstream campaigns pause win-back`")
def pause_campaign(
    name: Annotated[str, typer.Argument(metavar="CAMPAIGN", help="Its name.")],
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Send nothing of a campaign any more, not even what is under way."""
    _see_declared(name)
    _say({"campaign": name, "paused": True}, by, as_json)


@campaigns_app.command("resume", epilog="Example: `segstream campaigns resume win-back`")
def resume_campaign(
    name: Annotated[str, typer.Argument(metavar="CAMPAIGN", help="Its name.")],
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Let a paused campaign go on, with the changes that come from now on."""
    _see_declared(name)
    _say({"campaign": name, "paused": False}, by, as_json)


@campaigns_app.command("suppress", epilog="Example: `segstream campaigns suppress u42`")
def suppress_user(
    user: Annotated[str, typer.Argument(metavar="USER", help="The user's id.")],
    undo: Annotated[bool, typer.Option("--undo", help="They may get something again.")] = False,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Send a user nothing of any campaign any more, not even what waits for an endpoint."""
    _say({"user": user, "suppressed": not undo}, by, as_json)


@webhooks_app.command("list", epilog="Example: `segstream webhooks list`")
def webhooks_list(as_json: AsJson = False) -> None:
    """How many deliveries were given up, by endpoint and reason."""
    with invocation.telling("reading the parked deliveries"):
        found = parked(invocation.settings())
    show(
        parked_facts.parked_facts(found),
        as_json,
        lambda facts: webhooks_view.show_parked(invocation.out, facts),
    )


@webhooks_app.command(
    "replay", epilog="Example: `segstream webhooks replay --endpoint crm --since 2026-11-01`"
)
def webhooks_replay(
    endpoint: Annotated[str | None, typer.Option(help="Only of this endpoint.")] = None,
    reason: Annotated[
        str | None, typer.Option(help="Only of this reason: exhausted, expired, gone, full ..")
    ] = None,
    since: Annotated[
        datetime | None, typer.Option(help="Only those given up from then on; UTC.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Deliveries at the most.", min=1)] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Also those that were asked for before.")
    ] = False,
    late: Annotated[
        bool, typer.Option("--late", help="Also those whose trigger is no longer valid.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask the role of webhooks to send again what it had given up, under the same ids.

    For when the receiver was mended. An endpoint that had answered 410 is tried again.
    """
    settings = invocation.settings()
    with invocation.telling("reading the parked deliveries") as tell:
        facts = parked_facts.replay(
            settings,
            parked(settings),
            time.time_ns() // 1_000_000,
            endpoint=endpoint,
            reason=reason,
            since_ms=0 if since is None else milliseconds(since),
            limit=limit,
            again=again,
            late=late,
            dry_run=dry_run,
            told=lambda count: tell(f"asked for {count:,}"),
        )
    show(facts, as_json, lambda shown: webhooks_view.show_replay(invocation.out, shown))
    if not facts["asked"] + facts["would_ask"]:
        raise typer.Exit(NO)
