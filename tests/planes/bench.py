"""A plane on loopback, with sockets for clients, remotes and plain members of groups around it."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any
from unittest.mock import patch

from mcastsocks.address import Endpoint, SockAddr, from_sockaddr
from mcastsocks.planes.batch import flows
from mcastsocks.planes.batch.inlet import Inlet
from mcastsocks.planes.batch.plane import BatchPlane
from mcastsocks.planes.batch.receiver import Batch
from mcastsocks.planes.batch.singles import Single
from mcastsocks.planes.interface import Interface, Outside, Plane, PlaneOptions
from mcastsocks.planes.loop import DatagramLoop
from mcastsocks.planes.portable import PortablePlane
from mcastsocks.tables.changes import AddEntry, Change, ChangeEntry, Done, Entry, Result, Terms
from mcastsocks.wire.datagram import HEADER

WAIT_S = 5.0
LOOPBACK = Interface("lo", socket.if_nametoindex("lo"), IPv4Address("127.0.0.1"), IPv6Address("::1"))


Few = Callable[[list[Single]], None]
Many = Callable[[Batch], None]


class EagerBatchPlane(BatchPlane):
    """Goes by arrays however little there is, where the plane itself would go one by one."""

    def _drain(self, inlet: Inlet, few: Few, many: Many, enough: int = 0) -> None:
        with patch.object(flows, "FEW", 0):
            super()._drain(inlet, few, many, 0)


Kind = Callable[[asyncio.AbstractEventLoop, Mapping[str, Outside], PlaneOptions], Plane]
PLANES: dict[str, Kind] = {"portable": PortablePlane, "batch": BatchPlane, "batch, eager": EagerBatchPlane}
BUDGETS = {"portable": 64, "batch": 1024, "batch, eager": 1024}
"""Datagrams that a plane gives for one socket before the others get their turn: those that take about as long."""


class Bench:
    """Everything by one client address; several channels stand for several clients."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        self._sockets: list[socket.socket] = []
        self._aids = iter(range(0x1000, 0x2000))
        self.terms: dict[int, Terms] = {}
        self.inside = self._free_inside()

    def udp(self, host: str = "127.0.0.1", port: int = 0) -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        if port:  # otherwise the kernel may give the same free port twice
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        sock.bind((host, port))
        self._sockets.append(sock)
        return sock

    def free_endpoint(self, host: str = "127.0.0.1") -> Endpoint:
        """That nobody has just now."""
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((host, 0))
            return from_sockaddr(sock.getsockname())

    def group(self, address: str = "239.255.66.1") -> Endpoint:
        """A group on a port that nothing else on this host uses."""
        return Endpoint(IPv4Address(address), self.udp().getsockname()[1])

    def member(self, group: Endpoint) -> socket.socket:
        """A plain program that joined a group on loopback."""
        sock = self.udp(str(group.host), group.port)
        request = struct.pack("=4s4s", group.address.packed, socket.inet_aton("127.0.0.1"))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        return sock

    def addition(
        self,
        client: SockAddr | None,
        remote: Endpoint,
        channel: int = 1,
        inside: Endpoint | None = None,
        mm: bool = False,
        **terms: Any,
    ) -> AddEntry:
        """Of a new entry, in both directions unless its terms say otherwise."""
        entry = Entry(next(self._aids), channel, inside or self.inside, client, remote, mm)
        self.terms[entry.aid] = Terms(**{"sends": True, "receives": True} | terms)
        return AddEntry(entry, self.terms[entry.aid])

    def add(self, client: socket.socket | SockAddr | None, remote: Endpoint, channel: int = 1, **options: Any) -> int:
        """A new entry, a receiver too when it receives a group; its AID."""
        sockaddr = client.getsockname() if isinstance(client, socket.socket) else client
        added = self.addition(sockaddr, remote, channel, **options)
        assert isinstance(self.apply(added), Done)
        return added.entry.aid

    def apply(self, *changes: Change) -> Result:
        """The last change's result."""
        return self.plane.apply(changes)[-1]

    def send(self, client: socket.socket, aid: int, data: bytes = b"", rsv: int = 0, frag: int = 0) -> None:
        client.sendto(HEADER.pack(rsv, frag, 0, aid) + data, (str(self.inside.host), self.inside.port))

    async def receive(self, sock: socket.socket) -> tuple[bytes, Endpoint]:
        async with asyncio.timeout(WAIT_S):
            octets, source = await asyncio.get_running_loop().sock_recvfrom(sock, 70_000)
        return octets, from_sockaddr(source)

    async def received(self, client: socket.socket) -> tuple[int, bytes]:
        """AID and data of the client's next datagram, which must come from the inside endpoint."""
        octets, source = await self.receive(client)
        assert source == self.inside
        rsv, frag, dgid, aid = HEADER.unpack_from(octets)
        assert (rsv, frag, dgid) == (0, 0, 0)
        return aid, octets[HEADER.size :]

    def change(self, aid: int, **terms: Any) -> Result:
        """Other directions, TTL or sources for an entry that was added."""
        self.terms[aid] = self.terms[aid]._replace(**terms)
        return self.apply(ChangeEntry(aid, self.terms[aid]))

    def forget_ipv6(self) -> None:
        """The outside has lost its IPv6 address."""
        self.plane.renew("", replace(LOOPBACK, ipv6=None))

    async def settled(self, condition: Callable[[], bool]) -> None:
        """Let the plane work until a condition on its counters holds."""
        async with asyncio.timeout(WAIT_S):
            while not condition():  # noqa: ASYNC110 - counters ring no bell
                await asyncio.sleep(0)

    def nothing_waits_for(self, sock: socket.socket) -> bool:
        try:
            sock.recv(70_000)
        except BlockingIOError:
            return True
        return False

    def close(self) -> None:
        assert self.plane.counters().balance == 0, self.plane.counters()
        self.plane.close()
        assert self.plane.descriptors() == 0
        for sock in self._sockets:
            sock.close()

    def _free_inside(self) -> Endpoint:
        for _ in range(100):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind(("127.0.0.1", 0))
                endpoint = from_sockaddr(sock.getsockname())
            try:
                self.plane.open_inside(endpoint)
            except OSError:  # taken in between
                continue
            return endpoint
        raise AssertionError("no free port on loopback")


def on_plane(
    kind: str,
    test: Callable[[Bench], Coroutine[Any, Any, None]],
    ignore_sources: frozenset[str] = frozenset(),
    **options: Any,
) -> None:
    """Run a test's coroutine with a fresh plane of that kind; "", "other" and "shared" are ways out."""
    outsides = {
        "": Outside(LOOPBACK, ignore_sources),
        "other": Outside(LOOPBACK),
        "shared": Outside(LOOPBACK, shares_ports=True),
    }

    async def main() -> None:
        loop = asyncio.get_running_loop()
        bench = Bench(PLANES[kind](loop, outsides, PlaneOptions(**{"max_sockets": 64, **options})))
        try:
            await test(bench)
        finally:
            bench.close()

    loop_factory = asyncio.new_event_loop if kind == "portable" else DatagramLoop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
