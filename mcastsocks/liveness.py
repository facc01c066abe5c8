"""Whether the other end of a TCP connection is still there."""

from __future__ import annotations

import socket
import struct

_PROBES = 4
"""A third of the time idle and four probes a sixth apart, for who clears TCP_USER_TIMEOUT."""

_TCP_INFO = struct.Struct("=2xBB52xI")  # linux/tcp.h: retransmits, probes, ..., last_ack_recv in ms
_UNANSWERED = 2


def detect_dead_peer(sock: socket.socket, seconds: int) -> None:
    """Have the kernel end a connection whose peer is silent to everything for about that long.

    Keepalive finds a peer that went while nothing was owed to it, TCP_USER_TIMEOUT one that went owing an
    acknowledgement; with the latter set, keepalive gives up by time too and not by its count of probes.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, seconds // 3))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, seconds // 6))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def unanswered_s(sock: socket.socket) -> float:
    """For how long a peer has acknowledged nothing, though it was asked again and again; 0 while it has no need to.

    Unlike TCP_USER_TIMEOUT it takes a reader for alive that keeps its window closed and says so. Raises OSError.
    """
    retransmits, probes, last_ms = _TCP_INFO.unpack(
        sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    )
    return last_ms / 1000 if max(retransmits, probes) >= _UNANSWERED else 0.0
