"""ATYP ADDR PORT, wherever it stands."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastsocks.address import Endpoint
from mcastsocks.errors import Truncated, WireError
from mcastsocks.wire.block import block_end, encode_block, parse_block
from tests.wire.strategies import endpoints, hostile, quick

BLOCKS = [
    ("01c633640700 35", Endpoint(IPv4Address("198.51.100.7"), 53)),
    ("0420010db8000000000000000000000053 0035", Endpoint(IPv6Address("2001:db8::53"), 53)),
    ("03 0161 0009", Endpoint("a", 9)),
    ("03 0b6578616d706c652e636f6d 0050", Endpoint("example.com", 80)),
    ("00 00000000 0000", None),
    ("01 00000000 0000", Endpoint(IPv4Address(0), 0)),
]


@pytest.mark.parametrize(("octets", "endpoint"), BLOCKS)
def test_block_is_read_and_written(octets: str, endpoint: Endpoint | None) -> None:
    block = bytes.fromhex(octets)
    assert parse_block(block) == (endpoint, len(block))
    assert parse_block(b"##" + block + b"##", 2) == (endpoint, 2 + len(block))
    assert encode_block(endpoint) == block


@pytest.mark.parametrize(("octets", "_"), BLOCKS)
def test_every_truncation_of_a_block_is_truncated(octets: str, _: Endpoint | None) -> None:
    block = bytes.fromhex(octets)
    for end in range(len(block)):
        with pytest.raises(Truncated):
            parse_block(block[:end])
        with pytest.raises(Truncated):
            parse_block(b"#" + block[:end], 1)


@pytest.mark.parametrize(
    ("octets", "reply"),
    [
        ("02 00000000 0000", 0x08),
        ("05 00000000 0000", 0x08),
        ("ff", 0x08),
        ("00 00000001 0000", 0x08),
        ("00 00000000 0001", 0x08),
        ("03 00 0035", 0x09),
        ("03 03610062 0035", 0x09),  # NUL
        ("03 03612062 0035", 0x09),  # a blank
        ("03 03610a62 0035", 0x09),  # a line end, for a log
        ("03 0261ff 0035", 0x09),
        ("03 027f61 0035", 0x09),
    ],
)
def test_what_is_wrong_in_a_block_names_its_reply(octets: str, reply: int) -> None:
    with pytest.raises(WireError) as caught:
        parse_block(bytes.fromhex(octets))
    assert caught.value.reply == reply
    assert not isinstance(caught.value, Truncated)


def test_longest_name_has_255_octets() -> None:
    block = b"\x03\xff" + b"n" * 255 + b"\x00\x35"
    assert parse_block(block) == (Endpoint("n" * 255, 53), len(block))
    assert encode_block(Endpoint("n" * 255, 53)) == block


@pytest.mark.parametrize("name", ["", "n" * 256, "größe.example"])
def test_a_name_that_no_block_holds_is_not_written(name: str) -> None:
    with pytest.raises(ValueError, match=r"a name has 1 to 255 octets|ascii"):
        encode_block(Endpoint(name, 1))


@quick
@given(endpoints, st.binary(max_size=9), st.binary(max_size=9))
def test_block_between_other_octets_is_the_one_written(endpoint: Endpoint, before: bytes, behind: bytes) -> None:
    block = encode_block(endpoint)
    assert parse_block(before + block + behind, len(before)) == (endpoint, len(before + block))


@quick
@given(hostile, st.integers(0, 20))
def test_any_octets_are_a_block_or_a_wire_error(octets: bytes, offset: int) -> None:
    outcomes = set()
    for spelling in (octets, bytearray(octets), memoryview(octets)):
        try:
            endpoint, end = parse_block(spelling, offset)
        except WireError as error:
            outcomes.add(f"{error.reply} {error}")
        else:
            outcomes.add(f"{endpoint} {end}")
            assert end == block_end(spelling, offset) <= len(octets)
    assert len(outcomes) == 1
