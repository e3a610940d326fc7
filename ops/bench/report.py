"""Makes a report of measured rounds: medians, a page for people, an object for programs.

Comes in: what each round measured. Goes out: the JSON of ``make bench ARGS="--json"`` and a dated
section for ``results/pipeline.md``. No I/O but to see what machine this is.
"""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import confluent_kafka

from ops.kafka.server import JARS
from stream.servers import redis_binary, store_binary

HEADER = """\
# The pipeline, measured

Each section is one run of `make bench`: the shipped activity worker with all its guarantees on,
live mode, against reading alone (the ceiling) and a plain msgspec loop with nine decayed sums a user
(totals loop: the same with totals that never decay), on Apache Kafka and a store with an append-only
file. Only ratios mean anything from one day or machine to another.
"""


@dataclass(frozen=True)
class Speed:
    """What one process did with all events, from its first message to its last event."""

    events: int
    seconds: float
    cpu_seconds: float
    store_cpu_seconds: float = 0.0

    @property
    def rate(self) -> float:
        return self.events / self.seconds

    def per_million(self, seconds: float) -> float:
        return seconds / self.events * 1e6


@dataclass(frozen=True)
class Round:
    """One time each, one after the other.

    Attributes:
        whole_details: of the worker's run: commits, changes, sweeps, what was refused.
    """

    ceiling: Speed
    plain: Speed
    totals: Speed
    whole: Speed
    whole_details: dict[str, float] = field(default_factory=dict)

    def numbers(self) -> dict[str, float]:
        """What is reported of a round, by the names of the report."""
        whole, plain = self.whole, self.plain
        return {
            "ceiling_ratio": whole.rate / self.ceiling.rate,
            "plain_loop_ratio": whole.rate / plain.rate,
            "totals_loop_ratio": whole.rate / self.totals.rate,
            "events_per_second_per_core": whole.rate,
            "ceiling_events_per_second": self.ceiling.rate,
            "plain_loop_events_per_second": plain.rate,
            "totals_loop_events_per_second": self.totals.rate,
            "worker_cpu_seconds_per_million": whole.per_million(whole.cpu_seconds),
            "redis_cpu_seconds_per_million": whole.per_million(whole.store_cpu_seconds),
            "plain_loop_cpu_seconds_per_million": plain.per_million(plain.cpu_seconds),
            "totals_loop_cpu_seconds_per_million": self.totals.per_million(self.totals.cpu_seconds),
            "plain_loop_redis_cpu_seconds_per_million": plain.per_million(plain.store_cpu_seconds),
            "ceiling_cpu_seconds_per_million": self.ceiling.per_million(self.ceiling.cpu_seconds),
        }


@dataclass(frozen=True)
class Latency:
    """From a user's newest event to the change in a campaign's hand, at a steady rate.

    Attributes:
        seconds: of each change that a user made.
        rate: events a second that were really sent.
        latest_send_seconds: how late an event was sent at the worst; part of the latency.
        cores: how much of a core each role kept busy.
        causes: changes by cause, from the beginning of the load on.
    """

    seconds: Sequence[float]
    rate: float
    latest_send_seconds: float
    cores: dict[str, float] = field(default_factory=dict)
    causes: dict[str, int] = field(default_factory=dict)

    def numbers(self) -> dict[str, float]:
        return {
            "change_latency_p50_seconds": percentile(self.seconds, 50),
            "change_latency_p99_seconds": percentile(self.seconds, 99),
            "latency_changes": len(self.seconds),
            "latency_events_per_second": self.rate,
            "latest_send_seconds": self.latest_send_seconds,
            **{f"{role}_cores": cores for role, cores in self.cores.items()},
            **{f"changes_{cause}": count for cause, count in self.causes.items()},
        }


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent do not exceed; NaN for no values."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[max(-int(-len(ordered) * percent // 100) - 1, 0)]


