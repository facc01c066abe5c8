"""Whether the other end of a TCP connection is still there."""

from __future__ import annotations

import socket


def detect_dead_peer(sock: socket.socket, seconds: int) -> None:
    """Have the kernel end a connection whose peer is silent to everything for about that long.

    Keepalive finds a peer that went while nothing was owed to it, TCP_USER_TIMEOUT one that went owing an
    acknowledgement; with the latter set, keepalive gives up by time too and not by its count of probes.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, seconds // 3))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, seconds // 6))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
