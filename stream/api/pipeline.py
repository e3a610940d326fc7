"""What the API needs of a pipeline, and the facts that it makes of it.

Comes in: stores, what campaigns have kept, and a way to say something of a campaign; `stream.wiring.api` gives
them. Goes out: facts of `stream.insight`. Everything here blocks, and is called in a pool.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Generic, Protocol, TypeVar

from stream.api.problems import Kind, ProblemError
from stream.api.recent import Recent
from stream.campaigns.control import ControlRecord
from stream.campaigns.keep import Own
from stream.config import Settings
from stream.insight import campaign_facts, members, queries
from stream.insight.atlas import map_of
from stream.insight.facts import (
    CampaignsFacts,
    CampaignState,
    FeedState,
    MapFacts,
    ModelFacts,
    SegmentFacts,
    SegmentsFacts,
    StandingFacts,
    UserFacts,
    WhyFacts,
)
from stream.insight.health import standing
from stream.insight.members import Member, Page, WantedMembers
from stream.insight.why import why
from stream.learning.state import TrainerState
from stream.model import Model
from stream.store.promises import OperatorStore
from stream.units import iso

T = TypeVar("T")

FRESH_SECONDS = 1.0
"""What everybody sees alike is read anew after this long: rounds are seconds apart."""


class Pipeline(Protocol):
    """What is asked of a pipeline, from any thread."""

    def store(self) -> OperatorStore:
        """A store for the calling thread alone."""
        ...

    def campaigns(self) -> Sequence[Own]:
        """What the role of campaigns keeps of its partitions."""
        ...

    def say(self, record: ControlRecord) -> int:
        """Say something of a campaign; on how many partitions it stands.

        Raises:
            BrokerUnavailableError: it may not stand on all of them.
        """
        ...


class Lately(Generic[T]):
    """Something that is worked out again only after a while, by one at a time."""

    def __init__(
        self, work_out: Callable[[], T], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._work_out = work_out
        self._clock = clock
        self._lock = Lock()
        self._found: tuple[float, T] | None = None

    def get(self) -> T:
        with self._lock:
            if self._found is None or self._clock() - self._found[0] >= FRESH_SECONDS:
                self._found = self._clock(), self._work_out()
            return self._found[1]


@dataclass(frozen=True)
class _Reader(queries.Reader):
    """Reads users by the model that all threads have."""

    known: Callable[[], Model]

    def model(self) -> Model:
        return self.known()


class Facts:
    """All that the API tells and does."""

    def __init__(self, settings: Settings, pipeline: Pipeline, recent: Recent) -> None:
        self.settings = settings
        self.recent = recent
        self.table = settings.table()
        self._pipeline = pipeline
        self._round: tuple[int, TrainerState] | None = None
        self._state = Lately(self._read_state)
        self._campaigns = Lately(self._read_campaigns)

    # -- of everybody -------------------------------------------------------------------------

    def _read_state(self) -> TrainerState | None:
        """The trainer's state, unpacked once a round."""
        store = self._pipeline.store()
        if self._round is not None and self._round[0] == store.round():
            return self._round[1]
        try:
            state = queries.trainer_state(store)
        except queries.NoModelError:
            return None
        self._round = state.round_ms, state
        return state

    def state(self) -> TrainerState:
        """The trainer's state, of a second ago at the most.

        Raises:
            NoModelError: there is no model yet.
        """
        found = self._state.get()
        if found is None:
            raise queries.NoModelError("no model has been learned yet")
        return found

    def _model(self) -> Model:
        model = self.state().model
        assert model is not None
        return model

    def segments(self) -> SegmentsFacts:
        return queries.segments(self.state(), self.table)

    def segment(self, segment: int) -> SegmentFacts:
        found = next((one for one in self.segments()["segments"] if one["id"] == segment), None)
        if found is None:
            raise _no_segment(segment)
        return found

    def model(self) -> ModelFacts:
        return queries.model_facts(self.state(), self.table)

    def standing(self, feed: FeedState) -> StandingFacts:
        state, store = self._state.get(), self._pipeline.store()
        return standing(self.settings, store, state, self.now_ms(), feed, self.recent.latest())

    def now_ms(self) -> int:
        return self._reader().now_ms()

    # -- of users -----------------------------------------------------------------------------

    def _reader(self) -> _Reader:
        return _Reader(self.settings, self._pipeline.store(), self.table, self._model)

    def users(self, names: Sequence[str]) -> list[UserFacts | None]:
        """Facts of users without their changes; None for whom nobody knows."""
        return self._reader().users(names)

    def why(self, user: str) -> WhyFacts | None:
        return why(self._reader(), user)

    def _wanted(
        self, segment: int | None, kind: str | None, population: str | None, since: str | None
    ) -> WantedMembers:
        model = self._model()
        if segment is not None and segment not in model.by_id:
            raise _no_segment(segment)
        self.see_kind(kind)
        if population is not None and population not in model.populations.names:
            raise ProblemError(Kind.NOT_THERE, f"there is no population {population!r}")
        since_ms = self.since_ms(since)
        return WantedMembers(
            None if segment is None else [segment], kind, max(since_ms or 0, 0), population
        )

    def see_kind(self, kind: str | None) -> None:
        """Refuse a kind that there is none of.

        Raises:
            ProblemError: it is none.
        """
        if kind is not None:
            found = self._state.get()
            segments = () if found is None or found.model is None else found.model.by_id.values()
            known = queries.kinds_among(self.settings, segments)
            if kind not in known:
                raise ProblemError(
                    Kind.NOT_THERE, f"there is no kind {kind!r}, but {', '.join(known)}"
                )

    def since_ms(self, since: str | None) -> int | None:
        """A time as it is asked for.

        Raises:
            ProblemError: it is none.
        """
        try:
            return None if since is None else queries.since_ms(since, self.now_ms)
        except (ValueError, OverflowError, IndexError) as error:
            raise ProblemError(Kind.BAD_REQUEST, f"since: {error}") from None

    def members(self, limit: int, cursor: str | None, **filters: Any) -> Page:
        """Some members from a cursor on."""
        partition, _, place = (cursor or "0-0").partition("-")
        return members.page(
            self.settings, self.table, self._pipeline.store(), self._model(),
            self._wanted(**filters), self.now_ms(), (int(partition), int(place)), limit,
        )  # fmt: skip

    def members_table(self, **filters: Any) -> Iterator[list[Member]]:
        """All members, some at a time, each once."""
        wanted, now_ms = self._wanted(**filters), self.now_ms()
        store = self._pipeline.store()
        return members.once(
            members.members(self.settings, self.table, store, self._model(), wanted, now_ms)
        )

    def map(self, shoppers: int) -> MapFacts:
        """Some shoppers and all centroids in a plane."""
        store, numbers = self._pipeline.store(), range(self.settings.topics.partitions)
        each = -(-shoppers // len(numbers))
        found = [name.decode() for n in numbers for name, _ in store.page(n, 0, each)[1][:each]]
        return map_of(self._reader(), found)

    # -- of campaigns -------------------------------------------------------------------------

    def _read_campaigns(self) -> CampaignsFacts:
        return campaign_facts.campaigns_facts(self.settings, self._pipeline.campaigns())

    def campaigns(self) -> CampaignsFacts:
        return self._campaigns.get()

    def campaign(self, name: str) -> CampaignState:
        found = next((one for one in self.campaigns()["campaigns"] if one["name"] == name), None)
        if found is None:
            raise ProblemError(Kind.NOT_THERE, f"there is no campaign {name!r}")
        return found

    # -- what changes something ---------------------------------------------------------------

    def rename(self, segment: int, name: str) -> str:
        """Give a segment a name; the one it had."""
        if segment not in self._model().ids:
            raise _no_segment(segment)
        return queries.rename(self._pipeline.store(), segment, name)

    def pause(self, campaign: str, *, paused: bool, by: str) -> tuple[ControlRecord, int]:
        """Pause a campaign, or let it go on."""
        if campaign not in [one.name for one in self.settings.campaigns]:
            raise ProblemError(Kind.NOT_THERE, f"there is no campaign {campaign!r}")
        record: ControlRecord = {
            "at": iso(time.time_ns() // 1_000_000),
            "by": by,
            "campaign": campaign,
            "paused": paused,
        }
        return record, self._pipeline.say(record)


def _no_segment(segment: int) -> ProblemError:
    return ProblemError(Kind.NOT_THERE, f"there is no segment {segment}")
