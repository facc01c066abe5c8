"""The datagrams of UDP ASSOCIATE (RFC 1928 §7), each with its destination in front; the same for every plane."""

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
from mcastsocks.planes.loop import unwatch, watch
from mcastsocks.planes.outsides import OutsideKey, OutsideSocket, OutsideSockets
from mcastsocks.planes.quota import Quota
from mcastsocks.planes.sockets import Overruns
from mcastsocks.tables.changes import Associate, Done, Route, Traffic
from mcastsocks.tables.socks_reassembly import SocksReassembly
from mcastsocks.wire.datagram import UDP_PAYLOAD_OCTETS
from mcastsocks.wire.socks_datagram import MAX_HEADER_OCTETS, encode_header, fragments, parse_header

_BUDGET = 64
_WAYS_AGE_S = 60.0
"""How long a verdict, and what a name resolved to, hold for an association's datagrams."""

_REFUSAL_AGE_S = 5.0
"""The same for a refusal: a name, or an upstream, may be there again."""

_WAITING_OCTETS = 8 << 20
"""Of datagrams that wait for a name, in all."""


class Associates:
    """All of one plane. Counts in the plane's counters, asks `options.ask` where a destination is new."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        quota: Quota,
        outsides: OutsideSockets,
        counters: Counters,
        overruns: Overruns,
        options: PlaneOptions,
    ) -> None:
        self._loop, self._quota, self._outsides = loop, quota, outsides
        self._counters, self._options = counters, options
        self._associated: dict[int, Associated] = {}
        self._doors: dict[Endpoint, Door] = {}
        self._overruns = overruns
        self._reassembly = SocksReassembly[int](options.reassembly, counters.queues)
        self._waiting_octets = 0
        self._buffer = memoryview(bytearray(MAX_HEADER_OCTETS + (1 << 16)))
        self._ageing: asyncio.TimerHandle | None = None

    def add(self, associate: Associate) -> Done:
        """Raises OSError when the door's port, or a descriptor, cannot be had."""
        associated = Associated(associate, associate.client if associate.client[1] else None)
        self._door(associate).add(associated)
        self._associated[associate.channel] = associated
        if self._ageing is None:
            self._ageing = self._loop.call_later(_WAYS_AGE_S, self._age)
        return Done(self._take_port(associated) if associate.outside_port else None)

    def remove(self, channel: int) -> Done:
        associated = self._associated.pop(channel)
        for destination in list(associated.waiting):
            self._release(associated, destination, None)
        self._release_outsides(associated)
        self._reassembly.release(channel)
        inside = associated.associate.inside
        door = self._doors[inside]
        door.remove(associated)
        if not door:
            self._close_door(self._doors.pop(inside))
        return Done(traffic=associated.traffic)

    def route(self, route: Route) -> Done:
        """Send what waits for it. Raises OSError when there is no outside socket for it, KeyError when it is over."""
        associated = self._associated[route.channel]
        destination = _named(route.destination)
        until, outside = self._loop.time() + _REFUSAL_AGE_S, None
        way = Way(None, (), None, DropReason(route.refused or DropReason.UNREACHABLE), until=until)
        try:
            if route.target is not None:
                outside = self._outside(associated, route.via, (route.through or route.target).address.version)
                interface = self._outsides.interface(route.via)
                target = sockets.remote_sockaddr(route.through or route.target, interface)
                prefix = encode_header(route.target) if route.through is not None else b""
                way = Way(outside.sock, target, route.dscp, DropReason.UNREACHABLE, prefix)
                if route.through is not None:
                    associated.upstreams.add(target)
                else:
                    associated.contact(target)
        finally:
            associated.keep(destination, way)
            self._release(associated, destination, way)
        return Done(outside.endpoint if outside is not None else None)

    def forget(self, channel: int) -> Done:
        self._associated[channel].ways.clear()
        self._associated[channel].upstreams.clear()
        return Done()

    def traffic(self, channel: int) -> Traffic | None:
        associated = self._associated.get(channel)
        return associated.traffic if associated is not None else None

    def close(self) -> None:
        for channel in list(self._associated):
            self.remove(channel)
        if self._ageing is not None:
            self._ageing.cancel()

    def drain_outside(self, outside: OutsideSocket, associated: Associated) -> None:
        """From remotes to the client, behind a header that names the remote."""
        for _ in range(_BUDGET):
            try:
                octets, source, tos = sockets.receive_into(outside.sock, self._buffer[MAX_HEADER_OCTETS:])
            except OSError:
                return
            self._counters.received_outside += 1
            if associated.client is not None and source in associated.upstreams:
                self._from_upstream(associated, associated.client, octets, tos)
            elif not associated.admits(source):
                self._drop(associated, DropReason.UNEXPECTED_REMOTE)
            elif associated.client is None:
                self._drop(associated, DropReason.ENDPOINT_UNKNOWN)
            else:
                self._to_client(associated, associated.client, octets, source, tos)

    def _from_upstream(self, associated: Associated, client: SockAddr, octets: int, tos: int) -> None:
        """It has its header already."""
        datagram = self._buffer[MAX_HEADER_OCTETS : MAX_HEADER_OCTETS + octets]
        try:
            frag, source, start = parse_header(datagram)
        except WireError as error:
            self._drop(associated, _flaw(datagram, error))
            return
        if frag or isinstance(source.host, str):
            self._drop(associated, DropReason.BAD_FRAGMENT if frag else DropReason.BAD_ADDRESS)
            return
        # The data to where it stands without a header; the ranges may overlap.
        self._buffer[MAX_HEADER_OCTETS : MAX_HEADER_OCTETS + octets - start] = bytes(datagram[start:])
        self._to_client(associated, client, octets - start, to_sockaddr(source), tos)

    def _drain_door(self, door: Door) -> None:
        """From clients to where each datagram says."""
        for _ in range(_BUDGET):
            try:
                octets, source, tos = sockets.receive_into(door.sock, self._buffer)
            except OSError:
                return
            self._counters.received_inside += 1
            self._from_client(door, self._buffer[:octets], source, tos)

    def _from_client(self, door: Door, datagram: memoryview, source: SockAddr, tos: int) -> None:
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
            self._relay(associated, destination, bytes(datagram[3:end]), datagram[end:], tos)

    def _reassemble(self, associated: Associated, frag: int, destination: Endpoint, body: bytes, tos: int) -> None:
        """FRAG 0 passes, and gives up what its sender has left unfinished."""
        most = max(UDP_PAYLOAD_OCTETS.values())
        whole = self._reassembly.add(associated.associate.channel, frag, destination, body, most, self._loop.time())
        self._counters.pieces += bool(frag)
        if whole is not None:
            self._counters.reassembled += bool(frag)
            self._relay(associated, destination, _named(destination), memoryview(whole), tos)

    def _relay(self, associated: Associated, destination: Endpoint, named: bytes, data: memoryview, tos: int) -> None:
        way = associated.ways.get(named)
        if way is not None and (way.outside is not None or self._loop.time() < way.until):
            self._send(associated, way, data, tos)
            return
        is_new = named not in associated.waiting
        is_name = isinstance(destination.host, str) or not is_new  # an address is answered at once
        is_full = is_name and self._waiting_octets + len(data) > _WAITING_OCTETS
        if is_full or not associated.wait(named, bytes(data), tos):
            self._drop(associated, DropReason.NOT_WAITING)
            return
        self._counters.waiting += 1
        self._waiting_octets += len(data)
        if is_new:
            self._options.ask(associated.associate.channel, destination)

    def _release(self, associated: Associated, destination: bytes, way: Way | None) -> None:
        """What waited for its way, in order; None: there will be none."""
        for data, tos in associated.waiting.pop(destination, ()):
            self._counters.waiting -= 1
            self._waiting_octets -= len(data)
            associated.waiting_octets -= len(data)
            if way is None:
                self._drop(associated, DropReason.UNRESOLVED)
            else:
                self._send(associated, way, data, tos)

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

    def _to_client(self, associated: Associated, client: SockAddr, octets: int, source: SockAddr, tos: int) -> None:
        """The data stands in the buffer; its header is written in front of it."""
        header, door = _header(source[:2]), self._doors[associated.associate.inside].sock
        start = MAX_HEADER_OCTETS - len(header)
        self._buffer[start:MAX_HEADER_OCTETS] = header
        datagram = self._buffer[start : MAX_HEADER_OCTETS + octets]
        try:
            for piece in self._pieces(associated, datagram, source, octets):
                sockets.send(door, piece, client, tos=tos)
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
        carries = UDP_PAYLOAD_OCTETS[associated.associate.inside.address.version]
        fragmented = self._options.socks_fragments
        room = min(carries, self._options.fragment_above or carries) if fragmented else carries
        if len(datagram) <= room:
            return [datagram]
        pieces = fragments(from_sockaddr(source), datagram[-octets:], room) if fragmented else None
        if pieces is None:
            raise OSError(errno.EMSGSIZE, "too large for the client")
        return pieces

    def _door(self, associate: Associate) -> Door:
        inside = associate.inside
        if inside not in self._doors:
            zone = associate.client[3] if inside.address.is_link_local and len(associate.client) == 4 else 0
            sock = self._quota.open(partial(sockets.open_inside, inside, zone))
            door = self._doors[inside] = Door(sock)
            watch(self._loop, sock.fileno(), partial(self._drain_door, door))
            self._overruns.opened(sock)
        return self._doors[inside]

    def _close_door(self, door: Door) -> None:
        unwatch(self._loop, door.sock.fileno())
        self._overruns.closing(door.sock)
        self._quota.close(door.sock)

    def _outside(self, associated: Associated, via: str, version: int, port: int = 0) -> OutsideSocket:
        """Raises OSError."""
        associate = associated.associate
        key = OutsideKey(via, associate.channel, associate.client, version)
        if key not in associated.outsides:
            outside = associated.outsides[key] = self._outsides.use(key, port)
            outside.associated = associated
        return associated.outsides[key]

    def _take_port(self, associated: Associated) -> Endpoint | None:
        """The port that the client wishes, in every IP version that the outside speaks, or in none."""
        associate, endpoint = associated.associate, None
        for version in (4, 6):
            if self._outsides.interface(associate.via).address(version) is None:
                continue
            try:
                outside = self._outside(associated, associate.via, version, associate.outside_port)
            except OSError:
                self._release_outsides(associated)
                return None
            endpoint = endpoint or outside.endpoint
        return endpoint

    def _release_outsides(self, associated: Associated) -> None:
        for key in associated.outsides:
            self._outsides.release(key)
        associated.outsides.clear()

    def _age(self) -> None:
        """Ask again from time to time; who was sent to may go on answering."""
        for associated in self._associated.values():
            associated.ways.clear()
        self._reassembly.expire(self._loop.time())
        self._ageing = self._loop.call_later(_WAYS_AGE_S, self._age) if self._associated else None

    def _drop(self, associated: Associated, reason: DropReason) -> None:
        self._counters.drops[reason] += 1
        associated.traffic.dropped_datagrams += 1


def _flaw(datagram: memoryview, error: WireError) -> DropReason:
    if isinstance(error, Truncated):
        return DropReason.RUNT
    if bytes(datagram[:2]) != bytes(2):
        return DropReason.RESERVED_BITS
    return DropReason.BAD_FRAGMENT if datagram[2] == 0x80 else DropReason.BAD_ADDRESS


def _named(destination: Endpoint) -> bytes:
    """As a client names it: its header without RSV and FRAG."""
    return encode_header(destination)[3:]


@lru_cache(maxsize=4096)
def _header(source: SockAddr) -> bytes:
    return encode_header(from_sockaddr(source))
