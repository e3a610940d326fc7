"""What is declared of a role, once: command, demo, containers and scrapes follow from it.

`stream.cli.roles` has the declarations, for it knows how each is wired; tests hold the compose file
and the scrape configuration to them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Event

from stream.config import Settings
from stream.health import Health


@dataclass(frozen=True)
class Role:
    """A part of the pipeline that runs as a process of its own.

    Attributes:
        name: of the command, the process, the container and the label in metrics.
        meaning: a line for the command's help.
        run: works until the event is set.
        demo_processes: so many of it the demo starts.
        errors: that end it, and are told in a sentence: a person is needed.
    """

    name: str
    meaning: str
    run: Callable[[Settings, Event, Health], None]
    demo_processes: int = 1
    errors: tuple[type[Exception], ...] = ()
