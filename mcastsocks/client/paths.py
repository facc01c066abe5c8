"""The ways that an association's datagrams travel between client and relay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from mcastsocks.address import Endpoint, SockAddr
from mcastsocks.client.channel import ControlChannel
from mcastsocks.client.endpoint import ClientEndpoint
from mcastsocks.client.multicast import GroupSocket
from mcastsocks.wire.control import Encapsulated, Flags
from mcastsocks.wire.datagram import HEADER, HEADER_OCTETS, UDP_PAYLOAD_OCTETS, fragments


class Path(Protocol):
    """`max_data_octets` is the room for data in one datagram, as the drafts want it reported."""

    max_data_octets: int

    async def send(self, data: bytes) -> None:
        """Send one datagram; it fits."""


class UdpPath:
    """Behind the 8-octet header to the relay's address and port, in fragments where one datagram is too small."""

    def __init__(self, endpoint: ClientEndpoint, relay: SockAddr, aid: int, fragment_above: int | None) -> None:
        carries = UDP_PAYLOAD_OCTETS[6 if len(relay) == 4 else 4]
        self.max_data_octets = carries - HEADER_OCTETS
        self._room = min(carries, fragment_above or carries)
        self._endpoint, self.peer, self._aid = endpoint, relay, aid
        self._header = HEADER.pack(0, 0, 0, aid)
        self._dgid = 0

    async def send(self, data: bytes) -> None:
        if HEADER_OCTETS + len(data) <= self._room:
            await self._endpoint.send(self._header + data, self.peer)
            return
        self._dgid = self._dgid % 0xFFFF + 1
        pieces = fragments(0, self._dgid, self._aid, data, self._room)
        if pieces is None:
            raise ValueError(f"{len(data)} octets do not fit into 127 fragments of {self._room}")
        for piece in pieces:
            await self._endpoint.send(piece, self.peer)

    async def hello(self) -> None:
        """Show the relay our port."""
        await self._endpoint.send(self._header, self.peer)


class PlainPath:
    """Straight to the remote: the relay is no proxy (mcast §4.3.1.2)."""

    def __init__(self, endpoint: ClientEndpoint, remote: SockAddr) -> None:
        self.max_data_octets = UDP_PAYLOAD_OCTETS[6 if len(remote) == 4 else 4]
        self._endpoint, self.peer = endpoint, remote

    async def send(self, data: bytes) -> None:
        await self._endpoint.send(data, self.peer)


class GroupPath:
    """The group itself, on the network that we are on (MM-mode, mcast §5.1): no header, and sockets of our own.

    The relay knows a sender by the endpoint's address and port.
    """

    def __init__(self, endpoint: ClientEndpoint, group: Endpoint) -> None:
        self.max_data_octets = UDP_PAYLOAD_OCTETS[group.address.version]
        self._endpoint, self._group = endpoint, group
        self._sockaddr = endpoint.sockaddr(group)
        self._socket: GroupSocket | None = None

    def open(self, directions: int, deliver: Callable[[bytes], None]) -> None:
        """Be ready for these directions. Raises OSError."""
        if directions & Flags.SEND_TO:
            self._endpoint.choose_interface()
        if directions & Flags.RECEIVE_FROM and self._socket is None:
            self._socket = GroupSocket(self._group, self._endpoint.sockname, deliver)

    def leave(self) -> None:
        """Receive nothing more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def send(self, data: bytes) -> None:
        await self._endpoint.send(data, self._sockaddr)


class ChannelPath:
    """Inside the control channel (mcast §4.4). A frame holds more than UDP carries behind the relay."""

    max_data_octets = UDP_PAYLOAD_OCTETS[4]

    def __init__(self, channel: ControlChannel, aid: int) -> None:
        self._channel, self._aid = channel, aid

    async def send(self, data: bytes) -> None:
        self._channel.write(Encapsulated(self._aid, data))
        await self._channel.drain()
