"""Options behind REMOTE: strict in requests, forgiving about the unknown in replies."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastsocks.address import IPAddress, unmapped
from mcastsocks.errors import WireError
from mcastsocks.wire.control import ControlRequest, parse_message
from mcastsocks.wire.options import (
    MAX_SOURCES,
    Option,
    OptionType,
    encode_options,
    parse_options,
    reason,
    resolved,
    sources,
    sources_of,
)
from tests.vectors import octets as golden
from tests.wire.strategies import options, quick

PROTECTION, UNKNOWN = "04 0002 0102", "03 0001 ff"
V4_SOURCE, V6_SOURCE = "c6336409", "20010db8000000000000000000000009"


def source_list(atyp: str, address: str, count: int) -> str:
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
        source_list("01", V4_SOURCE, 65),
        source_list("04", V6_SOURCE, 65),
    ],
)
def test_malformed_option_is_a_general_failure(octets: str, liberal: bool) -> None:
    with pytest.raises(WireError) as caught:
        parse_options(bytes.fromhex(octets), liberal=liberal)
    assert caught.value.reply == 0x01


@pytest.mark.parametrize(
    "octets", [source_list(*shape, count) for shape in (("01", V4_SOURCE), ("04", V6_SOURCE)) for count in (1, 2, 64)]
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


# --- lists of sources ---

V4, V6 = (st.lists(st.ip_addresses(v=version), min_size=1, max_size=MAX_SOURCES) for version in (4, 6))
LISTS = st.sampled_from((OptionType.SOURCE_INCLUDE, OptionType.SOURCE_EXCLUDE))


@pytest.mark.parametrize(
    ("name", "kind", "addresses"),
    [
        ("extension: join one source only", OptionType.SOURCE_INCLUDE, ["198.51.100.9"]),
        ("extension: exclude two IPv6 sources", OptionType.SOURCE_EXCLUDE, ["2001:db8::a", "2001:db8::b"]),
    ],
)
def test_source_list_is_written_and_read_in_the_golden_octets(
    name: str, kind: OptionType, addresses: list[str]
) -> None:
    parsed = parse_message(golden(name))
    assert parsed is not None
    assert isinstance(parsed[0], ControlRequest)
    wanted = [ip_address(address) for address in addresses]
    (option,) = parsed[0].options
    assert option == sources(kind, wanted)
    assert sources_of(option) == frozenset(wanted)


@quick
@given(LISTS, V4 | V6)
def test_sources_come_back_each_once_and_as_ipv4_where_they_are(kind: OptionType, addresses: list[IPAddress]) -> None:
    option = sources(kind, addresses)
    assert parse_options(option.encode(), liberal=False) == (option,)
    assert sources_of(option) == frozenset(map(unmapped, addresses))


def test_v4_mapped_source_is_the_ipv4_one() -> None:
    option = sources(OptionType.SOURCE_INCLUDE, [ip_address("::ffff:198.51.100.9")])
    assert option.value.hex() == "04" + "00000000000000000000ffff" + V4_SOURCE
    assert sources_of(option) == {ip_address("198.51.100.9")}


@pytest.mark.parametrize(
    "addresses",
    [[], ["198.51.100.9"] * 65, ["2001:db8::9"] * 65, ["198.51.100.9", "2001:db8::9"]],
    ids=["none", "65", "65 of IPv6", "two families"],
)
def test_list_that_no_option_holds_is_not_written(addresses: list[str]) -> None:
    with pytest.raises(ValueError, match="1 to 64 addresses of one family"):
        sources(OptionType.SOURCE_INCLUDE, [ip_address(address) for address in addresses])


@pytest.mark.parametrize("address", ["198.51.100.9", "2001:db8::9"])
def test_64_sources_are_written_and_read(address: str) -> None:
    first = int(ip_address(address))
    wanted = [type(ip_address(address))(first + number) for number in range(64)]
    option = sources(OptionType.SOURCE_EXCLUDE, wanted)
    assert parse_options(option.encode(), liberal=False) == (option,)
    assert sources_of(option) == frozenset(wanted)


@pytest.mark.parametrize(("address", "octets"), [("198.51.100.9", "01" + V4_SOURCE), ("2001:db8::9", "04" + V6_SOURCE)])
def test_resolved_names_one_address(address: str, octets: str) -> None:
    option = resolved(ip_address(address))
    assert (option.kind, option.value.hex()) == (OptionType.RESOLVED, octets)
    assert parse_options(option.encode(), liberal=True) == (option,)
