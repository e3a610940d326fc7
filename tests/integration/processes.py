"""Runs the command from outside, and looks for processes that it should not have left."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness import ROOT, clean_environment


@dataclass(frozen=True)
class Said:
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def facts(self) -> dict[str, Any]:
        """The JSON object on the last line of stdout."""
        facts: dict[str, Any] = json.loads(self.out.splitlines()[-1])
        return facts


def segstream(*arguments: str, seconds: float = 120.0, **environment: str) -> Said:
    """Run a command to its end; fails if there is a stack trace, whatever it was given."""
    done = subprocess.run(
        [sys.executable, "-m", "stream", *arguments],
        cwd=ROOT,
        env=clean_environment() | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    return Said(done.returncode, done.stdout, done.stderr)


def left_behind(marker: Path | str) -> list[str]:
    """Command lines of living processes that name a path, this one aside."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(marker) in line:
            found.append(line)
    return found
