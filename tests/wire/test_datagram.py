"""The header of datagrams, which is complete or wrong: no datagram is "not yet"."""

import pytest
from hypothesis import given

from mcastsocks.errors import Truncated, WireError
from mcastsocks.wire.datagram import HEADER, HEADER_OCTETS, UDP_PAYLOAD_OCTETS, Datagram
from tests import scapy_layers
from tests.vectors import Vector, name, valid
from tests.wire.second_opinion import endpoint_of
from tests.wire.strategies import datagrams, hostile, quick

VALID = valid("datagram")


def test_header_takes_8_octets_of_what_udp_carries() -> None:
    assert HEADER_OCTETS == HEADER.size == 8
    assert UDP_PAYLOAD_OCTETS == {4: 65_535 - 20 - 8, 6: 65_535 - 8}


@pytest.mark.parametrize("vector", VALID, ids=name)
def test_a_datagram_shorter_than_its_header_or_source_block_is_truncated(vector: Vector) -> None:
    octets = bytes.fromhex(vector["hex"])
    for end in range(len(octets) - len(vector["means"]["data"]) // 2):
        with pytest.raises(Truncated):
            Datagram.parse(octets[:end])


@pytest.mark.parametrize("vector", VALID, ids=name)
def test_data_may_be_cut_anywhere(vector: Vector) -> None:
    octets, data = bytes.fromhex(vector["hex"]), bytes.fromhex(vector["means"]["data"])
    for shorter in range(len(data)):
        assert Datagram.parse(octets[: len(octets) - shorter]).data == data[: len(data) - shorter]


@pytest.mark.parametrize("rsv", [0x02, 0x03, 0x04, 0x80, 0xFF])
def test_rsv_bits_without_a_meaning_are_an_error(rsv: int) -> None:
    with pytest.raises(WireError, match=f"reserved bits X'{rsv:02x}'"):
        Datagram.parse(bytes((rsv, 0, 0, 0, 0, 0, 0, 1)) + bytes(30))


def test_a_fragment_needs_a_position() -> None:
    with pytest.raises(WireError, match="without a position"):
        Datagram.parse(bytes.fromhex("0080000100000005"))
    assert Datagram.parse(bytes.fromhex("0081000100000005")).frag == 0x81


@pytest.mark.parametrize(("frag", "first"), [(0x00, True), (0x01, True), (0x81, True), (0x02, False), (0x82, False)])
def test_source_stands_in_the_first_piece_only(frag: int, first: bool) -> None:
    datagram = Datagram.parse(bytes((0x01, frag)) + bytes.fromhex("0003 00000005 01c63364090fa0 6869"))
    assert (str(datagram.source), datagram.data) == (
        ("198.51.100.9:4000", b"hi") if first else ("None", bytes.fromhex("01c63364090fa06869"))
    )


@quick
@given(datagrams)
def test_parse_undoes_encode(datagram: Datagram) -> None:
    octets = datagram.encode()
    for spelling in (octets, bytearray(octets), memoryview(octets)):
        assert Datagram.parse(spelling) == datagram


@quick
@given(hostile)
def test_any_octets_are_a_datagram_or_a_wire_error(octets: bytes) -> None:
    try:
        datagram = Datagram.parse(octets)
    except WireError:
        return
    assert octets.endswith(datagram.data)
    assert octets[:8] == HEADER.pack(datagram.rsv, datagram.frag, datagram.dgid, datagram.aid)


@quick
@given(datagrams)
def test_scapy_reads_the_same_datagram(datagram: Datagram) -> None:
    packet = scapy_layers.Datagram(datagram.encode())
    assert (packet.RSV, packet.FRAG, packet.DGID, packet.AID) == (
        datagram.rsv,
        datagram.frag,
        datagram.dgid,
        datagram.aid,
    )
    assert (endpoint_of(packet.SOURCE), packet.DATA) == (datagram.source, datagram.data)
