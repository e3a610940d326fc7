"""Commands that say what would be, and one that makes it so: explore, plan, apply, campaigns.

Comes in: files or the users in the store, and settings as they shall be. Goes out: facts of `insight`, shown.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from consumers.change_log import ChangeLog
from stream import config, config_layers
from stream.cli import apply as apply_view
from stream.cli import campaigns as campaigns_view
from stream.cli import explore as explore_view
from stream.cli import plan as plan_view
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
from stream.insight import applying, explore, plan, queries, trial
from stream.insight.facts import CheckFacts
from stream.learning.choosing import Distance
from stream.safe import safe_facts
from stream.tuning import Tuning
from stream.wiring import roles
from stream.wiring.history import opener

TRY_EXAMPLE = (
    "Example: `segstream campaigns try shop.toml orders.csv --mapping simple`\n\n"
    "Without Kafka and Redis. On the changes of a running pipeline: `segstream campaigns try "
    "shop.toml --live`. Nothing is sent"
)
EXPLORE_EXAMPLE = (
    "Example: `segstream explore orders.csv --mapping orders.toml --out looks`\n\n"
    "Without Kafka and Redis; a mapping to copy is in `segstream replay --help`. The same for a "
    "running pipeline: `segstream -c shop.toml explore --live`"
)
PLAN_EXAMPLE = (
    "Example: `segstream -c shop.toml plan wanted.toml --live`\n\n"
    "wanted.toml is a whole settings file, as shop.toml is, with other weights, words, kinds, k or "
    "publish rule. Without a running pipeline: `segstream -c shop.toml plan wanted.toml orders.csv "
    "--mapping orders.toml`; that can plan another feature table too"
)
APPLY_EXAMPLE = (
    "Example: `segstream -c shop.toml apply wanted.toml`\n\n"
    "The trainer keeps to it afterwards, also when it is started anew, whatever its settings file "
    "says; to go back, apply the former file. Keep the files of the roles the same as what was "
    "applied, for whoever reads them"
)

WantedFile = Annotated[
    Path, typer.Argument(metavar="CONFIG.toml", help="The settings as they shall be.")
]
CampaignsFile = Annotated[
    Path, typer.Argument(metavar="CONFIG.toml", help="The settings, with [[campaigns]].")
]

commands = typer.Typer()
campaigns_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Campaigns: what is declared, what would be sent, what was, and whether it helped.",
)
commands.add_typer(campaigns_app, name="campaigns")


@commands.command("explore", epilog=EXPLORE_EXAMPLE)
def explore_vectors(
    files: SourceFiles = None,
    mapping: SourceMappings = None,
    live: Live = False,
    out_folder: Annotated[
        Path, typer.Option("--out", help="Folder for page and pictures.", metavar="DIR")
    ] = Path("explore"),
    at: Annotated[
        datetime | None, typer.Option(help="FILE: as of this time; else as of its last event.")
    ] = None,
    k_max: Annotated[int, typer.Option(help="Segments to try at the most.", min=2, max=30)] = 10,
    k: Annotated[
        int | None, typer.Option(help="Segments to show; else as many as suggested.", min=2)
    ] = None,
    distance: Annotated[
        Distance, typer.Option(help="What counts as alike; the pipeline takes euclid.")
    ] = "euclid",
    algorithm: Annotated[
        explore.AlgorithmName, typer.Option(help="What finds the segments that are shown.")
    ] = "kmeans",
    bootstraps: Annotated[
        int, typer.Option(help="How often users are drawn again, for stability.", min=2, max=200)
    ] = 16,
    population: Annotated[
        str | None,
        typer.Option(
            help="Population to look at; else the one with the most users.", metavar="NAME"
        ),
    ] = None,
    keep_outliers: KeepOutliers = False,
    as_json: AsJson = False,
) -> None:
    """How many segments does the data suggest, and what are they? Pictures and a page."""
    sources = sources_of(files, mapping, live=live)
    if live and at is not None:
        raise config.ConfigError("--at belongs to a FILE, not to --live")
    if k is not None and k > k_max:
        raise config.ConfigError(f"--k {k} is more than --k-max {k_max}")
    if k is not None and algorithm == "density":
        raise config.ConfigError("--k: density clustering finds its own number of segments")
    settings = invocation.settings()
    table = settings.table()
    explore_view.see_that_it_can_draw()
    wish = explore.Wish(distance, algorithm, k_max, k, bootstraps, population)
    with invocation.telling("reading") as tell:
        model = None
        if sources:
            opened = opener(sources, tell, keep_outliers=keep_outliers)
            people = explore.read_history(settings, table, opened, at, tell)
        else:
            with roles.open_store(settings) as store:
                model = queries.model_in_force(store)
                people = explore.read_store(settings, table, store, model, tell)
        found = explore.study(settings, table, people, wish, model, tell)
        written = explore_view.write(found, out_folder, tell)
    facts = explore.facts_of(found, written)
    show(facts, as_json, lambda shown: explore_view.show(invocation.out, shown))


@commands.command("plan", epilog=PLAN_EXAMPLE)
def plan_change(
    wanted_file: WantedFile,
    files: SourceFiles = None,
    mapping: SourceMappings = None,
    live: Live = False,
    keep_outliers: KeepOutliers = False,
    as_json: AsJson = False,
) -> None:
    """Who would enter and leave which segment under other settings? Nothing is changed."""
    sources = sources_of(files, mapping, live=live)
    wanted = config_layers.load(wanted_file)[0]
    settings = invocation.settings()
    table = wanted.table()
    with invocation.telling("reading") as tell:
        if sources:
            opened = opener(sources, tell, keep_outliers=keep_outliers)
            crowd = plan.history_crowd(settings, opened, tell)
            if crowd.model.schema == table.schema:
                found = plan.plan(crowd, table, settings.publish.rule(), wanted)
            else:
                clock = wanted.model_copy(update={"clock": settings.clock})
                other = plan.history_crowd(clock, opened, tell)
                found = plan.plan_anew(crowd, other, wanted)
        else:
            known = invocation.running(wanted)
            with roles.open_store(known) as store:
                crowd = plan.live_crowd(known, table, store, tell)
            found = plan.plan(crowd, table, known.publish.rule(), wanted)
    facts = plan.facts_of(found)
    show(facts, as_json, lambda shown: plan_view.show(invocation.out, shown))


@commands.command("apply", epilog=APPLY_EXAMPLE)
def apply_change(
    wanted_file: WantedFile,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Leave it for the trainer, and go.")
    ] = False,
    seconds: Annotated[
        float, typer.Option(min=0, help="How long to wait until it is in force.")
    ] = 120.0,
    as_json: AsJson = False,
) -> None:
    """Change k, weights, words, kinds or publish rule of the running pipeline, all at once.

    Shows the plan, asks nothing, and waits until a model learned with it is published. Of the
    settings, [learning], [publish], [[kinds]] and the weights and words of [[features]] count.
    """
    wanted = config_layers.load(wanted_file)[0]
    known, table = invocation.running(wanted), wanted.table()
    tuning = Tuning.of(wanted)
    with roles.open_store(known) as store:
        with invocation.telling("planning") as tell:
            crowd = plan.live_crowd(known, table, store, tell)
            planned = plan.facts_of(plan.plan(crowd, table, known.publish.rule(), wanted))
        if not as_json:
            plan_view.show(invocation.out, safe_facts(planned))
        store.want(tuning.pack())
        model = None
        if not no_wait:
            try:
                with invocation.err.status("waiting for the trainer's next round"):
                    model = applying.wait(store, tuning, seconds)
            except applying.NotAppliedError:
                if as_json:
                    show(applying.facts_of(planned, tuning, None), as_json, invocation.out.print)
                raise
    facts = applying.facts_of(planned, tuning, model)
    show(facts, as_json, lambda shown: apply_view.show(invocation.out, shown))


@campaigns_app.command("check", epilog="Example: `segstream campaigns check shop.toml`")
def check_campaigns(
    file: CampaignsFile,
    as_json: AsJson = False,
) -> None:
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
            facts = trial.on_changes(wanted, key, ChangeLog(known).read(), known.topics.changes)
    show(facts, as_json, lambda shown: campaigns_view.show_trial(invocation.out, shown))
