"""Receiving by the batch, compared with receiving one at a time."""

from __future__ import annotations

import errno
import socket

import numpy as np
import pytest

from mcastsocks.planes.batch.received_control import Tell
from mcastsocks.planes.batch.receiver import BUFFER_OCTETS, Receiver, aids_of, frag_bits
from mcastsocks.planes.batch.sender import Sender
from mcastsocks.planes.batch.sockaddrs import PORT_MASK, words_of
from tests.planes.batch.loopback import datagrams, numbered, receive_all, send_all, table, udp_socket, wait_for

BOTH = pytest.mark.parametrize("version", [4, 6])
SIZES = [
    [1],
    [2, 0],
    [0, 0, 0],
    [8] * 64,
    [1316] * 65,
    [100] * 200,
    [5, 1400, 0, 9000, 5, 5, 65_000],
    [700] * 20 + [50],
]


@BOTH
@pytest.mark.parametrize("sizes", SIZES, ids=lambda sizes: f"{len(sizes)}x{sizes[0]}")
@pytest.mark.parametrize("coalesced", [False, True])
def test_every_datagram_arrives_whole_and_in_order(version: int, sizes: list[int], coalesced: bool) -> None:
    sent = numbered(sizes)
    with udp_socket(version) as source, udp_socket(version, coalesced) as target:
        assert not any(send_all(Sender(table(version, target), 64), source, sent))
        batch = receive_all(Receiver(version, 256), target)
        assert datagrams(batch) == sent
        assert (batch.sources == words_of(source.getsockname())).all()
        assert batch.truncated is None


def test_coalesced_run_takes_one_buffer() -> None:
    with udp_socket() as source, udp_socket(coalesced=True) as target:
        send_all(Sender(table(4, target), 64), source, numbered([40] * 20 + [7]))
        batch = receive_all(Receiver(4), target)
        assert len(batch) == 21
        assert set(batch.buffers.tolist()) == {0}


def test_plain_datagrams_after_a_run_are_not_cut() -> None:
    """What the kernel told about the last batch stays in memory."""
    receiver = Receiver(4)
    with udp_socket() as source, udp_socket(coalesced=True) as target:
        send_all(Sender(table(4, target), 64), source, numbered([40] * 20))
        assert len(receive_all(receiver, target)) == 20
        source.sendto(bytes(100), target.getsockname())
        assert receive_all(receiver, target).octets.tolist() == [100]


def test_header_fields_of_a_batch() -> None:
    headers = [bytes.fromhex(text) for text in ("00000000deadbeef", "0100000000000001", "0081ffff80000000")]
    with udp_socket() as source, udp_socket() as target:
        send_all(Sender(table(4, target)), source, [each + b"data" for each in headers])
        batch = receive_all(Receiver(4), target)
        assert aids_of(batch.headers).tolist() == [0xDEADBEEF, 1, 0x80000000]
        assert frag_bits(batch.headers).tolist() == [0, 1, 0x8100]


@BOTH
def test_sources_differ_by_port_alone(version: int) -> None:
    with udp_socket(version) as one, udp_socket(version) as other, udp_socket(version) as target:
        for source in (one, other):
            source.sendto(b"x", target.getsockname())
        first, second = receive_all(Receiver(version), target).sources
        assert first[0] != second[0]
        assert first[0] & ~PORT_MASK == second[0] & ~PORT_MASK
        assert (first[1:] == second[1:]).all()


def test_several_sockets_fill_one_batch() -> None:
    receiver = Receiver(4, 8)
    with udp_socket() as source, udp_socket() as one, udp_socket() as other:
        for target, data in ((one, b"1"), (other, b"2"), (one, b"3")):
            source.sendto(data, target.getsockname())
        assert wait_for(other)
        assert [receiver.receive(each.fileno()) for each in (one, other, one)] == [2, 1, 0]
        assert receiver.room == 5
        assert datagrams(receiver.take()) == [b"1", b"3", b"2"]
        assert receiver.room == 8


def test_a_call_takes_at_most_what_it_is_told_to() -> None:
    receiver = Receiver(4, 8)
    with udp_socket() as source, udp_socket() as target:
        send_all(Sender(table(4, target)), source, numbered([4] * 20))
        assert [receiver.receive(target.fileno(), 3), receiver.receive(target.fileno())] == [3, 5]
        assert datagrams(receiver.take()) == numbered([4] * 8)


def test_largest_datagram_fits_a_buffer() -> None:
    with udp_socket() as source, udp_socket() as target:
        source.sendto(bytes(65_507), target.getsockname())
        batch = receive_all(Receiver(4), target)
        assert batch.octets.tolist() == [65_507]
        assert batch.octets[0] <= BUFFER_OCTETS


def test_cut_datagram_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcastsocks.planes.batch.receiver.BUFFER_OCTETS", 10)
    with udp_socket() as source, udp_socket() as target:
        source.sendto(bytes(10), target.getsockname())
        source.sendto(bytes(11), target.getsockname())
        truncated = receive_all(Receiver(4), target).truncated
        assert truncated is not None
        assert truncated.tolist() == [False, True]


def test_nothing_waits() -> None:
    receiver = Receiver(4)
    with udp_socket() as target:
        assert receiver.receive(target.fileno()) == 0
        assert len(receiver.take()) == 0


@BOTH
@pytest.mark.parametrize("coalesced", [False, True])
def test_traffic_class_is_told_when_asked_for(version: int, coalesced: bool) -> None:
    level, ask, say = {
        4: (socket.IPPROTO_IP, socket.IP_RECVTOS, socket.IP_TOS),
        6: (socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, socket.IPV6_TCLASS),
    }[version]
    receiver = Receiver(version, tell=Tell.SEGMENTS | Tell.TRAFFIC_CLASS)
    with udp_socket(version) as source, udp_socket(version, coalesced) as target:
        target.setsockopt(level, ask, 1)
        for traffic_class in (0xB8, 0):
            source.setsockopt(level, say, traffic_class)
            send_all(Sender(table(version, target), 64), source, numbered([12] * 3))
        batch = receive_all(receiver, target)
        assert batch.traffic_classes is not None
        assert batch.traffic_classes.tolist() == [0xB8] * 3 + [0] * 3
        assert datagrams(batch) == numbered([12] * 3) * 2


def test_error_left_over_from_a_sent_datagram_does_not_hide_what_waits() -> None:
    with udp_socket() as sock, udp_socket() as friend, udp_socket() as gone:
        sock.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
        nobody = gone.getsockname()
        gone.close()
        friend.sendto(b"here", sock.getsockname())
        sock.sendto(b"anyone?", nobody)
        assert wait_for(sock)
        assert datagrams(receive_all(Receiver(4), sock)) == [b"here"]
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (0, errno.ECONNREFUSED)


def test_buffers_cost_nothing_before_they_are_used() -> None:
    receiver = Receiver(4, 4096)
    assert receiver.room == 4096
    assert np.count_nonzero(receiver.take().octets) == 0
