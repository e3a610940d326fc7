"""Runs roles as processes of their own, beside whoever started them.

Comes in: a settings file, a directory and roles. Goes out: processes, and an error if one ends by itself.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from stream.roles.registry import Role
from stream.told import ToldError

TO_A_FILE = ("--set", "log.format=text")
"""What a role says is shown to a person if it fails."""


class ProcessEndedError(ToldError):
    """A role has ended by itself; the message says which, with the end of what it said."""


class Processes:
    """Roles as processes of their own, that outlive a Ctrl-C only until they are ended.

    Args:
        file: their settings.
        directory: where what they say is kept.
    """

    def __init__(self, file: Path, directory: Path, roles: Sequence[Role]) -> None:
        self._running: list[tuple[str, subprocess.Popen[bytes], Path]] = []
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SEGSTREAM_")}
        started = [role.name for role in roles for _ in range(role.replicas)]
        for number, role in enumerate(started):
            log = directory / f"{role}-{number}.log"
            with log.open("wb") as sink:
                process = subprocess.Popen(  # noqa: S603 - our own command
                    [sys.executable, "-m", "stream", "-c", str(file), *TO_A_FILE, "run", role],
                    stdout=sink,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env=environment,
                )
            self._running.append((role, process, log))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def check(self) -> None:
        """See that all are running.

        Raises:
            ProcessEndedError: one has ended; says which, with the end of its log.
        """
        for role, process, log in self._running:
            code = process.poll()
            if code is not None:
                said = log.read_text(errors="replace")[-2_000:]
                raise ProcessEndedError(f"the {role} process ended with {code}:\n{said}")

    def end(self) -> None:
        """Ask all to end, then insist."""
        for _, process, _ in self._running:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for _, process, _ in self._running:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()
