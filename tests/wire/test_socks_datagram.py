"""The header of RFC 1928's datagrams: complete or wrong, and repeated in every fragment."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastsocks.address import Endpoint, parse_endpoint
from mcastsocks.errors import Truncated, WireError
from mcastsocks.wire.block import AddressType
from mcastsocks.wire.socks_datagram import LESS_ROOM_OCTETS, destination_octets, encode_header, fragments, parse_header
from tests import scapy_layers
from tests.vectors import Vector, name, octets, valid
from tests.wire.second_opinion import endpoint_of
from tests.wire.strategies import endpoints, hostile, quick, u8

VALID = valid("datagram-1928")
DNS = parse_endpoint("198.51.100.7:53")
HEADER_OCTETS = 10
frags = u8.filter(lambda frag: frag != 0x80)


@pytest.mark.parametrize("vector", VALID, ids=name)
def test_a_datagram_shorter_than_its_header_is_truncated(vector: Vector) -> None:
    raw = bytes.fromhex(vector["hex"])
    for end in range(len(raw) - len(vector["means"]["data"]) // 2):
        with pytest.raises(Truncated):
            parse_header(memoryview(raw)[:end])


@pytest.mark.parametrize("vector", VALID, ids=name)
def test_how_a_destination_is_written_is_found_without_parsing(vector: Vector) -> None:
    raw = bytes.fromhex(vector["hex"])
    header = raw[: len(raw) - len(vector["means"]["data"]) // 2]
    assert destination_octets(memoryview(raw)) == (b"" if raw[2] else header[3:])
    for end in range(len(header)):
        assert destination_octets(raw[:end]) != header[3:]


@given(raw=hostile)
def test_any_octets_have_a_destination_only_where_they_parse_alike(raw: bytes) -> None:
    found = destination_octets(raw)
    try:
        frag, _, end = parse_header(raw)
    except WireError:
        return
    assert found == (b"" if frag else raw[3:end])


@pytest.mark.parametrize("vector", VALID, ids=name)
def test_data_may_be_cut_anywhere(vector: Vector) -> None:
    raw, size = bytes.fromhex(vector["hex"]), len(vector["means"]["data"]) // 2
    for shorter in range(size + 1):
        assert parse_header(memoryview(raw)[: len(raw) - shorter])[2] == len(raw) - size


@pytest.mark.parametrize("rsv", ["0001", "0100", "ffff"])
def test_reserved_octets_are_zero(rsv: str) -> None:
    with pytest.raises(WireError, match=f"reserved octets X'{rsv}'"):
        parse_header(bytes.fromhex(rsv) + octets("1928 datagram IPv4")[2:])


def test_a_fragment_needs_a_position() -> None:
    raw = bytearray(octets("1928 datagram IPv4"))
    for frag in range(256):
        raw[2] = frag
        if frag == 0x80:
            with pytest.raises(WireError, match="without a position"):
                parse_header(raw)
        else:
            assert parse_header(raw) == (frag, DNS, HEADER_OCTETS)


@pytest.mark.parametrize("block", ["00000000000000", "00000000000035", "07000000000035", "03000035", "0301200035"])
def test_address_that_names_nobody_is_an_error(block: str) -> None:
    with pytest.raises(WireError) as caught:
        parse_header(bytes.fromhex("000000" + block))
    assert not isinstance(caught.value, Truncated)


def test_datagram_is_standalone_unless_told() -> None:
    assert encode_header(DNS) + b"query" == octets("1928 datagram IPv4")


@quick
@given(endpoints, frags, st.binary(max_size=40))
def test_parse_undoes_encode(endpoint: Endpoint, frag: int, data: bytes) -> None:
    header = encode_header(endpoint, frag)
    for spelling in (header + data, bytearray(header + data), memoryview(header + data)):
        assert parse_header(spelling) == (frag, endpoint, len(header))


@quick
@given(hostile)
def test_any_octets_are_a_header_or_a_wire_error(raw: bytes) -> None:
    try:
        frag, endpoint, end = parse_header(raw)
    except WireError:
        return
    assert raw[:end] == encode_header(endpoint, frag)


@quick
@given(endpoints, frags, st.binary(max_size=40))
def test_scapy_reads_the_same_datagram(endpoint: Endpoint, frag: int, data: bytes) -> None:
    packet = scapy_layers.Rfc1928Datagram(encode_header(endpoint, frag) + data)
    assert (packet.RSV, packet.FRAG, endpoint_of(packet.DST), packet.DATA) == (0, frag, endpoint, data)


# --- fragments ---


def test_last_piece_is_the_golden_one() -> None:
    first, last = fragments(DNS, b"headtail", HEADER_OCTETS + 4) or []
    assert first == bytes.fromhex("00000101c63364070035") + b"head"
    assert last == octets("1928 datagram, fragment 2, the last")


@pytest.mark.parametrize(
    ("size", "width", "sizes"),
    [(0, 10, [0]), (10, 10, [10]), (11, 10, [10, 1]), (127, 1, [1] * 127), (1270, 10, [10] * 127)],
)
def test_pieces_are_full_but_the_last(size: int, width: int, sizes: list[int]) -> None:
    pieces = fragments(DNS, bytes(size), HEADER_OCTETS + width)
    assert pieces is not None
    assert [len(piece) - HEADER_OCTETS for piece in pieces] == sizes


@pytest.mark.parametrize(("size", "room"), [(128, 11), (1271, 20), (1, 10), (0, 10), (1, 3), (1, 0)])
def test_what_127_pieces_do_not_hold_is_not_cut(size: int, room: int) -> None:
    assert fragments(DNS, bytes(size), room) is None


@quick
@given(endpoints, st.binary(max_size=400), st.integers(4, 100))
def test_every_piece_has_the_header_and_the_last_one_says_so(endpoint: Endpoint, body: bytes, width: int) -> None:
    room = len(encode_header(endpoint)) + width
    cut = fragments(endpoint, memoryview(body), room)
    assert cut is not None
    assert all(len(piece) <= room for piece in cut)
    parsed = [parse_header(piece) for piece in cut]
    assert {destination for _, destination, _ in parsed} == {endpoint}
    assert [frag for frag, _, _ in parsed] == [*range(1, len(cut)), len(cut) | 0x80]
    assert b"".join(piece[end:] for piece, (_, _, end) in zip(cut, parsed, strict=True)) == body


def test_room_reported_is_that_of_rfc_1928() -> None:
    """Its figure for IPv6 is 2 below the header's size."""
    sizes = {
        AddressType.IPV4: len(encode_header(DNS)),
        AddressType.NAME: len(encode_header(Endpoint("n" * 255, 53))),
        AddressType.IPV6: len(encode_header(parse_endpoint("[2001:db8::53]:53"))) - 2,
    }
    assert sizes == LESS_ROOM_OCTETS == {AddressType.IPV4: 10, AddressType.NAME: 262, AddressType.IPV6: 20}
