"""Proves or refutes what campaigns promise: one outcome a change, one payload a trigger, nothing to whoever is held out.

What anybody else has put on the topic of changes is no change: the role counts it under its reason, and here it is
counted anew.

Comes in: what the role keeps of each partition, and then the topics of changes and triggers. Goes out: `Check`s
for the audit. The log is decided about anew by `stream.campaigns.oracle`, which shares no code with the
role, where that can come to the same: from mark to mark, with declarations that have not changed, and nothing
said on `campaign-control`. Live, the role decides as of when it was awake, which no log tells.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from consumers.audit.report import Check
from consumers.client import read_to_end
from consumers.plain import parse_time
from consumers.records import Read, Record
from stream.campaigns.changes import REFUSED
from stream.campaigns.declare import Campaign
from stream.campaigns.keep import Own, rules_in_force
from stream.campaigns.oracle import Oracle, came_to, matches
from stream.campaigns.triggers import TRIGGERED, CampaignTrigger
from stream.config import Settings
from stream.errors import TopicMissingError
from stream.hashing import partition_of
from stream.headers import event_type
from stream.units import iso
from stream.unreadable import UNREADABLE

_read_trigger = msgspec.json.Decoder(CampaignTrigger).decode
_read_change = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(frozen=True)
class KeptPartition:
    """A partition of the role, as one commit left it.

    Attributes:
        read_to: offset behind the last change that was decided about.
        told_to: the same of what people said.
        clock_ms: of the decisions.
        waiting: entries of its outbox.
    """

    number: int
    read_to: int
    told_to: int
    clock_ms: int
    waiting: int
    own: Own


@dataclass
class _Log:
    """A partition of the change topic.

    Attributes:
        changes: with their offsets; those that are no newer than one before of their user left out.
        came: offset of each record, and what it came to.
    """

    changes: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    came: list[tuple[int, str]] = field(default_factory=list)

    def counts(self, read_to: int) -> Counter[str]:
        """How many records before an offset came to what."""
        return Counter(what for offset, what in self.came if offset < read_to)


def audit_campaigns(
    settings: Settings, key: bytes, kept: Sequence[KeptPartition], read: Read = read_to_end
) -> list[Check]:
    """Hold the role of campaigns to its topics.

    Args:
        key: the namespace's secret.
        kept: read before this is called: what is newer on the topics is not judged.

    Raises:
        BrokerUnavailableError: the broker does not answer.
    """
    return _Audit(settings, key, kept, read).checks()


class _Audit:
    def __init__(
        self, settings: Settings, key: bytes, kept: Sequence[KeptPartition], read: Read
    ) -> None:
        self._settings, self._kept, self._read = settings, kept, read
        self._key = key
        limits = settings.campaign_limits
        shares = dict.fromkeys([limits.global_holdout, *(s for p in kept for s in p.own.holdouts)])
        self._oracles = [
            Oracle((), limits.model_copy(update={"global_holdout": share}), key) for share in shares
        ]
        self._versions = {(one.name, one.version): one for one in settings.campaigns}
        for part in kept:
            for text in part.own.versions:
                one = Campaign.from_kept(text)
                self._versions.setdefault((one.name, one.version), one)

    def checks(self) -> list[Check]:
        triggers = self._triggers()
        logs = self._logs()
        changes = {number: log.changes for number, log in logs.items()}
        return [
            self._records_accounted_for(logs),
            self._outcomes(),
            self._payloads(triggers),
            self._followed(triggers, changes),
            self._decided_anew(triggers, changes),
        ]

    # -- what is on the topics ---------------------------------------------------------------

    def _records(self, topic: str) -> list[Record]:
        try:
            return list(self._read(self._settings.broker, topic))
        except TopicMissingError:
            # Nothing was ever sent.
            return []

    def _triggers(self) -> list[CampaignTrigger]:
        found = []
        for record in self._records(self._settings.topics.triggers):
            if event_type(record) != TRIGGERED:
                continue
            try:
                found.append(_read_trigger(record.value() or b""))
            except UNREADABLE:
                continue
        return found

    def _logs(self) -> dict[int, _Log]:
        """What is on each partition of the change topic, by what it says and not by its headers."""
        found: dict[int, _Log] = defaultdict(_Log)
        scored = any(one.when.scores for one in self._versions.values())
        newest: dict[tuple[int, str], tuple[int, int]] = {}
        settings = self._settings
        refuses, partitions = settings.worker.misplaced == "refuse", settings.topics.partitions
        for record in self._records(settings.topics.changes):
            number, offset = record.partition() or 0, record.offset() or 0
            log = found[number]
            value = record.value() or b""
            came = came_to(value, self._key, scored=scored)
            if came == "change":
                change = _read_change(value)
                _, incarnation, version = change["id"].split("-")
                told, key = (int(incarnation), int(version)), (number, change["user"])
                if refuses and partition_of(change["user"].encode(), partitions) != number:
                    came = "misplaced"
                elif told <= newest.get(key, (-1, -1)):
                    came = "repeated"
                else:
                    newest[key] = told
                    log.changes.append((offset, change))
            log.came.append((offset, came))
        return found

    # -- checks ------------------------------------------------------------------------------

    def _records_accounted_for(self, logs: Mapping[int, _Log]) -> Check:
        check = Check(
            "campaigns: every record of changes was decided about, or refused under its reason"
        )
        refused: Counter[str] = Counter()
        for part in self._kept:
            kept, found = part.own.records, logs.get(part.number, _Log()).counts(part.read_to)
            if kept is None or sum(found.values()) < sum(kept.values()):
                # Begun by an earlier program, or what was read is on the topic no more.
                check.unjudged += 1
                continue
            check.counted += sum(found.values())
            refused.update({reason.value: kept.get(reason, 0) for reason in REFUSED})
            # Live, what was in the future then is in the past by now.
            of_time = found["time"] - kept.get("time", 0)
            if self._settings.clock.mode != "watermark" and of_time < 0:
                found["time"] -= of_time
                found["change"] += of_time
            if +found != Counter(kept):
                told = ", ".join(f"{name} {n:,}" for name, n in sorted((+found).items()))
                counted = ", ".join(f"{name} {n:,}" for name, n in sorted(kept.items()))
                check.accuse(
                    f"partition {part.number} has {told or 'nothing'}, and counted {counted or 'nothing'}"
                )
        if refused := +refused:
            told = ", ".join(f"{count:,} {reason}" for reason, count in sorted(refused.items()))
            check.note = f"refused: {told}; somebody else writes to {self._settings.topics.changes}"
        return check

    def _outcomes(self) -> Check:
        check = Check("campaigns: every change has one outcome")
        for part in self._kept:
            for name, seen in part.own.seen.items():
                check.counted += seen
                outcomes = sum(part.own.counts.get(name, {}).values())
                if outcomes != seen:
                    check.accuse(
                        f"{name} in partition {part.number}: {seen:,} looked at, {outcomes:,} outcomes"
                    )
        return check

    def _payloads(self, triggers: Sequence[CampaignTrigger]) -> Check:
        check = Check("campaigns: one payload a trigger, and none to who is held out")
        known: dict[str, CampaignTrigger] = {}
        for one in triggers:
            check.counted += 1
            if known.setdefault(one["id"], one) != one:
                check.accuse(f"{one['id']} has two payloads")
            declared = self._versions.get((one["campaign"], one["version"]))
            if declared is None:
                check.unjudged += 1
            elif one["arm"] not in (arms := self._arms(declared, one["user"])):
                told = " or ".join(arms)
                check.accuse(f"{one['id']}: {one['user']} is in arm {told}, and got {one['arm']}")
        return check

    def _arms(self, declared: Campaign, user: str) -> list[str]:
        """The arm of a user, and those they had while the global holdout was another one."""
        found = [oracle.arm(declared, user) for oracle in self._oracles]
        return list(dict.fromkeys(found))

    def _followed(
        self,
        triggers: Sequence[CampaignTrigger],
        changes: Mapping[int, Sequence[tuple[int, dict[str, Any]]]],
    ) -> Check:
        check = Check("campaigns: a trigger follows a change that concerns it, and in time")
        by_id = {change["id"]: change for part in changes.values() for _, change in part}
        for one in triggers:
            check.counted += 1
            declared = self._versions.get((one["campaign"], one["version"]))
            change = by_id.get(one["change"])
            if declared is None or change is None:
                # Of a declaration or a change that is kept no more.
                check.unjudged += 1
            elif not matches(declared, change) or change["user"] != one["user"]:
                check.accuse(f"{one['id']} does not concern {one['campaign']}")
            elif parse_time(one["at"]) > parse_time(one["valid_until"]):
                check.accuse(f"{one['id']} was decided after it was valid")
        return check

    def _decided_anew(
        self,
        triggers: Sequence[CampaignTrigger],
        changes: Mapping[int, Sequence[tuple[int, dict[str, Any]]]],
    ) -> Check:
        check = Check("campaigns: the log comes to the same triggers")
        if why := self._why_not_anew(changes):
            check.unjudged, check.note = len(triggers), why
            return check
        expected: dict[str, tuple[str, str, str]] = {}
        behind_ms = round(self._settings.clock.mark_seconds * 1_000)
        versions = {one.name: one.version for one in self._settings.campaigns}
        for part in self._kept:
            oracle = Oracle(self._settings.campaigns, self._settings.campaign_limits, self._key)
            told = []
            for offset, change in changes.get(part.number, ()):
                if offset < part.read_to:
                    told += oracle.change(change)
            told += oracle.advance(part.clock_ms - behind_ms)
            for decision in told:
                if decision.outcome == "sent":
                    name = f"{decision.campaign}-{versions[decision.campaign]}-{decision.change}"
                    expected[name] = (decision.user, decision.arm, iso(decision.at_ms))
        newer = {
            change["id"]
            for part in self._kept
            for offset, change in changes.get(part.number, ())
            if offset >= part.read_to
        }
        found = {one["id"]: one for one in triggers}
        waiting = any(part.waiting for part in self._kept)
        for name, decided in expected.items():
            check.counted += 1
            if name not in found:
                if waiting:
                    check.unjudged += 1
                else:
                    check.accuse(f"{name} was not sent")
            elif (found[name]["user"], found[name]["arm"], found[name]["at"]) != decided:
                check.accuse(f"{name} is another than the log comes to")
        decided_to_ms = max((part.clock_ms for part in self._kept), default=0) - behind_ms
        for name, one in found.items():
            # What a later commit decided of what had settled is newer than what was read.
            if name not in expected and one["change"] not in newer:
                if parse_time(one["at"]) > decided_to_ms:
                    check.unjudged += 1
                else:
                    check.accuse(f"{name} was sent, and the log does not come to it")
        return check

    def _why_not_anew(self, changes: Mapping[int, Sequence[tuple[int, dict[str, Any]]]]) -> str:
        if self._settings.clock.mode != "watermark":
            return "live, decisions are as of when the role was awake"
        rules = rules_in_force(self._settings.campaigns, self._settings.campaign_limits)
        if len(self._versions) > len(self._settings.campaigns) or any(
            rule != rules for part in self._kept for rule in part.own.rules
        ):
            return "declarations, their order or limits have changed"
        if any(part.told_to for part in self._kept):
            return f"{self._settings.topics.control} has records"
        names = {one.name for one in self._settings.campaigns}
        for part in self._kept:
            read = sum(offset < part.read_to for offset, _ in changes.get(part.number, ()))
            if any(part.own.seen.get(name, 0) != read for name in names):
                return "changes were decided about that the topic has no more, or not from the first on"
        return ""
