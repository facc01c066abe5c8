"""The UDP ASSOCIATEs of a plane (RFC 1928 §7): their doors, their outside sockets, and where their datagrams go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from mcastsocks.address import Endpoint
from mcastsocks.planes import sockets
from mcastsocks.planes.associate import Associated, Way
from mcastsocks.planes.counters import Counters, DropReason
from mcastsocks.planes.doors import Door
from mcastsocks.planes.interface import PlaneOptions
from mcastsocks.planes.outsides import OutsideKey, OutsideSocket, OutsideSockets
from mcastsocks.planes.quota import Quota
from mcastsocks.planes.socks_paths import SocksPaths, block_of
from mcastsocks.tables.changes import Associate, Done, Route, Traffic
from mcastsocks.wire.socks_datagram import encode_header

_WAYS_AGE_S = 60.0
"""How long a verdict, and what a name resolved to, hold for an association's datagrams."""

_REFUSAL_AGE_S = 5.0
"""The same for a refusal: a name, or an upstream, may be there again."""


class Associates:
    """All of one plane. `paths` move the datagrams; `opened` and `closing` are told of doors."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        quota: Quota,
        outsides: OutsideSockets,
        counters: Counters,
        options: PlaneOptions,
        opened: Callable[[Door], None],
        closing: Callable[[Door], None],
    ) -> None:
        self._loop, self._quota, self._outsides = loop, quota, outsides
        self._opened, self._closing = opened, closing
        self.paths = SocksPaths(loop, counters, options)
        self._associated: dict[int, Associated] = {}
        self._doors: dict[Endpoint, Door] = {}
        self._ageing: asyncio.TimerHandle | None = None

    def add(self, associate: Associate) -> Done:
        """Raises OSError when the door's port, or a descriptor, cannot be had."""
        door = self._door(associate)
        associated = Associated(associate, associate.client if associate.client[1] else None, door.sock)
        door.add(associated)
        self._associated[associate.channel] = associated
        if self._ageing is None:
            self._ageing = self._loop.call_later(_WAYS_AGE_S, self._age)
        return Done(self._take_port(associated) if associate.outside_port else None)

    def door(self, channel: int) -> Door:
        """Raises KeyError when it is over."""
        return self._doors[self._associated[channel].associate.inside]

    def remove(self, channel: int) -> Done:
        associated = self._associated.pop(channel)
        self.paths.end(associated)
        self._release_outsides(associated)
        inside = associated.associate.inside
        door = self._doors[inside]
        door.remove(associated)
        if not door:
            self._close_door(self._doors.pop(inside))
        return Done(traffic=associated.traffic)

    def route(self, route: Route) -> Done:
        """Send what waits for it. Raises OSError when there is no outside socket for it, KeyError when it is over."""
        associated = self._associated[route.channel]
        destination = block_of(route.destination)
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
            self.paths.release(associated, destination, way)
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

    def _door(self, associate: Associate) -> Door:
        inside = associate.inside
        if inside not in self._doors:
            zone = associate.client[3] if inside.address.is_link_local and len(associate.client) == 4 else 0
            sock = self._quota.open(partial(sockets.open_inside, inside, zone))
            door = self._doors[inside] = Door(sock)
            self._opened(door)
        return self._doors[inside]

    def _close_door(self, door: Door) -> None:
        self._closing(door)
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
        self.paths.expire()
        self._ageing = self._loop.call_later(_WAYS_AGE_S, self._age) if self._associated else None
