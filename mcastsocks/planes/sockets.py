"""The sockets of a plane: towards clients, towards the outside, and one for each group that is received."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache

from mcastsocks.address import Endpoint, SockAddr, from_sockaddr, to_sockaddr
from mcastsocks.planes import linux
from mcastsocks.planes.interface import Interface

RECEIVE_BUFFER_OCTETS = 4 << 20
_ANCILLARY_OCTETS = socket.CMSG_SPACE(linux.INT.size)
_ANCILLARY_OF = {
    4: (socket.IPPROTO_IP, socket.IP_TTL, socket.IP_TOS),
    6: (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT, socket.IPV6_TCLASS),
}
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
ECN = 0x03
"""Of the octet with DSCP and ECN (RFC 3168)."""

_BUDGET = 64
"""Datagrams taken from and given for one socket before the others, and the control channels, get their turn."""

_FULL = (errno.EAGAIN, errno.ENOBUFS)


def _open(version: int) -> socket.socket:
    sock = socket.socket(_FAMILY[version], socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    if version == 6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    _ask_for_marks(sock, version)
    try:  # beyond net.core.rmem_max, which only a privileged process may
        sock.setsockopt(socket.SOL_SOCKET, linux.SO_RCVBUFFORCE, RECEIVE_BUFFER_OCTETS)
    except OSError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_OCTETS)
    return sock


class Overruns:
    """What found the receive buffers of sockets full: those that are read, and those that were."""

    def __init__(self) -> None:
        self._socks: set[socket.socket] = set()
        self._of_closed = 0

    def opened(self, sock: socket.socket) -> None:
        self._socks.add(sock)

    def closing(self, sock: socket.socket) -> None:
        self._socks.discard(sock)
        self._of_closed += overruns_of(sock)

    @property
    def total(self) -> int:
        return self._of_closed + sum(map(overruns_of, self._socks))


def overruns_of(sock: socket.socket) -> int:
    """Datagrams that a socket had no room for, and those with a wrong checksum; 0 where the system does not tell."""
    try:
        told = sock.getsockopt(socket.SOL_SOCKET, linux.SO_MEMINFO, linux.MEMINFO.size)
    except OSError:
        return 0
    return int(linux.MEMINFO.unpack(told)[-1]) if len(told) == linux.MEMINFO.size else 0


def flaw_of_buffers() -> str | None:
    """What to change when the kernel grants much less room for received datagrams than wished; None when it does not.

    Raises OSError when there can be no UDP socket at all.
    """
    with _open(4) as sock:
        granted = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2  # Linux doubles it, for its own needs
    if granted >= RECEIVE_BUFFER_OCTETS // 2:
        return None
    return (
        f"UDP receive buffers have {granted} octets instead of {RECEIVE_BUFFER_OCTETS}, so that bursts may be lost: "
        f"raise net.core.rmem_max, or give the relay CAP_NET_ADMIN"
    )


def ask_for_errors(sock: socket.socket, version: int) -> None:
    """Have ICMP errors queued, and a full queue of the interface told (ENOBUFS), where the system does that."""
    with suppress(OSError):
        if version == 4:
            sock.setsockopt(socket.IPPROTO_IP, linux.IP_RECVERR, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, linux.IPV6_RECVERR, 1)


def _ask_for_marks(sock: socket.socket, version: int) -> None:
    """DSCP and ECN of every datagram that comes in, where the system tells them."""
    with suppress(OSError):
        if version == 4:
            sock.setsockopt(socket.IPPROTO_IP, linux.IP_RECVTOS, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)


def open_inside(endpoint: Endpoint, zone: int = 0) -> socket.socket:
    """A socket for clients' datagrams on one of our addresses. Raises OSError when the port is taken."""
    sock = _open(endpoint.address.version)
    try:
        sock.bind(to_sockaddr(endpoint, zone))
    except OSError:
        sock.close()
        raise
    return sock


def open_outside(outside: Interface, version: int, port: int = 0) -> socket.socket:
    """A socket that sends to remotes and groups from an interface's address; on any free port where none is wished.

    Loopback of multicast stays on, so that programs on the relay's host hear what clients send. Raises OSError
    (EAFNOSUPPORT when the interface has no address of that version).
    """
    address = outside.address(version)
    if address is None:
        raise OSError(errno.EAFNOSUPPORT, f"{outside.name} has no IPv{version} address")
    sock = _open(version)
    try:
        sock.bind(to_sockaddr(Endpoint(address, port), outside.index if address.is_link_local else 0))
    except OSError:
        sock.close()
        raise
    return sock


