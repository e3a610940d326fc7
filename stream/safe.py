r"""Makes text that others chose harmless in a terminal.

Comes in: ids, names, categories, messages: anything that somebody else may have written. Goes out:
the same text, with whatever a terminal would obey, or would not show, written as an escape such as
``\x1b``, ``\n`` or ``\u202e``. Accents, CJK and emoji stay as they are. A backslash stays one
backslash, so text that is safe is not changed again.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any, TypeVar

_PLAIN = re.compile(r"[\x20-\x7e]*")
_BLANKS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0")
"""Marks and letters by their category, but nothing is seen of them."""


def safe(text: str) -> str:
    """The text as one line that a terminal only shows.

    Controls, escape sequences, new lines, marks and overrides of direction, characters without a
    width, line separators, lone surrogates and code points without a character become escapes.
    """
    if _PLAIN.fullmatch(text):
        return text
    return "".join(
        char if _is_shown(text, place) else _escape(char) for place, char in enumerate(text)
    )


def safe_lines(text: str) -> str:
    """The same for text of several lines; those after the first are indented.

    So no line of it can be taken for the beginning of another message.
    """
    return "\n    ".join(map(safe, text.split("\n")))


T = TypeVar("T")


def safe_facts(facts: T) -> T:
    """Plain data with every text in it made safe, keys too."""
    made: T = _safe(facts)
    return made


def _safe(facts: Any) -> Any:
    if isinstance(facts, str):
        return safe(facts)
    if isinstance(facts, dict):
        return {_safe(key): _safe(value) for key, value in facts.items()}
    if isinstance(facts, (list, tuple)):
        return type(facts)(map(_safe, facts))
    return facts


def _is_shown(text: str, place: int) -> bool:
    """Whether a terminal shows the character at a place, and does nothing else."""
    char = text[place]
    before = text[place - 1] if place else ""
    if char == "\u200d":
        # Joins two pictures to one; anywhere else nothing is seen of it.
        after = text[place + 1 : place + 2]
        return _is_picture(before) and _is_picture(after)
    if _is_selector(char):
        return bool(before) and before.isprintable() and not _is_selector(before)
    if char in _BLANKS:
        return False
    return char.isprintable() or unicodedata.category(char) == "Zs"


def _is_selector(char: str) -> bool:
    """Whether it chooses between the forms of the character before it."""
    return "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef"


def _is_picture(char: str) -> bool:
    """Whether it is an emoji, or what may end one: the choice of its form, or a colour of skin."""
    return bool(char) and (unicodedata.category(char) in {"So", "Sk"} or char == "\ufe0f")


def _escape(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")
