"""Arguments that several commands take, and whether what they name is there.

Comes in: what a person wrote. Goes out: files with their mappings, times, and a sentence for what cannot be.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from producers.files import Source
from producers.mapping import load_mapping
from stream import config
from stream.insight import queries
from stream.model import Model
from stream.store.promises import ReaderStore

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object as the last line on stdout.")]
SourceFiles = Annotated[
    list[Path] | None,
    typer.Argument(
        help="CSV, JSON Lines or Parquet; .gz and .zip too. Or --live.", metavar="[FILE]..."
    ),
]
SourceMappings = Annotated[
    list[str] | None,
    typer.Option(
        "--mapping",
        help="A shipped mapping's name, or a TOML file; one for all files, or one for each.",
        metavar="NAME|FILE",
    ),
]
KeepOutliers = Annotated[
    bool, typer.Option("--keep-outliers", help="Keep events far in time from all others.")
]
Live = Annotated[
    bool, typer.Option("--live", help="Take the users in the store, under their model.")
]
Local = Annotated[bool, typer.Option("--local", help="Start the local broker and store beside it.")]


def sources_of(files: list[Path] | None, mappings: list[str] | None, *, live: bool) -> list[Source]:
    """The files to take users from and how they are read; none for those in the store.

    Raises:
        ConfigError: it is neither or both, or there are not as many mappings as files.
        MappingError: a mapping cannot be read.
    """
    if live == bool(files):
        raise config.ConfigError("give either a FILE with --mapping, or --live")
    if not files:
        if mappings:
            raise config.ConfigError("--mapping belongs to a FILE, not to --live")
        return []
    return with_mappings(files, mappings or [])


def with_mappings(files: list[Path], names: list[str]) -> list[Source]:
    """Each file with its mapping: one for all, or one for each in the same order.

    Raises:
        ConfigError: there is none, or there are not as many as files.
        MappingError: a mapping cannot be read.
    """
    if not names:
        raise config.ConfigError("--mapping: a FILE needs one; see `segstream replay --help`")
    if len(names) not in (1, len(files)):
        raise config.ConfigError(
            f"--mapping: {len(names)} for {len(files)} files; give one for all, or one for each, in "
            "the order of the files"
        )
    found = [load_mapping(name) for name in names] * (len(files) if len(names) == 1 else 1)
    return [Source(file, mapping) for file, mapping in zip(files, found, strict=True)]


def see_population(model: Model, population: str | None) -> None:
    """Refuse a population that there is none of."""
    if population is not None and population not in (names := model.populations.names):
        raise config.ConfigError(
            f"--population {population}: there is no such population, but {', '.join(names)}"
        )


def see_segments(model: Model, segments: Iterable[int]) -> None:
    """Refuse a segment that there is none of."""
    if unknown := [one for one in segments if one not in model.by_id]:
        raise config.ConfigError(f"--segment {unknown[0]}: segstream segments lists them")


def see_kind(settings: config.Settings, store: ReaderStore, kind: str | None) -> None:
    """Refuse a kind that there is none of."""
    if kind is not None and kind not in (kinds := queries.kinds_of(settings, store)):
        raise config.ConfigError(f"--kind {kind}: there is no such kind, but {', '.join(kinds)}")


def since_ms(since: str | None, reader: queries.Reader) -> int | None:
    """A time as it is given, or so long ago, in milliseconds."""
    try:
        return None if since is None else queries.since_ms(since, reader.now_ms)
    except (ValueError, OverflowError) as error:
        raise config.ConfigError(f"--since {since}: {error}") from None
