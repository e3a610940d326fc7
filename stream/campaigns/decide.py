"""Decides what becomes of each change for each campaign, as columns, in one declared order.

Comes in: changes of users, and what time it is. Goes out: decisions, and who is measured from now on;
a role sends the triggers and commits the state.

For each change and campaign exactly one outcome is the last one; see `Outcome`. Every step is the same
for a user whatever came with them in a batch: a user's changes are taken one after the other, changes of
different users side by side, and of one change the campaigns by priority.

**Time is an argument.** A change is decided as of its own time, and what was put off as of the time it
was put off to, so a year replayed in a minute decides what the year would have. A live role also says
what the wall clock shows: nothing is decided as of a time that has passed by then, so a worker that
comes back after an hour sends nothing into quiet hours, over a cap, or too late.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np

from stream.campaigns import state
from stream.campaigns.arms import FIRST_ARM, Arms
from stream.campaigns.changes import ChangeColumns, ChangeReader
from stream.campaigns.declare import MOST_TRAITS, Campaign, Limits, When
from stream.campaigns.match import Moves
from stream.campaigns.quiet import ZoneClock, not_quiet_from
from stream.campaigns.state import NEVER, NONE, NOT_DUE, Batch, Pairs, Users, one_a_user
from stream.campaigns.windows import Ended
from stream.events import Bools, Floats, Hashes, Ints
from stream.levels.book import MOST_CODES
from stream.units import DAY_MS

log = logging.getLogger(__name__)

WEEK_MS = 7 * DAY_MS
_UTC = ZoneClock(None)


class Outcome(IntEnum):
    """What became of a change for a campaign, in the order in which it is found out.

    Only `EXPIRED` is found out before `WAITING`: nobody waits for what would be too late then.
    """

    UNMATCHED = 0
    """The campaign is not concerned."""
    ENDED = 1
    """It is not the campaign's time: before its start, or from its end on."""
    PAUSED = 2
    """Somebody has paused the campaign."""
    SUPPRESSED = 3
    """The user gets nothing."""
    HOLDOUT = 4
    """The user is measured and never sent to."""
    OUTRANKED = 5
    """Another campaign of the group comes first."""
    COOLING = 6
    """The user had a trigger of this campaign not long ago, or one is under way."""
    CAPPED = 7
    """The user had as many triggers as they may, over all campaigns."""
    SETTLING = 8
    """Not the last one: it is seen whether it stays true."""
    UNDONE = 9
    """The user moved on, on a level too, before the time was up, or before the quiet hours were over."""
    QUIET = 10
    """It was a quiet hour, and the campaign does not wait."""
    WAITING = 11
    """Not the last one: for the end of the quiet hours."""
    EXPIRED = 12
    """It would have been too late."""
    SENT = 13
    """A trigger."""


UNDER_WAY = (Outcome.SETTLING, Outcome.WAITING)
LAST = tuple(outcome for outcome in Outcome if outcome not in UNDER_WAY)
_STAGE_OUTCOME = np.array([-1, Outcome.SETTLING, Outcome.WAITING])


@dataclass(frozen=True)
class Decisions(Batch):
    """Outcomes, a column a field; a change that is unmatched has no row.

    Attributes:
        slot: place of the user.
        campaign: number of the campaign.
        version: number of its version in the book.
        arm: number of the user's arm; see `stream.campaigns.arms.arm_names`.
        outcome: an `Outcome`.
        at_ms: as of when it was decided.
        changed_ms: when the change happened.
        incarnation, number: of the change.
        move: of the change.
        counted: the user is measured from now on.
    """

    slot: Ints
    campaign: Ints
    version: Ints
    arm: Ints
    outcome: Ints
    at_ms: Ints
    changed_ms: Ints
    incarnation: Ints
    number: Ints
    move: Ints
    counted: Bools

    @staticmethod
    def concatenate(parts: Sequence[Decisions]) -> Decisions:
        """All of them, in the order given."""
        if not parts:
            return NO_DECISIONS
        return Decisions(
            *(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Decisions))
        )


