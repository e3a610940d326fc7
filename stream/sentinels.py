"""Reads the address of Sentinels, which is one of several servers and a name.

Comes in: text such as ``redis://user:password@host-1:26379,host-2:26379/shop``. Goes out: its parts.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote, urlsplit

SENTINEL_PORT = 26_379


class SentinelAddress(NamedTuple):
    """Where Sentinels are, and whom they are asked about.

    Attributes:
        master: name by which they know it.
        username, password: of the Sentinels; None for none.
        tls: whether they speak it.
    """

    hosts: tuple[tuple[str, int], ...]
    master: str
    username: str | None
    password: str | None
    tls: bool


def sentinel_address(text: str) -> SentinelAddress:
    """The parts of an address.

    Raises:
        ValueError: it is none.
    """
    parts = urlsplit(text)
    before, _, servers = parts.netloc.rpartition("@")
    username, colon, password = before.partition(":")
    master = unquote(parts.path.strip("/"))
    hosts = []
    for server in servers.split(","):
        host, _, port = server.rpartition(":") if server.rpartition(":")[0] else (server, "", "")
        hosts.append((host.strip("[]"), int(port or SENTINEL_PORT)))
    well = parts.scheme in {"redis", "rediss"} and master and not (parts.query or parts.fragment)
    if not well or not all(host and 0 < port < 1 << 16 for host, port in hosts):
        raise ValueError(text)
    return SentinelAddress(
        tuple(hosts),
        master,
        unquote(username) or None,
        unquote(password) if colon else None,
        parts.scheme == "rediss",
    )
