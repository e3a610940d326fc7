"""Tries campaigns on changes that have happened: what would have been decided, before anything is sent.

Comes in: settings with campaigns, and changes of a played history or of the change topic. Goes out:
facts, by campaign and outcome how many, with examples; `cli.campaigns` shows them. The decisions are
those that would have been made at the time, with nothing late.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from stream.campaigns.arms import arm_names
from stream.campaigns.changes import REFUSED
from stream.campaigns.decide import Decider, Decisions, Outcome
from stream.campaigns.declare import Campaign
from stream.config import ConfigError, Settings
from stream.insight.facts import CampaignFacts, DecisionExample, TrialCampaign, TrialFacts
from stream.insight.history import BY_DAYS, OpenHistory, rehearse
from stream.levels.declare import step_names
from stream.records import change_id
from stream.rehearsal import Marked
from stream.store.state import key_of
from stream.units import DAY_MINUTES, iso

BATCH = 2_000
"""Changes decided about at once; any number comes to the same decisions."""
UNSEEN_ARM = {Outcome.ENDED, Outcome.PAUSED, Outcome.SUPPRESSED}
"""Outcomes that are found before it is known which arm the user is in."""


def see_that_there_are_some(settings: Settings) -> None:
    """Whether settings declare campaigns.

    Raises:
        ConfigError: they do not.
    """
    if not settings.campaigns:
        raise ConfigError("campaigns: none are declared; expected [[campaigns]] with name and when")


def declared(settings: Settings) -> list[CampaignFacts]:
    """The campaigns as they were understood."""
    return [
        {
            "name": campaign.name,
            "version": campaign.version,
            "declared": campaign.model_dump(mode="json", exclude_none=True, exclude_unset=True),
            "notes": _notes(campaign),
        }
        for campaign in settings.campaigns
    ]


def _notes(campaign: Campaign) -> list[str]:
    """Notes on declarations that are allowed, but seldom meant."""
    notes = []
    if campaign.goal is not None and not campaign.holdout:
        notes.append("a goal, but no holdout: there is nobody to compare with")
    if campaign.goal is None and campaign.holdout:
        notes.append("a holdout, but no goal: nothing is measured of them")
    if not campaign.cooldown:
        notes.append("no cooldown: a user who goes back and forth is sent to each time")
    if campaign.quiet is not None and campaign.quiet.then == "wait":
        begin, end = campaign.quiet.minutes
        if campaign.valid_for < 60 * ((end - begin) % DAY_MINUTES):
            notes.append(
                "valid_for is shorter than the quiet hours: who changes early in them gets nothing"
            )
    if {*campaign.when.step_to} == {*campaign.when.step_from} and len(campaign.when.step_to) == 1:
        notes.append("step_from and step_to are the same step: no crossing is one")
    if campaign.when.segment_to or campaign.when.segment_from:
        notes.append(
            "bound to ids of segments: one that splits keeps its id for a part of its users, and one "
            "that goes is never entered again; kinds outlive them"
        )
    return notes


class Trial:
    """Decides about changes and keeps count.

    Args:
        key: the secret that puts users into arms.
        examples: kept of each campaign and outcome at the most.
        verified: see `Decider`.
    """

    def __init__(
        self, settings: Settings, key: bytes, examples: int = 3, *, verified: bool = False
    ) -> None:
        self._settings = settings
        self._key, self._most = key, examples
        self._decider = Decider(
            settings.campaigns, settings.campaign_limits, key,
            levels=step_names(settings.levels), verified=verified,
        )  # fmt: skip
        self._arms: dict[tuple[int, int], int] = defaultdict(int)
        self._examples: dict[tuple[int, int], list[DecisionExample]] = defaultdict(list)
        self._changes = 0
        self._last_ms: int | None = None

    def take(self, records: Iterable[Any]) -> None:
        """Decide about changes; those of a user in their order."""
        left: Iterator[Any] = iter(records)
        while batch := list(islice(left, BATCH)):
            changes = self._decider.reader.read(batch)
            if len(changes):
                self._changes += len(changes)
                self._last_ms = max(self._last_ms or 0, int(changes.at_ms.max()))
                self._keep(self._decider.decide(changes))

    def advance(self, now_ms: int) -> None:
        """Decide about what was put off to a time up to now."""
        self._last_ms = max(self._last_ms or 0, now_ms)
        self._keep(self._decider.advance(now_ms))

    def catch_up(self) -> None:
        """Decide about what was put off to a time up to the last change."""
        if self._last_ms is not None:
            self.advance(self._last_ms)

    def _keep(self, decisions: Decisions) -> None:
        sent = decisions.where(decisions.outcome == int(Outcome.SENT))
        pairs, counts = np.unique(
            np.stack([sent.campaign, sent.arm], axis=1), axis=0, return_counts=True
        )
        for (campaign, arm), count in zip(pairs.tolist(), counts.tolist(), strict=True):
            self._arms[campaign, arm] += count
        codes = decisions.campaign * len(Outcome) + decisions.outcome
        for code in np.unique(codes).tolist():
            kept = self._examples[divmod(code, len(Outcome))]
            if len(kept) < self._most:
                found = np.flatnonzero(codes == code)[: self._most - len(kept)]
                kept += [self._example(decisions, place) for place in found.tolist()]

    def _example(self, decisions: Decisions, place: int) -> DecisionExample:
        version = self._decider.book.versions[int(decisions.version[place])]
        outcome = Outcome(int(decisions.outcome[place]))
        move = self._decider.moves[int(decisions.move[place])]
        user = self._decider.users.names[int(decisions.slot[place])]
        arm = arm_names(version)[int(decisions.arm[place])]
        incarnation, number = int(decisions.incarnation[place]), int(decisions.number[place])
        return {
            "user": user,
            "change": change_id(user.encode(), self._key, incarnation, number),
            "changed_at": iso(int(decisions.changed_ms[place])),
            "decided_at": iso(int(decisions.at_ms[place])),
            "arm": None if outcome in UNSEEN_ARM else arm,
            "kind_from": move.kind_from,
            "kind_to": move.kind_to,
            "level": move.level,
            "step_from": move.step_from,
            "step_to": move.step_to,
            "cause": move.cause,
        }

    def facts(self, source: str, notes: Sequence[str] = ()) -> TrialFacts:
        """What was decided so far."""
        decider = self._decider
        counts = decider.reader.counts
        told = [f"{counts[reason]:,} {reason.value}" for reason in REFUSED if counts[reason]]
        if told:
            notes = [*notes, f"records refused, as the role refuses them: {', '.join(told)}"]
        return {
            "source": source,
            "changes": self._changes,
            "users": decider.users.size,
            "until": None if self._last_ms is None else iso(self._last_ms),
            "campaigns": [self._campaign_facts(n) for n in range(len(decider.campaigns))],
            "notes": list(notes),
        }

    def _campaign_facts(self, number: int) -> TrialCampaign:
        campaign = self._decider.campaigns[number]
        counts = self._decider.counts[number].tolist()
        names = arm_names(campaign)
        return {
            "name": campaign.name,
            "version": campaign.version,
            "looked_at": int(self._decider.pairs_seen[number]),
            "outcomes": {outcome.name.lower(): counts[outcome] for outcome in Outcome},
            "sent_by_arm": {
                names[arm]: count for (of, arm), count in sorted(self._arms.items()) if of == number
            },
            "examples": {
                outcome.name.lower(): found
                for outcome in Outcome
                if (found := self._examples.get((number, int(outcome)), []))
            },
        }


def on_history(
    settings: Settings, open_history: OpenHistory, tell: Callable[[str], None] = lambda _: None
) -> TrialFacts:
    """Play a history through an owner and a trainer in memory, and decide about its changes.

    Settings for the wall clock are played with a mark a day and a refit a week.

    Raises:
        Exception: whatever opening the history raises.
    """
    # As a store derives it from the setting: users are in the arms that they will have.
    trial = Trial(settings, key_of(settings.store.namespace_key))

    def at_mark(marked: Marked) -> None:
        # A user's changes and crossings go on in one count.
        trial.take(sorted([*marked.changes, *marked.crossings], key=lambda one: one["version"]))
        trial.advance(marked.at_ms)

    played = rehearse(settings, open_history, at_mark, tell)
    notes = [f"{BY_DAYS}, by which silence is noticed within seconds"] if played.by_days else []
    if settings.campaign_limits.suppress:
        notes.append(
            "campaign_limits.suppress: a history tells no traits, so nobody is suppressed here"
        )
    if not settings.store.namespace_key:
        notes.append("store.namespace_key is not set: a pipeline puts users into other arms")
    return trial.facts(played.file.name, [*notes, *played.notes])


def on_changes(settings: Settings, key: bytes, records: Iterable[Any], source: str) -> TrialFacts:
    """Decide about changes that were published, up to the last one."""
    trial = Trial(settings, key, verified=True)
    trial.take(records)
    trial.catch_up()
    return trial.facts(source)
