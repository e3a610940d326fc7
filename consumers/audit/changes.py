"""Holds every record of the topic of changes to what strangers were promised of one.

Comes in: the records of the topic, and the outboxes. Goes out: the changes of users, in their order, to
`chains`; and three promises: records are valid, an id has one payload, and each change is delivered once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from consumers.audit.chains import Chain, Chains, Step
from consumers.audit.crossings import PopulationsCheck
from consumers.audit.levels import LevelsCheck
from consumers.audit.reading import bytes_of, digest_of, place_of, texts_of
from consumers.audit.report import Check
from consumers.audit.sample import Sample
from consumers.audit.snapshot import Snapshots
from consumers.records import Record
from stream.events import (
    CHANGED,
    LEVEL_CHANGE,
    LEVEL_CHANGED,
    LINEAGE,
    LINEAGE_RECORD,
    MEMBERSHIP,
    MEMBERSHIP_RECORD,
    SEGMENT_CHANGE,
)
from stream.hashing import change_identity
from stream.headers import EVENT_ID, EVENT_SPEC, EVENT_TYPE, SPEC_VERSION

NAMES_LEVEL = b'"level":"'
"""A record that has this is of a level: within a text, its quotes would be escaped."""


class ChangesCheck:
    """Whether records are as they were promised.

    Attributes:
        valid, payload, once: what was found.
        delivered: how often each change was, by its id.
        contradicted: how often with other bytes.
        pending: changes that wait in an outbox and were not delivered.

    Args:
        key: the namespace's secret, see `hashing`.
        chains, populations, levels: take in the changes of users.
    """

    def __init__(
        self,
        key: bytes,
        snapshots: Snapshots,
        sample: Sample,
        chains: Chains,
        populations: PopulationsCheck,
        levels: LevelsCheck,
    ) -> None:
        self.valid = Check("change_records_are_valid")
        self.payload = Check("one_payload_an_id")
        self.once = Check("each_change_is_delivered_once")
        self.delivered: Counter[str] = Counter()
        self.contradicted: Counter[str] = Counter()
        self.pending = 0
        self._key = key
        self._snapshots = snapshots
        self._sample = sample
        self._chains = chains
        self._populations = populations
        self._levels = levels
        self._digests: dict[str, bytes] = {}
        self._lineage: dict[str, bytes] = {}

    @property
    def repeated(self) -> int:
        """Records that were delivered again as they were, which is allowed."""
        again = sum(times - 1 for times in self.delivered.values())
        return again - self.contradicted.total()

    def read(self, topic: str, records: Iterable[Record]) -> None:
        """Take in the records of the topic of changes, and what waits in the outboxes."""
        begun = set[int]()
        for record in records:
            partition, offset = place_of(record)
            if partition not in begun:
                begun.add(partition)
                if offset > 0:
                    self._chains.begin_cut.add(partition)
            where = f"{topic}/{partition}@{offset}"
            payload = bytes_of(record.value())
            snapshot = self._snapshots.get(partition)
            own = snapshot is not None and offset >= snapshot.position.output
            headers = texts_of(record)
            if headers.get(EVENT_TYPE) == MEMBERSHIP:
                self._check_membership(partition, payload, where)
            elif headers.get(EVENT_TYPE) == LINEAGE:
                self._check_lineage(payload, where, own=own)
            elif not self._sample.has(bytes_of(record.key())) and EVENT_ID in headers:
                self.valid.unjudged += 1
                self._deliver(headers[EVENT_ID], payload, where)
            elif (change := self._valid_change(payload, where, own=own)) is not None:
                self._check_envelope(record, headers, change, where)
                if self._deliver(change["id"], payload, where):
                    self._take_change(partition, change, where)
        for partition, snapshot in self._snapshots.items():
            for entry in snapshot.outbox:
                for place, payload in enumerate(entry.changes):
                    where = f"outbox {partition}, entry {entry.id}, change {place}"
                    waiting = self._valid_change(payload, where, own=True)
                    if waiting is None:
                        continue
                    self.pending += waiting["id"] not in self.delivered
                    fresh = self._is_new(waiting["id"], payload, where)
                    if fresh and self._sample.has(waiting["user"].encode()):
                        self._take_change(partition, waiting, where)
        self.once.counted = len(self.delivered)
        self.payload.counted = len(self._digests)

    def _deliver(self, name: str, payload: bytes, where: str) -> bool:
        """Count a delivery; True for the first of its change."""
        self.delivered[name] += 1
        new = self._is_new(name, payload, where)
        if not new and self._digests[name] != digest_of(payload):
            self.contradicted[name] += 1
            self.once.accuse(f"change {name} was delivered again with other bytes ({where})")
        return new

    def _is_new(self, name: str, payload: bytes, where: str) -> bool:
        """Whether a change was not seen before; one that was says the same."""
        digest = digest_of(payload)
        known = self._digests.setdefault(name, digest)
        if known is not digest and known != digest:
            self.payload.accuse(f"{where}: change {name} says something else than before")
        return known is digest

    def _valid_change(self, payload: bytes, where: str, *, own: bool) -> dict[str, Any] | None:
        """A change record; None if it is none, or of before the state began under another key."""
        kind = LEVEL_CHANGE if NAMES_LEVEL in payload else SEGMENT_CHANGE
        try:
            change: dict[str, Any] = kind.validate_json(payload, strict=True)
        except ValidationError as error:
            self.valid.counted += 1
            problem = error.errors()[0]
            field_name = ".".join(map(str, problem["loc"])) or "record"
            self.valid.accuse(f"{where}: {field_name}: {problem['msg']}")
            return None
        strange = self._incarnation(change) is None
        if strange and not own:
            self.valid.unjudged += 1
            return None
        self.valid.counted += 1
        if strange:
            self.valid.accuse(
                f"{where}: the id {change['id']} is not that of user {change['user']!r}, "
                f"version {change['version']}"
            )
            return None
        return change

    def _incarnation(self, change: dict[str, Any]) -> int | None:
        """The incarnation in a change's id; None if the id is not that of its user and version."""
        begin = f"{change_identity(change['user'].encode(), self._key)}-"
        end = f"-{change['version']}"
        middle = change["id"].removeprefix(begin).removesuffix(end)
        whole = middle.isdecimal() and change["id"] == begin + middle + end
        return int(middle) if whole else None

    def _check_membership(self, partition: int, payload: bytes, where: str) -> None:
        """A membership tells a change again: where the change is gone, a chain begins here."""
        self.valid.counted += 1
        try:
            told = MEMBERSHIP_RECORD.validate_json(payload, strict=True)
            incarnation = int(told["id"].split("-")[1])
        except (ValidationError, IndexError, ValueError) as error:
            why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "no such id"
            self.valid.accuse(f"{where}: {why}")
            return
        chain: Chain = (partition, told["user"], incarnation)
        step = Step(
            told["version"], None, told["segment"], told["since"], where, ("", told["kind"])
        )
        self._chains.tell_again(chain, step)

    def _check_lineage(self, payload: bytes, where: str, *, own: bool) -> None:
        """A record of a segment is valid; told again, after a restart, it says the same.

        Records from before the state began are of other models with the same numbers.
        """
        self.valid.counted += 1
        try:
            told = LINEAGE_RECORD.validate_json(payload, strict=True)
        except ValidationError as error:
            self.valid.accuse(f"{where}: {error.errors()[0]['msg']}")
            return
        if own and self._lineage.setdefault(told["id"], payload) != payload:
            self.valid.accuse(f"{where}: lineage {told['id']} was told in two ways")

    def _check_envelope(
        self, record: Record, headers: dict[str, str], change: dict[str, Any], where: str
    ) -> None:
        promised = {
            EVENT_SPEC: SPEC_VERSION,
            EVENT_TYPE: LEVEL_CHANGED if "level" in change else CHANGED,
            EVENT_ID: change["id"],
        }
        for name, value in promised.items():
            if headers.get(name) != value:
                self.valid.accuse(f"{where}: header {name} is {headers.get(name)!r}, not {value!r}")
                return
        if bytes_of(record.key()) != change["user"].encode():
            self.valid.accuse(f"{where}: the key is not the user {change['user']!r}")

    def _take_change(self, partition: int, change: dict[str, Any], where: str) -> None:
        """Put a change at the end of its user's chain."""
        chain: Chain = (partition, change["user"], self._incarnation(change) or 0)
        if "level" in change:
            self._chains.take(chain, _level_step(change, where))
            self._levels.take(partition, change, where)
            return
        kinds = change["kind_from"] or "", change["kind_to"]
        step = Step(change["version"], change["from"], change["to"], change["at"], where, kinds)
        self._chains.take(chain, step)
        self._populations.take(partition, change, where)


def _level_step(change: dict[str, Any], where: str) -> Step:
    """A crossing from one step of a level to another."""
    steps = change["step_from"], change["step_to"]
    return Step(change["version"], None, 0, change["at"], where, level=change["level"], steps=steps)
