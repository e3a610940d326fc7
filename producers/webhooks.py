"""Sends triggers to endpoints over HTTP: one request an attempt, signed, with one answer each.

Comes in: attempts that are due (`stream.webhooks.queue`). Goes out: requests, and what each came to. When
to try again, and whether, is not decided here.

Names are resolved at each attempt, and the request goes to an address that was looked at: a name cannot
change its meaning between the look and the call. Attempts of an endpoint that come while its name is being
resolved share the answer. Redirects are not followed, proxies of the environment
not used, and of an answer no more is read than it takes to use the connection again.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Self

import aiohttp
from standardwebhooks import Webhook
from yarl import URL

from producers.addresses import refusal
from stream import masking
from stream.webhooks.bodies import body
from stream.webhooks.declare import SIGNED, Endpoint
from stream.webhooks.queue import Attempt
from stream.webhooks.schedule import Answer

log = logging.getLogger(__name__)

ANSWER_BYTES = 65_536
"""Of an answer's body that are read; the connection of one that goes on is closed."""
KEEP_SECONDS = 30.0
"""A connection that nobody has used for this long is closed."""
MOST_SAID = 200
"""Letters of an error that are told: it may quote what the endpoint has said."""
MOST_ADDRESSES = 3
"""Of a name, which are tried until one can be connected to."""

Done = Callable[[str, Answer], None]
"""Is told the key of an attempt and what it came to; called from another thread."""
Resolve = Callable[[str, int], Coroutine[Any, Any, Sequence[str]]]


class RefusedAddressError(Exception):
    """The name leads to an address that may not be called."""


@dataclass(frozen=True)
class _Target:
    """What is known of an endpoint before any attempt.

    Attributes:
        address: the one in the URL; None where it has a name.
        name: that the certificate must be of; None without TLS, or where it is of the address.
        headers: of every request.
    """

    url: URL
    host: str
    port: int
    address: str | None
    name: str | None
    headers: Mapping[str, str]

    @staticmethod
    def of(endpoint: Endpoint) -> _Target:
        url = URL(endpoint.url, encoded=True)
        host = url.host or ""
        is_address = _is_address(host)
        # The certificate is to be of the name, whatever address it leads to. A name that ends in a dot
        # is the same name, and no certificate has it.
        name = None if url.scheme == "http" or is_address else host.rstrip(".")
        headers = {
            # The address in the URL of a request is the one that was looked at.
            "host": url.host_port_subcomponent or host,
            "user-agent": "segstream",
            "accept-encoding": "identity",
        }
        return _Target(url, host, url.port or 0, host if is_address else None, name, headers)


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a name, the best first."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


