"""ICMP errors about what was sent, which the kernel queues beside a socket's datagrams (IP_RECVERR: ip(7), ipv6(7)).

Each names the destination that it is about. The kernel also fails the next call on the socket with it, whatever that is
for; so every call is tried again. Where the system has no such queue there are no errors.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Mapping
from enum import StrEnum

from mcastsocks.address import SockAddr
from mcastsocks.planes import linux
from mcastsocks.planes.counters import Counters
from mcastsocks.planes.forwarding import Forwarding
from mcastsocks.planes.outsides import OutsideSocket
from mcastsocks.tables.changes import Traffic

_AT_ONCE = 64
_ANCILLARY_OCTETS = 512
"""The error and its offender, and whatever else the socket was asked to tell."""

_QUEUES = {
    (socket.IPPROTO_IP, linux.IP_RECVERR): linux.SO_EE_ORIGIN_ICMP,
    (socket.IPPROTO_IPV6, linux.IPV6_RECVERR): linux.SO_EE_ORIGIN_ICMP6,
}


class IcmpError(StrEnum):
    """What a destination, or a router before it, had to say."""

    PORT_UNREACHABLE = "port-unreachable"
    HOST_UNREACHABLE = "host-unreachable"  # or too many hops away
    NETWORK_UNREACHABLE = "network-unreachable"
    PROHIBITED = "prohibited"
    TOO_BIG = "too-big"
    OTHER = "other"


_ERROR_OF_ERRNO = {
    errno.ECONNREFUSED: IcmpError.PORT_UNREACHABLE,
    errno.EHOSTUNREACH: IcmpError.HOST_UNREACHABLE,
    errno.EHOSTDOWN: IcmpError.HOST_UNREACHABLE,
    errno.ENETUNREACH: IcmpError.NETWORK_UNREACHABLE,
    errno.EACCES: IcmpError.PROHIBITED,
    errno.EMSGSIZE: IcmpError.TOO_BIG,
}


def note_errors(outside: OutsideSocket, forwardings: Mapping[int, Forwarding], counters: Counters) -> None:
    """Count what waits: in all, and for the association that sends to the destination it is about."""
    for destination, error in _take(outside.sock):
        counters.errors[error] += 1
        if (traffic := _concerned(outside, forwardings, destination)) is not None:
            traffic.errors += 1
            traffic.last_error = error


def _take(sock: socket.socket) -> Iterator[tuple[SockAddr, IcmpError]]:
    """Empty the queue; a flood is left for the next turn."""
    for _ in range(_AT_ONCE):
        try:
            _, ancillary, _, destination = sock.recvmsg(0, _ANCILLARY_OCTETS, linux.MSG_ERRQUEUE)
        except OSError:
            break
        for level, kind, told in ancillary:
            if (level, kind) in _QUEUES and len(told) >= linux.SOCK_EXTENDED_ERR.size:
                number, origin, *_ = linux.SOCK_EXTENDED_ERR.unpack_from(told)
                if origin == _QUEUES[level, kind]:  # not what the kernel itself refused: send said so
                    yield destination, _ERROR_OF_ERRNO.get(number, IcmpError.OTHER)


def _concerned(outside: OutsideSocket, forwardings: Mapping[int, Forwarding], destination: SockAddr) -> Traffic | None:
    if outside.associated is not None:
        return outside.associated.traffic
    for index in (outside.targets, outside.remotes):
        aid = index.exactly(destination[:2])
        if aid is not None and forwardings[aid].sends:
            return forwardings[aid].traffic
    return None
