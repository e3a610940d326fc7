"""The worker as a whole: settings, topics and namespace that do not fit."""

from __future__ import annotations

import pytest

from stream.config import ConfigError
from stream.events import Reason
from tests.consumers.scene import (
    INPUTS,
    PARTITIONS,
    Scene,
    assert_true,
)
from tests.strategies import START_MS, encoded


def test_a_partition_too_many_is_a_wrong_setting(live: Scene) -> None:
    live.consumer.then(live.consumer.give(("clickstream", 2), ("purchases", 2)))
    with pytest.raises(ConfigError, match=r"topics.partitions = 2, but the broker has a partition"):
        live.run()


@pytest.mark.parametrize(
    ("clickstream", "purchases", "said"),
    [
        (1, 1, "1 of clickstream and 1 of purchases; set it to 1"),
        (6, 6, "6 of clickstream and 6 of purchases; set it to 6"),
        (2, 3, "2 of clickstream and 3 of purchases; make a new topic"),
    ],
)
def test_another_number_of_partitions_is_a_wrong_setting(
    live: Scene, clickstream: int, purchases: int, said: str
) -> None:
    live.consumer.partitions = {"clickstream": clickstream, "purchases": purchases}
    with pytest.raises(ConfigError) as caught:
        live.run()
    assert str(caught.value).startswith("topics.partitions = 2: expected as many as the broker has")
    assert said in str(caught.value)
    assert not live.store.commits


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("accept_loss", [False, True])
def test_another_number_of_partitions_than_the_namespace_has_is_refused_at_every_step(
    monkeypatch: pytest.MonkeyPatch, live: Scene, count: int, accept_loss: bool
) -> None:
    live.run()
    before = [live.position(number) for number in range(PARTITIONS)]
    for declared in (PARTITIONS, count):
        scene = Scene(
            monkeypatch,
            store=live.store,
            log=live.consumer.log,
            store_section={"accept_loss": accept_loss},
            topics={"partitions": declared},
        )
        scene.consumer.partitions = dict.fromkeys(INPUTS, count)
        with pytest.raises(ConfigError) as caught:
            scene.run()
        said = str(caught.value)
        assert f"was begun with {PARTITIONS}" in said
        assert "segstream rekey --from clickstream" in said
        assert "accept_loss" not in said
        assert f"set it to {count}" not in said
    assert [live.position(number) for number in range(PARTITIONS)] == before


@pytest.mark.parametrize("named", ["EUR", "USD"])
def test_a_shop_that_declares_no_currency_has_the_one_that_is_named_first(
    named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(monkeypatch)
    for place, (number, currency) in enumerate([(0, "EUR"), (1, "USD"), (0, "USD"), (1, "eur")]):
        raw = encoded(
            userId=f"u{place}",
            messageId=f"m{place}",
            properties={"order_id": f"o{place}", "revenue": 10, "currency": currency},
        )
        scene.consumer.append("purchases", number, raw, START_MS)
    # Which partition is read first is nobody's choice: the log is asked.
    scene.output.named_first = named
    scene.run()
    assert scene.store.currency() == named
    refused = [(one.reason, one.message.value().upper()) for one in scene.letters.filed]
    assert [reason for reason, _ in refused] == [Reason.UNKNOWN_CURRENCY] * 2
    assert not any(named.encode() in value for _, value in refused)
    assert_true(scene)


def test_a_declared_currency_is_that_of_the_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Scene(monkeypatch, money={"currency": "EUR"}).run()
    assert first.store.currency() == "EUR"
    second = Scene(monkeypatch, store=first.store, money={"currency": "USD"})
    with pytest.raises(ConfigError, match=r"amounts of namespace segstream are in EUR"):
        second.run()
