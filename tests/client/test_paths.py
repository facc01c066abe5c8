"""How an association's datagrams leave the client: room that is reported, fragments and their DGIDs, frames."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any, cast

import pytest

from mcastsocks.client.paths import ChannelPath, PlainPath, UdpPath
from mcastsocks.wire.control import Encapsulated
from mcastsocks.wire.datagram import Datagram

V4, V6 = ("192.0.2.1", 1080), ("2001:db8::1", 1080, 0, 0)


class Sent:
    """Stands in for the UDP endpoint and for the control channel."""

    def __init__(self) -> None:
        self.octets: list[bytes] = []

    async def send(self, octets: bytes, to: object) -> None:
        self.octets.append(octets)

    def write(self, frame: Encapsulated) -> None:
        self.octets.append(frame.encode())

    async def drain(self) -> None:
        pass


def udp(sent: Sent, relay: tuple[Any, ...] = V4, fragment_above: int | None = None) -> UdpPath:
    return UdpPath(cast(Any, sent), relay, 7, fragment_above)


def test_the_room_reported_is_what_a_datagram_or_frame_carries() -> None:
    sent = Sent()
    assert udp(sent, V4).max_data_octets == 65_507 - 8
    assert udp(sent, V6).max_data_octets == 65_527 - 8
    assert PlainPath(cast(Any, sent), V4).max_data_octets == 65_507
    assert ChannelPath(cast(Any, sent), 7).max_data_octets <= 65_528, "no more than a frame has room for"


def test_a_frame_goes_out_whole() -> None:
    sent = Sent()
    asyncio.run(ChannelPath(cast(Any, sent), 0xDEADBEEF).send(b"ping"))
    assert sent.octets == [bytes.fromhex("03000bdeadbeef70696e67")]


@pytest.mark.parametrize("octets", [593, 1184, 1185, 60_000])
def test_fragments_of_a_datagram_share_a_dgid_and_the_next_has_another(octets: int) -> None:
    sent = Sent()

    async def main() -> None:
        path = udp(sent, fragment_above=600)
        for _ in range(3):
            await path.send(bytes(octets))

    asyncio.run(main())
    pieces = [Datagram.parse(each) for each in sent.octets]
    per_datagram = -(-octets // 592)
    assert [piece.dgid for piece in pieces] == [dgid for dgid in (1, 2, 3) for _ in range(per_datagram)]
    assert [piece.frag & 0x7F for piece in pieces] == [*range(1, per_datagram + 1)] * 3
    assert [bool(piece.frag & 0x80) for piece in pieces[:per_datagram]] == [False] * (per_datagram - 1) + [True]
    assert max(map(len, sent.octets)) <= 600


def test_dgids_rise_and_start_again_without_zero() -> None:
    sent = Sent()

    async def main() -> None:
        path = udp(sent, fragment_above=600)
        for _ in range(65_537):
            await path.send(bytes(593))

    asyncio.run(main())
    dgids = [int.from_bytes(octets[2:4]) for octets in sent.octets[::2]]
    assert (dgids[0], dgids[65_534], dgids[65_535]) == (1, 65_535, 1)
    assert all(after == before % 65_535 + 1 for before, after in pairwise(dgids))


def test_what_fits_goes_out_standalone() -> None:
    sent = Sent()
    asyncio.run(udp(sent, fragment_above=600).send(bytes(592)))
    assert sent.octets == [bytes.fromhex("0000000000000007") + bytes(592)]