def medians(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """The median of each number over the rounds; one that a round does not have is nought there."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: statistics.median(row.get(name, 0.0) for row in rows) for name in names}


def summary(
    rounds: Sequence[Round],
    latencies: Sequence[Latency],
    shares: dict[str, float],
    facts: dict[str, Any],
) -> dict[str, Any]:
    """The object that programs read: medians on top, the rounds they come from below.

    Args:
        rounds: of the throughput.
        latencies: rounds of the latency.
        shares: of the wall clock, by step; empty without a profile.
        facts: how it was measured, and on what.
    """
    rows = [_rounded(r.numbers()) for r in rounds]
    waits = [_rounded(latency.numbers()) for latency in latencies]
    details = zip(rows, rounds, strict=True)
    return {
        **medians(rows),
        **medians(waits),
        "time_split": _rounded(shares),
        "rounds": [row | {"worker": r.whole_details} for row, r in details],
        "latency_rounds": waits,
        **facts,
    }


def section(report: dict[str, Any], at: datetime) -> str:
    """The same for people: a dated section in Markdown."""
    machine = report["machine"]
    lines = [
        f"## {at:%Y-%m-%d %H:%M} UTC",
        "",
        f"{machine['cpu']}, {machine['cores']} cores; {report['how']}",
        "",
        ", ".join(f"{name} {told}" for name, told in machine["versions"].items()),
        "",
    ]
    rounds = report["rounds"]
    if rounds:
        lines += [f"{report['events']:,} events of {report['event_bytes']:.0f} bytes:", ""]
        lines += ["| | median | rounds |", "|---|---|---|"]
        lines += [_row(rounds, report, *names) for names in _ROWS]
    waits = report["latency_rounds"]
    if waits:
        p50s = " ".join(f"{w['change_latency_p50_seconds'] * 1e3:.1f}" for w in waits)
        p99s = " ".join(f"{w['change_latency_p99_seconds'] * 1e3:.1f}" for w in waits)
        count = sum(w["latency_changes"] for w in waits)
        told = (
            f"Event to change consumed at {report['latency_events_per_second']:,.0f} events/s, "
            f"{count:,.0f} changes: p50 {report['change_latency_p50_seconds'] * 1e3:.1f} ms "
            f"({p50s}), p99 {report['change_latency_p99_seconds'] * 1e3:.1f} ms ({p99s})."
        )
        lines += ["", told]
    if report["time_split"]:
        told = ", ".join(f"{step} {share:.0%}" for step, share in report["time_split"].items())
        lines += ["", f"Where the worker's time goes (one extra round, sampled): {told}."]
    return "\n".join(lines) + "\n"


_ROWS = (
    ("whole job / ceiling", "ceiling_ratio", "{:.3f}"),
    ("whole job / plain loop", "plain_loop_ratio", "{:.2f}"),
    ("whole job / totals loop", "totals_loop_ratio", "{:.2f}"),
    ("whole job, events/s, one core", "events_per_second_per_core", "{:,.0f}"),
    ("ceiling, events/s", "ceiling_events_per_second", "{:,.0f}"),
    ("plain loop, events/s", "plain_loop_events_per_second", "{:,.0f}"),
    ("totals loop, events/s", "totals_loop_events_per_second", "{:,.0f}"),
    ("ceiling, CPU s per million", "ceiling_cpu_seconds_per_million", "{:.2f}"),
    ("plain loop, CPU s per million", "plain_loop_cpu_seconds_per_million", "{:.2f}"),
    ("totals loop, CPU s per million", "totals_loop_cpu_seconds_per_million", "{:.2f}"),
    ("worker, CPU s per million", "worker_cpu_seconds_per_million", "{:.2f}"),
    ("store's server, CPU s per million", "redis_cpu_seconds_per_million", "{:.2f}"),
)


def _row(rounds: Any, report: dict[str, Any], title: str, name: str, form: str) -> str:
    told = " ".join(form.format(row[name]) for row in rounds)
    return f"| {title} | {form.format(report[name])} | {told} |"


def append(file: Path, text: str, header: str) -> None:
    """Add a section to the results; nothing there is ever replaced."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as results:
        results.write((header if results.tell() == 0 else "") + "\n" + text)


def machine() -> dict[str, Any]:
    """What this was measured on; no names of machines or users."""
    libraries = ("confluent-kafka", "msgspec", "numba", "numpy", "redis")
    kafka = next((_number(jar.name) for jar in JARS.glob("kafka_2*.jar")), "?")
    return {
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "versions": {
            "Python": platform.python_version(),
            **{name: version(name) for name in libraries if find_spec(name.replace("-", "_"))},
            "librdkafka": confluent_kafka.libversion()[0],
            "Kafka": kafka,
            "store": _said([str(redis_binary() or store_binary()), "--version"]),
            "Java": _said(["java", "--version"]),
        },
    }


def measured_on(*libraries: str) -> str:
    """The machine, Python and some libraries, in a phrase."""
    told = [f"{os.cpu_count()} x {cpu()}", f"Python {platform.python_version()}"]
    return ", ".join([*told, *(f"{name} {version(name)}" for name in libraries)])


def load_after() -> str:
    """How busy the machine is now, in a phrase."""
    return f"load average {os.getloadavg()[0]:.1f} after"


def cpu() -> str:
    """What the processor calls itself."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()


def _number(text: str) -> str:
    """The last version number in a text."""
    found = re.findall(r"\d+(?:\.\d+)+", text)
    return str(found[-1]) if found else "?"


def _said(command: list[str]) -> str:
    """What a program says its version is: the first number in its first words."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except OSError:
        return "?"
    found = re.search(r"\d+(?:\.\d+)+", done.stdout)
    return found[0] if found else "?"


def _rounded(numbers: dict[str, float]) -> dict[str, float]:
    """Five digits: more would be noise."""
    return {name: float(f"{value:.5g}") for name, value in numbers.items()}


def details_of(position_counts: Any, metrics: dict[str, float]) -> dict[str, float]:
    """What the worker did beside being fast, to see that it did its job."""
    return {
        **{f"events_{name}": count for name, count in asdict(position_counts).items()},
        "commits": metrics.get("segstream_commits_total", 0.0),
        "changes": metrics.get("segstream_changes_total", 0.0),
        "sweeps": metrics.get("segstream_sweep_seconds_count", 0.0),
    }
