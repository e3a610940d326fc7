"""Decides which faults happen, and when: a seed makes a plan.

Comes in: a seed, a length, the kinds of faults wanted. Goes out: faults in the order of their times.
`inflict` does them. The same arguments give the same plan; how the pipeline stands at the moment of
a fault is not part of it, so a seed repeats the faults and not what they hit.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

WORKERS = ("activity-1", "activity-2")
TRAINERS = ("trainer-1", "trainer-2")
PUBLISHERS = ("publisher-1", "publisher-2")
ROLES = (*WORKERS, *TRAINERS, *PUBLISHERS)
BROKER, STORE = "broker", "store"
BROKER_LINKS = {name: f"{BROKER}/{name}" for name in ("activity", "trainer", "publisher")}
"""By which link the roles of a name reach the broker."""
LINKS = (BROKER, *BROKER_LINKS.values(), *ROLES)
"""What can be cut: all roles' links to the broker, those of one name, or one role's to its store."""

WARM_UP_SECONDS = 5.0
"""Before the first fault, so that it has something to hit."""
ANEW_SECONDS = 15.0
"""After the store has forgotten everything: by then every partition has begun anew. No older copy is put
back: whoever accepts a loss does not take it back (see the decision about chaos)."""
LEAST_SECONDS = 0.5
"""By so much every copy is older."""
CALM_SECONDS = 3.0
"""After the last fault, so that it hits live traffic."""
GAP_SECONDS = (0.5, 5.0)
"""Between the end of one fault and the next: short, so that the next meets a recovery."""
SECOND_FAULT_SHARE = 0.3
"""Of the faults, those in whose midst a role is killed as well."""


class Kind(StrEnum):
    """What can be done to a pipeline."""

    KILL_ROLE = "kill_role"
    END_ROLE = "end_role"
    FREEZE_ROLE = "freeze_role"
    KILL_BROKER = "kill_broker"
    FREEZE_BROKER = "freeze_broker"
    KILL_STORE = "kill_store"
    FREEZE_STORE = "freeze_store"
    LOSE_SECOND = "lose_second"
    PUT_BACK = "put_back"
    FLUSH_SCRIPTS = "flush_scripts"
    CUT = "cut"
    DELAY = "delay"
    HOLD = "hold"
    LOSE_REPLIES = "lose_replies"
    FLOOD = "flood"
    LOSE_SECOND_BROKER_FROZEN = "lose_second_broker_frozen"
    LOSE_SECOND_HELD = "lose_second_held"
    LOSE_SECOND_PUBLISHER_KILLED = "lose_second_publisher_killed"
    LOSE_SECOND_UNACKNOWLEDGED = "lose_second_unacknowledged"
    PUT_BACK_UNACKNOWLEDGED = "put_back_unacknowledged"
    LOSE_EVERYTHING = "lose_everything"


class Shape(NamedTuple):
    """What a fault of a kind may look like.

    Attributes:
        meaning: in a line, for the help.
        targets: whom it may hit.
        seconds: how long it may last.
        amount: of whatever the kind needs a number for.
    """

    meaning: str
    targets: tuple[str, ...]
    seconds: tuple[float, float]
    amount: tuple[float, float] = (0.0, 0.0)


_SECOND = (1.0, 2.5)
"""What AOF ``everysec`` may lose: Redis waits up to two seconds for a slow fsync."""
_OLDER = (10.0, 30.0)

SHAPES = {
    Kind.KILL_ROLE: Shape("a role is killed, and started after the time", ROLES, (0.0, 4.0)),
    Kind.END_ROLE: Shape("a role is asked to end, and started after the time", ROLES, (0.0, 2.0)),
    Kind.FREEZE_ROLE: Shape("a role stands still", ROLES, (1.0, 12.0)),
    Kind.KILL_BROKER: Shape("the broker is killed, and started after the time", (BROKER,), (0, 3)),
    Kind.FREEZE_BROKER: Shape("the broker stands still", (BROKER,), (1.0, 10.0)),
    Kind.KILL_STORE: Shape("the store is killed, nothing is lost", (STORE,), (0.0, 3.0)),
    Kind.FREEZE_STORE: Shape("the store stands still", (STORE,), (1.0, 10.0)),
    Kind.LOSE_SECOND: Shape("the store loses its last moments", (STORE,), (0.0, 1.0), _SECOND),
    Kind.PUT_BACK: Shape("the store goes back to an older copy", (STORE,), (0.0, 1.0), _OLDER),
    Kind.FLUSH_SCRIPTS: Shape("the store forgets its scripts", (STORE,), (0.0, 0.0)),
    Kind.CUT: Shape("connections are reset", LINKS, (0.0, 0.0)),
    Kind.DELAY: Shape("each packet comes later by the amount", LINKS, (2.0, 8.0), (0.02, 0.4)),
    Kind.HOLD: Shape("connections pass nothing on, then all of it", LINKS, (2.0, 12.0)),
    Kind.LOSE_REPLIES: Shape("replies are held back, then connections reset", LINKS, (0.5, 8.0)),
    Kind.FLOOD: Shape("so many garbage messages come for each good one", (BROKER,), (2, 8), (1, 3)),
    Kind.LOSE_SECOND_BROKER_FROZEN: Shape(
        "the store loses its last moments while the broker stands still", (STORE,), (2, 6), _SECOND
    ),
    Kind.LOSE_SECOND_HELD: Shape(
        "the store loses its last moments while what is sent to the broker is held back",
        (BROKER_LINKS["publisher"], BROKER_LINKS["trainer"]),
        # Less than `publisher.settle_seconds`: what lands later than that is not waited for.
        (0.5, 2.0),
        _SECOND,
    ),
    Kind.LOSE_SECOND_PUBLISHER_KILLED: Shape(
        "the store loses its last moments, the publishers are killed", (STORE,), (0, 3), _SECOND
    ),
    Kind.LOSE_SECOND_UNACKNOWLEDGED: Shape(
        "the store loses its last moments while the publishers stand still between delivery and "
        "acknowledgement",
        (STORE,),
        (2.0, 5.0),
        _SECOND,
    ),
    Kind.PUT_BACK_UNACKNOWLEDGED: Shape(
        "the same with an older copy", (STORE,), (2.0, 5.0), _OLDER
    ),
    Kind.LOSE_EVERYTHING: Shape("the store forgets everything", (STORE,), (0.0, 0.0)),
}


_PUT_BACK = (Kind.PUT_BACK, Kind.PUT_BACK_UNACKNOWLEDGED)


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        at_seconds: not before this, from when the pipeline was at work; a fault before may last.
        target: a role, a link, the broker or the store.
        seconds: how long.
        amount: seconds that the store loses, seconds of delay, or garbage messages for each good one.
        killed: a role that is killed half-way through, or nothing.
    """

    at_seconds: float
    kind: Kind
    target: str
    seconds: float
    amount: float
    killed: str = ""

    def __str__(self) -> str:
        words = [f"{self.kind:<29}{self.target:<16}"]
        words += [f"{self.seconds:.1f} s"] if self.seconds else []
        words += [f"amount {self.amount:.2f}"] if self.amount else []
        words += [f"and {self.killed} killed"] if self.killed else []
        return ", ".join(word.rstrip() if word is words[-1] else word for word in words)


