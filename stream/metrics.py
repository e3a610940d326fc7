"""Declares every metric once, behind functions named for what happened.

Comes in: happenings, as typed arguments. Goes out: Prometheus metrics in `REGISTRY`, served by
`stream.health`. Nobody else touches a counter, so a name, its unit and its meaning stand here
and nowhere else. All functions may be called from any thread.
"""

from __future__ import annotations

import math
import platform
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from confluent_kafka import libversion
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from stream.events import Cause, Counts, Reason
from stream.store.state import Answer

REGISTRY = CollectorRegistry()
# A second series for every counter, of no use to any of our rules.
disable_created_metrics()  # type: ignore[no-untyped-call]
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

_RESULTS = ("applied", "duplicate", "late", "ignored", "rejected")
_NONE = "none"


class _Age:
    """Seconds since something last happened, told when asked; NaN before the first time."""

    def __init__(self, name: str, meaning: str) -> None:
        self._clock: Callable[[], float] = time.monotonic
        self._at = math.nan
        Gauge(name, meaning, registry=REGISTRY).set_function(lambda: self._clock() - self._at)

    def restart(self) -> None:
        self._at = self._clock()


@dataclass(frozen=True)
class PartitionLag:
    """How far behind its input topics a partition is.

    Attributes:
        seconds: age of the oldest record that is not committed; 0 if there is none.
        records: how many are not, by topic.
    """

    partition: int
    seconds: float
    records: Mapping[str, int]


class _Told(Collector):
    """A gauge whose values are worked out when they are asked for, by a function of labels."""

    def __init__(
        self,
        name: str,
        meaning: str,
        labels: Sequence[str],
        tell: Callable[[], Iterable[tuple[Sequence[str], float]]],
    ) -> None:
        self._name, self._meaning = f"segstream_{name}", meaning
        self._labelnames = tuple(labels)
        self._tell = tell
        REGISTRY.register(self)

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(self._name, self._meaning, labels=self._labelnames)
        for labels, value in self._tell():
            family.add_metric(labels, value)
        yield family


@dataclass(frozen=True)
class Effects:
    """What is known of campaigns over all partitions.

    Attributes:
        compared: by campaign, arm, ``conversion``, ``active`` or ``revenue``, and ``difference``, ``low`` or
            ``high``.
        evidence: by campaign, that users do not stand in their arms as declared.
    """

    compared: Mapping[tuple[str, str, str, str], float]
    evidence: Mapping[str, float]


