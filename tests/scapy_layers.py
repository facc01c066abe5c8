"""Every octet of the protocol once more, as scapy layers.

A second opinion on the wire format, written from its description alone: nothing of mcastsocks is imported, so
a misreading there shows as a difference here. Fields keep the names of the drafts. SIZE, LEN and ATYP are
computed when not given and go out as given when they are, for messages that lie about themselves.

Octets that end before their layer does raise struct.error, as in scapy's own fields. One trap is scapy's:
a layer made from b"" is not dissected, it is the default layer.
"""

import ipaddress
import socket
import struct
from collections.abc import Collection
from typing import Any

from scapy.fields import (
    AnyField,
    ByteEnumField,
    ByteField,
    ConditionalField,
    Field,
    FieldLenField,
    FieldListField,
    FlagsField,
    IPField,
    LongField,
    PacketField,
    PacketListField,
    ShortField,
    StrField,
    StrLenField,
    StrNullField,
    XIntField,
)
from scapy.packet import Packet, Raw

ATYPS = {0: "unused", 1: "IPv4", 3: "name", 4: "IPv6"}
CMDS = {1: "CONNECT", 2: "BIND", 3: "UDP ASSOCIATE", 4: "ENHANCED_UDP_MODE", 0x10: "LIST-FEATURES"}
METHODS = {0: "none", 1: "GSS-API", 2: "username/password", 0xFF: "none acceptable"}
REPLIES = {  # RFC 1928 §6, pro-v5 §6
    0x00: "succeeded",
    0x01: "general failure",
    0x02: "not allowed by ruleset",
    0x03: "network unreachable",
    0x04: "host unreachable",
    0x05: "connection refused",
    0x06: "TTL expired",
    0x07: "command not supported",
    0x08: "address type not supported",
    0x09: "invalid address",
}
CONTROL_REPLIES = REPLIES | {  # mcast §4.3
    0x10: "bad association id",
    0x11: "multicast receive not allowed by ruleset",
    0x12: "multicast send not allowed by ruleset",
    0x13: "bad association context",
    0x14: "bad multicast address",
    0x15: "TTL not allowed by ruleset",
}
PKT_TYPES = {1: "control request", 2: "control reply", 3: "encapsulated datagram"}
UDPCMDS = {5: "UDP BIND", 6: "UDP RELEASE", 7: "SET TTL"}
FLAGS = {
    0x0001: "RECEIVE-FROM",
    0x0002: "SEND-TO",
    0x0004: "UDP-UNICAST",
    0x0008: "TCP-ENCAPSULATED",
    0x0010: "UDP-MULTICAST",
    0x0020: "MU-MODE",
    0x0040: "MM-MODE",
    0x0100: "REPORT-SOURCE",  # this bit and the next are ours, not mcast's
    0x8000: "EXTENDED",
}
OPTIONS = {1: "SOURCE-INCLUDE", 2: "SOURCE-EXCLUDE", 4: "PROTECTION", 5: "REASON", 6: "RESOLVED"}
AEADS = {1: "AES-128-GCM", 2: "ChaCha20-Poly1305"}
SOURCE_PRESENT, PROTECTED = 0x01, 0x02  # RSV of an enhanced-mode datagram (ours)
EXTENDED = 0x8000
NO_BLOCKS = 13  # the SIZE of a control message without LOCAL and REMOTE
MANY = 0x10000  # scapy stops at 100 list elements unless told


class _Layer(Packet):
    """One layer with nothing inside: the octets behind it belong to whoever comes next."""

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        return b"", s


class _CountedField(StrLenField):
    """Octets whose number stands before them; scapy's own would take fewer in silence."""

    def getfield(self, pkt: Any, s: bytes) -> tuple[bytes, bytes]:
        behind, value = super().getfield(pkt, s)
        if self.length_from is not None and len(value) < self.length_from(pkt):
            raise struct.error(f"{self.name} runs past the end")
        return behind, value


def _counted(count: str, value: str, fmt: str = "B") -> tuple[AnyField, AnyField]:
    return (
        FieldLenField(count, None, fmt=fmt, length_of=value),
        _CountedField(value, b"", length_from=lambda m: m.getfieldval(count)),
    )


class _TerminatedField(StrNullField):
    """Octets up to a NUL that must be there."""

    def getfield(self, pkt: Any, s: bytes) -> tuple[bytes, bytes]:
        if b"\0" not in s:
            raise struct.error(f"{self.name} has no end")
        return super().getfield(pkt, s)


def _atyp_of(address: str) -> int:
    try:
        return {4: 1, 6: 4}[ipaddress.ip_address(address).version]
    except ValueError:
        return 3


