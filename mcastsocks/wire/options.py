"""Options behind REMOTE in a control message with EXTENDED set (ours)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import ip_address

from mcastsocks.address import IPAddress, unmapped
from mcastsocks.errors import WireError
from mcastsocks.wire.block import AddressType, Octets
from mcastsocks.wire.replies import ReplyCode

_HEAD = struct.Struct("!BH")  # TYPE, LEN
_SOURCE_WIDTH = {AddressType.IPV4: 4, AddressType.IPV6: 16}
MAX_SOURCES = 64
_MAX_REASON_OCTETS = 1024


class OptionType(IntEnum):
    """TYPE of an option."""

    SOURCE_INCLUDE = 0x01
    SOURCE_EXCLUDE = 0x02
    PROTECTION = 0x04
    REASON = 0x05
    RESOLVED = 0x06


_KNOWN = frozenset(OptionType)


@dataclass(frozen=True, slots=True)
class Option:
    """TYPE LEN VALUE."""

    kind: int
    value: bytes

    def encode(self) -> bytes:
        return _HEAD.pack(self.kind, len(self.value)) + self.value


def parse_options(octets: Octets, *, liberal: bool) -> tuple[Option, ...]:
    """All the options in `octets`.

    Raises WireError with reply 01 for an overrun, a repeated option and a source list that is no list of
    addresses; for an unknown option too, unless `liberal` (replies), where it is passed over.
    """
    options: list[Option] = []
    offset = 0
    while offset < len(octets):
        if offset + _HEAD.size > len(octets):
            raise WireError("an option is cut short", ReplyCode.GENERAL_FAILURE)
        kind, length = _HEAD.unpack_from(octets, offset)
        start, offset = offset + _HEAD.size, offset + _HEAD.size + length
        if offset > len(octets):
            raise WireError(f"option X'{kind:02x}' runs past the message", ReplyCode.GENERAL_FAILURE)
        if kind not in _KNOWN:
            if liberal:
                continue
            raise WireError(f"unknown option X'{kind:02x}'", ReplyCode.GENERAL_FAILURE)
        if any(option.kind == kind for option in options):
            raise WireError(f"option X'{kind:02x}' twice", ReplyCode.GENERAL_FAILURE)
        option = Option(kind, bytes(octets[start:offset]))
        if kind in (OptionType.SOURCE_INCLUDE, OptionType.SOURCE_EXCLUDE):
            _check_sources(option.value)
        options.append(option)
    return tuple(options)


def encode_options(options: tuple[Option, ...]) -> bytes:
    return b"".join(option.encode() for option in options)


def sources_of(option: Option) -> frozenset[IPAddress]:
    """The addresses of SOURCE-INCLUDE or SOURCE-EXCLUDE, as parse_options has checked them."""
    width = _SOURCE_WIDTH[AddressType(option.value[0])]
    return frozenset(
        unmapped(ip_address(option.value[start : start + width])) for start in range(1, len(option.value), width)
    )


def sources(kind: OptionType, addresses: Sequence[IPAddress]) -> Option:
    """SOURCE-INCLUDE or SOURCE-EXCLUDE: 1 to 64 addresses of one family, ValueError otherwise."""
    versions = {address.version for address in addresses}
    if len(versions) != 1 or len(addresses) > MAX_SOURCES:
        raise ValueError(f"a source list holds 1 to {MAX_SOURCES} addresses of one family")
    family = AddressType.IPV4 if versions == {4} else AddressType.IPV6
    return Option(kind, bytes((family,)) + b"".join(address.packed for address in addresses))


def resolved(address: IPAddress) -> Option:
    """RESOLVED: which address of a name was taken."""
    family = AddressType.IPV4 if address.version == 4 else AddressType.IPV6
    return Option(OptionType.RESOLVED, bytes((family,)) + address.packed)


def reason(text: str) -> Option:
    """A REASON option: one line of UTF-8 that tells a person why a request failed."""
    line = " ".join(text.split()).encode()[:_MAX_REASON_OCTETS]
    return Option(OptionType.REASON, line.decode(errors="ignore").encode())  # no character cut in two


def _check_sources(value: bytes) -> None:
    width = _SOURCE_WIDTH.get(AddressType(value[0])) if value and value[0] in _SOURCE_WIDTH else None
    if width is None:
        raise WireError("a source list of an unknown address type", ReplyCode.GENERAL_FAILURE)
    count, rest = divmod(len(value) - 1, width)
    if rest or not 1 <= count <= MAX_SOURCES:
        raise WireError(f"a source list holds 1 to {MAX_SOURCES} whole addresses", ReplyCode.GENERAL_FAILURE)
