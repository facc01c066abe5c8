"""The client's one UDP socket: every association's datagrams go through it."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

import asyncio_dgram
from asyncio_dgram.aio import DatagramServer

from mcastsocks.address import Endpoint, SockAddr, from_sockaddr
from mcastsocks.errors import RelayError, WireError
from mcastsocks.tables.reassembly import Reassembly, ReassemblyLimits
from mcastsocks.wire.block import parse_block
from mcastsocks.wire.datagram import HEADER, HEADER_OCTETS, LAST_FRAGMENT, RSV_SOURCE

if TYPE_CHECKING:
    from mcastsocks.client.association import Association

_RECEIVE_BUFFER_OCTETS = 4 << 20
_MOST_OCTETS = 65_527 + 19
"""What the relay may have cut into fragments: all that UDP carries, and its original sender."""


class ClientEndpoint:
    """Hands each datagram to its association at once, because the stream's own queue has no bound.

    Only the relay's address and port that the association's BIND named is listened to. `strays` counts what was not
    for us, `unsent` what the kernel did not take.
    """

    def __init__(self, stream: DatagramServer) -> None:
        self._stream = stream
        self.local: Endpoint = from_sockaddr(stream.sockname)
        self._by_aid: dict[int, tuple[Association, SockAddr]] = {}
        self._plain: dict[SockAddr, Association] = {}
        self._reassembly = Reassembly(ReassemblyLimits(), Counter())
        self.strays = 0
        self.unsent = 0
        self._pump = asyncio.create_task(self._receive())

    @classmethod
    async def open(cls, local: SockAddr) -> ClientEndpoint:
        """A socket on a free port of the address that the control channel comes from."""
        family = socket.AF_INET6 if len(local) == 4 else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_OCTETS)
            sock.bind((local[0], 0, *local[2:]))
        except OSError:
            sock.close()
            raise
        stream = await asyncio_dgram.from_socket(sock)
        assert isinstance(stream, DatagramServer), "the socket is not connected"
        return cls(stream)

    def add(self, association: Association, relay: SockAddr, *, plain: bool) -> None:
        self._by_aid[association.aid] = association, relay
        if plain:
            self._plain[relay] = association

    def remove(self, association: Association) -> None:
        _, relay = self._by_aid.pop(association.aid, (None, None))
        if relay is not None:
            self._plain.pop(relay, None)
        self._reassembly.release(association.aid)

    async def send(self, octets: bytes, relay: SockAddr) -> None:
        """Send one datagram. Raises RelayError when the socket is closed."""
        while True:
            try:
                return await self._stream.send(octets, relay)
            except OSError:  # about an earlier datagram: this one has not been sent yet
                self.unsent += 1
            except asyncio_dgram.TransportClosed:
                raise RelayError("the socket for datagrams is closed") from None

    async def close(self) -> None:
        self._pump.cancel()
        with suppress(asyncio.CancelledError):
            await self._pump
        self._stream.close()

    async def _receive(self) -> None:
        while True:
            try:
                octets, source = await self._stream.recv()
            except asyncio_dgram.TransportClosed:
                return
            except OSError:  # about something sent earlier
                self.unsent += 1
                continue
            assert isinstance(source, tuple), "the socket is of an internet family"
            self._dispatch(octets, source)

    def _dispatch(self, octets: bytes, source: SockAddr) -> None:
        if plain := self._plain.get(source):
            plain.deliver(octets)
            return
        if len(octets) < HEADER_OCTETS:
            self.strays += 1
            return
        rsv, frag, dgid, aid = HEADER.unpack_from(octets)
        association, relay = self._by_aid.get(aid, (None, None))
        if association is None or relay != source or rsv & ~RSV_SOURCE or frag == LAST_FRAGMENT:
            self.strays += 1
            return
        body: bytes | None = octets[HEADER_OCTETS:]
        if frag:
            now = asyncio.get_running_loop().time()
            body = self._reassembly.add(aid, dgid, frag, octets[HEADER_OCTETS:], _MOST_OCTETS, now)
        if body is not None:
            self._deliver(association, body, reports_source=bool(rsv))

    def _deliver(self, association: Association, body: bytes, *, reports_source: bool) -> None:
        try:
            association.deliver(*split_source(body) if reports_source else (body,))
        except WireError:
            self.strays += 1


def split_source(body: bytes) -> tuple[bytes, Endpoint | None]:
    """Data and the original sender before it. Raises WireError."""
    source, end = parse_block(body)
    return body[end:], source
