"""How a client's port is learnt, one datagram at a time."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from mcastsocks.address import Endpoint, SockAddr
from mcastsocks.planes.counters import DropReason
from mcastsocks.planes.forwarding import Forwarding
from mcastsocks.planes.slow_path import Course, judge
from mcastsocks.tables.changes import Entry, Terms
from mcastsocks.wire.datagram import HEADER_OCTETS

V4, V6 = ("192.0.2.10", 0), ("fe80::10", 0, 0, 3)


@pytest.fixture
def inside() -> Iterator[socket.socket]:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        yield sock


def forwarding(inside: socket.socket, client: SockAddr) -> Forwarding:
    here, remote = (Endpoint(ip_address("192.0.2.1"), port) for port in (1080, 7))
    entry, terms = Entry(1, 1, here, client, remote), Terms(sends=True, receives=True)
    return Forwarding.of(entry, terms, inside, ("192.0.2.1", 7))


def shown(forwarding: Forwarding, host: str, port: int, *rest: int) -> DropReason | Course:
    source: SockAddr = (host, port, *rest)
    return judge(forwarding, 0, 0, source, HEADER_OCTETS + 1)


@pytest.mark.parametrize("client", [V4, V6])
def test_datagram_from_port_zero_teaches_nothing(inside: socket.socket, client: SockAddr) -> None:
    learning = forwarding(inside, client)
    host, _, *rest = client
    assert shown(learning, host, 0, *rest) is DropReason.WRONG_PORT
    assert learning.client is None
    assert shown(learning, host, 5004, *rest) is Course.RELAY
    assert learning.client == (host, 5004, *rest)
    assert shown(learning, host, 0, *rest) is DropReason.WRONG_PORT
    assert shown(learning, host, 5005, *rest) is DropReason.WRONG_PORT
    assert learning.client == (host, 5004, *rest)


@pytest.mark.parametrize("source", [("192.0.2.11", 5004), ("192.0.2.11", 0)])
def test_another_address_teaches_nothing(inside: socket.socket, source: tuple[str, int]) -> None:
    learning = forwarding(inside, V4)
    assert shown(learning, *source) is DropReason.WRONG_ADDRESS
    assert learning.client is None
