"""Measures deciding: changes a second for ten campaigns on one core, bytes a pair, and how soon a trigger is there.

``python -m ops.bench.campaigns`` makes changes of many users over some days as they are on the topic,
decides about them in batches, as a role does, and appends a dated section to ``results/campaigns.md``.
Half of the campaigns settle, some wait for quiet hours, caps hold over all of them. Then it starts a broker,
a store and the role, and sends changes at a steady rate: each trigger is held against its change.
"""

from __future__ import annotations

import statistics
import sys
import time
from array import array
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from threading import Event, Thread
from typing import Any, Self

import msgspec
import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from ops.bench import command
from ops.bench.report import load_after, measured_on, percentile
from ops.bench.stage import START_SECONDS, BenchError, Stage
from producers import topics
from producers.client import producer_options
from stream.campaigns.decide import Decider
from stream.campaigns.declare import Campaign, Limits
from stream.campaigns.state import PAIR
from stream.campaigns.triggers import CampaignTrigger
from stream.config import ConfigError, Settings
from stream.events import CHANGED
from stream.hashing import partition_of
from stream.records import change_id
from stream.store.state import key_of
from stream.told import ToldError
from stream.units import iso, isos
from stream.wiring.roles import outlets

RESULTS = Path(__file__).parent / "results" / "campaigns.md"
START_MS = 1_764_547_200_000
KINDS = ("champion", "loyal", "promising", "new", "browsing", "at_risk", "dormant")
BATCH = 2_000
SECRET = "of the benchmark"  # noqa: S105 - of nothing that is kept
KEY = key_of(SECRET)
"""Ids of changes hang on it, and the role verifies them."""
WARM_UP_SECONDS = 10.0
DRAIN_SECONDS = 2.0
"""What is later than this behind the last change is of no use to a percentile."""

HEADER = """\
# Deciding about changes, measured

Each section is one run of `python -m ops.bench.campaigns`: processor time of one process from change
records to decisions, medians over rounds. `bytes` to columns is decoding, `columns` to decisions the
rest. How soon a trigger is there is of the role on a core of its own, on real servers. Only proportions mean anything from one machine or day to another.
"""

_read_trigger = msgspec.json.Decoder(CampaignTrigger).decode


def campaigns() -> list[Campaign]:
    """Ten, as a shop has them."""
    quiet = {"from": "21:00", "to": "08:00", "zone": "Europe/London"}
    declared: list[dict[str, Any]] = [
        {"when": {"kind_to": ["at_risk"], "kind_from": ["loyal", "champion"]}, "settle": "2h"},
        {"when": {"kind_to": ["dormant"]}, "settle": "1d", "valid_for": "3d", "quiet": quiet},
        {"when": {"kind_to": ["champion"]}, "arms": {"gift": 1, "letter": 2}},
        {"when": {"kind_to": ["loyal"], "kind_from": ["promising"]}, "quiet": quiet},
        {"when": {"kind_to": ["browsing"]}, "settle": "30m", "quiet": quiet | {"then": "drop"}},
        {"when": {"kind_to": ["new"]}, "priority": 1},
        {"when": {"kind_from": ["at_risk", "dormant"], "kind_to": ["loyal", "champion"]}},
        {"when": {"segment_to": [3, 4]}, "settle": "10m"},
        {"when": {"kind_to": ["at_risk"], "reasons": ["orders_30d"]}, "settle": "1h"},
        {
            "when": {
                "kind_to": ["promising"],
                "cause": ["user_moved"],
                "scores": {"buy_probability_30d": {"min": 0.3}},
            }
        },
    ]
    common = {"holdout": 0.1, "cooldown": "30d", "goal": {}}
    return [
        Campaign.model_validate(
            {"name": f"c{place}", "group": "retention" if place in {0, 8} else None} | common | one
        )
        for place, one in enumerate(declared)
    ]


def records(changes: int, users: int, days: float, seed: int) -> list[bytes]:
    """Changes in the order of their times; a user leaves the segment they came to."""
    random = np.random.default_rng(seed)
    whose = random.integers(0, users, changes)
    times = START_MS + np.sort(random.integers(0, round(days * 86_400_000), changes))
    went = random.integers(1, len(KINDS) + 1, changes).tolist()
    where, numbers = [0] * users, [0] * users
    made = []
    for user, after, at in zip(whose.tolist(), went, isos(times), strict=True):
        before = where[user]
        where[user], numbers[user] = after, numbers[user] + 1
        made.append(record(user, numbers[user], before, after, at))
    return made