class _Deadlines:
    """For each label whether its deadline lies ahead, told when asked; see `_Told`."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def extend(self, label: str, seconds: float) -> None:
        self._until[label] = time.monotonic() + seconds

    def tell(self) -> Iterable[tuple[Sequence[str], float]]:
        now = time.monotonic()
        return [((label,), float(now < until)) for label, until in self._until.copy().items()]


class _Ages:
    """For each label seconds since a moment, or 0 for none, told when asked; see `_Told`."""

    def __init__(self) -> None:
        self._since: dict[str, float | None] = {}

    def set(self, label: str, age_seconds: float | None) -> None:
        self._since[label] = None if age_seconds is None else time.monotonic() - age_seconds

    def clear(self) -> None:
        self._since.clear()

    def tell(self) -> Iterable[tuple[Sequence[str], float]]:
        now = time.monotonic()
        return [
            ((label,), 0.0 if since is None else now - since)
            for label, since in self._since.copy().items()
        ]


class _WeightedHistogram(Collector):
    """A histogram that takes many equal observations at once.

    prometheus_client's own takes one at a time, which for a thousand changes that were delivered
    together costs more than delivering them.
    """

    def __init__(self, name: str, meaning: str, bounds: Sequence[float]) -> None:
        self._name, self._meaning = name, meaning
        self._bounds = (*bounds, math.inf)
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0
        self._lock = threading.Lock()
        REGISTRY.register(self)

    def observe(self, value: float, times: int) -> None:
        with self._lock:
            self._counts[bisect_left(self._bounds, value)] += times
            self._sum += value * times

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            counts, total = list(self._counts), self._sum
        running, buckets = 0, []
        for bound, count in zip(self._bounds, counts, strict=True):
            running += count
            buckets.append(("+Inf" if math.isinf(bound) else repr(float(bound)), float(running)))
        yield HistogramMetricFamily(self._name, self._meaning, buckets=buckets, sum_value=total)


def _counter(name: str, meaning: str, *labels: str) -> Counter:
    return Counter(f"segstream_{name}", meaning, labels, registry=REGISTRY)


def _gauge(name: str, meaning: str, *labels: str) -> Gauge:
    return Gauge(f"segstream_{name}", meaning, labels, registry=REGISTRY)


def _histogram(name: str, meaning: str, bounds: Sequence[float]) -> Histogram:
    return Histogram(f"segstream_{name}", meaning, registry=REGISTRY, buckets=bounds)


# -- declarations -----------------------------------------------------------------------------

_events = _counter(
    "events_total",
    "Messages by what became of them, once that is committed; their sum is what was consumed, marks"
    " aside.",
    "result",
)
_clamped = _counter(
    "events_clamped_total", "Applied events whose time lay in the future and was cut back."
)
_marks = _counter("marks_total", "Marks of the shop's clock; they are no events.")
_rejects = _counter(
    "rejects_total", "Refused messages by reason, once they are filed and committed.", "reason"
)
_reject_alert = _gauge(
    "reject_alert",
    "1 while refusals are over worker.reject_consecutive_limit or worker.reject_ratio_limit, else 0.",
)
_misplaced = _counter(
    "misplaced_events_total",
    "Events found in another partition than their user's, refused or not; see worker.misplaced.",
    "topic",
)
_clock_jump = _gauge(
    "clock_jump_seconds",
    "How far the wall clock jumped, while live mode does not follow it yet; 0 while it is followed.",
)
_slowed = _counter(
    "reject_pauses_total",
    "Pauses in reading a topic's partition because letters came faster than"
    " worker.letters_per_second.",
)
_Told(
    "lag_seconds",
    "Age of the oldest record of a partition's input topics that is not committed; 0 if there is"
    " none. While the broker does not say where they end: since it last bore witness to that.",
    ("partition",),
    lambda: [((str(lag.partition),), lag.seconds) for lag in _lags()],
)
_Told(
    "lag_records",
    "Records of an input topic's partition that are not committed, by what the broker last said of"
    " its end.",
    ("topic", "partition"),
    lambda: [
        ((topic, str(lag.partition)), records)
        for lag in _lags()
        for topic, records in lag.records.items()
    ],
)
_batch = _histogram(
    "batch_to_commit_seconds",
    "From a batch's first event being read to its commit in the store.",
    (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 15, 60),
)
_commits = _counter("commits_total", "Commits by the store's answer.", "answer")
_declared = _gauge(
    "partitions", "Partitions of the input topics, by an activity worker's settings."
)
_owned = _gauge("partitions_owned", "Partitions this process owns.")
_unaccounted = _gauge(
    "unaccounted_records",
    "Records before a partition's committed offsets that are in no count of results or marks. 0,"
    " apart from the markers that a producer with transactions leaves in a log.",
    "partition",
)
_users = _gauge("partition_users", "Users of an owned partition.", "partition")
_remembered = _gauge(
    "partition_remembered_ids",
    "Message ids that an owned partition remembers; past worker.remembered_ids a topic, the oldest "
    "are forgotten early.",
    "partition",
)
_orders = _gauge("partition_orders", "Orders that an owned partition remembers.", "partition")
_early = _counter(
    "ids_forgotten_early_total",
    "Message ids forgotten before their time, for worker.remembered_ids was reached; what is sent "
    "again of them counts twice.",
)
_sweeps = _histogram(
    "sweep_seconds",
    "How long a sweep over everyone took.",
    (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10),
)
_sweep_age = _Age("segstream_sweep_age_seconds", "Since the last sweep of this process.")
_outbox = _gauge(
    "outbox_entries", "Changes' entries committed and not yet confirmed by Kafka.", "partition"
)
_outbox_age = _Ages()
_Told(
    "outbox_age_seconds",
    "Age of a partition's oldest unconfirmed entry; 0 for none.",
    ("partition",),
    _outbox_age.tell,
)
_leads = _Deadlines()
_Told(
    "leader",
    "Whether this process leads in a role: it holds the lease, and the lease has not run out.",
    ("role",),
    _leads.tell,
)
_build = _gauge("build_info", "What runs here; always 1.", "version", "python", "librdkafka")
_epoch = _gauge("model_epoch", "Epoch of the model in force; a refit begins a new one.")
_version = _gauge("model_version", "Version of the model in force, within its epoch.")
_model_age = _Age(
    "segstream_model_age_seconds", "Since this process took up, or published, its model."
)
_inertia = _gauge(
    "model_inertia",
    "Mean squared distance of the users to their centroids, by the leading trainer's last round.",
)
_silhouette = _gauge(
    "model_silhouette",
    "How far apart the segments lie, of a sample, from -1 to 1; NaN where it is not known.",
)
for _judgement in (_inertia, _silhouette):
    _judgement.set(math.nan)
_segments = _gauge("segment_users", "Users in a segment.", "segment", "kind")
_population_users = _gauge("population_users", "Users in a population, by its rule.", "population")
_population_inertia = _gauge(
    "population_inertia",
    "Mean squared distance of a population's users to the nearest centroid, in sd squared.",
    "population",
)
_score_auc = _gauge(
    "score_auc",
    "How well a score's last predictions ranked who bought, .5 by chance and 1 at best; each was made "
    "before it was known.",
    "score",
)
_score_loss = _gauge("score_log_loss", "Mean log loss of a score's last predictions.", "score")
_score_calibration = _gauge(
    "score_calibration_error",
    "Mean distance of a score's last predictions and the share who bought, over quantile bins.",
    "score",
)
_score_labels = _gauge("score_labels", "Looks that a score was learned from.", "score")
_looks = _gauge(
    "pending_looks", "Looks at customers of which it is not known yet what came of them."
)
_changes = _counter(
    "changes_total",
    "Segment changes committed, by cause and kinds.",
    "cause",
    "kind_from",
    "kind_to",
)
_crossings = _counter(
    "level_changes_total",
    "Crossings from one step of a level to another committed, by cause.",
    "level",
    "step_from",
    "step_to",
    "cause",
)
_level_users = _gauge("level_users", "Users on each step of a level.", "level", "step")
_left = _counter("segment_changes_total", "Changes by the segment that was left.", "segment")
_reverted = _counter(
    "segment_reversions_total",
    "Of these, changes back to the segment the user had been in soon before.",
    "segment",
)
_delivered = _counter("changes_delivered_total", "Changes confirmed by Kafka.")
_delivery = _WeightedHistogram(
    "segstream_change_delivery_seconds",
    "From what made a change to Kafka's confirmation of it: the append of the oldest event looked at"
    " with it, the sending of the mark, or the sweep.",
    (0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.1, 0.2, 0.5, 1, 2, 5, 15, 30, 60),
)
_retries = _counter("publisher_retries_total", "Deliveries given up and begun afresh.")
_output_lacks = _gauge(
    "output_lacks_changes",
    "1 while the output lacks what was delivered before, for it was made anew or cut: republish.",
)
_role_records = _counter("role_records_total", "Records that a role has taken in.", "role")
_role_partitions = _gauge(
    "role_partitions_owned", "Partitions that this process owns in a role.", "role"
)
_role_outbox = _gauge(
    "role_outbox_entries",
    "A role's entries committed and not yet confirmed by Kafka.",
    "role",
    "partition",
)
_role_delivered = _counter(
    "role_records_delivered_total", "Records of a role confirmed by Kafka.", "role"
)
_role_output_lacks = _gauge(
    "role_output_lacks_records",
    "1 while a role's topic lacks what was delivered before, for it was made anew or cut.",
    "role",
)
_campaign_pairs = _counter(
    "campaign_changes_total",
    "Changes that were looked at for a campaign: the sum over its outcomes, but for those settling "
    "or waiting.",
    "campaign",
)
_campaign_outcomes = _counter(
    "campaign_outcomes_total", "What became of changes in the end.", "campaign", "outcome"
)
_campaign_measured = _counter(
    "campaign_measured_users_total",
    "Users whose window of effect is over, and of them who converted and who were active.",
    "campaign",
    "arm",
    "what",
)
_campaign_revenue = _counter(
    "campaign_measured_revenue_total", "What they bought within it.", "campaign", "arm"
)
_campaign_unreadable = _counter(
    "campaign_control_unreadable_total",
    "Records of campaign-control that cannot be obeyed, or lie in another partition than their user's.",
)
_campaign_refused = _counter(
    "campaign_records_refused_total",
    "Records of segment-changes that no campaign is offered: unreadable, of a time that no change can have, "
    "foreign, with an id that is not their user's, or in another partition than their user's.",
    "reason",
)
# What this process last found out about campaigns.
_effects = Effects({}, {})

_Told(
    "campaign_effect",
    "Treated less held out, of all partitions and the declaration in force: the difference, and the ends "
    "of the interval that holds at all looks; none while there are too few users.",
    ("campaign", "arm", "what", "value"),
    lambda: list(_effects.compared.items()),
)
_Told(
    "campaign_ratio_evidence",
    "How many times likelier users stand in their arms in other shares than declared; by chance one "
    "campaign in a thousand ever has 1,000.",
    ("campaign",),
    lambda: [((name,), evidence) for name, evidence in _effects.evidence.items()],
)
_webhook_attempts = _counter(
    "webhook_attempts_total",
    "Attempts at an endpoint, by what they came to: 2xx, 4xx and so on, none without a whole answer.",
    "endpoint",
    "answer",
)
_webhook_counted = _counter(
    "webhook_deliveries_total",
    "Deliveries: taken, and what became of them: delivered, dropped with their user, or the reason for "
    "which they were parked. Those taken less all others wait.",
    "endpoint",
    "outcome",
)
_webhook_waits = _gauge(
    "webhook_waiting_deliveries", "Deliveries that wait or are under way.", "endpoint", "partition"
)
_webhook_failed = _gauge(
    "webhook_endpoint_failed",
    "1 while an endpoint is left alone, after failures in a row or for it wants nothing any more.",
    "endpoint",
    "partition",
)
_webhook_unreadable = _counter(
    "webhook_unreadable_total",
    "Records passed over, for they cannot be read, or no campaign of this namespace has sent them.",
    "topic",
)
_api_answers = _counter(
    "api_requests_total",
    "Requests that were answered, by operation and status.",
    "operation",
    "status",
)
_api_seconds = _histogram(
    "api_request_seconds",
    "From a request to the beginning of its answer.",
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
)
_api_readers = _gauge("api_feed_readers", "Who follow the feed of changes.")
_api_dropped = _counter(
    "api_feed_dropped_total", "Readers of the feed that did not keep up, and were dropped."
)
_rounds = _histogram(
    "trainer_round_seconds",
    "How long a trainer round took: merge, move, publish.",
    (0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10),
)
_refits = _histogram(
    "trainer_refit_seconds",
    "How long a refit took; each is part of a round.",
    (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
)
_unavailable = _counter("unavailable_total", "Times that a neighbour did not answer.", "neighbour")
_store_used = _gauge(
    "store_memory_bytes", "Memory that the store's server uses, by trainer and publisher."
)
_store_limit = _gauge(
    "store_memory_limit_bytes", "The server's maxmemory, at which it refuses writes; 0 for none."
)
_store_evicted = _gauge(
    "store_evicted_keys",
    "Keys that the server has dropped for want of memory since it was started.",
)
_failed = _gauge(
    "role_failed",
    "1 once a role has ended with an error that needs a person; see metrics.linger_seconds.",
    "role",
    "error",
)
_Told(
    "role_ready",
    "Whether a role of this process does its work; 0 while it starts, waits or is stuck.",
    ("role",),
    lambda: [((role,), float(ready)) for role, ready in _tell_roles().items()],
)

# Says of each role of this process whether it is ready.
_tell_roles: Callable[[], Mapping[str, bool]] = dict

# Whoever can tell how far behind they are, or nobody.
_tell_lags: Callable[[], Iterable[PartitionLag]] | None = None


def _lags() -> Iterable[PartitionLag]:
    tell = _tell_lags
    return [] if tell is None else tell()


def _installed() -> str:
    try:
        return version("segstream")
    except PackageNotFoundError:
        return "unknown"


_build.labels(_installed(), platform.python_version(), libversion()[0]).set(1)

# Which series with changing labels exist now.
_partitions: set[int] = set()
_sized: set[tuple[int, str]] = set()
_lock = threading.Lock()

# A series that appears only with its first happening cannot be compared with before.
for _result in _RESULTS:
    _events.labels(_result)
for _reason in Reason:
    _rejects.labels(_reason.value)
for _answer in Answer:
    _commits.labels(_answer.value)
for _neighbour in ("broker", "store"):
    _unavailable.labels(_neighbour)


# -- happenings of the activity worker --------------------------------------------------------


def events_consumed(counts: Counts) -> None:
    """Messages found their result in a commit that was applied; `counts` are of these alone."""
    for result in _RESULTS:
        if number := getattr(counts, result):
            _events.labels(result).inc(number)
    if counts.clamped:
        _clamped.inc(counts.clamped)
    if counts.marks:
        _marks.inc(counts.marks)


def reject_alert(raised: bool) -> None:
    """Whether refusals are over their limits."""
    _reject_alert.set(raised)


def reading_slowed() -> None:
    """A topic's partition is not read for a while, for its letters come too fast."""
    _slowed.inc()


