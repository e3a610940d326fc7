"""Stands between roles and their servers, and lets connections go wrong.

Comes in: where to listen and whom to connect to. Goes out: `Proxy`, whose links can be cut, slowed
and held. All links live in one thread with an event loop of its own; its methods may be called from
any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from enum import IntEnum
from functools import partial
from typing import Self

CHUNK_BYTES = 1 << 16
LINGER_SECONDS = 1.0
"""After one side of a connection has ended, for what is on its way to the other."""


class Way(IntEnum):
    """Which way bytes go."""

    TO_SERVER = 0
    TO_CLIENT = 1


class Link:
    """Everything that goes through one port of the proxy."""

    def __init__(self, name: str, port: int, server_port: int) -> None:
        self.name = name
        self.port = port
        self.delay_seconds = 0.0
        self._server_port = server_port
        self._passes = (asyncio.Event(), asyncio.Event())
        for event in self._passes:
            event.set()
        self._writers: set[asyncio.StreamWriter] = set()

    def hold(self, *ways: Way) -> None:
        """Pass nothing on; what comes meanwhile is kept."""
        for way in ways:
            self._passes[way].clear()

    def release(self) -> None:
        """Pass on what was held, and everything from now on."""
        for event in self._passes:
            event.set()

    def cut(self) -> None:
        """Reset every connection, with what it holds."""
        while self._writers:
            writer = self._writers.pop()
            # Without lingering, to close is to reset.
            found: socket.socket = writer.get_extra_info("socket")
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on until either side ends it."""
        self._writers.add(writer)
        upstream: asyncio.StreamWriter | None = None
        try:
            answers, upstream = await asyncio.open_connection("127.0.0.1", self._server_port)
            self._writers.add(upstream)
            pumps = [
                asyncio.ensure_future(self._pump(reader, upstream, Way.TO_SERVER)),
                asyncio.ensure_future(self._pump(answers, writer, Way.TO_CLIENT)),
            ]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            # One side has ended; the other may still take what lies here.
            _, others = await asyncio.wait(pumps, timeout=LINGER_SECONDS)
            for pump in others:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass  # Nobody listens there: to the client, as if nobody did here.
        finally:
            for one in (writer, upstream):
                if one is not None:
                    self._writers.discard(one)
                    one.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                if self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                await self._passes[way].wait()
                writer.write(data)
                await writer.drain()
            await self._passes[way].wait()
            writer.write_eof()


class Proxy:
    """Links by name; a context manager.

    A name with others below it, ``a`` of ``a/b`` and ``a/c``, stands for all of them.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._links: dict[str, Link] = {}
        self._servers: list[asyncio.Server] = []

    def link(self, name: str, port: int, server_port: int) -> Link:
        """Listen on a port for connections that go to a server's port."""

        async def listen() -> Link:
            link = Link(name, port, server_port)
            self._servers.append(await asyncio.start_server(link.serve, "127.0.0.1", port))
            return link

        self._links[name] = found = asyncio.run_coroutine_threadsafe(listen(), self._loop).result()
        return found

    def cut(self, name: str) -> None:
        for link in self._named(name):
            self._do(link.cut)

    def delay(self, name: str, seconds: float) -> None:
        """Whatever comes takes this much longer, each way; 0 ends it."""
        for link in self._named(name):
            link.delay_seconds = seconds

    def hold(self, name: str, *ways: Way) -> None:
        for link in self._named(name):
            self._do(partial(link.hold, *ways))

    def release(self, name: str) -> None:
        for link in self._named(name):
            self._do(link.release)

    def _named(self, name: str) -> list[Link]:
        return [
            link
            for found, link in self._links.items()
            if found == name or found.startswith(f"{name}/")
        ]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        async def end() -> None:
            for server in self._servers:
                server.close()
            for link in self._links.values():
                link.delay_seconds = 0.0
                link.release()
                link.cut()
            # With their connections gone, they end by themselves.
            if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(tasks)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, what: Callable[[], None]) -> None:
        """In the loop's thread, and wait for it."""
        done = threading.Event()

        def run() -> None:
            try:
                what()
            finally:
                done.set()

        self._loop.call_soon_threadsafe(run)
        done.wait()
