"""The messages of a control channel: requests, replies, encapsulated datagrams (mcast §4.2-4.4, §5.2)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from mcastsocks.address import Endpoint
from mcastsocks.errors import Truncated, WireError
from mcastsocks.wire.block import AddressType, Octets, block_end, encode_block, parse_block
from mcastsocks.wire.datagram import MAX_FRAME_OCTETS
from mcastsocks.wire.options import Option, encode_options, parse_options
from mcastsocks.wire.replies import ReplyCode

_HEAD = struct.Struct("!BH")  # PKT TYPE, SIZE
_FIXED = struct.Struct("!BHBHBHI")  # PKT TYPE, SIZE, UDPCMD or REPLY, FLAGS, RSVD, TID, AID
_ENCAPSULATED = struct.Struct("!BHI")  # PKT TYPE, SIZE, AID


class PacketType(IntEnum):
    """PKT TYPE."""

    REQUEST = 0x01
    REPLY = 0x02
    ENCAPSULATED = 0x03


class UdpCommand(IntEnum):
    """UDPCMD."""

    BIND = 0x05
    RELEASE = 0x06
    SET_TTL = 0x07


class Flags(IntEnum):
    """The bits of FLAGS; what several make together is a plain int (an IntFlag takes 20 times as long)."""

    NONE = 0x0000
    RECEIVE_FROM = 0x0001
    SEND_TO = 0x0002
    UDP_UNICAST = 0x0004
    TCP_ENCAPSULATED = 0x0008
    UDP_MULTICAST = 0x0010
    MU_MODE = 0x0020
    MM_MODE = 0x0040
    REPORT_SOURCE = 0x0100  # ours
    EXTENDED = 0x8000  # ours


BOTH_DIRECTIONS = Flags.RECEIVE_FROM | Flags.SEND_TO


@dataclass(frozen=True, slots=True)
class ControlRequest:
    """What a client asks: UDP BIND, UDP RELEASE, SET TTL, or a command that nobody knows.

    `flags` is a plain int, because a foreign client may set bits without a name. `ttl` is RSVD. `fault` says
    what is wrong with a well-framed request's addresses or options; it carries the reply code, and whoever
    answers puts it in its place in the order of checks (mcast §4.3.1, decided in spec/enhanced.md).
    """

    command: int
    tid: int
    aid: int = 0
    flags: int = 0
    ttl: int = 0
    local: Endpoint | None = None
    remote: Endpoint | None = None
    options: tuple[Option, ...] = ()
    fault: WireError | None = None

    def encode(self) -> bytes:
        return _encode(PacketType.REQUEST, self, self.command, self.ttl)


@dataclass(frozen=True, slots=True)
class ControlReply:
    """What the relay answers; `tid` is the request's."""

    code: int
    tid: int
    aid: int = 0
    flags: int = 0
    local: Endpoint | None = None
    remote: Endpoint | None = None
    options: tuple[Option, ...] = ()

    def encode(self) -> bytes:
        return _encode(PacketType.REPLY, self, self.code, 0)


@dataclass(frozen=True, slots=True)
class Encapsulated:
    """A datagram inside the control channel (mcast §4.4)."""

    aid: int
    data: bytes

    def encode(self) -> bytes:
        """Raises ValueError for data that no frame holds."""
        if len(self.data) > MAX_FRAME_OCTETS:
            raise ValueError(f"a frame holds at most {MAX_FRAME_OCTETS} octets, not {len(self.data)}")
        size = _ENCAPSULATED.size + len(self.data)
        return _ENCAPSULATED.pack(PacketType.ENCAPSULATED, size, self.aid) + self.data


Message = ControlRequest | ControlReply | Encapsulated


def parse_message(octets: Octets) -> tuple[Message, int] | None:
    """The first message of a control channel's stream.

    Raises WireError when the framing is broken, which ends the channel: an unknown PKT TYPE, a SIZE below the
    minimum, a message that ends after LOCAL or inside a block; and for a reply whose addresses make no sense.
    """
    if not octets:
        return None
    kind = octets[0]
    if kind not in _MINIMUM:
        raise WireError(f"unknown packet type X'{kind:02x}'")
    if len(octets) < _HEAD.size:
        return None
    size = _HEAD.unpack_from(octets)[1]
    if size < _MINIMUM[kind]:
        raise WireError(f"SIZE {size} is below {_MINIMUM[kind]}")
    if len(octets) < size:
        return None
    with memoryview(octets) as whole, whole[:size] as message:
        if kind == PacketType.ENCAPSULATED:
            return Encapsulated(_ENCAPSULATED.unpack_from(message)[2], bytes(message[_ENCAPSULATED.size :])), size
        return (_parse_request(message) if kind == PacketType.REQUEST else _parse_reply(message)), size


_MINIMUM: dict[int, int] = {
    PacketType.REQUEST: _FIXED.size,
    PacketType.REPLY: _FIXED.size,
    PacketType.ENCAPSULATED: _ENCAPSULATED.size,
}


def _parse_request(message: memoryview) -> ControlRequest:
    _, _, command, flags, ttl, tid, aid = _FIXED.unpack_from(message)
    local = remote = fault = None
    options: tuple[Option, ...] = ()
    try:
        local, remote, end = _parse_blocks(message)
        options = _parse_options(message, end, flags, liberal=False)
    except WireError as error:
        if error.reply is None:
            raise
        fault = error.with_traceback(None)  # its frames would live, and hold the octets, as long as the request
    return ControlRequest(command, tid, aid, flags, ttl, local, remote, options, fault)


def _parse_reply(message: memoryview) -> ControlReply:
    _, _, code, flags, _, tid, aid = _FIXED.unpack_from(message)
    local, remote, end = _parse_blocks(message)
    return ControlReply(code, tid, aid, flags, local, remote, _parse_options(message, end, flags, liberal=True))


def _parse_blocks(message: memoryview) -> tuple[Endpoint | None, Endpoint | None, int]:
    """LOCAL, REMOTE and the offset behind them. Both or neither: SIZE 13 means that both are unused.

    Framing is judged before content, and address types (reply 08) before addresses (09).
    """
    if len(message) == _FIXED.size:
        return None, None, _FIXED.size
    try:
        middle = block_end(message, _FIXED.size)
        end = block_end(message, middle)
    except Truncated as error:
        raise WireError(f"the message ends too early: {error}") from None
    if message[_FIXED.size] == AddressType.NAME:
        raise WireError("LOCAL is a name", ReplyCode.ADDRESS_TYPE_NOT_SUPPORTED)
    return parse_block(message, _FIXED.size)[0], parse_block(message, middle)[0], end


def _parse_options(message: memoryview, end: int, flags: int, *, liberal: bool) -> tuple[Option, ...]:
    """The options behind REMOTE. The view on them is released even when an error keeps its frames alive."""
    if not flags & Flags.EXTENDED:
        return ()
    with message[end:] as rest:
        return parse_options(rest, liberal=liberal)


def _encode(kind: PacketType, message: ControlRequest | ControlReply, code: int, rsvd: int) -> bytes:
    rest = encode_block(message.local) + encode_block(message.remote)
    if message.flags & Flags.EXTENDED:
        rest += encode_options(message.options)
    size = _FIXED.size + len(rest)
    return _FIXED.pack(kind, size, code, message.flags, rsvd, message.tid, message.aid) + rest
