"""Shows how many messages were written into the partitions of their users.

Comes in: facts of `stream.wiring.rekey`. Goes out: the same in lines for people.
"""

from __future__ import annotations

from typing import Any

from rich.console import Console

from stream.cli.dlq import show_sent

_OTHERS = {
    "sent_before": "letters were sent again before",
    "incomplete": "letters do not have the whole message",
    "beyond_limit": "letters are left, because of --limit",
    "other_partition": "come to another partition than they were in",
    "keyless": "are counted for nobody, and keep their key",
    "marks": "marks of the shop's clock are left out",
}


def show(out: Console, facts: dict[str, Any]) -> None:
    show_sent(out, facts, "keyed by user", _OTHERS)
