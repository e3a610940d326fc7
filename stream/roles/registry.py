"""What is declared of a role, once: command, demo, topics and rights follow from it.

`stream.wiring.roles` has the declarations, for it knows how each is wired; tests hold the compose file,
the scrape configuration and the guide to them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event

from stream.config import Settings
from stream.health import Health
from stream.roles.outlet import Outlet

Part = Callable[[Settings, Event, Health], None]
"""A loop of a role: works until the event is set."""


@dataclass(frozen=True)
class Role:
    """A part of the pipeline that runs as a process of its own.

    Attributes:
        name: of the command, the process, the container and the label in metrics.
        meaning: a line for the command's help.
        parts: each works until the event is set, in a thread of its own.
        topics: that it reads or writes; it does not start before they are there.
        outlets: topics that are filled from its outbox, as they should be.
        settings: sections that it reads, beside `broker`, `topics`, `store`, `metrics` and `log`.
        rights: commands of the store that it gives, see `stream.rights`.
        replicas: so many of it run side by side in the demo.
        errors: that end it, and are told in a sentence: a person is needed.
        wanted: whether settings have anything for it to do; the demo starts no other.
        by_name: whether it runs where it is asked for by its name, wanted or not.
    """

    name: str
    meaning: str
    parts: tuple[Part, ...]
    topics: Callable[[Settings], Sequence[str]]
    settings: tuple[str, ...]
    rights: tuple[str, ...]
    outlets: Callable[[Settings], Sequence[Outlet]] = lambda _: ()
    replicas: int = 1
    errors: tuple[type[Exception], ...] = ()
    wanted: Callable[[Settings], bool] = lambda _: True
    by_name: bool = False
