"""Writes messages into the partitions of their users: dead letters, or a whole topic.

Comes in: settings and what to write. Goes out: facts; `stream.cli.rekey` shows them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from consumers import letters as dead
from consumers.client import read_to_end
from consumers.placement import Users
from producers import rekey
from producers.dead_letters import Letter, send_again
from stream.config import ConfigError, Settings
from stream.events import Reason
from stream.wiring.letters import sent_facts

INPUTS = ("clickstream", "purchases")


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


def letters(
    settings: Settings,
    since_ms: int,
    limit: int | None,
    *,
    dry_run: bool,
    told: Callable[[int], None],
) -> dict[str, Any]:
    """Send what was refused as misplaced to where it belongs, each message once."""
    readers = Users(settings)

    def user_of(letter: Letter) -> str | None:
        return readers.of([letter.value])[0]

    reason = Reason.MISPLACED
    wanted, replayed = dead.choose(settings, reason, since_ms)
    report = send_again(
        settings,
        (one for one in dead.letters(settings, reason=reason) if one.id in wanted),
        replayed,
        limit=limit,
        dry_run=dry_run,
        user_of=user_of,
        told=told,
    )
    return sent_facts(report.sent, dry_run=dry_run) | {
        "topics": dict(report.topics),
        "sent_before": report.before,
        "incomplete": report.incomplete,
        "beyond_limit": report.beyond,
    }


def topic(
    settings: Settings,
    source: str,
    target: str,
    *,
    dry_run: bool,
    told: Callable[[int], None],
) -> dict[str, Any]:
    """Copy a topic to an input topic, up to where it ends now."""
    name = settings.topics.inputs[INPUTS.index(target)]
    records = read_to_end(settings.broker, source)
    report = rekey.rekey(settings, records, name, Users(settings), dry_run=dry_run, told=told)
    return sent_facts(report.sent, dry_run=dry_run) | {
        "topics": {name: report.sent},
        "other_partition": report.moved,
        "keyless": report.keyless,
        "marks": report.marks,
    }
