"""What the commands show of segments, users and changes: facts first, then a readable form.

Comes in: the store and the change topic. Goes out: plain dicts for ``--json``, and rich tables of
the same dicts for people.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from heapq import nlargest
from typing import Any

import msgspec
import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from rich.console import Console
from rich.table import Table
from rich.text import Text

from consumers.client import read_to_end, reader_options
from stream.clustering import distances
from stream.config import Settings
from stream.errors import kafka_client
from stream.events import Rows, SegmentChange
from stream.features import Feature, FeatureTable
from stream.flapping import Tally
from stream.hashing import partition_of
from stream.kinds import CHURN_RISK_KINDS, FALLBACK_KIND
from stream.learning.state import TrainerState
from stream.model import Model
from stream.partition import SchemaMismatchError
from stream.state import Store
from stream.units import iso, parse_duration, percent, percents

KIND_STYLES = {
    "champion": "bold green",
    "loyal": "green",
    "promising": "cyan",
    "new": "blue",
    "browsing": "white",
    "occasional": "white",
    "at_risk": "yellow",
    "dormant": "red",
}


class UnknownUserError(Exception):
    """Nobody has heard of this user."""


class WrongNameError(Exception):
    """A segment cannot be called that."""


class NoModelError(Exception):
    """No model has been learned yet."""


LONGEST_NAME = 60


def trainer_state(store: Store) -> TrainerState:
    """The trainer's newest state.

    Raises:
        NoModelError: there is no model yet.
    """
    found = store.model()
    state = None if found is None else TrainerState.unpack(found[1])
    if state is None or state.model is None:
        raise NoModelError(
            "no model has been learned yet: it takes a trainer (segstream run trainer) and "
            "events of at least learning.first_model_users shoppers"
        )
    return state


def _model(state: TrainerState) -> Model:
    assert state.model is not None
    return state.model


def segments(state: TrainerState, table: FeatureTable) -> dict[str, Any]:
    """Facts of `segstream segments`."""
    model = _model(state)
    published = model.published(table)
    rows: list[dict[str, Any]] = [dict(row) for row in published["segments"]]
    for row, size in zip(rows, state.sizes or [s["size"] for s in rows], strict=False):
        row["size"] = size
        tally = state.flapping.get(row["id"], Tally())
        row["flapping"] = tally.rates()._asdict() | {"user_days": tally.user_days}
    return {
        "model": model.name,
        "at": iso(state.round_ms),
        "users": state.users,
        "inertia": model.inertia,
        "silhouette": model.silhouette,
        "segments": rows,
        "lineage": published["lineage"],
    }


def rename(store: Store, segment: int, name: str) -> str:
    """Give a living segment a name; returns the one it had.

    Raises:
        WrongNameError: there is no such segment, or the name will not do.
        NoModelError: there is no model yet.
    """
    model = _model(trainer_state(store))
    names = {one.id: one.name for one in model.segments} | store.given_names()
    if segment not in model.ids:
        raise WrongNameError(f"there is no segment {segment}; segstream segments lists them")
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise WrongNameError(f"a name has 1 to {LONGEST_NAME} printable characters")
    if taken := [other for other, known in names.items() if known == name and other != segment]:
        raise WrongNameError(f"segment {taken[0]} is called that already")
    store.give_name(segment, name)
    return names[segment]


def marks_of(segment: dict[str, Any], table: FeatureTable, count: int = 4) -> str:
    """What marks a segment: the features farthest from the average, in natural units."""
    known = {feature.name: feature for feature in table.features}
    profile = [entry for entry in segment["profile"] if known[entry["feature"]].weight > 0]
    profile.sort(key=lambda entry: -abs(entry["z"]) * known[entry["feature"]].weight ** 0.5)
    return ", ".join(
        f"{entry['feature']} {reading(entry['value'], known[entry['feature']])}"
        for entry in profile[:count]
    )


def natural(value: float) -> str:
    """A value in natural units, to three digits; what would show as nothing is 0."""
    if abs(value) < 0.005:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def exact(value: float, feature: Feature) -> str:
    """One user's value of a feature; "never" only if the event it waits for has not been seen."""
    never = feature.aggregate == "last" and 0 < feature.absent == value
    return "never" if never else natural(value)


def reading(value: float, feature: Feature) -> str:
    """A segment's typical value of a feature, which lies between what its users have.

    "Never" where next to none of them has seen the event that the feature waits for.
    """
    if feature.aggregate == "last" and feature.absent > 0:
        if abs(value - feature.absent) <= 0.01 * feature.absent:
            return "never"
        if 0.75 * feature.absent < value < feature.absent:
            return "mostly never"
    return natural(value)


