"""A listening TCP socket: accepts, sets what detects a dead client, hands over."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

from mcastsocks.address import Endpoint, to_sockaddr
from mcastsocks.errors import ConfigError

_BACKLOG = 512
_TRANSIENT = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_PAUSE_S = 0.1


class Listener:
    """Calls `accepted` with every connection until it is closed."""

    def __init__(self, endpoint: Endpoint, dead_client_s: int, accepted: Callable[[socket.socket], None]) -> None:
        """Raises ConfigError when the address or port cannot be had."""
        self.endpoint = endpoint
        self._dead_client_s = dead_client_s
        self._accepted = accepted
        self._sock = _listen(endpoint)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(self._sock)
            except OSError as error:
                if error.errno in _TRANSIENT:
                    await asyncio.sleep(_PAUSE_S)
                continue  # or the client went before we took it
            detect_dead_client(sock, self._dead_client_s)
            self._accepted(sock)

    def close(self) -> None:
        self._sock.close()


def detect_dead_client(sock: socket.socket, seconds: int) -> None:
    """Have the kernel end a connection whose client is silent to everything for about that long.

    Keepalive finds a client that went while nothing was owed to it, TCP_USER_TIMEOUT one that went owing an
    acknowledgement; with the latter set, keepalive gives up by time too and not by its count of probes.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, seconds // 3))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, seconds // 6))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _listen(endpoint: Endpoint) -> socket.socket:
    family = socket.AF_INET if endpoint.address.version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(to_sockaddr(endpoint))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise ConfigError(f"cannot listen on TCP {endpoint}: {error.strerror}") from None
    return sock
