"""Writes the README's examples: ``make examples``."""

from __future__ import annotations

from ops.examples import README, with_examples

README.write_text(with_examples(README.read_text(encoding="utf-8")), encoding="utf-8")
