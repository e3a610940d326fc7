"""Commands that send again what was sent, refused, given up or placed wrongly: republish, dlq, webhooks, rekey.

Comes in: which records. Goes out: the same records on their topics, and how many.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Annotated

import typer

from consumers.letters import letters, survey
from consumers.parked import parked
from producers import topics as topic_plans
from stream.cli import dlq
from stream.cli import rekey as rekey_view
from stream.cli import webhooks as webhooks_view
from stream.cli.arguments import AsJson, see_kind, see_segments
from stream.cli.invocation import invocation
from stream.cli.terminal import show
from stream.events import Reason
from stream.insight import queries
from stream.membership import Wanted
from stream.told import NO
from stream.units import milliseconds
from stream.webhooks.queue import Reason as GivenUp
from stream.wiring import letters as letter_facts
from stream.wiring import parked as parked_facts
from stream.wiring import rekey as rekeying
from stream.wiring import republish, roles

commands = typer.Typer()
dlq_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Dead letters: what was refused, why, and to send it again.",
)
commands.add_typer(dlq_app, name="dlq")
webhooks_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Deliveries to endpoints that were given up, and to send them again.",
)
commands.add_typer(webhooks_app, name="webhooks")


@commands.command("republish", epilog="Example: `segstream republish --kind at_risk`")
def republish_memberships(
    segment: Annotated[int | None, typer.Option(help="Only of this segment.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only of segments of this kind.")] = None,
    rate: Annotated[float, typer.Option(help="Records a second at the most.", min=1)] = 5_000.0,
    as_json: AsJson = False,
) -> None:
    """Send everybody's present segment to the output again, as records of their own type.

    For whoever begins to listen, and after the output was made anew or lost records. A listener
    that knows a higher version of a user passes over it, so it may be done at any time.
    """
    settings = invocation.settings()
    topic_plans.see_partitions(settings)
    with roles.open_store(settings) as store:
        model = queries.model_in_force(store)
        see_segments(model, () if segment is None else (segment,))
        see_kind(settings, store, kind)
        with invocation.telling("sending") as tell:
            facts = republish.tell_again(
                settings,
                store,
                model,
                Wanted(segment, kind),
                rate,
                lambda count: tell(f"sent {count:,}"),
            )
    show(facts, as_json, _show_republished)


def _show_republished(facts: republish.RepublishedFacts) -> None:
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(facts["kinds"].items()))
    invocation.out.print(f"{facts['sent']:,} memberships sent{f': {kinds}' if kinds else ''}")


def _milliseconds(since: datetime | None) -> int:
    return 0 if since is None else milliseconds(since)


def _one_of(known: Iterable[str]) -> Callable[[str | None], str | None]:
    """Refuses a reason that there is not, and names those there are."""
    reasons = tuple(known)

    def see(reason: str | None) -> str | None:
        if reason is not None and reason not in reasons:
            raise typer.BadParameter(f"{reason!r} is no reason; there are {', '.join(reasons)}")
        return reason

    return see


_ReasonOption = typer.Option(help="Only of this reason.", callback=_one_of(Reason))
_GivenUpOption = typer.Option(help="Only of this reason.", callback=_one_of(GivenUp))


@dlq_app.command("list", epilog="Example: `segstream dlq list`")
def dlq_list(as_json: AsJson = False) -> None:
    """How many messages were refused, by topic and reason; each counts once."""
    with invocation.telling("reading the dead letters"):
        found = survey(invocation.settings())
    show(
        letter_facts.survey_facts(found),
        as_json,
        lambda facts: dlq.show_survey(invocation.out, facts),
    )


@dlq_app.command("show", epilog="Example: `segstream dlq show --reason bad_time --limit 5`")
def dlq_show(
    letter_id: Annotated[
        str | None, typer.Argument(metavar="ID", help="One letter whole: topic/partition/offset.")
    ] = None,
    reason: Annotated[str | None, _ReasonOption] = None,
    limit: Annotated[int, typer.Option(help="Letters at the most.", min=1)] = 3,
    as_json: AsJson = False,
) -> None:
    """Examples of dead letters, or one whole."""
    with invocation.telling("reading the dead letters"):
        found = letters(invocation.settings(), reason=reason)
        if letter_id is not None:
            found = (one for one in found if one.id == letter_id)
        facts = letter_facts.letter_facts(found, limit)
    whole = letter_id is not None
    show(facts, as_json, lambda shown: dlq.show_letters(invocation.out, shown, whole=whole))
    if not facts["letters"]:
        raise typer.Exit(NO)


@dlq_app.command(
    "replay", epilog="Example: `segstream dlq replay --reason missing_field --since 2026-11-01`"
)
def dlq_replay(
    reason: Annotated[str, _ReasonOption],
    since: Annotated[
        datetime | None, typer.Option(help="Only letters filed from then on; UTC.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Messages at the most.", min=1)] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Also those that were sent again before.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send refused messages again, as they were, to the topics they came from.

    For when their producer, or what refused them, was mended. They keep key, headers and timestamp;
    the header segstream-replayed-from names the letter. Marks, and messages of which the letter has
    only the head, are counted and not sent.
    """
    settings = invocation.settings()
    with invocation.telling("reading the dead letters") as tell:
        facts = letter_facts.replay(
            settings,
            reason,
            _milliseconds(since),
            limit,
            again=again,
            dry_run=dry_run,
            told=lambda count: tell(f"sent {count:,}"),
        )
    show(facts, as_json, lambda shown: dlq.show_replay(invocation.out, shown))
    if not facts["sent"] + facts["would_send"]:
        raise typer.Exit(NO)


