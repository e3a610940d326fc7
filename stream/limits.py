"""Says for how long past messages are remembered, and in how many steps they are forgotten.

Comes in: settings. Goes out: `Limits`, for `remembered`, `orders` and the position of a partition.
"""

from __future__ import annotations

from dataclasses import dataclass

STEPS = 8
"""Steps in the time to remember. With fewer, more is remembered longer than asked for; with more, a
commit has more counts to carry."""
PLACES = STEPS + 1
"""As many steps are remembered at once: the step of the clock and those before."""
TOPICS = 2


@dataclass(frozen=True)
class Limits:
    """How long, and how much, is remembered.

    Attributes:
        ids_ms: for how long message ids are, by topic.
        orders_ms: for how long orders are.
        ids: of a partition's topic at the most, where a step begins.
    """

    ids_ms: tuple[int, int] = (3_600_000, 7 * 86_400_000)
    orders_ms: int = 180 * 86_400_000
    ids: int = 1_000_000

    @property
    def told(self) -> list[int]:
        """What a position keeps of it: with others, what is stored would mean something else."""
        return [*self.ids_ms, self.orders_ms]
