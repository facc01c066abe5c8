"""A socket, and how much of what waits there is worth one turn of the event loop."""

from __future__ import annotations

import socket

from mcastsocks.planes.batch.offload import receive_coalesced
from mcastsocks.planes.batch.sockaddrs import version_of

FEW = 12
"""Fewer at once cost less one by one: a batch costs some 40 us before its first datagram."""

_BUDGET = 1024
"""Datagrams given for one socket before the others, and the control channels, get their turn: about a millisecond."""


class Inlet:
    """`most` is how many buffers to take in the next turn."""

    __slots__ = ("fd", "most", "version")

    def __init__(self, sock: socket.socket) -> None:
        self.fd, self.most = sock.fileno(), 1
        self.version = version_of(sock)
        receive_coalesced(sock)

    def note(self, taken: int, given: int) -> None:
        """What a turn was like. The next takes twice as many at most, because what comes may be of another kind."""
        worth = _BUDGET * taken // given if given > taken else _BUDGET
        self.most = max(1, min(worth, 2 * taken))