def make_plan(seed: int, seconds: float, kinds: Sequence[Kind] = tuple(Kind)) -> list[Fault]:
    """The faults of a run.

    Args:
        seed: decides everything.
        seconds: length of the traffic.
        kinds: to choose from; each comes once before any comes again.
    """
    dice = random.Random(seed)
    bag = _bag(dice, kinds)
    faults: list[Fault] = []
    at, oldest = WARM_UP_SECONDS, 0.0
    while at < seconds - CALM_SECONDS:
        fault = _fault(dice, next(bag), at)
        if fault.kind in _PUT_BACK:
            # What came before the last one was put back is not there any more.
            amount = max(min(fault.amount, at - oldest), LEAST_SECONDS)
            fault = replace(fault, amount=round(amount, 3))
            oldest = max(oldest, at)
        elif fault.kind is Kind.LOSE_EVERYTHING:
            oldest = at + ANEW_SECONDS
        faults.append(fault)
        at += fault.seconds + dice.uniform(*GAP_SECONDS)
    return faults


def _bag(dice: random.Random, kinds: Sequence[Kind]) -> Iterator[Kind]:
    """Kinds without end, each once a round, in an order of its own each time."""
    while True:
        yield from dice.sample(list(kinds), len(kinds))


def _fault(dice: random.Random, kind: Kind, at_seconds: float) -> Fault:
    shape = SHAPES[kind]
    target = dice.choice(shape.targets)
    seconds, amount = dice.uniform(*shape.seconds), dice.uniform(*shape.amount)
    doubled = dice.random() < SECOND_FAULT_SHARE and shape.seconds != (0.0, 0.0)
    others = [role for role in ROLES if role != target]
    killed = dice.choice(others) if doubled else ""
    return Fault(round(at_seconds, 2), kind, target, round(seconds, 2), round(amount, 3), killed)
