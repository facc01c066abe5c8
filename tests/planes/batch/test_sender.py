"""Sending by the batch, and knowing what became of each datagram."""

from __future__ import annotations

import errno
import socket

import numpy as np
import pytest

from mcastsocks.planes.batch.iovecs import Heads
from mcastsocks.planes.batch.sender import Sender
from tests.planes.batch.loopback import (
    Payloads,
    numbered,
    received,
    send_all,
    table,
    udp_socket,
)

BOTH = pytest.mark.parametrize("version", [4, 6])
SEGMENTS = pytest.mark.parametrize("segments", [1, 64])
IP_RECVERR, IP_RECVTTL = 11, 12  # include/uapi/linux/in.h
IPV6 = socket.IPPROTO_IPV6


@BOTH
@SEGMENTS
@pytest.mark.parametrize("count", [1, 2, 64, 65, 200])
def test_run_arrives_in_order(version: int, segments: int, count: int) -> None:
    sent = numbered([60] * count)
    with udp_socket(version) as source, udp_socket(version) as target:
        assert send_all(Sender(table(version, target), segments), source, sent) == [0] * count
        assert received(target, count) == sent


@BOTH
@SEGMENTS
def test_datagrams_for_different_destinations_do_not_mix(version: int, segments: int) -> None:
    sizes = [20, 20, 20, 7, 7, 0, 0, 300, 299, 299, 1, 20, 20, 4000, 12]
    to = [0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 1, 0]
    sent = numbered(sizes)
    with udp_socket(version) as source, udp_socket(version) as one, udp_socket(version) as other:
        data = Payloads(sent)
        outcomes = Sender(table(version, one, other), segments).send(source.fileno(), data.to(to))
        assert not outcomes.any()
        for index, target in enumerate((one, other)):
            expected = [data for data, where in zip(sent, to, strict=True) if where == index]
            assert received(target, len(expected)) == expected


@BOTH
@SEGMENTS
def test_each_datagram_gets_its_own_header(version: int, segments: int) -> None:
    sent = numbered([50, 50, 50, 10, 0, 0, 9])
    headers = [bytes(4) + bytes([index] * 4) for index in range(len(sent))]
    data = Payloads(sent)
    with udp_socket(version) as source, udp_socket(version) as target:
        Sender(table(version, target), segments).send(source.fileno(), data.to([0] * len(sent), headers))
        assert received(target, len(sent)) == [header + body for header, body in zip(headers, sent, strict=True)]


@BOTH
@SEGMENTS
def test_headers_may_stand_anywhere_and_be_of_any_length(version: int, segments: int) -> None:
    """Where header and payload come to the same, datagrams are a run all the same."""
    headers = [b"ten octets", b"and this has twenty-two", b"ten others", b"", b"ten octets"]
    sent = numbered([50, 37, 50, 60, 50])
    data, before = Payloads(sent), Payloads(headers)
    outgoing = data.to([0] * len(sent))
    outgoing.headers = Heads(before.addresses, before.octets)
    with udp_socket(version) as source, udp_socket(version) as target:
        for _ in range(2):
            assert not Sender(table(version, target), segments, most=3).send(source.fileno(), outgoing).any()
            assert received(target, 5) == [header + body for header, body in zip(headers, sent, strict=True)]


def test_more_than_memory_holds_goes_in_turns() -> None:
    sent = numbered([30] * 50)
    with udp_socket() as source, udp_socket() as target:
        assert send_all(Sender(table(4, target), 64, most=7), source, sent) == [0] * 50
        assert received(target, 50) == sent


def test_run_is_cut_at_what_one_datagram_carries() -> None:
    sent = numbered([30_000] * 5)
    with udp_socket() as source, udp_socket() as target:
        assert send_all(Sender(table(4, target), 64), source, sent) == [0] * 5
        assert received(target, 5) == sent


