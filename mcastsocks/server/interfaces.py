"""This host's interfaces and addresses, by netifaces."""

from __future__ import annotations

import socket
from collections.abc import Container
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import netifaces

from mcastsocks.address import IPAddress
from mcastsocks.errors import ConfigError
from mcastsocks.planes.interface import Interface
from mcastsocks.rules.model import IPNetwork
from mcastsocks.server.config import Loaded

_FAMILIES = {4: netifaces.AF_INET, 6: netifaces.AF_INET6}


def addresses_of(name: str, version: int) -> list[IPAddress]:
    """The addresses of one interface, without zones, in the system's order."""
    found = netifaces.ifaddresses(name).get(_FAMILIES[version], [])
    return [ip_address(str(item["addr"]).partition("%")[0]) for item in found if "addr" in item]


def own_addresses() -> frozenset[IPAddress]:
    """Every address of this host."""
    return frozenset(
        address for name in netifaces.interfaces() for version in (4, 6) for address in addresses_of(name, version)
    )


def networks_of(address: IPAddress) -> list[IPNetwork]:
    """The networks on the link of the interface that has this address."""
    return [
        network
        for name in netifaces.interfaces()
        if address in addresses_of(name, address.version)
        for network in networks_on(name)
    ]


def networks_on(name: str) -> list[IPNetwork]:
    """The networks on the link of one interface."""
    items = (item for family in _FAMILIES.values() for item in netifaces.ifaddresses(name).get(family, []))
    return [network for item in items if (network := _network_of(item))]


def inside_networks(listen: list[IPAddress], outsides: Container[str]) -> tuple[IPNetwork, ...]:
    """Where clients are: the links of the addresses listened on; for a wildcard every link but the outsides'."""
    networks: list[IPNetwork] = []
    for address in listen:
        if address.is_unspecified:
            networks += [net for name in netifaces.interfaces() if name not in outsides for net in networks_on(name)]
        else:
            networks += networks_of(address)
    return tuple(dict.fromkeys(networks))


def find_interface(wanted: str) -> Interface:
    """An interface by its name or one of its addresses. Raises ConfigError naming what there is."""
    names = netifaces.interfaces()
    chosen: IPAddress | None = None
    name = wanted
    if wanted not in names:
        try:
            chosen = ip_address(wanted)
        except ValueError:
            raise ConfigError(f"no interface {wanted!r} here; there are {', '.join(names)}") from None
        name = next((each for each in names if chosen in addresses_of(each, chosen.version)), "")
        if not name:
            raise ConfigError(f"no interface here has the address {chosen}")
    ipv4, ipv6 = (_speaking_address(name, version, chosen) for version in (4, 6))
    if ipv4 is None and ipv6 is None:
        raise ConfigError(f"{name} has no address yet; give it one first")
    assert isinstance(ipv4, IPv4Address | None)
    assert isinstance(ipv6, IPv6Address | None)
    return Interface(name, socket.if_nametoindex(name), ipv4, ipv6)


def configured_outside(loaded: Loaded, index: int) -> Interface:
    """The same for a configuration, with the place in it."""
    return _at(loaded, ("outside", index, "interface"), loaded.config.outside[index].interface)


def configured_inside(loaded: Loaded) -> Interface | None:
    """Where MM-mode multicasts: as configured, else the interface of the first address listened on."""
    inside = loaded.config.inside
    if inside.interface is not None:
        return _at(loaded, ("inside", "interface"), inside.interface)
    first = inside.listen[0].address
    return None if first.is_unspecified else _at(loaded, ("inside", "listen", 0), str(first))


def _at(loaded: Loaded, place: tuple[str | int, ...], wanted: str) -> Interface:
    try:
        return find_interface(wanted)
    except ConfigError as error:
        raise loaded.error((place, str(error))) from None


def _speaking_address(name: str, version: int, chosen: IPAddress | None) -> IPAddress | None:
    """The chosen address, else the first that reaches beyond the link, else any."""
    if chosen is not None and chosen.version == version:
        return chosen
    addresses = addresses_of(name, version)
    return next((each for each in addresses if not each.is_link_local), next(iter(addresses), None))


def _network_of(item: dict[str, str]) -> IPNetwork | None:
    """netifaces writes an IPv4 mask as 255.255.255.0 and an IPv6 one as ffff:ffff::/32."""
    address, mask = item.get("addr", "").partition("%")[0], item.get("netmask", "").rpartition("/")[2]
    return ip_network(f"{address}/{mask}", strict=False) if address and mask else None
