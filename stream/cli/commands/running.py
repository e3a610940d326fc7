"""Commands that run something: the demo, the roles, topics for them, files and a simulated shop sent to them.

Comes in: arguments. Goes out: processes at work, and what became of them.
"""

from __future__ import annotations

import math
import secrets
import time
import webbrowser
from contextlib import ExitStack
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from consumers.log_end import read_ends, read_log_end
from consumers.native import NativeReader
from producers import topics as topic_plans
from producers.mapping_help import HELP_EXAMPLE
from producers.replay import parse_speed, progress_bar, replay
from producers.traffic import run_shop_at_rate
from stream import config
from stream.cli import demo as demo_view
from stream.cli.arguments import AsJson, KeepOutliers, Local, SourceMappings, with_mappings
from stream.cli.files_shown import FilesScreen
from stream.cli.invocation import invocation
from stream.cli.terminal import show
from stream.cli.waiting import catching_up_bar
from stream.insight.facts import RunFacts
from stream.insight.waiting import wait_until_caught_up
from stream.roles.registry import Role
from stream.safe import safe
from stream.servers import LocalBroker, LocalStore
from stream.told import NO
from stream.units import parse_duration
from stream.wiring import api, files_shown, roles
from stream.wiring import demo as demonstration

commands = typer.Typer()
topics_app = typer.Typer(no_args_is_help=True, help="The topics: create or check them.")
run_app = typer.Typer(no_args_is_help=True, help="Run the roles, each as a process of its own.")
commands.add_typer(topics_app, name="topics")
commands.add_typer(run_app, name="run")


@commands.command(epilog="Example: `segstream demo --seconds 30`")
def demo(
    seconds: Annotated[float, typer.Option(min=5, help="How long the shop runs.")] = 60.0,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the servers running, to look around.")
    ] = False,
    serve: Annotated[
        bool,
        typer.Option("--serve", help="Show the page beside it, and keep it running until Ctrl-C."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """A simulated shop on a local broker and store, all roles as real processes."""
    stop = roles.stop_on_signals()

    def ended(facts: RunFacts) -> None:
        show(facts, as_json, lambda shown: demo_view.show_summary(invocation.out, shown))

    screen = demo_view.LiveScreen(invocation.err, ended)
    if not demonstration.run(seconds, keep=keep, serve=serve, stop=stop, screen=screen):
        raise typer.Exit(NO)


@commands.command(
    epilog="Example: `segstream -c shop.toml dashboard`\n\n"
    "Without Kafka and Redis: `segstream dashboard orders.csv --mapping simple`"
)
def dashboard(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Show these, on a broker and a store of their own: CSV, JSON Lines or Parquet.",
            metavar="[FILE]...",
        ),
    ] = None,
    mapping: SourceMappings = None,
    show_only: Annotated[
        bool, typer.Option("--address", help="Only say where it is; open no browser.")
    ] = False,
) -> None:
    """The page of the API, in a browser: what needs attention, segments, flows, one shopper's story.

    That of a running `segstream run api`, or of files, until Ctrl-C.
    """
    settings = invocation.settings()
    if files or mapping:
        if not files:
            raise config.ConfigError("--mapping belongs to a FILE")
        sources, stop = with_mappings(files, mapping or []), roles.stop_on_signals()
        screen = FilesScreen(invocation.err, browse=None if show_only else webbrowser.open)
        if not files_shown.show_files(settings, sources, stop=stop, screen=screen):
            raise typer.Exit(NO)
        return
    address = api.address_of(settings)
    shown = safe(address)
    api.see_that_it_answers(address)
    if show_only or not webbrowser.open(address):
        invocation.out.print(shown, soft_wrap=True)
    else:
        invocation.err.print(f"opened {shown}", soft_wrap=True)


def _duration(text: str) -> float:
    """Seconds.

    Raises:
        typer.BadParameter: it is none.
    """
    try:
        return float(parse_duration(text))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


