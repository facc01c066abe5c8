"""What becomes of one datagram of a UDP ASSOCIATE (RFC 1928 §7), whichever way it came, on every plane."""

from __future__ import annotations

import asyncio
import errno
from functools import lru_cache, partial

from mcastsocks.address import Endpoint, SockAddr, from_sockaddr, to_sockaddr
from mcastsocks.errors import Truncated, WireError
from mcastsocks.planes import sockets
from mcastsocks.planes.associate import Associated, Way
from mcastsocks.planes.counters import Counters, DropReason, reason_of
from mcastsocks.planes.doors import Door
from mcastsocks.planes.interface import PlaneOptions
from mcastsocks.planes.outsides import OutsideSocket
from mcastsocks.planes.waiting import Waiting
from mcastsocks.tables.socks_reassembly import SocksReassembly
from mcastsocks.wire.datagram import UDP_PAYLOAD_OCTETS
from mcastsocks.wire.socks_datagram import (
    HEAD_OCTETS,
    MAX_HEADER_OCTETS,
    destination_octets,
    encode_header,
    fragments,
    parse_header,
)

_BUFFER_OCTETS = 1 << 16


class SocksPaths:
    """Counts in the plane's counters, asks `options.ask` where a destination is new.

    A datagram from outside stands in `view`, its data at MAX_HEADER_OCTETS: its header is written in front of it.
    `rooms` are the largest UDP payloads that go to a client in one piece, by the IP version of its door.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, counters: Counters, options: PlaneOptions) -> None:
        self._loop, self._counters, self._options = loop, counters, options
        self._reassembly = SocksReassembly[int](options.reassembly, counters.queues)
        self._waiting = Waiting(counters)
        self.view = memoryview(bytearray(MAX_HEADER_OCTETS + _BUFFER_OCTETS))
        self.rooms = dict(UDP_PAYLOAD_OCTETS)
        if options.socks_fragments and options.fragment_above is not None:
            self.rooms = {version: min(room, options.fragment_above) for version, room in self.rooms.items()}
        self._least_room = min(self.rooms.values())

    def drain_door(self, door: Door) -> None:
        """From clients to where each datagram says."""

        def take(octets: int, source: SockAddr, tos: int) -> None:
            self.from_client(door, self.view[:octets], source, tos)

        sockets.drain(door.sock, self.view, take)

    def drain_outside(self, outside: OutsideSocket, associated: Associated) -> None:
        """From remotes to the client."""
        sockets.drain(outside.sock, self.view[MAX_HEADER_OCTETS:], partial(self.from_remote, associated))

    def from_client(self, door: Door, datagram: memoryview, source: SockAddr, tos: int) -> None:
        """With a header that was looked at before it is not parsed again."""
        self._counters.received_inside += 1
        known = door.client_of(source)
        if known is not None and not len(self._reassembly):
            named = destination_octets(datagram)
            way = known.ways.get(named)
            if way is not None and way.outside is not None:
                self._send(known, way, datagram[HEAD_OCTETS + len(named) :], tos)
                return
        self._from_anybody(door, datagram, source, tos)

    def from_remote(self, associated: Associated, octets: int, source: SockAddr, tos: int) -> None:
        """To the client, behind a header that names the remote."""
        self._counters.received_outside += 1
        if associated.client is not None and source in associated.upstreams:
            self._from_upstream(associated, associated.client, octets, tos)
        elif not associated.admits(source):
            self._drop(associated, DropReason.UNEXPECTED_REMOTE)
        elif associated.client is None:
            self._drop(associated, DropReason.ENDPOINT_UNKNOWN)
        else:
            self._to_client(associated, associated.client, octets, source, tos)

    def release(self, associated: Associated, destination: bytes, way: Way | None) -> None:
        """What waited for its way, in order; None: there will be none."""
        for data, tos in self._waiting.release(associated, destination):
            if way is None:
                self._drop(associated, DropReason.UNRESOLVED)
            else:
                self._send(associated, way, data, tos)

    def end(self, associated: Associated) -> None:
        """Nothing of it waits any more."""
        for destination in list(associated.waiting):
            self.release(associated, destination, None)
        self._reassembly.release(associated.associate.channel)

    def expire(self) -> None:
        """Give up fragments whose time is over."""
        self._reassembly.expire(self._loop.time())

    def reassembles(self, associated: Associated) -> bool:
        """Whether its next datagram, of whatever kind, matters to fragments that came before."""
        return len(self._reassembly) > 0 and associated.associate.channel in self._reassembly

    def _from_anybody(self, door: Door, datagram: memoryview, source: SockAddr, tos: int) -> None:
        try:
            frag, destination, end = parse_header(datagram)
        except WireError as error:
            self._counters.drops[_flaw(datagram, error)] += 1
            return
        associated = door.client_at(source)
        if associated is None:
            self._counters.drops[DropReason.WRONG_ADDRESS] += 1
        elif frag and not self._options.socks_fragments:
            self._drop(associated, DropReason.BAD_FRAGMENT)
        elif frag or len(self._reassembly):
            self._reassemble(associated, frag, destination, bytes(datagram[end:]), tos)
        else:
            self._relay(associated, destination, bytes(datagram[HEAD_OCTETS:end]), datagram[end:], tos)

    def _reassemble(self, associated: Associated, frag: int, destination: Endpoint, body: bytes, tos: int) -> None:
        """FRAG 0 passes, and gives up what its sender has left unfinished."""
        most = max(UDP_PAYLOAD_OCTETS.values())
        whole = self._reassembly.add(associated.associate.channel, frag, destination, body, most, self._loop.time())
        self._counters.pieces += bool(frag)
        if whole is not None:
            self._counters.reassembled += bool(frag)
            self._relay(associated, destination, block_of(destination), memoryview(whole), tos)

    def _relay(self, associated: Associated, destination: Endpoint, named: bytes, data: memoryview, tos: int) -> None:
        way = associated.ways.get(named)
        if way is not None and (way.outside is not None or self._loop.time() < way.until):
            self._send(associated, way, data, tos)
            return
        is_new = named not in associated.waiting
        if not self._waiting.hold(associated, destination, named, bytes(data), tos):
            self._drop(associated, DropReason.NOT_WAITING)
        elif is_new:
            self._options.ask(associated.associate.channel, destination)

    def _send(self, associated: Associated, way: Way, data: bytes | memoryview, tos: int) -> None:
        if way.outside is None:
            self._drop(associated, way.refused)
            return
        try:
            datagram = way.prefix + bytes(data) if way.prefix else data
            sockets.send(way.outside, datagram, way.target, tos=sockets.marked(tos, way.dscp))
        except OSError as error:
            self._drop(associated, reason_of(error))
            return
        self._counters.sent_outside += 1
        associated.traffic.to_remote_datagrams += 1
        associated.traffic.to_remote_octets += len(data)

    def _from_upstream(self, associated: Associated, client: SockAddr, octets: int, tos: int) -> None:
        """It has its header already."""
        datagram = self.view[MAX_HEADER_OCTETS : MAX_HEADER_OCTETS + octets]
        try:
            frag, source, start = parse_header(datagram)
        except WireError as error:
            self._drop(associated, _flaw(datagram, error))
            return
        if frag or isinstance(source.host, str):
            self._drop(associated, DropReason.BAD_FRAGMENT if frag else DropReason.BAD_ADDRESS)
            return
        # The data to where it stands without a header; the ranges may overlap.
        self.view[MAX_HEADER_OCTETS : MAX_HEADER_OCTETS + octets - start] = bytes(datagram[start:])
        self._to_client(associated, client, octets - start, to_sockaddr(source), tos)

    def _to_client(self, associated: Associated, client: SockAddr, octets: int, source: SockAddr, tos: int) -> None:
        header = header_of(source[:2])
        start = MAX_HEADER_OCTETS - len(header)
        self.view[start:MAX_HEADER_OCTETS] = header
        datagram = self.view[start : MAX_HEADER_OCTETS + octets]
        try:
            if len(datagram) <= self._least_room:
                sockets.send(associated.inside, datagram, client, tos=tos)
            else:
                for piece in self._pieces(associated, datagram, source, octets):
                    sockets.send(associated.inside, piece, client, tos=tos)
        except OSError as error:
            self._drop(associated, reason_of(error))
            return
        self._counters.sent_inside += 1
        associated.traffic.to_client_datagrams += 1
        associated.traffic.to_client_octets += octets

    def _pieces(
        self, associated: Associated, datagram: memoryview, source: SockAddr, octets: int
    ) -> list[memoryview] | list[bytes]:
        """Raises OSError (EMSGSIZE) for what fits neither whole nor in pieces."""
        room = self.rooms[associated.associate.inside.address.version]
        if len(datagram) <= room:
            return [datagram]
        fragmented = self._options.socks_fragments
        pieces = fragments(from_sockaddr(source), datagram[-octets:], room) if fragmented else None
        if pieces is None:
            raise OSError(errno.EMSGSIZE, "too large for the client")
        return pieces

    def _drop(self, associated: Associated, reason: DropReason) -> None:
        self._counters.drops[reason] += 1
        associated.traffic.dropped_datagrams += 1


def block_of(destination: Endpoint) -> bytes:
    """As a client names it: its header without RSV and FRAG."""
    return encode_header(destination)[HEAD_OCTETS:]


@lru_cache(maxsize=4096)
def header_of(source: SockAddr) -> bytes:
    """What names a remote, by its address and port, to a client."""
    return encode_header(from_sockaddr(source))


def _flaw(datagram: memoryview, error: WireError) -> DropReason:
    if isinstance(error, Truncated):
        return DropReason.RUNT
    if bytes(datagram[:2]) != bytes(2):
        return DropReason.RESERVED_BITS
    return DropReason.BAD_FRAGMENT if datagram[2] == 0x80 else DropReason.BAD_ADDRESS