_NONE = np.empty(0, np.int64)
NO_DECISIONS = Decisions(
    _NONE, _NONE, _NONE, _NONE, _NONE, _NONE, _NONE, _NONE, _NONE, _NONE, np.empty(0, np.bool_)
)


@dataclass(frozen=True)
class _Open(Batch):
    """Pairs about which something is to be decided now, a column a field."""

    slot: Ints
    campaign: Ints
    version: Ints
    arm: Ints
    at_ms: Ints
    changed_ms: Ints
    incarnation: Ints
    number: Ints
    move: Ints
    pair: Ints
    counted: Bools


class Book:
    """What was declared, by number of the version: a column a field."""

    def __init__(self, versions: Sequence[Campaign], limits: Limits, key: bytes) -> None:
        self.versions = list(versions)
        self.arms = [Arms(one, limits.global_holdout, key) for one in versions]
        groups = {group: place for place, group in enumerate({c.group for c in versions} - {None})}

        def column(values: Sequence[float]) -> Ints:
            return np.array(values, np.int64)

        self.settle_ms = column([round(c.settle * 1_000) for c in versions])
        self.cooldown_ms = column([round(c.cooldown * 1_000) for c in versions])
        self.valid_ms = column([round(c.valid_for * 1_000) for c in versions])
        self.priority = column([c.priority for c in versions])
        self.group = column([NONE if c.group is None else groups[c.group] for c in versions])
        self.start_ms = column([NEVER if c.start_ms is None else c.start_ms for c in versions])
        self.end_ms = column([NOT_DUE if c.end_ms is None else c.end_ms for c in versions])
        self.window_ms = column(
            [0 if c.goal is None else round(c.goal.within * 1_000) for c in versions]
        )
        self.measured: Bools = np.array([c.goal is not None for c in versions], np.bool_)
        self.waits: Bools = np.array(
            [c.quiet is not None and c.quiet.then == "wait" for c in versions], np.bool_
        )

    def ended(self, versions: Ints, at_ms: Ints) -> Bools:
        """Of each whether it is not its time."""
        outside: Bools = (at_ms < self.start_ms[versions]) | (at_ms >= self.end_ms[versions])
        return outside


def _standing(when: When, levels: Mapping[str, Sequence[str]]) -> list[tuple[int, Bools]]:
    """Of each level that a condition looks at, its place, and by code of a step whether it holds there."""
    found = []
    for level, wanted in when.steps.items():
        allowed = np.zeros(MOST_CODES + 1, np.bool_)
        known = level in levels
        for code, step in enumerate(levels[level] if known else (), 1):
            allowed[code] = step in wanted
        found.append((list(levels).index(level) if known else 0, allowed))
    return found


