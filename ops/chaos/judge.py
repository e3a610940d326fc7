"""Judges what a run has come to, by the records and rows alone.

Comes in: `Evidence`, and what the traffic and the faults were. Goes out: a `Check` for each promise,
with everything that breaks it. Nothing here is shared with `consumers.audit` or `stream.oracle`: two
judges that have the same blind spot are one.

A change, a model, a letter may be there several times, with the same bytes: after a crash that is
allowed, and counted. Anything else is a finding.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ops.chaos.evidence import Evidence, Record, StoredUser
from ops.chaos.traffic import WATCHED_EVENTS, Sort

LATE_MS = 90 * 86_400_000
"""The shipped ``worker.late_seconds``."""
LARGEST_AMOUNT = 1e12
SIGNATURE_LETTERS = 64
NO_SEGMENT = 0
CHANGE, LINEAGE = "segstream.segment.changed", "segstream.segment.lineage"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass
class Check:
    """One promise.

    Attributes:
        promise: in words.
        looked_at: how many things.
        findings: what breaks it, in words.
        repeats: what was there more than once with the same bytes: allowed.
    """

    promise: str
    looked_at: int = 0
    findings: list[str] = field(default_factory=list)
    repeats: int = 0


@dataclass
class _Tally:
    """What a user's messages add up to."""

    arrivals: list[int] = field(default_factory=lambda: [0, 0])
    first_ms: int = 1 << 62
    seen_ms: int = 0
    exact: Counter[str] = field(default_factory=Counter)


@dataclass
class _Log:
    """The input topics, read by the judge.

    Attributes:
        sorts: what is right to become of the messages of each partition.
        users: of each partition, by name.
        refused: messages that nobody can read, by topic, partition and offset.
    """

    sorts: dict[int, Counter[Sort]]
    users: dict[int, dict[str, _Tally]]
    refused: dict[tuple[str, int, int], bytes]
    all_sorts: Counter[Sort]


def judge(
    evidence: Evidence,
    sent: Mapping[Sort, int] | None = None,
    *,
    by_marks: bool,
    fresh_starts: int = 0,
) -> list[Check]:
    """Hold the pipeline to what it promises.

    Args:
        sent: what the traffic says it sent, without marks; None asks nothing of it.
        by_marks: whether the clock is that of the marks: then they are signed.
        fresh_starts: how often the store lost everything: a user's versions may begin again.
    """
    log = _read_log(evidence, by_marks=by_marks)
    models, told = _judge_models(evidence.models)
    chains, change_checks = _judge_changes(evidence, models, fresh_starts)
    return [
        _judge_sent(log, sent, by_marks=by_marks),
        _judge_positions(evidence),
        _judge_counts(evidence, log),
        _judge_fold(evidence, log),
        _judge_letters(evidence, log),
        *change_checks,
        _judge_rows(evidence, chains),
        *told,
        *_judge_lineage(evidence, models),
    ]


# -- what came in ------------------------------------------------------------------------------


def _read_log(evidence: Evidence, *, by_marks: bool) -> _Log:
    log = _Log(defaultdict(Counter), defaultdict(dict), {}, Counter())
    everywhere, of_state = set[tuple[int, str, str]](), set[tuple[int, str, str]]()
    for index, records in enumerate(evidence.inputs):
        for record in records:
            alone, message = judge_sort(record, by_marks=by_marks)
            name = (index, message.get("userId", ""), message.get("messageId", ""))
            log.all_sorts[_unless_known(alone, name, everywhere)] += 1
            if alone is Sort.REJECTED:
                log.refused[record.topic, record.partition, record.offset] = record.value
            here = evidence.partitions.get(record.partition)
            if here is None or not here.first[index] <= record.offset < here.offsets[index]:
                continue
            sort = _unless_known(alone, name, of_state)
            log.sorts[record.partition][sort] += 1
            if alone is Sort.APPLIED:
                tally = log.users[record.partition].setdefault(message["userId"], _Tally())
                tally.arrivals[index] += 1
                if sort is Sort.APPLIED:
                    _add(tally, message)
    return log