WIDE, NARROW = 130, 100
"""Columns of a terminal from which on what marks a segment has a column of its own; below which it
is more readable without flapping (``--json`` has it)."""


def segments_table(facts: dict[str, Any], table: FeatureTable, columns: int) -> Table:
    """The segments, the largest first, for a terminal so wide."""
    wide, narrow = columns >= WIDE, columns < NARROW
    shown = Table(title=f"Segments of model {facts['model']}", title_justify="left")
    shown.add_column("id", justify="right")
    shown.add_column("name")
    shown.add_column("kind")
    shown.add_column("users", justify="right")
    shown.add_column("share", justify="right")
    if not narrow:
        shown.add_column("leave a day", justify="right")
        shown.add_column("of them back", justify="right")
    if wide:
        shown.add_column("what marks it", overflow="fold")
    rows = sorted(facts["segments"], key=lambda row: -row["size"])
    for row, share in zip(rows, percents([row["size"] for row in rows]), strict=True):
        style = KIND_STYLES.get(row["kind"], "")
        flapping = row["flapping"]
        # Of a segment seen for less than a day, what leaves it a day is a guess, and a wild one.
        young = flapping["user_days"] < row["size"]
        rates = [
            percent(None if young else flapping[name])
            for name in ("changes_per_user_day", "reverted_share")
        ]
        shown.add_row(
            str(row["id"]),
            row["name"],
            Text(row["kind"], style=style),
            f"{row['size']:,}",
            share,
            *([] if narrow else rates),
            *([marks_of(row, table)] if wide else []),
        )
    return shown


_TOLD = {
    "born": "{0} is of the first model",
    "split": "{0} split off {1}",
    "succeeded": "{0} took the place of {1}",
    "emerged": "{0} is new",
    "absorbed": "{0} was absorbed by {1}",
    "dissolved": "{0} is no more, its users went several ways",
    "ceded": "{0} goes on, but most of its users are in {1} now",
    "renamed": "{0} has another name",
}


def lineage_line(event: Mapping[str, Any]) -> str:
    """What happened to a segment, in words."""
    others = ", ".join(str(other) for other in event["others"])
    if event["event"].startswith("kind:"):
        before, _, after = event["event"].removeprefix("kind:").partition("->")
        return f"{event['segment']} turned from {before} to {after}"
    return _TOLD[event["event"]].format(event["segment"], others)


def kinds_of(settings: Settings, store: Store) -> list[str]:
    """Kinds that a change may be into: of the rules, and of the segments there are."""
    known = [rule.kind for rule in settings.kinds] + [FALLBACK_KIND]
    with suppress(NoModelError):
        known += [segment.kind for segment in _model(trainer_state(store)).segments]
    return list(dict.fromkeys(known))


def show_segments(console: Console, facts: dict[str, Any], table: FeatureTable) -> None:
    """`segstream segments` for people."""
    console.print(segments_table(facts, table, console.width))
    if console.width < WIDE:
        for row in sorted(facts["segments"], key=lambda row: -row["size"]):
            console.print(f"  {row['id']}: {marks_of(row, table)}")
    silhouette = facts["silhouette"]
    quality = f"inertia {facts['inertia']:.3f}"
    if silhouette is not None:
        quality += f", silhouette {silhouette:.3f} on the sample"
    console.print(f"{facts['users']:,} users at {facts['at']}; {quality}")
    if console.width >= NARROW:
        console.print(
            "leave a day: changes out of it by the days its users spent there, lately; of them "
            "back: soon, to the segment before",
            style="dim",
        )
    for event in facts["lineage"]:
        console.print(f"  lineage: {lineage_line(event)}")


