"""The command `segstream`: what it offers, and how errors are told.

Comes in: arguments. Goes out: facts on stdout, everything else on stderr, and an exit code: 0 done
or yes, 1 no or something is off, 2 wrong use or wrong configuration.
"""

from __future__ import annotations

import errno
import getpass
import os
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup
from typer.exceptions import TyperException

from consumers.audit import audit as run_audit
from consumers.change_log import ChangeLog, Place
from consumers.doctor import examine
from consumers.letters import letters, survey
from consumers.log_end import read_ends, read_log_end
from consumers.native import NativeReader
from consumers.parked import parked
from producers import control
from producers import topics as topic_plans
from producers.delivery import DeliveryError
from producers.files import FileError, Source
from producers.mapping import HELP_EXAMPLE, MappingError, load_mapping
from producers.replay import BehindError, parse_speed, progress_bar, replay
from stream import config
from stream.campaigns.control import ControlRecord
from stream.cli import apply as apply_view
from stream.cli import auditing, dlq, explaining, logs, views
from stream.cli import campaigns as campaigns_view
from stream.cli import demo as demonstration
from stream.cli import explore as explore_view
from stream.cli import plan as plan_view
from stream.cli import rekey as rekey_view
from stream.cli import webhooks as webhooks_view
from stream.cli.terminal import console, show
from stream.cli.waiting import catching_up_bar
from stream.errors import (
    BrokerUnavailableError,
    OffsetOutOfRangeError,
    ServerStartError,
    TopicMissingError,
)
from stream.events import Reason
from stream.insight import (
    applying,
    campaign_facts,
    explore,
    members,
    plan,
    queries,
    rule_facts,
    trial,
)
from stream.insight import why as reasons
from stream.insight.facts import CheckFacts, ControlFacts, SegmentsFacts, UserFacts
from stream.insight.waiting import wait_until_caught_up
from stream.learning.choosing import Distance
from stream.masking import mask, mask_facts
from stream.membership import Wanted
from stream.model import Model
from stream.partition import SchemaMismatchError
from stream.roles.registry import Role
from stream.safe import safe, safe_facts, safe_lines
from stream.servers import LocalBroker, LocalStore
from stream.store.promises import ReaderStore
from stream.store.state import StoreRefusedError, StoreUnavailableError
from stream.tuning import Tuning
from stream.units import iso, milliseconds
from stream.wiring import letters as letter_facts
from stream.wiring import parked as parked_facts
from stream.wiring import rekey as rekeying
from stream.wiring import republish, roles
from stream.wiring.history import opener

NO, WRONG = 1, 2
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

FOR_ALL = "For every command"

out = console()
err = console(stderr=True)


