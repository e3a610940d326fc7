"""Files to read, and what comes of them."""

from __future__ import annotations

import gzip
import io
import zipfile
from typing import TYPE_CHECKING

from producers.files import stage
from producers.mapped import Event, Refusal
from producers.mapping import Mapping, parse_mapping
from producers.sorting import EventSorter

if TYPE_CHECKING:
    from pathlib import Path


CSV = "customer,date,amount\nann,2026-03-02,20\nbob,2026-03-01,10\nann,2026-03-03,-5\n"


def read(file: Path, mapping: Mapping) -> tuple[list[Event], list[Refusal], int]:
    refused: list[Refusal] = []
    with EventSorter() as sorter:
        rows = stage(file, mapping, sorter, refused.append)
        count = sorter.sort()
        events = [event for batch in sorter.batches() for event in batch]
    assert count == len(events)
    return events, refused, rows


def write(file: Path, content: bytes) -> Path:
    if file.suffix == ".zip":
        content = zipped({"__MACOSX/._x": b"\0", "export/": b"", f"export/{file.stem}": content})
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)
    return file


def zipped(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return packed.getvalue()


def amounts(events: list[Event]) -> list[float | None]:
    return [event.amount for event in events]


def orders_by(order_rows: str) -> Mapping:
    return parse_mapping(
        f'user = "email"\ntime = "date"\nevent = "Order Completed"\norder = "order"\n'
        f'order_rows = "{order_rows}"\namount = "total"\nprice = "price"\nquantity = "pieces"',
        "orders", "orders.toml",
    )  # fmt: skip
