"""Greeting, username/password, requests and replies (RFC 1928 §3-6, RFC 1929)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag

from mcastsocks.address import UNUSED, Endpoint
from mcastsocks.errors import Truncated, WireError
from mcastsocks.wire.block import Octets, encode_block, parse_block
from mcastsocks.wire.replies import ReplyCode

VERSION = 0x05
USERPASS_VERSION = 0x01
ENHANCED_VERSION = 0x01
"""VER of the reply to ENHANCED_UDP_MODE: the version of the extension (mcast §4.1.1)."""

_INTERFACE_DATA = 0x01  # SUB


class Method(IntEnum):
    """METHOD (RFC 1928 §3)."""

    NONE = 0x00
    GSSAPI = 0x01
    USERPASS = 0x02
    NONE_ACCEPTABLE = 0xFF


class Command(IntEnum):
    """CMD (RFC 1928 §4, mcast §4.1.1, ext)."""

    CONNECT = 0x01
    BIND = 0x02
    UDP_ASSOCIATE = 0x03
    ENHANCED_UDP_MODE = 0x04
    LIST_FEATURES = 0x10


class RequestFlag(IntFlag):
    """FLAG of a request and its reply; RFC 1928 calls the octet RSV (pro-v5 §8, ext)."""

    NONE = 0x00
    INTERFACE_REQUEST = 0x01  # UDP ASSOCIATE
    PERSISTENT = 0x01  # LIST-FEATURES
    USECLIENTSPORT = 0x04


def _expect_version(octets: Octets, version: int, what: str) -> None:
    if octets[0] != version:
        raise WireError(f"expected version X'{version:02x}' of the {what}, not X'{octets[0]:02x}'")


@dataclass(frozen=True, slots=True)
class Greeting:
    """VER NMETHODS METHODS: the methods that a client can do (RFC 1928 §3)."""

    methods: tuple[int, ...]

    @classmethod
    def parse(cls, octets: Octets) -> tuple[Greeting, int] | None:
        if not octets:
            return None
        _expect_version(octets, VERSION, "greeting")
        if len(octets) < 2 or len(octets) < 2 + octets[1]:
            return None
        end = 2 + octets[1]
        return cls(tuple(octets[2:end])), end

    def encode(self) -> bytes:
        return bytes((VERSION, len(self.methods), *self.methods))


@dataclass(frozen=True, slots=True)
class MethodChoice:
    """VER METHOD: the method that the server took; two octets in the case of a refusal too."""

    method: int

    @classmethod
    def parse(cls, octets: Octets) -> tuple[MethodChoice, int] | None:
        if not octets:
            return None
        _expect_version(octets, VERSION, "method choice")
        return (cls(octets[1]), 2) if len(octets) >= 2 else None

    def encode(self) -> bytes:
        return bytes((VERSION, self.method))


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """VER ULEN UNAME PLEN PASSWD (RFC 1929 §2). Octets, because neither needs to be text."""

    user: bytes
    password: bytes

    @classmethod
    def parse(cls, octets: Octets) -> tuple[Credentials, int] | None:
        """Raises WireError for a wrong version or an empty name: RFC 1929 wants 1 to 255 octets."""
        if not octets:
            return None
        _expect_version(octets, USERPASS_VERSION, "username/password request")
        if len(octets) < 2:
            return None
        if octets[1] == 0:
            raise WireError("an empty user name")
        behind_user = 2 + octets[1]
        if len(octets) <= behind_user:
            return None
        end = behind_user + 1 + octets[behind_user]
        if len(octets) < end:
            return None
        return cls(bytes(octets[2:behind_user]), bytes(octets[behind_user + 1 : end])), end

    def encode(self) -> bytes:
        if not 1 <= len(self.user) <= 255 or len(self.password) > 255:
            raise ValueError("a user name has 1 to 255 octets and a password at most 255")
        return bytes((USERPASS_VERSION, len(self.user))) + self.user + bytes((len(self.password),)) + self.password

    def __repr__(self) -> str:
        return f"Credentials(user={self.user!r})"  # a password belongs in no log and no traceback


@dataclass(frozen=True, slots=True)
class CredentialsReply:
    """VER STATUS; any status but 00 is a refusal (RFC 1929 §2)."""

    status: int

    @classmethod
    def parse(cls, octets: Octets) -> tuple[CredentialsReply, int] | None:
        if not octets:
            return None
        _expect_version(octets, USERPASS_VERSION, "username/password reply")
        return (cls(octets[1]), 2) if len(octets) >= 2 else None

    def encode(self) -> bytes:
        return bytes((USERPASS_VERSION, self.status))


@dataclass(frozen=True, slots=True)
class Request:
    """VER CMD FLAG ATYP DST.ADDR DST.PORT (RFC 1928 §4)."""

    command: int
    destination: Endpoint = UNUSED
    flag: int = 0

    @classmethod
    def parse(cls, octets: Octets) -> tuple[Request, int] | None:
        """Raises WireError with reply 08 or 09 for an address that cannot be one."""
        if not octets:
            return None
        _expect_version(octets, VERSION, "request")
        if len(octets) < 4:
            return None
        try:
            destination, end = parse_block(octets, 3)
        except Truncated:
            return None
        command = octets[1]
        if destination is None and command != Command.ENHANCED_UDP_MODE:
            raise WireError("address type 00 in a request", ReplyCode.ADDRESS_TYPE_NOT_SUPPORTED)
        return cls(command, destination or UNUSED, octets[2]), end

    def encode(self) -> bytes:
        return bytes((VERSION, self.command, self.flag)) + encode_block(self.destination)

    @property
    def udp_flags(self) -> RequestFlag:
        """What a UDP ASSOCIATE asks for, as far as known; USECLIENTSPORT without a port asks nothing (pro-v5 §8)."""
        known = RequestFlag.INTERFACE_REQUEST
        if self.destination.port:
            known |= RequestFlag.USECLIENTSPORT
        return RequestFlag(self.flag) & known


@dataclass(frozen=True, slots=True)
class Reply:
    """VER REP FLAG ATYP BND.ADDR BND.PORT (RFC 1928 §6); `version` is 01 for ENHANCED_UDP_MODE."""

    code: int
    bound: Endpoint = UNUSED
    flag: int = 0
    version: int = VERSION

    @classmethod
    def parse(cls, octets: Octets) -> tuple[Reply, int] | None:
        """Raises WireError for a version that is neither; a foreign relay's ATYP 00 reads as unused."""
        if not octets:
            return None
        if octets[0] not in (VERSION, ENHANCED_VERSION):
            raise WireError(f"expected a reply of version X'05' or X'01', not X'{octets[0]:02x}'")
        if len(octets) < 4:
            return None
        try:
            bound, end = parse_block(octets, 3)
        except Truncated:
            return None
        return cls(octets[1], bound or UNUSED, octets[2], octets[0]), end

    def encode(self) -> bytes:
        return bytes((self.version, self.code, self.flag)) + encode_block(self.bound)


