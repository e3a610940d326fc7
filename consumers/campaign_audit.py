"""Proves or refutes what campaigns promise: one outcome a change, one payload a trigger, nothing to whoever is held out.

Comes in: what the role keeps of each partition, and then the topics of changes and triggers. Goes out: `Check`s
for the audit. The log is decided about anew by `stream.campaigns.oracle`, which shares no code with the
role, where that can come to the same: from mark to mark, with declarations that have not changed, and nothing
said on `campaign-control`. Live, the role decides as of when it was awake, which no log tells.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from consumers.audit.report import Check
from consumers.client import read_to_end
from consumers.plain import parse_time
from consumers.records import Read, Record
from stream.campaigns.declare import Campaign
from stream.campaigns.keep import Own
from stream.campaigns.oracle import Oracle, matches
from stream.campaigns.triggers import TRIGGERED, CampaignTrigger
from stream.config import Settings
from stream.errors import TopicMissingError
from stream.events import CHANGED, LEVEL_CHANGED
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
        self._oracle = Oracle(settings.campaigns, settings.campaign_limits, key)
        self._key = key
        self._versions = {(one.name, one.version): one for one in settings.campaigns}
        for part in kept:
            for text in part.own.versions:
                one = Campaign.model_validate_json(text)
                self._versions.setdefault((one.name, one.version), one)

    def checks(self) -> list[Check]:
        triggers = self._triggers()
        changes = self._changes()
        return [
            self._outcomes(),
            self._payloads(triggers),
            self._followed(triggers, changes),
            self._decided_anew(triggers, changes),
        ]

    # -- what is on the topics ---------------------------------------------------------------

    def _records(self, topic: str, *kinds: str) -> list[Record]:
        try:
            records = list(self._read(self._settings.broker, topic))
        except TopicMissingError:
            # Nothing was ever sent.
            return []
        return [one for one in records if event_type(one) in kinds]

    def _triggers(self) -> list[CampaignTrigger]:
        found = []
        for record in self._records(self._settings.topics.triggers, TRIGGERED):
            try:
                found.append(_read_trigger(record.value() or b""))
            except UNREADABLE:
                continue
        return found

    def _changes(self) -> dict[int, list[tuple[int, dict[str, Any]]]]:
        """By partition, changes and crossings with their offsets; each once."""
        found: dict[int, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
        seen: set[str] = set()
        for record in self._records(self._settings.topics.changes, CHANGED, LEVEL_CHANGED):
            try:
                change = _read_change(record.value() or b"")
            except UNREADABLE:
                # The role has passed it over, too.
                continue
            if change["id"] not in seen:
                seen.add(change["id"])
                found[record.partition() or 0].append((record.offset() or 0, change))
        return found

    # -- checks ------------------------------------------------------------------------------

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
            elif (arm := self._oracle.arm(declared, one["user"])) != one["arm"]:
                check.accuse(f"{one['id']}: {one['user']} is in arm {arm}, and got {one['arm']}")
        return check

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
        if len(self._versions) > len(self._settings.campaigns):
            return "declarations have changed"
        if any(part.told_to for part in self._kept):
            return f"{self._settings.topics.control} has records"
        names = {one.name for one in self._settings.campaigns}
        for part in self._kept:
            read = sum(offset < part.read_to for offset, _ in changes.get(part.number, ()))
            if any(part.own.seen.get(name, 0) != read for name in names):
                return "changes were decided about that the topic has no more, or not from the first on"
        return ""
