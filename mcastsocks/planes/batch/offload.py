"""Whether the kernel coalesces datagrams, and how many."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from functools import cache

UDP_SEGMENT = 103  # include/uapi/linux/udp.h
UDP_GRO = 104

_MOST_SEGMENTS = 128  # UDP_MAX_SEGMENTS (include/linux/udp.h) since Linux 6.9, 64 before
_LEAST_SEGMENTS = 64

REFUSALS = frozenset({errno.EINVAL, errno.EMSGSIZE, errno.EIO})
"""How the kernel refuses segments: larger than the path takes, or nothing there that cuts them."""


def receive_coalesced(sock: socket.socket) -> bool:
    """Have runs of datagrams received in one piece, with their size beside it; False where the kernel cannot."""
    try:
        sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    except OSError:
        return False
    return True


def segments_of(sock: socket.socket) -> int:
    """How many datagrams one call to send may carry on this socket: 1 where the kernel does not cut them."""
    try:
        sock.getsockopt(socket.IPPROTO_UDP, UDP_SEGMENT)
    except OSError:
        return 1
    return _segments()


@cache
def _segments() -> int:
    """By trial on loopback, once: no kernel says what its limit is."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1)
        try:
            sock.sendto(bytes(_MOST_SEGMENTS), sock.getsockname())
        except OSError as error:
            if error.errno not in REFUSALS:
                raise
            return _LEAST_SEGMENTS
        return _MOST_SEGMENTS
    return _LEAST_SEGMENTS
