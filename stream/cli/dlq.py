"""Shows dead letters: how many of which reason, examples, and what became of those sent again.

Comes in: facts of `stream.wiring.letters`. Goes out: the same in lines for people.
"""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from stream.wiring.letters import Content, LettersFacts, SentFacts, SurveyFacts

SHORTENED = 300
"""Letters of a value that are shown of an example."""


def show_survey(out: Console, facts: SurveyFacts) -> None:
    if not facts["letters"]:
        out.print("no dead letters")
        return
    shown = Table(box=None, pad_edge=False)
    for name in ("topic", "reason"):
        shown.add_column(name)
    for name in ("letters", "replayed"):
        shown.add_column(name, justify="right")
    for name in ("first filed", "last filed", "example"):
        shown.add_column(name, overflow="fold")
    for one in facts["reasons"]:
        shown.add_row(
            one["topic"],
            one["reason"],
            f"{one['letters']:,}",
            f"{one['replayed']:,}",
            one["first"],
            one["last"],
            one["example"],
        )
    out.print(shown)
    if facts["filed_again"]:
        out.print(f"{facts['filed_again']:,} letters more were filed for messages that have one")
    if facts["strangers"]:
        out.print(f"{facts['strangers']:,} records on these topics are no dead letters")


def show_letters(out: Console, facts: LettersFacts, *, whole: bool) -> None:
    """Letters in lines.

    Args:
        out: where to.
        facts: of the letters.
        whole: whether values are shown to their end.
    """
    if not facts["letters"]:
        out.print("no such dead letter")
    for one in facts["letters"]:
        out.print(f"{one['id']}  {one['reason']}: {one['detail']}")
        out.print(f"    filed {one['filed']}, record of {one['timestamp'] or 'no time'}")
        out.print(f"    key {_shown(one['key'], whole)}")
        for header in one["headers"]:
            out.print(f"    header {header['name']} = {_shown(header, whole)}")
        if one["lacks"]:
            out.print(f"    not whole in the letter: {', '.join(one['lacks'])}")
        out.print(f"    value, {one['bytes']:,} bytes: {_shown(one['value'], whole)}")


def _shown(content: Content, whole: bool) -> str:
    if "base64" in content:
        text = f"(no UTF-8, in base64) {content['base64']}"
    else:
        text = "(none)" if content["text"] is None else content["text"]
    return text if whole or len(text) <= SHORTENED else f"{text[:SHORTENED]} .."


_OF_LETTERS = {
    "sent_before": "were sent again before; --again sends them once more",
    "incomplete": "are not whole in their letters",
    "marks": "are marks of the shop's clock, which are never sent again",
    "beyond_limit": "are left, because of --limit",
}


def show_replay(out: Console, facts: SentFacts) -> None:
    show_sent(out, facts, "again", _OF_LETTERS)


def show_sent(out: Console, facts: SentFacts, how: str, others: dict[str, str]) -> None:
    """How many messages were sent to which topics, or would be, and what became of the others.

    Args:
        facts: with `sent_facts`, the topics, and a number for each of the others.
        how: they were sent, in words.
        others: what is said of a number, by its name among the facts.
    """
    topics = ", ".join(f"{count:,} to {topic}" for topic, count in sorted(facts["topics"].items()))
    if facts["would_send"]:
        out.print(f"{facts['would_send']:,} messages would be sent {how}, {topics}; nothing was")
    else:
        out.print(f"{facts['sent']:,} messages sent {how}{topics and f': {topics}'}")
    counts: Mapping[str, object] = facts
    for name, why in others.items():
        if counts.get(name):
            out.print(f"{counts[name]:,} {why}")
