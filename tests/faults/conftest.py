"""The undisturbed run that every disturbed one is held to; see `tests/integration/conftest.py`."""

from __future__ import annotations

from tests.integration.conftest import online_retail, spring

__all__ = ["online_retail", "spring"]
