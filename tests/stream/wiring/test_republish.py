"""What the output lacks is cleared only if the topic is the one that lacked it, from first to last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from producers import topics as topic_plans
from stream.cli import main
from stream.config import Settings
from stream.insight import queries
from stream.store.memory import MemoryStore
from stream.wiring import republish, roles

LACKS = "it was cut short"


@pytest.mark.parametrize(
    ("known", "ids", "cleared"),
    [
        ("a", ["a", "a"], True),
        ("", ["", ""], True),
        ("", ["a", "a"], True),
        ("a", ["b", "b"], False),
        ("a", ["a", "b"], False),
        ("a", ["b", "a"], False),
    ],
)
def test_the_topics_id_is_compared_before_and_after(
    monkeypatch: pytest.MonkeyPatch, known: str, ids: list[str], cleared: bool
) -> None:
    store = MemoryStore()
    store.note_output(known, LACKS)

    @contextmanager
    def opened(_: Settings) -> Iterator[MemoryStore]:
        yield store

    answers = iter(ids)

    def output(_: Settings) -> Any:
        return SimpleNamespace(topic_ids=lambda _: [next(answers)])

    model = SimpleNamespace(model=SimpleNamespace(by_id={}))
    monkeypatch.setattr(roles, "open_store", opened)
    monkeypatch.setattr(queries, "trainer_state", lambda _: model)
    monkeypatch.setattr(topic_plans, "see_partitions", lambda _: None)
    monkeypatch.setattr(republish, "republish", lambda *_: Counter(new=3))
    monkeypatch.setattr(republish, "Output", output)
    monkeypatch.setattr("sys.argv", ["segstream", "republish"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 0
    assert store.output() == (known, "" if cleared else LACKS)
