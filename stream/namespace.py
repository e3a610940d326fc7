"""Sees that settings fit the namespace they name, before anybody reads or writes in it.

Comes in: settings and a store. Goes out: nothing, or a `ConfigError` that names a remedy. With another
number of partitions every user has another place, and with another secret every change another id: who
goes on finds nothing, or takes what is right for wrong.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from stream.config import ConfigError, Money, Settings
from stream.hashing import key_print
from stream.store.promises import ReaderStore

ASK_SECONDS = 5.0
"""Between two looks at whether the namespace has a currency."""
LOOKED_AT = 64
"""Partitions in which a state is looked for; where these have none, there hardly is one."""


def see_partitions(settings: Settings, begun_with: int) -> None:
    """Whether the settings have the number of partitions that the namespace was begun with.

    Args:
        begun_with: that number; 0 of a namespace that is new.

    Raises:
        ConfigError: they have not.
    """
    declared = settings.topics.partitions
    if begun_with not in {0, declared}:
        raise ConfigError(
            f"topics.partitions = {declared}, but namespace {settings.store.namespace} was begun with "
            f"{begun_with}; set it to {begun_with}. {more(settings, declared)}"
        )


def see_currency(settings: Settings, found: str) -> None:
    """Whether the settings have the currency that amounts of the namespace are in.

    Args:
        found: that currency; empty where none was named yet.

    Raises:
        ConfigError: they declare another.
    """
    declared = settings.money.currency
    if declared and found not in {"", declared}:
        raise ConfigError(
            f"money.currency = {declared}, but amounts of namespace {settings.store.namespace} are in "
            f"{found}, and currencies are not added up: set it to {found}, or use another "
            "store.namespace and another broker.group and replay the log"
        )


def in_currency(settings: Settings, found: str) -> Settings:
    """Settings that declare the currency of the namespace, where they declare none."""
    if settings.money.currency or not found:
        return settings
    return settings.model_copy(update={"money": Money(currency=found)})


class CurrencyNews:
    """Tells a role that the namespace has got a currency, so that it begins again with it.

    Args:
        settings: that it runs with.
        asked: for the currency of the namespace; empty where it has none.
        clock: seconds that only rise.
    """

    def __init__(
        self,
        settings: Settings,
        asked: Callable[[], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._unknown = not settings.money.currency
        self._asked = asked
        self._clock = clock
        self._ask_at = clock() + ASK_SECONDS

    def came(self) -> bool:
        """Whether it has got one since; the store is asked now and then."""
        if not self._unknown or self._clock() < self._ask_at:
            return False
        self._ask_at = self._clock() + ASK_SECONDS
        return bool(self._asked())


def see_counts(settings: Settings, found: Mapping[str, int], begun_with: int) -> None:
    """Whether the input topics have as many partitions as the settings say.

    With fewer, the trainer would wait for statistics of partitions that nobody owns.

    Args:
        settings: with the number.
        found: partitions of those topics that are there.
        begun_with: number that the namespace was begun with; 0 of one that is new.

    Raises:
        ConfigError: they have not.
    """
    declared = settings.topics.partitions
    counts = {topic: count for topic, count in found.items() if count}
    if all(count == declared for count in counts.values()):
        return
    told = " and ".join(f"{count} of {name}" for name, count in counts.items())
    fewest = min(counts.values())
    remedy = f"set it to {fewest}"
    if len(set(counts.values())) > 1:
        remedy = "make a new topic instead of one of them: users must lie alike in both"
    elif begun_with:
        remedy = (
            f"namespace {settings.store.namespace} was begun with {begun_with}, and with another "
            f"number its users would live twice, so do not change the setting. {more(settings, fewest)}"
        )
    raise ConfigError(
        f"topics.partitions = {declared}: expected as many as the broker has, which are {told}; {remedy}"
    )


def see_number(settings: Settings, number: int) -> None:
    """Whether a partition that was assigned is one of those that the settings say.

    Raises:
        ConfigError: it is a partition too many.
    """
    declared = settings.topics.partitions
    if number >= declared:
        raise ConfigError(
            f"topics.partitions = {declared}, but the broker has a partition {number}: a topic got "
            "more partitions, and among more, users lie elsewhere. Do not change the setting. "
            f"{more(settings, number + 1)}"
        )


def more(settings: Settings, wanted: int) -> str:
    """How to come to another number of partitions without losing anything."""
    clicks, orders = settings.topics.inputs
    return (
        f"To have {wanted} partitions, make new topics: in a copy of the settings, give "
        "topics.clickstream, topics.purchases, topics.changes, store.namespace and broker.group new "
        f"names and set topics.partitions = {wanted}; then `segstream topics apply`, "
        f"`segstream rekey --from {clicks} --to clickstream` and "
        f"`segstream rekey --from {orders} --to purchases` with the new settings (or replay the "
        "history), and let producers write to the new topics"
    )


def see_namespace(settings: Settings, store: ReaderStore) -> None:
    """Whether settings have the namespace's number of partitions, and its secret.

    Raises:
        ConfigError: they have not.
        StoreUnavailableError: the store does not say.
    """
    see_partitions(settings, store.partitions())
    told = None
    for number in range(min(settings.topics.partitions, LOOKED_AT)):
        position = store.position(number)
        if position is not None and position.secret:
            told = position.secret
            break
    if told is not None and told != key_print(store.namespace_key()):
        raise ConfigError(
            f"store.namespace_key is not the secret of namespace {settings.store.namespace}: its "
            "changes and marks were made with another one. Give the one that its workers have (empty, "
            "if theirs is)"
        )
