"""Remotes as programs name them, made fit for the wire."""

from __future__ import annotations

from ipaddress import ip_address

from mcastsocks.address import Endpoint

_MOST_OCTETS = 255


def endpoint(host: str, port: int) -> Endpoint:
    """An address or name, and a port. Raises ValueError for what no message can carry."""
    if not 0 <= port <= 0xFFFF:
        raise ValueError(f"expected a port number from 0 to 65535, not {port}")
    try:
        return Endpoint(ip_address(host), port)
    except ValueError:
        return Endpoint(ascii_name(host), port)


def ascii_name(host: str) -> str:
    """A host name as it goes on the wire, other letters than ASCII by IDNA. Raises ValueError."""
    try:
        name = host.encode("idna").decode("ascii")
    except UnicodeError:
        raise ValueError(f"{host!r} is no host name") from None
    if not 1 <= len(name) <= _MOST_OCTETS:
        raise ValueError(f"a host name has 1 to {_MOST_OCTETS} octets, this one {len(name)}")
    return name
