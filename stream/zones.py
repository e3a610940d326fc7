"""Finds time zones by their names, and takes none that is another one on another machine.

Comes in: the name of a zone, as settings, mappings and times in files have it. Goes out: the zone; what times it
makes is for `campaigns.quiet` and `producers.times` to say.
"""

from __future__ import annotations

from zoneinfo import ZoneInfo

_OF_THE_MACHINE = ("localtime", "posixrules")
"""Files beside those of zones: another zone on another machine."""


def zone(name: str) -> ZoneInfo:
    """A time zone by its name.

    Raises:
        ValueError: there is no such zone.
    """
    try:
        if name in _OF_THE_MACHINE:
            raise ValueError(name)
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        raise ValueError(
            f"there is no time zone {name!r}; expected one of IANA, such as Europe/London or UTC"
        ) from None
