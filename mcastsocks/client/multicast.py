"""Groups on the network that the client itself is on (MM-mode: mcast §5.1)."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from asyncio.trsock import TransportSocket
from collections.abc import Callable
from pathlib import Path

from mcastsocks.address import Endpoint, SockAddr, to_sockaddr

_IP_MULTICAST_ALL = 49  # include/uapi/linux/in.h; Python's socket module lacks these
_IPV6_MULTICAST_ALL = 29  # include/uapi/linux/in6.h
_SO_BINDTOIFINDEX = 62  # include/uapi/asm-generic/socket.h; needs no privilege since Linux 5.7
_MOST_OCTETS = 1 << 16
_BUDGET = 64
"""Datagrams taken from a socket before others get their turn."""

RECEIVE_BUFFER_OCTETS = 4 << 20


class GroupSocket:
    """Receives one group on the interface that has the address `own`, but what came from `own` itself.

    It is bound to the group's address and port, and MULTICAST_ALL is off, so that neither another group comes in nor
    the same group of another interface; for IPv6 that takes binding to the interface too, because the kernel compares
    only groups there. Closing it leaves the group.
    """

    def __init__(self, group: Endpoint, own: SockAddr, deliver: Callable[[bytes], None]) -> None:
        """Raises OSError when the kernel does not join."""
        self._own, self._deliver = own[:2], deliver
        self._loop = asyncio.get_running_loop()
        self._sock = _joined(group, own)
        self._loop.add_reader(self._sock, self._drain)

    def close(self) -> None:
        self._loop.remove_reader(self._sock)
        self._sock.close()

    def _drain(self) -> None:
        for _ in range(_BUDGET):
            try:
                octets, source = self._sock.recvfrom(_MOST_OCTETS)
            except OSError:  # nothing more, or the interface went down
                return
            if source[:2] != self._own:
                self._deliver(octets)


def choose_interface(sock: TransportSocket, own: SockAddr) -> None:
    """Datagrams to groups leave by the interface that has the address `own`, as far as the next router (TTL 1).

    Raises OSError.
    """
    if len(own) == 2:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(own[0]))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, _interface_index(own))
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 1)


def _joined(group: Endpoint, own: SockAddr) -> socket.socket:
    family = socket.AF_INET if group.address.version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_OCTETS)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET:
            _join_ipv4(sock, group, own)
        else:
            _join_ipv6(sock, group, own)
    except OSError:
        sock.close()
        raise
    return sock


def _join_ipv4(sock: socket.socket, group: Endpoint, own: SockAddr) -> None:
    sock.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
    sock.bind(to_sockaddr(group))
    membership = group.address.packed + socket.inet_aton(own[0])  # struct ip_mreq: the kernel finds the interface
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)


def _join_ipv6(sock: socket.socket, group: Endpoint, own: SockAddr) -> None:
    index = _interface_index(own)
    sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL, 0)
    sock.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, index)
    sock.bind(to_sockaddr(group, index))
    membership = group.address.packed + index.to_bytes(4, sys.byteorder)  # struct ipv6_mreq
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)


def _interface_index(own: SockAddr) -> int:
    """Of the interface that has an IPv6 address: the zone of a link-local one, else by what the kernel lists.

    That has a line for each address: in hex without colons, then the interface's index in hex, and more.
    """
    if own[3]:
        return int(own[3])
    wanted = socket.inet_pton(socket.AF_INET6, own[0]).hex()
    for line in Path("/proc/thread-self/net/if_inet6").read_text().splitlines():
        address, index, *_ = line.split()
        if address == wanted:
            return int(index, 16)
    raise OSError(errno.EADDRNOTAVAIL, f"no interface has {own[0]}")
