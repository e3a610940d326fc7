"""Decides what a drifting stream of shoppers looks like, and what is true of it at any moment.

A scenario is declared as events on groups (drift, jump, death, split) and goes out as micro-batches
of users and raw vectors, with the true group of each; methods see the first two only.

**A user** has a place of its own within its group, which it keeps for life, and some noise at every
update. Both are normal in log units, so that natural units are log-normal: non-negative, heavy
tailed, each feature with a level and spread of its own, and nought where the log is below nought.
Activity is Zipf-Mandelbrot: the shape of Zipf without one user who is a tenth of all traffic.

**Truth is what can be decided.** A user's group is that of the user's latest update, for nothing
else of it was ever seen. A group is alive while an update of it may still come.

- A *move* takes an acting user to another living group. The vector follows by half of the way at
  each update of the user, as features of rolling windows do.
- A *death* gives each user of the group a moment within its span: from then on the user is silent
  for ever, or moves to a living group when acting next.
- A *split* lets a random half of a group wander off to a place of its own. The two cannot be told
  apart in the beginning, so the half counts as another group when the span is over.

Distances are in standard deviations of a group, over all features together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stream.events import Bools, Floats, Ints

EFFECT, NOISE = 0.95, 0.31
"""Of a standard deviation within a group: what a user keeps, and what changes at each update. Their
squares add up to one. Windows overlap from one update to the next, so little changes."""
GLIDE = 0.5
"""Of the way left to a new group, what remains after an update."""
MANDELBROT = 20.0
"""Added to the rank in the law of activity: the busiest user makes under 1 % of the updates."""
SHARES = (0.28, 0.24, 0.18, 0.16, 0.14)
"""Of all users, in the groups at the beginning."""
BATCH = 500
UPDATES_PER_SECOND = 5_000 / 60


@dataclass(frozen=True)
class Gradual:
    """The centre wanders in a straight line; times are shares of the stream."""

    group: int
    start: float
    end: float
    distance: float


@dataclass(frozen=True)
class Abrupt:
    """The centre jumps."""

    group: int
    at: float
    distance: float


@dataclass(frozen=True)
class Death:
    """The users of the group go: some fall silent, the others move."""

    group: int
    start: float
    end: float
    silent: float


@dataclass(frozen=True)
class Split:
    """Half of the group becomes another."""

    group: int
    into: int
    start: float
    end: float


@dataclass(frozen=True)
class Scenario:
    """What happens in a stream.

    Attributes:
        separation: of any two group centres in the beginning, about.
        moves: chance that an update is one by which its user moves.
        exponent: of the law of activity; 0 makes all users equally active.
        correlation: how far a user's place shifts with a standard deviation of log activity.
    """

    name: str
    events: tuple[Gradual | Abrupt | Death | Split, ...] = ()
    separation: float = 4.5
    moves: float = 0.0
    exponent: float = 1.0
    correlation: float = 0.0

    @property
    def groups(self) -> int:
        """All that are ever alive."""
        return len(SHARES) + sum(isinstance(event, Split) for event in self.events)

    @property
    def kin(self) -> Ints:
        """The group each split from; itself if from none."""
        found = np.arange(self.groups)
        for event in self.events:
            if isinstance(event, Split):
                found[event.into] = found[event.group]
        return found


MAIN = Scenario(
    "main",
    events=(
        Gradual(1, 0.10, 0.90, 3.0),
        Gradual(4, 0.20, 0.60, 2.0),
        Abrupt(2, 0.32, 3.0),
        Death(3, 0.35, 0.50, silent=0.5),
        Split(0, 5, 0.55, 0.60),
        Abrupt(1, 0.77, 2.5),
    ),
    moves=0.006,
)
"""The stream of the table."""
STATIONARY = Scenario("stationary")
"""Nobody moves and nothing drifts: every change is one too many."""
CORRELATED = Scenario("correlated", separation=7.0, correlation=0.5)
"""The busier, the farther from the group's centre; groups so far apart that nearly all k-means of
the users find them, so that what is off is off for one reason."""
CONTINUUM = Scenario("continuum", separation=1.5)
"""Groups that overlap for the most part: there is little to find, and nothing to announce."""
NEAR = Scenario("near", separation=1.8, moves=0.006)
"""Groups at .4 of the usual distance, and users who do move between them: the normal shop."""


@dataclass(frozen=True)
class Batch:
    """One micro-batch; a user may be in it more than once, in order.

    Attributes:
        users: ``(n,)`` numbers from 0.
        vectors: ``(n, features)`` in natural units.
        time: seconds since the beginning of the stream.
        truth: ``(n,)`` true group of each user at the update.
        alive: ``(groups,)`` groups of which updates may still come.
        splitting: groups that are in the midst of a split.
    """

    users: Ints
    vectors: Floats
    time: float
    truth: Ints
    alive: Bools
    splitting: tuple[int, ...]


@dataclass(frozen=True)
class Stream:
    """A scenario played once.

    Attributes:
        users: how many there are, acting or not.
        active_seconds: a user who has not acted for so long is not active any more.
    """

    scenario: Scenario
    users: int
    features: int
    active_seconds: float
    batches: tuple[Batch, ...]

    @property
    def updates(self) -> int:
        return sum(len(batch.users) for batch in self.batches)


ACTIVE_SHARE = 0.15
"""Of the stream's length; most of the users in the long tail act now and then within it."""


