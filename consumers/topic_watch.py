"""Watches that a worker's topics and group are still those that its state is of.

Comes in: what the broker says of topics and group now and then, and the positions of the partitions that
are served. Goes out: nothing, or `TopicReplacedError` or `ConfigError`; and one warning, with what to
do, for as long as a topic is missing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Protocol

from consumers.group_namespace import see_group
from stream.config import Settings
from stream.errors import BrokerUnavailableError, TopicMissingError
from stream.store.state import Position
from stream.told import ToldError

log = logging.getLogger(__name__)

COMPARE_SECONDS = 10.0
"""Between two looks at whether an input topic is still the same; a deleted one shows at once."""


class TopicReplacedError(ToldError):
    """An input topic was deleted and made anew: its offsets are not those of the state."""


class Broker(Protocol):
    """What is asked of the broker; `consumers.output.Output` answers."""

    def topic_ids(self, names: Sequence[str]) -> list[str]: ...
    def group_members(self) -> list[str]: ...


def see_same_topics(
    namespace: str, names: Sequence[str], known: Sequence[str], ids: Sequence[str]
) -> None:
    """See that the topics that are read are those that the offsets are of.

    Args:
        names: of the topics.
        known: which ids they had; none of a state that has not begun to read.
        ids: those that they have now; empty where the broker tells none.

    Raises:
        TopicReplacedError: one was deleted and made anew.
    """
    for name, before, now in zip(names, known, ids, strict=False):
        if before and now and before != now:
            raise TopicReplacedError(
                f"topic {name} was deleted and made anew: the state of namespace "
                f"{namespace} stands for offsets of the topic before. "
                "Begin anew under another store.namespace, and replay what the new topic lacks"
            )


class TopicWatch:
    """Looks now and then; one a worker."""

    def __init__(self, settings: Settings, broker: Broker) -> None:
        self._settings = settings
        self._broker = broker
        self._looked = 0.0
        self._missing = False
        self._regrouped = False

    def regrouped(self) -> None:
        """The group has given out partitions anew: it may have a new member."""
        self._regrouped = True

    def look(self, now: float, positions: Iterable[Position]) -> None:
        """Compare, if it is time.

        Args:
            now: by the monotonic clock.
            positions: of the partitions that are served.

        Raises:
            TopicReplacedError: an input topic was made anew.
            ConfigError: somebody of another namespace has joined the group.
        """
        if now - self._looked < COMPARE_SECONDS:
            return
        self._looked = now
        try:
            ids = self._broker.topic_ids(self._settings.topics.inputs)
        except TopicMissingError as error:
            if not self._missing:
                log.warning(
                    "%s. Nothing is read until then; and as a new topic it needs a new "
                    "store.namespace, too, if this one has read the topic before",
                    error,
                )
            self._missing = True
            return
        except BrokerUnavailableError as error:
            log.info("topics not compared: %s", error)
            return
        self._missing = False
        for position in positions:
            see_same_topics(
                self._settings.store.namespace, self._settings.topics.inputs, position.topics, ids
            )
        if self._regrouped:
            self._regrouped = False
            see_group(self._settings, self._broker.group_members())
