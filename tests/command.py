"""The command with all its parts loaded, for tests that look at all of it."""

from __future__ import annotations

from typer.core import TyperGroup
from typer.main import get_command

from stream.cli.catalogue import CATALOGUE
from stream.cli.main import app


def whole_command() -> TyperGroup:
    """The command; a part of it is else loaded when it is called."""
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    context = group.context_class(group)
    for name in CATALOGUE:
        group.resolve_command(context, [name])
    return group
