"""Another SOCKS 5 relay that this one asks on behalf of its clients, where a rule says so."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TypeVar

from mcastsocks.address import Endpoint, IPAddress, from_sockaddr, unmapped_endpoint
from mcastsocks.client.config import ClientConfig
from mcastsocks.client.connection import Connection
from mcastsocks.client.relay import Relay
from mcastsocks.client.url import RelayUrl
from mcastsocks.errors import LoginRefused, McastsocksError, RequestRefused, WireError
from mcastsocks.liveness import detect_dead_peer
from mcastsocks.planes.interface import Interface
from mcastsocks.protocol.client import Associated, ClientConnection, Connected, Event, LoggedIn
from mcastsocks.server.resolver import ResolveError, Resolver
from mcastsocks.server.sections import Limits
from mcastsocks.server.streams.dial import DialFailed, dial
from mcastsocks.tables.tally import Tally
from mcastsocks.wire.control import Flags
from mcastsocks.wire.replies import ReplyCode, of_errno

_READ_OCTETS = 4096
_TOLD_ON = frozenset(ReplyCode)
_ACCOUNT = "upstream"
_MOST_WAITING = 1024
_E = TypeVar("_E", bound=Event)


class UpstreamFailed(McastsocksError):
    """With the reply that a client is told, and the directions of a BIND that could have been had."""

    def __init__(self, code: ReplyCode, why: str, granted: int = Flags.NONE) -> None:
        super().__init__(why)
        self.code, self.granted = code, granted


@dataclass(slots=True)
class Stream:
    """A connection through an upstream: its socket, what the destination sees of it, and what came already."""

    sock: socket.socket
    bound: Endpoint
    early: bytes


@dataclass(slots=True)
class UpstreamAssociation:
    """A UDP ASSOCIATE at an upstream; it lasts until the socket is closed, by either side."""

    sock: socket.socket
    relay: Endpoint

    async def ended(self) -> None:
        """Until the upstream closes it. What it says meanwhile is nothing that anybody asked for."""
        with suppress(OSError):
            while await asyncio.get_running_loop().sock_recv(self.sock, _READ_OCTETS):
                pass


class Upstream:
    """One of them. `waiting` are the requests on control channels that it has to answer, by account."""

    def __init__(self, name: str, url: RelayUrl, resolver: Resolver, limits: Limits, *, directed: bool = False) -> None:
        """`directed`: there are several outsides, and it is reached by its rule's, not as the routing table prefers."""
        self._directed = directed
        self._name, self._url, self._resolver, self._limits = name, url, resolver, limits
        self.waiting: Tally[str] = Tally()

    def __str__(self) -> str:
        return self._name

    def has_room_for(self, account: str) -> bool:
        return self.waiting[account] < _MOST_WAITING

    async def connect(self, destination: Endpoint, outside: Interface) -> Stream:
        """CONNECT through it. Raises UpstreamFailed."""

        def request(machine: ClientConnection) -> None:
            machine.request_connect(destination)

        sock, machine, connected = await self._ask(outside, request, Connected)
        return Stream(sock, connected.bound, machine.leftover())

    async def associate(self, outside: Interface) -> UpstreamAssociation:
        """UDP ASSOCIATE there; it learns our port from the first datagram. Raises UpstreamFailed."""
        sock, _, associated = await self._ask(outside, ClientConnection.request_associate, Associated)
        try:
            return UpstreamAssociation(sock, _where_reached(sock, associated.relay))
        except (OSError, WireError) as error:
            sock.close()
            raise self.failed(error) from None

    async def enter(self) -> Relay:
        """A control channel to it, found by the routing table. Raises UpstreamFailed."""
        limits = self._limits
        try:
            return await Relay.open(
                Connection(self._url, limits.dead_client_s),
                limits.connect_timeout_s,
                ask_features=True,
                fragment_above=None,
                config=ClientConfig(),
            )
        except McastsocksError as error:
            raise self.failed(error) from None

    async def _ask(
        self, outside: Interface, request: Callable[[ClientConnection], None], answer: type[_E]
    ) -> tuple[socket.socket, ClientConnection, _E]:
        machine = ClientConnection(self._url.credentials)
        sock: socket.socket | None = None
        try:
            async with asyncio.timeout(self._limits.connect_timeout_s):
                sock = await self._dial(outside)
                machine.greet()
                await _expect(sock, machine, LoggedIn)
                request(machine)
                return sock, machine, await _expect(sock, machine, answer)
        except BaseException as error:
            if sock is not None:
                sock.close()
            if isinstance(error, (WireError, OSError, McastsocksError)):
                raise self.failed(error) from None
            raise

    async def _dial(self, outside: Interface) -> socket.socket:
        addresses = await self._addresses()
        local = {4: outside.ipv4, 6: outside.ipv6}
        limits = self._limits
        sock = await dial(
            addresses,
            self._url.port,
            timeout_s=limits.connect_timeout_s,
            local=local,
            interface=outside.index if self._directed else None,
        )
        detect_dead_peer(sock, limits.dead_client_s)
        return sock

    async def _addresses(self) -> list[IPAddress]:
        try:
            return [ip_address(self._url.host)]
        except ValueError:
            return await self._resolver.resolve(self._url.host, _ACCOUNT)

    def failed(self, error: Exception) -> UpstreamFailed:
        """What it said to the request is told on; what is wrong with it is a general failure."""
        why = f"upstream {self}: {str(error).replace(str(self._url), str(self))}"  # clients read it: no URL of ours
        match error:
            case RequestRefused() if error.code in _TOLD_ON:
                return UpstreamFailed(ReplyCode(error.code), why)
            case DialFailed():
                return UpstreamFailed(of_errno(error.errno or 0), why)
            case ResolveError():
                return UpstreamFailed(ReplyCode.HOST_UNREACHABLE, why)
            case TimeoutError():
                return UpstreamFailed(ReplyCode.GENERAL_FAILURE, f"upstream {self} did not answer in time")
        return UpstreamFailed(ReplyCode.GENERAL_FAILURE, why)


def _where_reached(sock: socket.socket, told: Endpoint) -> Endpoint:
    """An upstream takes datagrams at the address that it was reached at, which 0.0.0.0 means too, and at no other: it
    could name one that our rules protect. Raises OSError, WireError."""
    peer, told = from_sockaddr(sock.getpeername()).address, unmapped_endpoint(told)
    if isinstance(told.host, str) or not (told.host.is_unspecified or told.host == peer):
        raise WireError(f"it takes datagrams at {told}, and was reached at {peer}")
    return Endpoint(peer, told.port)


async def _expect(sock: socket.socket, machine: ClientConnection, kind: type[_E]) -> _E:
    loop = asyncio.get_running_loop()
    while True:
        event = machine.next_event()
        await loop.sock_sendall(sock, machine.octets_to_send())
        if isinstance(event, kind):
            return event
        octets = await loop.sock_recv(sock, _READ_OCTETS)
        if not octets:
            raise LoginRefused("it closed the connection")
        machine.receive(octets)
