"""Says who may ask the API for what.

Comes in: declared clients, and the token that somebody showed. Goes out: the client whose it is, or nobody.
Tokens are compared by their hashes and all of them each time, so an answer takes as long whatever was shown.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from enum import StrEnum
from hashlib import sha256
from ipaddress import ip_address

from pydantic import BaseModel, ConfigDict, Field

from stream.secret_places import SecretPlace, read_secret

SHORTEST_TOKEN = 24
"""Characters; a shorter one could be guessed."""


class Scope(StrEnum):
    """What a client may do."""

    READ = "read"
    RENAME = "rename"
    PAUSE = "pause"


class Client(BaseModel):
    """Somebody who may ask."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", description="who it is, for the record"
    )
    token: SecretPlace = Field(description="where its token is, env:NAME or file:PATH")
    scopes: tuple[Scope, ...] = Field(default=(Scope.READ,), min_length=1)


ANYBODY = Client(name="anybody", token="env:NONE", scopes=(Scope.READ,))  # noqa: S106 - a place
"""Whoever is on this machine, where no clients are declared."""


class Guard:
    """Knows clients by their tokens.

    Args:
        environment: variables that tokens may be in; None takes the process's own.

    Raises:
        ValueError: a token is not there, or could be guessed, or is another client's as well; the message
            names the client and the place.
    """

    def __init__(
        self, clients: Sequence[Client], environment: Mapping[str, str] | None = None
    ) -> None:
        self._clients: dict[bytes, Client] = {}
        for client in clients:
            try:
                token = read_secret(client.token, environment)
            except ValueError as error:
                raise ValueError(f"client {client.name}: {error}") from None
            if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable():
                raise ValueError(
                    f"client {client.name}: {client.token} is no token; expected {SHORTEST_TOKEN} or "
                    "more random letters and digits"
                )
            if (digest := _digest(token)) in self._clients:
                raise ValueError(f"client {client.name}: the token is another client's, too")
            self._clients[digest] = client

    @property
    def asks_for_tokens(self) -> bool:
        """Whether anybody is declared."""
        return bool(self._clients)

    def whose(self, token: str) -> Client | None:
        """The client that a token is of."""
        shown, found = _digest(token), None
        for digest, client in self._clients.items():
            if hmac.compare_digest(digest, shown):
                found = client
        return found


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogateescape")).digest()


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by the name or address that it is called by."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