class _App(TyperGroup):
    """A command whose options for every command may stand before a command or after it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _context.forget()
        return super().parse_args(ctx, args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = super().get_command(ctx, cmd_name)
        if found is not None:
            self._share(found)
        return found

    def _share(self, command: Any) -> None:
        shared = [option for option in self.params if _panel(option) == FOR_ALL]
        command.params += [option for option in shared if option not in command.params]
        for inner in getattr(command, "commands", {}).values():
            self._share(inner)


def _panel(option: Any) -> str | None:
    panel: str | None = getattr(option, "rich_help_panel", None)
    return panel


app = typer.Typer(
    name="segstream",
    cls=_App,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "**Live segmentation of shoppers.** Clicks and purchases come in through Kafka, rolling "
        "features live in Redis, an online K-means keeps learning what kinds of shoppers there "
        "are, and whoever moves between segments, by acting or by falling silent, is announced "
        "on a topic.\n\n"
        "Try it: `segstream demo` needs no server. Use it: `segstream doctor` looks at your "
        "Kafka and Redis, `segstream topics apply` makes the topics, `segstream run all` runs "
        "everything for a small shop. Choose: `segstream explore` shows how many segments a file "
        "suggests. Change: `segstream plan` says who would move under other settings, `segstream "
        "apply` makes it so. Trust it: `segstream audit` recomputes what it did.\n\n"
        "Exit codes: 0 done, or yes; 1 no, or something is off; 2 wrong use or configuration."
    ),
)
topics_app = typer.Typer(no_args_is_help=True, help="The topics: create or check them.")
run_app = typer.Typer(no_args_is_help=True, help="Run the roles, each as a process of its own.")
dlq_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Dead letters: what was refused, why, and to send it again.",
)
campaigns_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Campaigns: what is declared, and what would be sent.",
)
webhooks_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Deliveries to endpoints that were given up, and to send them again.",
)
config_app = typer.Typer(no_args_is_help=True, help="The settings in force.")
app.add_typer(topics_app, name="topics")
app.add_typer(run_app, name="run")
app.add_typer(config_app, name="config")
app.add_typer(dlq_app, name="dlq")
app.add_typer(campaigns_app, name="campaigns")
app.add_typer(webhooks_app, name="webhooks")

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object as the last line on stdout.")]
SourceFiles = Annotated[
    list[Path] | None,
    typer.Argument(help="CSV, JSON Lines or Parquet; .gz too. Or --live.", metavar="[FILE]..."),
]
SourceMappings = Annotated[
    list[str] | None,
    typer.Option(
        "--mapping",
        help="A shipped mapping's name, or a TOML file; one for all files, or one for each.",
        metavar="NAME|FILE",
    ),
]
KeepOutliers = Annotated[
    bool, typer.Option("--keep-outliers", help="Keep events far in time from all others.")
]
Live = Annotated[
    bool, typer.Option("--live", help="Take the users in the store, under their model.")
]
Local = Annotated[bool, typer.Option("--local", help="Start the local broker and store beside it.")]


@dataclass
class _Context:
    """What the options for every command say."""

    file: Path | None = None
    flags: dict[str, Any] = field(default_factory=dict)
    verbose: bool = False
    roles: list[str] = field(default_factory=list)

    def forget(self) -> None:
        self.file, self.flags, self.verbose, self.roles = None, {}, False, []

    def load(self, **more: Any) -> tuple[config.Settings, dict[str, str]]:
        flags = {key: dict(value) for key, value in self.flags.items()}
        for section, values in more.items():
            flags.setdefault(section, {}).update(values)
        found = config.load(self.named_file, flags=flags)
        self.start_log(found[0].log)
        return found

    def start_log(self, log: config.Log) -> None:
        logs.configure(err, log, self.roles, verbose=self.verbose)

    @property
    def named_file(self) -> Path | None:
        named = os.environ.get(config.CONFIG_VARIABLE)
        return Path(named) if self.file is None and named else self.file

    @property
    def given(self) -> bool:
        """Whether a settings file or a setting was named."""
        return self.named_file is not None or bool(self.flags)

    def settings(self, **more: Any) -> config.Settings:
        return self.load(**more)[0]


_context = _Context()


def _version(wanted: bool) -> None:
    if wanted:
        print(f"segstream {version('segstream')}")
        raise typer.Exit


def _take_file(file: Path | None) -> None:
    _context.file = file or _context.file


def _take_assignments(assignments: list[str] | None) -> None:
    for assignment in assignments or []:
        key, separator, value = assignment.partition("=")
        if not separator:
            raise config.ConfigError("--set: expected section.key=value, and there is no =")
        if key.count(".") != 1:
            raise config.ConfigError(f"--set {key}=...: expected section.key=value")
        section, _, name = key.partition(".")
        _context.flags.setdefault(section, {})[name] = _value(key, value)


def _take_verbose(wanted: bool) -> None:
    if wanted:
        _context.verbose = True
        _context.start_log(config.Log())


def _value(key: str, text: str) -> Any:
    """A TOML value where it is one, else what an environment variable would say."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return config.parse_text(key, text)


@app.callback()
def common(
    settings_file: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            callback=_take_file,
            expose_value=False,
            help=f"Settings file, TOML. Else the one that {config.CONFIG_VARIABLE} names.",
            metavar="FILE",
            rich_help_panel=FOR_ALL,
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            callback=_take_assignments,
            expose_value=False,
            help="One setting, as section.key=value.",
            metavar="KEY=VALUE",
            rich_help_panel=FOR_ALL,
        ),
    ] = None,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            callback=_take_verbose,
            expose_value=False,
            help="Say more on stderr.",
            rich_help_panel=FOR_ALL,
        ),
    ] = False,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say it, and end.")
    ] = False,
) -> None:
    """Read what all commands share: their callbacks keep it."""
    del settings_file, assignments, verbose, show_version
    _context.start_log(config.Log())


@contextmanager
def _telling(text: str) -> Iterator[Callable[[str], None]]:
    """A line on the terminal that says what is being done."""
    with err.status(text) as status:
        yield lambda told: status.update(Text(told))


# -- running ---------------------------------------------------------------------------------


