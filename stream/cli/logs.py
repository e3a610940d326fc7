"""What a process says while it works: one line a record, for people or for machines.

Comes in: log records, those of librdkafka and Python's warnings as well. Goes out: lines on stderr
with the time in UTC, the level, the role, the partition where there is one, the logger and the message;
without secrets, and with nothing in them that a terminal would obey.

A record's role is the thread it comes from. Its partition is that of a message that says ``partition
%d``, or comes as ``extra={"partition": number}``.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import traceback
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from stream.config import Log
from stream.errors import LIBRARY_LOG
from stream.masking import mask
from stream.safe import safe
from stream.units import iso

OWN_LOG = logging.getLogger("segstream")
_PARTITION = re.compile(r"\bpartition (%d)")
_ARGUMENT = re.compile(r"%.")
_STYLES = {"WARNING": "yellow", "ERROR": "bold red", "CRITICAL": "bold red"}


def configure(console: Console, log: Log, roles: Sequence[str] = (), *, verbose: bool) -> None:
    """Write this process's log to a console from now on.

    Args:
        roles: what runs here; none for a command that looks or sends, which says less.
        verbose: whoever started it wants to know more than the settings say.
    """
    level = logging.getLevelNamesMapping()[log.level.upper()]
    if verbose:
        level = min(level, logging.INFO)
    elif not roles:
        level = logging.WARNING
    as_json = log.format == "json" or (log.format == "auto" and not console.is_terminal)
    handler = Lines(console, as_json=as_json, roles=roles)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    # Every failed attempt to connect is an error to the library: only for who wants to know more.
    LIBRARY_LOG.setLevel(logging.INFO if verbose or level < logging.INFO else logging.CRITICAL)
    threading.excepthook = _thread_ended


def as_json() -> bool:
    """Whether the log is written for machines."""
    return any(isinstance(one, Lines) and one.as_json for one in logging.getLogger().handlers)


def _thread_ended(found: threading.ExceptHookArgs) -> None:
    if found.exc_value is not None:
        OWN_LOG.critical("a thread ended: %s", found.exc_value, exc_info=found.exc_value)


class Lines(logging.Handler):
    """Writes records through a console, which knows of the progress bars on the same terminal."""

    def __init__(self, console: Console, *, as_json: bool, roles: Sequence[str]) -> None:
        super().__init__()
        self.as_json = as_json
        self._console = console
        self._roles = roles

    def emit(self, record: logging.LogRecord) -> None:
        try:
            facts = self._facts(record)
            line = Text(json.dumps(facts)) if self.as_json else _line(facts)
            self._console.print(line, soft_wrap=True)
        except Exception:  # noqa: BLE001 - what logging asks of a handler
            self.handleError(record)

    def _facts(self, record: logging.LogRecord) -> dict[str, Any]:
        facts = {
            "time": iso(int(record.created * 1_000)),
            "level": record.levelname,
            "role": self._role(record),
            "partition": _partition(record),
            "logger": record.name,
            "message": mask(record.getMessage()),
            "exception": _exception(record),
        }
        return {name: value for name, value in facts.items() if value is not None}

    def _role(self, record: logging.LogRecord) -> str | None:
        if record.threadName in self._roles:
            return record.threadName
        return self._roles[0] if len(self._roles) == 1 else None


def _partition(record: logging.LogRecord) -> Any:
    given = getattr(record, "partition", None)
    said = _PARTITION.search(record.msg) if isinstance(record.msg, str) else None
    if given is not None or said is None or not record.args:
        return given
    before = _ARGUMENT.findall(record.msg[: said.start(1)])
    return tuple(record.args)[len(before) - before.count("%%")]


def _exception(record: logging.LogRecord) -> str | None:
    if not record.exc_info or record.exc_info[1] is None:
        return None
    return mask("".join(traceback.format_exception(record.exc_info[1]))).rstrip("\n")


def _line(facts: dict[str, Any]) -> Text:
    """A record for people; a trace stands below it, indented."""
    level = facts["level"]
    where = facts.get("role", "")
    if "partition" in facts:
        where += f"[{facts['partition']}]"
    line = Text.assemble(
        (facts["time"], "dim"),
        " ",
        (f"{level:<7}", _STYLES.get(level, "")),
        f" {where}" if where else "",
        f" {safe(facts['logger'])}: {safe(facts['message'])}",
    )
    for row in facts.get("exception", "").splitlines():
        line.append(f"\n    {safe(row)}")
    return line
