"""What was converted by other rates than there are now is found again from the log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest

from consumers.audit.report import AuditReport
from consumers.audit.run import audit
from stream.config import Settings
from stream.store.state import Position
from tests.consumers.audit.world import failed
from tests.consumers.scene import TABLE, Scene
from tests.strategies import ORDER, REFUND, START_MS, encoded


def converting(scene: Scene, rate: float) -> Scene:
    """The same, begun again with another rate."""
    money = {"currency": "EUR", "rates": {"USD": rate}}
    whole = scene.settings.model_dump(mode="json") | {"money": money}
    scene.settings = Settings.model_validate(whole)
    return scene


def say(scene: Scene, day: int, event: str, user: str, order: str, face: float) -> None:
    time_ms = START_MS + day * 86_400_000
    said = {"order_id": order, "revenue": face, "currency": "USD"}
    raw = encoded(
        time_ms=time_ms,
        event=event,
        userId=user,
        messageId=f"{event} {order} {day}",
        properties=said,
    )
    scene.consumer.append("purchases", 0, raw, time_ms)


def judged(scene: Scene) -> AuditReport:
    def read(_: Any, topic: str) -> Iterator[Any]:
        for (name, _number), messages in scene.consumer.log.items():
            if name == topic:
                yield from messages

    return audit(scene.settings, scene.store, read)


def revenue(scene: Scene, user: str) -> float:
    row = np.frombuffer(scene.rows(0)[user.encode()], TABLE.dtype)
    vector = TABLE.vectors(row, START_MS)[0]
    return float(vector[TABLE.names.index("revenue_total")])


def changed_rates(monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Two orders at 0.9; then the rate is 1.1: one of them comes back, and there is another."""
    scene = converting(Scene(monkeypatch, train=False), 0.9)
    say(scene, 1, ORDER, "ann", "a", 100.0)
    say(scene, 1, ORDER, "bob", "b", 50.0)
    scene.run()
    say(scene, 9, REFUND, "ann", "a", 100.0)
    say(scene, 9, ORDER, "bob", "c", 10.0)
    return converting(scene, 1.1).run()


def test_the_audit_converts_each_message_as_its_worker_did(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = changed_rates(monkeypatch)
    assert [one.rates["USD"] for one in scene.position(0).priced] == [0.9, 1.1]
    assert revenue(scene, "ann") == pytest.approx(0.0, abs=1e-9)
    assert revenue(scene, "bob") == pytest.approx(50 * 0.9 + 10 * 1.1)
    assert failed(judged(scene)) == {}
    # Whoever has changed the settings meanwhile finds the same.
    assert failed(judged(converting(scene, 3.0))) == {}


def test_rates_that_nobody_remembers_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = changed_rates(monkeypatch)
    state = scene.store._partitions[0]
    position = msgspec.json.decode(state.position, type=Position)
    state.position = msgspec.json.encode(
        msgspec.structs.replace(position, priced=position.priced[1:])
    )
    ((check, told),) = failed(judged(scene)).items()
    assert check == "log_is_complete"
    assert "money.rates changed more often than is remembered" in told[0]