def _unless_known(sort: Sort, name: tuple[int, str, str], known: set[tuple[int, str, str]]) -> Sort:
    """A message that was applied before is a duplicate."""
    if sort is not Sort.APPLIED:
        return sort
    if name in known:
        return Sort.DUPLICATE
    known.add(name)
    return sort


def judge_sort(record: Record, *, by_marks: bool) -> tuple[Sort, dict[str, Any]]:
    """What is right to become of a message, repeats aside; and the message, if it is one."""
    try:
        message = json.loads(record.value, parse_constant=_refuse)
        if message["type"] == "segstream-mark":
            return _sort_of_mark(message, by_marks=by_marks), {}
        texts = [message[name] for name in ("event", "userId", "messageId", "timestamp")]
        time_ms = milliseconds(message["timestamp"])
        amount = message["properties"].get("revenue", 0)
        sound = all(isinstance(text, str) and text for text in texts) and amount < LARGEST_AMOUNT
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Sort.REJECTED, {}
    if not sound:
        return Sort.REJECTED, {}
    if message["event"] not in WATCHED_EVENTS:
        return Sort.IGNORED, message
    if time_ms < record.timestamp_ms - LATE_MS:
        return Sort.LATE, message
    return Sort.APPLIED, message


def _sort_of_mark(message: dict[str, Any], *, by_marks: bool) -> Sort:
    """Whether it is genuine is told by its looks: a forger here signs with less, or not at all."""
    milliseconds(message["timestamp"]), milliseconds(message["sentAt"])
    if not by_marks:
        return Sort.IGNORED
    return Sort.MARK if len(message.get("signature", "")) == SIGNATURE_LETTERS else Sort.REJECTED


def _refuse(constant: str) -> None:
    """NaN and its like, which Python reads, are no JSON."""
    raise ValueError(constant)


def _add(tally: _Tally, message: dict[str, Any]) -> None:
    time_ms = milliseconds(message["timestamp"])
    if message["event"] != "Order Refunded":
        # What the shop does is no sign of life.
        tally.first_ms = min(tally.first_ms, time_ms)
        tally.seen_ms = max(tally.seen_ms, time_ms)
    if message["event"] == "Order Completed":
        tally.exact["orders_ever"] += 1
        tally.exact["ordered_ever"] += message["properties"]["revenue"]
    elif message["event"] == "Product Viewed":
        tally.exact["views_ever"] += 1


def _judge_sent(log: _Log, sent: Mapping[Sort, int] | None, *, by_marks: bool) -> Check:
    check = Check("what was sent is on the input topics")
    for sort, count in (sent or {}).items():
        check.looked_at += count
        found = log.all_sorts[sort]
        if by_marks and sort is Sort.DUPLICATE and found > count:
            # A broker that is started again has forgotten producers of records as old as these
            # (ops/decisions/2026-11-26-chaos-has-a-judge-of-its-own.md), and takes a request that
            # was on its way a second time. What becomes of the messages is judged below.
            check.repeats += found - count
        elif found != count:
            check.findings.append(f"{count} {sort} sent, {found} on the topics")
    return check


# -- what is stored ----------------------------------------------------------------------------


def _judge_positions(evidence: Evidence) -> Check:
    check = Check("everything was read, every change delivered")
    numbers = {record.partition for records in evidence.inputs for record in records}
    for number in sorted(numbers):
        check.looked_at += 1
        here = evidence.partitions.get(number)
        if here is None:
            check.findings.append(f"partition {number} has no state")
            continue
        for index, records in enumerate(evidence.inputs):
            end = max((r.offset + 1 for r in records if r.partition == number), default=0)
            if here.offsets[index] != end:
                check.findings.append(
                    f"partition {number}, input {index}: read to {here.offsets[index]} of {end}"
                )
        if here.waiting:
            check.findings.append(f"partition {number}: {here.waiting} entries in the outbox")
    return check


