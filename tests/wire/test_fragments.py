"""Bodies cut into datagrams: every piece fits, 127 at most, and the golden ones are among them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastsocks.address import Endpoint, parse_endpoint
from mcastsocks.wire.datagram import (
    HEADER_OCTETS,
    LAST_FRAGMENT,
    RSV_SOURCE,
    SOURCE_BLOCK_OCTETS,
    Datagram,
    fragments,
    source_block,
)
from tests.vectors import octets
from tests.wire.strategies import address_endpoints, quick

AID = 0xDEADBEEF


def test_body_is_cut_into_the_golden_fragments() -> None:
    pieces = fragments(0, 7, AID, b"first second", HEADER_OCTETS + 6)
    assert pieces == [octets("fragment 1 of DGID 7"), octets("fragment 2, the last, of DGID 7")]


def test_sender_stands_in_the_first_golden_fragment_only() -> None:
    body = source_block(parse_endpoint("198.51.100.9:4000")) + b"first"
    assert fragments(RSV_SOURCE, 3, 5, body, HEADER_OCTETS + 10) == [
        octets("extension: fragment 1 with the sender"),
        octets("extension: fragment 2, no second sender block"),
    ]


@pytest.mark.parametrize(
    ("size", "width", "sizes"),
    [
        (0, 10, [0]),
        (1, 10, [1]),
        (10, 10, [10]),
        (11, 10, [10, 1]),
        (20, 10, [10, 10]),
        (127, 1, [1] * 127),
        (1270, 10, [10] * 127),
        (65_507, 65_499, [65_499, 8]),
        (65_507, 516, [516] * 126 + [491]),
    ],
)
def test_pieces_are_full_but_the_last(size: int, width: int, sizes: list[int]) -> None:
    pieces = fragments(0, 1, AID, bytes(size), HEADER_OCTETS + width)
    assert pieces is not None
    assert [len(piece) - HEADER_OCTETS for piece in pieces] == sizes


@pytest.mark.parametrize(("size", "width"), [(128, 1), (1271, 10), (65_507, 515)])
def test_what_127_pieces_do_not_hold_is_not_cut(size: int, width: int) -> None:
    assert fragments(0, 1, AID, bytes(size), HEADER_OCTETS + width) is None


@quick
@given(st.binary(max_size=500), st.integers(HEADER_OCTETS + 4, 100), st.integers(0, 0xFFFF))
def test_every_piece_says_where_it_belongs_and_the_last_one_that_it_is(body: bytes, room: int, dgid: int) -> None:
    cut = fragments(0, dgid, AID, memoryview(body), room)
    assert cut is not None
    assert all(len(piece) <= room for piece in cut)
    pieces = [Datagram.parse(piece) for piece in cut]
    assert b"".join(piece.data for piece in pieces) == body
    assert {(piece.aid, piece.dgid, piece.rsv) for piece in pieces} == {(AID, dgid, 0)}
    positions = [*range(1, len(pieces)), len(pieces) | LAST_FRAGMENT]
    assert [piece.frag for piece in pieces] == positions


@quick
@given(address_endpoints)
def test_source_block_is_what_the_reader_takes_for_the_sender(source: Endpoint) -> None:
    block = source_block(source)
    datagram = Datagram.parse(bytes.fromhex("0100000000000005") + block + b"data")
    assert (datagram.source, datagram.data) == (source, b"data")
    assert len(block) <= SOURCE_BLOCK_OCTETS


def test_room_for_a_sender_is_that_of_an_ipv6_one() -> None:
    assert len(source_block(parse_endpoint("[2001:db8::9]:4000"))) == SOURCE_BLOCK_OCTETS
    assert len(source_block(parse_endpoint("198.51.100.9:4000"))) == 7
