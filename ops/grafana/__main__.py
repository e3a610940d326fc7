"""Writes the dashboards: ``python -m ops.grafana``."""

from __future__ import annotations

import sys

from ops.grafana import files

for path, text in files().items():
    path.write_text(text, encoding="utf-8")
    print(f"wrote {path.name}", file=sys.stderr)
