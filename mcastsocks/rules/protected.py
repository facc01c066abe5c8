"""Ranges that a rule opens only by naming them: a rule for everything does not mean these."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv6Network, ip_network

from mcastsocks.address import IPAddress
from mcastsocks.rules.model import IPNetwork
from mcastsocks.rules.networks import Networks

_UNICAST = tuple(
    ip_network(text)
    for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "255.255.255.255/32", "::/127", "fe80::/10")
)
_LOCAL_CONTROL = ip_network("224.0.0.0/24")  # RFC 5771: never forwarded by a router
_SCOPE_INTERFACE, _SCOPE_LINK = 1, 2  # RFC 4291 §2.7


class Protected:
    """`own` are the relay's own addresses, `inside` the networks its clients are in."""

    def __init__(self, own: frozenset[IPAddress] = frozenset(), inside: Iterable[IPNetwork] = ()) -> None:
        self._own, self._networks = own, Networks((*_UNICAST, *inside))

    def ranges_of(self, address: IPAddress) -> Iterable[IPNetwork]:
        """The protected ranges that an address lies in."""
        if address.is_multicast:
            yield from _group_ranges(address)
            return
        if address in self._own and not address.is_loopback:
            yield ip_network(address)
        if address in self._networks:
            yield from self._networks.of(address)


def never_crosses(address: IPAddress) -> bool:
    """Groups that no rule can open: those of an interface alone, and the reserved scope 0."""
    return address.version == 6 and address.is_multicast and _scope(address) <= _SCOPE_INTERFACE


def _group_ranges(address: IPAddress) -> Iterable[IPNetwork]:
    if address in _LOCAL_CONTROL:
        yield _LOCAL_CONTROL
    elif address.version == 6 and _scope(address) == _SCOPE_LINK:
        yield IPv6Network((int(address) >> 112 << 112, 16))


def _scope(address: IPAddress) -> int:
    return address.packed[1] & 0x0F
