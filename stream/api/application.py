"""Answers requests: routes by what is declared, checks who asks, and writes what was found.

Comes in: `Facts`, a `Feed` and a `Guard`. Goes out: an ASGI application. The loop never waits for the store: users
are looked up many at once in a thread of their own, everything else in a few more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote

import msgspec
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stream import metrics
from stream.access import ANYBODY, Client, Guard, is_loopback
from stream.api.document import document
from stream.api.lookups import Lookups
from stream.api.operations import CSV, EVENTS, OPERATIONS, Operation
from stream.api.pipeline import Facts
from stream.api.problems import Kind, ProblemError, answer
from stream.api.recent import Feed, Kept, Reader, as_events
from stream.errors import BrokerUnavailableError
from stream.insight import queries
from stream.insight.facts import UserFacts
from stream.insight.members import CSV_HEAD, Member, as_csv
from stream.partition import SchemaMismatchError
from stream.store.state import StoreRefusedError, StoreUnavailableError

log = logging.getLogger(__name__)
T = TypeVar("T")

MOST_BODY = 65_536
SLOW_THREADS = 4
TABLES = 2
"""So many tables of members are written at a time; each reads every user."""
BEAT_SECONDS = 15.0
"""A feed with nothing to tell says so this often, so that nobody on the way takes it for dead."""
STUCK_SECONDS = 30.0
"""Who takes nothing at all for this long is gone."""
RETRY = {"Retry-After": "2"}
ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


_ALWAYS = [(name.lower().encode(), value.encode()) for name, value in ALWAYS.items()]


@dataclass(frozen=True)
class Call:
    """A request that was understood, of a client who may ask it."""

    client: Client
    arguments: dict[str, Any]
    body: Any
    headers: dict[str, str]


Answer = Callable[[Call], Awaitable[ASGIApp]]


class Api:
    """Everything that answers; `application` makes it one."""

    def __init__(self, facts: Facts, feed: Feed, guard: Guard) -> None:
        self.facts = facts
        self.feed = feed
        self._guard = guard
        self._quick = ThreadPoolExecutor(1, "lookups")
        self._slow = ThreadPoolExecutor(SLOW_THREADS, "facts")
        self._tables = [ThreadPoolExecutor(1, "table") for _ in range(TABLES)]
        self._lookups: Lookups[UserFacts | None] = Lookups(facts.users, self._quick)
        self._document = msgspec.json.encode(document())

    def close(self) -> None:
        """Threads end with what they have begun."""
        for pool in (self._quick, self._slow, *self._tables):
            pool.shutdown(wait=False, cancel_futures=True)

    async def _find(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._slow, work, *arguments)

    # -- who asks -----------------------------------------------------------------------------

    def client_of(self, headers: dict[str, str]) -> Client:
        """Who asks.

        Raises:
            ProblemError: nobody who may.
        """
        if not self._guard.asks_for_tokens:
            # A page of somebody else's may have given its name this address.
            if not is_loopback(_host_of(headers.get("host", ""))):
                raise ProblemError(
                    Kind.WRONG_HOST, "no api.clients are declared; ask for 127.0.0.1 or localhost"
                )
            return ANYBODY
        kind, _, token = headers.get("authorization", "").partition(" ")
        client = self._guard.whose(token.strip()) if kind.lower() == "bearer" else None
        if client is None:
            raise ProblemError(
                Kind.NO_TOKEN,
                "show the token of a client of api.clients: Authorization: Bearer ...",
                {"WWW-Authenticate": 'Bearer realm="segstream"'},
            )
        return client

    # -- answers, each by the name of its operation -------------------------------------------

    async def user(self, call: Call) -> ASGIApp:
        name = call.arguments["user"]
        found = await self._lookups.find(name)
        if found is None:
            raise queries.unknown(name)
        changes = self.feed.recent.of_user(name, queries.CHANGES_TOLD)
        return _json({**found, "changes": _raw(changes)})

    async def why(self, call: Call) -> ASGIApp:
        return _json(await self._find(self.facts.why, call.arguments["user"]))

    async def user_changes(self, call: Call) -> ASGIApp:
        arguments = call.arguments
        found = self.feed.recent.of_user(arguments["user"], arguments["limit"], crossings=True)
        return self._changes(found)

    async def segments(self, _: Call) -> ASGIApp:
        return _json(await self._find(self.facts.segments))

    async def segment(self, call: Call) -> ASGIApp:
        return _json(await self._find(self.facts.segment, call.arguments["segment"]))

    async def rename(self, call: Call) -> ASGIApp:
        segment, name = call.arguments["segment"], call.body["name"]
        before = await self._find(self.facts.rename, segment, name)
        log.info("%s: segment %d, %r, is called %r", call.client.name, segment, before, name)
        return _json({"segment": segment, "before": before, "name": name})

    async def members(self, call: Call) -> ASGIApp:
        page = await self._find(lambda: self.facts.members(**call.arguments))
        told = None if page.next is None else f"{page.next[0]}-{page.next[1]}"
        return _json({"members": page.members, "next": told})

    async def members_table(self, call: Call) -> ASGIApp:
        if not self._tables:
            raise ProblemError(Kind.UNAVAILABLE, f"{TABLES} tables are being written", RETRY)
        pool = self._tables.pop()
        try:
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(
                pool, lambda: self.facts.members_table(**call.arguments)
            )
            return _Table(found, pool, self._tables)
        except BaseException:
            self._tables.append(pool)
            raise

    async def model(self, _: Call) -> ASGIApp:
        return _json(await self._find(self.facts.model))

    async def lineage(self, _: Call) -> ASGIApp:
        found = await self._find(self.facts.segments)
        records = _raw(self.feed.recent.lineage())
        return _json({"model": found["model"], "lineage": found["lineage"], "records": records})

    async def campaigns(self, _: Call) -> ASGIApp:
        return _json(await self._find(self.facts.campaigns))

    async def campaign(self, call: Call) -> ASGIApp:
        return _json(await self._find(self.facts.campaign, call.arguments["campaign"]))

    async def pause(self, call: Call) -> ASGIApp:
        campaign, paused, by = call.arguments["campaign"], call.body["paused"], call.client.name
        record, partitions = await self._find(
            lambda: self.facts.pause(campaign, paused=paused, by=by)
        )
        log.info("%s: campaign %s, paused: %s", by, campaign, paused)
        return _json({"record": record, "partitions": partitions})

    async def changes(self, call: Call) -> ASGIApp:
        kind, since, limit = (call.arguments[name] for name in ("kind", "since", "limit"))

        def find() -> list[Kept]:
            self.facts.see_kind(kind)
            return self.feed.recent.changes(limit, kind, self.facts.since_ms(since))

        return self._changes(await self._find(find))

    def _changes(self, found: list[Kept]) -> Response:
        return _json({"since": self.feed.recent.since(), "changes": _raw(found)})

    async def change_events(self, call: Call) -> ASGIApp:
        kind = call.arguments["kind"]
        await self._find(self.facts.see_kind, kind)
        return _Events(self.feed, kind, call.headers.get("last-event-id"))

    async def flows(self, call: Call) -> ASGIApp:
        now_ms = await self._find(self.facts.now_ms)
        return _json(self.feed.recent.flows(call.arguments["within"], now_ms))

    async def map(self, call: Call) -> ASGIApp:
        return _json(await self._find(self.facts.map, call.arguments["limit"]))

    async def standing(self, _: Call) -> ASGIApp:
        return _json(await self._find(self.facts.standing, self.feed.state))

    # -- requests -----------------------------------------------------------------------------

    def routes(self) -> list[BaseRoute]:
        """Each path with what may be done there."""
        by_path: dict[str, dict[str, Operation]] = {}
        for operation in OPERATIONS:
            by_path.setdefault(operation.path, {})[operation.method] = operation
        # A path that is written out goes before one that it would fit, too.
        ordered = sorted(by_path.items(), key=lambda item: "{" in item[0])
        return [
            _route("/openapi.json", ["GET"], self._tell_document),
            *(_route(path, list(methods), self._endpoint(methods)) for path, methods in ordered),
        ]

    async def _tell_document(self, _: Request) -> Response:
        return Response(self._document, media_type="application/json")

    def _endpoint(self, by_method: dict[str, Operation]) -> Callable[[Request], Awaitable[ASGIApp]]:
        async def endpoint(request: Request) -> ASGIApp:
            operation, began = by_method[request.method], time.perf_counter()
            try:
                told = await self._answer(operation, request)
            except ClientDisconnect:
                return Response(status_code=400)
            except Exception as error:  # noqa: BLE001 - told as a problem
                told = answer(_problem_of(error))
            status = told.status_code if isinstance(told, Response) else 200
            metrics.api_answered(operation.name, status, time.perf_counter() - began)
            return told

        return endpoint

    async def _answer(self, operation: Operation, request: Request) -> ASGIApp:
        headers = dict(request.headers)
        client = self.client_of(headers)
        if operation.scope not in client.scopes:
            raise ProblemError(
                Kind.NO_SCOPE, f"client {client.name} has no scope {operation.scope.value!r}"
            )
        try:
            path = {
                name: unquote(text, errors="strict") for name, text in request.path_params.items()
            }
            # Without `request.url`, which is put together of much that is not asked for here.
            sent = request.scope["query_string"].decode("latin-1")
            query = parse_qsl(sent, keep_blank_values=True, errors="strict", max_num_fields=20)
        except ValueError:
            raise ProblemError(Kind.BAD_REQUEST, "the address is no UTF-8, or too long") from None
        arguments = operation.read(path, query)
        body = None if operation.body is None else await _body(operation, request)
        answer_it: Answer = getattr(self, operation.name)
        return await answer_it(Call(client, arguments, body, headers))


def application(api: Api, more: Sequence[BaseRoute] = ()) -> ASGIApp:
    """The application.

    Args:
        more: routes that are tried behind those of the API.
    """

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        api.feed.open(asyncio.get_running_loop())
        yield
        api.close()

    inner = Starlette(
        routes=[*api.routes(), *more],
        exception_handlers={HTTPException: _tell_http_error},
        lifespan=lifespan,
    )
    inner.router.redirect_slashes = False
    return _Careful(inner)


class _Careful:
    """Routes by the path as it was sent, so that a / within an id is one, and adds what every answer has."""

    def __init__(self, inner: ASGIApp) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (raw := scope.get("raw_path")):
            scope = dict(scope) | {"path": raw.decode("latin-1")}

        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"]
                there = {name for name, _ in headers}
                more = [one for one in _ALWAYS if one[0] not in there]
                message = dict(message) | {"headers": [*headers, *more]}
            await send(message)

        await self._inner(scope, receive, send_more)


def _route(path: str, methods: list[str], endpoint: Callable[[Request], Any]) -> Route:
    route = Route(path, endpoint, methods=methods)
    if route.methods is not None:
        # Added by itself where GET is; a feed of events has no head that ends.
        route.methods.discard("HEAD")
    return route


async def _tell_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == Kind.WRONG_METHOD.status:
        kind, said = Kind.WRONG_METHOD, f"{request.method} means nothing here"
    else:
        kind, said = Kind.NOT_THERE, "no such path; /openapi.json lists them"
    return answer(ProblemError(kind, said, error.headers or {}))


_PROBLEMS: Sequence[tuple[type[Exception], Kind]] = (
    (queries.UnknownUserError, Kind.NOT_THERE),
    (queries.NoModelError, Kind.NO_MODEL),
    (queries.WrongNameError, Kind.CONFLICT),
    (StoreUnavailableError, Kind.UNAVAILABLE),
    (StoreRefusedError, Kind.UNAVAILABLE),
    (BrokerUnavailableError, Kind.UNAVAILABLE),
    (SchemaMismatchError, Kind.UNAVAILABLE),
)


def _problem_of(error: Exception) -> ProblemError:
    """What is told of an error: nothing of one that nobody foresaw."""
    if isinstance(error, ProblemError):
        return error
    for known, kind in _PROBLEMS:
        if isinstance(error, known):
            if kind is Kind.UNAVAILABLE:
                log.warning("%s", error)
            return ProblemError(kind, str(error), RETRY if kind is Kind.UNAVAILABLE else {})
    log.error("a request cannot be answered: %s", error, exc_info=error)
    return ProblemError(Kind.FAULT)


async def _body(operation: Operation, request: Request) -> Any:
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise ProblemError(Kind.NOT_JSON, "Content-Type: application/json is expected")
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MOST_BODY:
            raise ProblemError(Kind.TOO_LARGE, f"a body has {MOST_BODY:,} bytes at the most")
    try:
        return operation.body_adapter.validate_json(bytes(data))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise ProblemError(Kind.BAD_REQUEST, f"{where}: {first['msg']}") from None


def _host_of(host: str) -> str:
    """A host without its port."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _json(facts: Any) -> Response:
    return Response(msgspec.json.encode(facts), media_type="application/json")


