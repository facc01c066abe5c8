"""The address block ATYP, ADDR, PORT that requests, replies, control messages and datagrams share."""

from __future__ import annotations

import struct
from enum import IntEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from mcastsocks.address import Endpoint, IPAddress
from mcastsocks.errors import Truncated, WireError
from mcastsocks.wire.replies import ReplyCode

Octets = bytes | bytearray | memoryview

_PORT = struct.Struct("!H")
_UNUSED = bytes(7)  # ATYP 00, four octets, port


class AddressType(IntEnum):
    """ATYP (RFC 1928 §5; 00 in unused fields of mcast §4.2)."""

    UNUSED = 0x00
    IPV4 = 0x01
    NAME = 0x03
    IPV6 = 0x04


_WIDTH = {AddressType.UNUSED: 4, AddressType.IPV4: 4, AddressType.IPV6: 16}


def block_end(octets: Octets, offset: int) -> int:
    """The offset behind the block at `offset`, whatever its content.

    Raises Truncated when the octets end inside the block, WireError with reply 08 for an unknown ATYP.
    """
    if offset >= len(octets):
        raise Truncated("an address block is missing")
    kind = octets[offset]
    if kind == AddressType.NAME:
        if offset + 1 >= len(octets):
            raise Truncated("a name without its length")
        end = offset + 2 + octets[offset + 1] + _PORT.size
    elif kind in _WIDTH:
        end = offset + 1 + _WIDTH[AddressType(kind)] + _PORT.size
    else:
        raise WireError(f"unknown address type X'{kind:02x}'", ReplyCode.ADDRESS_TYPE_NOT_SUPPORTED)
    if end > len(octets):
        raise Truncated("an address block is cut short")
    return end


def parse_block(octets: Octets, offset: int = 0) -> tuple[Endpoint | None, int]:
    """The endpoint at `offset` and the offset behind it; None for an unused block (ATYP 00, all zero).

    Raises what block_end raises, and WireError with reply 08 for an ATYP 00 with content, 09 for a name that is
    empty or cannot be one.
    """
    end = block_end(octets, offset)
    kind = octets[offset]
    start = offset + (2 if kind == AddressType.NAME else 1)
    raw = bytes(octets[start : end - _PORT.size])
    port = _PORT.unpack_from(octets, end - _PORT.size)[0]
    if kind in (AddressType.IPV4, AddressType.IPV6):
        return Endpoint(_address(raw), port), end
    if kind == AddressType.NAME:
        return Endpoint(parse_name(raw), port), end
    if any(raw) or port:
        raise WireError("address type 00 with content", ReplyCode.ADDRESS_TYPE_NOT_SUPPORTED)
    return None, end


@lru_cache(maxsize=65_536)
def _address(raw: bytes) -> IPAddress:
    """One for the many associations that name it."""
    return IPv4Address(raw) if len(raw) == 4 else IPv6Address(raw)


def encode_block(endpoint: Endpoint | None) -> bytes:
    """The block for an endpoint; seven zero octets for None."""
    if endpoint is None:
        return _UNUSED
    host, port = endpoint
    if isinstance(host, str):
        name = encode_name(host)
        return bytes((AddressType.NAME, len(name))) + name + _PORT.pack(port)
    kind = AddressType.IPV4 if host.version == 4 else AddressType.IPV6
    return bytes((kind,)) + host.packed + _PORT.pack(port)


def parse_name(raw: bytes) -> str:
    """A name as text. Graphic ASCII only: what else could be in a name neither resolves nor may be logged.

    Raises WireError with reply 09 for a name that is empty or cannot be one.
    """
    if not raw:
        raise WireError("an empty name", ReplyCode.INVALID_ADDRESS)
    if not all(0x21 <= octet <= 0x7E for octet in raw):
        raise WireError("a name with octets that no host name has", ReplyCode.INVALID_ADDRESS)
    return raw.decode("ascii")


def encode_name(name: str) -> bytes:
    """The octets of a name, without a length; ValueError for one that no message holds."""
    raw = name.encode("ascii")
    if not 1 <= len(raw) <= 255:
        raise ValueError(f"a name has 1 to 255 octets, this one {len(raw)}")
    return raw
