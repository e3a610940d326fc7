"""What an audit found, promise by promise, and how far it has come.

Comes in: what the checks count and whom they accuse. Goes out: an `AuditReport`, and lines that a person can
read; the command shows them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

OFFENDERS = 5
"""How many are named in a check; the others are only counted."""


@dataclass(frozen=True)
class Progress:
    """How far an audit has come.

    Attributes:
        what: is being read, in words; a topic by its name.
        done: things read so far.
        total: of how many; None if nobody knows.
        beforehand: whether nothing is being read yet, and this says how much there is.
    """

    what: str
    done: int
    total: int | None
    beforehand: bool = False


@dataclass
class Check:
    """One promise.

    Attributes:
        counted: how many things were looked at.
        unjudged: how many were not: newer than what was read of the store, or not in the sample.
        wrong: how many of them break the promise.
        offenders: the first of those, in words.
        note: what else a reader should know.
    """

    name: str
    ok: bool = True
    counted: int = 0
    unjudged: int = 0
    wrong: int = 0
    offenders: list[str] = field(default_factory=list)
    note: str = ""

    def accuse(self, offender: str) -> None:
        self.ok = False
        self.wrong += 1
        if len(self.offenders) < OFFENDERS:
            self.offenders.append(offender)


@dataclass
class AuditReport:
    """What an audit found.

    Attributes:
        ok: every promise is kept.
        lost: changes that happened and are neither delivered nor waiting in the outbox.
        duplicated: change records delivered again under a known id with other bytes.
        repeated: change records delivered again with the same id and bytes, which is allowed:
            whoever drops known ids sees each of them once.
        unjudged: things that no check could judge, all checks together.
        rejected: messages refused.
        users: in the store.
        changes: different change records on their topic.
        pending: change records waiting in the outbox.
        counts: what became of all judged messages, as stored.
        backlog: messages not yet judged, by topic.
    """

    ok: bool
    checks: list[Check]
    lost: int
    duplicated: int
    repeated: int
    unjudged: int
    rejected: int
    users: int
    changes: int
    pending: int
    counts: dict[str, int]
    backlog: dict[str, int]

    def with_checks(self, more: Sequence[Check]) -> AuditReport:
        """The same report, with further promises that were judged."""
        return replace(
            self,
            checks=[*self.checks, *more],
            ok=self.ok and all(check.ok for check in more),
            unjudged=self.unjudged + sum(check.unjudged for check in more),
        )


def explain(report: AuditReport) -> Iterator[str]:
    """The report in lines that a person can read, the worst in full."""
    for check in report.checks:
        mark = "ok  " if check.ok else "OFF "
        wrong = "" if check.ok else f", {check.wrong} wrong"
        apart = f", {check.unjudged} not judged" if check.unjudged else ""
        yield f"{mark}{check.name.replace('_', ' ')}: {check.counted} looked at{apart}{wrong}"
        for offender in check.offenders:
            yield f"      {offender}"
        if check.note:
            yield f"      {check.note}"


def user_name(partition: int, user: str) -> str:
    return f"user {user!r} (partition {partition})"


def segment_name(number: int | None) -> str:
    return f"segment {number}" if number else "no segment"