def clock_jumped(seconds: float) -> None:
    """The wall clock jumped by so much against what passes, and is not followed yet; 0: it is."""
    _clock_jump.set(seconds)


def misplaced(topic: str, events: int) -> None:
    """Events were found in another partition than their user's."""
    _misplaced.labels(topic).inc(events)


def message_rejected(reason: Reason, times: int = 1) -> None:
    """Messages were refused for a reason, and passed in a commit that was applied."""
    _rejects.labels(reason.value).inc(times)


def lag_told_by(tell: Callable[[], Iterable[PartitionLag]] | None) -> None:
    """Who is to be asked how far behind this process is, whenever somebody wants to know."""
    global _tell_lags  # noqa: PLW0603 - who is asked is this module's to know
    _tell_lags = tell


def commit_answered(answer: Answer) -> None:
    """The store answered to a commit."""
    _commits.labels(answer.value).inc()


def batch_committed(seconds: float) -> None:
    """A batch was committed, this long after its first event was read."""
    _batch.observe(seconds)


def partitions_declared(partitions: int) -> None:
    """The input topics have so many partitions, all of which somebody should own."""
    _declared.set(partitions)


def records_accounted(partition: int, unaccounted: int) -> None:
    """A commit was applied; so many records before its offsets are in no count."""
    _unaccounted.labels(str(partition)).set(unaccounted)


