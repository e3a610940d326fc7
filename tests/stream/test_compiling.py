"""Compiling as functions are defined, and keeping it on disk where that can be."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import pytest

numba: Any = pytest.importorskip("numba", reason="needs the extra segstream[fast]")
compiling = importlib.import_module("stream.compiling")


def test_without_a_folder_for_the_cache_it_is_compiled_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def njit(*arguments: Any, cache: bool = False, **options: Any) -> Any:
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return numba.njit(*arguments, **options)

    monkeypatch.setattr(compiling, "numba", SimpleNamespace(njit=njit))

    following = compiling.compiled_for(numba.types.int64)(lambda number: number + 1)
    assert following(1) == 2
    assert asked == [True, False]
