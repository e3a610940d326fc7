"""Commands that look at a pipeline: segments, users, changes, members.

Comes in: whom or what to look at. Goes out: facts of `insight`, shown. One gives a segment a name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Annotated, Any

import typer

from consumers.change_log import ChangeLog, Place
from stream.cli import explaining, views
from stream.cli.arguments import (
    AsJson,
    see_kind,
    see_population,
    see_segments,
    since_ms,
)
from stream.cli.invocation import invocation
from stream.cli.terminal import show
from stream.insight import explore, members, queries, rule_facts
from stream.insight import why as reasons
from stream.insight.facts import SegmentsFacts, UserFacts
from stream.safe import safe
from stream.units import iso
from stream.wiring import roles

commands = typer.Typer()
segments_app = typer.Typer(rich_markup_mode="markdown")
commands.add_typer(segments_app, name="segments", epilog="Example: `segstream segments --rules`")


@segments_app.callback(invoke_without_command=True)
def segments(
    context: typer.Context,
    rules: Annotated[
        bool, typer.Option("--rules", help="Who is in which, in a few conditions each.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """The segments: id, name, kind, size, what marks them, and how good the model is."""
    if context.invoked_subcommand is not None:
        return
    settings = invocation.settings()
    table = settings.table()
    with roles.open_store(settings) as store:
        state = queries.trainer_state(store)
        facts = queries.segments(state, table)
        if rules and state.model is not None:
            with invocation.telling("reading") as tell:
                people = explore.read_store(settings, table, store, state.model, tell)
            facts["rules"] = rule_facts.rules(people, state.model, table)

    def for_people(shown: SegmentsFacts) -> None:
        views.show_segments(invocation.out, shown, table)
        if rules:
            explaining.show_rules(invocation.out, shown["rules"], table)

    show(facts, as_json, for_people)


@segments_app.command(epilog="Example: `segstream segments rename 4 'Bargain hunters'`")
def rename(
    segment: Annotated[int, typer.Argument(metavar="ID", help="The segment, as in segments.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name from now on.")],
) -> None:
    """Give a segment a name that stays with its id, through every refit to come."""
    settings = invocation.settings()
    with roles.open_store(settings) as store:
        before = queries.rename(store, segment, name)
    show(
        f"segment {segment}, {before!r}, is called {name!r} from the trainer's next round on",
        False,
        invocation.out.print,
    )


@commands.command(epilog="Example: `segstream user 17850 --why`")
def user(
    user_id: Annotated[str, typer.Argument(metavar="ID", help="The user, as in userId.")],
    why: Annotated[
        bool, typer.Option("--why", help="What holds them there, and what would move them.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """A user: features now, segment, since when, distances, the last changes and why."""
    settings = invocation.settings()
    with roles.open_store(settings) as store:
        reader = queries.Reader(settings, store, settings.table())
        facts = reader.user(user_id, partial(ChangeLog(settings).read, levels=True))
        if why:
            facts["why"] = reasons.why(reader, user_id)

    def for_people(shown: UserFacts) -> None:
        views.show_user(invocation.out, shown, reader.table)
        if why:
            explaining.show_why(invocation.out, shown["why"], reader.table)

    show(facts, as_json, for_people)


@commands.command(epilog="Example: `segstream changes --follow --kind at_risk`")
def changes(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more.")] = False,
    since: Annotated[
        str | None,
        typer.Option(help="Only from a time on, or so long ago.", metavar="DATETIME|DURATION"),
    ] = None,
    tail: Annotated[
        int | None, typer.Option(help="Only the last so many of those there are.", min=0)
    ] = None,
    user_id: Annotated[str | None, typer.Option("--user", help="Only this user's.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only moves into this kind.")] = None,
    kinds_only: Annotated[
        bool, typer.Option("--kinds", help="Only what tells a user another kind than before.")
    ] = False,
    lineage: Annotated[
        bool, typer.Option("--lineage", help="Also what became of segments, one record for all.")
    ] = False,
    levels: Annotated[
        bool, typer.Option("--levels", help="Also who crossed a limit of a level.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines.")] = False,
) -> None:
    """The changes, oldest first, over all users and partitions."""
    settings = invocation.settings()
    stop = roles.stop_on_signals() if follow else None
    found = False

    def tell(records: Iterable[dict[str, Any]]) -> None:
        nonlocal found
        for record in records:
            found = True
            show(record, as_json, lambda shown: invocation.out.print(views.record_line(shown)))

    with roles.open_store(settings) as store:
        reader = queries.Reader(settings, store, settings.table())
        see_kind(settings, store, kind)
        begin_ms = since_ms(since, reader)
        begin = None if begin_ms is None else iso(begin_ms)

        def chosen(records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
            return (
                one
                for one in records
                if queries.wanted(one, user_id, kind, begin, kinds_only=kinds_only)
            )

        log, place = ChangeLog(settings), Place()
        with invocation.telling("reading"):
            there = chosen(log.read(lineage=lineage, levels=levels, place=place))
            records = queries.in_time_order(there, tail)
        tell(records)
        if stop is not None:
            tell(chosen(log.follow(stop.is_set, place, lineage=lineage, levels=levels)))
    if not found:
        invocation.err.print("no changes")


@commands.command(
    "members", epilog="Example: `segstream members --kind at_risk --csv > at-risk.csv`"
)
def list_members(
    segment: Annotated[
        list[int] | None, typer.Option(help="Only of this segment; may be given again.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="Only who is of this kind.")] = None,
    population: Annotated[
        str | None, typer.Option(help="Only who is in a segment of this population.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="Only who came from a time on, or so long ago: to the segment, or the kind.",
            metavar="DATETIME|DURATION",
        ),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="A table, with a head.")] = False,
    as_jsonl: Annotated[bool, typer.Option("--jsonl", help="JSON lines.")] = False,
) -> None:
    """The members of segments: id, since when, last seen, and what they are worth."""
    settings = invocation.settings()
    with roles.open_store(settings) as store:
        reader = queries.Reader(settings, store, settings.table())
        model = queries.model_in_force(store)
        see_segments(model, segment or ())
        see_kind(settings, store, kind)
        see_population(model, population)
        begin = since_ms(since, reader)
        wanted = members.WantedMembers(segment or None, kind, begin or 0, population)
        portions = members.members(settings, reader.table, store, model, wanted, reader.now_ms())
        if as_csv:
            invocation.out.file.write(members.CSV_HEAD)
        found = 0
        for portion in members.once(portions):
            found += len(portion)
            if as_csv or as_jsonl:
                text = members.as_csv(portion) if as_csv else members.as_jsonl(portion)
                # A file gets what users are called; a terminal what it only shows.
                invocation.out.file.write(
                    "".join(f"{safe(line)}\n" for line in text.splitlines())
                    if invocation.out.is_terminal
                    else text
                )
            else:
                for member in portion:
                    invocation.out.print(views.member_line(member))
    if not found:
        invocation.err.print("no members")