class Decider:
    """Campaigns, and what they know of the users of a partition.

    Args:
        campaigns: in the order of their numbers.
        limits: over all of them.
        key: the namespace's secret.
        earlier: declarations that were in force before and that users are still in, oldest first. What
            is under way goes on as they say; of a campaign that is declared no more, it ends.
        levels: names of the steps of each level that is declared.
        verified: changes whose id is not one of their user in this namespace are refused.

    Attributes:
        campaigns: those declared, then those that were; only the first ones are offered changes.
        offered: how many are declared.
        pairs_seen: ``(campaigns,)`` changes looked at.
        counts: ``(campaigns, outcomes)`` how many came to each last outcome, and how many are
            settling or waiting now. The sum over outcomes is `pairs_seen`.
        paused: ``(campaigns,)`` nothing is sent of these.
        zones: of users, by number.
        traits: that suppress or did, by number.
    """

    def __init__(
        self,
        campaigns: Sequence[Campaign],
        limits: Limits,
        key: bytes = b"",
        earlier: Sequence[Campaign] = (),
        levels: Mapping[str, Sequence[str]] | None = None,
        *,
        verified: bool = False,
    ) -> None:
        levels = levels or {}
        declared = {one.name for one in campaigns}
        removed = {one.name: one for one in earlier if one.name not in declared}
        self.campaigns = [*campaigns, *removed.values()]
        self.offered = len(campaigns)
        now = {(one.name, one.version) for one in campaigns}
        versions = [*campaigns, *(c for c in earlier if (c.name, c.version) not in now)]
        self.book = Book(versions, limits, key)
        self.book.end_ms[[one.name not in declared for one in versions]] = NEVER
        self._day, self._week = limits.per_user.day, limits.per_user.week
        self.users = Users(key, max(self._day or 0, self._week or 0), len(levels))
        self.pairs = Pairs()
        self.moves = Moves([version.when for version in versions], levels)
        self._standing = [_standing(campaign.when, levels) for campaign in campaigns]
        watched = list(dict.fromkeys(f for c in campaigns for f in c.when.reasons))
        scores = list(dict.fromkeys(name for c in versions for name in c.when.scores))
        self.reader = ChangeReader(
            self.users, self.moves, watched, scores, key if verified else None
        )
        self._score_limits = [
            [(scores.index(name), limits) for name, limits in c.when.scores.items()]
            for c in versions
        ]
        self._reasons: Hashes = np.array(
            [sum(1 << watched.index(f) for f in set(c.when.reasons)) for c in campaigns], np.uint64
        )
        self._clocks: dict[str, ZoneClock | None] = {}
        self.zones: list[str] = []
        self.traits: list[str] = []
        self._limits = limits
        self.know_traits(())
        self.pairs_seen: Ints = np.zeros(len(self.campaigns), np.int64)
        self.paused: Bools = np.zeros(len(self.campaigns), np.bool_)
        self._replaced: list[Ended] = []
        self.counts: Ints = np.zeros((len(self.campaigns), len(Outcome)), np.int64)
        self._decided: list[Decisions] = []

    # -- what is known of users ------------------------------------------------------------------

    def suppress(self, user: str, *, suppressed: bool = True) -> None:
        """From now on a user gets nothing, not even what is under way; or does again."""
        self.users.suppressed[self.users.slot_of(user)] = suppressed

    def pause(self, campaign: str, *, paused: bool = True) -> None:
        """From now on nothing of a campaign is sent, not even what is under way; or is again."""
        for number, one in enumerate(self.campaigns):
            if one.name == campaign:
                self.paused[number] = paused

    def set_zone(self, user: str, name: str | None) -> None:
        """A user's own time zone; None for one that is not known.

        Raises:
            ValueError: there is no such zone.
        """
        number = NONE
        if name is not None:
            number = self.know_zone(name)
        self.users.zone[self.users.slot_of(user)] = number

    def tell_traits(self, user: str, suppressing: Mapping[str, bool]) -> None:
        """Of traits that may suppress, whether they do; see `Limits.suppressing`."""
        slot = self.users.slot_of(user)
        for name, suppresses in suppressing.items():
            bit = 1 << self.traits.index(name)
            others = int(self.users.traits[slot]) & ~bit
            self.users.traits[slot] = others | (bit if suppresses else 0)

    def know_traits(self, names: Iterable[str]) -> None:
        """Number traits, in the order in which they were first asked for, and then those declared.

        Raises:
            ValueError: there are more than a row has bits for.
        """
        self.traits = list(dict.fromkeys([*names, *self._limits.suppress]))
        if len(self.traits) > MOST_TRAITS:
            raise ValueError(
                f"campaign_limits.suppress: users have state of {len(self.traits)} traits that are or "
                f"were declared, which is more than {MOST_TRAITS}"
            )
        self._suppressing = sum(1 << self.traits.index(name) for name in self._limits.suppress)

    def know_zone(self, name: str) -> int:
        """The number of a time zone, in the order in which they were first asked for.

        Raises:
            ValueError: there is no such zone.
        """
        self._clocks.setdefault(name, ZoneClock(name))
        if name not in self.zones:
            self.zones.append(name)
        return self.zones.index(name)

    def restore_zones(self, names: Iterable[str]) -> None:
        """Give zones the numbers that they had; another machine may have known more of them than this one."""
        self.zones = list(names)

    def _clock(self, names: Iterable[str]) -> ZoneClock:
        """The clock of the first zone that is known here; that of UTC if none is."""
        for name in names:
            if name not in self._clocks:
                try:
                    self._clocks[name] = ZoneClock(name)
                except ValueError:
                    log.warning("time zone %s is not known on this machine", name)
                    self._clocks[name] = None
            if (clock := self._clocks[name]) is not None:
                return clock
        return _UTC

    # -- what happens ----------------------------------------------------------------------------

    def decide(self, changes: ChangeColumns, wall_ms: int | None = None) -> Decisions:
        """Decide about changes; first about what was put off to a time before them.

        Args:
            changes: those of a user in their order.
            wall_ms: by the wall clock; None in a replay, in which nothing is late.
        """
        self._decided.clear()
        for turn in one_a_user(changes.slot):
            self._take(changes.where(turn), wall_ms)
        return Decisions.concatenate(self._decided)

    def advance(self, now_ms: int, wall_ms: int | None = None) -> Decisions:
        """Decide about everything that was put off to a time up to now.

        Args:
            now_ms: by the clock in use.
            wall_ms: see `decide`.
        """
        self._decided.clear()
        due = np.flatnonzero(self.pairs.due_ms[: self.pairs.size] <= now_ms)
        self._release(due, np.full(len(due), now_ms), wall_ms)
        return Decisions.concatenate(self._decided)

    # -- steps -----------------------------------------------------------------------------------

    def _suppressed(self, slots: Ints) -> Bools:
        """Of each user whether they get nothing."""
        users = self.users
        found: Bools = users.suppressed[slots] | ((users.traits[slots] & self._suppressing) > 0)
        return found

    def _take(self, changes: ChangeColumns, wall_ms: int | None) -> None:
        """Changes of distinct users."""
        users, slot = self.users, changes.slot
        at_ms = np.maximum(changes.at_ms, users.clock_ms[slot])
        if wall_ms is not None:
            at_ms = np.maximum(at_ms, wall_ms)
        busy = users.under_way[slot] > 0
        if busy.any():
            self._release_before(slot[busy], at_ms[busy], wall_ms)
        users.clock_ms[slot] = at_ms
        erased = self.moves.erased[changes.move]
        if erased.any():
            users.suppressed[slot[erased]] = users.erased[slot[erased]] = True
            users.steps[slot[erased]] = 0
        moved = self.moves.of_segment[changes.move]
        users.at_risk[slot[moved]] = self.moves.at_risk[changes.move[moved]]
        level = self.moves.level[changes.move]
        crossed = level != NONE
        users.steps[slot[crossed], level[crossed]] = self.moves.step[changes.move[crossed]]
        busy = users.under_way[slot] > 0
        if busy.any():
            self._undo(changes.where(busy), at_ms[busy])
        self._offer(changes, at_ms)

    def _release_before(self, slots: Ints, until_ms: Ints, wall_ms: int | None) -> None:
        pairs, found = self.pairs.of_users(self.users, slots)
        due = self.pairs.due_ms[pairs] <= until_ms[found]
        self._release(pairs[due], until_ms[found[due]], wall_ms)

    def _release(self, due: Ints, until_ms: Ints, wall_ms: int | None) -> None:
        """Decide about pairs that were put off, of each user the earliest first.

        Args:
            due: their places.
            until_ms: of each; what is put off again to a time up to this is decided, too.
        """
        pairs = self.pairs
        while len(due):
            order = np.lexsort(
                (
                    pairs.campaign[due],
                    -self.book.priority[pairs.version[due]],
                    pairs.due_ms[due],
                    pairs.user[due],
                )
            )
            due, until_ms = due[order], until_ms[order]
            first = np.unique(pairs.user[due], return_index=True)[1]
            self._finish_settled(due[first], wall_ms)
            left = pairs.due_ms[due] <= until_ms
            due, until_ms = due[left], until_ms[left]

    def _finish_settled(self, places: Ints, wall_ms: int | None) -> None:
        """What was put off is still true: nobody undid it. Whether it may be sent is seen again."""
        pairs, users, book = self.pairs, self.users, self.book
        slot = pairs.user[places].astype(np.int64)
        at_ms = np.maximum(pairs.due_ms[places], users.clock_ms[slot])
        if wall_ms is not None:
            at_ms = np.maximum(at_ms, wall_ms)
        users.clock_ms[slot] = at_ms
        left = self._no_longer_under_way(places, at_ms)
        left = self._decide_those(left, book.ended(left.version, at_ms), Outcome.ENDED)
        left = self._decide_those(left, self.paused[left.campaign], Outcome.PAUSED)
        left = self._decide_those(left, self._suppressed(left.slot), Outcome.SUPPRESSED)
        left = self._decide_those(left, self._capped(left), Outcome.CAPPED)
        self._send(left)

    def _undo(self, changes: ChangeColumns, at_ms: Ints) -> None:
        """What is under way for users who have moved on ends."""
        pairs = self.pairs
        places, found = pairs.of_users(self.users, changes.slot)
        gone = pairs.stage[places] != state.IDLE
        version = pairs.version[places]
        move = changes.move[found]
        still, heard = self.moves.still[version, move], self.moves.heard[version, move]
        for number in np.unique(version[gone & still & heard]).tolist():
            of_it = heard & (version == number)
            still[of_it] &= self._scores_hold(number, changes.scores[found[of_it]])
        gone &= ~still
        places, at = places[gone], at_ms[found[gone]]
        self._decide_all(self._no_longer_under_way(places, at), Outcome.UNDONE)

    def _offer(self, changes: ChangeColumns, at_ms: Ints) -> None:
        """Changes of distinct users to all campaigns, each step for whom the ones before left over."""
        book, users = self.book, self.users
        concerned = self.moves.concerned[: self.offered, changes.move]
        watching = self._reasons > 0
        if watching.any():
            named = (changes.reasons[None, :] & self._reasons[watching, None]) > 0
            concerned[watching] &= named
        for number, standing in enumerate(self._standing):
            for level, allowed in standing:
                concerned[number] &= allowed[users.steps[changes.slot, level]]
        for number in range(self.offered):
            if self._score_limits[number]:
                concerned[number] &= self._scores_hold(number, changes.scores)
        self.pairs_seen[: self.offered] += len(changes)
        unmatched = len(changes) - concerned.sum(axis=1)
        self.counts[: self.offered, Outcome.UNMATCHED] += unmatched
        row, campaign = np.nonzero(concerned.T)
        if not len(row):
            return
        left = _Open(
            slot=changes.slot[row],
            campaign=campaign,
            version=campaign,
            arm=np.full(len(row), FIRST_ARM),
            at_ms=at_ms[row],
            changed_ms=changes.at_ms[row],
            incarnation=changes.incarnation[row],
            number=changes.version[row],
            move=changes.move[row].astype(np.int64),
            pair=np.full(len(row), NONE),
            counted=np.zeros(len(row), np.bool_),
        )
        left = self._decide_those(left, book.ended(left.version, left.at_ms), Outcome.ENDED)
        left = self._decide_those(left, self.paused[left.campaign], Outcome.PAUSED)
        left = self._decide_those(left, self._suppressed(left.slot), Outcome.SUPPRESSED)
        left = self._counted(self._with_arms(left))
        left = self._decide_those(left, left.arm < FIRST_ARM, Outcome.HOLDOUT)
        left = self._decide_those(left, self._outranked(left), Outcome.OUTRANKED)
        left = self._decide_those(left, self._cooling(left), Outcome.COOLING)
        # What one campaign sends may be what caps the next.
        left = left.where(np.lexsort((left.campaign, -book.priority[left.version], left.slot)))
        for turn in one_a_user(left.slot):
            self._settle_or_send(left.where(turn))

    def _scores_hold(self, version: int, scores: Floats) -> Bools:
        """Of each change whether its scores are within the limits of a version."""
        holds = np.ones(len(scores), np.bool_)
        for column, limits in self._score_limits[version]:
            value = scores[:, column]
            holds &= ~np.isnan(value)
            if limits.min is not None:
                holds &= value >= limits.min
            if limits.max is not None:
                holds &= value <= limits.max
        return holds

    def _with_arms(self, left: _Open) -> _Open:
        hashes = self.users.hashes(left.slot)
        for version in np.unique(left.version).tolist():
            of_it = left.version == version
            left.arm[of_it] = self.book.arms[version].of(hashes[of_it])
        return left

    def _counted(self, left: _Open) -> _Open:
        """Give pairs their place, and begin the effect windows of those who are decided for first.

        Who is measured is settled here, before anything that treatment could have changed: treated
        and held out alike, once a version, whether or not anything is sent in the end.
        """
        pairs, book = self.pairs, self.book
        left.pair[:] = pairs.find(self.users, left.slot, left.campaign)
        needed = (left.pair == NONE) & ((left.arm >= FIRST_ARM) | book.measured[left.version])
        left.pair[needed] = pairs.add(self.users, left.slot[needed], left.campaign[needed])
        measured = np.flatnonzero(book.measured[left.version])
        place, version = left.pair[measured], left.version[measured]
        before = pairs.counted[place].astype(np.int64) - 1
        ends = pairs.counted_ms[place] + book.window_ms[before]
        begins = (before != version) & ((before < 0) | (left.at_ms[measured] >= ends))
        self._replace(place[begins], before[begins], ends[begins])
        place, chosen = place[begins], measured[begins]
        pairs.summed[place] = False
        pairs.counted[place] = left.version[chosen] + 1
        pairs.counted_ms[place] = left.at_ms[chosen]
        pairs.counted_arm[place] = left.arm[chosen]
        left.counted[chosen] = True
        return left

    def _replace(self, places: Ints, versions: Ints, ends_ms: Ints) -> None:
        """Windows that are over, and not added up yet, make place for others."""
        pairs = self.pairs
        lost = (versions >= 0) & ~pairs.summed[places]
        if lost.any():
            places = places[lost]
            self._replaced.append(
                Ended(
                    pairs.user[places].astype(np.int64),
                    versions[lost],
                    pairs.counted_arm[places].astype(np.int64),
                    pairs.counted_ms[places],
                    ends_ms[lost],
                )
            )

    def take_replaced(self) -> list[Ended]:
        """Windows that made place for others since this was last asked; for `windows`."""
        replaced, self._replaced = self._replaced, []
        return replaced

    def _outranked(self, left: _Open) -> Bools:
        outranked = np.zeros(len(left), np.bool_)
        grouped = np.flatnonzero(self.book.group[left.version] != NONE)
        if len(grouped):
            version = left.version[grouped]
            group, slot = self.book.group[version], left.slot[grouped]
            order = np.lexsort((left.campaign[grouped], -self.book.priority[version], group, slot))
            same = (slot[order][1:] == slot[order][:-1]) & (group[order][1:] == group[order][:-1])
            outranked[grouped[order[1:][same]]] = True
        return outranked

    def _cooling(self, left: _Open) -> Bools:
        ends = self.pairs.sent_ms[left.pair] + self.book.cooldown_ms[left.version]
        under_way: Bools = self.pairs.stage[left.pair] != state.IDLE
        return under_way | (ends > left.at_ms)

    def _settle_or_send(self, left: _Open) -> None:
        """Pairs of distinct users."""
        left = self._decide_those(left, self._capped(left), Outcome.CAPPED)
        settle = self.book.settle_ms[left.version]
        self._put_off(left.where(settle > 0), (left.at_ms + settle)[settle > 0], state.SETTLING)
        self._send(left.where(settle == 0))

    def _capped(self, left: _Open) -> Bools:
        capped = np.zeros(len(left), np.bool_)
        ago = left.at_ms[:, None] - self.users.sends[left.slot]
        for most, period in ((self._day, DAY_MS), (self._week, WEEK_MS)):
            if most is not None:
                capped |= (ago < period).sum(axis=1) >= most
        return capped

    def _send(self, left: _Open) -> None:
        """Pairs of distinct users, unless it is a quiet hour or too late."""
        book, pairs, users = self.book, self.pairs, self.users
        until = self._not_quiet_from(left)
        quiet, waits = until > left.at_ms, book.waits[left.version]
        left_until = until[~quiet | waits]
        left = self._decide_those(left, quiet & ~waits, Outcome.QUIET)
        late = left_until - left.changed_ms > book.valid_ms[left.version]
        left_until = left_until[~late]
        left = self._decide_those(left, late, Outcome.EXPIRED)
        waiting = left_until > left.at_ms
        self._put_off(left.where(waiting), left_until[waiting], state.WAITING)
        left = left.where(~waiting)
        pairs.sent_ms[left.pair] = left.at_ms
        if len(left):
            users.sends[left.slot, 1:] = users.sends[left.slot, :-1]
            users.sends[left.slot, 0] = left.at_ms
        self._decide_all(left, Outcome.SENT)

    def _not_quiet_from(self, left: _Open) -> Ints:
        until = left.at_ms.copy()
        zones = self.users.zone[left.slot]
        for version in np.unique(left.version).tolist():
            quiet = self.book.versions[version].quiet
            if quiet is None:
                continue
            of_it = left.version == version
            for number in np.unique(zones[of_it]).tolist():
                names = [] if number == NONE else [self.zones[number]]
                there = of_it & (zones == number)
                clock = self._clock([*names, quiet.zone])
                until[there] = not_quiet_from(clock, quiet.minutes, left.at_ms[there])
        return until

    def _put_off(self, left: _Open, until_ms: Ints, stage: int) -> None:
        if not len(left):
            return
        pairs, place = self.pairs, left.pair
        pairs.due_ms[place] = until_ms
        pairs.stage[place] = stage
        for name in ("version", "arm", "move", "number", "incarnation", "changed_ms"):
            getattr(pairs, name)[place] = getattr(left, name)
        np.add.at(self.users.under_way, left.slot, 1)
        self._decide_all(left, Outcome(_STAGE_OUTCOME[stage]))

    def _no_longer_under_way(self, places: Ints, at_ms: Ints) -> _Open:
        """Take pairs back whose turn has come; they are decided about anew."""
        pairs = self.pairs
        slot, campaign = (
            pairs.user[places].astype(np.int64),
            pairs.campaign[places].astype(np.int64),
        )
        np.subtract.at(self.counts, (campaign, _STAGE_OUTCOME[pairs.stage[places]]), 1)
        np.subtract.at(self.users.under_way, slot, 1)
        pairs.stage[places] = state.IDLE
        pairs.due_ms[places] = NOT_DUE
        return _Open(
            slot=slot,
            campaign=campaign,
            version=pairs.version[places].astype(np.int64),
            arm=pairs.arm[places].astype(np.int64),
            at_ms=at_ms,
            changed_ms=pairs.changed_ms[places],
            incarnation=pairs.incarnation[places],
            number=pairs.number[places].astype(np.int64),
            move=pairs.move[places].astype(np.int64),
            pair=places,
            counted=np.zeros(len(places), np.bool_),
        )

    def _decide_those(self, left: _Open, mask: Bools, outcome: Outcome) -> _Open:
        """Decide about some; returns the others."""
        if not mask.any():
            return left
        self._decide_all(left.where(mask), outcome)
        return left.where(~mask)

    def _decide_all(self, these: _Open, outcome: Outcome) -> None:
        if not len(these):
            return
        self.counts[:, outcome] += np.bincount(these.campaign, minlength=len(self.campaigns))
        self._decided.append(
            Decisions(
                these.slot,
                these.campaign,
                these.version,
                these.arm,
                np.full(len(these), int(outcome)),
                these.at_ms,
                these.changed_ms,
                these.incarnation,
                these.number,
                these.move,
                these.counted,
            )
        )

    def tally(self) -> dict[str, dict[str, int]]:
        """By campaign and outcome, how many."""
        return {
            campaign.name: {
                outcome.name.lower(): int(self.counts[number, outcome]) for outcome in Outcome
            }
            for number, campaign in enumerate(self.campaigns)
        }
