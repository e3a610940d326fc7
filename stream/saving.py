"""Saves a file whole or not at all.

Comes in: the path of a file, and what writes it. Goes out: that file; what was in it stays until all of the
new one is on the disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replaced(file: Path | str) -> Iterator[BinaryIO]:
    """Write a file anew: a crash, or an error meanwhile, leaves what was there before."""
    path = Path(file)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as whole:
            yield whole
            whole.flush()
            os.fsync(whole.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
