"""Endpoints, groups and the text that people write for them: plain values."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, NamedTuple

IPAddress = IPv4Address | IPv6Address
Host = IPv4Address | IPv6Address | str
"""An address, or a name that somebody has yet to resolve."""

SockAddr = tuple[Any, ...]
"""What the socket module calls an address: (host, port), or (host, port, flow information, scope) for IPv6."""

UNSPECIFIED_V4 = IPv4Address(0)
UNSPECIFIED_V6 = IPv6Address(0)


class Endpoint(NamedTuple):
    """An address (or name) and a port. With a group address this is a group: both parts name it."""

    host: Host
    port: int

    def __str__(self) -> str:
        host = self.host if isinstance(self.host, str) else _text(self.host)
        return f"[{host}]:{self.port}" if isinstance(self.host, IPv6Address) else f"{host}:{self.port}"

    @property
    def address(self) -> IPAddress:
        """The host, where it is known to be an address."""
        assert not isinstance(self.host, str), f"{self} is a name"
        return self.host

    @property
    def is_group(self) -> bool:
        return not isinstance(self.host, str) and self.host.is_multicast


UNUSED = Endpoint(UNSPECIFIED_V4, 0)
"""What a request or reply carries where it has no endpoint to name (RFC 1928 §4, §6)."""


def unmapped(address: IPAddress) -> IPAddress:
    """The IPv4 address inside a v4-mapped IPv6 address; any other address as it is."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped if mapped is not None else address


def site_of(address: IPAddress) -> IPAddress:
    """What limits by address count: an IPv4 address, or the /64 that an IPv6 host may choose from at will."""
    return address if address.version == 4 else IPv6Address(int(address) >> 64 << 64)


def unmapped_endpoint(endpoint: Endpoint) -> Endpoint:
    """The same for the host of an endpoint."""
    if isinstance(endpoint.host, IPv6Address) and endpoint.host.ipv4_mapped is not None:
        return Endpoint(endpoint.host.ipv4_mapped, endpoint.port)
    return endpoint


def from_sockaddr(sockaddr: SockAddr) -> Endpoint:
    """An endpoint from what recvfrom or getsockname gave, v4-mapped addresses unmapped, zones removed."""
    host = ip_address(sockaddr[0].partition("%")[0])
    return Endpoint(unmapped(host), sockaddr[1])


def to_sockaddr(endpoint: Endpoint, scope_id: int = 0) -> SockAddr:
    """What sendto and bind take for an endpoint with an address; equal to what recvfrom would give for it."""
    address = endpoint.address
    if isinstance(address, IPv4Address):
        return (_text(address), endpoint.port)
    return (_text(address), endpoint.port, 0, scope_id)


@lru_cache(maxsize=65_536)
def _text(address: IPAddress) -> str:
    """One for the many associations with that address."""
    return str(address)


def parse_port(text: str) -> int:
    """A port number 0 to 65535; ValueError says what was expected."""
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise ValueError(f"expected a port number from 0 to 65535, not {text!r}")
    return int(text)


def parse_endpoint(text: str) -> Endpoint:
    """`192.0.2.1:1080`, `[2001:db8::1]:1080` or `name.example:1080`; ValueError says what was expected."""
    if text.startswith("["):
        inner, bracket, port = text[1:].partition("]:")
        if not bracket:
            raise ValueError(f"expected [IPv6 address]:port, not {text!r}")
        return Endpoint(IPv6Address(inner), parse_port(port))
    host, colon, port = text.rpartition(":")
    if not colon or not host or ":" in host:
        raise ValueError(f"expected host:port (an IPv6 address in brackets: [2001:db8::1]:5004), not {text!r}")
    number = parse_port(port)
    try:
        return Endpoint(IPv4Address(host), number)
    except ValueError:
        if host.replace(".", "").isdigit():
            raise ValueError(f"expected an IPv4 address of four numbers from 0 to 255, not {host!r}") from None
        return Endpoint(host, number)


def parse_group(text: str) -> Endpoint:
    """Like parse_endpoint, for a group; ValueError when it is not one or its port is zero."""
    endpoint = parse_endpoint(text)
    if not endpoint.is_group:
        raise ValueError(f"{endpoint.host} is not a group: expected 224.0.0.0 to 239.255.255.255 or ff00::/8")
    if endpoint.port == 0:
        raise ValueError("a group needs a port from 1 to 65535")
    return endpoint