class AtypField(ByteEnumField):
    """ATYP, by default the one that the text in ADDR asks for."""

    def __init__(self) -> None:
        super().__init__("ATYP", None, ATYPS)

    def i2m(self, pkt: Any, x: Any) -> int:
        return _atyp_of(pkt.ADDR) if x is None else int(x)


class AddressField(Field[Any, bytes]):
    """An address as text, as wide as the layer's ATYP says (RFC 1928 §5); ATYP 00 is four octets wide.

    Bytes go out as they are. An unknown ATYP hides where the address ends: everything left is read, as bytes.
    """

    def addfield(self, pkt: Any, s: bytes, val: str | bytes | None) -> bytes:
        if val is None or isinstance(val, bytes):
            return s + (val or b"")
        atyp = _atyp_of(val) if pkt.ATYP is None else pkt.ATYP
        if atyp == 3:
            name = val.encode("latin-1")
            return s + bytes([len(name)]) + name
        return s + ipaddress.ip_address(val).packed

    def getfield(self, pkt: Any, s: bytes) -> tuple[bytes, str | bytes]:
        if pkt.ATYP not in ATYPS:
            return b"", s
        if pkt.ATYP == 3:
            (length,), s = struct.unpack_from("!B", s), s[1:]
        else:
            length = 16 if pkt.ATYP == 4 else 4
        if len(s) < length:
            raise struct.error(f"{self.name} runs past the end")
        if pkt.ATYP == 3:
            return s[length:], s[:length].decode("latin-1")
        family = socket.AF_INET6 if pkt.ATYP == 4 else socket.AF_INET
        return s[length:], socket.inet_ntop(family, s[:length])


class Endpoint(_Layer):
    """ATYP ADDR PORT, wherever one stands; no PORT behind an unknown ATYP."""

    fields_desc = [
        AtypField(),
        AddressField("ADDR", "0.0.0.0"),
        ConditionalField(ShortField("PORT", 0), lambda e: e.readable),
    ]

    @property
    def readable(self) -> bool:
        return self.ATYP is None or self.ATYP in ATYPS

    @property
    def pair(self) -> tuple[str, int]:
        return self.ADDR, self.PORT


class EndpointField(PacketField):
    """An Endpoint, also accepted as a pair: DST=("example.com", 80)."""

    def __init__(self, name: str, *, unused: bool = False) -> None:
        super().__init__(name, Endpoint(ATYP=0) if unused else Endpoint(), Endpoint)

    def any2i(self, pkt: Any, x: Any) -> Any:
        return super().any2i(pkt, Endpoint(ADDR=x[0], PORT=x[1]) if isinstance(x, tuple) else x)

    def getfield(self, pkt: Any, s: bytes) -> tuple[bytes, Any]:
        if not s:
            raise struct.error(f"nothing left for {self.name}")
        return super().getfield(pkt, s)


class Greeting(_Layer):
    """RFC 1928 §3, client to server."""

    fields_desc = [
        ByteField("VER", 5),
        FieldLenField("NMETHODS", None, fmt="B", count_of="METHODS"),
        FieldListField("METHODS", [], ByteEnumField("", 0, METHODS), count_from=lambda m: m.NMETHODS, max_count=255),
    ]


class MethodChoice(_Layer):
    """RFC 1928 §3, server to client."""

    fields_desc = [ByteField("VER", 5), ByteEnumField("METHOD", 0, METHODS)]


class UserpassRequest(_Layer):
    """RFC 1929."""

    fields_desc = [ByteField("VER", 1), *_counted("ULEN", "UNAME"), *_counted("PLEN", "PASSWD")]


class UserpassReply(_Layer):
    """RFC 1929; anything but 0 is a refusal."""

    fields_desc = [ByteField("VER", 1), ByteField("STATUS", 0)]


class GssFrame(_Layer):
    """RFC 1961; the abort is two octets."""

    fields_desc = [
        ByteField("VER", 1),
        ByteEnumField("MTYP", 1, {1: "context", 2: "protection level", 3: "data", 0xFF: "abort"}),
        *(ConditionalField(part, lambda m: m.MTYP != 0xFF) for part in _counted("LEN", "TOKEN", fmt="H")),
    ]


class Request(_Layer):
    """RFC 1928 §4. FLAG: 01 INTERFACE REQUEST, 04 USECLIENTSPORT (pro-v5 §8); 01 persistence (ext)."""

    fields_desc = [
        ByteField("VER", 5),
        ByteEnumField("CMD", 1, CMDS),
        ByteField("FLAG", 0),
        EndpointField("DST"),
    ]


