"""Writes the schema files and the AsyncAPI document: ``python -m ops.schemas``."""

from __future__ import annotations

import sys
from importlib.metadata import version

from ops.schemas import files

for path, text in files(version("segstream")).items():
    path.write_text(text, encoding="utf-8")
    print(f"wrote {path.name}", file=sys.stderr)
