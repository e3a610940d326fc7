"""What a decoder raises for bytes that it cannot read. Named once: whoever leaves one out is stopped by a record.

Comes in: nothing. Goes out: exceptions to catch around `msgspec.json` wherever others may have written the bytes.
"""

from __future__ import annotations

import msgspec

UNREADABLE: tuple[type[Exception], ...] = (
    msgspec.MsgspecError,
    UnicodeDecodeError,
    # Nested too deep, in a field that nobody reads too.
    RecursionError,
)
