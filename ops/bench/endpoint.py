"""An endpoint for benchmarks, as a process of its own: ``python -m ops.bench.endpoint JSON``.

Comes in: HTTP requests with a ``webhook-id``. Goes out: an answer a while later, on every path but the one that is
dead as long as a file is there; and in the end a JSON file: by path, the id of each request that was answered,
and when it came.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from aiohttp import web

from ops.bench.loops import write


def serve(*, port: int, answer_seconds: float, dead_path: str, dead_file: str, out: str) -> None:
    """Serve until SIGTERM."""
    received: dict[str, list[tuple[str, float]]] = defaultdict(list)

    def is_dead(path: str) -> bool:
        return path == dead_path and Path(dead_file).exists()

    async def take(request: web.Request) -> web.Response:
        at = time.time()
        await request.read()
        if is_dead(request.path):
            # Longer than anybody waits.
            await asyncio.sleep(3_600)
        await asyncio.sleep(answer_seconds)
        received[request.path].append((request.headers["webhook-id"], at))
        return web.Response()

    async def counts(request: web.Request) -> web.Response:
        del request
        return web.json_response({path: len(found) for path, found in received.items()})

    app = web.Application()
    app.router.add_get("/counts", counts)
    app.router.add_post("/{path}", take)
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None, shutdown_timeout=0.1)
    write(Path(out), received)


if __name__ == "__main__":
    arguments: dict[str, Any] = json.loads(sys.argv[1])
    serve(**arguments)
