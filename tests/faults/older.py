"""The command, of an installation that is a version behind the others."""

from __future__ import annotations

from importlib import metadata


def _version(distribution_name: str) -> str:
    del distribution_name
    return "0.0.1"


if __name__ == "__main__":
    metadata.version = _version

    from stream.cli.main import main

    main()