def _judge_counts(evidence: Evidence, log: _Log) -> Check:
    """Each message is counted once, under what became of it."""
    check = Check("counts are conserved")
    for number, here in sorted(evidence.partitions.items()):
        for sort in Sort:
            right, stored = log.sorts[number][sort], here.counts[sort]
            check.looked_at += right
            if stored != right:
                check.findings.append(f"partition {number}: {stored} {sort}, right is {right}")
    return check


def _judge_fold(evidence: Evidence, log: _Log) -> Check:
    """Nothing was folded twice or left out: by numbers that are exact."""
    check = Check("every message is folded once")
    for number, here in sorted(evidence.partitions.items()):
        tallies = log.users[number]
        for name in sorted(tallies.keys() | here.users.keys()):
            check.looked_at += 1
            user, tally = here.users.get(name), tallies.get(name)
            if user is None or tally is None:
                where = "not in the log" if tally is None else "not in the store"
                check.findings.append(f"{name} (partition {number}) is {where}")
            elif wrong := _unlike(user, tally):
                check.findings.append(f"{name} (partition {number}): {wrong}")
    return check


def _unlike(user: StoredUser, tally: _Tally) -> str:
    """The first number that is not right, in words."""
    pairs: list[tuple[str, float, float]] = [
        ("clicks", user.arrivals[0], tally.arrivals[0]),
        ("purchases", user.arrivals[1], tally.arrivals[1]),
        *((name, stored, tally.exact[name]) for name, stored in user.exact.items()),
    ]
    if tally.seen_ms:
        pairs += [("first", user.first_ms, tally.first_ms), ("seen", user.seen_ms, tally.seen_ms)]
    for name, stored, right in pairs:
        if stored != right:
            return f"{name} is {stored}, right is {right}"
    return ""


# -- letters -----------------------------------------------------------------------------------


def _judge_letters(evidence: Evidence, log: _Log) -> Check:
    """Whoever drops known ids sees each refused message once, with its own bytes."""
    check = Check("every refused message has its letter")
    filed: set[tuple[str, int, int]] = set()
    ids: dict[str, tuple[str, int, int]] = {}
    for letter in evidence.letters:
        check.looked_at += 1
        origin = (
            letter.headers.get("segstream-topic", ""),
            int(letter.headers.get("segstream-partition", -1)),
            int(letter.headers.get("segstream-offset", -1)),
        )
        if origin not in log.refused:
            check.findings.append(f"{letter.place} is of {origin}, which is not to be refused")
        elif log.refused[origin] != letter.value:
            check.findings.append(f"{letter.place} has other bytes than {origin}")
        name = letter.headers.get("segstream-id", "")
        if not name or ids.setdefault(name, origin) != origin:
            check.findings.append(f"{letter.place} has the id {name!r}, which is not its own")
        check.repeats += origin in filed
        filed.add(origin)
    missing = sorted(log.refused.keys() - filed)
    check.findings += [f"{origin} was not filed" for origin in missing]
    return check


# -- changes -----------------------------------------------------------------------------------

Chains = dict[tuple[int, str], list[tuple[Record, dict[str, Any]]]]
"""The changes of each user in the order of the topic, repeats left out."""