def partition_acquired(partition: int, users: int, ids: int, orders: int) -> None:
    """A partition was taken over, with so many users, message ids and orders loaded."""
    with _lock:
        _partitions.add(partition)
        _owned.set(len(_partitions))
    users_counted(partition, users, ids, orders)


def partition_released(partition: int) -> None:
    """A partition was handed on or lost; its series end here."""
    with _lock:
        _partitions.discard(partition)
        _owned.set(len(_partitions))
    for gauge in (_users, _remembered, _orders, _unaccounted):
        gauge.remove_by_labels({"partition": str(partition)})


def users_counted(partition: int, users: int, ids: int, orders: int) -> None:
    """A partition has so many users, and remembers so many message ids and orders."""
    _users.labels(str(partition)).set(users)
    _remembered.labels(str(partition)).set(ids)
    _orders.labels(str(partition)).set(orders)


def ids_forgotten_early(ids: int) -> None:
    """The cap on message ids was reached: the oldest were forgotten before their time."""
    _early.inc(ids)


def swept(seconds: float) -> None:
    """Everyone was looked at, which took so long."""
    _sweeps.observe(seconds)
    _sweep_age.restart()


def changes_committed(cause: Cause, kind_from: str | None, kind_to: str, times: int = 1) -> None:
    """Users' moves from one kind of segment to another were applied; no kind before their first."""
    _changes.labels(cause.value, kind_from or _NONE, kind_to).inc(times)