class Reply(_Layer):
    """RFC 1928 §6; VER 1 answers ENHANCED_UDP_MODE (mcast §4.1.1)."""

    fields_desc = [
        ByteField("VER", 5),
        ByteEnumField("REP", 0, REPLIES),
        ByteField("FLAG", 0),
        EndpointField("BND"),
    ]


class InterfaceData(_Layer):
    """pro-v5 §8, on the connection of a UDP ASSOCIATE; answered by a Reply."""

    fields_desc = [ByteField("RSV", 0), ByteField("SUB", 1), ByteField("FLAG", 0), EndpointField("DST")]


class Feature(_Layer):
    """One TLV of the Feature Description List (ext)."""

    fields_desc = [
        ByteEnumField("TAG", 4, {0: "FDL", 1: "SOCKS", 2: "ADDR", 3: "AUTH", 4: "COMMAND", 0x10: "SERVER"}),
        ByteField("SUBTAG", 0),
        *_counted("LEN", "VALUE"),
    ]


class FeatureList(_Layer):
    """The TLVs up to END: FF 00 00, or FF alone where the stream ends. A cut TLV is Raw."""

    fields_desc = [
        PacketListField(
            "ENTRIES",
            [],
            next_cls_cb=lambda pkt, lst, cur, remain: None if remain[:1] == b"\xff" else Feature,
            max_count=MANY,
        ),
        StrLenField("END", b"\xff\0\0", length_from=lambda m: 3),
    ]


class Socks4Request(_Layer):
    """SOCKS 4; 4a adds HOST when the address is 0.0.0.x, x not 0."""

    fields_desc = [
        ByteField("VN", 4),
        ByteEnumField("CD", 1, {1: "CONNECT", 2: "BIND"}),
        ShortField("DSTPORT", 0),
        IPField("DSTIP", "0.0.0.0"),
        _TerminatedField("USERID", b""),
        ConditionalField(
            _TerminatedField("HOST", b""), lambda m: m.DSTIP.startswith("0.0.0.") and m.DSTIP != "0.0.0.0"
        ),
    ]


class Socks4Reply(_Layer):
    """SOCKS 4, server to client."""

    fields_desc = [
        ByteField("VN", 0),
        ByteEnumField("CD", 90, {90: "granted", 91: "rejected"}),
        ShortField("DSTPORT", 0),
        IPField("DSTIP", "0.0.0.0"),
    ]


class _Sized(_Layer):
    """What the control channel carries: PKT TYPE, then a SIZE that counts all; nothing beyond it is read."""

    def do_dissect(self, s: bytes) -> bytes:
        size = int.from_bytes(s[1:3], "big")
        return super().do_dissect(s[:size]) + s[size:]

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        if self.SIZE is None:
            pkt = pkt[:1] + struct.pack("!H", len(pkt) + len(pay)) + pkt[3:]
        return pkt + pay


class Option(_Layer):
    """What may follow REMOTE under EXTENDED (ours); VALUE stays octets, the layers below read it."""

    fields_desc = [ByteEnumField("TYPE", 5, OPTIONS), *_counted("LEN", "VALUE", fmt="H")]


class SourceList(_Layer):
    """VALUE of SOURCE-INCLUDE and SOURCE-EXCLUDE: ATYP once, then addresses of that width."""

    fields_desc = [
        ByteEnumField("ATYP", 1, ATYPS),
        FieldListField("ADDRS", [], AddressField("ADDR", ""), max_count=MANY),
    ]


class ProtectionGrant(_Layer):
    """VALUE of PROTECTION in a reply; in a request it is the AEAD numbers alone."""

    fields_desc = [
        ByteEnumField("AEAD", 1, AEADS),
        _CountedField("KEY_C2R", b"", length_from=lambda m: 16 if m.AEAD == 1 else 32),
        _CountedField("KEY_R2C", b"", length_from=lambda m: 16 if m.AEAD == 1 else 32),
        _CountedField("SALT_C2R", b"", length_from=lambda m: 4),
        _CountedField("SALT_R2C", b"", length_from=lambda m: 4),
    ]


class Resolved(_Layer):
    """VALUE of RESOLVED."""

    fields_desc = [AtypField(), AddressField("ADDR", "0.0.0.0")]


def _remote_follows(message: Any) -> bool:
    """REMOTE is there, but not in the short form, nor (unless put there by hand) where LOCAL hid its end."""
    if message.SIZE == NO_BLOCKS:
        return False
    return "REMOTE" in message.fields or message.LOCAL is None or message.LOCAL.readable


