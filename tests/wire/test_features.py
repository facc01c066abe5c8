"""Feature lists beyond what every stream promises: how they end, what they say, and their words."""

from __future__ import annotations

import pytest
from hypothesis import given

from mcastsocks.errors import Truncated, WireError
from mcastsocks.wire.feature_words import about, words
from mcastsocks.wire.features import Extension, Feature, FeatureList
from tests.vectors import octets
from tests.wire import strategies
from tests.wire.strategies import quick

DRAFT = octets("feature list: both UDP extensions")
OURS = octets("feature list of this project")


def listed(octets: bytes) -> FeatureList:
    found = FeatureList.parse(octets)
    assert found is not None
    return found[0]


@pytest.mark.parametrize("end", ["ff", "ff00", "ff0000"])
def test_end_of_stream_behind_tag_ff_completes_a_list(end: str) -> None:
    octets = DRAFT[:-3] + bytes.fromhex(end)
    assert FeatureList.parse(octets, ended=True) == (listed(DRAFT), len(octets))


@pytest.mark.parametrize("size", range(len(DRAFT) - 3))
def test_end_of_stream_anywhere_else_is_truncated(size: int) -> None:
    with pytest.raises(Truncated):
        FeatureList.parse(DRAFT[:size], ended=True)


def test_a_list_without_an_end_in_sight_is_given_up() -> None:
    assert FeatureList.parse(5461 * b"\0\0\0") is None
    with pytest.raises(WireError, match="without an end"):
        FeatureList.parse(5462 * b"\0\0\0")
    with pytest.raises(WireError, match="without an end"):
        FeatureList.parse(5462 * b"\0\0\0" + b"\xff\0\0")


def test_value_is_found_by_tag_and_subtag() -> None:
    assert listed(DRAFT).value(4, 4) == b"\1\2"
    assert listed(DRAFT).value(2, 3) == b""
    assert listed(DRAFT).value(2, 5) is None


@pytest.mark.parametrize(
    ("octets", "extensions"),
    [
        (DRAFT, {Extension.UNICAST, Extension.GROUPS}),
        (OURS, set(Extension)),
        (bytes.fromhex("040401 01 ff0000"), {Extension.UNICAST}),  # unicast alone
        (bytes.fromhex("040401 02 ff0000"), {Extension.GROUPS}),  # groups alone: 02 does not include 01
        (bytes.fromhex("040401 02 040402 84fe ff0000"), {Extension.GROUPS, Extension.REASONS}),
        (bytes.fromhex("040400 041001 01 030402 0102 ff0000"), set()),
        (bytes.fromhex("ff0000"), set()),
    ],
)
def test_extensions_are_those_listed_and_known_and_none_includes_another(
    octets: bytes, extensions: set[Extension]
) -> None:
    assert listed(octets).extensions == extensions


@pytest.mark.parametrize(
    ("feature", "says"),
    [
        ("00 10 02 0102", "list depends on|client address, authentication method"),
        ("00 10 02 0309", "list depends on|destination host, X'09'"),
        ("00 11 01 01", "list depends on|X'11': X'01'"),
        ("01 05 00", "SOCKS versions|5"),
        ("02 04 00", "address types|IPv6"),
        ("02 02 00", "address types|X'02'"),
        ("03 02 00", "authentication|username/password"),
        ("03 09 02 beef", "authentication|X'09': X'beef'"),
        ("04 01 00", "commands|CONNECT"),
        ("04 04 03 0184fe", "commands|ENHANCED_UDP_MODE: unicast, reasons, X'fe'"),
        ("04 04 00", "commands|ENHANCED_UDP_MODE"),
        ("04 10 01 01", "commands|LIST-FEATURES: the connection can be kept"),
        ("04 7f 01 01", "commands|X'7f': X'01'"),
        ("10 04 04 302e3735", "server|load: 0.75"),
        ("10 03 06 611b5b6dff0a", "server|says: a\ufffd[m\ufffd\ufffd"),  # nothing for the terminal to obey
        ("07 13 06 48656c6c6f2e", "X'07'|X'13': X'48656c6c6f2e'"),
    ],
)
def test_words_of_a_feature_and_numbers_where_there_are_none(feature: str, says: str) -> None:
    (entry,) = listed(bytes.fromhex(feature + "ff0000")).features
    assert f"{about(entry)}|{words(entry)}" == says


@quick
@given(strategies.features)
def test_every_feature_has_words_on_one_line(feature: Feature) -> None:
    assert (about(feature) + words(feature)).isprintable()