def level_crossed(
    level: str, step_from: str | None, step_to: str | None, cause: Cause, times: int = 1
) -> None:
    """Users' crossings from one step of a level to another were applied."""
    _crossings.labels(level, step_from or _NONE, step_to or _NONE, cause.value).inc(times)


def level_users(found: Mapping[tuple[str, str], int]) -> None:
    """So many users are on each step, by level and step."""
    _level_users.clear()
    for (level, step), users in found.items():
        _level_users.labels(level, step).set(users)


def segments_left(changes: Mapping[int, int], reverted: Mapping[int, int]) -> None:
    """So many users left each segment, so many of them for the one they were in soon before.

    Like all changes, told when the commit was applied.
    """
    for segment, users in changes.items():
        _left.labels(str(segment)).inc(users)
        # With 0 too: a share needs both series.
        _reverted.labels(str(segment)).inc(reverted.get(segment, 0))


def model_adopted(epoch: int, version: int) -> None:
    """A model came into force here; at the trainer: was published."""
    _epoch.set(epoch)
    _version.set(version)
    _model_age.restart()


def segments_counted(sizes: Mapping[tuple[int, str], int]) -> None:
    """The segments, by id and kind, have so many users; of those not named there is nothing to tell."""
    global _sized  # noqa: PLW0603 - which series exist is this module's to know
    with _lock:
        for segment, kind in _sized - sizes.keys():
            _segments.remove(str(segment), kind)
        for (segment, kind), users in sizes.items():
            _segments.labels(str(segment), kind).set(users)
        _sized = set(sizes)


