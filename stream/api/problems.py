"""Says what is wrong with a request, as RFC 9457 has it: `application/problem+json`.

Comes in: a kind of problem, and a sentence. Goes out: an answer. No trace and no name of a file is ever in one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus

import msgspec
from starlette.responses import Response
from typing_extensions import TypedDict

from stream.masking import mask

MEDIA = "application/problem+json"


class Problem(TypedDict):
    """What is wrong; `type` names the kind of problem and does not change."""

    type: str
    title: str
    status: int
    detail: str


class Kind(Enum):
    """Every kind of problem: its status, its name, and what it means."""

    BAD_REQUEST = (HTTPStatus.BAD_REQUEST, "bad-request", "The request cannot be read")
    NO_TOKEN = (HTTPStatus.UNAUTHORIZED, "no-token", "A token is needed")
    NO_SCOPE = (HTTPStatus.FORBIDDEN, "no-scope", "The token is not for this")
    WRONG_HOST = (
        HTTPStatus.FORBIDDEN,
        "wrong-host",
        "Without tokens only this machine is answered",
    )
    NOT_THERE = (HTTPStatus.NOT_FOUND, "not-there", "There is no such thing")
    NO_MODEL = (HTTPStatus.NOT_FOUND, "no-model", "No model has been learned yet")
    WRONG_METHOD = (HTTPStatus.METHOD_NOT_ALLOWED, "wrong-method", "This cannot be done here")
    CONFLICT = (HTTPStatus.CONFLICT, "conflict", "It cannot be called that")
    TOO_LARGE = (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", "The body is too large")
    NOT_JSON = (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "not-json", "The body is to be JSON")
    FAULT = (
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "fault",
        "Something is wrong here; the log says what",
    )
    UNAVAILABLE = (HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "It cannot be answered now")

    @property
    def status(self) -> int:
        return int(self.value[0])

    @property
    def title(self) -> str:
        return self.value[2]


@dataclass(eq=False)
class ProblemError(Exception):
    """A request that is not answered as asked."""

    kind: Kind
    detail: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


def answer(problem: ProblemError) -> Response:
    """The problem as an answer."""
    body: Problem = {
        "type": f"urn:segstream:problem:{problem.kind.value[1]}",
        "title": problem.kind.title,
        "status": problem.kind.status,
        "detail": mask(problem.detail),
    }
    return Response(
        msgspec.json.encode(body), problem.kind.status, dict(problem.headers), media_type=MEDIA
    )