@dataclass(frozen=True, slots=True)
class InterfaceData:
    """RSV SUB FLAG ATYP ADDR PORT: from which address will this destination see my datagrams (pro-v5 §8)?

    On the connection of a UDP ASSOCIATE, when both ends set INTERFACE REQUEST; answered by a Reply.
    """

    destination: Endpoint
    flag: int = 0

    @classmethod
    def parse(cls, octets: Octets) -> tuple[InterfaceData, int] | None:
        """Raises WireError for RSV other than 0, with reply 07 for another SUB, 08 or 09 for a bad address."""
        if not octets:
            return None
        if octets[0]:
            raise WireError(f"reserved octet X'{octets[0]:02x}' of an INTERFACE DATA")
        if len(octets) < 4:
            return None
        if octets[1] != _INTERFACE_DATA:
            raise WireError(f"subcommand X'{octets[1]:02x}' is unknown", ReplyCode.COMMAND_NOT_SUPPORTED)
        try:
            destination, end = parse_block(octets, 3)
        except Truncated:
            return None
        if destination is None:
            raise WireError("address type 00 in an INTERFACE DATA", ReplyCode.ADDRESS_TYPE_NOT_SUPPORTED)
        return cls(destination, octets[2]), end

    def encode(self) -> bytes:
        return bytes((0, _INTERFACE_DATA, self.flag)) + encode_block(self.destination)
