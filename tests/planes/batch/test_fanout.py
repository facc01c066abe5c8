"""One burst, many receivers."""

from __future__ import annotations

import numpy as np
import pytest

from mcastsocks.planes.batch.fanout import FanOut
from mcastsocks.planes.batch.sender import Sender
from tests.planes.batch.loopback import Payloads, header_words, numbered, received, table, udp_socket

BOTH = pytest.mark.parametrize("version", [4, 6])
SEGMENTS = pytest.mark.parametrize("segments", [1, 64])


@BOTH
@SEGMENTS
@pytest.mark.parametrize("sizes", [[100], [100] * 16, [100] * 70 + [30], [3, 3, 0, 9, 9, 9, 2]], ids=len)
def test_burst_reaches_every_receiver_behind_its_header(version: int, segments: int, sizes: list[int]) -> None:
    burst = numbered(sizes)
    headers = [bytes(4) + bytes([index] * 4) for index in range(3)]
    data = Payloads(burst)
    with udp_socket(version) as source, udp_socket(version) as a, udp_socket(version) as b, udp_socket(version) as c:
        targets = (a, b, c)
        fan_out = FanOut(Sender(table(version, *targets), segments))
        to = np.array([2, 0, 1])
        outcomes = fan_out.send(source.fileno(), to, header_words(headers), data.addresses, data.octets)
        assert outcomes.shape == (3, len(burst))
        assert not outcomes.any()
        for header, index in zip(headers, to.tolist(), strict=True):
            assert received(targets[index], len(burst)) == [header + each for each in burst]


def test_more_receivers_than_one_turn_holds() -> None:
    burst, count = numbered([24] * 4), 600
    data, headers = Payloads(burst), [index.to_bytes(8, "big") for index in range(count)]
    with udp_socket() as source, udp_socket() as target:
        fan_out = FanOut(Sender(table(4, target), 64))
        to = np.zeros(count, np.int64)
        assert not fan_out.send(source.fileno(), to, header_words(headers), data.addresses, data.octets).any()
        assert received(target, count * 4) == [header + each for header in headers for each in burst]


def test_receiver_that_cannot_be_reached_costs_the_others_nothing() -> None:
    burst = numbered([24] * 4)
    data = Payloads(burst)
    with udp_socket() as source, udp_socket() as one, udp_socket() as gone, udp_socket() as other:
        destinations = table(4, one, gone, other)
        destinations.clear(1)
        outcomes = FanOut(Sender(destinations, 64)).send(
            source.fileno(), np.arange(3), header_words([bytes(8)] * 3), data.addresses, data.octets
        )
        assert [row.tolist() for row in (outcomes != 0)] == [[False] * 4, [True] * 4, [False] * 4]
        assert received(one, 4) == received(other, 4) == [bytes(8) + each for each in burst]


def test_receiver_whose_runs_are_refused_gets_them_singly() -> None:
    burst = numbered([30_000] * 3)
    data = Payloads(burst)
    with udp_socket() as source, udp_socket() as one, udp_socket() as other:
        sender = Sender(table(4, one, other), 64)
        sender.limits = sender.limits._replace(octets=200_000)  # more than any datagram: always refused
        to, headers = np.array([0, 1]), [bytes(8), bytes(7) + b"1"]
        for _ in range(2):
            outcomes = FanOut(sender).send(source.fileno(), to, header_words(headers), data.addresses, data.octets)
            assert not outcomes.any()
            for target, header in zip((one, other), headers, strict=True):
                assert received(target, 3) == [header + each for each in burst]
            assert sender.destinations.largest_segment.tolist() == [30_007] * 2