def populations_counted(found: Mapping[str, tuple[int, float | None]]) -> None:
    """Each population has so many users, and this inertia; None of one not learned yet."""
    _population_users.clear()
    _population_inertia.clear()
    for name, (users, inertia) in found.items():
        _population_users.labels(name).set(users)
        if inertia is not None:
            _population_inertia.labels(name).set(inertia)


def scores_judged(found: Mapping[str, tuple[int, Sequence[float | None]]], looks: int) -> None:
    """Each score was learned from so many looks, and has this AUC, log loss and calibration error.

    None of the three where there is nothing to tell; so many looks are yet to be learned from.
    """
    gauges = (_score_auc, _score_loss, _score_calibration)
    for gauge in (*gauges, _score_labels):
        gauge.clear()
    for name, (labels, judged) in found.items():
        _score_labels.labels(name).set(labels)
        for gauge, value in zip(gauges, judged, strict=True):
            if value is not None:
                gauge.labels(name).set(value)
    _looks.set(looks)


# -- happenings of the publisher --------------------------------------------------------------


class Outbox:
    """What a publisher tells of the outboxes it empties.

    Args:
        role: whose they are: the changes' are those of ``publisher``.
    """

    def __init__(self, role: str) -> None:
        self._role = role
        self._is_of_changes = role == "publisher"

    def left(self) -> None:
        """This process does not lead the publishing: what it last saw is stale."""
        if self._is_of_changes:
            _outbox.clear()
            _outbox_age.clear()
        else:
            _role_outbox.remove_by_labels({"role": self._role})

    def measured(self, partition: int, entries: int, age_seconds: float) -> None:
        """A partition's outbox has so many entries, the oldest this old (0 if there is none)."""
        if self._is_of_changes:
            _outbox.labels(str(partition)).set(entries)
            _outbox_age.set(str(partition), age_seconds if entries else None)
        else:
            _role_outbox.labels(self._role, str(partition)).set(entries)

    def delivered(self, records: int, seconds: float) -> None:
        """Records of one entry were confirmed, this long after what made them: see the metric."""
        if self._is_of_changes:
            _delivered.inc(records)
            _delivery.observe(seconds, records)
        else:
            _role_delivered.labels(self._role).inc(records)

    def lacks(self, lacks: bool) -> None:
        """The output lacks, or does not lack, what was delivered to it."""
        if self._is_of_changes:
            _output_lacks.set(lacks)
        else:
            _role_output_lacks.labels(self._role).set(lacks)


def delivery_retried() -> None:
    """A delivery failed; the producer is made anew and the outbox taken up afresh."""
    _retries.inc()


# -- happenings of any other role that owns partitions ----------------------------------------


def role_records(role: str, records: int) -> None:
    """A role has taken in records, in a commit that was applied."""
    _role_records.labels(role).inc(records)


def role_partitions(role: str, partitions: int) -> None:
    """A role owns so many partitions here."""
    _role_partitions.labels(role).set(partitions)


def campaign_decided(campaign: str, changes: int, ended: Mapping[str, int]) -> None:
    """A commit was applied that looked at so many changes for a campaign.

    Args:
        ended: by outcome, how many came to it; not those that are still settling or waiting.
    """
    _campaign_pairs.labels(campaign).inc(changes)
    for outcome, count in ended.items():
        _campaign_outcomes.labels(campaign, outcome).inc(count)