def _control(pkt_type: int, code: AnyField) -> list[AnyField]:
    """mcast §4.2, §4.3; REST is what no field explains: octets to be ignored, or of no known meaning."""
    return [
        ByteEnumField("PKT_TYPE", pkt_type, PKT_TYPES),
        ShortField("SIZE", None),
        code,
        FlagsField("FLAGS", 0, 16, FLAGS),
        ByteField("RSVD", 0),
        ShortField("TID", 0),
        XIntField("AID", 0),
        ConditionalField(EndpointField("LOCAL", unused=True), lambda m: m.SIZE != NO_BLOCKS),
        ConditionalField(EndpointField("REMOTE", unused=True), _remote_follows),
        ConditionalField(PacketListField("OPTIONS", [], Option, max_count=MANY), lambda m: m.FLAGS & EXTENDED),
        StrField("REST", b""),
    ]


class ControlRequest(_Sized):
    """Client to relay; RSVD carries the TTL. None leaves a block out, SIZE=13 both. A cut option is Raw."""

    fields_desc = _control(1, ByteEnumField("UDPCMD", 5, UDPCMDS))


class ControlReply(_Sized):
    """Relay to client, shaped like the request."""

    fields_desc = _control(2, ByteEnumField("REPLY", 0, CONTROL_REPLIES))


def _encapsulated(*data: AnyField) -> list[AnyField]:
    return [ByteEnumField("PKT_TYPE", 3, PKT_TYPES), ShortField("SIZE", None), XIntField("AID", 0), *data]


class EncapsulatedDatagram(_Sized):
    """mcast §4.4."""

    fields_desc = _encapsulated(StrField("DATA", b""))


class EncapsulatedWithSource(_Sized):
    """The same from a relay that granted REPORT-SOURCE (ours); nothing in the frame itself tells."""

    fields_desc = _encapsulated(EndpointField("SOURCE"), StrField("DATA", b""))


def split_control_stream(octets: bytes, reporting: Collection[int] = ()) -> list[Packet]:
    """Cut what one side wrote in enhanced mode into layers; what is not complete yet comes last, as Raw.

    `reporting`: the AIDs whose encapsulated datagrams carry a source block. ValueError: framing is broken.
    """
    kinds = {1: (ControlRequest, 13), 2: (ControlReply, 13), 3: (EncapsulatedDatagram, 7)}
    layers: list[Packet] = []
    while len(octets) >= 3:
        pkt_type, size = struct.unpack_from("!BH", octets)
        layer, least = kinds.get(pkt_type, (Raw, MANY))  # no SIZE is enough for an unknown type
        if size < least:
            raise ValueError(f"message {len(layers)}: PKT TYPE {pkt_type:#04x} with SIZE {size}")
        if size > len(octets):
            break
        message, octets = octets[:size], octets[size:]
        if pkt_type == 3 and int.from_bytes(message[3:7], "big") in reporting:
            layer = EncapsulatedWithSource
        try:
            layers.append(layer(message))
        except struct.error as error:
            raise ValueError(f"message {len(layers)}: {error}") from error
    return [*layers, Raw(octets)] if octets else layers


class Rfc1928Datagram(_Layer):
    """RFC 1928 §7. FRAG: position, bit 7 on the last; DST is the source when the relay sends it."""

    fields_desc = [ShortField("RSV", 0), ByteField("FRAG", 0), EndpointField("DST"), StrField("DATA", b"")]


class Datagram(_Layer):
    """mcast §4.5; RSV, PN, SOURCE are ours. Under PROTECTED, DATA is the sealed body with any source block."""

    fields_desc = [
        FlagsField("RSV", 0, 8, {SOURCE_PRESENT: "SOURCE", PROTECTED: "PROTECTED"}),
        ByteField("FRAG", 0),
        ShortField("DGID", 0),
        XIntField("AID", 0),
        ConditionalField(LongField("PN", 0), lambda d: d.RSV & PROTECTED),
        ConditionalField(
            EndpointField("SOURCE"),
            lambda d: int(d.RSV) & 0x03 == SOURCE_PRESENT and d.FRAG in (0, 0x01, 0x81),
        ),
        StrField("DATA", b""),
    ]

    def associated_data(self) -> bytes:
        return bytes(self)[:16]

    def nonce(self, salt: bytes) -> bytes:
        return salt + bytes(self)[8:16]

    def opened(self, body: bytes) -> "Datagram":
        """What a protected datagram says, given what its body was before it was sealed."""
        header = bytes(self)[:8]
        return Datagram(bytes([header[0] & ~PROTECTED]) + header[1:] + body)


def datagram(
    aid: int, data: bytes = b"", *, source: tuple[str, int] | None = None, frag: int = 0, dgid: int = 0
) -> Datagram:
    """An unprotected datagram, with the source block where one is named."""
    rsv = 0 if source is None else SOURCE_PRESENT
    return Datagram(RSV=rsv, FRAG=frag, DGID=dgid, AID=aid, SOURCE=source, DATA=data)
