"""What an examination of the pipeline finds, as the doctor tells it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        ok: whether it is as it should be.
        subject: what was looked at, such as ``broker`` or ``store memory policy``.
        finding: what was seen.
        remedy: what to type or to set; empty if all is well.
    """

    ok: bool
    subject: str
    finding: str
    remedy: str = ""
