"""What a command is told by the options for every command, and where it writes.

Comes in: those options, as they are read. Goes out: settings, the two consoles, and the log of this process.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from stream import config, config_layers
from stream.cli import logs
from stream.cli.terminal import console

FOR_ALL = "For every command"


@dataclass
class Invocation:
    """What the options for every command say.

    Attributes:
        file: the settings file that was named.
        flags: settings that were given one by one, by section.
        verbose: whether to say more.
        roles: that this process runs.
        out, err: where facts go, and everything else.
    """

    file: Path | None = None
    flags: dict[str, Any] = field(default_factory=dict)
    verbose: bool = False
    roles: list[str] = field(default_factory=list)
    out: Console = field(default_factory=console)
    err: Console = field(default_factory=partial(console, stderr=True))

    def forget(self) -> None:
        """Before another command is read."""
        self.file, self.flags, self.verbose, self.roles = None, {}, False, []

    def load(self, **more: Any) -> tuple[config.Settings, dict[str, str]]:
        """Settings and where each came from; the log is written as they say from now on.

        Args:
            more: values that go before all others, by section.
        """
        flags = {key: dict(value) for key, value in self.flags.items()}
        for section, values in more.items():
            flags.setdefault(section, {}).update(values)
        found = config_layers.load(self.named_file, flags=flags)
        self.start_log(found[0].log)
        return found

    def start_log(self, log: config.Log) -> None:
        """Write the log of this process as settings say."""
        logs.configure(self.err, log, self.roles, verbose=self.verbose)

    @property
    def named_file(self) -> Path | None:
        """The settings file, by an option or else by the environment."""
        named = os.environ.get(config_layers.CONFIG_VARIABLE)
        return Path(named) if self.file is None and named else self.file

    @property
    def given(self) -> bool:
        """Whether a settings file or a setting was named."""
        return self.named_file is not None or bool(self.flags)

    def settings(self, **more: Any) -> config.Settings:
        """As `load` gives them."""
        return self.load(**more)[0]

    def running(self, wanted: config.Settings) -> config.Settings:
        """Settings of the running pipeline: whoever gives none means the one the wanted are for."""
        return self.settings() if self.given else wanted

    @contextmanager
    def telling(self, text: str) -> Iterator[Callable[[str], None]]:
        """A line on the terminal that says what is being done."""
        with self.err.status(text) as status:
            yield lambda told: status.update(Text(told))


invocation = Invocation()


def _version(wanted: bool) -> None:
    if wanted:
        print(f"segstream {version('segstream')}")
        raise typer.Exit


def _take_file(file: Path | None) -> None:
    invocation.file = file or invocation.file


def _take_assignments(assignments: list[str] | None) -> None:
    for assignment in assignments or []:
        key, separator, value = assignment.partition("=")
        if not separator:
            raise config.ConfigError("--set: expected section.key=value, and there is no =")
        if key.count(".") != 1:
            raise config.ConfigError(f"--set {key}=...: expected section.key=value")
        section, _, name = key.partition(".")
        invocation.flags.setdefault(section, {})[name] = _value(key, value)


def _take_verbose(wanted: bool) -> None:
    if wanted:
        invocation.verbose = True
        invocation.start_log(config.Log())


def _value(key: str, text: str) -> Any:
    """A TOML value where it is one, else what an environment variable would say."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return config_layers.parse_text(key, text)


def common(
    settings_file: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            callback=_take_file,
            expose_value=False,
            help=f"Settings file, TOML. Else the one that {config_layers.CONFIG_VARIABLE} names.",
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
    invocation.start_log(config.Log())
