"""Constants and structures of Linux that Python's socket module lacks."""

from __future__ import annotations

import struct

IP_MULTICAST_ALL = 49  # include/uapi/linux/in.h
IPV6_MULTICAST_ALL = 29  # include/uapi/linux/in6.h
SO_RCVBUFFORCE = 33  # include/uapi/asm-generic/socket.h; needs CAP_NET_ADMIN

_IP_MREQN = struct.Struct("@4s4si")  # imr_multiaddr, imr_address, imr_ifindex
_IPV6_MREQ = struct.Struct("@16si")  # ipv6mr_multiaddr, ipv6mr_interface
INT = struct.Struct("@i")


def ip_mreqn(group: bytes, interface_index: int) -> bytes:
    """struct ip_mreqn; group is four zero octets to choose an outgoing interface."""
    return _IP_MREQN.pack(group, bytes(4), interface_index)


def ipv6_mreq(group: bytes, interface_index: int) -> bytes:
    """struct ipv6_mreq."""
    return _IPV6_MREQ.pack(group, interface_index)
