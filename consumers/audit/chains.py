"""Holds the changes of each user to each other.

Comes in: changes in the order of the output, and what was told again. Goes out: two promises: versions go
1, 2, 3 and so on, and each change begins where the one before ended; and the chains, for `assignment`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from consumers.audit.report import Check, segment_name, user_name

Chain: TypeAlias = tuple[int, str, int]
"""Partition, user and incarnation of the state: versions go on within these."""


@dataclass(frozen=True)
class Step:
    """A change, as far as the chain of changes is concerned.

    Attributes:
        kinds: that the user was told before, empty for none, and is told now.
        level: that it is of; empty for a change of the segment.
        steps: of the level, before and after; None for none.
    """

    version: int
    before: int | None
    after: int
    at: str
    where: str
    kinds: tuple[str, str] = ("", "")
    level: str = ""
    steps: tuple[str | None, str | None] = (None, None)

    @property
    def turn(self) -> bool:
        """Whether the segment has become another, with the user in it."""
        return not self.level and self.before == self.after


class Chains:
    """The changes of each user.

    Attributes:
        versions, links: what was found.
        steps: changes of each chain, in the order in which they were read.
        told_again: of each chain, the last that was told again of where the user is.
        begin_cut: partitions of the output that do not begin at offset 0.
    """

    def __init__(self) -> None:
        self.versions = Check("versions_are_unbroken")
        self.links = Check("from_is_the_previous_to")
        self.steps: dict[Chain, list[Step]] = {}
        self.told_again: dict[Chain, Step] = {}
        self.begin_cut: set[int] = set()

    def take(self, chain: Chain, step: Step) -> None:
        """Put a change at the end of a chain."""
        self.steps.setdefault(chain, []).append(step)

    def tell_again(self, chain: Chain, step: Step) -> None:
        """Take in a record that tells again where a user is; the newest counts."""
        if step.version >= self.told_again.get(chain, step).version:
            self.told_again[chain] = step

    def compare(self) -> None:
        """Versions go 1, 2, 3 .., and each change begins where the one before ended."""
        for chain, steps in self.steps.items():
            partition, user, _ = chain
            who = user_name(partition, user)
            version, segment, kind = 0, None, ""
            on_steps: dict[str, str | None] = {}
            if missing := self.not_there(chain, steps):
                # Earlier changes cannot be on the topic; where the user was told again, their segment is
                # known all the same.
                self.versions.unjudged += missing
                told = self.told_again.get(chain)
                first = next((step for step in steps if not step.level), None)
                version = missing
                if first is not None:
                    segment, kind = first.before, first.kinds[0]
                if told is not None and told.version == version:
                    segment, kind = told.after, told.kinds[1]
            for step in steps:
                self.versions.counted += 1
                if step.version != version + 1:
                    self.versions.accuse(
                        f"{who}: version {step.version} follows {version} ({step.where})"
                    )
                else:
                    self.links.counted += 1
                    if step.level:
                        # The first one known goes on from wherever it says.
                        known = on_steps.get(step.level, step.steps[0])
                        if step.steps[0] != known or step.steps[1] == known:
                            self.links.accuse(
                                f"{who}: version {step.version} takes {step.level} from "
                                f"{step.steps[0] or 'none'} to {step.steps[1] or 'none'}, but the user "
                                f"was told {known or 'none'} ({step.where})"
                            )
                    elif step.before != segment:
                        self.links.accuse(
                            f"{who}: version {step.version} is from {segment_name(step.before)}, but "
                            f"the user was in {segment_name(segment)} ({step.where})"
                        )
                    elif step.kinds[0] != kind:
                        self.links.accuse(
                            f"{who}: version {step.version} is from kind {step.kinds[0] or 'none'}, "
                            f"but the user was told {kind or 'none'} ({step.where})"
                        )
                version = step.version
                if step.level:
                    on_steps[step.level] = step.steps[1]
                else:
                    segment, kind = step.after, step.kinds[1]

    def not_there(self, chain: Chain, steps: list[Step]) -> int:
        """How many of a user's first changes are rightly not on the topic.

        Retention has deleted them, or they were on a topic that was made anew, and where the user was
        has been told again since.
        """
        first = steps[0].version if steps else 0
        told = self.told_again.get(chain)
        if chain[0] in self.begin_cut or (told is not None and told.version >= first - 1):
            return max(first - 1, 0)
        return 0
