"""What comes out of a plane under random traffic, told so that it is the same for every plane and every run."""

from __future__ import annotations

import socket
import struct
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from mcastsocks.address import Endpoint, SockAddr
from mcastsocks.planes.linux import IP_RECVTOS
from mcastsocks.wire.datagram import HEADER
from tests.planes.bench import Bench

_IP_RECVTTL = 12
_FLOW = struct.Struct("!H")
_HEAD = struct.Struct("!HH")
_Flow = tuple[str, object, object]


@dataclass
class Observed:
    """What came out of a plane: datagrams by socket and flow, in order; counters; traffic by AID; changes' results."""

    datagrams: dict[_Flow, list[object]] = field(default_factory=lambda: defaultdict(list))
    unordered: dict[_Flow, list[Any]] = field(default_factory=lambda: defaultdict(list))
    counters: dict[str, int] = field(default_factory=dict)
    traffic: dict[int, dict[str, object]] = field(default_factory=dict)
    results: list[str] = field(default_factory=list)

    def settle(self) -> None:
        for datagrams in self.unordered.values():
            datagrams.sort()


class Witness:
    """Reads what sockets around a plane receive; ports differ between runs, so that everybody has a name."""

    def __init__(self, bench: Bench, insides: Sequence[Endpoint], doors: Sequence[Endpoint]) -> None:
        self._bench, self.observed = bench, Observed()
        self._insides = {(str(each.host), each.port) for each in insides}
        self._doors = [(str(each.host), each.port) for each in doors]
        self._socks: list[socket.socket] = []
        self.names: dict[SockAddr, str] = {}
        self._flows: dict[tuple[str, str], int] = {}
        self._twice: set[bytes] = set()
        self._sequence = 0

    def open(self, kind: str, hosts: Sequence[str]) -> list[socket.socket]:
        found = []
        for number, host in enumerate(hosts):
            sock = self._bench.udp(host)
            self.watch(sock, f"{kind} {number}")
            found.append(sock)
        return found

    def watch(self, sock: socket.socket, name: str) -> None:
        self._socks.append(sock)
        self.names[sock.getsockname()] = self.names[sock.getsockname()[:2]] = name
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        if sock.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVTOS, 1)
            sock.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)

    def payload(self, sock: socket.socket | None, to: str, octets: int) -> bytes:
        """Says from where and to which of the relay's sockets it goes, and its place among those."""
        self._sequence += 1
        whence = self.names[sock.getsockname()] if sock is not None else "channel"
        flow = self._flows.setdefault((whence, to), len(self._flows))
        if whence.startswith("client") and not to.isdigit():
            self._twice.add(_FLOW.pack(flow))
        return _HEAD.pack(flow, self._sequence & 0xFFFF).ljust(octets, b"x") if octets >= _HEAD.size else bytes(octets)

    def look(self) -> None:
        """At everything that has arrived."""
        for sock in self._socks:
            with suppress(BlockingIOError):
                while True:
                    self._see(sock)

    def _see(self, sock: socket.socket) -> None:
        octets, ancillary, _, source = sock.recvmsg(70_000, 256)
        name = self.names[sock.getsockname()]
        told = sorted((kind, int.from_bytes(value, "little")) for _, kind, value in ancillary)
        whence = self.names.get(source[:2], "somebody")
        if source[:2] in self._doors:
            whence, data = self.split_source(octets[3:])
            # A client has one association at a door; of a piece nothing else tells which of them it belongs to.
            flow = (name, (whence, self._doors.index(source[:2])), data[: _FLOW.size])
            self._note(flow, (octets[:3], data), told, self._is_ordered(data))
            return
        if source[:2] not in self._insides:
            self._note((name, whence, octets[:2]), octets, told, self._is_ordered(octets))
            return
        rsv, frag, dgid, aid = HEADER.unpack_from(octets)
        whence, data = (
            self.split_source(octets[HEADER.size :]) if rsv and frag & 0x7F < 2 else ("", octets[HEADER.size :])
        )
        is_whole = not frag and self._is_ordered(data)
        self._note((name, aid, data[:2] if is_whole else frag), (rsv, frag, bool(dgid), whence, data), told, is_whole)

    def _is_ordered(self, data: bytes) -> bool:
        """What is too small says nothing, and what a client multicasts in MM-mode comes two ways: here, inside is
        outside too."""
        return len(data) >= _HEAD.size and data[: _FLOW.size] not in self._twice

    def _note(self, flow: _Flow, octets: object, told: object, in_order: bool) -> None:
        (self.observed.datagrams if in_order else self.observed.unordered)[flow].append((octets, told))

    def split_source(self, body: bytes) -> tuple[str, bytes]:
        """The original sender that is reported, by name, as its port is another each time; and the data behind it."""
        end = (4 if body[0] == 1 else 16) + 3
        host, port = ip_address(body[1 : end - 2]), int.from_bytes(body[end - 2 : end])
        return self.names.get((str(host), port), f"{host}"), body[end:]
