"""The JSON Schemas and the AsyncAPI document as files, with topics named as by default.

Comes in: what `stream.schemas` and `stream.wiring.asyncapi` make. Goes out: the files beside this one;
``python -m ops.schemas`` writes them anew after a type was changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from stream.config import Settings
from stream.schemas import schemas
from stream.wiring.asyncapi import document

FOLDER = Path(__file__).parent
ASYNCAPI = FOLDER / "asyncapi.yaml"


class _Plain(yaml.SafeDumper):
    """Writes out what stands twice: a reader need not know of YAML's aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def files(version: str) -> dict[Path, str]:
    """The text of every file.

    Args:
        version: of the software, and so of the contract.
    """
    told = document(Settings(), version)
    text = yaml.dump(told, Dumper=_Plain, sort_keys=False, width=100)
    return {FOLDER / name: one for name, one in schemas().items()} | {ASYNCAPI: text}
