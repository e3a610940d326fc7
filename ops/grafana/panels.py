"""What the dashboards show: service, segments and flows, learning.

Comes in: the metrics of `stream.metrics`. Goes out: `DASHBOARDS`; `ops.grafana` makes Grafana's JSON
of them. Queries are written without namespace and job, which are put in for every series.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stream.kinds import CHURN_RISK_KINDS

RATE = "[$__rate_interval]"
AT_RISK = "|".join(CHURN_RISK_KINDS)
NEEDED = ("activity", "trainer", "publisher")
"""Roles without which the pipeline does not work; others are there for whoever wants them."""


@dataclass(frozen=True)
class Panel:
    """One picture.

    Attributes:
        queries: each with the legend of what it gives.
        limits: values from which it is orange, and red.
        absent: what a number says where there is none.
        from_zero: whether less than zero makes no sense.
    """

    title: str
    meaning: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    kind: Literal["stat", "timeseries"] = "timeseries"
    width: int = 8
    limits: tuple[float, ...] = ()
    absent: str = ""
    from_zero: bool = True
    stacked: bool = False


@dataclass(frozen=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Dashboard:
    name: str
    title: str
    meaning: str
    rows: tuple[Row, ...]


def number(
    title: str,
    meaning: str,
    unit: str,
    *queries: tuple[str, str],
    absent: str = "no data",
    limits: tuple[float, ...] = (),
    width: int = 3,
    from_zero: bool = True,
) -> Panel:
    """A number as it is now."""
    return Panel(
        title, meaning, unit, queries,
        kind="stat", width=width, limits=limits, absent=absent, from_zero=from_zero,
    )  # fmt: skip


def lines(
    title: str,
    meaning: str,
    unit: str,
    *queries: tuple[str, str],
    width: int = 8,
    stacked: bool = False,
    from_zero: bool = True,
) -> Panel:
    """Lines over time."""
    return Panel(
        title, meaning, unit, queries, width=width, stacked=stacked, from_zero=from_zero
    )  # fmt: skip


def quantiles(metric: str) -> tuple[tuple[str, str], ...]:
    """Median and 99th percentile of a histogram."""
    return tuple(
        (f"histogram_quantile({share}, sum by (le) (rate({metric}_bucket{RATE})))", legend)
        for share, legend in (("0.5", "p50"), ("0.99", "p99"))
    )


SERVICE = Dashboard(
    "service",
    "segstream: service",
    "Is it well, how fast is it, and what holds it up.",
    (
        Row(
            "At a glance",
            (
                number(
                    "Roles without a ready process",
                    "Of activity, trainer and publisher. A role that nothing is heard of counts.",
                    "short",
                    (
                        (
                            f"{len(NEEDED)} - count(max by (role)"
                            f' (segstream_role_ready{{role=~"{"|".join(NEEDED)}"}}) == 1)'
                            f" or vector({len(NEEDED)})"
                        ),
                        "roles",
                    ),
                    limits=(0.5, 1),
                ),
                number(
                    "Events",
                    "Messages read a second, whatever became of them.",
                    "eps",
                    (f"sum(rate(segstream_events_total{RATE}))", "events"),
                    absent="no worker",
                ),
                number(
                    "Lag",
                    "The partition that is furthest behind: 0 when everything is committed, growing while"
                    " nothing is read or committed. Grows: more workers, or a store or broker that stands"
                    " still.",
                    "s",
                    ("max(min by (partition) (segstream_lag_seconds))", "lag"),
                    absent="nobody reads",
                    limits=(5, 60),
                ),
                number(
                    "Partitions without an owner",
                    "Nobody reads them, so no lag is told of them.",
                    "short",
                    ("max(segstream_partitions) - sum(segstream_partitions_owned)", "partitions"),
                    absent="no worker",
                    limits=(0.5, 1),
                    from_zero=False,
                ),
                number(
                    "Event to change, p99",
                    "From the append of the oldest event looked at together, the mark or the sweep to"
                    " Kafka's confirmation of the change.",
                    "s",
                    quantiles("segstream_change_delivery_seconds")[1],
                    absent="no change",
                    limits=(2, 10),
                ),
                number(
                    "Oldest undelivered change",
                    "Age of the oldest entry in any outbox. Grows: the output topic cannot be written.",
                    "s",
                    ("max(segstream_outbox_age_seconds)", "age"),
                    absent="nobody publishes",
                    limits=(10, 60),
                ),
                number(
                    "Sweep age",
                    "Since the last look at everyone, of the worker that is furthest behind. Without"
                    " sweeps silence moves nobody.",
                    "s",
                    (
                        "max(segstream_sweep_age_seconds and on (instance) segstream_partitions_owned > 0)",
                        "age",
                    ),
                    absent="nobody sweeps",
                    limits=(30, 60),
                ),
                number(
                    "Alerts",
                    "That are firing; each has a page of its name in `ops/runbooks`.",
                    "short",
                    (
                        'count(ALERTS{alertname=~"Segstream.*", alertstate="firing"}) or vector(0)',
                        "alerts",
                    ),
                    limits=(1, 3),
                ),
            ),
        ),
        Row(
            "Service levels",
            (
                lines(
                    "Changes within two seconds",
                    "Share of the changes that were delivered within two seconds of what made them; the"
                    " aim is 99 % over 30 days.",
                    "percentunit",
                    ("namespace_job:segstream_changes_fresh:ratio_rate5m", "{{job}} 5 min"),
                    ("namespace_job:segstream_changes_fresh:ratio_rate1h", "{{job}} 1 h"),
                    ("namespace_job:segstream_changes_fresh:ratio_rate6h", "{{job}} 6 h"),
                ),
                lines(
                    "Event to delivered change",
                    "From the append of the oldest event looked at together, the mark or the sweep to"
                    " Kafka's confirmation of the change.",
                    "s",
                    *quantiles("segstream_change_delivery_seconds"),
                ),
                lines(
                    "Records in no count",
                    "Before the committed offsets and neither applied, duplicate, late, ignored, rejected"
                    " nor a mark. Level: the markers of a producer with transactions aside, 0.",
                    "short",
                    ("max by (partition) (segstream_unaccounted_records)", "{{partition}}"),
                    from_zero=False,
                ),
            ),
        ),
        Row(
            "Events",
            (
                lines(
                    "Events by result",
                    "Consumed is the sum of these: applied + duplicate + late + ignored + rejected.",
                    "eps",
                    (f"sum by (result) (rate(segstream_events_total{RATE}))", "{{result}}"),
                    stacked=True,
                ),
                lines(
                    "Lag by partition",
                    "Age of the oldest record of each partition that is not committed; 0 if there is"
                    " none. Where two processes tell of a partition, one of them has lost it in an outage:"
                    " the least is true.",
                    "s",
                    ("min by (partition) (segstream_lag_seconds)", "{{partition}}"),
                ),
                lines(
                    "Lag in records",
                    "Records on the input topics that are not committed, by topic and partition, as of"
                    " the last time that the broker said where they end.",
                    "short",
                    (
                        "min by (topic, partition) (segstream_lag_records)",
                        "{{topic}}/{{partition}}",
                    ),
                ),
                lines(
                    "Rejects by reason",
                    "Refused messages a second; they lie in the topic's .dlq with the reason in a header."
                    " Flood: a worker is over its limits. Pauses: letters come too fast.",
                    "eps",
                    (f"sum by (reason) (rate(segstream_rejects_total{RATE})) > 0", "{{reason}}"),
                    ("max(segstream_reject_alert)", "flood"),
                    (f"sum(rate(segstream_reject_pauses_total{RATE}))", "pauses"),
                ),
                lines(
                    "Clamped and marks",
                    "Events that came from the future and were cut back; ticks of the shop's clock"
                    " (watermark mode).",
                    "eps",
                    (f"sum(rate(segstream_events_clamped_total{RATE}))", "clamped"),
                    (f"sum(rate(segstream_marks_total{RATE}))", "marks"),
                ),
                lines(
                    "Events in a strange partition",
                    "Events found in another partition than their user's, a second. The producer does not"
                    " use murmur2; worker.misplaced says what becomes of them.",
                    "eps",
                    (f"sum by (topic) (rate(segstream_misplaced_events_total{RATE}))", "{{topic}}"),
                ),
            ),
        ),
        Row(
            "Commits and sweeps",
            (
                lines(
                    "Batch to commit",
                    "From a batch's first event being read to its commit in the store.",
                    "s",
                    *quantiles("segstream_batch_to_commit_seconds"),
                ),
                lines(
                    "Commits by answer",
                    "ok and applied go on. fenced: another worker took over. diverged: the store rolled"
                    " back. lost: its state is gone. full: the publisher is behind.",
                    "ops",
                    (f"sum by (answer) (rate(segstream_commits_total{RATE}))", "{{answer}}"),
                ),
                lines(
                    "Neighbours that did not answer",
                    "Times a minute that the broker or the store did not answer.",
                    "short",
                    (
                        f"60 * sum by (neighbour) (rate(segstream_unavailable_total{RATE}))",
                        "{{neighbour}}",
                    ),
                ),
                lines(
                    "Sweep age by process",
                    "Since each worker's last look at everyone.",
                    "s",
                    ("max by (instance) (segstream_sweep_age_seconds)", "{{instance}}"),
                ),
                lines(
                    "Sweep duration",
                    "How long a look at everyone takes.",
                    "s",
                    *quantiles("segstream_sweep_seconds"),
                ),
                lines(
                    "Partitions by process",
                    "Who owns how many. Their sum is the number of partitions.",
                    "short",
                    ("sum by (instance) (segstream_partitions_owned)", "{{instance}}"),
                    stacked=True,
                ),
            ),
        ),
        Row(
            "Delivery",
            (
                lines(
                    "Outbox depth",
                    "Entries committed and not yet confirmed by Kafka, up to 1,000 changes each.",
                    "short",
                    ("max by (partition) (segstream_outbox_entries)", "{{partition}}"),
                ),
                lines(
                    "Outbox age",
                    "Age of each partition's oldest entry.",
                    "s",
                    ("max by (partition) (segstream_outbox_age_seconds)", "{{partition}}"),
                ),
                lines(
                    "Delivered and retried",
                    "Changes confirmed by Kafka a minute, and deliveries begun afresh.",
                    "cpm",
                    (f"60 * sum(rate(segstream_changes_delivered_total{RATE}))", "delivered"),
                    (f"60 * sum(rate(segstream_publisher_retries_total{RATE}))", "retried"),
                ),
            ),
        ),
        Row(
            "Other roles",
            (
                lines(
                    "Records taken in",
                    "A second, by role.",
                    "ops",
                    (f"sum by (role) (rate(segstream_role_records_total{RATE}))", "{{role}}"),
                ),
                lines(
                    "Partitions owned in a role",
                    "By role. Their sum is the number of partitions.",
                    "short",
                    ("sum by (role) (segstream_role_partitions_owned)", "{{role}}"),
                ),
                lines(
                    "Outbox of a role",
                    "Entries committed and not yet confirmed by Kafka.",
                    "short",
                    (
                        "max by (role, partition) (segstream_role_outbox_entries)",
                        "{{role}} {{partition}}",
                    ),
                ),
                lines(
                    "Delivered by a role",
                    "Records confirmed by Kafka a minute.",
                    "cpm",
                    (
                        f"60 * sum by (role) (rate(segstream_role_records_delivered_total{RATE}))",
                        "{{role}}",
                    ),
                ),
                lines(
                    "A role's topic lacks records",
                    "1 while it lacks what was delivered before, for it was made anew or cut.",
                    "short",
                    ("max by (role) (segstream_role_output_lacks_records)", "{{role}}"),
                ),
            ),
        ),
        Row(
            "Store",
            (
                lines(
                    "Memory of the store",
                    "What the server uses, and its limit, at which it refuses commits; 0 for none.",
                    "bytes",
                    ("max by (job) (segstream_store_memory_bytes)", "{{job}} used"),
                    ("max by (job) (segstream_store_memory_limit_bytes)", "{{job}} limit"),
                ),
                lines(
                    "Keys dropped by the store",
                    "For want of memory, since the server was started. More than none: its policy is not"
                    " noeviction.",
                    "short",
                    ("max by (job) (segstream_store_evicted_keys)", "{{job}}"),
                ),
                lines(
                    "Remembered message ids",
                    "Ids by which a message that comes again is known; past worker.remembered_ids a topic"
                    " the oldest are forgotten early.",
                    "short",
                    ("max by (partition) (segstream_partition_remembered_ids)", "{{partition}}"),
                ),
                lines(
                    "Remembered orders",
                    "Orders that a refund can still take back, or a message of the same id correct.",
                    "short",
                    ("max by (partition) (segstream_partition_orders)", "{{partition}}"),
                ),
                lines(
                    "Ids forgotten early",
                    "Message ids forgotten before their time, a second: what is sent again of them counts"
                    " twice.",
                    "cps",
                    (f"sum(rate(segstream_ids_forgotten_early_total{RATE}))", "ids"),
                ),
                lines(
                    "Users by partition",
                    "Uneven: a key that is no user, or too few partitions.",
                    "short",
                    ("max by (partition) (segstream_partition_users)", "{{partition}}"),
                    stacked=True,
                ),
            ),
        ),
        Row(
            "Processes",
            (
                lines(
                    "Ready processes by role",
                    "A role whose line ends has no process that answers; at 0 none of them does its work.",
                    "short",
                    ("sum by (role) (segstream_role_ready)", "{{role}}"),
                ),
                lines(
                    "Processes that do not answer",
                    "Of those that Prometheus knows of; one that is gone altogether shows left of here.",
                    "short",
                    ("count by (job) (up == 0)", "{{job}}"),
                ),
                lines(
                    "Roles that failed",
                    "With an error that needs a person.",
                    "short",
                    ("max by (role, error) (segstream_role_failed)", "{{role}} {{error}}"),
                ),
                lines(
                    "Processor time",
                    "Of one core.",
                    "percentunit",
                    (
                        f"sum by (role, instance) (rate(process_cpu_seconds_total{RATE}))",
                        "{{role}} {{instance}}",
                    ),
                ),
                lines(
                    "Memory",
                    "Resident.",
                    "bytes",
                    (
                        "sum by (role, instance) (process_resident_memory_bytes)",
                        "{{role}} {{instance}}",
                    ),
                ),
                lines(
                    "Who leads",
                    "Processes that hold the lease of a role: one each. None: nobody learns, or nobody"
                    " publishes. A process that stands still leads no more once its lease has run out.",
                    "short",
                    ("max by (role, instance) (segstream_leader)", "{{role}} {{instance}}"),
                ),
                lines(
                    "Versions",
                    "Processes by what they run: two versions are a roll-out, or one that was forgotten.",
                    "short",
                    (
                        "count by (version, python, librdkafka) (segstream_build_info)",
                        "{{version}} (Python {{python}}, librdkafka {{librdkafka}})",
                    ),
                ),
                number(
                    "Output lacks changes",
                    "1 while the output lacks what was delivered before, for it was made anew or cut:"
                    " segstream republish sends everybody's segment.",
                    "short",
                    ("max(segstream_output_lacks_changes)", "lacks"),
                    limits=(0.5, 1),
                    width=8,
                ),
                number(
                    "Clock jump",
                    "Seconds by which the wall clock jumped against the time that has passed; not"
                    " followed at once.",
                    "s",
                    ("max(abs(segstream_clock_jump_seconds))", "jump"),
                    limits=(1, 60),
                    width=8,
                ),
            ),
        ),
    ),
)

SEGMENTS = Dashboard(
    "segments",
    "segstream: segments and flows",
    "Who is where, who moves where, and why.",
    (
        Row(
            "Segments",
            (
                number(
                    "Users",
                    "Users of all partitions.",
                    "short",
                    ("sum(max by (partition) (segstream_partition_users))", "users"),
                    absent="no worker",
                    width=6,
                ),
                number(
                    "Segments",
                    "In the model in force.",
                    "short",
                    ("count(max by (segment) (segstream_segment_users))", "segments"),
                    absent="no model yet",
                    width=6,
                ),
                number(
                    "Moves a minute",
                    "Over the last minutes, whatever the cause.",
                    "cpm",
                    (f"60 * sum(rate(segstream_changes_total{RATE}))", "moves"),
                    absent="no move yet",
                    width=6,
                ),
                number(
                    "Users at risk",
                    "In segments of the kinds that are about to leave.",
                    "short",
                    (
                        f'sum(max by (segment, kind) (segstream_segment_users{{kind=~"{AT_RISK}"}}))',
                        "users",
                    ),
                    absent="no such segment",
                    width=6,
                ),
                lines(
                    "Segment sizes",
                    "Users published in each segment.",
                    "short",
                    ("max by (segment, kind) (segstream_segment_users)", "{{segment}} {{kind}}"),
                    width=24,
                    stacked=True,
                ),
            ),
        ),
        Row(
            "Flows",
            (
                lines(
                    "Changes by cause",
                    "Moves a minute. time_passed: silence. model_moved: the segments moved, not the user.",
                    "cpm",
                    (f"60 * sum by (cause) (rate(segstream_changes_total{RATE}))", "{{cause}}"),
                    stacked=True,
                ),
                lines(
                    "Changes by kind of the new segment",
                    "Moves a minute into segments of each kind.",
                    "cpm",
                    (f"60 * sum by (kind_to) (rate(segstream_changes_total{RATE}))", "{{kind_to}}"),
                ),
                lines(
                    "Moves between kinds",
                    "Moves a minute from one kind to another; none is a user's first segment.",
                    "cpm",
                    (
                        f"60 * sum by (kind_from, kind_to) (rate(segstream_changes_total{RATE})) > 0",
                        "{{kind_from}} to {{kind_to}}",
                    ),
                ),
                lines(
                    "Churn risk by origin",
                    "Moves a minute into at_risk or dormant from any other kind.",
                    "cpm",
                    (
                        (
                            "60 * sum by (kind_from) (rate(segstream_changes_total"
                            f'{{kind_from!~"{AT_RISK}", kind_to=~"{AT_RISK}"}}{RATE}))'
                        ),
                        "{{kind_from}}",
                    ),
                ),
                lines(
                    "Won back by kind",
                    "Moves a minute out of at_risk or dormant, by the kind they come to.",
                    "cpm",
                    (
                        (
                            "60 * sum by (kind_to) (rate(segstream_changes_total"
                            f'{{kind_from=~"{AT_RISK}", kind_to!~"{AT_RISK}"}}{RATE}))'
                        ),
                        "{{kind_to}}",
                    ),
                ),
                lines(
                    "Leaving a day",
                    "Users who leave a segment in a day, by all in it; days of the wall clock.",
                    "percentunit",
                    (
                        (
                            f"86400 * sum by (segment) (rate(segstream_segment_changes_total{RATE}))"
                            " / sum by (segment) (max by (segment, kind) (segstream_segment_users))"
                        ),
                        "{{segment}}",
                    ),
                ),
            ),
        ),
        Row(
            "Campaigns",
            (
                lines(
                    "What becomes of changes",
                    "By campaign and outcome, of changes that concern it; what settles or waits has no"
                    " outcome yet.",
                    "cpm",
                    (
                        (
                            "60 * sum by (campaign, outcome) (rate("
                            f'segstream_campaign_outcomes_total{{outcome!="unmatched"}}{RATE}))'
                        ),
                        "{{campaign}} {{outcome}}",
                    ),
                ),
                lines(
                    "Changes looked at",
                    "By campaign. None while users move: the role is behind, or gone.",
                    "cpm",
                    (
                        f"60 * sum by (campaign) (rate(segstream_campaign_changes_total{RATE}))",
                        "{{campaign}}",
                    ),
                ),
            ),
        ),
        Row(
            "Effect of campaigns",
            (
                lines(
                    "Conversion",
                    "Share of users who did what the goal asks for, by campaign and arm, over a day;"
                    " whether it is chance, `segstream campaigns show` says.",
                    "percentunit",
                    (
                        (
                            "sum by (campaign, arm) (rate("
                            'segstream_campaign_measured_users_total{what="converted"}[1d]))'
                            " / sum by (campaign, arm) (rate("
                            'segstream_campaign_measured_users_total{what="over"}[1d]))'
                        ),
                        "{{campaign}} {{arm}}",
                    ),
                ),
                lines(
                    "Revenue a user",
                    "Within the window, by campaign and arm.",
                    "short",
                    (
                        (
                            "sum by (campaign, arm) (rate("
                            "segstream_campaign_measured_revenue_total[1d]))"
                            " / sum by (campaign, arm) (rate("
                            'segstream_campaign_measured_users_total{what="over"}[1d]))'
                        ),
                        "{{campaign}} {{arm}}",
                    ),
                ),
                lines(
                    "Difference in conversion",
                    "Treated less held out, of the declaration in force, with the ends of the interval that"
                    " holds at all looks: above 0 the campaign helps, below it harms.",
                    "percentunit",
                    (
                        (
                            "max by (campaign, arm, value)"
                            ' (segstream_campaign_effect{what="conversion"})'
                        ),
                        "{{campaign}} {{arm}} {{value}}",
                    ),
                    from_zero=False,
                ),
                number(
                    "Evidence that arms are not as declared",
                    "By chance one campaign in a thousand ever has 1,000. From there on believe nothing of"
                    " its effect.",
                    "short",
                    ("max by (campaign) (segstream_campaign_ratio_evidence)", "{{campaign}}"),
                    limits=(20, 1_000),
                ),
                lines(
                    "Records of campaign-control passed over",
                    "Nobody can obey them: no JSON, or a zone that there is not.",
                    "cpm",
                    (
                        f"60 * sum(rate(segstream_campaign_control_unreadable_total{RATE}))",
                        "records",
                    ),
                ),
                lines(
                    "Records of segment-changes refused",
                    "Somebody else writes to the topic: what cannot be read, has a time that nobody can mean,"
                    " or an id that is not its user's.",
                    "cpm",
                    (
                        f"60 * sum by (reason) (rate(segstream_campaign_records_refused_total{RATE}))",
                        "{{reason}}",
                    ),
                ),
            ),
        ),
        Row(
            "Webhooks",
            (
                lines(
                    "Attempts",
                    "By endpoint and answer; none is an answer that was not whole, or not in time.",
                    "cpm",
                    (
                        (
                            "60 * sum by (endpoint, answer)"
                            f" (rate(segstream_webhook_attempts_total{RATE}))"
                        ),
                        "{{endpoint}} {{answer}}",
                    ),
                ),
                lines(
                    "Deliveries",
                    "By endpoint: taken, delivered, dropped with their user, and parked by reason:"
                    " `segstream webhooks list`.",
                    "cpm",
                    (
                        (
                            "60 * sum by (endpoint, outcome)"
                            f" (rate(segstream_webhook_deliveries_total{RATE}))"
                        ),
                        "{{endpoint}} {{outcome}}",
                    ),
                ),
                lines(
                    "Waiting",
                    "Deliveries that wait or are under way, by endpoint.",
                    "short",
                    ("sum by (endpoint) (segstream_webhook_waiting_deliveries)", "{{endpoint}}"),
                ),
                number(
                    "Endpoints left alone",
                    "Partitions whose endpoint failed several times in a row, or said 410.",
                    "short",
                    ("sum by (endpoint) (segstream_webhook_endpoint_failed)", "{{endpoint}}"),
                    limits=(0.5,),
                ),
                lines(
                    "Records passed over",
                    "By topic, for they cannot be read.",
                    "cpm",
                    (
                        f"60 * sum by (topic) (rate(segstream_webhook_unreadable_total{RATE}))",
                        "{{topic}}",
                    ),
                ),
            ),
        ),
        Row(
            "API",
            (
                lines(
                    "Requests",
                    "Answered, by operation and status.",
                    "reqps",
                    (
                        f"sum by (operation, status) (rate(segstream_api_requests_total{RATE}))",
                        "{{operation}} {{status}}",
                    ),
                ),
                lines(
                    "From request to answer",
                    "Until its answer begins.",
                    "s",
                    *quantiles("segstream_api_request_seconds"),
                ),
                lines(
                    "Who follow the feed",
                    "And how many a minute are dropped, for they do not keep up.",
                    "short",
                    ("sum(segstream_api_feed_readers)", "readers"),
                    (f"60 * sum(rate(segstream_api_feed_dropped_total{RATE}))", "dropped a minute"),
                ),
            ),
        ),
    ),
)

LEARNING = Dashboard(
    "learning",
    "segstream: learning quality",
    "How good the model is, how it changes, and what it is like to live with.",
    (
        Row(
            "Model",
            (
                number(
                    "Model",
                    "Epoch and version of the newest model.",
                    "none",
                    ("max(segstream_model_epoch)", "epoch"),
                    (
                        (
                            "max(segstream_model_version and on (instance)"
                            " segstream_model_epoch == scalar(max(segstream_model_epoch)))"
                        ),
                        "version",
                    ),
                    absent="no model yet",
                    width=8,
                ),
                number(
                    "Workers behind the newest model",
                    "That own partitions and go by an earlier epoch.",
                    "short",
                    (
                        (
                            "count((segstream_model_epoch and on (instance) segstream_partitions_owned > 0)"
                            " < scalar(max(segstream_model_epoch))) or vector(0)"
                        ),
                        "workers",
                    ),
                    limits=(1, 2),
                    width=8,
                ),
                number(
                    "Silhouette now",
                    "How far apart the segments lie, from -1 to 1; below .1 they hardly do.",
                    "none",
                    ("max(segstream_model_silhouette)", "silhouette"),
                    absent="no model yet",
                    width=8,
                    from_zero=False,
                ),
                lines(
                    "Silhouette",
                    "How far apart the segments lie, of a sample, from -1 to 1.",
                    "none",
                    ("max by (job) (segstream_model_silhouette)", "{{job}}"),
                    from_zero=False,
                ),
                lines(
                    "Inertia",
                    "Mean squared distance of users to their centroids. Rises: the shop moves away from"
                    " the model; falls with a refit.",
                    "none",
                    ("max by (job) (segstream_model_inertia)", "{{job}}"),
                ),
                lines(
                    "Inertia by population",
                    "Mean squared distance of a population's users to the nearest centroid: it falls with"
                    " more segments.",
                    "none",
                    ("max by (population) (segstream_population_inertia)", "{{population}}"),
                ),
                lines(
                    "Users by population",
                    "Users in each population, by its rule. One that grows or shrinks at once has another"
                    " rule, or the shop another clock.",
                    "short",
                    ("max by (population) (segstream_population_users)", "{{population}}"),
                    stacked=True,
                ),
                lines(
                    "Scores: AUC",
                    "How well the last predictions of each score ranked who bought: .5 by chance, 1 at"
                    " best. Each was made before it was known.",
                    "none",
                    ("max by (score) (segstream_score_auc)", "{{score}}"),
                    from_zero=False,
                ),
                lines(
                    "Scores: log loss and calibration error",
                    "Of the last predictions. A calibration error that stays above .05: the shop buys"
                    " otherwise than it did.",
                    "none",
                    ("max by (score) (segstream_score_log_loss)", "{{score}} log loss"),
                    (
                        "max by (score) (segstream_score_calibration_error)",
                        "{{score}} calibration error",
                    ),
                ),
                lines(
                    "Levels: users",
                    "Users on each step of each level, as of their owners' last looks.",
                    "short",
                    ("max by (level, step) (segstream_level_users)", "{{level}} {{step}}"),
                ),
                lines(
                    "Levels: crossings an hour",
                    "Crossings to each step of a level, by what they were caused by. Many that a model"
                    " causes, day by day: the level's slack is too small for the shop.",
                    "short",
                    (
                        "3600 * sum by (level, step_to, cause) (rate(segstream_level_changes_total[1h]))",
                        "{{level}} {{step_to}}, {{cause}}",
                    ),
                ),
                lines(
                    "Scores: learned from",
                    "Looks at customers that each score was learned from, and those of which it is not"
                    " known yet what came of them.",
                    "short",
                    ("max by (score) (segstream_score_labels)", "{{score}}"),
                    ("max(segstream_pending_looks)", "waiting"),
                ),
                lines(
                    "Epoch and version",
                    "Of the newest model. A refit begins an epoch.",
                    "none",
                    ("max(segstream_model_epoch)", "epoch"),
                    (
                        (
                            "max(segstream_model_version and on (instance)"
                            " segstream_model_epoch == scalar(max(segstream_model_epoch)))"
                        ),
                        "version",
                    ),
                ),
            ),
        ),
        Row(
            "To live with",
            (
                lines(
                    "Going back",
                    "Of the users who leave a segment, those who go back to where they had been soon"
                    " before.",
                    "percentunit",
                    (
                        (
                            f"sum by (segment) (rate(segstream_segment_reversions_total{RATE}))"
                            f" / sum by (segment) (rate(segstream_segment_changes_total{RATE}))"
                        ),
                        "{{segment}}",
                    ),
                ),
                lines(
                    "Moved by the model",
                    "Share of the changes in which the segments moved and not the user.",
                    "percentunit",
                    (
                        (
                            'sum by (job) (rate(segstream_changes_total{cause="model_moved"}[1h]))'
                            " / sum by (job) (rate(segstream_changes_total[1h]))"
                        ),
                        "{{job}}",
                    ),
                ),
                lines(
                    "Model age",
                    "Since each process took up, or published, its model.",
                    "s",
                    (
                        "max by (role, instance) (segstream_model_age_seconds)",
                        "{{role}} {{instance}}",
                    ),
                ),
            ),
        ),
        Row(
            "Trainer",
            (
                lines(
                    "Rounds a minute",
                    "Merge, move, publish. None: nothing is learned.",
                    "cpm",
                    (
                        f"60 * sum by (job) (rate(segstream_trainer_round_seconds_count{RATE}))",
                        "{{job}}",
                    ),
                ),
                lines(
                    "Duration of a round",
                    "Merge, move, publish.",
                    "s",
                    *quantiles("segstream_trainer_round_seconds"),
                ),
                lines(
                    "Duration of a refit",
                    "Each is part of a round.",
                    "s",
                    *quantiles("segstream_trainer_refit_seconds"),
                ),
            ),
        ),
    ),
)

DASHBOARDS = (SERVICE, SEGMENTS, LEARNING)