def record(user: int, number: int, before: int, after: int, at: str) -> bytes:
    """A change of a user, from a segment to another; 0 is none."""
    return msgspec.json.encode(
        {
            "id": change_id(f"user-{user}".encode(), KEY, 1, number),
            "user": f"user-{user}",
            "version": number,
            "from": before or None,
            "to": after,
            "name_from": f"Segment {before}" if before else None,
            "name_to": f"Segment {after}",
            "kind_from": KINDS[before - 1] if before else None,
            "kind_to": KINDS[after - 1],
            "cause": "time_passed" if user % 3 else "user_moved",
            "at": at,
            "last_event_at": at,
            "model": "1.0",
            "margin": 0.2,
            "provisional": before == 0,
            "why": [
                {"feature": name, "value": 1.0, "contribution": 0.1}
                for name in ("orders_30d", "days_since_seen", "views_7d")
            ],
            "rest": 0.0,
            "population_from": "customers" if before else None,
            "population_to": "customers",
            "scores": {
                "buy_probability_30d": user % 101 / 100,
                "buy_probability_90d": user % 103 / 102,
                "expected_spend_90d": user % 1_009 / 8,
                "unusual": user % 97 / 96,
            },
        }
    )


def latencies(rate: int, seconds: int, partitions: int) -> dict[str, Any]:
    """From a change on its topic to its trigger on another, on real servers and at a steady rate.

    Only triggers count that nothing holds back: neither settling nor quiet hours.
    """
    with Stage(heap="512m", partitions=partitions) as stage, stage.store() as store:
        told = stage.settings(store, "triggers").model_dump()
        told["topics"] |= {"triggers": "triggers", "control": "control"}
        told["store"]["namespace_key"] = SECRET
        told["campaigns"] = [one.model_dump(by_alias=True) for one in campaigns()]
        settings = Settings.model_validate(told)
        topics.apply(settings, create=True, outlets=outlets(settings))
        at_once = {c.name for c in campaigns() if not c.settle and c.quiet is None}
        heard = _Heard(settings)
        with stage.role("campaigns", settings, stage.cores.measured) as role, heard:
            # As the publisher of changes sends, and never one a request: that would measure the broker.
            producer = Producer(producer_options(settings.broker))
            headers: Any = [("ce_type", CHANGED.encode())]
            begun, worked, sent_at = time.time(), role.cpu_seconds(), array("d")
            while (now := time.time()) < begun + WARM_UP_SECONDS + seconds:
                while len(sent_at) < (now - begun) * rate:
                    user = len(sent_at)
                    home = partition_of(f"user-{user}".encode(), partitions)
                    at = iso(time.time_ns() // 1_000_000)
                    # From loyal to every other kind in turn.
                    one = record(user, 1, 2, (1, 3, 4, 5, 6, 7)[user % 6], at)
                    producer.produce(settings.topics.changes, one, partition=home, headers=headers)
                    sent_at.append(time.time())
                producer.poll(0)
                role.check()
                time.sleep(0.0005)
            took, worked = time.time() - begun, role.cpu_seconds() - worked
            if producer.flush(START_SECONDS):
                raise BenchError("the broker does not take the changes")
            time.sleep(DRAIN_SECONDS)
    measured = [
        at - sent_at[user]
        for campaign, user, at in heard.triggers
        if campaign in at_once and sent_at[user] >= begun + WARM_UP_SECONDS
    ]
    if not measured:
        raise BenchError("no trigger came; the role is behind by more than can be waited for")
    return {
        "latency_changes_per_second": len(sent_at) / took,
        "latency_triggers": len(measured),
        "trigger_latency_p50_seconds": percentile(measured, 50),
        "trigger_latency_p99_seconds": percentile(measured, 99),
        "role_cores": worked / took,
    }


class _Heard:
    """Listens to triggers in a thread of its own; a context manager.

    Attributes:
        triggers: campaign, user and when each was heard.
    """

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.topics.triggers
        self._partitions = settings.topics.partitions
        self._consumer = Consumer(
            {
                "bootstrap.servers": settings.broker.bootstrap,
                "group.id": "bench",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 5,
            }
        )
        self._stop = Event()
        self._thread = Thread(target=self._listen)
        self.triggers: list[tuple[str, int, float]] = []

    def __enter__(self) -> Self:
        self._consumer.assign(
            [TopicPartition(self._topic, n, OFFSET_BEGINNING) for n in range(self._partitions)]
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._consumer.close()

    def _listen(self) -> None:
        while not self._stop.is_set():
            for message in self._consumer.consume(1_000, 0.005):
                at = time.time()
                if message.error() is None:
                    one = _read_trigger(message.value() or b"")
                    self.triggers.append((one["campaign"], int(one["user"][5:]), at))


def measure(values: Sequence[bytes], rounds: int) -> dict[str, Any]:
    """Seconds of processor time a round, and what was decided."""
    decoding, deciding = [], []
    decider = Decider([], Limits())
    for _ in range(rounds):
        limits = Limits.model_validate({"per_user": {"day": 1, "week": 3}, "global_holdout": 0.02})
        decider = Decider(campaigns(), limits, KEY, verified=True)
        spent = [0.0, 0.0]
        for first in range(0, len(values), BATCH):
            begun = time.process_time()
            changes = decider.reader.decode(values[first : first + BATCH])
            decoded = time.process_time()
            decider.advance(int(changes.at_ms[0]))
            decider.decide(changes)
            spent[0] += decoded - begun
            spent[1] += time.process_time() - decoded
        decoding.append(spent[0])
        deciding.append(spent[1])
    outcomes: dict[str, int] = {}
    for counts in decider.tally().values():
        for outcome, count in counts.items():
            outcomes[outcome] = outcomes.get(outcome, 0) + count
    both = [one + other for one, other in zip(decoding, deciding, strict=True)]
    return {
        "changes": len(values),
        "campaigns": len(decider.campaigns),
        "decoding_per_second": len(values) / statistics.median(decoding),
        "deciding_per_second": len(values) / statistics.median(deciding),
        "whole_per_second": len(values) / statistics.median(both),
        "rounds_per_second": [len(values) / seconds for seconds in both],
        "pairs": decider.pairs.size,
        "bytes_a_pair": PAIR.itemsize,
        "outcomes": outcomes,
    }


def section(report: dict[str, Any], at: datetime) -> str:
    """A dated section of the results."""
    rounds = " ".join(f"{rate:,.0f}" for rate in report["rounds_per_second"])
    told = ", ".join(f"{name} {count:,}" for name, count in report["outcomes"].items())
    lines = [
        f"## {at:%Y-%m-%d %H:%M} UTC",
        "",
        f"{measured_on('msgspec', 'numpy')}; {load_after()}.",
        "",
        f"{report['changes']:,} changes, {report['campaigns']} campaigns, batches of {BATCH:,}.",
        "",
        "| step | changes/s, one core |",
        "|---|---|",
        f"| bytes to columns | {report['decoding_per_second']:,.0f} |",
        f"| columns to decisions | {report['deciding_per_second']:,.0f} |",
        f"| both | {report['whole_per_second']:,.0f} ({rounds}) |",
        "",
        (
            f"{report['pairs']:,} pairs of a user and a campaign with state, {report['bytes_a_pair']} bytes "
            f"each. Outcomes: {told}."
        ),
    ]
    if "latency_triggers" in report:
        half, most = (1e3 * report[f"trigger_latency_p{percent}_seconds"] for percent in (50, 99))
        lines += [
            "",
            (
                f"On real servers at {report['latency_changes_per_second']:,.0f} changes a second, from a change "
                f"on its topic to its trigger on another: {half:,.1f} ms (p50), {most:,.1f} ms (p99) of "
                f"{report['latency_triggers']:,} triggers; the role and its publisher kept "
                f"{report['role_cores']:.2f} of a core busy."
            ),
        ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command.options(__doc__ or "", RESULTS)
    add = parser.add_argument
    add("--changes", type=command.at_least(BATCH), default=400_000, help="of a round")
    add("--users", type=command.at_least(1), default=100_000, help="whose changes they are")
    add("--rounds", type=command.at_least(1), default=5, help="of which medians are told")
    add("--latency-rate", type=command.at_least(1), default=2_000, help="changes a second")
    add(
        "--latency-seconds",
        type=command.at_least(0),
        default=20,
        help="seconds of it that are measured; 0 leaves it out, and needs no servers",
    )
    add("--partitions", type=command.at_least(1), default=4, help="of each topic")
    wanted = parser.parse_args(arguments)

    def whole() -> dict[str, Any]:
        report = measure(records(wanted.changes, wanted.users, 20.0, 1), wanted.rounds)
        if wanted.latency_seconds:
            report |= latencies(wanted.latency_rate, wanted.latency_seconds, wanted.partitions)
        return report

    return command.run(
        "bench-campaigns",
        whole,
        section,
        wanted=wanted,
        results=RESULTS,
        header=HEADER,
        expected=(ConfigError, BenchError, ToldError),
    )


if __name__ == "__main__":
    sys.exit(main())