@app.command(epilog="Example: `segstream demo --seconds 30`")
def demo(
    seconds: Annotated[float, typer.Option(min=5, help="How long the shop runs.")] = 60.0,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the servers running, to look around.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """A simulated shop on a local broker and store, all roles as real processes."""
    stop = roles.stop_on_signals()

    def tell(facts: dict[str, Any]) -> None:
        show(facts, as_json, lambda shown: demonstration.show_summary(out, shown))

    if not demonstration.run(seconds, keep=keep, stop=stop, console=err, show=tell):
        raise typer.Exit(NO)


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
    _context.roles = names
    _context.start_log(config.Log())
    stop = roles.stop_on_signals()
    with ExitStack() as stack:
        more: dict[str, Any] = {}
        if local:
            broker = stack.enter_context(LocalBroker())
            store = stack.enter_context(LocalStore())
            more = {"broker": {"bootstrap": broker.bootstrap}, "store": {"url": store.url}}
        settings = _context.settings(**more)
        wanted = [role.name for role in roles.wanted(settings)]
        if not (names := [name for name in names if name in wanted]):
            raise config.ConfigError(
                f"{', '.join(_context.roles)}: nothing is declared for it in "
                f"{', '.join(roles.ROLES[_context.roles[0]].settings)}"
            )
        if local:
            topic_plans.apply(settings, create=True, outlets=roles.outlets(settings))
            err.print(f"local broker at {settings.broker.bootstrap}, store at {settings.store.url}")
            given = f" -c {_context.named_file}" if _context.named_file else ""
            err.print(
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
    settings = _context.settings()
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
        out.print(f"created {name}")
    for one in facts["differences"]:
        out.print(
            f"{one['topic']}: {one['setting']} is {one['found']}, should be {one['expected']}; "
            f"{one['remedy']}"
        )
    if not facts["differences"]:
        out.print("all topics are as they should be")


@app.command("replay", epilog=HELP_EXAMPLE)
def replay_files(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="CSV, JSON Lines or Parquet; .gz too. Several are merged by time.",
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
    settings = _context.settings()
    if resume and anyway:
        raise config.ConfigError("--resume and --anyway exclude each other")
    if settings.clock.mode == "live":
        err.print(
            "note: clock.mode is live, so all of this will have happened by now, and nobody in it is "
            "looked at before the end; for a history set clock.mode = watermark"
        )
    elif settings.topics.input_retention_seconds > 0:
        err.print(
            "note: topics.input_retention_seconds is not 0, and Kafka deletes by record time; if "
            "the topics were made with it, history older than that will not stay (see doctor)"
        )
    (file, chosen), *more = _with_mappings(files, mapping)
    stop = roles.stop_on_signals()
    try:
        pace = parse_speed(speed)
    except ValueError as error:
        raise config.ConfigError(f"--speed: {error}") from None
    signer = roles.mark_signer(settings)
    table = settings.table()
    native = NativeReader(table, settings.worker, settings.money)
    with progress_bar(err) as progress:
        report = replay(
            settings, file, chosen, signer, more=more, speed=pace, progress=progress, until=until,
            limit=limit, rejected_to=rejected, keep_outliers=keep_outliers,
            watched=table.codes, native=native,
            log_end=lambda: read_log_end(settings, signer),
            behind="resume" if resume else "send" if anyway else "refuse",
            tell=lambda note: err.print(f"note: {note}", soft_wrap=True), stop=stop.is_set,
        )  # fmt: skip
    if wait and report.complete:
        mark_ms = 0 if signer is None else read_log_end(settings, signer).mark_ms
        with roles.open_store(settings) as store, catching_up_bar(err) as told:
            report.caught_up = wait_until_caught_up(
                store, read_ends(settings), mark_ms, told, stop.is_set
            )
    if as_json:
        show(report.as_dict(), as_json, out.print)
    else:
        show(list(report.lines()), as_json, lambda lines: out.print(*lines, sep="\n"))
    if not report.complete or not (report.sent or report.known) or report.caught_up is False:
        raise typer.Exit(NO)


# -- looking ---------------------------------------------------------------------------------


@app.command("explore", epilog=EXPLORE_EXAMPLE)
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
    sources = _sources(files, mapping, live=live)
    if live and at is not None:
        raise config.ConfigError("--at belongs to a FILE, not to --live")
    if k is not None and k > k_max:
        raise config.ConfigError(f"--k {k} is more than --k-max {k_max}")
    if k is not None and algorithm == "density":
        raise config.ConfigError("--k: density clustering finds its own number of segments")
    settings = _context.settings()
    table = settings.table()
    explore_view.see_that_it_can_draw()
    wish = explore.Wish(distance, algorithm, k_max, k, bootstraps, population)
    with _telling("reading") as tell:
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
    show(facts, as_json, lambda shown: explore_view.show(out, shown))


@app.command("plan", epilog=PLAN_EXAMPLE)
def plan_change(
    wanted_file: Annotated[
        Path, typer.Argument(metavar="CONFIG.toml", help="The settings as they shall be.")
    ],
    files: SourceFiles = None,
    mapping: SourceMappings = None,
    live: Live = False,
    keep_outliers: KeepOutliers = False,
    as_json: AsJson = False,
) -> None:
    """Who would enter and leave which segment under other settings? Nothing is changed."""
    sources = _sources(files, mapping, live=live)
    wanted = config.load(wanted_file)[0]
    settings = _context.settings()
    table = wanted.table()
    with _telling("reading") as tell:
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
            known = _running(wanted)
            with roles.open_store(known) as store:
                crowd = plan.live_crowd(known, table, store, tell)
            found = plan.plan(crowd, table, known.publish.rule(), wanted)
    facts = plan.facts_of(found)
    show(facts, as_json, lambda shown: plan_view.show(out, shown))


def _sources(files: list[Path] | None, mappings: list[str] | None, *, live: bool) -> list[Source]:
    """The files to take users from and how they are read; none for those in the store.

    Raises:
        ConfigError: it is neither or both, or there are not as many mappings as files.
        MappingError: a mapping cannot be read.
    """
    if live == bool(files):
        raise config.ConfigError("give either a FILE with --mapping, or --live")
    if not files:
        if mappings:
            raise config.ConfigError("--mapping belongs to a FILE, not to --live")
        return []
    return _with_mappings(files, mappings or [])


def _with_mappings(files: list[Path], names: list[str]) -> list[Source]:
    """Each file with its mapping: one for all, or one for each in the same order.

    Raises:
        ConfigError: there is none, or there are not as many as files.
        MappingError: a mapping cannot be read.
    """
    if not names:
        raise config.ConfigError("--mapping: a FILE needs one; see `segstream replay --help`")
    if len(names) not in (1, len(files)):
        raise config.ConfigError(
            f"--mapping: {len(names)} for {len(files)} files; give one for all, or one for each, in "
            "the order of the files"
        )
    found = [load_mapping(name) for name in names] * (len(files) if len(names) == 1 else 1)
    return [Source(file, mapping) for file, mapping in zip(files, found, strict=True)]


def _running(wanted: config.Settings) -> config.Settings:
    """Settings of the running pipeline: whoever gives none means the one the wanted are for."""
    return _context.settings() if _context.given else wanted


@app.command("apply", epilog=APPLY_EXAMPLE)
def apply_change(
    wanted_file: Annotated[
        Path, typer.Argument(metavar="CONFIG.toml", help="The settings as they shall be.")
    ],
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
    wanted = config.load(wanted_file)[0]
    known, table = _running(wanted), wanted.table()
    tuning = Tuning.of(wanted)
    with roles.open_store(known) as store:
        with _telling("planning") as tell:
            crowd = plan.live_crowd(known, table, store, tell)
            planned = plan.facts_of(plan.plan(crowd, table, known.publish.rule(), wanted))
        if not as_json:
            plan_view.show(out, safe_facts(planned))
        store.want(tuning.pack())
        model = None
        if not no_wait:
            try:
                with err.status("waiting for the trainer's next round"):
                    model = applying.wait(store, tuning, seconds)
            except applying.NotAppliedError:
                if as_json:
                    show(applying.facts_of(planned, tuning, None), as_json, out.print)
                raise
    facts = applying.facts_of(planned, tuning, model)
    show(facts, as_json, lambda shown: apply_view.show(out, shown))


@campaigns_app.command("check", epilog="Example: `segstream campaigns check shop.toml`")
def check_campaigns(
    file: Annotated[
        Path, typer.Argument(metavar="CONFIG.toml", help="The settings, with [[campaigns]].")
    ],
    as_json: AsJson = False,
) -> None:
    """Are the campaigns of a settings file declared so that they can run?"""
    wanted = config.load(file)[0]
    trial.see_that_there_are_some(wanted)
    facts: CheckFacts = {"campaigns": trial.declared(wanted)}
    show(facts, as_json, lambda shown: campaigns_view.show_check(out, shown))


@campaigns_app.command("try", epilog=TRY_EXAMPLE)
def try_campaigns(
    config_file: Annotated[
        Path, typer.Argument(metavar="CONFIG.toml", help="The settings, with [[campaigns]].")
    ],
    files: SourceFiles = None,
    mapping: SourceMappings = None,
    live: Live = False,
    keep_outliers: KeepOutliers = False,
    as_json: AsJson = False,
) -> None:
    """What would campaigns have decided about changes that have happened? Nothing is sent."""
    sources = _sources(files, mapping, live=live)
    wanted = config.load(config_file)[0]
    trial.see_that_there_are_some(wanted)
    with _telling("reading") as tell:
        if sources:
            opened = opener(sources, tell, keep_outliers=keep_outliers)
            facts = trial.on_history(wanted, opened, tell)
        else:
            known = _running(wanted)
            with roles.open_store(known) as store:
                key = store.namespace_key()
            facts = trial.on_changes(wanted, key, ChangeLog(known).read(), known.topics.changes)
    show(facts, as_json, lambda shown: campaigns_view.show_trial(out, shown))


@campaigns_app.command("list", epilog="Example: `segstream campaigns list`")
def list_campaigns(as_json: AsJson = False) -> None:
    """What have campaigns sent so far, and did it help?"""
    settings = _context.settings()
    facts = campaign_facts.campaigns_facts(settings, roles.campaign_state(settings))
    show(facts, as_json, lambda shown: campaigns_view.show_list(out, shown))


@campaigns_app.command("show", epilog="Example: `segstream campaigns show win-back`")
def show_campaign(
    name: Annotated[str, typer.Argument(metavar="CAMPAIGN", help="Its name.")],
    as_json: AsJson = False,
) -> None:
    """A campaign whole: what became of changes, and its effect by arm, with intervals."""
    settings = _context.settings()
    found = campaign_facts.campaigns_facts(settings, roles.campaign_state(settings), name)
    show(found["campaigns"][0], as_json, lambda shown: campaigns_view.show_one(out, shown))


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
    settings = _context.settings()
    facts: ControlFacts = {"record": dict(whole), "partitions": control.say(settings, whole)}
    show(facts, as_json, lambda shown: campaigns_view.show_control(out, shown))


def _see_declared(name: str) -> None:
    declared = [one.name for one in _context.settings().campaigns]
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


segments_app = typer.Typer(rich_markup_mode="markdown")
app.add_typer(segments_app, name="segments", epilog="Example: `segstream segments --rules`")


@segments_app.callback(invoke_without_command=True)
def segments(
    context: typer.Context,
    rules: Annotated[
        bool, typer.Option("--rules", help="Who is in which, in a few conditions each.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """The segments: id, name, kind, size, what marks them, and how good the model is."""
    if context.invoked_subcommand is not None:
        return
    settings = _context.settings()
    table = settings.table()
    with roles.open_store(settings) as store:
        state = queries.trainer_state(store)
        facts = queries.segments(state, table)
        if rules and state.model is not None:
            with _telling("reading") as tell:
                people = explore.read_store(settings, table, store, state.model, tell)
            facts["rules"] = rule_facts.rules(people, state.model, table)

    def for_people(shown: SegmentsFacts) -> None:
        views.show_segments(out, shown, table)
        if rules:
            explaining.show_rules(out, shown["rules"], table)

    show(facts, as_json, for_people)


@segments_app.command(epilog="Example: `segstream segments rename 4 'Bargain hunters'`")
def rename(
    segment: Annotated[int, typer.Argument(metavar="ID", help="The segment, as in segments.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name from now on.")],
) -> None:
    """Give a segment a name that stays with its id, through every refit to come."""
    settings = _context.settings()
    with roles.open_store(settings) as store:
        before = queries.rename(store, segment, name)
    show(
        f"segment {segment}, {before!r}, is called {name!r} from the trainer's next round on",
        False,
        out.print,
    )


@app.command(epilog="Example: `segstream user 17850 --why`")
def user(
    user_id: Annotated[str, typer.Argument(metavar="ID", help="The user, as in userId.")],
    why: Annotated[
        bool, typer.Option("--why", help="What holds them there, and what would move them.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """A user: features now, segment, since when, distances, the last changes and why."""
    settings = _context.settings()
    with roles.open_store(settings) as store:
        reader = queries.Reader(settings, store, settings.table())
        facts = reader.user(user_id, ChangeLog(settings).read)
        if why:
            facts["why"] = reasons.why(reader, user_id)

    def for_people(shown: UserFacts) -> None:
        views.show_user(out, shown, reader.table)
        if why:
            explaining.show_why(out, shown["why"], reader.table)

    show(facts, as_json, for_people)


@app.command(epilog="Example: `segstream changes --follow --kind at_risk`")
def changes(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more.")] = False,
    since: Annotated[
        str | None,
        typer.Option(help="Only from a time on, or so long ago.", metavar="DATETIME|DURATION"),
    ] = None,
    tail: Annotated[
        int | None, typer.Option(help="Only the last so many of those there are.", min=0)
    ] = None,
    user_id: Annotated[str | None, typer.Option("--user", help="Only this user's.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only moves into this kind.")] = None,
    kinds_only: Annotated[
        bool, typer.Option("--kinds", help="Only what tells a user another kind than before.")
    ] = False,
    lineage: Annotated[
        bool, typer.Option("--lineage", help="Also what became of segments, one record for all.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines.")] = False,
) -> None:
    """The changes, oldest first, over all users and partitions."""
    settings = _context.settings()
    stop = roles.stop_on_signals() if follow else None
    found = False

    def tell(records: Iterable[dict[str, Any]]) -> None:
        nonlocal found
        for record in records:
            found = True
            show(record, as_json, lambda shown: out.print(views.record_line(shown)))

    with roles.open_store(settings) as store:
        reader = queries.Reader(settings, store, settings.table())
        _see_kind(settings, store, kind)
        begin_ms = _since_ms(since, reader)
        begin = None if begin_ms is None else iso(begin_ms)

        def chosen(records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
            return (
                one
                for one in records
                if queries.wanted(one, user_id, kind, begin, kinds_only=kinds_only)
            )

        log, place = ChangeLog(settings), Place()
        with _telling("reading"):
            there = chosen(log.read(lineage=lineage, place=place))
            records = queries.in_time_order(there, tail)
        tell(records)
        if stop is not None:
            tell(chosen(log.follow(stop.is_set, place, lineage=lineage)))
    if not found:
        err.print("no changes")


@app.command("members", epilog="Example: `segstream members --kind at_risk --csv > at-risk.csv`")
def list_members(
    segment: Annotated[
        list[int] | None, typer.Option(help="Only of this segment; may be given again.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="Only who is of this kind.")] = None,
    population: Annotated[
        str | None, typer.Option(help="Only who is in a segment of this population.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="Only who came from a time on, or so long ago: to the segment, or the kind.",
            metavar="DATETIME|DURATION",
        ),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="A table, with a head.")] = False,
    as_jsonl: Annotated[bool, typer.Option("--jsonl", help="JSON lines.")] = False,
) -> None:
    """The members of segments: id, since when, last seen, and what they are worth."""
    settings = _context.settings()
    with roles.open_store(settings) as store:
        reader = queries.Reader(settings, store, settings.table())
        model = queries.model_in_force(store)
        if unknown := [one for one in segment or () if one not in model.by_id]:
            raise config.ConfigError(f"--segment {unknown[0]}: segstream segments lists them")
        _see_kind(settings, store, kind)
        _see_population(model, population)
        begin = _since_ms(since, reader)
        wanted = members.WantedMembers(segment or None, kind, begin or 0, population)
        portions = members.members(settings, reader.table, store, model, wanted, reader.now_ms())
        if as_csv:
            out.file.write(members.CSV_HEAD)
        found = 0
        for portion in members.once(portions):
            found += len(portion)
            if as_csv or as_jsonl:
                text = members.as_csv(portion) if as_csv else members.as_jsonl(portion)
                # A file gets what users are called; a terminal what it only shows.
                out.file.write(
                    "".join(f"{safe(line)}\n" for line in text.splitlines())
                    if out.is_terminal
                    else text
                )
            else:
                for member in portion:
                    out.print(views.member_line(member))
    if not found:
        err.print("no members")


def _see_population(model: Model, population: str | None) -> None:
    if population is not None and population not in (names := model.populations.names):
        raise config.ConfigError(
            f"--population {population}: there is no such population, but {', '.join(names)}"
        )


def _see_kind(settings: config.Settings, store: ReaderStore, kind: str | None) -> None:
    if kind is not None and kind not in (kinds := queries.kinds_of(settings, store)):
        raise config.ConfigError(f"--kind {kind}: there is no such kind, but {', '.join(kinds)}")


def _since_ms(since: str | None, reader: queries.Reader) -> int | None:
    try:
        return None if since is None else queries.since_ms(since, reader.now_ms)
    except (ValueError, OverflowError) as error:
        raise config.ConfigError(f"--since {since}: {error}") from None


@app.command("republish", epilog="Example: `segstream republish --kind at_risk`")
def republish_memberships(
    segment: Annotated[int | None, typer.Option(help="Only of this segment.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only of segments of this kind.")] = None,
    rate: Annotated[float, typer.Option(help="Records a second at the most.", min=1)] = 5_000.0,
    as_json: AsJson = False,
) -> None:
    """Send everybody's present segment to the output again, as records of their own type.

    For whoever begins to listen, and after the output was made anew or lost records. A listener
    that knows a higher version of a user passes over it, so it may be done at any time.
    """
    settings = _context.settings()
    topic_plans.see_partitions(settings)
    with roles.open_store(settings) as store:
        model = queries.model_in_force(store)
        if segment is not None and segment not in model.by_id:
            raise config.ConfigError(f"--segment {segment}: segstream segments lists them")
        _see_kind(settings, store, kind)
        with _telling("sending") as tell:
            facts = republish.tell_again(
                settings,
                store,
                model,
                Wanted(segment, kind),
                rate,
                lambda count: tell(f"sent {count:,}"),
            )
    show(facts, as_json, _show_republished)


def _show_republished(facts: republish.RepublishedFacts) -> None:
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(facts["kinds"].items()))
    out.print(f"{facts['sent']:,} memberships sent{f': {kinds}' if kinds else ''}")


# -- dead letters ----------------------------------------------------------------------------


def _milliseconds(since: datetime | None) -> int:
    return 0 if since is None else milliseconds(since)


def _known_reason(reason: str | None) -> str | None:
    known = tuple(Reason)
    if reason is not None and reason not in known:
        raise typer.BadParameter(f"{reason!r} is no reason; there are {', '.join(known)}")
    return reason


_ReasonOption = typer.Option(help="Only of this reason.", callback=_known_reason)


@dlq_app.command("list", epilog="Example: `segstream dlq list`")
def dlq_list(as_json: AsJson = False) -> None:
    """How many messages were refused, by topic and reason; each counts once."""
    with _telling("reading the dead letters"):
        found = survey(_context.settings())
    show(letter_facts.survey_facts(found), as_json, lambda facts: dlq.show_survey(out, facts))


@dlq_app.command("show", epilog="Example: `segstream dlq show --reason bad_time --limit 5`")
def dlq_show(
    letter_id: Annotated[
        str | None, typer.Argument(metavar="ID", help="One letter whole: topic/partition/offset.")
    ] = None,
    reason: Annotated[str | None, _ReasonOption] = None,
    limit: Annotated[int, typer.Option(help="Letters at the most.", min=1)] = 3,
    as_json: AsJson = False,
) -> None:
    """Examples of dead letters, or one whole."""
    with _telling("reading the dead letters"):
        found = letters(_context.settings(), reason=reason)
        if letter_id is not None:
            found = (one for one in found if one.id == letter_id)
        facts = letter_facts.letter_facts(found, limit)
    whole = letter_id is not None
    show(facts, as_json, lambda shown: dlq.show_letters(out, shown, whole=whole))
    if not facts["letters"]:
        raise typer.Exit(NO)


@dlq_app.command(
    "replay", epilog="Example: `segstream dlq replay --reason missing_field --since 2026-11-01`"
)
def dlq_replay(
    reason: Annotated[str, _ReasonOption],
    since: Annotated[
        datetime | None, typer.Option(help="Only letters filed from then on; UTC.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Messages at the most.", min=1)] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Also those that were sent again before.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send refused messages again, as they were, to the topics they came from.

    For when their producer, or what refused them, was mended. They keep key, headers and timestamp;
    the header segstream-replayed-from names the letter. Marks, and messages of which the letter has
    only the head, are counted and not sent.
    """
    settings = _context.settings()
    with _telling("reading the dead letters") as tell:
        facts = letter_facts.replay(
            settings,
            reason,
            _milliseconds(since),
            limit,
            again=again,
            dry_run=dry_run,
            told=lambda count: tell(f"sent {count:,}"),
        )
    show(facts, as_json, lambda shown: dlq.show_replay(out, shown))
    if not facts["sent"] + facts["would_send"]:
        raise typer.Exit(NO)


@webhooks_app.command("list", epilog="Example: `segstream webhooks list`")
def webhooks_list(as_json: AsJson = False) -> None:
    """How many deliveries were given up, by endpoint and reason."""
    with _telling("reading the parked deliveries"):
        found = parked(_context.settings())
    show(
        parked_facts.parked_facts(found),
        as_json,
        lambda facts: webhooks_view.show_parked(out, facts),
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
    settings = _context.settings()
    with _telling("reading the parked deliveries") as tell:
        facts = parked_facts.replay(
            settings,
            parked(settings),
            time.time_ns() // 1_000_000,
            endpoint=endpoint,
            reason=reason,
            since_ms=_milliseconds(since),
            limit=limit,
            again=again,
            late=late,
            dry_run=dry_run,
            told=lambda count: tell(f"asked for {count:,}"),
        )
    show(facts, as_json, lambda shown: webhooks_view.show_replay(out, shown))
    if not facts["asked"] + facts["would_ask"]:
        raise typer.Exit(NO)


@app.command(
    epilog="Example: `segstream rekey`, or `segstream rekey --from old-clicks --to clickstream`"
)
def rekey(
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="TOPIC", help="Copy this topic; without, the dead letters."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--to", metavar="INPUT", help="clickstream or purchases: where copies go."),
    ] = None,
    since: Annotated[
        datetime | None, typer.Option(help="Only letters filed from then on; UTC.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Letters at the most.", min=1)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write messages into the partitions of their users.

    Those that were refused as misplaced, each once; they keep headers and timestamp. With --from, all
    messages of a topic, once for each run, up to where it ends now: to fill new input topics from old
    ones that have another number of partitions, or that are keyed by something else.
    """
    settings = _context.settings()
    rekey_view.see_options(
        settings, source, target, letters_only=since is not None or limit is not None
    )
    topic_plans.see_partitions(settings)
    with _telling("reading messages") as tell:

        def count(sent: int) -> None:
            tell(f"sent {sent:,}")

        if source is None:
            since_ms = _milliseconds(since)
            facts = rekeying.letters(settings, since_ms, limit, dry_run=dry_run, told=count)
        else:
            facts = rekeying.topic(settings, source, target or "", dry_run=dry_run, told=count)
    show(facts, as_json, lambda shown: rekey_view.show(out, shown))
    if not facts["sent"] + facts["would_send"]:
        raise typer.Exit(NO)


@app.command(epilog="Example: `segstream audit --sample 0.1`")
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
    settings = _context.settings()
    with roles.open_store(settings) as store, auditing.progress(err, sample) as progress:
        report = run_audit(settings, store, sample=sample, progress=progress)
    if settings.campaigns:
        more = roles.audit_campaigns(settings)
        report = replace(
            report,
            checks=[*report.checks, *more],
            ok=report.ok and all(check.ok for check in more),
            unjudged=report.unjudged + sum(check.unjudged for check in more),
        )
    show(asdict(report), as_json, lambda shown: auditing.show(out, shown))
    if not report.ok:
        raise typer.Exit(NO)


@app.command(epilog="Example: `segstream -c shop.toml doctor`")
def doctor(as_json: AsJson = False) -> None:
    """Can the broker and the store be reached, and are they set up safely?"""
    settings = _context.settings()
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
        out.print(Text.assemble(verdict, (f"{one['subject']}: ", "bold"), one["finding"]))
        if one["remedy"] and not one["ok"]:
            out.print(f"      remedy: {one['remedy']}")


@config_app.command("show", epilog="Example: `segstream --set learning.segments=6 config show`")
def config_show(as_json: AsJson = False) -> None:
    """Every setting in force, its unit, its meaning, and where it came from."""
    settings, origins = _context.load()
    show({"settings": config.effective(settings, origins)}, as_json, _show_settings)


def _show_settings(facts: dict[str, Any]) -> None:
    rows = [row for row in facts["settings"] if not isinstance(row["value"], list)]
    if out.width >= views.WIDE:
        table = Table(title="Settings", title_justify="left")
        table.add_column("key", no_wrap=True)
        for column in ("value", "unit", "from", "meaning"):
            table.add_column(column, overflow="fold")
        for row in rows:
            meaning = row["meaning"] or ""
            table.add_row(row["key"], str(row["value"]), row["unit"] or "", row["origin"], meaning)
        out.print(table)
    else:
        for row in rows:
            unit = f" {row['unit']}" if row["unit"] else ""
            value = (f"{row['value']}{unit}", "cyan")
            out.print(Text.assemble((row["key"], "bold"), " = ", value, f"  ({row['origin']})"))
            out.print(Padding(row["meaning"] or "", (0, 0, 0, 4)))
    for row in facts["settings"]:
        if isinstance(row["value"], list):
            out.print(f"\n{row['key']} = [")
            for item in row["value"]:
                out.print(f"    {config.as_toml(item)},", soft_wrap=True)
            out.print("]")


# -- ending ----------------------------------------------------------------------------------


STORE_HINTS: Sequence[tuple[type[Exception], str]] = (
    (StoreUnavailableError, "; is the store up, and is store.url right? `segstream doctor` looks"),
    (
        StoreRefusedError,
        "; `segstream doctor` looks at it, ops/guide/redis.md has each role's rights",
    ),
)

_ANSWERS: Sequence[tuple[type[Exception], int]] = (
    (config.ConfigError, WRONG),
    (MappingError, WRONG),
    (FileError, WRONG),
    (BehindError, NO),
    (SchemaMismatchError, WRONG),
    (explore.ExploreError, NO),
    (plan.PlanError, NO),
    (applying.NotAppliedError, NO),
    (campaign_facts.NoCampaignError, NO),
    (queries.UnknownUserError, NO),
    (queries.NoModelError, NO),
    (queries.WrongNameError, NO),
    (BrokerUnavailableError, NO),
    (StoreUnavailableError, NO),
    (StoreRefusedError, NO),
    (TopicMissingError, NO),
    (OffsetOutOfRangeError, NO),
    (ServerStartError, NO),
    (demonstration.DemoError, NO),
    (DeliveryError, NO),
    *((error, NO) for role in roles.ROLES.values() for error in role.errors),
)


_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What a file system says that takes no more of what a command writes."""


def main() -> NoReturn:
    """Run the command; tell every error that a user can cause in a sentence."""
    known = tuple(kind for kind, _ in _ANSWERS)
    try:
        code = app(prog_name="segstream", standalone_mode=False) or 0
    except TyperException as error:
        code = _tell_wrong_use(error)
    except known as error:
        hint = next((text for kind, text in STORE_HINTS if isinstance(error, kind)), "")
        _tell(f"{error}{hint}")
        code = next(code for kind, code in _ANSWERS if isinstance(error, kind))
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        code = 0
    except OSError as error:
        if error.errno not in _NO_ROOM:
            _tell_unforeseen(error)
        else:
            _tell(f"what there is to say cannot be written: {error.strerror}")
        code = NO
    except Exception as error:  # noqa: BLE001 - nobody foresaw it
        _tell_unforeseen(error)
        code = NO
    sys.exit(code)


def _tell_unforeseen(error: Exception) -> None:
    """With its trace, but without secrets."""
    logs.OWN_LOG.critical("%s: %s", type(error).__name__, error, exc_info=error)


def _tell(message: str) -> None:
    """The last words: of a role whose log is read by a machine, another line of it."""
    if _context.roles and logs.as_json():
        logs.OWN_LOG.error("%s", message)
    else:
        err.print(Text.assemble(("segstream: ", "bold red"), safe_lines(mask(message))))


def _tell_wrong_use(error: TyperException) -> int:
    told = error.format_message().strip()
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "segstream"
    if told:
        _tell(f"{told.rstrip('.')}; see `{path} --help`")
    return error.exit_code
