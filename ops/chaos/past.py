"""A store that remembers how it was, and can be put back to that.

Comes in: what the store writes to its append-only file. Goes out: `StoreWithPast`, which after a
kill has exactly what it had written some seconds before.

An append-only file only grows, so how it was is known by its size. When Redis rewrites it, the files
get new names; hard links keep the old ones for as long as they may be wanted. Whatever is cut off in
the midst of a transaction, Redis drops when it loads the file: so the store is as after some whole
transaction, like one that lost what it had not yet synced.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from stream.servers import LocalStore

LOOK_SECONDS = 0.1
KEEP_SECONDS = 90.0
"""Far beyond the oldest copy that anybody asks for."""


@dataclass(frozen=True)
class _Moment:
    """What the append-only files were: where they are kept, and their sizes then.

    Attributes:
        lived: seconds that the store had lived through by then.
    """

    lived: float
    kept: Path
    sizes: dict[str, int]


class StoreWithPast(LocalStore):
    """A store with an append-only file whose growth is watched; see `stream.servers.Server`.

    Attributes:
        put_back_to: what it had lived through when it was last put back; None if it never was.
    """

    def __init__(self, *, binary: Path | None, port: int) -> None:
        super().__init__(binary=binary, appendonly=True, port=port)
        self._moments: list[_Moment] = []
        self._born = time.monotonic()
        self.put_back_to: float | None = None
        self._generation = 0
        self._known: tuple[bytes, tuple[int, ...]] = (b"", ())
        self._watching = threading.Lock()
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="store's past", daemon=True)

    def start(self) -> None:
        super().start()
        if not self._watcher.is_alive():
            self._watcher.start()

    def close(self) -> None:
        self._ended.set()
        if self._watcher.is_alive():
            self._watcher.join()
        super().close()

    def kill_and_put_back(self, seconds: float) -> float:
        """Kill it, and leave on disk what was there some seconds before.

        Returns:
            By how many seconds it went back; less than wanted if it has no older past.
        """
        with self._watching:
            self.stop(kill=True)
            lived = self.lived()
            older = [moment for moment in self._moments if moment.lived <= lived - seconds]
            moment = older[-1] if older else self._moments[0]
            shutil.rmtree(self._files)
            self._files.mkdir()
            for name, size in moment.sizes.items():
                with (moment.kept / name).open("rb") as old, (self._files / name).open("wb") as new:
                    shutil.copyfileobj(old, new, 1 << 20)
                    new.truncate(size)
            # What came after it has not happened.
            self._moments = [one for one in self._moments if one.lived <= moment.lived]
            self._born += lived - moment.lived
            self.put_back_to = moment.lived
        return lived - moment.lived

    def lived(self) -> float:
        """Seconds that it has lived through; what was taken back was not lived."""
        return time.monotonic() - self._born

    @property
    def _files(self) -> Path:
        return self.directory / "appendonlydir"

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            # While Redis rewrites, a file may be gone between two looks: the next look is complete.
            with self._watching, contextlib.suppress(FileNotFoundError):
                self._look()

    def _look(self) -> None:
        manifest = self._files / "appendonly.aof.manifest"
        told = manifest.read_bytes()
        # Each line: file NAME seq NUMBER type KIND
        names = [line.split()[1].decode() for line in told.splitlines() if line.strip()]
        files = [manifest, *(self._files / name for name in names)]
        stats = [file.stat() for file in files]
        identity = (told, tuple(stat.st_ino for stat in stats))
        if identity != self._known:
            self._generation += 1
            kept = self._kept
            kept.mkdir(parents=True)
            for file in files:
                os.link(file, kept / file.name)
            self._known = identity
        lived = self.lived()
        sizes = {file.name: stat.st_size for file, stat in zip(files, stats, strict=True)}
        self._moments.append(_Moment(lived, self._kept, sizes))
        self._forget(lived - KEEP_SECONDS)

    @property
    def _kept(self) -> Path:
        return self.directory / "past" / str(self._generation)

    def _forget(self, before: float) -> None:
        wanted = [moment for moment in self._moments if moment.lived >= before]
        for kept in {m.kept for m in self._moments} - {m.kept for m in wanted} - {self._kept}:
            shutil.rmtree(kept)
        self._moments = wanted
