"""Looks users up, many at once: whoever asks while the store is being asked waits for the next turn.

Comes in: names, each from a request of its own. Goes out: what was found of each. One turn is one exchange with
the store and one pass over the columns, however many ask; alone, nobody waits for anybody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

T = TypeVar("T")

MOST_AT_ONCE = 256


class Lookups(Generic[T]):
    """Belongs to one loop.

    Args:
        find: what there is of each name; called in the pool, never twice at a time.
    """

    def __init__(self, find: Callable[[Sequence[str]], Sequence[T]], pool: Executor) -> None:
        self._find = find
        self._pool = pool
        self._waiting: deque[tuple[str, asyncio.Future[T]]] = deque()
        self._busy = False

    async def find(self, name: str) -> T:
        """What there is of a name.

        Raises:
            Exception: whatever the finding raised, for all of its turn.
        """
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((name, answer))
        if not self._busy:
            self._take_turn()
        return await answer

    def _take_turn(self) -> None:
        count = min(len(self._waiting), MOST_AT_ONCE)
        turn = [self._waiting.popleft() for _ in range(count)]
        # Who has gone away meanwhile is not looked up.
        turn = [(name, answer) for name, answer in turn if not answer.done()]
        self._busy = bool(turn)
        if not turn:
            return
        names = [name for name, _ in turn]
        found = asyncio.get_running_loop().run_in_executor(self._pool, self._find, names)
        found.add_done_callback(lambda done: self._answer(turn, done))

    def _answer(
        self, turn: Sequence[tuple[str, asyncio.Future[T]]], done: asyncio.Future[Sequence[T]]
    ) -> None:
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        for place, (_, answer) in enumerate(turn):
            if answer.done():
                continue
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(done.result()[place])
        self._busy = False
        if self._waiting:
            self._take_turn()
