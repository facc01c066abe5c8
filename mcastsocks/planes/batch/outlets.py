"""The outside sockets by number: which of them have something, and which remotes each of them expects."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mcastsocks.address import SockAddr
from mcastsocks.planes.batch.layouts import Ints, Words
from mcastsocks.planes.batch.sockaddrs import words_of
from mcastsocks.planes.batch.sums import sums
from mcastsocks.planes.loop import unwatch, watch
from mcastsocks.planes.outsides import OutsideSocket
from mcastsocks.tables.changes import Traffic

_AT_ONCE = 64
"""No more than planes.batch.vector.BUFFERS: each socket takes one buffer at least."""

_NOT_FAMILY = np.array(0xFFFF_FFFF_FFFF_0000, np.uint64)
"""Of an IPv4 address' first word: the family's bits have room for a socket's number."""

NOBODY = -1


class Outlets:
    """Watched by an epoll of their own, so that many are drained in one pass; `failed` is told where errors wait."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        drain: Callable[[list[OutsideSocket]], None],
        failed: Callable[[OutsideSocket], None],
    ) -> None:
        self._loop, self._drain, self._failed = loop, drain, failed
        self._epoll = select.epoll()
        self._open: list[OutsideSocket | None] = []
        self._free: list[int] = []
        self._numbers: dict[socket.socket, int] = {}
        self._by_fd: dict[int, OutsideSocket] = {}
        self._expected: dict[int | tuple[int, bytes], int] = {}
        watch(loop, self._epoll.fileno(), self._wake)

    def __getitem__(self, number: int) -> OutsideSocket:
        outside = self._open[number]
        assert outside is not None
        return outside

    def traffic(self, number: int) -> Traffic:
        """Of the UDP ASSOCIATE whose socket it is."""
        associated = self[number].associated
        assert associated is not None
        return associated.traffic

    def count_dropped(self, numbers: Ints | NDArray[np.int32]) -> None:
        """Datagrams of UDP ASSOCIATEs, by their sockets: an element for each."""
        for number, datagrams, _ in sums(numbers, np.zeros(len(numbers), np.int64)):
            self.traffic(number).dropped_datagrams += datagrams

    def number(self, sock: socket.socket) -> int:
        return self._numbers[sock]

    def add(self, outside: OutsideSocket) -> None:
        if self._free:
            number = self._free.pop()
            self._open[number] = outside
        else:
            number = len(self._open)
            self._open.append(outside)
        self._numbers[outside.sock] = number
        self._by_fd[outside.sock.fileno()] = outside
        self._epoll.register(outside.sock.fileno(), select.EPOLLIN)

    def remove(self, outside: OutsideSocket) -> None:
        """Nobody expects anything there any more."""
        number = self._numbers.pop(outside.sock)
        self._open[number] = None
        self._free.append(number)
        fd = outside.sock.fileno()
        del self._by_fd[fd]
        self._epoll.unregister(fd)

    def close(self) -> None:
        unwatch(self._loop, self._epoll.fileno())
        self._epoll.close()

    def expect(self, number: int, remote: SockAddr, row: int | None) -> None:
        """Whose a datagram from exactly there is; None: nobody's."""
        words = words_of(remote)
        key: int | tuple[int, bytes] = (number, words.tobytes())
        if len(remote) == 2:
            key = int(words[0] & _NOT_FAMILY) | number
        if row is None:
            self._expected.pop(key, None)
        else:
            self._expected[key] = row

    def lookup(self, version: int, numbers: Ints, sources: Words) -> Ints:
        """The row for each datagram that came in at a socket from a source; NOBODY where only its host may fit."""
        get = self._expected.get
        if version == 4:
            keys = ((sources[:, 0] & _NOT_FAMILY) | numbers.astype(np.uint64)).tolist()
            return np.array([get(key, NOBODY) for key in keys], np.int64)
        octets, width = sources.tobytes(), sources.shape[1] * 8
        each = (octets[start : start + width] for start in range(0, len(octets), width))
        return np.array([get(key, NOBODY) for key in zip(numbers.tolist(), each, strict=True)], np.int64)

    def _wake(self) -> None:
        ready = self._epoll.poll(0, _AT_ONCE)
        for fd, events in ready:
            if events & select.EPOLLERR and fd in self._by_fd:
                self._failed(self._by_fd[fd])
        self._drain([self._by_fd[fd] for fd, _ in ready if fd in self._by_fd])
