"""Arms and holdouts: shares as declared, sticky, and the fewest users move."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from stream.campaigns.arms import FIRST_ARM, HELD_OUT, HELD_OUT_OF_ALL, Arms, arm_hashes
from stream.campaigns.declare import Limits
from stream.campaigns.oracle import Oracle
from tests.stream.campaigns.making import campaign

USERS = [b"user-%d" % number for number in range(40_000)]
KEY = b"secret"
HASHES = arm_hashes(USERS, KEY)


def arms_of(everywhere: float = 0.0, key: bytes = KEY, **fields: object) -> npt.NDArray[np.uint8]:
    return Arms(campaign(**fields), everywhere, key).of(HASHES)  # type: ignore[arg-type]


def share(found: npt.NDArray[np.bool_]) -> float:
    return float(found.mean())


def test_shares_are_as_declared_and_independent() -> None:
    found = arms_of(0.05, holdout=0.2, arms={"a": 1, "b": 3})
    assert share(found == HELD_OUT_OF_ALL) == pytest.approx(0.05, abs=0.005)
    assert share(found == HELD_OUT) == pytest.approx(0.95 * 0.2, abs=0.008)
    treated = found[found >= FIRST_ARM]
    assert share(treated == FIRST_ARM) == pytest.approx(0.25, abs=0.01)
    here, there = arms_of(holdout=0.2), arms_of(name="other", holdout=0.2)
    assert share((here == HELD_OUT) & (there == HELD_OUT)) == pytest.approx(0.04, abs=0.005)
    # Who is held out of everything is so for every campaign.
    assert ((arms_of(0.05) == 1) == (arms_of(0.05, name="other") == 1)).all()


def test_a_share_that_grows_lets_nobody_out() -> None:
    small, large = arms_of(holdout=0.1) == HELD_OUT, arms_of(holdout=0.3) == HELD_OUT
    assert (large[small]).all()


def test_an_arm_that_grows_takes_from_others_and_they_exchange_nobody() -> None:
    before = arms_of(arms={"a": 1, "b": 1, "c": 1})
    after = arms_of(arms={"a": 2, "b": 1, "c": 1})
    moved = before != after
    assert (after[moved] == FIRST_ARM).all()
    assert share(moved) == pytest.approx(1 / 2 - 1 / 3, abs=0.01)
    # An arm that is new, too; and the order of declaration says nothing.
    anew = arms_of(arms={"d": 1, "a": 1, "b": 1, "c": 1})
    moved = anew - 1 != before
    assert (anew[moved] == FIRST_ARM).all()


def test_held_out_or_let_out_a_user_keeps_the_arm() -> None:
    before = arms_of(arms={"a": 1, "b": 1}, holdout=0.2)
    after = arms_of(arms={"a": 1, "b": 1}, holdout=0.1)
    treated = before >= FIRST_ARM
    assert (before[treated] == after[treated]).all()


def test_nobody_can_work_out_an_arm_without_the_secret() -> None:
    ours = arms_of(holdout=0.5) == HELD_OUT
    theirs = Arms(campaign(holdout=0.5), 0.0, b"guess").of(arm_hashes(USERS, b"guess")) == HELD_OUT
    assert share(ours == theirs) == pytest.approx(0.5, abs=0.01)


def test_a_slow_twin_puts_everyone_into_the_same_arm() -> None:
    declared = campaign(holdout=0.3, arms={"a": 1, "b": 2, "c": 0.5})
    oracle = Oracle([declared], Limits.model_validate({"global_holdout": 0.1}), KEY)
    names = ("holdout", "global_holdout", "a", "b", "c")
    found = Arms(declared, 0.1, KEY).of(HASHES)
    for user, arm in zip(USERS[:2_000], found.tolist(), strict=False):
        assert oracle.arm(declared, user.decode()) == names[arm]
