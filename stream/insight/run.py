"""What a run of the pipeline has brought: while it goes on, and at its end.

Comes in: changes as they arrive, the store, when marks were sent, and what an audit found. Goes out:
`MomentFacts` and `RunFacts`; the demo shows them.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stream.features import FeatureTable
from stream.insight import queries
from stream.insight.facts import MomentFacts, Record, RunFacts, SegmentsFacts
from stream.learning.owner_view import OwnerView
from stream.store.promises import ReaderStore
from stream.store.state import Position, StoreUnavailableError
from stream.units import iso

LAST_MOVES = 8


@dataclass
class Arrivals:
    """The changes that have arrived, counted as a campaign would see them: each once.

    Attributes:
        risk_moves: into a kind that stands for churn risk.
        causes: of changes.
        last: the last moves from one segment to another.
        arrived: of each change its time, and the wall clock in seconds when it was here.
    """

    risk_moves: int = 0
    causes: Counter[str] = field(default_factory=Counter)
    last: deque[Record] = field(default_factory=lambda: deque(maxlen=LAST_MOVES))
    arrived: list[tuple[str, float]] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self._seen)

    def take(self, change: Record, now: float | None) -> None:
        """Count a change.

        Args:
            now: when it arrived; None where that is not known.
        """
        if change["id"] in self._seen:
            return
        self._seen.add(change["id"])
        self.risk_moves += queries.churn_risk_moves([change])
        self.causes[change["cause"]] += 1
        if now is not None:
            self.arrived.append((change["at"], now))
        if change["from"] is not None:
            self.last.append(change)

    def latencies(self, sent: Mapping[str, float]) -> list[float]:
        """Seconds from when a mark was sent to when the changes decided at it arrived.

        Args:
            sent: wall clock at which each mark was sent, by the mark's time.
        """
        return [arrived - sent[at] for at, arrived in self.arrived if at in sent]


@dataclass(frozen=True)
class Audited:
    """What an audit found, as far as a run's facts tell it; see `consumers.audit.report`."""

    ok: bool
    lost: int
    duplicated: int
    rejected: int
    checks: list[dict[str, Any]]


class Run:
    """A pipeline at work."""

    def __init__(self, store: ReaderStore, table: FeatureTable, partitions: int) -> None:
        self.arrivals = Arrivals()
        self._store = store
        self._table = table
        self._partitions = range(partitions)
        self._taken_in: deque[tuple[float, int]] = deque(maxlen=12)

    def moment(self, shop_ms: int, now: float) -> MomentFacts:
        """What is going on.

        Args:
            shop_ms: how far the shop is, by its own clock.
            now: a clock that only goes forward, in seconds.
        """
        positions, events = self._progress()
        self._taken_in.append((now, events))
        (then, before), (now, after) = self._taken_in[0], self._taken_in[-1]
        clock_ms = min((p.clock_ms for p in positions), default=0)
        return {
            "shop_time": iso(shop_ms),
            "events": events,
            "events_per_second": (after - before) / (now - then) if now > then else 0.0,
            "behind_seconds": max(shop_ms - clock_ms, 0) / 1_000 if clock_ms else 0.0,
            "changes": len(self.arrivals),
            "churn_risk_moves": self.arrivals.risk_moves,
            "last_moves": list(self.arrivals.last),
            "segment_list": self._segments(),
        }

    def is_settled(self, last_event_ms: int) -> bool:
        """Whether every partition has completed the last mark, and every change is delivered."""
        try:
            # What settles first is read first: a round that ended in between would bring a model
            # that a partition read before it has yet to adopt.
            found = self._store.model()
            if found is None or found[0] <= last_event_ms:
                return False
            model = OwnerView.unpack(found[1]).model
            settled = (found[0], "" if model is None else model.name)
            positions = [self._store.position(p) for p in self._partitions]
            waiting = sum(self._store.outbox_sizes(self._partitions))
        except StoreUnavailableError:
            return False
        reached = all(p is not None and (p.mark_ms, p.model) == settled for p in positions)
        return reached and waiting == 0

    def facts(
        self,
        sent: Mapping[str, float],
        audited: Audited,
        seconds: float,
        *,
        complete: bool,
        caught_up: bool,
    ) -> RunFacts:
        """What the run came to.

        Args:
            sent: see `Arrivals.latencies`.
            audited: what an audit found afterwards.
            seconds: that it took.
            complete: whether the shop sent all it had.
            caught_up: whether the roles came to the end of it.
        """
        arrivals = self.arrivals
        _, events = self._progress()
        latencies = arrivals.latencies(sent)
        half, most = np.quantile(latencies, [0.5, 0.99]).tolist() if latencies else (None, None)
        facts: RunFacts = {
            "ok": audited.ok and (caught_up or not complete),
            "seconds": round(seconds, 1),
            "events": events,
            "events_per_second": round(events / seconds, 1) if seconds else 0.0,
            "users": 0,
            "segments": 0,
            "changes": len(arrivals),
            "changes_by_cause": dict(sorted(arrivals.causes.items())),
            "churn_risk_moves": arrivals.risk_moves,
            "change_latency_p50_seconds": half,
            "change_latency_p99_seconds": most,
            "lost": audited.lost,
            "duplicated": audited.duplicated,
            "rejected": audited.rejected,
            "complete": complete,
            "caught_up": caught_up,
            "checks": audited.checks,
        }
        if (found := self._segments()) is not None:
            facts["users"], facts["segments"] = found["users"], len(found["segments"])
            facts["segment_list"] = found
        return facts

    def _progress(self) -> tuple[list[Position], int]:
        """Positions of the partitions that have one, and how many messages they have taken in."""
        positions = [p for p in map(self._store.position, self._partitions) if p is not None]
        return positions, sum(p.counts.consumed for p in positions)

    def _segments(self) -> SegmentsFacts | None:
        with suppress(queries.NoModelError):
            return queries.segments(queries.trainer_state(self._store), self._table)
        return None
