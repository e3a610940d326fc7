"""Starts a broker and a store of one's own, for as long as something is shown.

Comes in: whoever shows that it takes a while. Goes out: where both are, and a directory for settings and logs; all of
it is gone afterwards.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from stream.servers import LocalBroker, LocalStore


class Waiting(Protocol):
    """Shows that something takes a while."""

    def doing(self, what: str) -> AbstractContextManager[object]:
        """Until it is left."""
        ...


class OwnServers(NamedTuple):
    """Where servers of one's own are."""

    bootstrap: str
    store_url: str
    directory: Path


@contextmanager
def own_servers(screen: Waiting) -> Iterator[OwnServers]:
    """A broker and a store, on free ports of this machine.

    Raises:
        ServerStartError: one of them cannot be started here.
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="segstream-")))
        with screen.doing("starting a broker and a store"):
            broker = stack.enter_context(LocalBroker())
            store = stack.enter_context(LocalStore())
        yield OwnServers(broker.bootstrap, store.url, directory)