def campaign_measured(
    campaign: str, arm: str, over: int, converted: int, active: int, revenue: float
) -> None:
    """The windows of so many users are over, in a commit that was applied."""
    for what, count in (("over", over), ("converted", converted), ("active", active)):
        _campaign_measured.labels(campaign, arm, what).inc(count)
    # Less than nothing may be left of an order that was refunded twice.
    _campaign_revenue.labels(campaign, arm).inc(max(revenue, 0.0))


def campaign_effects(effects: Effects) -> None:
    """What all partitions together say of campaigns was worked out anew."""
    global _effects  # noqa: PLW0603 - what is told is this module's to know
    _effects = effects


def campaign_control_unreadable() -> None:
    """A record was passed over."""
    _campaign_unreadable.inc()


def campaign_record_refused(reason: str, count: int) -> None:
    """So many records of changes were refused."""
    _campaign_refused.labels(reason).inc(count)


def webhook_declared(endpoint: str, outcomes: Iterable[str]) -> None:
    """There is an endpoint: what never happened to it is counted from 0 on, so that a first time shows."""
    for outcome in outcomes:
        _webhook_counted.labels(endpoint, outcome)
    for answer in ("2xx", "none"):
        _webhook_attempts.labels(endpoint, answer)


def webhook_attempts(endpoint: str, answer: str, count: int) -> None:
    """So many attempts at an endpoint came to an answer of a class, or to none."""
    _webhook_attempts.labels(endpoint, answer).inc(count)


def webhook_counted(endpoint: str, outcome: str, count: int) -> None:
    """So many deliveries were taken, or came to an end, in a commit that was applied."""
    _webhook_counted.labels(endpoint, outcome).inc(count)


def webhook_waits(endpoint: str, partition: str, waiting: int, is_open: bool) -> None:
    """So many deliveries of a partition wait for an endpoint, which may be left alone for now."""
    _webhook_waits.labels(endpoint, partition).set(waiting)
    _webhook_failed.labels(endpoint, partition).set(is_open)


def webhooks_left(partition: str) -> None:
    """Another process serves the deliveries of a partition."""
    _webhook_waits.remove_by_labels({"partition": partition})
    _webhook_failed.remove_by_labels({"partition": partition})


def webhook_unreadable(topic: str) -> None:
    """A record was passed over."""
    _webhook_unreadable.labels(topic).inc()


def api_answered(operation: str, status: int, seconds: float) -> None:
    """A request was answered."""
    _api_answers.labels(operation, str(status)).inc()
    _api_seconds.observe(seconds)


def api_readers(readers: int) -> None:
    """So many follow the feed of changes."""
    _api_readers.set(readers)


def api_reader_dropped() -> None:
    """A reader of the feed did not keep up."""
    _api_dropped.inc()


# -- happenings of the trainer ----------------------------------------------------------------


def round_completed(seconds: float) -> None:
    """A round of the trainer was completed, which took so long."""
    _rounds.observe(seconds)


def refitted(seconds: float) -> None:
    """The model was fitted anew, which took so long."""
    _refits.observe(seconds)


def model_judged(inertia: float, silhouette: float | None) -> None:
    """The leading trainer knows how good its model is."""
    _inertia.set(inertia)
    _silhouette.set(math.nan if silhouette is None else silhouette)


# -- happenings anywhere ----------------------------------------------------------------------


def roles_told_by(tell: Callable[[], Mapping[str, bool]]) -> None:
    """Who is to be asked which roles run in this process, and whether each is ready."""
    global _tell_roles  # noqa: PLW0603 - who is asked is this module's to know
    _tell_roles = tell


def role_failed(role: str, error: str) -> None:
    """A role ended with an error that does not pass by itself, by the error's name."""
    _failed.labels(role, error).set(1)


def store_measured(used_bytes: int, limit_bytes: int, evicted_keys: int) -> None:
    """The store's server told of its memory."""
    _store_used.set(used_bytes)
    _store_limit.set(limit_bytes)
    _store_evicted.set(evicted_keys)


def lease_held(role: str, seconds: float) -> None:
    """This process leads in a role, for so long unless it says so again."""
    _leads.extend(role, seconds)


def lease_missed(role: str) -> None:
    """Another process leads in a role, or nobody."""
    _leads.extend(role, 0.0)


def store_missed() -> None:
    """The store did not answer, or refused to write."""
    _unavailable.labels("store").inc()


def broker_missed() -> None:
    """The broker did not answer."""
    _unavailable.labels("broker").inc()
