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
from pathlib import Path
from typing import Any, NoReturn

from ops.bench.report import append

NOT_DONE, INTERRUPTED = 1, 130


def run(
    name: str,
    measure: Callable[[], tuple[dict[str, Any], str]],
    *,
    as_json: bool,
    results: Path | None,
    header: str,
    expected: tuple[type[Exception], ...],
) -> int:
    """Measure; 0 done, 1 it could not be done.

    Args:
        measure: gives the numbers, and the section that tells them.
        results: the page to append the section to, which begins with `header`; None for none.
        expected: errors that are told in a line.
    """
    told: tuple[type[Exception], ...] = (OSError, *expected)
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        report, text = measure()
        if results is not None:
            append(results, text, header)
    except told as error:
        return failed(name, str(error))
    except KeyboardInterrupt:
        return failed(name, "interrupted", INTERRUPTED)
    finally:
        signal.signal(signal.SIGTERM, before)
    print(text, file=sys.stderr if as_json else sys.stdout)
    if as_json:
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
