"""Fragments between client and relay, both ways (mcast §4.5)."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests import scapy_layers as layers
from tests.netns.client import RawClient
from tests.netns.lab import REMOTE, Lab, wait_for
from tests.netns.relay import RelayProcess


def send_pieces(client: RawClient, aid: int, dgid: int, pieces: list[tuple[int, bytes]]) -> None:
    for frag, body in pieces:
        client.udp.sendto(bytes(layers.datagram(aid, body, frag=frag, dgid=dgid)), client.relay)


def cut(data: bytes, width: int) -> list[tuple[int, bytes]]:
    """FRAG and body of each piece, bit 7 on the last."""
    bodies = [data[start : start + width] for start in range(0, len(data), width)]
    return [(position | (0x80 if position == len(bodies) else 0), body) for position, body in enumerate(bodies, 1)]


@pytest.mark.parametrize("version", [4, 6])
def test_a_client_sends_in_fragments_what_outside_gets_whole(lab: Lab, relay: RelayProcess, version: int) -> None:
    with RawClient(lab.client, version=version) as client, lab.outside.udp(REMOTE[version]) as remote:
        aid = client.associate(remote.getsockname()[:2])
        whole = random.Random(7).randbytes(65_507)  # more than fits behind the header
        pieces = cut(whole, 1000)
        random.Random(8).shuffle(pieces)
        send_pieces(client, aid, 1, pieces[:40])
        client.send(aid, b"standalone in between")
        assert remote.recvfrom(70_000)[0] == b"standalone in between"
        send_pieces(client, aid, 1, pieces[40:])
        assert remote.recvfrom(70_000)[0] == whole
        send_pieces(client, aid, 2, [(0x81, b"the only piece")])
        assert remote.recvfrom(70_000)[0] == b"the only piece"
        counters = relay.counters()
        assert (counters["pieces"], counters["reassembled"]) == (len(pieces) + 1, 2)


def test_four_datagrams_of_an_association_are_reassembled_at_once(lab: Lab, relay: RelayProcess) -> None:
    with RawClient(lab.client) as client, lab.outside.udp(REMOTE[4]) as remote:
        aid = client.associate(remote.getsockname())
        for dgid in range(1, 5):
            send_pieces(client, aid, dgid, [(0x01, b"%d " % dgid)])
        for dgid in range(1, 5):
            send_pieces(client, aid, dgid, [(0x82, b"ends")])
        assert [remote.recvfrom(99)[0] for _ in range(4)] == [b"%d ends" % dgid for dgid in range(1, 5)]


@pytest.mark.parametrize(
    ("pieces", "end"),
    [
        ([(0x01, b"one"), (0x01, b"another one")], "contradicted"),
        ([(0x82, b"an end"), (0x83, b"another end")], "contradicted"),
        ([(0x82, b"the end"), (0x03, b"behind it")], "contradicted"),
        ([(0x01, bytes(60_000)), (0x02, bytes(60_000))], "too-large"),
    ],
)
def test_what_contradicts_itself_or_is_too_large_goes_nowhere(
    lab: Lab, relay: RelayProcess, pieces: list[tuple[int, bytes]], end: str
) -> None:
    with RawClient(lab.client) as client, lab.outside.udp(REMOTE[4]) as remote:
        aid = client.associate(remote.getsockname())
        send_pieces(client, aid, 9, pieces)
        client.send(aid, b"afterwards")
        assert remote.recvfrom(99)[0] == b"afterwards"
        assert relay.counters()[f"fragments.{end}"] == 1


def test_an_incomplete_datagram_is_given_up_in_time(lab: Lab, relay: RelayProcess) -> None:
    with RawClient(lab.client) as client:
        aid = client.associate((REMOTE[4], 5000))
        send_pieces(client, aid, 3, [(0x01, b"and then nothing")])
        wait_for("the timer", lambda: relay.counters().get("fragments.timed-out") == 1, timeout_s=15)


def test_the_relay_cuts_what_is_above_the_configured_size(lab: Lab, start_relay: Callable[..., RelayProcess]) -> None:
    start_relay(inside="fragment_above = 600")
    with RawClient(lab.client) as client, lab.outside.udp(REMOTE[4]) as remote:
        aid = client.associate(remote.getsockname())
        client.send(aid, b"x")
        source = remote.recvfrom(99)[1]
        for number in (1, 2):
            data = random.Random(number).randbytes(1500)
            remote.sendto(data, source)
            octets = [client.udp.recv(70_000) for _ in range(3)]
            pieces = [layers.Datagram(each) for each in octets]
            assert [len(each) for each in octets] == [600, 600, 324]
            assert [(piece.FRAG, piece.DGID, piece.AID) for piece in pieces] == [
                (frag, number, aid) for frag in (0x01, 0x02, 0x83)
            ]
            assert b"".join(bytes(piece.DATA) for piece in pieces) == data
