"""Writes messages into the partitions of their users: dead letters, or a whole topic.

Comes in: settings and what to write. Goes out: facts; `stream.cli.rekey` shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from consumers.client import read_to_end
from consumers.placement import Users
from producers import rekey
from producers.dead_letters import Letter
from stream.config import Settings
from stream.events import Reason
from stream.wiring.letters import SentFacts, chosen_facts, send_chosen, sent_facts

INPUTS = ("clickstream", "purchases")


def letters(
    settings: Settings,
    since_ms: int,
    limit: int | None,
    *,
    dry_run: bool,
    told: Callable[[int], None],
) -> SentFacts:
    """Send what was refused as misplaced to where it belongs, each message once."""
    readers = Users(settings)

    def users_of(found: Sequence[Letter]) -> list[str | None]:
        return readers.of([letter.value for letter in found])

    report = send_chosen(
        settings,
        Reason.MISPLACED,
        since_ms,
        limit,
        dry_run=dry_run,
        told=told,
        users_of=users_of,
    )
    return chosen_facts(report, dry_run=dry_run)


def topic(
    settings: Settings,
    source: str,
    target: str,
    *,
    dry_run: bool,
    told: Callable[[int], None],
) -> SentFacts:
    """Copy a topic to an input topic, up to where it ends now."""
    name = settings.topics.inputs[INPUTS.index(target)]
    records = read_to_end(settings.broker, source)
    report = rekey.rekey(settings, records, name, Users(settings), dry_run=dry_run, told=told)
    facts = sent_facts(report.sent, {name: report.sent}, dry_run=dry_run)
    facts["other_partition"] = report.moved
    facts["keyless"] = report.keyless
    facts["marks"] = report.marks
    return facts
