"""Decides how a benchmark is run from a command line: what it says, where, and how it ends.

Comes in: what is to be measured. Goes out: a section of a results page, printed and appended; the
same as one JSON object, as the last line on stdout; an exit code.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from ops.bench.report import append

NOT_DONE, INTERRUPTED = 1, 130


def options(
    description: str,
    results: Path,
    *,
    prog: str | None = None,
    epilog: str | None = None,
    append: bool = True,
) -> argparse.ArgumentParser:
    """What every benchmark may be asked for; it adds its own.

    Args:
        description: a page of which the first line is shown.
        results: the page that `run` appends to.
        prog, epilog: as argparse has them.
        append: whether it does so unless told otherwise.
    """
    first, *_ = description.split("\n")
    parser = argparse.ArgumentParser(prog=prog, description=first, epilog=epilog)
    parser.add_argument(
        "--json", action="store_true", help="one JSON object as the last line on stdout"
    )
    parser.add_argument(
        "--append",
        action=argparse.BooleanOptionalAction,
        default=append,
        help=f"append a section to {results.parent.name}/{results.name}",
    )
    return parser


def run(
    name: str,
    measure: Callable[[], dict[str, Any]],
    section: Callable[[dict[str, Any], datetime], str],
    *,
    wanted: argparse.Namespace,
    results: Path,
    header: str,
    expected: tuple[type[Exception], ...] = (),
) -> int:
    """Measure; 0 done, 1 it could not be done.

    Args:
        measure: gives the numbers.
        section: tells them, with the time at which they were there.
        wanted: what was asked for, by `options`.
        results: the page to append the section to, which begins with `header`.
        expected: errors that are told in a line.
    """
    told: tuple[type[Exception], ...] = (OSError, *expected)
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        report = measure()
        text = section(report, datetime.now(UTC))
        if wanted.append:
            append(results, text, header)
    except told as error:
        return failed(name, str(error))
    except KeyboardInterrupt:
        return failed(name, "interrupted", INTERRUPTED)
    finally:
        signal.signal(signal.SIGTERM, before)
    print(text, file=sys.stderr if wanted.json else sys.stdout)
    if wanted.json:
        print(json.dumps(report))
    return 0


def failed(name: str, why: str, code: int = NOT_DONE) -> int:
    """Say why in a line; returns the exit code."""
    say(f"{name}: {why}")
    return code


def say(text: str) -> None:
    """Tell whoever waits how far it is."""
    print(text, file=sys.stderr, flush=True)


def at_least(least: int) -> Callable[[str], int]:
    """Reads a whole number, perhaps with underscores or commas, not below a limit."""

    def read(text: str) -> int:
        try:
            number = int(text.replace(",", ""))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
        if number < least:
            raise argparse.ArgumentTypeError(f"must be at least {least:,}")
        return number

    return read


def _interrupt(number: int, frame: object) -> NoReturn:
    del number, frame
    raise KeyboardInterrupt
