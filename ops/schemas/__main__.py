"""Writes the schema files: ``python -m ops.schemas``."""

from __future__ import annotations

import sys

from ops.schemas import schemas

for path, text in schemas().items():
    path.write_text(text, encoding="utf-8")
    print(f"wrote {path.name}", file=sys.stderr)
