"""The 8-octet header of every datagram between client and relay (mcast §4.5; RSV bits are ours)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from mcastsocks.address import Endpoint
from mcastsocks.errors import Truncated, WireError
from mcastsocks.wire.block import Octets, encode_block, parse_block

HEADER = struct.Struct("!BBHI")  # RSV, FRAG, DGID, AID
HEADER_OCTETS = HEADER.size

RSV_SOURCE = 0x01  # the body starts with the original sender (relay to client only)
RSV_PROTECTED = 0x02  # a packet number and a sealed body follow
LAST_FRAGMENT = 0x80
UDP_PAYLOAD_OCTETS = {4: 65_507, 6: 65_527}
"""What one UDP datagram carries, by IP version (without jumbograms)."""


SOURCE_BLOCK_OCTETS = 19
"""The most that the original sender takes before the data: ATYP, an IPv6 address, a port."""

MAX_FRAME_OCTETS = 0xFFFF - 7
"""What a TCP-encapsulated datagram carries behind its own header of 7 octets (mcast §4.4)."""

MOST_PIECES = 127
"""Positions that FRAG can name (RFC 1928 §7)."""


def source_block(source: Endpoint) -> bytes:
    """The original sender, as it stands before the data under REPORT-SOURCE."""
    return encode_block(source)


def fragments(rsv: int, dgid: int, aid: int, body: Octets, room: int) -> list[bytes] | None:
    """A body cut into datagrams of at most `room` octets, header included; None when 127 pieces do not hold it."""
    width = room - HEADER_OCTETS
    starts = range(0, max(len(body), 1), width)  # an empty body is a piece, too
    if len(starts) > MOST_PIECES:
        return None
    return [
        HEADER.pack(rsv, position | (LAST_FRAGMENT if position == len(starts) else 0), dgid, aid)
        + bytes(body[start : start + width])
        for position, start in enumerate(starts, 1)
    ]


@dataclass(frozen=True, slots=True)
class Datagram:
    """One datagram with its header, as client and relay exchange it; for anything but the fast path.

    `source` is the original sender when RSV bit 01 is set and this piece is the first. `data` may be empty.
    """

    aid: int
    data: bytes = b""
    frag: int = 0
    dgid: int = 0
    rsv: int = 0
    source: Endpoint | None = None

    @classmethod
    def parse(cls, octets: Octets) -> Datagram:
        """Raises Truncated for a runt, WireError for RSV bits without a meaning and for FRAG X'80'."""
        if len(octets) < HEADER_OCTETS:
            raise Truncated(f"a datagram of {len(octets)} octets has no room for its header")
        rsv, frag, dgid, aid = HEADER.unpack_from(octets)
        if rsv & ~RSV_SOURCE:
            raise WireError(f"reserved bits X'{rsv:02x}' of a datagram")
        if frag == LAST_FRAGMENT:
            raise WireError("a fragment without a position")
        source, end = None, HEADER_OCTETS
        if rsv & RSV_SOURCE and frag & ~LAST_FRAGMENT <= 1:
            source, end = parse_block(octets, HEADER_OCTETS)
        return cls(aid, bytes(octets[end:]), frag, dgid, rsv, source)

    def encode(self) -> bytes:
        body = encode_block(self.source) + self.data if self.source is not None else self.data
        return HEADER.pack(self.rsv, self.frag, self.dgid, self.aid) + body
