"""Awaiting the one connection that a BIND announced (RFC 1928 §4)."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Collection

from mcastsocks.address import Endpoint, IPAddress, from_sockaddr, to_sockaddr

_BACKLOG = 1
_SO_BINDTOIFINDEX = 62  # include/uapi/asm-generic/socket.h
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Awaiter:
    """Listens on a port of the kernel's choosing until closed. `strangers` counts those turned away."""

    def __init__(self, local: IPAddress, expected: Collection[IPAddress], interface: int | None = None) -> None:
        """`expected` are the addresses that may connect, of the version of `local`; `interface` is the index of the
        one that they come and are answered by, whatever the routing table prefers. Raises OSError.
        """
        self._expected = frozenset(expected)
        self.strangers = 0
        self._sock = _listen(local, interface)
        self.endpoint: Endpoint = from_sockaddr(self._sock.getsockname())

    async def accept(self, timeout_s: float) -> tuple[socket.socket, Endpoint]:
        """A non-blocking socket and its peer; nobody else is accepted after it.

        Raises TimeoutError, and OSError when this host has no room for a connection.
        """
        loop = asyncio.get_running_loop()
        came: asyncio.Future[tuple[socket.socket, Endpoint]] = loop.create_future()
        loop.add_reader(self._sock.fileno(), self._take, came)
        try:
            async with asyncio.timeout(timeout_s):
                return await came
        except BaseException:
            if came.done() and not came.cancelled() and came.exception() is None:
                came.result()[0].close()
            raise
        finally:
            self.close()

    def close(self) -> None:
        """Nobody is awaited any more."""
        if self._sock.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._sock.fileno())
            self._sock.close()

    def _take(self, came: asyncio.Future[tuple[socket.socket, Endpoint]]) -> None:
        """One for each wake-up: strangers in numbers hold nobody up."""
        if came.done():
            return
        try:
            sock, sockaddr = self._sock.accept()
        except OSError as error:
            if error.errno in _EXHAUSTED:
                came.set_exception(error)
            return  # else nobody is there any more, or it is that connection's own error (accept(2))
        peer = from_sockaddr(sockaddr)
        if peer.host in self._expected:
            sock.setblocking(False)
            came.set_result((sock, peer))
        else:
            sock.close()
            self.strangers += 1


def _listen(local: IPAddress, interface: int | None) -> socket.socket:
    family = socket.AF_INET if local.version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if interface is not None:
            sock.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, interface)
        sock.bind(to_sockaddr(Endpoint(local, 0)))
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock
