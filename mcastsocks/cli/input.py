"""What send reads from: standard input, in portions."""

from __future__ import annotations

import asyncio
import os

_READ_OCTETS = 65_536


class Input:
    """A descriptor cut into lines, or into portions of so many octets; the last may be shorter.

    It is read when the loop says that it can be, and not in a thread: nothing could end that thread while it waits.
    """

    def __init__(self, descriptor: int, octets: int | None = None) -> None:
        self._descriptor, self._octets = descriptor, octets
        self.has_lines = octets is None
        self._read = bytearray()
        self._ended = False

    async def next(self) -> bytes:
        """The next portion, a line with its end; empty when there is none any more."""
        searched = 0
        while not (end := self._end(searched)) and not self._ended:
            searched = len(self._read)
            await self._readable()
            octets = os.read(self._descriptor, _READ_OCTETS)
            self._read += octets
            self._ended = not octets
        portion = bytes(self._read[: end or len(self._read)])
        del self._read[: len(portion)]
        return portion

    def _end(self, searched: int) -> int:
        """Where the first portion ends; 0 while it is not whole."""
        if self._octets is None:
            return self._read.find(b"\n", searched) + 1
        return self._octets if len(self._read) >= self._octets else 0

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        try:
            loop.add_reader(self._descriptor, ready.set)
        except PermissionError:  # epoll takes no regular file, which is always ready
            await asyncio.sleep(0)
            return
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._descriptor)
