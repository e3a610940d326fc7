"""Scenes that several tests begin with."""

from __future__ import annotations

import pytest

from tests.consumers.scene import (
    Scene,
    events,
    write,
    write_marked,
)
from tests.fakes import UnreliableStore


@pytest.fixture(params=[False, True], ids=["at once", "deferred"])
def store(request: pytest.FixtureRequest) -> UnreliableStore:
    """A store that answers at once, and one that answers later."""
    return UnreliableStore(deferred=request.param)


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Live mode, with a fortnight of events in the log and a store that answers later."""
    scene = Scene(monkeypatch, store=UnreliableStore(deferred=True))
    scene.consumer.portion = 5
    write(scene, events(1))
    return scene


@pytest.fixture(scope="module")
def replayed() -> Scene:
    """A fortnight and a silent one, replayed at once by a worker and a trainer that nothing happens to."""
    with pytest.MonkeyPatch.context() as patch:
        scene = Scene(patch, mode="watermark")
        # Time takes nobody back within `publish.return_seconds`, and this is a month: in this one there
        # are enough whom it takes elsewhere.
        write_marked(scene, events(3))
        return scene.run()
