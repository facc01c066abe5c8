"""UDP ASSOCIATEs on a plane's bench: their doors, datagrams that name a destination, and who is asked for routes."""

from __future__ import annotations

import socket
from collections.abc import Callable, Coroutine
from ipaddress import ip_address
from typing import Any

from mcastsocks.address import Endpoint, SockAddr, from_sockaddr
from mcastsocks.planes.counters import Counters
from mcastsocks.planes.interface import Plane
from mcastsocks.tables.changes import AddAssociate, Associate, Done, RemoveAssociate, Result, Route, Traffic
from tests.planes.bench import Bench, on_plane

Destination = tuple[str, int]


def block(destination: Destination) -> bytes:
    host, port = destination
    try:
        address = ip_address(host)
    except ValueError:
        return bytes((3, len(host))) + host.encode() + port.to_bytes(2)
    return (b"\1" if address.version == 4 else b"\4") + address.packed + port.to_bytes(2)


def header(destination: Destination, frag: int = 0) -> bytes:
    """By hand, not by our own encoder."""
    return bytes((0, 0, frag)) + block(destination)


def remote_of(sock: socket.socket) -> Endpoint:
    return from_sockaddr(sock.getsockname())


def named(sock: socket.socket) -> Destination:
    host, port = sock.getsockname()[:2]
    return host, port


class Asked:
    """Whom a plane asks. With `answers` every destination that is an address gets its route at once."""

    def __init__(self) -> None:
        self.destinations: list[tuple[int, Endpoint]] = []
        self.answers = True
        self.plane: Plane

    def __call__(self, channel: int, destination: Endpoint) -> None:
        self.destinations.append((channel, destination))
        assert self.plane.counters().balance == 0, "what waits is counted before anybody is asked"
        if self.answers and not isinstance(destination.host, str):
            assert isinstance(self.plane.apply([Route(channel, destination, destination)])[0], Done)


class Doors:
    """Associations by one client address or several; channels stand for clients."""

    def __init__(self, bench: Bench, asked: Asked) -> None:
        self.bench, self.asked, self.plane = bench, asked, bench.plane
        asked.plane = bench.plane
        self.door = self.free_door()

    @property
    def counters(self) -> Counters:
        return self.plane.counters()

    def free_door(self, host: str = "127.0.0.1") -> Endpoint:
        return self.bench.free_endpoint(host)

    def add(self, client: socket.socket | SockAddr, channel: int = 1, **options: Any) -> Result:
        sockaddr = client.getsockname() if isinstance(client, socket.socket) else client
        options = {"inside": self.door, "client": sockaddr} | options
        return self.bench.apply(AddAssociate(Associate(channel, **options)))

    def open(self, client: socket.socket | SockAddr, channel: int = 1, **options: Any) -> Done:
        added = self.add(client, channel, **options)
        assert isinstance(added, Done), added
        return added

    def route(self, destination: Endpoint, target: Endpoint | None, channel: int = 1, **options: Any) -> Result:
        return self.bench.apply(Route(channel, destination, target, **options))

    def remove(self, channel: int = 1) -> Traffic:
        removed = self.bench.apply(RemoveAssociate(channel))
        assert isinstance(removed, Done)
        assert removed.traffic is not None
        return removed.traffic

    def write(self, client: socket.socket, octets: bytes, door: Endpoint | None = None) -> None:
        """Any octets at all."""
        door = door or self.door
        client.sendto(octets, (str(door.host), door.port))

    def send(self, client: socket.socket, to: Destination, data: bytes = b"", frag: int = 0) -> None:
        self.write(client, header(to, frag) + data)

    def traffic(self, channel: int = 1) -> Traffic:
        traffic = self.plane.associate_traffic(channel)
        assert traffic is not None
        return traffic

    def outside(self, destination: Endpoint, target: Endpoint, **options: Any) -> Endpoint:
        """What a target sees that is given to a destination."""
        routed = self.route(destination, target, **options)
        assert isinstance(routed, Done)
        assert routed.outside is not None
        return routed.outside

    async def reaches(self, remote: socket.socket, data: bytes) -> SockAddr:
        """The next datagram at a remote is this one; where it came from, and answers go to."""
        octets, outside = await self.bench.receive(remote)
        assert octets == data
        assert self.counters.balance == 0
        return (str(outside.host), outside.port)

    async def received(self, client: socket.socket) -> bytes:
        """The client's next datagram, which must come from its door; header included."""
        octets, source = await self.bench.receive(client)
        assert source == self.door
        assert self.counters.balance == 0
        return octets

    def has_sent(self, outside: int, inside: int) -> bool:
        return (self.counters.sent_outside, self.counters.sent_inside) == (outside, inside)

    def has_received(self, inside: int) -> bool:
        return self.counters.received_inside == inside

    async def settled(self, condition: Callable[[], object]) -> None:
        """Let the plane work until this holds; everything is accounted for all the while."""

        def holds() -> bool:
            assert self.counters.balance == 0, self.counters
            return bool(condition())

        await self.bench.settled(holds)


def on_doors(kind: str, test: Callable[[Doors], Coroutine[Any, Any, None]], **options: Any) -> None:
    """Run a test's coroutine with a fresh plane of that kind."""
    asked = Asked()
    on_plane(kind, lambda bench: test(Doors(bench, asked)), ask=asked, **options)
