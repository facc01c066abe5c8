"""Which ports UDP ASSOCIATEs get: clients that can be told apart share one, the others each have their own."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from mcastsocks.address import SockAddr
from mcastsocks.tables.ports import DoorPorts

HERE, THERE = ip_address("192.0.2.1"), ip_address("2001:db8::1")
ANNOUNCED, UNKNOWN = ("192.0.2.7", 4004), ("192.0.2.7", 0)


def take_first(ports: DoorPorts, client: SockAddr) -> int | None:
    port = next(ports.free(HERE, client), None)
    if port is not None:
        ports.take(HERE, port, client)
    return port


def test_the_lowest_port_comes_first_and_all_are_offered() -> None:
    assert list(DoorPorts(range(1081, 1084)).free(HERE, UNKNOWN)) == [1081, 1082, 1083]


def test_clients_that_can_be_told_apart_share_a_port() -> None:
    ports = DoorPorts(range(1081, 1083))
    clients = [ANNOUNCED, ("192.0.2.7", 4005), ("192.0.2.8", 4004), UNKNOWN, ("192.0.2.8", 0)]
    assert [take_first(ports, client) for client in clients] == [1081] * 5


@pytest.mark.parametrize("client", [ANNOUNCED, UNKNOWN, ("fe80::1", 0, 0, 2)])
def test_clients_that_cannot_each_have_a_port_until_there_is_none(client: SockAddr) -> None:
    ports = DoorPorts(range(1081, 1084))
    assert [take_first(ports, client) for _ in range(4)] == [1081, 1082, 1083, None]


def test_links_of_the_same_addresses_are_told_apart() -> None:
    ports = DoorPorts(range(1081, 1082))
    assert [take_first(ports, ("fe80::1", 0, 0, zone)) for zone in (2, 3)] == [1081, 1081]


def test_every_address_of_ours_has_all_the_ports() -> None:
    ports = DoorPorts(range(1081, 1082))
    ports.take(HERE, 1081, UNKNOWN)
    assert list(ports.free(THERE, UNKNOWN)) == [1081]
    assert not list(ports.free(HERE, UNKNOWN))


def test_a_port_given_back_is_offered_again() -> None:
    ports = DoorPorts(range(1081, 1084))
    for _ in range(3):
        take_first(ports, UNKNOWN)
    ports.give_back(HERE, 1082, UNKNOWN)
    assert list(ports.free(HERE, UNKNOWN)) == [1082]
    assert take_first(ports, UNKNOWN) == 1082


def test_what_was_not_taken_cannot_be_given_back() -> None:
    ports = DoorPorts(range(1081, 1084))
    ports.take(HERE, 1081, UNKNOWN)
    for inside, port, client in ((HERE, 1081, ANNOUNCED), (HERE, 1082, UNKNOWN), (THERE, 1081, UNKNOWN)):
        with pytest.raises(KeyError):
            ports.give_back(inside, port, client)


def test_no_ports_are_none_free() -> None:
    assert not list(DoorPorts(range(0)).free(HERE, UNKNOWN))
