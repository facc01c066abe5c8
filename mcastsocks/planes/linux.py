"""Constants and structures of Linux that Python's socket module lacks."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from mcastsocks.address import Endpoint, IPAddress

IP_MULTICAST_ALL = 49  # include/uapi/linux/in.h
IPV6_MULTICAST_ALL = 29  # include/uapi/linux/in6.h
IP_RECVTOS = 13
IP_UNICAST_IF = 50
IPV6_UNICAST_IF = 76
SO_RCVBUFFORCE = 33  # include/uapi/asm-generic/socket.h; needs CAP_NET_ADMIN
SO_BINDTOIFINDEX = 62
SO_MEMINFO = 55

IP_RECVERR = 11  # include/uapi/linux/in.h
IPV6_RECVERR = 25  # include/uapi/linux/in6.h
MSG_ERRQUEUE = 0x2000  # include/linux/socket.h
SO_EE_ORIGIN_ICMP = 2  # include/uapi/linux/errqueue.h
SO_EE_ORIGIN_ICMP6 = 3

MCAST_JOIN_GROUP = 42  # include/uapi/linux/in.h, for both families (RFC 3678 §5)
MCAST_LEAVE_GROUP = 45
MCAST_JOIN_SOURCE_GROUP = 46
MCAST_MSFILTER = 48
_MCAST_EXCLUDE, _MCAST_INCLUDE = 0, 1

_IP_MREQN = struct.Struct("@4s4si")  # imr_multiaddr, imr_address, imr_ifindex
_GROUP_REQ = struct.Struct("@I4x128s")  # gr_interface, gr_group (sockaddr_storage, aligned to 8)
_GROUP_SOURCE_REQ = struct.Struct("@I4x128s128s")  # gsr_interface, gsr_group, gsr_source
_GROUP_FILTER = struct.Struct("@I4x128sII")  # gf_interface, gf_group, gf_fmode, gf_numsrc; then the sources
_SOCKADDR_IN = struct.Struct("@HH4s")  # sin_family, sin_port, sin_addr
_SOCKADDR_IN6 = struct.Struct("@HHI16sI")  # sin6_family, sin6_port, sin6_flowinfo, sin6_addr, sin6_scope_id
SOCK_EXTENDED_ERR = struct.Struct("@IBBBxII")  # ee_errno, ee_origin, ee_type, ee_code, ee_info, ee_data
MEMINFO = struct.Struct("@9I")  # SK_MEMINFO_VARS (include/uapi/linux/sock_diag.h); the last is SK_MEMINFO_DROPS
INT = struct.Struct("@i")
NETWORK_INT = struct.Struct("!i")


def ip_mreqn(group: bytes, interface_index: int) -> bytes:
    """struct ip_mreqn; group is four zero octets to choose an outgoing interface."""
    return _IP_MREQN.pack(group, bytes(4), interface_index)


def level_of(group: Endpoint) -> int:
    return socket.IPPROTO_IP if group.address.version == 4 else socket.IPPROTO_IPV6


def group_req(interface_index: int, group: Endpoint) -> bytes:
    """struct group_req."""
    return _GROUP_REQ.pack(interface_index, _sockaddr(group.address))


def group_source_req(interface_index: int, group: Endpoint, source: IPAddress) -> bytes:
    """struct group_source_req."""
    return _GROUP_SOURCE_REQ.pack(interface_index, _sockaddr(group.address), _sockaddr(source))


def group_filter(interface_index: int, group: Endpoint, include: bool, sources: Sequence[IPAddress]) -> bytes:
    """struct group_filter with its sources."""
    mode = _MCAST_INCLUDE if include else _MCAST_EXCLUDE
    head = _GROUP_FILTER.pack(interface_index, _sockaddr(group.address), mode, len(sources))
    return head + b"".join(_sockaddr(source).ljust(128, b"\0") for source in sources)


def held_groups(interface: str) -> set[IPAddress]:
    """The groups that the kernel holds on an interface, by its own account; empty where it is not there."""
    return {*_held_ipv4(interface), *_held_ipv6(interface)}


def _held_ipv4(interface: str) -> Iterator[IPAddress]:
    """/proc/net/igmp: a line for each interface, then an indented one for each group, as a number in host order."""
    current = ""
    for line in Path("/proc/net/igmp").read_text().splitlines()[1:]:
        fields = line.split()
        if not line.startswith("\t"):
            current = fields[1]
        elif current == interface:
            yield IPv4Address(int(fields[0], 16).to_bytes(4, sys.byteorder))


def _held_ipv6(interface: str) -> Iterator[IPAddress]:
    """/proc/net/igmp6: index, interface, group in hex, users and so on."""
    path = Path("/proc/net/igmp6")
    for line in path.read_text().splitlines() if path.exists() else ():
        _, name, group, *_ = line.split()
        if name == interface:
            yield IPv6Address(bytes.fromhex(group))


def _sockaddr(address: IPAddress) -> bytes:
    """struct sockaddr_in or sockaddr_in6, port zero; a Struct pads it to sockaddr_storage."""
    if address.version == 4:
        return _SOCKADDR_IN.pack(socket.AF_INET, 0, address.packed)
    return _SOCKADDR_IN6.pack(socket.AF_INET6, 0, 0, address.packed, 0)
