"""Reads settings from their layers, and writes them as a file again.

Comes in: defaults, a TOML file, ``SEGSTREAM_SECTION__KEY`` variables and flags, the later over
the earlier; a variable ``SEGSTREAM_SECTION__KEY_FILE`` names a file that holds the value. Goes out:
`Settings` with the origin of each value, or a `ConfigError` that names the key, the value and what was
expected.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ValidationError,
)
from pydantic.fields import FieldInfo

from stream import masking
from stream.config import ConfigError, Settings

ENVIRONMENT_PREFIX = "SEGSTREAM_"
FILE_SUFFIX = "_FILE"
CONFIG_VARIABLE = "SEGSTREAM_CONFIG"
"""Names the settings file; the one variable that is no setting."""
Layer = dict[str, Any]


def load(
    file: Path | None = None,
    environment: dict[str, str] | None = None,
    flags: Layer | None = None,
) -> tuple[Settings, dict[str, str]]:
    """Read all layers.

    Args:
        file: a TOML file; None reads none.
        environment: variables to look in; None takes the process's own.
        flags: nested sections given on the command line.

    Returns:
        The settings, and for each dotted key its origin: file, environment or flag.

    Raises:
        ConfigError: a file, key or value that cannot be read.
    """
    env = dict(os.environ) if environment is None else environment
    layers = [
        ("file", _from_file(file) if file else {}),
        ("environment", _from_environment(env)),
        ("flag", flags or {}),
    ]
    merged: Layer = {}
    origins: dict[str, str] = {}
    for origin, layer in layers:
        for key, value in _flatten(layer):
            origins[key] = f"file {file}" if origin == "file" else origin
            _put(merged, key, value, join=True)
            masking.learn(key, value)
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(_explain(error, origins)) from None
    for key in _truths_taken_for_numbers(merged, settings):
        raise ConfigError(f"{key}: expected a number, not true or false")
    for key in _empty_conditions(merged):
        raise ConfigError(
            f"{key}: give one at least, or leave it out; an empty list would mean everybody"
        )
    return settings, origins


def _empty_conditions(told: Layer) -> Iterator[str]:
    """Keys at which nothing is named of which any would do: whoever writes it means nobody.

    The fields cannot say so themselves: declarations that were in force are kept with what was left out as empty.
    """
    for name, part in (("campaigns", "when"), ("endpoints", "")):
        tables = told.get(name)
        for place, table in enumerate(tables if isinstance(tables, (list, tuple)) else ()):
            conditions = table.get(part, {}) if part else {"campaigns": table.get("campaigns")}
            for key, value in conditions.items():
                if value in ([], {}):
                    yield ".".join(filter(None, (name, str(place), part, key)))


def _truths_taken_for_numbers(told: Any, made: Any, key: str = "") -> Iterator[str]:
    """Keys at which true or false was told where a number is meant: to Python, true is 1."""
    if isinstance(told, bool):
        if isinstance(made, (int, float)) and not isinstance(made, bool):
            yield key
        return
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(told, dict):
        inner = told.items()
    elif isinstance(told, (list, tuple)):
        inner = enumerate(told)
    for name, value in inner:
        below = _below(made, name)
        yield from _truths_taken_for_numbers(value, below, f"{key}.{name}".lstrip("."))


def _below(made: Any, name: Any) -> Any:
    """What a part of settings has at a key; None where it has it in another form."""
    if isinstance(made, BaseModel):
        return getattr(made, str(name), None)
    try:
        return made[name]
    except (LookupError, TypeError):
        return None


def effective(settings: Settings, origins: dict[str, str]) -> list[dict[str, Any]]:
    """Every setting as a row: key, value, unit, origin, meaning."""
    rows: list[dict[str, Any]] = []
    for section, info in Settings.model_fields.items():
        value = getattr(settings, section)
        if isinstance(value, BaseModel):
            inner = value.model_dump(exclude_none=True)
            for key, field in type(value).model_fields.items():
                rows.append(
                    {
                        "key": f"{section}.{key}",
                        "value": masking.shown(f"{section}.{key}", inner.get(key)),
                        "unit": _unit(field),
                        "origin": origins.get(f"{section}.{key}", "default"),
                        "meaning": field.description,
                    }
                )
        else:
            rows.append(
                {
                    "key": section,
                    "value": [
                        item.model_dump(mode="json", exclude_defaults=True) for item in value
                    ],
                    "unit": None,
                    "origin": origins.get(section, "default"),
                    "meaning": info.description or f"the table of {section}",
                }
            )
    return rows


def as_file(settings: Settings) -> str:
    """The settings that are not defaults, as `load` reads them from a file."""
    told = settings.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    # Whatever stands behind a section's head belongs to it, so lists come first.
    lists = [name for name, value in told.items() if isinstance(value, list)]
    lines = [f"{name} = {as_toml(told.pop(name))}" for name in lists]
    for name, section in told.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {as_toml(value)}" for key, value in section.items()]
    return "\n".join(lines) + "\n"


def as_toml(value: Any) -> str:
    """A value of a setting as TOML, on one line."""
    if isinstance(value, dict):
        pairs = (f"{_toml_key(key)} = {as_toml(inner)}" for key, inner in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    return json.dumps(value)


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)


def _unit(field: Any) -> str | None:
    extra = field.json_schema_extra
    if isinstance(extra, dict) and "unit" in extra:
        return str(extra["unit"])
    annotation = field.annotation
    meta = [*field.metadata, *get_args(annotation)]
    return "seconds" if any(isinstance(m, BeforeValidator) for m in meta) else None


def _from_file(file: Path) -> Layer:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"settings file {file} does not exist") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(
            f"settings file {file} cannot be read: {masking.mask(str(error))}"
        ) from None


def _from_environment(environment: dict[str, str]) -> Layer:
    layer: Layer = {}
    for name, text in environment.items():
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        if "__" not in name:
            _see_that_it_is_no_slip(name, text)
            continue
        key = name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
        if name.endswith(FILE_SUFFIX) and _field(key) is None:
            key, value = _from_value_file(name, Path(text), environment)
        else:
            value = text
        _put(layer, key, parse_text(key, value))
    return layer


def _from_value_file(name: str, file: Path, environment: dict[str, str]) -> tuple[str, str]:
    """The key that a variable stands for, and the value in the file that it names.

    Raises:
        ConfigError: the file cannot be read, or the value is given as well.
    """
    plain = name.removesuffix(FILE_SUFFIX)
    key = plain.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
    if plain in environment:
        raise ConfigError(f"{key} (from environment): give {plain} or {name}, not both")
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigError(
            f"{key} (from environment): {name} = {file} cannot be read: {why}"
        ) from None
    return key, text.removesuffix("\n").removesuffix("\r")


def _field(key: str) -> FieldInfo | None:
    """The declaration of a setting by its dotted key; None if there is none."""
    section, _, name = key.partition(".")
    known = Settings.model_fields.get(section)
    fields = getattr(known.annotation, "model_fields", {}) if known is not None else {}
    return fields.get(name)


def _see_that_it_is_no_slip(name: str, text: str) -> None:
    """Other variables may begin like ours, as Kubernetes' for a service; a slip is told.

    Raises:
        ConfigError: it is a setting but for an underscore.
    """
    section, _, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition("_")
    if _field(f"{section}.{key}") is not None and not text.startswith("tcp://"):
        meant = f"{ENVIRONMENT_PREFIX}{section}__{key}".upper()
        raise ConfigError(f"{name} (from environment): there is no such setting, but {meant}")


def parse_text(key: str, text: str) -> Any:
    """Tables and lists may be given as TOML or JSON, properties as lines; all else stays text."""
    field = _field(key)
    if field is not None and field.annotation is str:
        return text
    if text[:1] in ("[", "{"):
        with suppress(tomllib.TOMLDecodeError):
            return tomllib.loads(f"value = {text}")["value"]
        with suppress(json.JSONDecodeError):
            return json.loads(text)
    if field is not None and get_origin(field.annotation) is dict:
        return _parse_properties(text)
    return text


_PROPERTY = re.compile(r"\s*([A-Za-z0-9._-]+)\s*=\s*(.*?)\s*")
_PLAIN_PROPERTY = re.compile(r"""\s*([A-Za-z0-9._-]+)\s*=\s*([^"'\[{\s].*?)?\s*""")


def _parse_properties(text: str) -> Any:
    """Properties as lines ``name = value``, the value as it stands, or as a TOML document.

    Where nothing is quoted it is no TOML, in which 007 or 1_000 would be another number or none.
    """
    lines = [line for line in text.splitlines() if line.strip() and line.lstrip()[0] not in "#!"]
    plain = bool(lines) and all(map(_PLAIN_PROPERTY.fullmatch, lines))
    if not plain:
        with suppress(tomllib.TOMLDecodeError):
            return {name: _as_property(value) for name, value in _leaves(tomllib.loads(text))}
    found = [_PROPERTY.fullmatch(line) for line in lines]
    if not found or not all(found):
        return text
    return {match[1]: match[2] for match in found if match is not None}


def _leaves(table: Layer, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a nested table by their dotted keys."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _as_property(value: Any) -> Any:
    """A TOML value as librdkafka has it: text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (int, float)) else value


def _flatten(layer: Layer, prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in layer.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, dict) and "." not in dotted:
            pairs.extend(_flatten(value, f"{dotted}."))
        else:
            pairs.append((dotted, value))
    return pairs


def _put(layer: Layer, key: str, value: Any, *, join: bool = False) -> None:
    """Set a dotted key.

    Args:
        join: a table is joined with the one that is there, so that a password from the environment
            leaves what the file says of TLS alone.
    """
    *parents, last = key.split(".")
    for parent in parents:
        inner = layer.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{key}: {parent} is a value, not a section")
        layer = inner
    before = layer.get(last)
    if join and isinstance(before, dict) and isinstance(value, dict):
        value = before | value
    layer[last] = value


def _explain(error: ValidationError, origins: dict[str, str]) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"]) or "settings"
        short = ".".join(str(part) for part in problem["loc"][:2])
        origin = origins.get(key) or origins.get(short) or origins.get(key.split(".")[0])
        if origin is None:
            below = (name for name in origins if name.startswith(f"{key}."))
            origin = origins.get(next(below, ""))
        where = f" (from {origin})" if origin else ""
        if problem["type"] == "extra_forbidden":
            lines.append(f"{key}{where}: there is no such setting")
        elif key == "settings":
            lines.append(problem["msg"].removeprefix("Value error, "))
        else:
            expected = problem["msg"].removeprefix("Value error, ")
            if problem["type"] == "dict_type":
                expected = "expected a table, {name = value, ...}, or lines of name=value"
            lines.append(f"{key} = {_shown(problem['loc'], problem['input'])}{where}: {expected}")
    return masking.mask("\n".join(lines))


def _shown(place: tuple[int | str, ...], value: Any) -> str:
    """A wrong value, as others may see it."""
    key, *inner = [".".join(map(str, place[:2])), *map(str, place[2:])]
    field = _field(key)
    is_table = isinstance(value, (dict, list))
    if field is not None and not inner and is_table != (get_origin(field.annotation) is dict):
        # A table that cannot be read, or one in the wrong place: what is secret in it, nobody knows.
        return masking.MASK
    return repr(masking.shown(inner[0] if inner else key, value))
