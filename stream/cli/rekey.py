"""Reads the options of `segstream rekey`, and shows how many messages it wrote where.

Comes in: options, and facts of `stream.wiring.rekey`. Goes out: the same in lines for people.
"""

from __future__ import annotations

from rich.console import Console

from stream.cli.dlq import show_sent
from stream.config import ConfigError, Settings
from stream.wiring.letters import SentFacts
from stream.wiring.rekey import INPUTS


def see_options(
    settings: Settings, source: str | None, target: str | None, *, letters_only: bool
) -> None:
    """Whether the options fit each other.

    Raises:
        ConfigError: they do not.
    """
    if (source is None) != (target is None):
        raise ConfigError("--from and --to go together: which topic to copy, and to which input")
    if source is None:
        return
    if target not in INPUTS:
        raise ConfigError(f"--to {target}: expected one of {', '.join(INPUTS)}")
    if letters_only:
        raise ConfigError("--since and --limit are for dead letters; a topic is copied whole")
    if source in settings.topics.inputs:
        raise ConfigError(
            f"--from {source} is an input topic of these settings, whose messages would count twice; "
            "give topics.clickstream and topics.purchases new names in a copy of the settings"
        )


_OTHERS = {
    "sent_before": "letters were sent again before",
    "incomplete": "letters do not have the whole message",
    "beyond_limit": "letters are left, because of --limit",
    "other_partition": "come to another partition than they were in",
    "keyless": "are counted for nobody, and keep their key",
    "marks": "marks of the shop's clock are left out",
}


def show(out: Console, facts: SentFacts) -> None:
    show_sent(out, facts, "keyed by user", _OTHERS)
