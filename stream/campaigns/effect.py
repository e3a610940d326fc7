"""Says whether a campaign helped: treated against held out, and how sure that is.

Comes in: sums of users whose window is over, by arm. Goes out: differences with intervals, how many
users are still missing, and a check that users stand in their arms as declared.

It is by intention to treat: everyone who was decided for counts, whether or not anything was sent or
opened. Each difference has two intervals:

- the *sequence* holds at every look together, however often one looks and whenever one stops: the
  asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (Time-uniform central
  limit theory, 2021), about the mean of the doubly robust pseudo-outcomes of a randomised experiment.
  With each arm's mean for a prediction, their mean is the difference of the arms' means;
- the *plain* one holds at a single look that was fixed before: Newcombe's (1998, method 10) for shares,
  Welch's for money.

A verdict is by the sequence alone, and "not enough yet" is one.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import gammaln, ndtri, stdtrit

from stream.campaigns.arms import FIRST_ARM, HELD_OUT, arm_names
from stream.campaigns.declare import Campaign
from stream.campaigns.windows import Sums

ALPHA = 0.05
POWER = 0.8
"""The users who are missing are so many that an effect as hoped for would be seen this often."""
LEAST_USERS = 100
"""Of an arm, below which nothing is said: the sequence is true of many users, not of a few."""
LEAST_CONVERTED = 10
"""Users of both arms together who did it, and who did not, below which nothing is said: before that a
share is no bell."""
RATIO_ALARM = 1_000.0
"""Evidence from which users do not stand as declared: by chance one campaign in a thousand ever has it."""
RATIO_PRIOR = 100.0
"""Users that the alternative, shares like the declared ones but not quite, is worth."""
MOST_USERS = 2**30

Verdict = Literal["helps", "harms", "not_enough_yet"]


class Interval(NamedTuple):
    low: float
    high: float


class Difference(NamedTuple):
    """Treated minus held out.

    Attributes:
        sequence: holds at all looks together; None while there are too few users.
        plain: holds at one look that was fixed before; None likewise.
    """

    treated: float
    held_out: float
    difference: float
    sequence: Interval | None
    plain: Interval | None


class Comparison(NamedTuple):
    """One arm against the holdout.

    Attributes:
        conversion: share of users who did what the goal asks for.
        active: share who were in no kind of churn risk at the end of their window.
        revenue: of a user, within the window.
        verdict: about conversion.
        missing: users, both arms together, until an effect as hoped for would be seen; None while
            nothing can be said.
    """

    arm: str
    users: int
    held_out_users: int
    conversion: Difference
    active: Difference
    revenue: Difference
    verdict: Verdict
    missing: int | None


class Effect(NamedTuple):
    """What is known of a version of a campaign.

    Attributes:
        as_declared: users stand in their arms as declared, or it cannot be told that they do not.
        ratio_evidence: how many times likelier the arms' sizes are under other shares.
    """

    campaign: str
    version: str
    comparisons: tuple[Comparison, ...]
    as_declared: bool
    ratio_evidence: float


def effect(campaign: Campaign, sums: Mapping[int, Sums], alpha: float = ALPHA) -> Effect:
    """Compare every arm of a campaign that has a goal with its holdout.

    Args:
        sums: by number of the arm; who is held out of all campaigns is in no comparison, for they get
            no other campaign either.
    """
    goal = campaign.goal
    assert goal is not None
    names = arm_names(campaign)
    declared = _declared_shares(campaign)
    control = sums.get(HELD_OUT, Sums())
    comparisons = []
    for number in range(FIRST_ARM, len(names)):
        share = declared[number] / (declared[number] + declared[HELD_OUT])
        comparisons.append(
            compare(
                names[number],
                sums.get(number, Sums()),
                control,
                share,
                hope=goal.hope,
                tuned_for=goal.tuned_for,
                alpha=alpha,
            )
        )
    arms = sorted(declared)
    evidence = ratio_evidence(
        [sums.get(arm, Sums()).users for arm in arms], [declared[arm] for arm in arms]
    )
    return Effect(
        campaign.name, campaign.version, tuple(comparisons), evidence < RATIO_ALARM, evidence
    )


def _declared_shares(campaign: Campaign) -> dict[int, float]:
    """By number of the arm, of users who are not held out of all campaigns."""
    weights = list(campaign.arms.values())
    treated = 1.0 - campaign.holdout
    shares = {
        FIRST_ARM + place: treated * weight / sum(weights) for place, weight in enumerate(weights)
    }
    return {HELD_OUT: campaign.holdout} | shares


def compare(
    arm: str,
    treated: Sums,
    control: Sums,
    share: float,
    *,
    hope: float,
    tuned_for: int,
    alpha: float = ALPHA,
) -> Comparison:
    """One arm against the holdout.

    Args:
        share: declared, of treated among both.
        hope: difference in conversion that one hopes for.
        tuned_for: users of both at which the sequence is narrowest; fixed before any are seen.
    """
    users = treated.users + control.users
    enough = share < 1 and min(treated.users, control.users) >= LEAST_USERS
    conversion = _of_shares(
        (treated.converted, treated.users), (control.converted, control.users), share, tuned_for,
        alpha, enough=enough,
    )  # fmt: skip
    active = _of_shares(
        (treated.active, treated.users), (control.active, control.users), share, tuned_for, alpha,
        enough=enough,
    )  # fmt: skip
    bought = treated.converted + control.converted >= LEAST_CONVERTED
    revenue = _of_money(treated, control, share, tuned_for, alpha, enough=enough and bought)
    verdict: Verdict = "not_enough_yet"
    missing = None
    if conversion.sequence is not None:
        if conversion.sequence.low > 0:
            verdict = "helps"
        elif conversion.sequence.high < 0:
            verdict = "harms"
        spread = _spread(
            _variance(treated.converted, treated.users),
            _variance(control.converted, control.users),
            treated.users / users,
            share,
        )
        missing = max(users_needed(hope, spread, tuned_for, alpha) - users, 0)
    return Comparison(
        arm, treated.users, control.users, conversion, active, revenue, verdict, missing
    )


# -- intervals ---------------------------------------------------------------------------------


def sequence_margin(users: float, tuned_for: int, alpha: float = ALPHA) -> float:
    """Half the width of the sequence for a standard deviation of 1 (theorem 2.2 there)."""
    log = 2.0 * math.log(1.0 / alpha)
    rho2 = (log + math.log(1.0 + log)) / tuned_for
    grown = users * rho2 + 1.0
    return math.sqrt(2.0 * grown / (users * users * rho2) * math.log(math.sqrt(grown) / alpha))


def users_needed(hope: float, spread: float, tuned_for: int, alpha: float = ALPHA) -> int:
    """Users at which a difference as hoped for is outside of the sequence about 0 with `POWER`."""
    power = float(ndtri(POWER))

    def seen(users: int) -> bool:
        margin = sequence_margin(users, tuned_for, alpha) + power / math.sqrt(users)
        return spread * margin <= hope

    return 2 + bisect_left(range(2, MOST_USERS), True, key=seen)


def newcombe(one: tuple[int, int], other: tuple[int, int], alpha: float = ALPHA) -> Interval:
    """Of the difference of two shares, each as counted of how many."""
    first, second = (_wilson(*part, alpha) for part in (one, other))
    p, q = one[0] / one[1], other[0] / other[1]
    return Interval(
        p - q - math.hypot(p - first.low, second.high - q),
        p - q + math.hypot(first.high - p, q - second.low),
    )


def _wilson(count: int, users: int, alpha: float) -> Interval:
    z = float(ndtri(1.0 - alpha / 2.0))
    share = count / users
    centre = (share + z * z / (2 * users)) / (1 + z * z / users)
    half = z / (1 + z * z / users)
    half *= math.sqrt(share * (1 - share) / users + z * z / (4 * users * users))
    return Interval(centre - half, centre + half)


def welch(one: Sums, other: Sums, alpha: float = ALPHA) -> Interval:
    """Of the difference of two means of revenue."""
    difference = one.revenue / one.users - other.revenue / other.users
    parts = [_money_variance(sums) / sums.users for sums in (one, other)]
    error = sum(parts)
    if error == 0:
        return Interval(difference, difference)
    freedom = error**2 / sum(
        part**2 / (sums.users - 1) for part, sums in zip(parts, (one, other), strict=True)
    )
    half = float(stdtrit(freedom, 1.0 - alpha / 2.0)) * math.sqrt(error)
    return Interval(difference - half, difference + half)


def _of_shares(
    one: tuple[int, int],
    other: tuple[int, int],
    share: float,
    tuned_for: int,
    alpha: float,
    *,
    enough: bool,
) -> Difference:
    p, q = (count / users if users else 0.0 for count, users in (one, other))
    users = one[1] + other[1]
    done = one[0] + other[0]
    if not enough or min(done, users - done) < LEAST_CONVERTED:
        return Difference(p, q, p - q, None, None)
    spread = _spread(_variance(*one), _variance(*other), one[1] / users, share)
    half = spread * sequence_margin(users, tuned_for, alpha)
    sequence = Interval(p - q - half, p - q + half)
    return Difference(p, q, p - q, sequence, newcombe(one, other, alpha))


def _of_money(
    one: Sums, other: Sums, share: float, tuned_for: int, alpha: float, *, enough: bool
) -> Difference:
    p, q = (sums.revenue / sums.users if sums.users else 0.0 for sums in (one, other))
    if not enough:
        return Difference(p, q, p - q, None, None)
    users = one.users + other.users
    spread = _spread(_money_variance(one), _money_variance(other), one.users / users, share)
    half = spread * sequence_margin(users, tuned_for, alpha)
    return Difference(p, q, p - q, Interval(p - q - half, p - q + half), welch(one, other, alpha))


def _spread(treated: float, control: float, found: float, share: float) -> float:
    """Standard deviation of the pseudo-outcomes.

    Args:
        treated, control: variances within the arms.
        found: share of treated among users as they are.
        share: as declared.
    """
    return math.sqrt(treated * found / share**2 + control * (1 - found) / (1 - share) ** 2)


def _variance(count: int, users: int) -> float:
    """Of a share; one more of each, for a share of 0 is not as sure as it looks (Laplace)."""
    share = (count + 1) / (users + 2)
    return share * (1 - share)


def _money_variance(sums: Sums) -> float:
    mean = sums.revenue / sums.users
    return max(sums.revenue_squares - sums.users * mean * mean, 0.0) / (sums.users - 1)


# -- the check of the arms' sizes ----------------------------------------------------------------


def ratio_evidence(counts: list[int], shares: list[float]) -> float:
    """How many times likelier counts are under other shares than under the declared ones.

    A Bayes factor against shares that are spread around the declared ones (Lindon and Malek 2022). By
    chance it ever reaches x with a probability of 1/x at the most, however often one looks.
    """
    used = [(count, share) for count, share in zip(counts, shares, strict=True) if share > 0]
    if sum(count for count, _ in used) < sum(counts):
        return math.inf
    count, share = (np.array(column, np.float64) for column in zip(*used, strict=True))
    prior = RATIO_PRIOR * share
    log = (
        gammaln(prior.sum())
        - gammaln((prior + count).sum())
        + (gammaln(prior + count) - gammaln(prior)).sum()
        - (count * np.log(share)).sum()
    )
    return float(np.exp(min(log, 700.0)))