@commands.command(epilog="Example: `segstream -c shop.toml simulate --rate 200 --for 10m`")
def simulate(
    rate: Annotated[float, typer.Option(help="Events a second.", min=0.1)] = 100.0,
    users: Annotated[
        int, typer.Option(help="Shoppers who will have come by the end.", min=1)
    ] = 10_000,
    days: Annotated[int, typer.Option(help="Days of the shop's life.", min=1, max=3_660)] = 42,
    seed: Annotated[
        int | None,
        typer.Option(help="Decides who does what; none draws one, and tells it.", min=0),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            "--for", parser=_duration, metavar="DURATION", help="End after this long, as 10m."
        ),
    ] = None,
    faults: Annotated[
        float,
        typer.Option(help="Share of events with a repeat or garbage beside them.", min=0, max=1),
    ] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Send what shoppers of a simulated shop do onto the topics of any broker.

    By the wall clock (clock.mode = live) every event happens when it is sent, so days pass in minutes. By
    marks (clock.mode = watermark) the shop's days are those up to today; a second run of them would come
    too late. The same seed sends the same ids, which are known as repeats. It ends with the days, after
    --for, or at Ctrl-C.
    """
    settings, stop = invocation.settings(), roles.stop_on_signals()
    chosen = secrets.randbelow(1_000_000) if seed is None else seed
    until = math.inf if seconds is None else time.monotonic() + seconds
    with progress_bar(invocation.err, "days sent") as progress:
        report = run_shop_at_rate(
            settings, roles.mark_signer(settings), rate=rate, seed=chosen, users=users, days=days,
            faults=faults, stop=lambda: stop.is_set() or time.monotonic() > until,
            progress=progress,
        )  # fmt: skip
    show({"seed": chosen, **asdict(report)}, as_json, _show_simulated)


def _show_simulated(facts: dict[str, Any]) -> None:
    a_second = facts["events"] / max(facts["seconds"], 1e-9)
    invocation.out.print(
        f"{facts['events']:,} events of {facts['users']:,} shoppers in {facts['seconds']:,.0f} s "
        f"({a_second:,.0f} a second); seed {facts['seed']}"
    )
    beside = {name: facts[name] for name in ("duplicates", "late", "malformed") if facts[name]}
    if beside:
        told = ", ".join(f"{count:,} {name}" for name, count in beside.items())
        invocation.out.print(f"beside them: {told}")


def _add_role(role: Role) -> None:
    sections = ", ".join((*roles.SECTIONS, *role.settings))
    example = f"Example: `segstream -c shop.toml run {role.name}`. Reads the settings {sections}."

    @run_app.command(role.name, help=role.meaning, epilog=example)
    def run_role() -> None:
        _run([role.name], local=False)


for _role in roles.ROLES.values():
    _add_role(_role)


@run_app.command("all", epilog="Example: `segstream run all --local`")
def run_all(local: Local = False) -> None:
    """All roles in one process, for a small shop."""
    _run(list(roles.ROLES), local=local)


def _run(names: list[str], *, local: bool) -> None:
    invocation.roles = names
    invocation.start_log(config.Log())
    stop = roles.stop_on_signals()
    with ExitStack() as stack:
        more: dict[str, Any] = {}
        if local:
            broker = stack.enter_context(LocalBroker())
            store = stack.enter_context(LocalStore())
            more = {"broker": {"bootstrap": broker.bootstrap}, "store": {"url": store.url}}
        settings = invocation.settings(**more)
        wanted = [role.name for role in roles.wanted(settings)]
        if len(names) == 1:
            wanted += [name for name in names if roles.ROLES[name].by_name]
        if not (names := [name for name in names if name in wanted]):
            raise config.ConfigError(
                f"{', '.join(invocation.roles)}: nothing is declared for it in "
                f"{', '.join(roles.ROLES[invocation.roles[0]].settings)}"
            )
        if local:
            topic_plans.apply(settings, create=True, outlets=roles.outlets(settings))
            invocation.err.print(
                f"local broker at {settings.broker.bootstrap}, store at {settings.store.url}"
            )
            given = f" -c {invocation.named_file}" if invocation.named_file else ""
            invocation.err.print(
                f"from another terminal: segstream{given} --set "
                f"broker.bootstrap={settings.broker.bootstrap} --set store.url={settings.store.url} ...",
                soft_wrap=True,
            )
        roles.run(settings, names, stop)


@topics_app.command("apply", epilog="Example: `segstream topics apply --check`")
def topics_apply(
    check: Annotated[bool, typer.Option("--check", help="Only say what differs.")] = False,
    as_json: AsJson = False,
) -> None:
    """Create the topics that are missing, and say what differs in the others."""
    created: list[str] = []
    settings = invocation.settings()
    differences = topic_plans.apply(
        settings,
        not check,
        lambda topic: created.append(topic.name),
        outlets=roles.outlets(settings),
    )
    facts = {"created": created, "differences": [asdict(one) for one in differences]}
    show(facts, as_json, _show_topics)
    if differences:
        raise typer.Exit(NO)


def _show_topics(facts: dict[str, Any]) -> None:
    for name in facts["created"]:
        invocation.out.print(f"created {name}")
    for one in facts["differences"]:
        invocation.out.print(
            f"{one['topic']}: {one['setting']} is {one['found']}, should be {one['expected']}; "
            f"{one['remedy']}"
        )
    if not facts["differences"]:
        invocation.out.print("all topics are as they should be")


@commands.command("replay", epilog=HELP_EXAMPLE)
def replay_files(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="CSV, JSON Lines or Parquet; .gz and .zip too. Several are merged by time.",
            metavar="FILE...",
        ),
    ],
    mapping: Annotated[
        list[str],
        typer.Option(
            help="A shipped mapping's name, or a TOML file; one for all files, or one for each.",
            metavar="NAME|FILE",
        ),
    ],
    speed: Annotated[str, typer.Option(help="max, or N times real time, as 60x.")] = "max",
    until: Annotated[
        datetime | None, typer.Option(help="Stop before this time, or let marks run on to it.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Events to send at the most.", min=1)] = None,
    rejected: Annotated[
        Path | None, typer.Option(help="Write refused rows here, JSON Lines.", metavar="FILE")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the topics end: send only the rest.")
    ] = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Send what comes too late or is there already, too.")
    ] = False,
    keep_outliers: KeepOutliers = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="End when the pipeline has taken in all of it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Send the history in files onto the topics, in event-time order."""
    settings = invocation.settings()
    if resume and anyway:
        raise config.ConfigError("--resume and --anyway exclude each other")
    if settings.clock.mode == "live":
        invocation.err.print(
            "note: clock.mode is live, so all of this will have happened by now, and nobody in it is "
            "looked at before the end; for a history set clock.mode = watermark"
        )
    elif settings.topics.input_retention_seconds > 0:
        invocation.err.print(
            "note: topics.input_retention_seconds is not 0, and Kafka deletes by record time; if "
            "the topics were made with it, history older than that will not stay (see doctor)"
        )
    (file, chosen), *more = with_mappings(files, mapping)
    stop = roles.stop_on_signals()
    try:
        pace = parse_speed(speed)
    except ValueError as error:
        raise config.ConfigError(f"--speed: {error}") from None
    signer = roles.mark_signer(settings)
    table = settings.table()
    native = NativeReader(table, settings.worker, settings.money, settings.reviews)
    with progress_bar(invocation.err) as progress:
        report = replay(
            settings, file, chosen, signer, more=more, speed=pace, progress=progress, until=until,
            limit=limit, rejected_to=rejected, keep_outliers=keep_outliers,
            watched=table.codes, native=native,
            log_end=lambda: read_log_end(settings, signer),
            behind="resume" if resume else "send" if anyway else "refuse",
            tell=lambda note: invocation.err.print(f"note: {note}", soft_wrap=True), stop=stop.is_set,
        )  # fmt: skip
    if wait and report.complete:
        mark_ms = 0 if signer is None else read_log_end(settings, signer).mark_ms
        with roles.open_store(settings) as store, catching_up_bar(invocation.err) as told:
            report.caught_up = wait_until_caught_up(
                store, read_ends(settings), mark_ms, told, stop.is_set
            )
    if as_json:
        show(report.as_dict(), as_json, invocation.out.print)
    else:
        show(list(report.lines()), as_json, lambda lines: invocation.out.print(*lines, sep="\n"))
    if not report.complete or not (report.sent or report.known) or report.caught_up is False:
        raise typer.Exit(NO)
