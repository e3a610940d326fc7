"""Puts users into holdouts and arms by a keyed hash: no state, the same everywhere and on replay.

Comes in: users' hashes and a declaration. Goes out: a number for each user's arm. Nobody without the
namespace's secret can choose to be in an arm.

Changing a share moves the fewest users: a holdout that grows takes in users and lets nobody out, and an
arm whose weight changes takes users from other arms or gives them up, while the others exchange none
(weighted rendezvous hashing: Schindelhauer and Schomaker 2005). Whether a user is held out and which arm
they would be in are independent, so are the arms of two campaigns.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from stream.campaigns.declare import CONTROL, EVERYWHERE, Campaign
from stream.events import Bools, Floats, Hashes, Ints
from stream.hashing import mix

HELD_OUT, HELD_OUT_OF_ALL = 0, 1
"""Numbers of the arms that are never sent to; the declared arms follow in their order."""
FIRST_ARM = 2


def arm_names(campaign: Campaign) -> tuple[str, ...]:
    """Names of a campaign's arms by their numbers."""
    return (CONTROL, EVERYWHERE, *campaign.arms)


def arm_hashes(users: Sequence[bytes], key: bytes) -> Hashes:
    """Keyed hashes of n users (UTF-8), ``(n,)``: other ones than choose the trainer's sample."""
    blank = blake2b(digest_size=8, key=key, person=b"segstream arms")

    def digest(user: bytes) -> bytes:
        hashed = blank.copy()
        hashed.update(user)
        return hashed.digest()

    return np.frombuffer(b"".join(map(digest, users)), dtype="<u8").astype(np.uint64)


def salt(purpose: str, key: bytes) -> np.uint64:
    """What tells the draws for one purpose from those for another."""
    digest = blake2b(purpose.encode(), digest_size=8, key=key, person=b"segstream salt").digest()
    return np.uint64(int.from_bytes(digest, "little"))


def draw(users: Hashes, salted: np.uint64) -> Floats:
    """A number for each user, uniform over 0 (excluded) to 1 (excluded)."""
    mixed = mix(mix(users ^ salted) + salted)
    return ((mixed >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


class Arms:
    """The draws of one campaign.

    Args:
        campaign: its name salts the draws, so that they outlive a change of everything else.
        global_holdout: share of users who get no campaign at all.
        key: the namespace's secret.
    """

    def __init__(self, campaign: Campaign, global_holdout: float, key: bytes) -> None:
        self._holdout, self._everywhere = campaign.holdout, global_holdout
        self._of_all = salt("*", key)
        self._of_holdout = salt(f"{campaign.name}/{CONTROL}", key)
        self._weights = tuple(campaign.arms.values())
        self._of_arms = [salt(f"{campaign.name}/arm/{arm}", key) for arm in campaign.arms]

    def of(self, users: Hashes) -> npt.NDArray[np.uint8]:
        """The arm of each user."""
        arms = np.full(len(users), FIRST_ARM, np.uint8)
        if len(self._weights) > 1:
            arms += self._chosen(users).astype(np.uint8)
        if self._holdout:
            arms[self._below(users, self._of_holdout, self._holdout)] = HELD_OUT
        if self._everywhere:
            arms[self._below(users, self._of_all, self._everywhere)] = HELD_OUT_OF_ALL
        return arms

    def _below(self, users: Hashes, salted: np.uint64, share: float) -> Bools:
        return draw(users, salted) < share

    def _chosen(self, users: Hashes) -> Ints:
        """Each arm draws an exponential time of its weight's rate, and the first one has the user."""
        times = [
            -np.log(draw(users, salted)) / weight
            for salted, weight in zip(self._of_arms, self._weights, strict=True)
        ]
        chosen: Ints = np.argmin(times, axis=0)
        return chosen
