"""A listening TCP socket: accepts, sets what detects a dead client, hands over."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from mcastsocks.address import Endpoint, to_sockaddr
from mcastsocks.errors import ConfigError
from mcastsocks.liveness import detect_dead_peer

_BACKLOG = 512
_PAUSE_S = 0.05


class Listener:
    """Calls `accepted` with every connection until it is closed."""

    def __init__(
        self,
        endpoint: Endpoint,
        dead_client_s: int,
        accepted: Callable[[socket.socket], None],
        *,
        shared: bool = False,
    ) -> None:
        """`shared` with other workers that listen there. Raises ConfigError when the address or port cannot be had."""
        self.endpoint = endpoint
        self._dead_client_s = dead_client_s
        self._accepted = accepted
        self._sock = _bind(endpoint, shared=shared)
        try:
            self._sock.listen(_BACKLOG)
        except OSError as error:
            self._sock.close()
            raise _cannot_listen(endpoint, error) from None

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(self._sock)
            except OSError:  # no descriptors, no memory, or the client went before we took it
                await asyncio.sleep(_PAUSE_S)
                continue
            try:
                detect_dead_peer(sock, self._dead_client_s)
            except OSError:
                sock.close()
            else:
                self._accepted(sock)

    def close(self) -> None:
        self._sock.close()


def find_taken(endpoint: Endpoint) -> None:
    """Raises ConfigError when somebody listens there, even if they would share it."""
    _bind(endpoint, shared=False).close()


def _bind(endpoint: Endpoint, *, shared: bool) -> socket.socket:
    family = socket.AF_INET if endpoint.address.version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(to_sockaddr(endpoint))
    except OSError as error:
        sock.close()
        raise _cannot_listen(endpoint, error) from None
    return sock


def _cannot_listen(endpoint: Endpoint, error: OSError) -> ConfigError:
    return ConfigError(f"cannot listen on TCP {endpoint}: {error.strerror}")