def _raw(records: Sequence[Kept]) -> list[msgspec.Raw]:
    """Records as they are written already."""
    return [msgspec.Raw(kept.data) for kept in records]


class _Table:
    """Writes a table while it is read; its thread is given back at the end."""

    def __init__(
        self, portions: Iterator[list[Member]], pool: ThreadPoolExecutor, free: list[Any]
    ) -> None:
        self._portions = portions
        self._pool: Executor = pool
        self._free = free

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        loop = asyncio.get_running_loop()
        headers = [
            (b"content-type", CSV.encode()),
            (b"content-disposition", b'attachment; filename="members.csv"'),
        ]
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            text = CSV_HEAD
            while text:
                await _send_in_time(send, text.encode())
                portion = await loop.run_in_executor(self._pool, next, self._portions, None)
                text = "" if portion is None else as_csv(portion)
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._free.append(self._pool)


class _Events:
    """Writes changes as they come, to one who follows."""

    def __init__(self, feed: Feed, kind: str | None, last_id: str | None) -> None:
        self._feed = feed
        self._kind = kind
        self._last_id = last_id

    def _wants(self, kept: Kept) -> bool:
        return kept.tells == "change" and self._kind in (None, kept.kind)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reader = self._feed.join(self._wants)
        if reader is None:
            too_many = ProblemError(Kind.UNAVAILABLE, "too many follow already", RETRY)
            await answer(too_many)(scope, receive, send)
            return
        try:
            missed = self._feed.recent.after(self._last_id) if self._last_id else []
            begin = b": changes, as they come\n\n"
            if missed:
                reader.past = missed[-1].number
            elif missed is None:
                begin += b"event: gap\ndata: {}\n\n"
            begin += b"".join(as_events(filter(self._wants, missed or [])))
            headers = [(b"content-type", EVENTS.encode()), (b"x-accel-buffering", b"no")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await _send_in_time(send, begin)
            await self._follow(reader, receive, send)
        except TimeoutError:
            log.info("a reader of the feed has taken nothing for %.0f s", STUCK_SECONDS)
        finally:
            self._feed.leave(reader)

    async def _follow(self, reader: Reader, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(_wait_until_gone(receive))
        gone.add_done_callback(lambda _: reader.wake())
        try:
            while not gone.done() and not self._feed.closed:
                some = await reader.take(BEAT_SECONDS)
                if reader.dropped:
                    said = b": dropped, for too much was waiting; come again with Last-Event-ID\n\n"
                    await _send_in_time(send, said)
                    break
                await _send_in_time(send, b"".join(as_events(some)) or b": nothing new\n\n")
            if not gone.done():
                await send({"type": "http.response.body", "body": b""})
        finally:
            gone.cancel()


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_in_time(send: Send, body: bytes) -> None:
    """Send a piece.

    Raises:
        TimeoutError: whoever it is for takes nothing.
    """
    message = {"type": "http.response.body", "body": body, "more_body": True}
    await asyncio.wait_for(send(message), STUCK_SECONDS)