@SEGMENTS
def test_only_the_datagram_that_failed_is_blamed(segments: int) -> None:
    sent = numbered([10, 10, 65_508, 10, 10])
    with udp_socket() as source, udp_socket() as target:
        outcomes = send_all(Sender(table(4, target), segments), source, sent)
        assert outcomes == [0, 0, errno.EMSGSIZE, 0, 0]
        assert received(target, 4) == [sent[0], sent[1], sent[3], sent[4]]


@SEGMENTS
def test_destination_that_is_cleared_fails_alone(segments: int) -> None:
    with udp_socket() as source, udp_socket() as one, udp_socket() as other:
        destinations = table(4, one, other)
        destinations.clear(0)
        data = Payloads(numbered([8] * 6))
        outcomes = Sender(destinations, segments).send(source.fileno(), data.to([1, 0, 0, 1, 1, 0]))
        assert [bool(outcome) for outcome in outcomes] == [False, True, True, False, False, True]
        assert received(other, 3) == [numbered([8] * 6)[index] for index in (0, 3, 4)]


@SEGMENTS
def test_error_left_over_from_another_destination_is_blamed_on_nobody(segments: int) -> None:
    to = [0, 1, 0, 1, 1, 0, 1]
    sent = numbered([16] * len(to))
    with udp_socket() as source, udp_socket() as gone, udp_socket() as target:
        source.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        destinations = table(4, gone, target)
        gone.close()
        data = Payloads(sent)
        outcomes = Sender(destinations, segments).send(source.fileno(), data.to(to))
        assert not outcomes.any()
        assert received(target, 4) == [sent[index] for index in (1, 3, 4, 6)]


@SEGMENTS
def test_refused_run_goes_singly_and_that_is_remembered(segments: int) -> None:
    """Segments larger than the path's MTU are refused; single datagrams are fragmented by IP."""
    sent = numbered([66_000 // 2] * 3)
    with udp_socket() as source, udp_socket() as target:
        sender = Sender(table(4, target), segments)
        sender.limits = sender.limits._replace(octets=200_000)  # more than any datagram: always refused
        assert send_all(sender, source, sent) == [0, 0, 0]
        assert received(target, 3) == sent
        assert (sender.destinations.largest_segment[0] < len(sent[0])) == (segments > 1)
        assert send_all(sender, source, sent) == [0, 0, 0]
        sender.destinations.set(0, target.getsockname())
        assert sender.destinations.largest_segment[0] > len(sent[0])


@BOTH
@SEGMENTS
def test_ttl_and_traffic_class_by_datagram(version: int, segments: int) -> None:
    level, ask_ttl, ask_class, ttl, traffic_class = {
        4: (socket.IPPROTO_IP, IP_RECVTTL, socket.IP_RECVTOS, socket.IP_TTL, socket.IP_TOS),
        6: (IPV6, socket.IPV6_RECVHOPLIMIT, socket.IPV6_RECVTCLASS, socket.IPV6_HOPLIMIT, socket.IPV6_TCLASS),
    }[version]
    sent, ttls = numbered([40] * 6), [5, 5, 0, 9, 9, 0]
    with udp_socket(version) as source, udp_socket(version) as target:
        for each in (ask_ttl, ask_class):
            target.setsockopt(level, each, 1)
        usual = source.getsockopt(level, socket.IP_TTL if version == 4 else socket.IPV6_UNICAST_HOPS)
        data = Payloads(sent)
        for classes in (None, [0x20, 0x20, 0x20, 0, 0x48, 0x48]):
            outgoing = data.to([0] * 6)
            outgoing.ttls = np.array(ttls)
            outgoing.traffic_classes = None if classes is None else np.array(classes)
            assert not Sender(table(version, target), segments).send(source.fileno(), outgoing).any()
            for index in range(6):
                octets, ancillary, *_ = target.recvmsg(1000, 100)
                told = {kind: int.from_bytes(value, "little") for _, kind, value in ancillary}
                assert octets == sent[index]
                assert told[ttl] == (ttls[index] or usual)
                assert told[traffic_class] == (classes[index] if classes else 0)
