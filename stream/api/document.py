"""Makes the OpenAPI document of what is declared.

Comes in: `operations.OPERATIONS`. Goes out: an OpenAPI 3.1 document as plain data.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, TypeAlias

from pydantic import TypeAdapter

from stream.api.operations import JSON, OPERATIONS, Operation, Parameter
from stream.api.problems import MEDIA, Kind, Problem

ALWAYS = (Kind.BAD_REQUEST, Kind.NO_TOKEN, Kind.NO_SCOPE, Kind.FAULT, Kind.UNAVAILABLE)
"""Refusals that everything has."""
WITH_BODY = (Kind.TOO_LARGE, Kind.NOT_JSON)
REFS = "#/components/schemas/{model}"

_Mode: TypeAlias = Literal["validation", "serialization"]


def document() -> dict[str, Any]:
    """The whole document."""
    typed: list[tuple[str, _Mode, TypeAdapter[Any]]] = [
        ("Problem", "serialization", TypeAdapter(Problem))
    ]
    for operation in OPERATIONS:
        typed.append((operation.name, "serialization", TypeAdapter(operation.answer)))
        if operation.body is not None:
            typed.append((f"{operation.name} body", "validation", operation.body_adapter))
    schemas, shared = TypeAdapter.json_schemas(typed, ref_template=REFS)
    told = {name: schema for (name, _), schema in schemas.items()}
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, told)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "segstream",
            "version": _version(),
            "summary": "Live segmentation of shoppers: users, segments, changes, campaigns.",
            "description": "Facts of a running pipeline. Times are ISO 8601 in UTC, values in natural units. "
            "What is wrong is told as application/problem+json.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": shared["$defs"],
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "the token of a client of `api.clients`; where none are declared, "
                    "this machine may read without one",
                }
            },
        },
    }


def _operation(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    media = operation.media.partition(";")[0]
    answer = schemas[operation.name] if media == JSON else {"type": "string"}
    refusals = [*ALWAYS, *operation.refusals, *(WITH_BODY if operation.body is not None else ())]
    told: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.meaning.partition(".")[0],
        "description": f"{operation.meaning} Scope: `{operation.scope.value}`.",
        "security": [{"token": []}],
        "parameters": [_parameter(parameter) for parameter in operation.parameters],
        "responses": {
            "200": {"description": "As asked.", "content": {media: {"schema": answer}}},
            **_refusals(refusals, schemas["Problem"]),
        },
    }
    if operation.body is not None:
        body = schemas[f"{operation.name} body"]
        told["requestBody"] = {"required": True, "content": {JSON: {"schema": body}}}
    return told


def _parameter(parameter: Parameter) -> dict[str, Any]:
    schema = parameter.adapter.json_schema()
    if parameter.default is not None:
        schema["default"] = parameter.default
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.place == "path",
        "description": parameter.meaning,
        "schema": schema,
    }


def _refusals(kinds: list[Kind], problem: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, list[str]] = {}
    for kind in kinds:
        found.setdefault(str(kind.status), []).append(kind.title)
    return {
        status: {
            "description": "; ".join(titles),
            "content": {MEDIA: {"schema": problem}},
        }
        for status, titles in sorted(found.items())
    }


def _version() -> str:
    try:
        return version("segstream")
    except PackageNotFoundError:
        return "0"