def _judge_changes(
    evidence: Evidence, models: Mapping[str, dict[str, Any]], fresh_starts: int
) -> tuple[Chains, list[Check]]:
    identity = Check("an id stands for one change")
    versions = Check("versions go 1, 2, 3")
    links = Check("a change begins where the one before ended")
    fit = Check("a change is one of the model it names")
    chains: Chains = {}
    payloads: dict[str, Record] = {}
    for record in evidence.changes:
        if record.headers.get("ce_type") != CHANGE:
            continue
        identity.looked_at += 1
        try:
            change = json.loads(record.value)
            user, name = change["user"], change["id"]
            _ = change["version"], change["from"], change["to"], change["at"]
        except (ValueError, KeyError, TypeError) as error:
            identity.findings.append(f"{record.place} is no change: {error}")
            continue
        if record.key != user.encode() or record.headers.get("ce_id") != name:
            identity.findings.append(f"{record.place}: key or id is not that of the change {name}")
        known = payloads.setdefault(name, record)
        if known is not record:
            if known.value == record.value and known.key == record.key:
                identity.repeats += 1
            else:
                identity.findings.append(
                    f"{name} is told in two ways: {_short(known)} and {_short(record)}"
                )
            continue
        chains.setdefault((record.partition, user), []).append((record, change))
        if wrong := _misfit(change, models):
            fit.findings.append(f"{record.place}: {wrong}")
        fit.looked_at += 1
    for (_, user), chain in chains.items():
        _judge_chain(user, chain, fresh_starts, versions, links)
    homes: dict[str, int] = {}
    for partition, user in chains:
        if homes.setdefault(user, partition) != partition:
            links.findings.append(f"{user} has changes in partitions {homes[user]} and {partition}")
    return chains, [identity, versions, links, fit]


def _judge_chain(
    user: str,
    chain: list[tuple[Record, dict[str, Any]]],
    fresh_starts: int,
    versions: Check,
    links: Check,
) -> None:
    version, segment, before = 0, None, "nothing"
    starts = 0
    for record, change in chain:
        versions.looked_at += 1
        links.looked_at += 1
        if change["version"] == 1 and change["from"] is None and starts < fresh_starts + 1:
            starts += 1
        else:
            if change["version"] != version + 1:
                versions.findings.append(f"{user}: {_short(record)} follows {before}")
            if change["from"] != segment:
                links.findings.append(f"{user}: {_short(record)} follows {before}")
        version, segment, before = change["version"], change["to"], _short(record)


def _misfit(change: Mapping[str, Any], models: Mapping[str, dict[str, Any]]) -> str:
    """What a change says of its segment that its model does not; empty if nothing."""
    model = models.get(change["model"])
    if model is None:
        return f"model {change['model']} was never announced"
    for segment in model["segments"]:
        if segment["id"] == change["to"]:
            # Nobody is told a better kind without an act: then it is the one told before.
            rungs = model.get("geometry", {}).get("kinds", [])
            instead = {rung["instead"] for rung in rungs if rung["kind"] == segment["kind"]}
            right = {segment["kind"], change["kind_from"], *instead}
            if change["kind_to"] in right and change["name_to"] == segment["name"]:
                return ""
            said = change["kind_to"], change["name_to"]
            return f"says {said}, model {change['model']} says {sorted(filter(None, right))}"
    return f"segment {change['to']} is not in model {change['model']}"


def _judge_rows(evidence: Evidence, chains: Chains) -> Check:
    """Where the store has a user is where the last delivered change took them."""
    check = Check("rows agree with the last change")
    for number, here in sorted(evidence.partitions.items()):
        for name, user in here.users.items():
            check.looked_at += 1
            chain = chains.get((number, name))
            if wrong := _disagreement(user, chain or []):
                check.findings.append(f"{name} (partition {number}): {wrong}")
    for number, name in chains:
        found = evidence.partitions.get(number)
        if found is None or name not in found.users:
            check.findings.append(f"{name} (partition {number}) has changes and no row")
    return check


