"""Requests and replies of SOCKS 4, and of 4a, which sends a name where SOCKS 4 has an address only.

There is no authentication in it: USERID is what the client says, and proves nothing.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address

from mcastsocks.address import UNUSED, Endpoint
from mcastsocks.errors import WireError
from mcastsocks.wire.block import Octets, encode_name, parse_name
from mcastsocks.wire.replies import ReplyCode
from mcastsocks.wire.socks5 import Command

VERSION = 0x04

_FIXED = struct.Struct("!BBH4s")  # VN, CD, DSTPORT, DSTIP
_REPLY_VERSION = 0x00
_NAME_FOLLOWS = IPv4Address("0.0.0.1")
_MOST_OCTETS = 255
"""Of USERID and of the name, the NUL not counted; the protocol sets no bound."""


class Answer(IntEnum):
    """CD of a reply. 92 and 93 are about identd, which this relay never asks."""

    GRANTED = 90
    REJECTED = 91
    NO_IDENTD = 92
    OTHER_USER = 93


@dataclass(frozen=True, slots=True)
class Socks4Request:
    """VN CD DSTPORT DSTIP USERID NUL, and NAME NUL when DSTIP is 0.0.0.x, x not 0 (4a).

    `command` is numbered as in SOCKS 5; there are CONNECT and BIND alone. `user` is USERID, in octets because
    it needs not be text; it may be empty.
    """

    command: int
    destination: Endpoint
    user: bytes = b""

    @classmethod
    def parse(cls, octets: Octets) -> tuple[Socks4Request, int] | None:
        """Raises WireError: with reply 07 for another command, 01 or 09 for a string too long, 09 for a bad name."""
        if not octets:
            return None
        if octets[0] != VERSION:
            raise WireError(f"expected version X'04' of the request, not X'{octets[0]:02x}'")
        if len(octets) >= 2 and octets[1] not in (Command.CONNECT, Command.BIND):
            raise WireError(f"SOCKS 4 has no command X'{octets[1]:02x}'", ReplyCode.COMMAND_NOT_SUPPORTED)
        if len(octets) < _FIXED.size:
            return None
        _, command, port, packed = _FIXED.unpack_from(octets)
        user = _terminated(octets, _FIXED.size, "a user id", ReplyCode.GENERAL_FAILURE)
        if user is None:
            return None
        address, end = IPv4Address(packed), _FIXED.size + len(user) + 1
        if not 0 < int(address) <= 0xFF:
            return cls(command, Endpoint(address, port), user), end
        name = _terminated(octets, end, "a name", ReplyCode.INVALID_ADDRESS)
        if name is None:
            return None
        return cls(command, Endpoint(parse_name(name), port), user), end + len(name) + 1

    def encode(self) -> bytes:
        """Raises ValueError for what no request can say: an IPv6 address, a user id too long or with a NUL."""
        if len(self.user) > _MOST_OCTETS or 0 in self.user:
            raise ValueError(f"a user id has at most {_MOST_OCTETS} octets, none of them zero")
        host, port = self.destination
        if isinstance(host, str):
            name = encode_name(host)
            if 0 in name:
                raise ValueError("a name with a NUL ends there")
            return _FIXED.pack(VERSION, self.command, port, _NAME_FOLLOWS.packed) + self.user + b"\0" + name + b"\0"
        return _FIXED.pack(VERSION, self.command, port, _packed(self.destination)) + self.user + b"\0"


@dataclass(frozen=True, slots=True)
class Socks4Reply:
    """VN CD DSTPORT DSTIP, VN being 0; a client understands 0.0.0.0 as the address that it asked the relay at."""

    code: int
    bound: Endpoint = UNUSED

    @classmethod
    def parse(cls, octets: Octets) -> tuple[Socks4Reply, int] | None:
        """Raises WireError for another version."""
        if not octets:
            return None
        if octets[0] != _REPLY_VERSION:
            raise WireError(f"expected version X'00' of the reply, not X'{octets[0]:02x}'")
        if len(octets) < _FIXED.size:
            return None
        _, code, port, packed = _FIXED.unpack_from(octets)
        return cls(code, Endpoint(IPv4Address(packed), port)), _FIXED.size

    def encode(self) -> bytes:
        """Raises ValueError for an endpoint without an IPv4 address."""
        return _FIXED.pack(_REPLY_VERSION, self.code, self.bound.port, _packed(self.bound))


def _packed(endpoint: Endpoint) -> bytes:
    if not isinstance(endpoint.host, IPv4Address):
        raise ValueError(f"SOCKS 4 knows IPv4 addresses only, not {endpoint.host}")
    return endpoint.host.packed


def _terminated(octets: Octets, start: int, what: str, reply: ReplyCode) -> bytes | None:
    """The octets from `start` up to the NUL; None while it is missing and may still come."""
    string, nul, _ = bytes(octets[start : start + _MOST_OCTETS + 1]).partition(b"\0")
    if nul:
        return string
    if len(string) > _MOST_OCTETS:
        raise WireError(f"{what} of more than {_MOST_OCTETS} octets", reply)
    return None
