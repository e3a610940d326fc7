"""Measures a year of a shop: do segments keep their meaning, and are there as many changes as it takes?

``python -m ops.bench.year FILE`` plays a file's events through `stream.rehearsal` (an owner and a
trainer in memory, with the marks of a replay) and reports what happened. ``--append`` adds a dated
section to ``results/year.md``. What the numbers mean:

- *stayers*: users in a segment at a month's end and at the next, whom the earlier model (its map and
  centroids) sees nearest to their segment's centroid at both: nothing they did, or left undone, is
  a reason to leave it.
- *identity kept*: stayers whose segment has the same id at both ends. *Worst month* is the
  smallest such share. Of those without, *retired* ones were in a segment that is no more.
- *first ids that last*: of the ids of the first model, those in force at the end.
- *ids that survive a refit*: of the ids in force before each refit, those in force after it.
- *reverted*: a change from A to B of a user who is back in A within their next five changes and
  within thirty days of it. First assignments are no changes here, nor are
  turns of kind, which move nobody.
- *changes a user and day*: by users known at each mark, and the time to the mark before.
- *changes of kind a user and year*: of what users were told. Beside it *a plain grid*: how often
  their cell changes from mark to mark, if cells are three bands of days since the last order (30 and 90)
  by three of orders (1, up to 4, more), and one of those who never ordered.
- *found*: the segments at the end, with what marks the typical member, the median of those published.
- *ARI against batch*: published segments at a quarter's end against ``KMeans(n_init=10)`` with as
  many segments on all users' mapped vectors, all living users; beside it *nearest*, each user in
  the segment whose centroid is nearest, and *batch again*, another seed against the first: no more
  can be asked for.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ops.bench import command
from ops.bench.report import measured_on
from producers.mapping import Mapping, MappingError, load_mapping
from producers.tables.opening import stem
from producers.texts import FileError
from stream.clustering import living
from stream.config import ConfigError, Settings
from stream.events import Cause, Floats, Ints, Lineage, SegmentChange
from stream.kinds import CHURN_RISK_KINDS
from stream.model import Model
from stream.rehearsal import Marked, Rehearsal
from stream.rhythm import LIFETIME, SILENCE
from stream.segments import columns_of
from stream.units import DAY_MS, iso
from stream.wiring.history import open_history

RESULTS = Path(__file__).parent / "results" / "year.md"
DATA = Path(__file__).parents[3] / "shared" / "data" / "online_retail_uk.csv.gz"
REVERT_CHANGES = 5
REVERT_MS = 30 * DAY_MS
TOLD_OF = (
    "days_since_seen",
    "days_since_order",
    "tenure_days",
    "orders_total",
    "orders_30d",
    "orders_180d",
    "revenue_180d",
    "basket_value",
    "views_7d",
)
"""Features of which the typical member of a segment is told."""

HEADER = """\
# A shop's year, measured

Each section is one run of `make bench-year`: a file's events played through an owner and a trainer in
memory, with the marks of a replay. `ops/bench/year.py` says what each number means. The numbers are
the shop's and the program's, not the machine's: the same file and settings give the same.
"""


@dataclass(frozen=True)
class Snapshot:
    """Everyone at a mark; users are only ever added at the end.

    Attributes:
        vectors: in natural units.
        segments: published, 0 for none.
    """

    at_ms: int
    vectors: Floats
    segments: Ints
    model: Model


def snapshot(rehearsal: Rehearsal, at_ms: int) -> Snapshot | None:
    """Everyone as they are now; None without a model."""
    model = rehearsal.state.model
    if model is None:
        return None
    rows = rehearsal.partition.rows
    vectors = rehearsal.table.vectors(rows, at_ms)
    return Snapshot(at_ms, vectors, rows["segment"].astype(np.int64), model)


# -- identity ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """From a month's end to the next: users, stayers, of these with the same id, in a retired one."""

    at_ms: int
    users: int
    stayed: int
    same: int
    retired: int


