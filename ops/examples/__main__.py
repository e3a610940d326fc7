"""Writes the examples of README and guide: ``make examples``."""

from __future__ import annotations

from ops.examples import PAGES, with_example

for name, page in PAGES.items():
    page.write_text(with_example(page.read_text(encoding="utf-8"), name), encoding="utf-8")