@dataclass
class Place:
    """How far the changes have been read.

    Attributes:
        ends: by partition, the offset behind the last record read.
        seen: ids of records; a record may be delivered again.
    """

    ends: dict[int, int] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Reader:
    """Reads users and changes for the commands."""

    settings: Settings
    store: Store
    table: FeatureTable

    def row_of(self, name: str) -> tuple[int, Rows, int]:
        """A user's partition, their row ``(1,)`` and the time by the clock in use.

        Raises:
            UnknownUserError: no event of that user has been applied.
            SchemaMismatchError: the row was written by another feature table.
        """
        partition = partition_of(name.encode(), self.settings.topics.partitions)
        raw = self.store.row(partition, name.encode())
        position = self.store.position(partition)
        if raw is None or position is None:
            raise UnknownUserError(f"user {name!r} is unknown: no event of theirs was applied")
        if position.schema != self.table.schema:
            raise SchemaMismatchError(
                f"partition {partition} holds rows of feature table {position.schema}, but the "
                f"settings declare {self.table.schema}; use the settings the pipeline runs with"
            )
        live = self.settings.clock.mode == "live"
        now_ms = time.time_ns() // 1_000_000 if live else position.clock_ms
        return partition, np.frombuffer(raw, dtype=self.table.dtype), now_ms

    def user(self, name: str) -> dict[str, Any]:
        """Facts of `segstream user`.

        Raises:
            UnknownUserError: no event of that user has been applied.
            SchemaMismatchError: the row was written by another feature table.
        """
        partition, row, now_ms = self.row_of(name)
        vectors = self.table.vectors(row, now_ms)
        facts: dict[str, Any] = {
            "user": name,
            "partition": partition,
            "at": iso(now_ms),
            # Who is known by what the shop did only has not been seen yet.
            "first_seen": iso(int(row["first"][0])) if row["seen"][0] else None,
            "last_seen": iso(int(row["seen"][0])) if row["seen"][0] else None,
            "features": [
                {"feature": feature.name, "value": float(value), "unit": feature.unit}
                for feature, value in zip(self.table.features, vectors[0], strict=True)
            ],
            "segment": None,
            "version": int(row["version"][0]),
            "changes": self.changes_of(name, partition)[-5:],
        }
        try:
            model = _model(trainer_state(self.store))
        except NoModelError:
            return facts
        squared = distances(model.map.apply(vectors), model.centroids, model.map.weights)[0]
        current = model.by_id.get(int(row["segment"][0]))
        if current is not None:
            facts["segment"] = {
                "id": current.id,
                "name": current.name,
                "kind": current.kind,
                "since": iso(int(row["since"][0])),
            }
        facts["model"] = model.name
        facts["distances"] = sorted(
            (
                {"segment": s.id, "name": s.name, "distance": float(np.sqrt(max(d, 0.0)))}
                for s, d in zip(model.segments, squared, strict=True)
            ),
            key=lambda entry: entry["distance"],
        )
        return facts

    def now_ms(self) -> int:
        """What time it is by the clock in use."""
        if self.settings.clock.mode == "live":
            return time.time_ns() // 1_000_000
        positions = map(self.store.position, range(self.settings.topics.partitions))
        return max((found.clock_ms for found in positions if found is not None), default=0)

    def changes_of(self, name: str, partition: int) -> list[dict[str, Any]]:
        """A user's changes, oldest first, each once."""
        found = self.changes([partition])
        return [change for change in found if change["user"] == name]

    def changes(
        self,
        partitions: list[int] | None = None,
        *,
        lineage: bool = False,
        place: Place | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Changes in topic order, each once.

        Args:
            partitions: None for all.
            lineage: what became of segments, too.
            place: how far somebody has read, who reads on from here.
        """
        place = Place() if place is None else place
        topic = self.settings.topics.changes
        for message in read_to_end(self.settings.broker, topic, partitions):
            place.ends[message.partition() or 0] = (message.offset() or 0) + 1
            record = parse_record(message.value(), lineage=lineage)
            if record is not None and record["id"] not in place.seen:
                place.seen.add(record["id"])
                yield record

    def follow(
        self, stop: Callable[[], bool], place: Place, *, lineage: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Changes as they come, each once; see `changes`.

        Args:
            place: how far somebody has read already.
        """
        consumer = kafka_client(Consumer, reader_options(self.settings.broker))
        topic = self.settings.topics.changes
        consumer.assign(
            [
                TopicPartition(topic, partition, place.ends.get(partition, OFFSET_BEGINNING))
                for partition in range(self.settings.topics.partitions)
            ]
        )
        try:
            while not stop():
                for message in consumer.consume(500, 0.2):
                    value = None if message.error() else message.value()
                    record = parse_record(value, lineage=lineage)
                    if record is not None and record["id"] not in place.seen:
                        place.seen.add(record["id"])
                        yield record
        finally:
            consumer.close()


def parse_record(value: bytes | None, *, lineage: bool = False) -> dict[str, Any] | None:
    """A change on the change topic, or what became of a segment if wanted; None for all else."""
    if not value:
        return None
    try:
        parsed = msgspec.json.decode(value)
    except msgspec.DecodeError:
        return None
    if not isinstance(parsed, dict):
        return None
    known = "kind_to" in parsed or (lineage and "event" in parsed)
    return parsed if known else None


def in_time_order(records: Iterable[dict[str, Any]], last: int | None) -> list[dict[str, Any]]:
    """Records of all partitions by the time they tell, a user's by version.

    Args:
        last: only so many of the latest; None for all.
    """

    def order(record: dict[str, Any]) -> tuple[str, str, int]:
        return record["at"], record.get("user", ""), record.get("version", 0)

    if last is None:
        return sorted(records, key=order)
    return nlargest(last, records, key=order)[::-1]


def since_ms(text: str, now_ms: Callable[[], int]) -> int:
    """A time that is given as such, or as how long ago it was.

    Raises:
        ValueError: it is neither.
    """
    if text.strip()[-1:].isalpha() and text.strip()[-1] not in "Zz":
        ago_ms = min(float(parse_duration(text)) * 1_000, 1e15)
        return max(now_ms() - round(ago_ms), 0)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            "expected a time such as 2026-01-31T12:00Z, or how long ago: 30d"
        ) from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000)


