"""One direction of a stream: what one socket has goes to the other, as fast as that takes it."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Protocol

from mcastsocks.server.streams.carriers import Carrier, Copy, Pipe
from mcastsocks.server.streams.pipes import PipePool

SPLICE_AFTER = 1 << 20
"""Octets moved in one direction before it is worth a pipe: most streams are shorter."""


class Watcher(Protocol):
    """Whoever runs both directions of a stream."""

    def moved(self, direction: Direction, octets: int) -> None:
        """The sink's kernel took them."""

    def ended(self, direction: Direction) -> None:
        """All octets were passed on, and the end of the stream too."""

    def failed(self, sock: socket.socket, error: OSError) -> None:
        """One of the sockets is of no use any more."""


class Direction:
    """A round for every wake-up: fill a carrier, drain it. Nothing is read while one still holds octets, and a pipe is
    kept no longer than that: a few serve many streams, and each round may go by pipe or by copy.
    """

    def __init__(
        self, source: socket.socket, sink: socket.socket, copy: Copy, pipes: PipePool, watcher: Watcher
    ) -> None:
        """`copy` may hold octets already: they go first."""
        self.source, self.sink = source, sink
        self.over = False
        self._copy, self._pipes, self._watcher = copy, pipes, watcher
        self._carrier: Carrier = copy
        self._moved = 0
        self._loop = asyncio.get_running_loop()
        self._awaited: socket.socket | None = None

    def start(self) -> None:
        self._await(self.sink if self._carrier.held else self.source)

    def close(self) -> None:
        """Watch and hold nothing any more; the sockets stay open."""
        self._await(None)
        self._release()

    def _await(self, sock: socket.socket | None) -> None:
        """The source's octets, the sink's room, or neither. By number: for each socket that is not watched already
        asyncio makes a text of it, with two system calls.
        """
        if self._awaited is self.source:
            self._loop.remove_reader(self.source.fileno())
        elif self._awaited is self.sink:
            self._loop.remove_writer(self.sink.fileno())
        self._awaited = sock
        if sock is self.source:
            self._loop.add_reader(sock.fileno(), self._round)
        elif sock is self.sink:
            self._loop.add_writer(sock.fileno(), self._go_on)

    def _round(self) -> None:
        try:
            octets = self._fill()
        except BlockingIOError:
            pass
        except OSError as error:
            self._release()
            self._watcher.failed(self.source, error)
        else:
            if octets == 0:
                self._end()
            elif not self._drain():
                self._await(self.sink)

    def _fill(self) -> int:
        """Octets taken, 0 at the end of the stream. By copy too when a pipe gets none: splice stops before an urgent
        octet, where it finds either nothing for ever or, when the peer has closed, the end too soon.
        """
        pipe = self._pipes.take() if self._moved >= SPLICE_AFTER else None
        if pipe is not None:
            self._carrier = pipe
            with suppress(BlockingIOError):
                if octets := pipe.fill(self.source):
                    return octets
            self._release()
        return self._copy.fill(self.source)

    def _go_on(self) -> None:
        """The sink that could not take all of a round has room again."""
        if self._drain():
            self._await(self.source)

    def _drain(self) -> bool:
        """Whether the carrier is empty again."""
        try:
            octets = self._carrier.drain(self.sink)
        except OSError as error:
            self._watcher.failed(self.sink, error)
            return False
        self._moved += octets
        self._watcher.moved(self, octets)
        if self._carrier.held:
            return False
        self._release()
        return True

    def _end(self) -> None:
        self.close()
        try:
            self.sink.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._watcher.failed(self.sink, error)
        else:
            self.over = True
            self._watcher.ended(self)

    def _release(self) -> None:
        if isinstance(self._carrier, Pipe):
            self._pipes.give_back(self._carrier)
        self._carrier = self._copy
