"""The header of every datagram of a UDP ASSOCIATE (RFC 1928 §7): RSV FRAG ATYP DST.ADDR DST.PORT.

To the relay it names the destination, to the client the source.
"""

from __future__ import annotations

import struct

from mcastsocks.address import Endpoint
from mcastsocks.errors import Truncated, WireError
from mcastsocks.wire.block import AddressType, Octets, encode_block, parse_block
from mcastsocks.wire.datagram import LAST_FRAGMENT, MOST_PIECES

_HEAD = struct.Struct("!HB")  # RSV, FRAG
HEAD_OCTETS = _HEAD.size

HEADER_OCTETS = {AddressType.IPV4: HEAD_OCTETS + 7, AddressType.IPV6: HEAD_OCTETS + 19}
"""In front of a datagram that is named by an address."""

MAX_HEADER_OCTETS = max(HEADER_OCTETS.values())
"""Towards a client, whose datagrams are named by addresses."""

LESS_ROOM_OCTETS = {AddressType.IPV4: 10, AddressType.NAME: 262, AddressType.IPV6: 20}
"""What a client library reports less of room for data (RFC 1928 §7). The header with an IPv6 address has in fact 22."""


_WHOLE = bytes(HEAD_OCTETS)
_ENDS: dict[int, int] = {kind.value: end for kind, end in HEADER_OCTETS.items()}
_NAME_AT = HEAD_OCTETS + 2


def destination_octets(octets: Octets) -> bytes:
    """ATYP, DST.ADDR and DST.PORT of a datagram that is no fragment; empty for what cannot have any.

    Only to look them up among those that were parsed: they may be cut short, or wrong in any other way.
    """
    if len(octets) < _NAME_AT or octets[:HEAD_OCTETS] != _WHOLE:
        return b""
    kind = octets[HEAD_OCTETS]
    end = _ENDS.get(kind)
    if end is None:
        end = _NAME_AT + octets[HEAD_OCTETS + 1] + 2 if kind == AddressType.NAME else 0
    return bytes(octets[HEAD_OCTETS:end])


def parse_header(octets: Octets) -> tuple[int, Endpoint, int]:
    """FRAG, the endpoint, and the offset of the data, which may be empty.

    Raises Truncated for a runt; WireError for RSV other than 0, FRAG X'80', an ATYP that names nobody, a bad name.
    """
    if len(octets) < _HEAD.size:
        raise Truncated(f"a datagram of {len(octets)} octets has no room for its header")
    rsv, frag = _HEAD.unpack_from(octets)
    if rsv:
        raise WireError(f"reserved octets X'{rsv:04x}' of a datagram")
    if frag == LAST_FRAGMENT:
        raise WireError("a fragment without a position")
    endpoint, end = parse_block(octets, _HEAD.size)
    if endpoint is None:
        raise WireError("a datagram to nobody: address type 00")
    return frag, endpoint, end


def encode_header(endpoint: Endpoint, frag: int = 0) -> bytes:
    """What stands before the data: a destination towards the relay, a source towards the client."""
    return _HEAD.pack(0, frag) + encode_block(endpoint)


def fragments(endpoint: Endpoint, body: Octets, room: int) -> list[bytes] | None:
    """A body cut into datagrams of at most `room` octets, each with the header; None when 127 do not hold it."""
    block = encode_block(endpoint)
    width = room - _HEAD.size - len(block)
    if width < 1:
        return None
    starts = range(0, max(len(body), 1), width)  # an empty body is a piece, too
    if len(starts) > MOST_PIECES:
        return None
    return [
        _HEAD.pack(0, position | (LAST_FRAGMENT if position == len(starts) else 0))
        + block
        + bytes(body[start : start + width])
        for position, start in enumerate(starts, 1)
    ]
