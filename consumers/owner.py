"""A partition that one owns: its token, how far it has come, and the one commit under way.

Comes in: commits, one after the other. Goes out: each of them to the store, under its own id until there is
an answer; then a call, or an error that says what to do with the partition. What a commit brings is not
looked at here, so it serves any role.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from consumers.clock import Time
from stream import metrics
from stream.store.state import Answer, Step, StoreUnavailableError
from stream.told import ToldError

RETRY_SECONDS = 0.05
LOST_REMEDY = (
    "Restore the store from its backup; or set store.accept_loss to start this partition anew from "
    "what the log still holds"
)

StepT = TypeVar("StepT", bound=Step)
StepT_contra = TypeVar("StepT_contra", bound=Step, contravariant=True)


class StateLostError(ToldError):
    """The store has lost a partition's state; the message says what can be done."""


class NotOursError(Exception):
    """The partition is another's, or elsewhere: what was under way for it must be forgotten."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"the store says {answer.value}; dropping what was not committed")
        self.fenced = answer is Answer.FENCED


def state_lost(number: int) -> StateLostError:
    """A partition that was served has no state any more."""
    return StateLostError(
        f"partition {number} has no state in the store, but was served before. {LOST_REMEDY}"
    )


def new_token() -> str:
    """A token that nobody else has."""
    return secrets.token_hex(8)


class Commits(Protocol[StepT_contra]):
    """What is asked of a store; see `stream.store.promises`."""

    def submit(self, partition: int, token: str, commit: StepT_contra) -> Answer | None: ...
    def collect(self, partition: int, token: str, commit: StepT_contra) -> Answer: ...


@dataclass(frozen=True)
class Terms(Generic[StepT]):
    """What all owners of a process have in common.

    Attributes:
        deadline_seconds: how long a commit is repeated.
        accept_loss: whether a state that is gone may be begun anew.
        ready: is told whether the store takes commits, and why not.
    """

    store: Commits[StepT]
    time: Time
    deadline_seconds: float
    accept_loss: bool
    ready: Callable[[bool, str], None]

    def lost(self, number: int) -> Exception:
        """What to do about a state that is gone: to begin anew, where that may be, or to stop."""
        return NotOursError(Answer.LOST) if self.accept_loss else state_lost(number)


@dataclass
class _UnderWay(Generic[StepT]):
    """A commit that the store has not taken yet.

    Attributes:
        applied: is called when it has been taken.
        submitted: whether its answer is to be collected.
        since: when it was begun, or the store last said that it is full.
    """

    commit: StepT
    applied: Callable[[], None]
    since: float
    submitted: bool = False
    next_try: float = 0.0


class Owner(Generic[StepT]):
    """One owner of one partition.

    Attributes:
        offsets: next offset to read that is not yet part of a commit, by topic.
    """

    def __init__(self, number: int, token: str, offsets: list[int], terms: Terms[StepT]) -> None:
        self.number = number
        self.token = token
        self.offsets = offsets
        self.terms = terms
        self._under_way: _UnderWay[StepT] | None = None

    @property
    def is_committing(self) -> bool:
        """Whether a commit is under way; there can be no other one then."""
        return self._under_way is not None

    def begin(self, commit: StepT, applied: Callable[[], None]) -> None:
        """Hand a commit to the store; if it cannot take it now, `collect` goes on trying."""
        self._under_way = _UnderWay(commit, applied, self.terms.time.monotonic())
        self.collect()

    def collect(self) -> bool:
        """Try the commit under way; True once there is none any more.

        Raises:
            NotOursError: another owns the partition, or the store is elsewhere than we are.
            StateLostError: the partition's state is gone.
            StoreUnavailableError: it has not answered before the deadline.
        """
        one = self._under_way
        if one is None:
            return True
        now = self.terms.time.monotonic()
        if now < one.next_try:
            return False
        store = self.terms.store
        answer: Answer | None
        try:
            if one.submitted:
                one.submitted = False
                answer = store.collect(self.number, self.token, one.commit)
            else:
                answer = store.submit(self.number, self.token, one.commit)
        except StoreUnavailableError:
            if now - one.since > self.terms.deadline_seconds:
                raise
            metrics.store_missed()
            one.next_try = self.terms.time.monotonic() + RETRY_SECONDS
            self.terms.ready(False, "the store does not answer")
            return False
        if answer is None:
            # While the store is busy with it, the next batch is read and decoded.
            one.submitted = True
            return False
        metrics.commit_answered(answer)
        match answer:
            case Answer.OK | Answer.APPLIED:
                self._under_way = None
                self.terms.ready(True, "")
                one.applied()
                return True
            case Answer.FULL:
                one.next_try = self.terms.time.monotonic() + RETRY_SECONDS
                one.since = now
                return False
            case Answer.LOST:
                raise self.terms.lost(self.number)
            case Answer.FENCED | Answer.DIVERGED:
                raise NotOursError(answer)
