"""The role of webhooks: deliveries of `consumers.webhooks`, made by the sender of `producers.webhooks`.

Comes in: settings. Goes out: the role as it is declared, and as it runs, with one sender for all
partitions of a process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from consumers.role import OwningRole
from consumers.webhooks import Webhooks
from stream.campaigns.triggers import trigger_source
from stream.config import ConfigError, Settings
from stream.webhooks.declare import secrets_of
from stream.webhooks.letters import ROLE, letters_outlet, topic_of


def _see_nothing_sent(*_: object) -> None:
    raise AssertionError("the role of webhooks runs with a sender, see `opened`")


WEBHOOKS = OwningRole(
    ROLE,
    "Webhooks: sends the triggers of campaigns to endpoints, and tries again.",
    reads=lambda settings: [
        settings.topics.triggers,
        topic_of(settings),
        settings.topics.control,
        settings.topics.changes,
    ],
    decision=lambda settings, number, key: Webhooks(settings, number, _see_nothing_sent, key),
    outlet=letters_outlet,
    # Answers are taken in, and what is due is begun, with a step.
    tick_seconds=0.02,
    wall_clock=True,
)


@contextmanager
def opened(settings: Settings) -> Iterator[OwningRole]:
    """The role with a sender, which is closed behind it.

    Raises:
        ConfigError: a secret is not where the declaration says, or the extra is not installed.
    """
    try:
        from producers.webhooks import Sender  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"run webhooks needs {error.name}: pip install 'segstream[webhooks]'"
        ) from None
    try:
        secrets = {one.name: secrets_of(one) for one in settings.endpoints}
    except ValueError as error:
        raise ConfigError(f"endpoints: {error}") from None
    with Sender(settings.endpoints, secrets, trigger_source(settings)) as sender:
        yield replace(
            WEBHOOKS,
            decision=lambda settings, number, key: Webhooks(settings, number, sender.send, key),
        )
