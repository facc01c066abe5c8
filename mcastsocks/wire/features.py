"""The Feature Description List that answers LIST-FEATURES (ext; values from X'80' up are ours)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from mcastsocks.errors import Truncated, WireError
from mcastsocks.wire.block import Octets
from mcastsocks.wire.socks5 import Command

_HEAD_OCTETS = 3
_MOST_OCTETS = 16_384
_END = bytes((0xFF, 0, 0))


class FeatureTag(IntEnum):
    """TAG."""

    FDL = 0x00
    SOCKS = 0x01
    ADDR = 0x02
    AUTH = 0x03
    COMMAND = 0x04
    SERVER = 0x10
    END = 0xFF


class ServerInfo(IntEnum):
    """SUBTAG of a SERVER feature."""

    HOSTNAME = 0x01
    URL = 0x02
    OPAQUE = 0x03
    LOAD = 0x04


SCOPE = 0x10
"""SUBTAG of an FDL feature whose value says what the list depends on."""


class Scope(IntEnum):
    """One octet of a SCOPE value."""

    CLIENT_ADDRESS = 0x01
    AUTHENTICATION = 0x02
    DESTINATION = 0x03


PERSISTENCE = bytes((0x01,))
"""Value of COMMAND 10, LIST-FEATURES: the connection can be kept for another command."""


class Extension(IntEnum):
    """Values of COMMAND 04, ENHANCED_UDP_MODE (mcast §3)."""

    UNICAST = 0x01
    GROUPS = 0x02
    SOURCE_FILTERS = 0x81  # from here on ours
    SOURCE_REPORTING = 0x82
    PROTECTION = 0x83
    REASONS = 0x84


@dataclass(frozen=True, slots=True)
class Feature:
    """TAG SUBTAG LEN VALUE."""

    tag: int
    subtag: int
    value: bytes = b""

    def encode(self) -> bytes:
        return bytes((self.tag, self.subtag, len(self.value))) + self.value


@dataclass(frozen=True, slots=True)
class FeatureList:
    """All features up to END."""

    features: tuple[Feature, ...]

    @classmethod
    def parse(cls, octets: Octets, *, ended: bool = False) -> tuple[FeatureList, int] | None:
        """With `ended` the stream is over: a list that stops right after TAG X'FF' is whole too.

        Raises Truncated when it stops anywhere else, WireError for a list without an end in sight.
        """
        features: list[Feature] = []
        offset = 0
        while offset + _HEAD_OCTETS <= min(len(octets), _MOST_OCTETS):
            tag, subtag, length = octets[offset : offset + _HEAD_OCTETS]
            if tag == FeatureTag.END:
                return cls(tuple(features)), offset + _HEAD_OCTETS
            end = offset + _HEAD_OCTETS + length
            if end > len(octets):
                break
            features.append(Feature(tag, subtag, bytes(octets[offset + _HEAD_OCTETS : end])))
            offset = end
        if len(octets) >= _MOST_OCTETS:
            raise WireError(f"a feature list without an end in {_MOST_OCTETS} octets")
        if not ended:
            return None
        if octets[offset : offset + 1] == _END[:1]:
            return cls(tuple(features)), len(octets)
        raise Truncated("the feature list ends without its END")

    def encode(self) -> bytes:
        return b"".join(feature.encode() for feature in self.features) + _END

    def value(self, tag: int, subtag: int) -> bytes | None:
        """The first value under a tag and subtag; None when it is not listed."""
        return next((each.value for each in self.features if (each.tag, each.subtag) == (tag, subtag)), None)

    @property
    def extensions(self) -> frozenset[Extension]:
        """What ENHANCED_UDP_MODE is listed with; numbers that are not known here are left out."""
        listed = (FeatureTag.COMMAND, Command.ENHANCED_UDP_MODE)
        values = b"".join(each.value for each in self.features if (each.tag, each.subtag) == listed)
        return frozenset(each for each in Extension if each in values)