@webhooks_app.command("list", epilog="Example: `segstream webhooks list`")
def webhooks_list(as_json: AsJson = False) -> None:
    """How many deliveries were given up, by endpoint and reason."""
    with invocation.telling("reading the parked deliveries"):
        found = parked(invocation.settings())
    show(
        parked_facts.parked_facts(found),
        as_json,
        lambda facts: webhooks_view.show_parked(invocation.out, facts),
    )


@webhooks_app.command(
    "replay", epilog="Example: `segstream webhooks replay --endpoint crm --since 2026-11-01`"
)
def webhooks_replay(
    endpoint: Annotated[str | None, typer.Option(help="Only of this endpoint.")] = None,
    reason: Annotated[str | None, _GivenUpOption] = None,
    since: Annotated[
        datetime | None, typer.Option(help="Only those given up from then on; UTC.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Deliveries at the most.", min=1)] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Also those that were asked for before.")
    ] = False,
    late: Annotated[
        bool, typer.Option("--late", help="Also those whose trigger is no longer valid.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask the role of webhooks to send again what it had given up, under the same ids.

    For when the receiver was mended. An endpoint that had answered 410 is tried again.
    """
    settings = invocation.settings()
    with invocation.telling("reading the parked deliveries") as tell:
        facts = parked_facts.replay(
            settings,
            parked(settings),
            time.time_ns() // 1_000_000,
            endpoint=endpoint,
            reason=reason,
            since_ms=_milliseconds(since),
            limit=limit,
            again=again,
            late=late,
            dry_run=dry_run,
            told=lambda count: tell(f"asked for {count:,}"),
        )
    show(facts, as_json, lambda shown: webhooks_view.show_replay(invocation.out, shown))
    if not facts["asked"] + facts["would_ask"]:
        raise typer.Exit(NO)


@commands.command(
    epilog="Example: `segstream rekey`, or `segstream rekey --from old-clicks --to clickstream`"
)
def rekey(
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="TOPIC", help="Copy this topic; without, the dead letters."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--to", metavar="INPUT", help="clickstream or purchases: where copies go."),
    ] = None,
    since: Annotated[
        datetime | None, typer.Option(help="Only letters filed from then on; UTC.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Letters at the most.", min=1)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write messages into the partitions of their users.

    Those that were refused as misplaced, each once; they keep headers and timestamp. With --from, all
    messages of a topic, once for each run, up to where it ends now: to fill new input topics from old
    ones that have another number of partitions, or that are keyed by something else.
    """
    settings = invocation.settings()
    rekey_view.see_options(
        settings, source, target, letters_only=since is not None or limit is not None
    )
    topic_plans.see_partitions(settings)
    with invocation.telling("reading messages") as tell:

        def count(sent: int) -> None:
            tell(f"sent {sent:,}")

        if source is None:
            since_ms = _milliseconds(since)
            facts = rekeying.letters(settings, since_ms, limit, dry_run=dry_run, told=count)
        else:
            facts = rekeying.topic(settings, source, target or "", dry_run=dry_run, told=count)
    show(facts, as_json, lambda shown: rekey_view.show(invocation.out, shown))
    if not facts["sent"] + facts["would_send"]:
        raise typer.Exit(NO)
