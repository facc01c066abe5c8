"""Options behind REMOTE: strict in requests, forgiving about the unknown in replies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastsocks.errors import WireError
from mcastsocks.wire.options import Option, OptionType, encode_options, parse_options, reason
from tests.wire.strategies import options, quick

PROTECTION, UNKNOWN = "04 0002 0102", "03 0001 ff"
V4_SOURCE, V6_SOURCE = "c6336409", "20010db8000000000000000000000009"


def sources(atyp: str, address: str, count: int) -> str:
    return f"01 {1 + count * len(address) // 2:04x} {atyp} {address * count}"


@pytest.mark.parametrize("liberal", [False, True])
@pytest.mark.parametrize(
    "octets",
    [
        "04",  # cut in its head
        "04 00",
        "04 0003 0102",  # runs past the end
        PROTECTION + PROTECTION,
        "01 0000",  # a source list without an ATYP
        "01 0005 03 c6336409",  # of names
        "01 0001 01",  # without addresses
        "01 0004 01 c63364",  # half an address
        "01 0005 04 c6336409",  # of the other family's width
        sources("01", V4_SOURCE, 65),
        sources("04", V6_SOURCE, 65),
    ],
)
def test_malformed_option_is_a_general_failure(octets: str, liberal: bool) -> None:
    with pytest.raises(WireError) as caught:
        parse_options(bytes.fromhex(octets), liberal=liberal)
    assert caught.value.reply == 0x01


@pytest.mark.parametrize(
    "octets", [sources(*shape, count) for shape in (("01", V4_SOURCE), ("04", V6_SOURCE)) for count in (1, 2, 64)]
)
def test_a_source_list_holds_1_to_64_addresses(octets: str) -> None:
    raw = bytes.fromhex(octets)
    assert parse_options(raw, liberal=False) == (Option(OptionType.SOURCE_INCLUDE, raw[3:]),)


def test_unknown_option_fails_a_request_and_is_passed_over_in_a_reply() -> None:
    octets = bytes.fromhex(UNKNOWN + PROTECTION + UNKNOWN)
    assert parse_options(octets, liberal=True) == (Option(OptionType.PROTECTION, b"\1\2"),)
    with pytest.raises(WireError, match="unknown option X'03'") as caught:
        parse_options(octets, liberal=False)
    assert caught.value.reply == 0x01


def test_unknown_option_in_a_reply_still_has_to_fit() -> None:
    with pytest.raises(WireError, match="runs past"):
        parse_options(bytes.fromhex("03 0002 ff"), liberal=True)


@quick
@given(options, st.booleans())
def test_parse_undoes_encode(written: tuple[Option, ...], liberal: bool) -> None:
    octets = encode_options(written)
    for spelling in (octets, bytearray(octets), memoryview(octets)):
        assert parse_options(spelling, liberal=liberal) == written


@quick
@given(st.binary(max_size=60), st.booleans())
def test_any_octets_are_options_or_a_general_failure(octets: bytes, liberal: bool) -> None:
    reply = 0x01
    try:
        parse_options(octets, liberal=liberal)
    except WireError as error:
        reply = error.reply or 0
    assert reply == 0x01


@quick
@given(st.text(max_size=1100))
def test_reason_is_one_line_of_whole_characters(text: str) -> None:
    line = reason(text).value.decode()
    assert len(line.splitlines()) <= 1
    assert len(line.encode()) <= 1024
    assert " ".join(text.split()).startswith(line)


@pytest.mark.parametrize(("text", "octets"), [("é" * 600, 1024), ("x" + "é" * 600, 1023), ("x\n\ty\r\n", 3)])
def test_long_reason_is_cut_between_characters(text: str, octets: int) -> None:
    value = reason(text).value
    assert len(value) == octets
    assert value.decode()
