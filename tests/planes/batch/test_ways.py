"""Rows of ways: whose they are, for how long, and what leaves by them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from mcastsocks.address import Endpoint, SockAddr
from mcastsocks.planes.associate import Associated, Way
from mcastsocks.planes.batch import ways
from mcastsocks.planes.batch.outlets import Outlets
from mcastsocks.planes.batch.sockaddrs import words_of
from mcastsocks.planes.batch.ways import Ways
from mcastsocks.planes.counters import DropReason
from mcastsocks.planes.loop import DatagramLoop
from mcastsocks.planes.outsides import OutsideKey, OutsideSocket
from mcastsocks.planes.sockets import own_endpoint
from mcastsocks.tables.changes import Associate
from tests.planes.batch.loopback import udp_socket

HERE: SockAddr = ("127.0.0.1", 9)
THERE: SockAddr = ("127.0.0.1", 10)


@contextmanager
def outlets(*socks: socket.socket) -> Iterator[Outlets]:
    loop = DatagramLoop()
    found = Outlets(loop, lambda ready: None, lambda outside: None)
    for channel, sock in enumerate(socks):
        outside = OutsideSocket(OutsideKey("", channel, HERE, 4), sock, sock.getsockname(), own_endpoint(sock))
        outside.associated = Associated(Associate(channel, Endpoint(own_endpoint(sock).host, 1), HERE), HERE, sock)
        found.add(outside)
    yield found
    found.close()
    loop.close()


def way_to(sock: socket.socket, target: SockAddr = HERE, dscp: int | None = None) -> Way:
    return Way(sock, target, dscp, DropReason.UNREACHABLE)


def test_a_way_has_one_row_until_all_are_given_up() -> None:
    with udp_socket() as sock, outlets(sock) as found:
        table, one, other = Ways(found), way_to(sock), way_to(sock, THERE)
        assert [table.row_of(each, 10) for each in (one, other, one)] == [1, 2, 1]
        table.clear()
        assert [table.row_of(each, 10) for each in (other, one, other)] == [1, 2, 1]
        assert (table.remotes[4].words[1] == words_of(THERE)).all()


def test_an_equal_way_is_another() -> None:
    """A row is found by the way itself: whoever took its place, a way that has ended has none."""
    with udp_socket() as sock, outlets(sock) as found:
        table, one, other = Ways(found), way_to(sock), way_to(sock)
        assert table.row_of(one, 10) != table.row_of(other, 10)


def test_both_ip_versions_and_any_header() -> None:
    with udp_socket() as four, udp_socket(6) as six, outlets(four, six) as found:
        table = Ways(found)
        rows = np.array([table.row_of(way_to(four), 10), table.row_of(way_to(six, six.getsockname()), 20)])
        assert table.is_six[rows].tolist() == [False, True]
        assert table.headers[rows].tolist() == [10, 20]
        assert table.outsides[rows].tolist() == [found.number(four), found.number(six)]


def test_it_is_full_when_no_row_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "_ROWS", 3)
    with udp_socket() as sock, outlets(sock) as found:
        table = Ways(found)
        table.row_of(way_to(sock), 10)
        assert not table.is_full
        table.row_of(way_to(sock), 10)
        assert table.is_full


def test_dscp_is_the_ways_and_ecn_the_datagrams() -> None:
    with udp_socket() as sock, outlets(sock) as found:
        table = Ways(found)
        rows = np.array([table.row_of(way_to(sock), 10), table.row_of(way_to(sock, dscp=46), 10)])
        marks = table.marks(table.send_dscps, rows, np.array([0x29, 0x29]))
        assert marks is not None
        assert marks.tolist() == [0x29, 46 << 2 | 1]
        assert table.marks(table.send_dscps, rows[:1], None) is None


def test_what_leaves_is_counted_for_whose_outside_socket_it_is() -> None:
    with udp_socket() as sock, udp_socket() as other, outlets(sock, other) as found:
        table = Ways(found)
        mine, its = table.row_of(way_to(sock), 10), table.row_of(way_to(other), 10)
        table.count_to_remote(np.array([mine, its, mine]), np.array([1, 20, 300]))
        table.count_dropped(np.array([its]))
        one, two = found.traffic(found.number(sock)), found.traffic(found.number(other))
        assert (one.to_remote_datagrams, one.to_remote_octets, one.dropped_datagrams) == (2, 301, 0)
        assert (two.to_remote_datagrams, two.to_remote_octets, two.dropped_datagrams) == (1, 20, 1)
