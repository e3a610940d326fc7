"""Reads JSON as people lay it out: an object a line, all in one array, or one after another.

Comes in: lines of bytes. Goes out: rows of text; or, for messages that are sent as they are written, the
bytes of each.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from producers.mapped import UNREADABLE, Refusal
from producers.mapping import Mapping, MappingError, load_mapping
from producers.tables.json_values import text_at
from producers.tables.table import BATCH_ROWS, Numbered, Refuse
from producers.texts import FileError, advice, open_utf8_lines

if TYPE_CHECKING:
    from collections.abc import Iterator


def read_json_lines(file: Path, mapping: Mapping, refuse: Refuse) -> Iterator[list[Numbered]]:
    """Rows of the objects in a file, some at a time.

    Raises:
        FileError: the file cannot be read.
        MappingError: no object has a column that the mapping needs; known at the end only.
    """
    paths = [(name, name.split(".")) for name in mapping.columns]
    seen: set[str] = set()
    others: set[str] = set()
    lists: list[str] = []
    batch: list[Numbered] = []
    numbers = mapping.number_columns
    with open_utf8_lines(file, mapping.encoding) as lines:
        objects = _objects(file, lines, mapping, refuse)
        if mapping.each is not None:
            objects = _entries(objects, mapping.each)
        else:
            objects = _unwrapped(objects, _keys_of(mapping.columns))
        for number, content in objects:
            try:
                row = [text_at(content, name, path, name in numbers) for name, path in paths]
            except (ValueError, RecursionError) as error:  # nothing that can be written as text
                refuse(Refusal(number, UNREADABLE, f"line {number}: {error}", {}))
                continue
            if len(seen) < len(paths):
                seen.update(name for (name, _), text in zip(paths, row, strict=True) if text)
                if len(others) < 50:  # only shown in a message
                    others.update(content)
                    lists = lists or _lists_of_objects(content)
            batch.append(Numbered(number, row))
            if len(batch) == BATCH_ROWS:
                yield batch
                batch = []
    if batch:
        yield batch
    # Only now is it known that a column is nowhere; nothing has been sent yet.
    if seen or others:
        try:
            mapping.check(seen | others)
        except MappingError as error:
            raise MappingError(f"{error}{_list_advice(lists)}") from None


def fitting(file: Path, mapping: Mapping) -> Mapping:
    """The mapping for a file of JSON: the one it names for JSON, if the first objects have its columns only.

    Raises:
        FileError: the file cannot be read.
        MappingError: it names one that does not ship.
    """
    if mapping.for_json is None:
        return mapping
    other = load_mapping(mapping.for_json)
    wanted = _keys_of((*mapping.columns, *other.columns))
    with open_utf8_lines(file, mapping.encoding) as lines:
        objects = _unwrapped(_objects(file, lines, mapping, lambda _: None), wanted)
        for _, content in islice(objects, _LOOKED_AT):
            own, others = (one.fits(_filled(content, one)) for one in (mapping, other))
            if own != others:
                return mapping if own else other
    return mapping


_LOOKED_AT = 50
"""Objects by which is told what kind they are: one alone may lack what the others have."""


def _filled(content: dict[str, Any], mapping: Mapping) -> set[str]:
    """Columns of a mapping that an object has, and its keys."""
    reached = {name for name in mapping.columns if _reaches(content, name)}
    return reached | content.keys()


def _reaches(content: dict[str, Any], name: str) -> bool:
    try:
        return text_at(content, name, name.split("."), is_number=False) is not None
    except (ValueError, RecursionError):  # nothing that can be written as text
        return True


def _list_advice(lists: Sequence[str]) -> str:
    if not lists:
        return ""
    return (
        f'; {lists[0]!r} is a list of objects: the mapping can say each = "{lists[0]}", and '
        f'"{lists[0]}.x" for the x of its entries'
    )


def _objects(
    file: Path, lines: Iterator[bytes], mapping: Mapping, refuse: Refuse
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file and their numbers: one a line, in one array, or one after another."""
    encoding_advice: list[str] = []
    whole, numbered = _numbered(lines)
    if whole is not None:
        try:
            found = msgspec.json.decode(whole)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            found = None
        if isinstance(found, list):
            yield from _objects_of_array(found, refuse)
            return
        numbered = _values(file, whole)
    what = "line" if whole is None else "entry"
    for number, line in numbered:
        try:
            content = _decoded(line)
        except UnicodeDecodeError as error:
            if not encoding_advice:
                encoding_advice.append(advice(file))
            why = f"{what} {number}: not in {mapping.encoding}: {error}{encoding_advice[0]}"
            refuse(Refusal(number, UNREADABLE, why, {}))
        except (ValueError, RecursionError) as error:
            refuse(Refusal(number, UNREADABLE, f"{what} {number}: {error}", {}))
        else:
            if isinstance(content, dict):
                yield number, content
            else:
                refuse(Refusal(number, UNREADABLE, f"{what} {number}: no JSON object", {}))


