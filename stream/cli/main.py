"""The command `segstream`: what it offers, and how errors are told.

Comes in: arguments. Goes out: facts on stdout, everything else on stderr, and an exit code: 0 done
or yes, 1 no or something is off, 2 wrong use or wrong configuration.
"""

from __future__ import annotations

import errno
import sys
from importlib import import_module
from typing import Any, NoReturn

import typer
from rich.text import Text
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from stream.cli import logs
from stream.cli.catalogue import CATALOGUE
from stream.cli.invocation import FOR_ALL, common, invocation
from stream.masking import mask
from stream.safe import safe_lines
from stream.told import NO, ToldError


class _App(TyperGroup):
    """A command whose parts are loaded when they are called.

    Its options for every command may stand before a command or after it.
    """

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, entry in CATALOGUE.items():
            self.add_command(TyperCommand(name, help=entry.meaning))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in CATALOGUE:
            module = import_module(f"stream.cli.commands.{CATALOGUE[args[0]].module}")
            self.commands.update(typer.main.get_group(module.commands).commands)
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        invocation.forget()
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
app.callback()(common)


_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What a file system says that takes no more of what a command writes."""


def main() -> NoReturn:
    """Run the command; tell every error that a user can cause in a sentence."""
    try:
        code = app(prog_name="segstream", standalone_mode=False) or 0
    except TyperException as error:
        code = _tell_wrong_use(error)
    except ToldError as error:
        _tell(f"{error}{error.hint}")
        code = error.exit_code
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
    if invocation.roles and logs.as_json():
        logs.OWN_LOG.error("%s", message)
    else:
        invocation.err.print(Text.assemble(("segstream: ", "bold red"), safe_lines(mask(message))))


def _tell_wrong_use(error: TyperException) -> int:
    told = error.format_message().strip()
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "segstream"
    if told:
        _tell(f"{told.rstrip('.')}; see `{path} --help`")
    return error.exit_code
