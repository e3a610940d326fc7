"""Settings that do not fit their namespace are told before anything is read or written in it."""

from __future__ import annotations

import pytest

from stream.config import ConfigError, Settings
from stream.hashing import key_print
from stream.namespace import ASK_SECONDS, CurrencyNews, see_namespace, see_partitions
from stream.store.memory import MemoryStore
from stream.store.state import Position


def settings(partitions: int = 2) -> Settings:
    return Settings.model_validate({"topics": {"partitions": partitions}})


def begun(whose: str = "ours", partition: int = 1) -> MemoryStore:
    store = MemoryStore(namespace_key=whose)
    store.begin(2)
    print_of = key_print(store.namespace_key())
    store.create(partition, "owner", Position([0, 0], "schema", secret=print_of))
    return store


@pytest.mark.parametrize("begun_with", [0, 2])
def test_a_new_namespace_and_its_own_number_are_right(begun_with: int) -> None:
    see_partitions(settings(), begun_with)


@pytest.mark.parametrize("begun_with", [1, 3, 12])
def test_another_number_names_a_remedy_that_loses_nothing(begun_with: int) -> None:
    with pytest.raises(ConfigError) as caught:
        see_partitions(settings(), begun_with)
    said = str(caught.value)
    assert f"set it to {begun_with}." in said
    assert "segstream rekey --from clickstream --to clickstream" in said
    assert "segstream rekey --from purchases --to purchases" in said
    assert "accept_loss" not in said


def test_its_own_secret_is_right_and_a_namespace_without_state_has_none() -> None:
    see_namespace(settings(), begun())
    see_namespace(settings(), MemoryStore())


def test_another_secret_is_told() -> None:
    store = begun()
    store._key = MemoryStore(namespace_key="theirs").namespace_key()
    with pytest.raises(ConfigError, match="is not the secret of namespace segstream"):
        see_namespace(settings(), store)


def test_another_number_is_told_before_the_secret() -> None:
    with pytest.raises(ConfigError, match="begun with 2"):
        see_namespace(settings(4), begun("theirs"))


def test_a_role_is_told_that_the_namespace_has_got_a_currency() -> None:
    store, now, asked = MemoryStore(), [0.0], [0]

    def currency() -> str:
        asked[0] += 1
        return store.currency()

    news = CurrencyNews(settings(), currency, lambda: now[0])
    for now[0] in (0.0, 1.0, ASK_SECONDS, ASK_SECONDS + 1.0):
        assert not news.came()
    assert asked == [1], "not with every turn"
    store.agree_currency("EUR")
    now[0] = 3 * ASK_SECONDS
    assert news.came()
    declared = Settings.model_validate({"money": {"currency": "EUR"}})
    assert not CurrencyNews(declared, currency, lambda: now[0]).came()