def _disagreement(user: StoredUser, chain: list[tuple[Record, dict[str, Any]]]) -> str:
    row = (user.version, user.segment, user.previous, user.since_ms if user.version else 0)
    told = (0, NO_SEGMENT, NO_SEGMENT, 0)
    last = chain[-1] if chain else None
    if last is not None:
        # A turn of their segment moves nobody: where they came from is told before it.
        moves = [change for _, change in chain if change["from"] != change["to"]]
        move = moves[-1] if moves else last[1]
        told = (
            last[1]["version"],
            last[1]["to"],
            move["from"] or NO_SEGMENT,
            milliseconds(move["at"]),
        )
    if row == told:
        return ""
    where = f" ({_short(last[0])})" if last else ""
    return f"version, segment, before, since are {row}, the last change says {told}{where}"


# -- models and lineage ------------------------------------------------------------------------


def _judge_models(records: Iterable[Record]) -> tuple[dict[str, dict[str, Any]], list[Check]]:
    """Models by name, and whether ids and names keep their meaning over them."""
    once = Check("a model is told in one way, and they go forward")
    births = Check("a segment id is born once")
    raw: dict[str, bytes] = {}
    models: dict[str, dict[str, Any]] = {}
    born: dict[int, str] = {}
    retired: dict[int, str] = {}
    newest = (-1, -1)
    for record in records:
        once.looked_at += 1
        model = json.loads(record.value)
        name = model["model"]
        if name in raw:
            once.repeats += raw[name] == record.value
            if raw[name] != record.value:
                once.findings.append(f"{record.place}: model {name} is told in a second way")
            continue
        raw[name], models[name] = record.value, model
        number = (model["epoch"], model["version"])
        if number <= newest:
            once.findings.append(f"{record.place}: model {name} comes after {newest}")
        newest = max(newest, number)
        for segment in [*model["segments"], *model["retired"]]:
            births.looked_at += 1
            known = born.setdefault(segment["id"], segment["born"])
            if known != segment["born"]:
                births.findings.append(
                    f"{record.place}: segment {segment['id']} was born in {known}, here in "
                    f"{segment['born']}"
                )
        ids = [segment["id"] for segment in model["segments"]]
        if len(set(ids)) != len(ids):
            births.findings.append(f"{record.place}: model {name} has an id twice")
        births.findings += [
            f"{record.place}: segment {one} is in force again, retired in {retired[one]}"
            for one in ids
            if one in retired
        ]
        for segment in model["retired"]:
            retired.setdefault(segment["id"], name)
    return models, [once, births]


def _judge_lineage(evidence: Evidence, models: Mapping[str, dict[str, Any]]) -> list[Check]:
    one_way = Check("a lineage record is told in one way")
    complete = Check("what became of segments is told")
    raw: dict[str, Record] = {}
    told: set[tuple[str, str, int]] = set()
    for record in evidence.changes:
        if record.headers.get("ce_type") != LINEAGE:
            continue
        one_way.looked_at += 1
        lineage = json.loads(record.value)
        told.add((lineage["model"], lineage["event"], lineage["segment"]))
        known = raw.setdefault(lineage["id"], record)
        if known is record:
            continue
        one_way.repeats += known.value == record.value
        if known.value != record.value:
            one_way.findings.append(
                f"{lineage['id']} is told in two ways, at {known.place} and {record.place}: "
                f"{known.value.decode()} and {record.value.decode()}"
            )
    for name, model in models.items():
        for event in model["lineage"]:
            complete.looked_at += 1
            if (event["model"], event["event"], event["segment"]) not in told:
                complete.findings.append(
                    f"model {name} has {event['event']} of segment {event['segment']}, which was "
                    "not told"
                )
    return [one_way, complete]


# -- in words ----------------------------------------------------------------------------------


def milliseconds(text: str) -> int:
    """Milliseconds since 1970 of a time in ISO 8601."""
    since = datetime.fromisoformat(text) - EPOCH
    return since.days * 86_400_000 + since.seconds * 1_000 + since.microseconds // 1_000


def _short(record: Record) -> str:
    change = json.loads(record.value)
    return (
        f"v{change['version']} {change['from']}->{change['to']} {change['cause']} "
        f"{change['at']} model {change['model']} at {record.place}"
    )
