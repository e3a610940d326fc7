"""Compiles functions with numba as they are defined, for what the extra ``segstream[fast]`` makes quicker.

Comes in: a function of columns. Goes out: the same, compiled. A cache on disk keeps it; that sees only whether
the function's own file has changed, so all that is compiled together stands in one file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled_for(*arguments: Any) -> Callable[[Function], Function]:
    """Compiled at once for arguments of these types, or taken from the cache on disk."""

    def compile_now(function: Function) -> Function:
        try:
            found = numba.njit([arguments], error_model="numpy", cache=True)(function)
        except RuntimeError:  # no folder for the cache can be written
            found = numba.njit([arguments], error_model="numpy")(function)
        return cast("Function", found)

    return compile_now
