"""A socket that is read by the batch, or one datagram at a time while only a few come at once."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

from mcastsocks.address import SockAddr
from mcastsocks.planes import linux
from mcastsocks.planes.batch.offload import UDP_GRO, receive_coalesced

FEW = 12
"""Up to so many at once cost less one by one: a batch costs some 40 us before its first datagram."""

_ANCILLARY_OCTETS = 2 * socket.CMSG_SPACE(linux.INT.size)
_MARKS = {(socket.IPPROTO_IP, socket.IP_TOS), (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)}


BUDGET = 1024
"""Datagrams given for one socket before the others, and the control channels, get their turn: about a millisecond."""

_BUDGET_OF_FEW = 64
"""The same where each is given by a system call of its own."""


class Inlet:
    """`is_busy` is what the last wake-up showed: then it is read by the batch at once.

    `budget` is how many datagrams may still be given in this wake-up.
    """

    __slots__ = ("budget", "fd", "is_busy", "most", "sock", "version")

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.fd = sock, sock.fileno()
        self.version = 4 if sock.family == socket.AF_INET else 6
        self.is_busy = False
        self.budget, self.most = 0, 1
        receive_coalesced(sock)

    def note(self, taken: int, given: int) -> None:
        """What the last wake-up was like: `most` so many are worth the next. Twice as many as now at most, because what
        comes may be of another kind."""
        self.is_busy = taken >= FEW or given >= _BUDGET_OF_FEW
        worth = BUDGET * taken // given if given > taken else BUDGET
        self.most = max(1, min(worth, 2 * taken))

    def read(self, buffer: memoryview, start: int) -> Iterator[tuple[int, SockAddr, int]]:
        """A few datagrams, each at `start` of the buffer: octets, source, DSCP and ECN.

        A run that the kernel has coalesced is told apart.
        """
        self.budget = _BUDGET_OF_FEW
        for _ in range(FEW):
            if self.budget <= 0:
                return
            try:
                octets, ancillary, _, source = self.sock.recvmsg_into((buffer[start:],), _ANCILLARY_OCTETS)
            except OSError:  # nothing more, or an error left over from a datagram that was sent
                return
            tos = segment = 0
            for level, kind, data in ancillary:
                if (level, kind) in _MARKS:
                    tos = int.from_bytes(data, sys.byteorder)
                elif (level, kind) == (socket.IPPROTO_UDP, UDP_GRO):
                    segment = int.from_bytes(data, sys.byteorder)
            if 0 < segment < octets:
                run = bytes(buffer[start : start + octets])
                for offset in range(0, octets, segment):
                    piece = run[offset : offset + segment]
                    buffer[start : start + len(piece)] = piece
                    yield len(piece), source, tos
            else:
                yield octets, source, tos
