"""A group joined with the kernel, by as many sockets as its source filter needs.

The union of the receivers' filters is what the kernel is asked for (RFC 3376 §3.2), so that reports outside and
snooping switches know it; each receiver's own filter is applied to every datagram besides. A list of sources is spread
over several sockets, because the kernel bounds it for each (net.ipv4.igmp_max_msf, net.ipv6.mld_max_msf). Every source
is on one socket only, so nothing comes in twice, and a socket's filter is changed in one call, so nothing is lost.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mcastsocks.address import Endpoint, IPAddress
from mcastsocks.planes import linux, sockets
from mcastsocks.planes.interface import Interface
from mcastsocks.planes.quota import Quota
from mcastsocks.tables.filters import SourceFilter

_MAX_SOURCES = {4: (Path("/proc/sys/net/ipv4/igmp_max_msf"), 10), 6: (Path("/proc/sys/net/ipv6/mld_max_msf"), 64)}


@dataclass(slots=True)
class _Share:
    """One socket and its part of the filter."""

    sock: socket.socket
    part: SourceFilter


class Membership:
    """`opened` is told of each socket to read from, `closing` of each to read it empty before it is closed."""

    def __init__(self, group: Endpoint, interface: Interface, quota: Quota) -> None:
        self._group, self._interface, self._quota = group, interface, quota
        self._wanted: SourceFilter | None = None
        self.opened: Callable[[socket.socket], None] = _nobody
        self.closing: Callable[[socket.socket], None] = _nobody
        self._shares: list[_Share] = []

    def is_held(self, by_the_kernel: Container[IPAddress]) -> bool:
        """Whether the kernel, which says what it holds on the interface, has all that is wanted."""
        return bool(self._shares) and self._group.address in by_the_kernel

    def update(self, wanted: SourceFilter) -> None:
        """Have the kernel let in what is wanted. Raises OSError, and everything is as it was."""
        before = [share.part for share in self._shares]
        try:
            self._become(self._parts(wanted))
        except OSError:
            self._become(before)
            raise
        self._wanted = wanted

    def renew(self, interface: Interface) -> None:
        """Join anew where the kernel forgot: the interface, or its last address, was gone. Raises OSError."""
        self._become([])
        self._interface = interface
        if self._wanted is not None:
            self._become(self._parts(self._wanted))

    def close(self) -> None:
        self._become([])

    def _become(self, parts: list[SourceFilter]) -> None:
        """New sockets first and surplus ones last: what stays wanted has a socket all the time."""
        for part in parts[len(self._shares) :]:
            sock = self._quota.open(
                partial(sockets.open_group, self._group, self._interface), partial(self._join, part=part)
            )
            self._shares.append(_Share(sock, part))
            self.opened(sock)
        for share, part in zip(self._shares, parts, strict=False):
            if share.part != part:
                self._set(share.sock, part)
                share.part = part
        while len(self._shares) > len(parts):
            surplus = self._shares.pop()
            self.closing(surplus.sock)
            self._quota.close(surplus.sock)

    def _parts(self, wanted: SourceFilter) -> list[SourceFilter]:
        """A filter for each socket. Sources keep their socket where they can; too long an exclusion is cut short."""
        most = _max_sources(self._group.address.version)
        if not wanted.include:
            return [SourceFilter(False, frozenset(sorted(wanted.sources, key=int)[:most]))]
        kept = [share.part.sources & wanted.sources if share.part.include else frozenset() for share in self._shares]
        new = sorted(wanted.sources.difference(*kept), key=int)
        parts: list[frozenset[IPAddress]] = []
        for held in (*kept, *(frozenset[IPAddress]() for _ in range(len(new)))):
            room = most - len(held)
            parts.append(held | frozenset(new[:room]))
            new = new[room:]
        return [SourceFilter(True, part) for part in parts if part]

    def _join(self, sock: socket.socket, part: SourceFilter) -> None:
        """The kernel takes a whole filter only for a group that is joined already."""
        level = linux.level_of(self._group)
        if part.include:
            first = min(part.sources, key=int)
            request = linux.group_source_req(self._interface.index, self._group, first)
            sock.setsockopt(level, linux.MCAST_JOIN_SOURCE_GROUP, request)
        else:
            sock.setsockopt(level, linux.MCAST_JOIN_GROUP, linux.group_req(self._interface.index, self._group))
        if len(part.sources) > part.include:
            self._set(sock, part)

    def _set(self, sock: socket.socket, part: SourceFilter) -> None:
        request = linux.group_filter(self._interface.index, self._group, part.include, sorted(part.sources, key=int))
        sock.setsockopt(linux.level_of(self._group), linux.MCAST_MSFILTER, request)


def _nobody(sock: socket.socket) -> None:
    """Nobody reads yet."""


def _max_sources(version: int) -> int:
    path, default = _MAX_SOURCES[version]
    try:
        return max(1, int(path.read_text()))
    except (OSError, ValueError):
        return default
