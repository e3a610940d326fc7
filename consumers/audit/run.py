"""Runs an audit: reads the store and the topics in the order that lets a pipeline at work be judged.

Comes in: settings, a store, and how to read a topic. Goes out: an `AuditReport`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from consumers.audit.assignment import AssignmentCheck
from consumers.audit.chains import Chains
from consumers.audit.changes import ChangesCheck
from consumers.audit.crossings import PopulationsCheck
from consumers.audit.letters import LettersCheck
from consumers.audit.levels import LevelsCheck
from consumers.audit.log import FoldedLog
from consumers.audit.reading import Reading
from consumers.audit.remembered import RememberedCheck
from consumers.audit.report import AuditReport, Progress
from consumers.audit.sample import Sample
from consumers.audit.snapshot import Snapshots
from consumers.audit.state import StateCheck
from consumers.client import read_to_end
from consumers.records import Read
from stream.config import Settings
from stream.events import Counts
from stream.store.promises import ReaderStore


def audit(
    settings: Settings,
    store: ReaderStore,
    read: Read = read_to_end,
    *,
    sample: float = 1.0,
    progress: Callable[[Progress], None] | None = None,
) -> AuditReport:
    """Hold the store and the output topic to the input topics.

    A running pipeline may be audited: what is newer than what was read of it is counted apart.

    Args:
        settings: what to audit.
        store: its state.
        read: reads a topic to its end; tests give lists.
        sample: judge this share of the users, always the same ones, and count the others apart.
            What needs no look into a message stays exact: how many there are, and which change
            ids have more than one payload.
        progress: is told how far it is, and at first how much there is to read.

    Raises:
        StoreUnavailableError: the store does not answer.
        BrokerUnavailableError: the broker does not answer.
        TopicMissingError: an input topic or the topic of changes is not there.
    """
    topics, table, key = settings.topics, settings.table(), store.namespace_key()
    judged = Sample(sample, settings.worker)
    reading = Reading(settings, read, progress)
    reading.measure()
    snapshots = Snapshots(store, topics.partitions, judged)
    for partition in range(topics.partitions):
        reading.tell("partitions of the store", partition, topics.partitions)
        snapshots.take(partition)
    populations = PopulationsCheck(settings, table, snapshots)
    populations.read(store)
    levels = LevelsCheck(settings, snapshots)
    levels.read(store)

    # Asked for behind the snapshots: whatever they count was counted in it.
    log = FoldedLog(settings, key, snapshots, judged, store.currency())
    for index, topic in enumerate(topics.inputs):
        log.fold(index, topic, reading.records(topic))
    letters = LettersCheck(log, judged)
    for topic in topics.inputs:
        dlq = topics.dlq(topic)
        letters.compare(topic, dlq, reading.records_if_there(dlq))
    chains = Chains()
    changes = ChangesCheck(key, snapshots, judged, chains, populations, levels)
    changes.read(topics.changes, reading.records(topics.changes))
    snapshots.note_movement()

    state = StateCheck(settings, snapshots, log, judged)
    remembered = RememberedCheck(state.check, topics.inputs, key, log, judged)
    for partition, snapshot in snapshots.items():
        reading.tell("partitions compared", partition, topics.partitions)
        if log.proves(partition, snapshot):
            log.check_counts(partition, snapshot)
            state.compare(partition, snapshot)
            remembered.compare(partition, snapshot)
            levels.compare(partition, snapshot, log, chains)
    state.check_unserved(delivered=bool(changes.delivered))
    chains.compare()
    assignment = AssignmentCheck(table, snapshots, log, chains)
    assignment.compare()
    populations.compare()

    _note(snapshots, changes, log, assignment, judged)
    checks = [
        log.complete, state.check, log.conservation, letters.check, changes.valid,
        changes.payload, changes.once, chains.versions, chains.links, assignment.check,
        populations.check, levels.check,
    ]  # fmt: skip
    counts = Counts()
    for snapshot in snapshots.values():
        counts.add(snapshot.position.counts)
    return AuditReport(
        ok=all(check.ok for check in checks),
        checks=checks,
        lost=assignment.lost,
        duplicated=changes.contradicted.total(),
        repeated=changes.repeated,
        unjudged=sum(check.unjudged for check in checks),
        rejected=counts.rejected,
        users=sum(snapshot.users for snapshot in snapshots.values()),
        changes=len(changes.delivered),
        pending=changes.pending,
        counts={"consumed": counts.consumed, **asdict(counts)},
        backlog={topic: log.backlog[topic] for topic in topics.inputs},
    )


def _note(
    snapshots: Snapshots,
    changes: ChangesCheck,
    log: FoldedLog,
    assignment: AssignmentCheck,
    sample: Sample,
) -> None:
    """Tell what else a reader of the report should know."""
    if snapshots.moved_on:
        assignment.check.note = (
            f"{len(snapshots.moved_on)} partitions were written to during the audit; changes "
            "newer than what was read of the store are not judged"
        )
    if changes.repeated:
        changes.once.note = (
            f"{changes.repeated} were delivered again, with the same id and bytes: allowed, for "
            "whoever drops known ids sees each change once"
        )
    if not sample.whole:
        log.conservation.note = "of a sample of users: what became of all others is not known"
