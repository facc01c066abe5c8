"""The client's one UDP socket: every association's datagrams go through it."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

import asyncio_dgram
from asyncio_dgram.aio import DatagramServer

from mcastsocks.address import UNSPECIFIED_V4, UNSPECIFIED_V6, Endpoint, SockAddr, from_sockaddr, to_sockaddr
from mcastsocks.client.multicast import RECEIVE_BUFFER_OCTETS, choose_interface
from mcastsocks.errors import RelayError, WireError
from mcastsocks.tables.reassembly import Reassembly, ReassemblyLimits
from mcastsocks.wire.block import parse_block
from mcastsocks.wire.datagram import HEADER, HEADER_OCTETS, LAST_FRAGMENT, RSV_SOURCE

if TYPE_CHECKING:
    from mcastsocks.client.association import Association

_MOST_OCTETS = 65_527 + 19
"""What the relay may have cut into fragments: all that UDP carries, and its original sender."""


class ClientEndpoint:
    """Hands each datagram to its association at once, because the stream's own queue has no bound.

    Only the relay's address and port that the association's BIND named is listened to. `strays` counts what was not
    for us, `unsent` what the kernel did not take.
    """

    def __init__(self, stream: DatagramServer) -> None:
        self._stream = stream
        self.sockname: SockAddr = stream.sockname
        self.local: Endpoint = from_sockaddr(self.sockname)
        self._by_aid: dict[int, tuple[Association, SockAddr]] = {}
        self._plain: dict[SockAddr, Association] = {}
        self._reassembly = Reassembly(ReassemblyLimits(), Counter())
        self.strays = 0
        self.unsent = 0
        self._pump = asyncio.create_task(self._receive())

    @classmethod
    async def open(cls, local: SockAddr) -> ClientEndpoint:
        """A socket on a free port of the address that the control channel comes from."""
        own = to_sockaddr(from_sockaddr(local)._replace(port=0), _zone(local))
        family = socket.AF_INET6 if len(own) == 4 else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_OCTETS)
            sock.bind(own)
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

    @property
    def learnt(self) -> Endpoint:
        """LOCAL for a relay that is to learn where we send from."""
        return Endpoint(UNSPECIFIED_V4 if self.local.address.version == 4 else UNSPECIFIED_V6, 0)

    def sockaddr(self, endpoint: Endpoint) -> SockAddr:
        """Where to send for an endpoint on our side; what is link-local is in the zone that we are in."""
        return to_sockaddr(endpoint, _zone(self.sockname) if endpoint.address.is_link_local else 0)

    def choose_interface(self) -> None:
        """Send to groups by the interface that our address is on. Raises OSError."""
        choose_interface(self._stream.socket, self.sockname)

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


def _zone(sockaddr: SockAddr) -> int:
    """The interface's index in a link-local IPv6 address."""
    return int(sockaddr[3]) if len(sockaddr) == 4 else 0


def split_source(body: bytes) -> tuple[bytes, Endpoint | None]:
    """Data and the original sender before it. Raises WireError."""
    source, end = parse_block(body)
    return body[end:], source
