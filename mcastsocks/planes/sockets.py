"""The sockets of a plane: towards clients, towards the outside, and one for each group that is received."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress

from mcastsocks.address import Endpoint, SockAddr, from_sockaddr, to_sockaddr
from mcastsocks.planes import linux
from mcastsocks.planes.interface import Interface

RECEIVE_BUFFER_OCTETS = 4 << 20
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


def _open(version: int) -> socket.socket:
    sock = socket.socket(_FAMILY[version], socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    if version == 6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:  # beyond net.core.rmem_max, which only a privileged process may
        sock.setsockopt(socket.SOL_SOCKET, linux.SO_RCVBUFFORCE, RECEIVE_BUFFER_OCTETS)
    except OSError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_OCTETS)
    return sock


def open_inside(endpoint: Endpoint, zone: int = 0) -> socket.socket:
    """A socket for clients' datagrams on one of our addresses. Raises OSError when the port is taken."""
    sock = _open(endpoint.address.version)
    try:
        sock.bind(to_sockaddr(endpoint, zone))
    except OSError:
        sock.close()
        raise
    return sock


def open_outside(outside: Interface, version: int) -> socket.socket:
    """A socket on a port of its own that sends to remotes and groups from the outside address.

    The interface for groups is always named: without it they leave by the default route. Loopback of multicast
    stays on, so that programs on the relay's host hear what clients send. Raises OSError (EAFNOSUPPORT when the
    outside interface has no address of that version).
    """
    address = outside.address(version)
    if address is None:
        raise OSError(errno.EAFNOSUPPORT, f"{outside.name} has no IPv{version} address")
    sock = _open(version)
    try:
        set_multicast_interface(sock, version, outside)
        sock.bind(to_sockaddr(Endpoint(address, 0), outside.index if address.is_link_local else 0))
    except OSError:
        sock.close()
        raise
    return sock


def open_group(group: Endpoint, interface: Interface) -> socket.socket:
    """A socket that receives one group and nothing else, once it is joined; closing it leaves the group.

    It is bound to the group's address and port, and MULTICAST_ALL is off, so that neither unicast, nor another
    group, nor the same group joined by another program on another interface comes in. Raises OSError.
    """
    version = group.address.version
    sock = _open(version)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if version == 4:
            sock.setsockopt(socket.IPPROTO_IP, linux.IP_MULTICAST_ALL, 0)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, linux.IPV6_MULTICAST_ALL, 0)
        sock.bind(to_sockaddr(group, interface.index))
    except OSError:
        sock.close()
        raise
    return sock


def set_multicast_interface(sock: socket.socket, version: int, interface: Interface) -> None:
    """Where a socket's datagrams to groups leave."""
    if version == 4:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, linux.ip_mreqn(bytes(4), interface.index))
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, interface.index)


def set_multicast_ttl(sock: socket.socket, version: int, ttl: int) -> None:
    """For everything that a socket sends to groups."""
    if version == 4:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, ttl)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, ttl)


def ttl_message(version: int, ttl: int) -> list[tuple[int, int, bytes]]:
    """Ancillary data for sendmsg that sets the TTL or hop limit of one datagram."""
    if version == 4:
        return [(socket.IPPROTO_IP, socket.IP_TTL, linux.INT.pack(ttl))]
    return [(socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT, linux.INT.pack(ttl))]


def remote_sockaddr(remote: Endpoint, outside: Interface) -> SockAddr:
    """Where to send for a remote; equal to what recvfrom gives for a datagram from there."""
    if remote.address.version == 6 and remote.address.is_link_local:
        return (str(remote.address), remote.port, 0, outside.index)
    return to_sockaddr(remote)


def own_endpoint(sock: socket.socket) -> Endpoint:
    return from_sockaddr(sock.getsockname())


def close(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.close()