class Sender:
    """Makes attempts, in a thread of its own; a context manager that ends them.

    Args:
        secrets: by endpoint, as `declare.secrets_of` gives them.
        source: of triggers as CloudEvents.
        resolved: gives the addresses of a name.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        secrets: Mapping[str, Sequence[str]],
        source: str,
        resolved: Resolve = resolve,
    ) -> None:
        self._endpoints = endpoints
        self._secrets = secrets
        self._source = source
        self._resolve = resolved
        self._targets = {one.name: _Target.of(one) for one in endpoints}
        self._lookups: dict[str, asyncio.Task[Sequence[str]]] = {}
        self._signers = {
            one.name: [Webhook(secret) for secret in secrets[one.name]]
            for one in endpoints
            if one.format in SIGNED
        }
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="webhooks sender", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def send(self, attempts: Sequence[Attempt], done: Done) -> None:
        """Begin attempts; returns at once."""
        self._loop.call_soon_threadsafe(self._begin, attempts, done)

    # -- in the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        self._loop.run_forever()

    def _begin(self, attempts: Sequence[Attempt], done: Done) -> None:
        for attempt in attempts:
            task = self._loop.create_task(self._attempt(attempt, done))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _open(self) -> None:
        # A name that nobody resolves holds up one thread, and so no other endpoint.
        self._loop.set_default_executor(ThreadPoolExecutor(max(len(self._endpoints), 1)))
        # Authorities of the system's, or those that SSL_CERT_FILE names.
        context = ssl.create_default_context()
        for one in self._endpoints:
            self._sessions[one.name] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0, ssl=context, use_dns_cache=False, keepalive_timeout=KEEP_SECONDS
                ),
                # An attempt has one limit over all its parts.
                timeout=aiohttp.ClientTimeout(total=None, connect=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )

    async def _close(self) -> None:
        ending = [*self._tasks, *self._lookups.values()]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        for session in self._sessions.values():
            await session.close()

    async def _attempt(self, attempt: Attempt, done: Done) -> None:
        seconds = attempt.endpoint.timeout
        try:
            async with asyncio.timeout(seconds):
                answer = await self._ask(attempt)
        except TimeoutError:
            answer = Answer(None, error=f"no answer in {seconds:g} s")
        except (aiohttp.ClientError, OSError, RefusedAddressError) as error:
            # By itself the first tells the whole URL, in which some receivers want a token.
            whole = error.message if isinstance(error, aiohttp.ClientResponseError) else str(error)
            said = " ".join(masking.mask(whole).split())[:MOST_SAID]
            answer = Answer(None, error=f"{type(error).__name__}: {said}" if said else "no answer")
        except Exception as error:
            # Without an answer the delivery would be under way for ever.
            log.exception(
                "%s: an attempt failed in a way that is not foreseen", attempt.endpoint.name
            )
            answer = Answer(None, error=type(error).__name__)
        done(attempt.key, answer)

    async def _ask(self, attempt: Attempt) -> Answer:
        endpoint = attempt.endpoint
        target = self._targets[endpoint.name]
        addresses = (await self._addresses(endpoint.name, target))[:MOST_ADDRESSES]
        for address in addresses:
            if why := refusal(address, private=endpoint.private):
                raise RefusedAddressError(why)
        headers, content = self._request(attempt, target)
        while True:
            try:
                return await self._answer(
                    endpoint, target.url.with_host(addresses[0]), headers, content, target.name
                )
            except aiohttp.ClientConnectorError:
                addresses = addresses[1:]
                if not addresses:
                    raise

    async def _addresses(self, endpoint: str, target: _Target) -> Sequence[str]:
        if target.address is not None:
            return [target.address]
        lookup = self._lookups.get(endpoint)
        if lookup is None:

            async def look_up() -> Sequence[str]:
                try:
                    return await self._resolve(target.host, target.port)
                finally:
                    del self._lookups[endpoint]

            lookup = self._lookups[endpoint] = self._loop.create_task(look_up())
            # Whoever waits for it may have given up.
            lookup.add_done_callback(lambda done: done.cancelled() or done.exception())
        # An attempt that is too late must not take the others' answer with it.
        return await asyncio.shield(lookup)

    async def _answer(
        self,
        endpoint: Endpoint,
        url: URL,
        headers: dict[str, str],
        content: bytes,
        name: str | None,
    ) -> Answer:
        async with self._sessions[endpoint.name].post(
            url, data=content, headers=headers, allow_redirects=False, server_hostname=name
        ) as response:
            read = 0
            async for part in response.content.iter_any():
                read += len(part)
                if read > ANSWER_BYTES:
                    response.close()
                    break
            return Answer(response.status, response.headers.get("retry-after", ""))

    def _request(self, attempt: Attempt, target: _Target) -> tuple[dict[str, str], bytes]:
        endpoint, trigger = attempt.endpoint, attempt.trigger
        made = body(endpoint.format, trigger, self._secrets[endpoint.name], self._source)
        headers = {**target.headers, **made.headers}
        if endpoint.name in self._signers:
            now = datetime.now(UTC)
            headers["webhook-id"] = trigger["id"]
            headers["webhook-timestamp"] = str(int(now.timestamp()))
            if signers := self._signers[endpoint.name]:
                text = made.content.decode()
                signed = [one.sign(trigger["id"], now, text) for one in signers]
                headers["webhook-signature"] = " ".join(signed)
        return headers, made.content


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