def wanted(
    record: dict[str, Any], user: str | None, kind: str | None, since: str | None = None
) -> bool:
    """Whether a record passes the filters of `segstream changes`; a segment is no user."""
    if since is not None and record["at"] < since:
        return False
    theirs = user is None or record.get("user") == user
    return theirs and (kind is None or record.get("kind_to", record.get("kind")) == kind)


def show_user(console: Console, facts: dict[str, Any], table: FeatureTable) -> None:
    """`segstream user` for people."""
    known = {feature.name: feature for feature in table.features}
    segment = facts["segment"]
    title = f"User {facts['user']} at {facts['at']}"
    console.print(Text(title, style="bold"))
    if segment is None:
        console.print("in no segment yet")
    else:
        kind = Text(segment["kind"], style=KIND_STYLES.get(segment["kind"], ""))
        console.print(
            Text.assemble(
                f"segment {segment['id']}, {segment['name']} (",
                kind,
                f"), since {segment['since']}",
            )
        )
    if facts["last_seen"] is None:
        console.print("not seen yet: only the shop has acted")
    else:
        console.print(f"first seen {facts['first_seen']}, last seen {facts['last_seen']}")
    features = Table(title="Features now", title_justify="left")
    features.add_column("feature")
    features.add_column("value", justify="right")
    features.add_column("unit")
    for entry in facts["features"]:
        features.add_row(
            entry["feature"], exact(entry["value"], known[entry["feature"]]), entry["unit"]
        )
    console.print(features)
    if facts.get("distances"):
        near = Table(title="Nearest segments", title_justify="left")
        near.add_column("segment", justify="right")
        near.add_column("name")
        near.add_column("distance, sd", justify="right")
        for entry in facts["distances"][:4]:
            near.add_row(str(entry["segment"]), entry["name"], f"{entry['distance']:.2f}")
        console.print(near)
    if facts["changes"]:
        console.print(Text("Last changes", style="italic"))
        for change in facts["changes"]:
            console.print(change_line(change))


def record_line(record: dict[str, Any]) -> Text:
    """A change, or what became of a segment, as a sentence."""
    if "event" not in record:
        return change_line(record)
    return Text.assemble(
        (f"{record['at'][:16].replace('T', ' ')}  ", "dim"),
        (lineage_line(record), "bold"),
        f"  {record['name']} (",
        (record["kind"], KIND_STYLES.get(record["kind"], "")),
        f"), {record['users']:,} users",
    )


def change_line(change: dict[str, Any] | SegmentChange) -> Text:
    """One change as a sentence."""
    kind_to = change["kind_to"]
    line = Text(f"{change['at'][:16].replace('T', ' ')}  ", style="dim")
    line.append(f"{change['user']}", style="bold")
    if change["from"] is None:
        line.append("  enters ")
    else:
        line.append("  ")
        line.append(str(change["kind_from"] or "?"), KIND_STYLES.get(change["kind_from"] or "", ""))
        line.append(f" {change['from']} -> ")
    line.append(kind_to, KIND_STYLES.get(kind_to, ""))
    line.append(f" {change['to']}  ")
    line.append(change["cause"].replace("_", " "), "italic")
    reasons = [
        f"{reason['feature']} {natural(reason['value'])}"
        for reason in change["why"]
        if reason["contribution"] > 0
    ]
    if reasons:
        line.append("  " + ", ".join(reasons), "dim")
    return line


def churn_risk_moves(changes: Iterable[dict[str, Any]]) -> int:
    """Moves into a kind that stands for churn risk, from one that does not."""
    return sum(
        change["kind_to"] in CHURN_RISK_KINDS and change["kind_from"] not in CHURN_RISK_KINDS
        for change in changes
    )