def kept(before: Snapshot, after: Snapshot) -> Kept:
    """Who had no reason to change, and did not."""
    users = len(before.segments)
    model, segments = before.model, after.segments[:users]
    column = columns_of(before.segments.astype(np.int32), model.ids)
    both = (column >= 0) & (segments > 0)
    both &= living(before.vectors) & living(after.vectors[:users])
    stayed = both.copy()
    for vectors in (before.vectors, after.vectors[:users]):
        placed = model.place(np.nan_to_num(vectors), before.segments.astype(np.int32))
        stayed &= placed.squared.argmin(axis=1) == column
    same = stayed & (segments == before.segments)
    gone = stayed & ~np.isin(before.segments, after.model.ids)
    counts = [int(np.count_nonzero(which)) for which in (both, stayed, same, gone)]
    return Kept(after.at_ms, *counts)


# -- changes -------------------------------------------------------------------------------------


@dataclass
class Changes:
    """Counts changes as they happen, and finds those that are taken back.

    Attributes:
        assigned: first assignments.
        turned: users who were told that their segment, in which they stay, is of another kind.
        causes: of the others, by cause.
        kinds: of the others and of turns, by kind from and to.
        reverted: how many were taken back, by the cause of the change taken back.
        silences: days since the last event of those whom time moved to a kind at risk from another.
    """

    assigned: int = 0
    turned: int = 0
    causes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)
    reverted: Counter[str] = field(default_factory=Counter)
    silences: list[float] = field(default_factory=list)
    _last: dict[str, list[tuple[int, int, str]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, changes: Sequence[SegmentChange], at_ms: int) -> None:
        """Take in a mark's changes."""
        for change in sorted(changes, key=lambda c: (c["user"], c["version"])):
            before, kind = change["from"], change["kind_from"]
            if before is None or kind is None:
                self.assigned += 1
                continue
            self.kinds[kind, change["kind_to"]] += 1
            if before == change["to"]:
                # Whoever stays has left nothing that they could go back to.
                self.turned += 1
                continue
            self.causes[change["cause"]] += 1
            into_risk = change["kind_to"] in CHURN_RISK_KINDS and kind not in CHURN_RISK_KINDS
            if into_risk and change["cause"] == Cause.TIME_PASSED:
                since = at_ms / 1_000 - datetime.fromisoformat(change["last_event_at"]).timestamp()
                self.silences.append(since / 86_400)
            # Open: changes that may still be taken back, with the segment each one left.
            waiting = self._last[change["user"]][-REVERT_CHANGES:]
            open_ = [one for one in waiting if at_ms - one[0] <= REVERT_MS]
            taken_back = [one for one in open_ if one[1] == change["to"]]
            self.reverted.update(cause for _, _, cause in taken_back)
            # A placeholder keeps the count of changes since, though it can be taken back no more.
            left = [(t, 0, c) if (t, s, c) in taken_back else (t, s, c) for t, s, c in open_]
            self._last[change["user"]] = [*left, (at_ms, before, change["cause"])]

    @property
    def total(self) -> int:
        return self.causes.total()

    @property
    def of_kind(self) -> int:
        """Records, turns among them, that tell another kind than the one before."""
        return sum(count for (before, after), count in self.kinds.items() if before != after)


@dataclass
class GridCells:
    """How often the cells of a plain grid change, from mark to mark; see `grid`.

    Attributes:
        cells: of each user at the last mark, by slot.
    """

    changes: int = 0
    cells: Ints = field(default_factory=lambda: np.empty(0, np.int64))

    def see(self, rehearsal: Rehearsal, at_ms: int) -> None:
        """Take in everyone's cells."""
        table = rehearsal.table
        if not {SILENCE, LIFETIME} <= set(table.names):
            return
        vectors = table.vectors(rehearsal.partition.rows, at_ms)
        cells = grid(
            vectors[:, table.names.index(SILENCE)], vectors[:, table.names.index(LIFETIME)]
        )
        self.changes += int((cells[: len(self.cells)] != self.cells).sum())
        self.cells = cells


# -- the year ------------------------------------------------------------------------------------


@dataclass
class Year:
    """What was seen, mark by mark.

    Attributes:
        survived: ids before and after each refit: (before, of these after).
        lineage: events by kind; changes of kind as ``kind``.
        user_days: users known, times days.
        ends: of quarters: a row of numbers each.
    """

    changes: Changes = field(default_factory=Changes)
    months: list[Kept] = field(default_factory=list)
    survived: list[tuple[int, int]] = field(default_factory=list)
    lineage: Counter[str] = field(default_factory=Counter)
    ends: list[dict[str, Any]] = field(default_factory=list)
    user_days: float = 0.0
    cells: GridCells = field(default_factory=GridCells)
    found: list[dict[str, Any]] = field(default_factory=list)
    marks: int = 0
    first_ms: int = 0
    _first: set[int] = field(default_factory=set)
    _model: Model | None = None
    _month: Snapshot | None = None
    _last_ms: int = 0

    def see(self, rehearsal: Rehearsal, marked: Marked) -> None:
        """Take in a mark, before anything is folded after it."""
        at_ms, model = marked.at_ms, marked.state.model
        self.marks += 1
        self.first_ms = self.first_ms or at_ms
        self.changes.add(marked.changes, at_ms)
        if model is not None and self._model is not None:
            self.user_days += len(rehearsal.partition) * (at_ms - self._last_ms) / DAY_MS
            self.cells.see(rehearsal, at_ms)
        if model is not None and model is not self._model:
            self._published(self._model, model)
        before_ms, self._last_ms, self._model = self._last_ms, at_ms, model
        if before_ms and month_of(before_ms) != month_of(at_ms):
            self._month_ended(rehearsal, at_ms, quarter=month_of(at_ms)[1] % 3 == 1)

    def end(self, rehearsal: Rehearsal) -> None:
        """There are no more marks: what is left of the last month and quarter counts as one."""
        now = snapshot(rehearsal, self._last_ms)
        self.found = [] if now is None else found_in(now, rehearsal.table.names)
        if not self.ends or self.ends[-1]["at"] != iso(self._last_ms):
            self._month_ended(rehearsal, self._last_ms, quarter=True)

    def _published(self, before: Model | None, model: Model) -> None:
        self._first = self._first or set(model.ids.tolist())
        self.lineage.update(kind_of_event(event) for event in model.lineage)
        if before is not None and before.epoch != model.epoch:
            same = np.count_nonzero(np.isin(before.ids, model.ids))
            self.survived.append((len(before.ids), int(same)))

    def _month_ended(self, rehearsal: Rehearsal, at_ms: int, *, quarter: bool) -> None:
        now = snapshot(rehearsal, at_ms)
        if now is None:
            return
        if self._month is not None and self._month.at_ms < at_ms:
            self.months.append(kept(self._month, now))
        self._month = now
        if quarter:
            self.ends.append(against_batch(now))

    def report(self, minted: int) -> dict[str, Any]:
        """All numbers, by name.

        Args:
            minted: ids given out, ever.
        """
        changes, model = self.changes, self._model
        total = max(changes.total, 1)
        stayed, same, retired = (
            sum(getattr(month, name) for month in self.months)
            for name in ("stayed", "same", "retired")
        )
        surviving = sum(after for _, after in self.survived)
        ids = sum(before for before, _ in self.survived)
        into = {
            f"{before} to {after}": count
            for (before, after), count in sorted(changes.kinds.items())
            if after in CHURN_RISK_KINDS and before != after
        }
        return {
            "marks": self.marks,
            "first_mark": iso(self.first_ms),
            "last_mark": iso(self._last_ms),
            "segments": 0 if model is None else len(model.ids),
            "stayers": stayed,
            "stayers_share": share(stayed, sum(month.users for month in self.months)),
            "identity_kept": share(same, stayed),
            "identity_kept_worst_month": min(
                (m.same / m.stayed for m in self.months if m.stayed), default=None
            ),
            "identity_retired": share(retired, stayed),
            "months": [
                {"to": iso(m.at_ms), "stayed": m.stayed, "kept": share(m.same, m.stayed)}
                for m in self.months
            ],
            "refits": len(self.survived),
            "ids_survive_refit": share(surviving, ids),
            "refits_all_ids_survive": sum(before == after for before, after in self.survived),
            "ids_minted": minted,
            "first_ids": len(self._first),
            "first_ids_that_last": 0
            if model is None
            else len(self._first & set(model.ids.tolist())),
            "lineage": dict(sorted(self.lineage.items())),
            "assigned": changes.assigned,
            "changes": changes.total,
            "turned": changes.turned,
            "causes": {cause: count / total for cause, count in sorted(changes.causes.items())},
            "reverted": changes.reverted.total() / total,
            "reverted_by_cause": {
                cause: share(changes.reverted[cause], count)
                for cause, count in sorted(changes.causes.items())
            },
            "changes_per_user_day": share(changes.total, self.user_days),
            "kind_changes": changes.of_kind,
            "kind_changes_per_user_year": share(changes.of_kind * 365.0, self.user_days),
            "grid_changes_per_user_year": share(self.cells.changes * 365.0, self.user_days),
            "found": self.found,
            "into_risk": into,
            "into_risk_total": sum(into.values()),
            "silent_days_when_at_risk": np.quantile(changes.silences, (0.25, 0.5, 0.75)).tolist()
            if changes.silences
            else None,
            "quarters": self.ends,
        }


GRID_DAYS, GRID_ORDERS = (30, 90), (2, 5)


def grid(silence: Floats, orders: Floats) -> Ints:
    """Cell of each user in a plain grid of recency by orders, -1 for who never ordered.

    Args:
        silence: days since the last order.
        orders: ever placed.
    """
    cells = 3 * np.digitize(silence, GRID_DAYS) + np.digitize(orders, GRID_ORDERS)
    return np.where(orders >= 1, cells, -1)


def found_in(now: Snapshot, names: Sequence[str]) -> list[dict[str, Any]]:
    """Each segment with its members and what is typical of them, in natural units."""
    shown = [name for name in TOLD_OF if name in names]
    columns = [names.index(name) for name in shown]
    users = max(int(np.count_nonzero(now.segments > 0)), 1)
    found = []
    for segment in now.model.segments:
        here = now.vectors[now.segments == segment.id]
        typical = np.median(here, axis=0)[columns].tolist() if len(here) else []
        found.append(
            {
                "population": segment.population,
                "name": segment.name,
                "kind": segment.kind,
                "users": len(here),
                "share": len(here) / users,
                "typical": dict(zip(shown, typical, strict=False)),
            }
        )
    return found


def month_of(at_ms: int) -> tuple[int, int]:
    """Year and month of a time, UTC."""
    at = datetime.fromtimestamp(at_ms / 1_000, tz=UTC)
    return at.year, at.month


def kind_of_event(event: Lineage) -> str:
    """``born``, ``split`` ...; every change of kind is ``kind``."""
    return event["event"].split(":")[0]


def share(part: float, whole: float) -> float | None:
    """A share; None of nothing."""
    return part / whole if whole else None


def against_batch(now: Snapshot) -> dict[str, Any]:
    """How alike the published segments and those of a batch k-means of each population are."""
    from sklearn.cluster import KMeans  # noqa: PLC0415 - slow to import, see clustering
    from sklearn.metrics import adjusted_rand_score  # noqa: PLC0415

    model = now.model
    who = living(now.vectors) & (now.segments > 0)
    placed = model.place(now.vectors[who], now.segments[who].astype(np.int32))
    nearest = placed.squared.argmin(axis=1)
    batch, again = np.zeros((2, len(nearest)), np.int64)
    for part, columns in zip(model.parts, model.spans, strict=True):
        here = np.flatnonzero((nearest >= columns.start) & (nearest < columns.stop))
        scaled = placed.mapped[here] * np.sqrt(part.map.weights)
        k = min(len(part.ids), len(here))
        for seed, labels in ((1, batch), (2, again)):
            if k:
                found = KMeans(k, n_init=10, random_state=seed).fit_predict(scaled)
                labels[here] = columns.start + found
    return {
        "at": iso(now.at_ms),
        "users": int(who.sum()),
        "ari": float(adjusted_rand_score(batch, now.segments[who])),
        "ari_nearest": float(adjusted_rand_score(batch, nearest)),
        "ari_batch_again": float(adjusted_rand_score(batch, again)),
    }


def play(settings: Settings, file: Path, mapping: Mapping) -> dict[str, Any]:
    """Play a file and report.

    Raises:
        FileError: the file cannot be read.
        MappingError: it lacks a column.
    """
    began = time.perf_counter()
    rehearsal, year = Rehearsal(settings), Year()
    step_ms = round(settings.clock.mark_seconds * 1_000)
    with open_history(settings, rehearsal.table, file, mapping) as history:
        for at_ms in history.play(rehearsal.fold, step_ms):
            year.see(rehearsal, rehearsal.mark(at_ms))
    year.end(rehearsal)
    return {
        "source": stem(file),
        "rows": history.rows,
        "events": history.counts.applied,
        "users": len(rehearsal.partition),
        "settings": {
            "mark_seconds": settings.clock.mark_seconds,
            "refit_seconds": settings.learning.refit_seconds,
            "segments": settings.learning.segments,
        },
        **year.report(rehearsal.state.next_id - 1),
        "seconds": round(time.perf_counter() - began, 1),
    }


# -- telling ---------------------------------------------------------------------------------------


def section(report: dict[str, Any], at: datetime, command: str) -> str:
    """A dated section of the results."""
    chosen = report["settings"]
    rows = (
        (
            "stayers (of all, month by month)",
            f"{report['stayers']:,} ({_percent(report['stayers_share'])})",
        ),
        ("identity kept, stayers", _percent(report["identity_kept"])),
        ("identity kept, worst month", _percent(report["identity_kept_worst_month"])),
        ("stayers whose segment was retired", _percent(report["identity_retired"])),
        (
            f"ids that survive a refit ({report['refits']} refits)",
            _percent(report["ids_survive_refit"]),
        ),
        ("refits that every id survives", f"{report['refits_all_ids_survive']}"),
        ("ids minted", f"{report['ids_minted']}"),
        ("first ids that last", f"{report['first_ids_that_last']} of {report['first_ids']}"),
        ("lineage", _listed(report["lineage"], "{:,}")),
        (
            f"changes (first assignments apart: {report['assigned']:,})",
            f"{report['changes']:,}",
        ),
        ("told that their segment has turned", f"{report['turned']:,}"),
        ("by cause", _listed(report["causes"], "{:.0%}")),
        ("changes a user and day", f"{report['changes_per_user_day'] or 0.0:.4f}"),
        (
            "changes of kind a user and year (of a plain grid)",
            _and_of_grid(
                report["kind_changes_per_user_year"], report["grid_changes_per_user_year"]
            ),
        ),
        ("reverted", _percent(report["reverted"])),
        ("reverted, by cause", _listed(report["reverted_by_cause"], "{:.0%}")),
        (f"moves into {' or '.join(CHURN_RISK_KINDS)}", f"{report['into_risk_total']:,}"),
        ("of these", _listed(report["into_risk"], "{:,}")),
        ("silent for, when time moves them there", _days(report["silent_days_when_at_risk"])),
    )
    ends = (
        f"| {end['at'][:10]} | {end['users']:,} | {end['ari']:.2f} | {end['ari_nearest']:.2f} | "
        f"{end['ari_batch_again']:.2f} |"
        for end in report["quarters"]
    )
    days = f"{report['first_mark'][:10]} to {report['last_mark'][:10]}"
    how = (
        f"a mark every {chosen['mark_seconds'] / 86_400:g} d, a refit every "
        f"{chosen['refit_seconds'] / 86_400:g} d at the latest, k = {chosen['segments']}"
    )
    lines = [
        f"## {at:%Y-%m-%d %H:%M} UTC, {report['source']}",
        "",
        f"`{command}`",
        "",
        f"{measured_on('numpy', 'scikit-learn', 'scipy')}; {report['seconds']:.0f} s.",
        "",
        f"{report['users']:,} users, {report['events']:,} events from {days}; {how}.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows),
        "",
        "| quarter's end | users | ARI against batch | nearest | batch again |",
        "|---|---|---|---|---|",
        *ends,
        "",
        *found_table(report["found"]),
    ]
    return "\n".join(lines) + "\n"


def _and_of_grid(ours: float | None, of_grid: float | None) -> str:
    return f"{ours or 0.0:.1f} ({of_grid or 0.0:.1f})"


def found_table(found: Sequence[dict[str, Any]]) -> list[str]:
    """The segments that were found, in Markdown."""
    names = list(dict.fromkeys(name for one in found for name in one["typical"]))
    lines = [
        f"| population | found | users | {' | '.join(names)} |",
        f"|---|---|---|{'---|' * len(names)}",
    ]
    for one in found:
        cells = [f"{one['typical'].get(name, float('nan')):.3g}" for name in names]
        users = f"{one['users']:,} ({one['share']:.0%})"
        lines.append(f"| {one['population']} | {one['name']} | {users} | {' | '.join(cells)} |")
    return lines


def _days(quartiles: list[float] | None) -> str:
    if quartiles is None:
        return "nobody"
    low, median, high = quartiles
    return f"{median:.0f} d (half of them {low:.0f} to {high:.0f})"


def _percent(value: float | None) -> str:
    return "nobody" if value is None else f"{value:.1%}"


def _listed(numbers: dict[str, float], form: str) -> str:
    """Numbers by name, the largest first."""
    ranked = sorted(numbers.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {form.format(number)}" for name, number in ranked) or "none"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0 done, 1 it could not be done, 2 wrong use."""
    wanted = parse(arguments)
    learning = {"refit_seconds": wanted.refit}
    if wanted.segments is not None:
        learning["segments"] = wanted.segments
    clock = {"mode": "watermark", "mark_seconds": wanted.mark}
    try:
        settings = Settings.model_validate({"clock": clock, "learning": learning})
    except ValueError as error:
        return command.failed("bench-year", str(error), 2)
    told = (
        f"python -m ops.bench.year {wanted.file.name} --mapping {Path(wanted.mapping).name} "
        f"--mark {wanted.mark} --refit {wanted.refit}"
    )
    told += "" if wanted.segments is None else f" --segments {wanted.segments}"
    return command.run(
        "bench-year",
        lambda: play(settings, wanted.file, load_mapping(wanted.mapping)),
        lambda report, at: section(report, at, told),
        wanted=wanted,
        results=RESULTS,
        header=HEADER,
        expected=(FileError, MappingError, ConfigError),
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command.options(
        "A shop's year in memory: do segments keep their meaning?",
        RESULTS,
        prog="python -m ops.bench.year",
        epilog='Example: make bench-year ARGS="taobao.csv.gz --mapping taobao --mark 1h --refit 12h"',
        append=False,
    )
    add = parser.add_argument
    add("file", type=Path, nargs="?", default=DATA, help=f"events; else {DATA.name}")
    add("--mapping", default="online_retail", help="a shipped mapping's name, or a TOML file")
    add("--mark", default="1d", help="shop time from mark to mark")
    add("--refit", default="7d", help="shop time from refit to refit, at the latest")
    add("--segments", type=int, help="k; else the default")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
