"""Where join writes to: standard output or a player."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections import deque
from contextlib import suppress
from typing import Protocol

from mcastsocks.address import Endpoint
from mcastsocks.cli import targets
from mcastsocks.cli.targets import Format, Player
from mcastsocks.client import Datagram
from mcastsocks.errors import RelayError

_QUEUED_OCTETS = 16 << 20
_ENTRY_OCTETS = 128
"""What an entry of the queue costs besides its octets: empty datagrams take room too."""
_LAST_WRITE_S = 1.0


class Output(Protocol):
    """Counts what it took, and what of that was written whole."""

    taken: int
    written: int
    written_octets: int

    def write(self, group: Endpoint, datagram: Datagram) -> None:
        """Raises OSError or RelayError when nothing can be written any more."""

    async def finish(self) -> None:
        """Wait until everything is written. Raises as `write` does."""

    async def close(self) -> None:
        """Write what can be written soon."""


class PlayerOutput:
    """Datagrams to an address."""

    def __init__(self, player: Player) -> None:
        self._sockaddr = player.sockaddr
        self._sock = socket.socket(player.family, socket.SOCK_DGRAM)
        self.taken = self.written = self.written_octets = 0

    def write(self, group: Endpoint, datagram: Datagram) -> None:
        self.taken += 1
        try:
            self._sock.sendto(datagram.data, self._sockaddr)
        except OSError as error:
            raise RelayError(f"--to: nothing can be sent there: {error.strerror}") from None
        self.written += 1
        self.written_octets += len(datagram.data)

    async def finish(self) -> None:
        pass

    async def close(self) -> None:
        self._sock.close()


class FileOutput:
    """A descriptor behind a bounded queue and a thread of its own, so that a reader that stalls stops nothing else.

    When the queue is full the oldest go. The thread is a daemon and writes by os.write: blocked in a stream, it would
    hold a lock that the interpreter wants when it exits.
    """

    def __init__(self, descriptor: int, form: Format, queued_octets: int = _QUEUED_OCTETS) -> None:
        self._descriptor, self._form = descriptor, form
        self._room = queued_octets
        self._queue: deque[tuple[bytes, int]] = deque()
        self._changed = threading.Condition()
        self._ends = False
        self._error: OSError | None = None
        self._loop = asyncio.get_running_loop()
        self._finished = asyncio.Event()
        self.taken = self.written = self.written_octets = 0
        threading.Thread(target=self._run, name="output", daemon=True).start()

    def write(self, group: Endpoint, datagram: Datagram) -> None:
        source = {"source": str(datagram.source)} if datagram.source is not None else {}
        octets = targets.encode(datagram.data, self._form, group=str(group.host), port=group.port, **source)
        with self._changed:
            if self._error is not None:
                raise self._error
            self.taken += 1
            self._queue.append((octets, len(datagram.data)))
            self._room -= _cost(octets)
            while self._room < 0:
                self._room += _cost(self._queue.popleft()[0])
            self._changed.notify()

    async def finish(self) -> None:
        with self._changed:
            self._ends = True
            self._changed.notify()
        await self._finished.wait()
        if self._error is not None:
            raise self._error

    async def close(self) -> None:
        with suppress(OSError):  # a TimeoutError is one, and what cannot be written has been told by then
            async with asyncio.timeout(_LAST_WRITE_S):
                await self.finish()

    def _run(self) -> None:
        try:
            while (entry := self._next()) is not None:
                octets, data_octets = entry
                rest = memoryview(octets)
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
                self.written += 1
                self.written_octets += data_octets
        except OSError as error:
            with self._changed:
                self._error = error
        with suppress(RuntimeError):  # the loop did not wait for us
            self._loop.call_soon_threadsafe(self._finished.set)

    def _next(self) -> tuple[bytes, int] | None:
        """The oldest entry, when there is one; None when there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._ends)
            if not self._queue:
                return None
            octets, data_octets = self._queue.popleft()
            self._room += _cost(octets)
            return octets, data_octets


def _cost(octets: bytes) -> int:
    return len(octets) + _ENTRY_OCTETS