def open_group(group: Endpoint, interface: Interface) -> socket.socket:
    """A socket that receives one group and nothing else, once it is joined; closing it leaves the group.

    It is bound to the group's address and port and, for IPv6, to the interface; for IPv4 MULTICAST_ALL is off. So
    neither unicast, nor another group, nor the same group joined on another interface comes in. Raises OSError.
    """
    version = group.address.version
    sock = _open(version)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if version == 4:
            sock.setsockopt(socket.IPPROTO_IP, linux.IP_MULTICAST_ALL, 0)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, linux.IPV6_MULTICAST_ALL, 0)
            sock.setsockopt(socket.SOL_SOCKET, linux.SO_BINDTOIFINDEX, interface.index)
        sock.bind(to_sockaddr(group, interface.index))
    except OSError:
        sock.close()
        raise
    return sock


def set_multicast_interface(sock: socket.socket, version: int, interface: Interface) -> None:
    """Where a socket's datagrams to groups leave; always named, or they go by the default route."""
    if version == 4:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, linux.ip_mreqn(bytes(4), interface.index))
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, interface.index)


def set_unicast_interface(sock: socket.socket, version: int, interface: Interface) -> None:
    """Where a socket's other datagrams leave, whatever the routing table prefers."""
    index = linux.NETWORK_INT.pack(interface.index)
    if version == 4:
        sock.setsockopt(socket.IPPROTO_IP, linux.IP_UNICAST_IF, index)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, linux.IPV6_UNICAST_IF, index)


def set_multicast_ttl(sock: socket.socket, version: int, ttl: int) -> None:
    """For everything that a socket sends to groups."""
    if version == 4:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, ttl)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, ttl)


def receive_into(sock: socket.socket, view: memoryview) -> tuple[int, SockAddr, int]:
    """One datagram: its octets, its source, its DSCP and ECN as one octet. Raises OSError."""
    octets, ancillary, _, source = sock.recvmsg_into((view,), _ANCILLARY_OCTETS)
    return octets, source, int.from_bytes(ancillary[0][2], sys.byteorder) if ancillary else 0


def drain(sock: socket.socket, view: memoryview, take: Callable[[int, SockAddr, int], int | None]) -> None:
    """Hand over what waits, each as `receive_into` gives it, as much as is worth a turn of one socket.

    `take` may return how many more datagrams were sent because of one: they belong to the turn, too.
    """
    budget = _BUDGET
    while budget > 0:
        try:
            received = receive_into(sock, view)
        except OSError:  # nothing more, or an error left over from a datagram that was sent
            return
        budget -= 1 + (take(*received) or 0)


def send(sock: socket.socket, data: bytes | memoryview, to: SockAddr, ttl: int = 0, tos: int = 0) -> None:
    """One datagram, with a TTL or hop limit and DSCP and ECN of its own where they are not 0. Raises OSError.

    An ICMP error about an earlier datagram, to whomever, fails the call (IP_RECVERR), but only once.
    """
    try:
        _send(sock, data, to, ttl, tos)
    except OSError as error:
        if error.errno in _FULL:
            raise
        _send(sock, data, to, ttl, tos)


def _send(sock: socket.socket, data: bytes | memoryview, to: SockAddr, ttl: int, tos: int) -> None:
    if ttl or tos:
        sock.sendmsg((data,), _ancillary(4 if sock.family == socket.AF_INET else 6, ttl, tos), 0, to)
    else:
        sock.sendto(data, to)


def marked(tos: int, dscp: int | None) -> int:
    """The octet with DSCP and ECN: the DSCP that a rule sets, if any; ECN is always carried across."""
    return tos if dscp is None else dscp << 2 | tos & ECN


@lru_cache(maxsize=4096)
def _ancillary(version: int, ttl: int, tos: int) -> list[tuple[int, int, bytes]]:
    level, hops, marks = _ANCILLARY_OF[version]
    return [(level, kind, linux.INT.pack(value)) for kind, value in ((hops, ttl), (marks, tos)) if value]


def remote_sockaddr(remote: Endpoint, outside: Interface) -> SockAddr:
    """Where to send for a remote; equal to what recvfrom gives for a datagram from there."""
    if remote.address.version == 6 and remote.address.is_link_local:
        return (str(remote.address), remote.port, 0, outside.index)
    return to_sockaddr(remote)


def own_endpoint(sock: socket.socket) -> Endpoint:
    return from_sockaddr(sock.getsockname())
