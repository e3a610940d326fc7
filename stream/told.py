"""Which errors a person can put right, and how a command ends that meets one.

Comes in: nothing. Goes out: the class that such errors derive from. Its message is the whole story, shown as it is
and without a trace.
"""

from __future__ import annotations

from typing import ClassVar

NO, WRONG = 1, 2
"""Exit codes, beside 0: no, or something is off; wrong use or wrong configuration."""


class ToldError(Exception):
    """What a person can put right.

    Attributes:
        exit_code: of a command that it ends.
        hint: what a command adds to the message: where to look.
    """

    exit_code: ClassVar[int] = NO
    hint: ClassVar[str] = ""
