"""Makes campaigns, changes and runs of them for the tests of campaigns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from hypothesis import strategies as st

from stream.campaigns.arms import FIRST_ARM, arm_names
from stream.campaigns.decide import Decider, Decisions, Outcome
from stream.campaigns.declare import Campaign
from stream.campaigns.oracle import Told
from stream.campaigns.purchases import PurchaseColumns
from stream.events import Ints
from stream.levels.declare import Level, Step
from stream.units import iso

START_MS = 1_761_955_200_000
"""2025-11-01, with the end of summer time of New York the day after."""
HOUR_MS = 3_600_000
KINDS = ("at_risk", "loyal", "dormant", "champion")
LEVELS = {"churn_risk": ("low", "medium", "high"), "value_tier": ("high", "regular")}


def campaign(name: str = "win-back", **fields: Any) -> Campaign:
    """A campaign for who becomes at risk, unless something else is said."""
    return Campaign.model_validate({"name": name, "when": {"kind_to": ["at_risk"]}} | fields)


def change(
    user: str = "u", at_ms: int = START_MS, number: int = 1, **fields: Any
) -> dict[str, Any]:
    """A change of a loyal user who becomes at risk, unless something else is said."""
    return {
        "id": f"{user}-1-{number}",
        "user": user,
        "version": number,
        "from": 2,
        "to": 1,
        "name_from": "Loyal",
        "name_to": "At risk",
        "kind_from": "loyal",
        "kind_to": "at_risk",
        "cause": "time_passed",
        "at": iso(at_ms),
        "provisional": False,
        "why": [],
    } | fields


def crossing(
    user: str = "u", at_ms: int = START_MS, number: int = 1, **fields: Any
) -> dict[str, Any]:
    """A crossing of a user whose risk becomes high, unless something else is said."""
    return {
        "id": f"{user}-1-{number}",
        "user": user,
        "version": number,
        "level": "churn_risk",
        "step_from": "medium",
        "step_to": "high",
        "of": "buy_probability_90d",
        "value": 0.1,
        "limit": 0.2,
        "cause": "time_passed",
        "at": iso(at_ms),
        "why": [],
    } | fields


def declared_levels() -> tuple[Level, ...]:
    """`LEVELS`, as settings have them."""
    return tuple(
        Level(
            name=name,
            of="orders_total",
            steps=tuple(
                Step(name=step, least=None if step == steps[-1] else float(9 - place))
                for place, step in enumerate(steps)
            ),
        )
        for name, steps in LEVELS.items()
    )


def encoded(changes: Sequence[dict[str, Any]]) -> list[bytes]:
    return [msgspec.json.encode(one) for one in changes]


def told(decider: Decider, decisions: Decisions) -> Counter[Told]:
    """Decisions as the oracle tells them."""
    found: Counter[Told] = Counter()
    for place in range(len(decisions)):
        user = decider.users.names[int(decisions.slot[place])]
        outcome = Outcome(int(decisions.outcome[place]))
        declared = decider.book.versions[int(decisions.version[place])]
        found[
            Told(
                user,
                declared.name,
                outcome.name.lower(),
                ""
                if outcome in (Outcome.ENDED, Outcome.PAUSED, Outcome.SUPPRESSED)
                else arm_names(declared)[int(decisions.arm[place])],
                int(decisions.at_ms[place]),
                f"{user}-{decisions.incarnation[place]}-{decisions.number[place]}",
                bool(decisions.counted[place]),
            )
        ] += 1
    return found


assert FIRST_ARM == 2

_DURATIONS = st.sampled_from([0, 60, 3_600, 2 * 3_600, 20 * 3_600, 3 * 86_400])
_QUIET = st.fixed_dictionaries(
    {
        "from": st.sampled_from(["21:00", "00:30", "09:00", "01:30"]),
        "to": st.sampled_from(["08:00", "01:15", "17:45", "02:30"]),
        "zone": st.sampled_from(["America/New_York", "UTC", "Asia/Kolkata"]),
        "then": st.sampled_from(["wait", "drop"]),
    }
)

_SCORED = [
    {"population_from": before, "population_to": after, "scores": scores}
    for before, after in (("customers", "lapsed"), ("lapsed", "customers"), (None, "visitors"))
    for scores in ({"buy": 0.3, "spend": 90.5}, {"buy": 0.6, "spend": 20}, {"spend": 90.0})
]


@st.composite
def campaigns(draw: st.DrawFn) -> list[Campaign]:
    """Some campaigns, each with some of what may be declared."""
    made = []
    for number in range(draw(st.integers(1, 4))):
        when: dict[str, Any] = draw(
            st.sampled_from(
                [
                    {"kind_to": ["at_risk"]},
                    {"kind_to": ["at_risk", "dormant"]},
                    {"kind_from": ["loyal"]},
                    {"segment_to": [1, 3], "cause": ["user_moved", "model_moved"]},
                    {"kind_to": ["at_risk"], "kind_from": ["loyal", "champion"]},
                    {"kind_to": ["loyal", "champion"], "provisional": True},
                    {"kind_to": ["dormant", "at_risk"], "reasons": ["orders_30d"]},
                    {"segment_to": [2], "kind_to": ["loyal"]},
                    {"segment_from": [1]},
                    {"level": "churn_risk", "step_to": ["high", "medium"]},
                    {"level": "churn_risk", "step_from": ["low"]},
                    {
                        "level": "churn_risk",
                        "step_to": ["high"],
                        "steps": {"value_tier": ["high"]},
                        "reasons": ["orders_30d"],
                    },
                    {"kind_to": ["at_risk"], "steps": {"churn_risk": ["high", "medium"]}},
                    {"kind_from": ["loyal"], "steps": {"value_tier": ["regular"]}},
                    {
                        "level": "churn_risk",
                        "step_to": ["high", "medium"],
                        "scores": {"spend": {"min": 90}},
                    },
                    {"population_to": ["lapsed"]},
                    {"kind_to": ["at_risk"], "population_from": ["customers"]},
                    {"kind_to": ["at_risk", "loyal"], "scores": {"buy": {"min": 0.3}}},
                    {
                        "population_to": ["customers"],
                        "scores": {"buy": {"min": 0.1, "max": 0.6}, "spend": {"max": 90}},
                    },
                    {"kind_to": ["dormant"], "cause": ["segment_turned"]},
                ]
            )
        )
        valid = draw(st.sampled_from([12 * 3_600, 86_400, 7 * 86_400]))
        settle = min(draw(_DURATIONS), valid - 60)
        start = draw(st.none() | st.integers(-24, 96))
        made.append(
            campaign(
                f"c{number}",
                when=when,
                settle=settle,
                valid_for=valid,
                cooldown=draw(_DURATIONS),
                holdout=draw(st.sampled_from([0, 0.3])),
                arms=draw(st.sampled_from([{"a": 1}, {"a": 1, "b": 2}])),
                priority=draw(st.integers(0, 2)),
                group=draw(st.sampled_from([None, None, "g", "h"])),
                quiet=draw(st.none() | _QUIET),
                start=None if start is None else iso(START_MS + start * HOUR_MS),
                end=None if start is None else iso(START_MS + (start + 72) * HOUR_MS),
                goal=draw(st.sampled_from([None, {"within": "2d"}])),
            )
        )
    return made


@st.composite
def histories(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Changes of a few users over some days, in the order of a topic."""
    made: list[dict[str, Any]] = []
    now, numbers = START_MS, Counter[str]()
    for _ in range(draw(st.integers(0, 25))):
        now += draw(
            st.sampled_from([0, 1, 59_000, HOUR_MS // 2, HOUR_MS, 7 * HOUR_MS, 30 * HOUR_MS])
        )
        user = draw(st.sampled_from(["a", "b", "c"]))
        numbers[user] += 1
        if draw(st.booleans()):
            made.append(_any_crossing(draw, user, now, numbers[user]))
            continue
        before, after = draw(st.integers(1, 4)), draw(st.integers(1, 4))
        first = draw(st.integers(0, 9)) == 0
        made.append(
            change(
                user,
                # Clocks of owners may differ, and a user's time may seem to go back.
                now - draw(st.sampled_from([0, 0, 0, 5_000])),
                numbers[user],
                **{
                    "from": None if first else before,
                    "to": after,
                    "name_from": None if first else f"n{before}",
                    "name_to": f"n{after}",
                    "kind_from": None if first else KINDS[before - 1],
                    "kind_to": KINDS[after - 1],
                    "cause": draw(
                        st.sampled_from(
                            ["user_moved", "time_passed", "time_passed", "model_moved", "erased"]
                            if draw(st.integers(0, 19)) == 0
                            else ["user_moved", "time_passed", "model_moved", "segment_turned"]
                        )
                    ),
                    **draw(st.sampled_from([{}, {"scores": {}}, *_SCORED])),
                    "provisional": first,
                    "why": [{"feature": f} for f in draw(st.sampled_from([[], ["orders_30d"]]))],
                },
            )
        )
    return made


def _any_crossing(draw: st.DrawFn, user: str, now: int, number: int) -> dict[str, Any]:
    level = draw(st.sampled_from(list(LEVELS)))
    steps = st.none() | st.sampled_from(LEVELS[level])
    scores: dict[str, Any] = draw(
        st.sampled_from([{}, {"scores": {"spend": 90}}, {"scores": {"spend": 12.5}}])
    )
    return crossing(
        user,
        now,
        number,
        level=level,
        step_from=draw(steps),
        step_to=draw(steps),
        cause=draw(st.sampled_from(["user_moved", "time_passed", "model_moved"])),
        why=[{"feature": f} for f in draw(st.sampled_from([[], ["orders_30d"]]))],
        **scores,
    )


def bought(
    *said: tuple[int, int, int, int, float, bool, bool, float, int],
) -> tuple[Ints, PurchaseColumns]:
    """Places of users, and what is said of their orders: the columns of `PurchaseColumns`."""
    kinds = (
        np.int64, np.uint64, np.uint64, np.int64, np.float64, np.bool_, np.bool_, np.float64,
        np.uint32,
    )  # fmt: skip
    columns: list[Any] = [
        np.array([one[place] for one in said], kind) for place, kind in enumerate(kinds)
    ]
    return columns[0], PurchaseColumns(*columns[1:])