_decode = msgspec.json.Decoder().decode


def _decoded(line: bytes) -> Any:
    """A value, as Python writes it too: with NaN for nothing. Lines of an array end in a comma."""
    try:
        return _decode(line)
    except msgspec.DecodeError:
        bare = line.strip().removesuffix(b",")
        if b"NaN" in bare or b"Infinity" in bare:
            return json.loads(bare, parse_constant=lambda _: None)
        if bare.endswith(b"}") and len(bare) < len(line.strip()):
            return _decode(bare)
        raise


def _numbered(lines: Iterator[bytes]) -> tuple[bytes | None, Iterator[tuple[int, bytes]]]:
    """Lines that are filled, with their numbers from 1; or all as one, if values run over several."""
    numbered = ((n, line) for n, line in enumerate(lines, 1) if not line.isspace())
    first = next(numbered, None)
    if first is None:
        return None, numbered
    bare = first[1].strip()
    if bare.startswith(b"["):
        return b"".join([first[1], *(line for _, line in numbered)]), iter(())
    if not bare.startswith(b"{") or bare.endswith((b"}", b"},")):
        return None, chain([first], numbered)
    second = next(numbered, None)
    if second is not None and second[1].lstrip().startswith(b"{"):
        return None, chain([first, second], numbered)  # a broken line, and the next one
    following = [] if second is None else [second[1]]
    return b"".join([first[1], *following, *(line for _, line in numbered)]), iter(())


def _keys_of(columns: Iterable[str]) -> set[str]:
    """Keys by which an object may have one of these columns: its name, or where its path begins."""
    return {key for name in columns for key in (name, name.split(".")[0])}


def _lists_of_objects(content: dict[str, Any]) -> list[str]:
    """Keys under which an object has a list of objects."""
    return [
        key
        for key, found in content.items()
        if isinstance(found, list) and found and isinstance(found[0], dict)
    ]


def _entries(
    objects: Iterator[tuple[int, dict[str, Any]]], each: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """For each entry of a list in each object the object, with the entry in the list's place."""
    number = 0
    for _, content in objects:
        entries = content.get(each)
        for entry in entries if isinstance(entries, list) else ():
            number += 1
            yield number, content | {each: entry}


def _unwrapped(
    objects: Iterator[tuple[int, dict[str, Any]]], wanted: set[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects; of one that has nothing that is wanted, and one list of objects, the entries.

    So answers of an API come: ``{"data": [..], "has_more": false}``, one or several after another.
    """
    number = 0
    for place, content in objects:
        lists = _lists_of_objects(content)
        if len(lists) != 1 or not wanted.isdisjoint(content):
            number = max(number + 1, place)
            yield number, content
            continue
        for entry in content[lists[0]]:
            if isinstance(entry, dict):
                number += 1
                yield number, entry


def _objects_of_array(found: list[Any], refuse: Refuse) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, content in enumerate(found, 1):
        if isinstance(content, dict):
            yield number, content
        else:
            refuse(Refusal(number, UNREADABLE, f"entry {number}: no JSON object", {}))


_BLANKS = frozenset(" \t\r\n")


def messages(file: Path, lines: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """Messages and their numbers: one a line, in one array, or one after another."""
    whole, numbered = _numbered(lines)
    for number, message in numbered if whole is None else _values(file, whole):
        yield number, message.strip()


def _values(file: Path, content: bytes) -> Iterator[tuple[int, bytes]]:
    """The entries of an array, or values one after another, as they are written."""
    decode = json.JSONDecoder().raw_decode
    try:
        text = content.decode()
        place = _behind_blanks(text, 0)
        is_array = text[place] == "["
        place += is_array
        number = 0
        while (place := _behind_blanks(text, place)) < len(text):
            if is_array and text[place] == "]":
                return
            _, end = decode(text, place)
            number += 1
            yield number, text[place:end].encode()
            place = _behind_blanks(text, end)
            if text[place : place + 1] == ",":
                place += 1
            elif is_array and text[place : place + 1] != "]":
                raise ValueError(f"no comma behind entry {number}")
        if is_array:
            raise ValueError("the array does not end")
    except (ValueError, RecursionError) as error:
        raise FileError(f"{file}: is neither JSON Lines nor one JSON array: {error}") from None


def _behind_blanks(text: str, start: int) -> int:
    while text[start : start + 1] in _BLANKS:
        start += 1
    return start