def play(
    scenario: Scenario,
    seed: int,
    users: int = 12_000,
    updates: int = 200_000,
    features: int = 20,
    batch: int = BATCH,
) -> Stream:
    """Play a scenario; the same arguments give the same stream to the bit."""
    world = _World(scenario, seed, users, features)
    sizes = [min(batch, updates - start) for start in range(0, updates, batch)]
    batches = tuple(world.batches(sizes))
    length = updates / UPDATES_PER_SECOND
    return Stream(scenario, users, features, ACTIVE_SHARE * length, batches)


class _World:
    """Everything that is true now."""

    def __init__(self, scenario: Scenario, seed: int, users: int, features: int) -> None:
        self._scenario = scenario
        self._random = random = np.random.default_rng([seed, users, features])
        self._level = random.uniform(1.5, 5.0, features)
        self._spread = random.uniform(0.8, 1.6, features)
        self._places = self._draw_places(features)
        self._paths = [_direction(random, features) for _ in scenario.events]

        rank = random.permutation(users) + 1.0
        activity = (rank + MANDELBROT) ** -scenario.exponent
        self._rate = activity / activity.sum()
        logs = np.log(activity)
        busy = (logs - logs.mean()) / (logs.std() or 1.0)
        shift = scenario.correlation * busy[:, None] * _direction(random, features)
        self._effect = EFFECT * random.standard_normal((users, features)) + shift

        self._group = random.choice(len(SHARES), size=users, p=SHARES).astype(np.int64)
        self._left = np.zeros((users, features))
        """How far each vector still is from where it will be."""
        self._alive = np.arange(scenario.groups) < len(SHARES)
        self._silent = np.zeros(users, dtype=np.bool_)
        self._fate: dict[int, tuple[Floats, Bools]] = {}
        """By death: the moment of each user, and who falls silent then."""
        self._leaving: dict[int, Bools] = {}
        """By split: who is of the half that wanders off."""

    def _draw_places(self, features: int) -> Floats:
        """Centres in orthogonal directions, so that no two are near by chance."""
        groups = self._scenario.groups
        if groups > features:
            raise ValueError(f"{groups} groups need as many features at least, not {features}")
        square = self._random.standard_normal((features, features))
        directions = np.linalg.qr(square).Q[:groups]
        reach = self._random.uniform(0.95, 1.1, (groups, 1))
        places: Floats = directions * reach * self._scenario.separation / np.sqrt(2.0)
        return places

    def batches(self, sizes: list[int]) -> Iterator[Batch]:
        done, total = 0, sum(sizes)
        for size in sizes:
            done += size
            now = done / total
            centres = self._centres(now)
            splitting = self._advance(now)
            acting = np.where(self._silent, 0.0, self._rate)
            users = self._random.choice(len(acting), size=size, p=acting / acting.sum())
            vectors = np.empty((size, len(self._level)))
            truth = np.empty(size, dtype=np.int64)
            for turn in _turns(users):
                self._act(users[turn], now, centres)
                vectors[turn] = self._vectors(users[turn], centres)
                truth[turn] = self._group[users[turn]]
            time = done / UPDATES_PER_SECOND
            yield Batch(users, vectors, time, truth, self._alive.copy(), splitting)

    def _centres(self, now: float) -> Floats:
        """Where the groups are, ``(groups, features)``."""
        centres = self._places.copy()
        for event, path in zip(self._scenario.events, self._paths, strict=True):
            match event:
                case Gradual():
                    centres[event.group] += event.distance * path * _passed(now, event)
                case Abrupt():
                    centres[event.group] += event.distance * path * (now >= event.at)
                case Split():
                    passed = _passed(now, event)
                    there = centres[event.into]
                    centres[event.into] = passed * there + (1 - passed) * centres[event.group]
                case Death():
                    pass
        return centres

    def _advance(self, now: float) -> tuple[int, ...]:
        """Let deaths and splits begin, go on and end; the groups that are splitting."""
        splitting: list[int] = []
        for number, event in enumerate(self._scenario.events):
            if isinstance(event, Death) and now >= event.start:
                self._die(number, event, now)
            elif isinstance(event, Split) and now >= event.start:
                if number not in self._leaving:
                    half = self._random.random(len(self._group)) < 0.5
                    self._leaving[number] = half & (self._group == event.group)
                if now < event.end:
                    splitting.append(event.group)
                else:
                    self._alive[event.into] = True
        return tuple(splitting)

    def _die(self, number: int, event: Death, now: float) -> None:
        if number not in self._fate:
            moment = self._random.uniform(event.start, event.end, len(self._group))
            self._fate[number] = moment, self._random.random(len(self._group)) < event.silent
        self._alive[event.group] = now < event.end
        moment, goes = self._fate[number]
        self._silent |= (self._group == event.group) & goes & (now >= moment)

    def _act(self, users: Ints, now: float, centres: Floats) -> None:
        """What changes for users, all different, by acting now."""
        self._left[users] *= GLIDE
        for number, event in enumerate(self._scenario.events):
            if isinstance(event, Death) and number in self._fate:
                due = (self._group[users] == event.group) & (now >= self._fate[number][0][users])
                self._move(users[due], centres)
            elif isinstance(event, Split) and number in self._leaving and now >= event.end:
                leaving = self._leaving[number][users] & (self._group[users] == event.group)
                self._group[users[leaving]] = event.into
                self._leaving[number][users[leaving]] = False
        if self._scenario.moves:
            moving = users[self._random.random(len(users)) < self._scenario.moves]
            self._move(moving, centres)

    def _move(self, users: Ints, centres: Floats) -> None:
        """To another living group that is not about to die, each drawn alike."""
        dying = [
            e.group
            for n, e in enumerate(self._scenario.events)
            if n in self._fate and isinstance(e, Death)
        ]
        open_to = self._alive.copy()
        open_to[dying] = False
        before = self._group[users]
        wish = self._random.random((len(users), len(open_to)))
        wish[:, ~open_to] = -1.0
        wish[np.arange(len(users)), before] = -1.0
        after = wish.argmax(axis=1)
        self._left[users] += GLIDE * (self._where(users, centres) - centres[after])
        self._group[users] = after
        for leaving in self._leaving.values():
            leaving[users] = False

    def _where(self, users: Ints, centres: Floats) -> Floats:
        """The centre each user's place is relative to."""
        group = self._group[users]
        for number, event in enumerate(self._scenario.events):
            if isinstance(event, Split) and number in self._leaving:
                group = np.where(self._leaving[number][users], event.into, group)
        found: Floats = centres[group]
        return found

    def _vectors(self, users: Ints, centres: Floats) -> Floats:
        noise = NOISE * self._random.standard_normal((len(users), centres.shape[1]))
        place = self._where(users, centres) + self._effect[users] + self._left[users] + noise
        natural: Floats = np.expm1(np.maximum(self._level + self._spread * place, 0.0))
        return natural


def _passed(now: float, event: Gradual | Split) -> float:
    """Share of the event's span that is over."""
    return float(np.clip((now - event.start) / (event.end - event.start), 0.0, 1.0))


def _direction(random: np.random.Generator, features: int) -> Floats:
    vector = random.standard_normal(features)
    unit: Floats = vector / np.linalg.norm(vector)
    return unit


def _turns(users: Ints) -> Iterator[Ints]:
    """Places in a batch, so that nobody is in one turn twice, and everyone's are in order."""
    order = np.argsort(users, kind="stable")
    ordered = users[order]
    first = np.searchsorted(ordered, ordered, side="left")
    turn = np.empty(len(users), dtype=np.int64)
    turn[order] = np.arange(len(users)) - first
    for number in range(int(turn.max(initial=-1)) + 1):
        yield np.flatnonzero(turn == number)
