"""Socket addresses as the kernel writes them, in rows of 64-bit words: equal words are equal addresses.

IPv4 takes two words, the second zero: family, port and address are all in the first. IPv6 takes four: family, port and
flow information; two of the address; the scope.
"""

from __future__ import annotations

import errno
import socket
import struct
from functools import lru_cache

import numpy as np

from mcastsocks.address import SockAddr
from mcastsocks.planes.batch.layouts import Words, addresses_of, allocate

WORDS = {4: 2, 6: 4}
OCTETS = {4: 16, 6: 28}  # of sockaddr_in, sockaddr_in6
PORT_MASK = np.uint64(0xFFFF_0000)
"""The bits of the first word that are the port."""

_V4 = struct.Struct("=H2s4s8x")  # sin_family, sin_port, sin_addr
_V6 = struct.Struct("=H2sI16sI4x")  # sin6_family, sin6_port, sin6_flowinfo, sin6_addr, sin6_scope_id
_PORT = struct.Struct("!H")
_ANY_SIZE = 0xFFFF


def version_of(sock: socket.socket) -> int:
    """IP version, 4 or 6."""
    return 4 if sock.family == socket.AF_INET else 6


def words_of(sockaddr: SockAddr) -> Words:
    """The row of an address as the socket module has it, without a name. Raises OSError for what is no address."""
    host, port = sockaddr[0], _PORT.pack(sockaddr[1])
    if len(sockaddr) == 2:
        octets = _V4.pack(socket.AF_INET, port, socket.inet_aton(host))
    else:
        flow, scope = sockaddr[2:]
        octets = _V6.pack(socket.AF_INET6, port, socket.htonl(flow), socket.inet_pton(socket.AF_INET6, host), scope)
    return np.frombuffer(octets, np.uint64)


def sockaddr_of(words: Words) -> SockAddr:
    """The same backwards, equal to what recvfrom gives but for the zone in the text of link-local addresses."""
    octets = words.tobytes()
    if len(words) == WORDS[4]:
        _, port, host = _V4.unpack(octets)
        return (socket.inet_ntoa(host), _PORT.unpack(port)[0])
    _, port, flow, host, scope = _V6.unpack(octets)
    return (socket.inet_ntop(socket.AF_INET6, host), _PORT.unpack(port)[0], socket.ntohl(flow), scope)


@lru_cache(maxsize=4096)
def sockaddr_from(name: bytes) -> SockAddr:
    """The same for the octets of a row, which is whom a datagram came from: the same few as a rule."""
    return sockaddr_of(np.frombuffer(name, np.uint64))


class Destinations:
    """A table of `size` socket addresses of one IP version that datagrams are sent to by index.

    `words` is there to be compared with, too. `largest_segment` is the most octets of a datagram that the kernel
    coalesces towards a destination: learnt from its refusals, forgotten when the row is set again.
    """

    def __init__(self, version: int, size: int) -> None:
        self.version = version
        self.name_octets = OCTETS[version]
        self.words: Words = allocate(size * WORDS[version], np.uint64).reshape(size, WORDS[version])
        self.addresses = addresses_of(self.words)
        self.largest_segment = np.full(size, _ANY_SIZE, np.int64)

    def set(self, index: int, sockaddr: SockAddr) -> None:
        self.words[index] = words_of(sockaddr)
        self.largest_segment[index] = _ANY_SIZE

    def clear(self, index: int) -> None:
        """No address: nothing equals it, and sending there fails."""
        self.words[index] = 0

    def note_refusal(self, index: int, segment_octets: int, why: int) -> None:
        """A coalesced send was refused: EIO, whatever its size; otherwise smaller ones may pass (the path's MTU)."""
        self.largest_segment[index] = 0 if why == errno.EIO else segment_octets - 1
