"""What random traffic of any kind needs: a seed, a witness, and sockets that send with marks and in runs."""

from __future__ import annotations

import socket
import struct
from random import Random

from mcastsocks.address import SockAddr
from tests.planes.bench import Bench
from tests.planes.witness import Witness

_UDP_SEGMENT = 103
_QUIET_TURNS = 4
_MARKS = (0, 0, 0, 0x01, 0x2C, 0xB8)


class Stage:
    """The same for the same seed, whatever the plane."""

    def __init__(self, bench: Bench, seed: int, witness: Witness) -> None:
        self._bench, self._random, self._witness = bench, Random(seed), witness

    def _send(self, sock: socket.socket, octets: bytes, to: SockAddr, segment: int = 0) -> None:
        level, kind = (
            (socket.IPPROTO_IP, socket.IP_TOS)
            if sock.family == socket.AF_INET
            else (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)
        )
        marks = [(level, kind, struct.pack("@i", self._random.choice(_MARKS)))]
        if segment:
            try:
                cut = (socket.IPPROTO_UDP, _UDP_SEGMENT, struct.pack("@H", segment))
                sock.sendmsg((octets,), [*marks, cut], 0, to)
            except OSError:  # no such kernel
                for start in range(0, len(octets), segment):
                    sock.sendmsg((octets[start : start + segment],), marks, 0, to)
        else:
            sock.sendmsg((octets,), marks, 0, to)

    def _burst(self) -> int:
        return self._random.choice((1, 1, 2, 3, 5, 12, 13, 40))

    def _size(self, most: int) -> int:
        if self._random.random() < 0.02:
            return most
        return self._random.choice((0, 2, 4, 64, 64, 64, 64, 200, 1316, 1472, 1473))

    async def _settle(self) -> None:
        """Let the plane work until it moves nothing more, and see what came out."""
        quiet, before = 0, -1

        def has_settled() -> bool:
            nonlocal quiet, before
            counters = self._bench.plane.counters()
            moved = counters.received_inside + counters.received_outside
            quiet, before = (quiet + 1, before) if moved == before else (0, moved)
            return quiet >= _QUIET_TURNS

        await self._bench.settled(has_settled)
        self._witness.look()
