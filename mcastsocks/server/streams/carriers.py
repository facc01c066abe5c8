"""What octets cross the relay in: a copy in this program's memory, or a pipe that the kernel moves them to."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
from typing import Protocol

COPY_OCTETS = 1 << 17
"""As many as a round copies before others, and datagrams, get their turn; a spliced round moves up to a pipe's. Half of
it costs a third more CPU (benchmarks/streams), twice as much gains little and lets slow readers hold twice as much.
"""

_FLAGS = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE if sys.platform == "linux" else 0


class Carrier(Protocol):
    """Filled only when empty. Errors are those of the socket at hand."""

    @property
    def held(self) -> int:
        """Octets taken and not yet given."""

    def fill(self, source: socket.socket) -> int:
        """Take what a socket has; 0 at the end of its stream. Raises BlockingIOError when there is nothing, OSError."""

    def drain(self, sink: socket.socket) -> int:
        """Give a socket what it takes of what is held, 0 when it takes nothing now. Raises OSError."""


class Copy:
    """Copies through a buffer that all streams of a loop share; what a slow sink leaves is kept aside."""

    __slots__ = ("_buffer", "_rest")

    def __init__(self, buffer: memoryview, early: bytes = b"") -> None:
        self._buffer = buffer
        self._rest = memoryview(early)

    @property
    def held(self) -> int:
        return len(self._rest)

    def fill(self, source: socket.socket) -> int:
        octets = source.recv_into(self._buffer)
        self._rest = self._buffer[:octets]
        return octets

    def drain(self, sink: socket.socket) -> int:
        try:
            sent = sink.send(self._rest)
        except BlockingIOError:
            sent = 0
        self._rest = self._rest[sent:]
        if self._rest and self._rest.obj is self._buffer.obj:
            self._rest = memoryview(bytes(self._rest))  # the next stream's octets go into the buffer
        return sent


class Pipe:
    """A pipe and the octets in it; empty when filled, as else "nothing to read" and "no room" would look the same."""

    __slots__ = ("_octets", "_read", "_write", "held")

    def __init__(self, octets: int) -> None:
        """Raises OSError: no descriptors, or the user's pipes have all the pages that they may."""
        self.held = 0
        self._octets = octets
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.fcntl(self._write, fcntl.F_SETPIPE_SZ, octets)
        except OSError:
            self.close()
            raise

    def fill(self, source: socket.socket) -> int:
        self.held = os.splice(source.fileno(), self._write, self._octets, flags=_FLAGS)
        return self.held

    def drain(self, sink: socket.socket) -> int:
        try:
            moved = os.splice(self._read, sink.fileno(), self.held, flags=_FLAGS)
        except BlockingIOError:
            return 0
        self.held -= moved
        return moved

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)
