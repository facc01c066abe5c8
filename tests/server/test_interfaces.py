"""Interfaces by name and address, on a host made up for it and on this one's loopback."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import netifaces
import pytest

from mcastsocks.errors import ConfigError
from mcastsocks.planes.interface import Interface
from mcastsocks.server import interfaces
from mcastsocks.server.interfaces import find_interface, inside_networks, networks_of, own_addresses

V4, V6 = netifaces.AF_INET, netifaces.AF_INET6
HOST = {
    "lo": {V4: [{"addr": "127.0.0.1", "netmask": "255.0.0.0"}], V6: [{"addr": "::1", "netmask": "ffff::/128"}]},
    "in0": {
        V4: [{"addr": "192.0.2.1", "netmask": "255.255.255.0"}, {"addr": "192.0.2.129", "netmask": "255.255.255.128"}],
        V6: [
            {"addr": "fe80::1%in0", "netmask": "ffff:ffff:ffff:ffff::/64"},
            {"addr": "2001:db8:1::1", "netmask": "ffff:ffff:ffff::/48"},
        ],
    },
    "out0": {
        V4: [{"addr": "169.254.7.7", "netmask": "255.255.0.0"}, {"addr": "203.0.113.1", "netmask": "255.255.255.252"}],
        V6: [{"addr": "fe80::2%out0", "netmask": "ffff:ffff:ffff:ffff::/64"}],
    },
    "tun0": {V4: [{"addr": "198.51.100.1", "peer": "198.51.100.2"}]},
    "new0": {netifaces.AF_PACKET: [{"addr": "02:00:00:00:00:01"}]},
}
OUT = Interface("out0", 13, IPv4Address("203.0.113.1"), IPv6Address("fe80::2"))


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netifaces, "interfaces", lambda: list(HOST))
    monkeypatch.setattr(netifaces, "ifaddresses", HOST.__getitem__)
    monkeypatch.setattr(socket, "if_nametoindex", lambda name: 11 + list(HOST).index(name))


@pytest.mark.parametrize(
    ("wanted", "name", "ipv4", "ipv6"),
    [
        ("out0", "out0", "203.0.113.1", "fe80::2"),  # what reaches beyond the link goes first
        ("169.254.7.7", "out0", "169.254.7.7", "fe80::2"),  # but not before what was asked for
        ("in0", "in0", "192.0.2.1", "2001:db8:1::1"),
        ("192.0.2.129", "in0", "192.0.2.129", "2001:db8:1::1"),
        ("2001:db8:1::1", "in0", "192.0.2.1", "2001:db8:1::1"),
        ("tun0", "tun0", "198.51.100.1", None),
    ],
)
@pytest.mark.usefixtures("host")
def test_outside_is_found_by_name_or_address(wanted: str, name: str, ipv4: str, ipv6: str | None) -> None:
    found = find_interface(wanted)
    assert (found.name, found.index) == (name, 11 + list(HOST).index(name))
    assert (str(found.ipv4), found.ipv6 and str(found.ipv6)) == (ipv4, ipv6)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("eth9", "no interface 'eth9' here; there are lo, in0, out0, tun0, new0"),
        ("203.0.113.2", "no interface here has the address 203.0.113.2"),
        ("2001:db8::9", "no interface here has the address 2001:db8::9"),
        ("new0", "new0 has no address yet; give it one first"),
    ],
)
@pytest.mark.usefixtures("host")
def test_outside_that_is_not_there_is_told_with_what_is(wanted: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_interface(wanted)
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("address", "networks"),
    [
        ("192.0.2.1", ["192.0.2.0/24", "192.0.2.128/25", "fe80::/64", "2001:db8:1::/48"]),
        ("2001:db8:1::1", ["192.0.2.0/24", "192.0.2.128/25", "fe80::/64", "2001:db8:1::/48"]),
        ("198.51.100.1", []),  # a link between two has no network
        ("203.0.113.9", []),
    ],
)
@pytest.mark.usefixtures("host")
def test_networks_of_an_address_are_those_of_its_link(address: str, networks: list[str]) -> None:
    assert networks_of(ip_address(address)) == [ip_network(network) for network in networks]


@pytest.mark.usefixtures("host")
def test_inside_networks_are_those_listened_on_each_once() -> None:
    listen = [ip_address("192.0.2.1"), ip_address("2001:db8:1::1")]
    assert list(map(str, inside_networks(listen, {OUT.name}))) == [
        "192.0.2.0/24",
        "192.0.2.128/25",
        "fe80::/64",
        "2001:db8:1::/48",
    ]


@pytest.mark.usefixtures("host")
def test_inside_networks_of_a_wildcard_are_all_but_the_outsides() -> None:
    networks = inside_networks([ip_address("0.0.0.0")], {OUT.name})
    assert ip_network("192.0.2.0/24") in networks
    assert ip_network("127.0.0.0/8") in networks
    assert ip_network("203.0.113.0/30") not in networks


@pytest.mark.usefixtures("host")
def test_own_addresses_are_all_of_both_families_without_zones() -> None:
    assert {ip_address(each) for each in ("192.0.2.129", "203.0.113.1", "fe80::2", "198.51.100.1")} <= own_addresses()
    assert len(own_addresses()) == 10


@pytest.mark.parametrize(
    ("item", "network"),
    [
        ({"addr": "192.0.2.7", "netmask": "255.255.255.240"}, "192.0.2.0/28"),
        ({"addr": "2001:db8::7%eth0", "netmask": "ffff:ffff::/32"}, "2001:db8::/32"),
        ({"addr": "192.0.2.7"}, None),
        ({"peer": "192.0.2.7"}, None),
        ({"addr": "192.0.2.7", "netmask": ""}, None),
    ],
)
def test_network_of_what_netifaces_says(item: dict[str, str], network: str | None) -> None:
    assert interfaces._network_of(item) == (network and ip_network(network))


def test_loopback_of_this_host_is_found_by_name_and_by_address() -> None:
    by_name, by_address = find_interface("lo"), find_interface("127.0.0.1")
    assert by_name == by_address
    assert by_name.ipv4 == IPv4Address("127.0.0.1")
    assert by_name.index == socket.if_nametoindex("lo")
    assert ip_network("127.0.0.0/8") in networks_of(IPv4Address("127.0.0.1"))
    assert IPv4Address("127.0.0.1") in own_addresses()
