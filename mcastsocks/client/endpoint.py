"""The client's one UDP socket: every association's datagrams go through it."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

import asyncio_dgram
from asyncio_dgram.aio import DatagramServer

from mcastsocks.address import Endpoint, SockAddr, from_sockaddr
from mcastsocks.client.association import Association
from mcastsocks.wire.datagram import HEADER, HEADER_OCTETS

_RECEIVE_BUFFER_OCTETS = 4 << 20


class ClientEndpoint:
    """Hands each datagram to its association at once, because the stream's own queue has no bound.

    Only the relay's address and port that the association's BIND named is listened to.
    """

    def __init__(self, stream: DatagramServer) -> None:
        self._stream = stream
        self.local: Endpoint = from_sockaddr(stream.sockname)
        self._by_aid: dict[int, Association] = {}
        self._plain: dict[SockAddr, Association] = {}
        self.strays = 0
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

    def add(self, association: Association) -> None:
        self._by_aid[association.aid] = association
        if association.is_plain:
            self._plain[association.relay_sockaddr] = association

    def remove(self, association: Association) -> None:
        self._by_aid.pop(association.aid, None)
        self._plain.pop(association.relay_sockaddr, None)

    async def send(self, octets: bytes, relay: SockAddr) -> None:
        await self._stream.send(octets, relay)

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
            except OSError:  # an ICMP error about something sent earlier
                continue
            assert isinstance(source, tuple), "the socket is of an internet family"
            self._dispatch(octets, source)

    def _dispatch(self, octets: bytes, source: SockAddr) -> None:
        if plain := self._plain.get(source):
            plain.deliver(octets)
            return
        if len(octets) >= HEADER_OCTETS:
            rsv, frag, _, aid = HEADER.unpack_from(octets)
            association = self._by_aid.get(aid)
            if association is not None and association.relay_sockaddr == source and not rsv and not frag:
                association.deliver(octets[HEADER_OCTETS:])
                return
        self.strays += 1
