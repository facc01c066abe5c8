"""A bounded pool of pipes, for the moments in which a stream has octets in one."""

from __future__ import annotations

import sys
from contextlib import suppress

from mcastsocks.server.streams.carriers import Pipe

PIPE_OCTETS = 1 << 20
"""/proc/sys/fs/pipe-max-size, what Linux grants without a privilege; it takes half the CPU of the usual 64 KiB."""


class PipePool:
    """At most `most` pipes at once, in use or waiting; the last one given back, warm in the cache, goes out first."""

    def __init__(self, most: int, octets: int = PIPE_OCTETS) -> None:
        self._most = most if sys.platform == "linux" else 0
        self._octets = octets
        self._waiting: list[Pipe] = []
        self._made = 0

    @property
    def made(self) -> int:
        return self._made

    @property
    def in_use(self) -> int:
        return self._made - len(self._waiting)

    def take(self) -> Pipe | None:
        """An empty pipe; None when all are in use, or the kernel grants no more (fs.pipe-user-pages-soft)."""
        if self._waiting:
            return self._waiting.pop()
        if self._made < self._most:
            with suppress(OSError):
                pipe = Pipe(self._octets)
                self._made += 1
                return pipe
        return None

    def give_back(self, pipe: Pipe) -> None:
        """One that still holds octets is closed: no other stream may find them."""
        if pipe.held:
            pipe.close()
            self._made -= 1
        else:
            self._waiting.append(pipe)

    def close(self) -> None:
        """Those that wait. Whoever uses one gives it back first."""
        while self._waiting:
            self._waiting.pop().close()
            self._made -= 1
