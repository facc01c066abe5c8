"""Endpoints as values, as text and as socket addresses."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcastsocks.address import (
    UNUSED,
    Endpoint,
    IPAddress,
    SockAddr,
    from_sockaddr,
    parse_endpoint,
    parse_group,
    parse_port,
    site_of,
    to_sockaddr,
    unmapped,
    unmapped_endpoint,
)
from tests.wire.strategies import addresses, quick, u16

V4 = Endpoint(IPv4Address("192.0.2.1"), 1080)
V6 = Endpoint(IPv6Address("2001:db8::1"), 1080)
NAME = Endpoint("name.example", 1080)
SPELLINGS = [(V4, "192.0.2.1:1080"), (V6, "[2001:db8::1]:1080"), (NAME, "name.example:1080")]


@pytest.mark.parametrize(("endpoint", "text"), SPELLINGS)
def test_endpoint_is_written_and_read_in_one_spelling(endpoint: Endpoint, text: str) -> None:
    assert str(endpoint) == text
    assert parse_endpoint(text) == endpoint


@quick
@given(addresses, u16)
def test_every_address_survives_its_own_text(address: IPAddress, port: int) -> None:
    assert parse_endpoint(str(Endpoint(address, port))) == (address, port)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", "expected host:port"),
        (":1080", "expected host:port"),
        ("", "expected host:port"),
        ("2001:db8::1:1080", "in brackets"),
        ("[2001:db8::1]", r"expected \[IPv6 address\]:port"),
        ("[2001:db8::1]1080", r"expected \[IPv6 address\]:port"),
        ("[192.0.2.1]:1080", "192.0.2.1"),
        ("192.0.2.256:1080", "four numbers from 0 to 255"),
        ("192.0.2:1080", "four numbers from 0 to 255"),
        ("192.0.2.1.:1080", "four numbers from 0 to 255"),
        ("192.0.2.1:65536", "port number from 0 to 65535, not '65536'"),
        ("[2001:db8::1]:65536", "port number from 0 to 65535, not '65536'"),
        ("name.example:http", "port number from 0 to 65535, not 'http'"),
        ("name.example:", "port number from 0 to 65535, not ''"),
    ],
)
def test_error_names_the_part_that_is_wrong(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        parse_endpoint(text)


@quick
@given(st.text(st.characters(codec="ascii")) | st.text())
def test_any_text_is_an_endpoint_or_a_value_error(text: str) -> None:
    for parse in (parse_endpoint, parse_group):
        try:
            host, port = parse(text)
        except ValueError:
            continue
        assert host
        assert 0 <= port <= 0xFFFF


@pytest.mark.parametrize("text", ["0", "7", "65535", "01080"])
def test_port_is_read(text: str) -> None:
    assert parse_port(text) == int(text)


@pytest.mark.parametrize("text", ["", "-1", "+1", " 1", "1_0", "65536", "1e3", "²", "٣"])
def test_port_is_plain_digits_up_to_65535(text: str) -> None:
    with pytest.raises(ValueError, match="port number from 0 to 65535"):
        parse_port(text)


# --- groups ---


@pytest.mark.parametrize("text", ["224.0.0.0:1", "239.255.255.255:65535", "[ff02::1]:5004", "[ff15::1234]:5004"])
def test_group_is_a_multicast_address_and_a_port(text: str) -> None:
    group = parse_group(text)
    assert group.is_group
    assert str(group) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("223.255.255.255:5004", "is not a group"),
        ("240.0.0.0:5004", "is not a group"),
        ("[fe80::1]:5004", "is not a group"),
        ("group.example:5004", "is not a group"),
        ("239.1.2.3:0", "a group needs a port"),
    ],
)
def test_what_is_no_group_is_refused(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        parse_group(text)


@pytest.mark.parametrize("endpoint", [V4, V6, NAME, UNUSED])
def test_unicast_and_names_are_no_groups(endpoint: Endpoint) -> None:
    assert not endpoint.is_group


def test_same_address_on_another_port_is_another_group() -> None:
    assert parse_group("239.1.2.3:5004") != parse_group("239.1.2.3:5005")


# --- addresses and socket addresses ---


def test_a_name_has_no_address() -> None:
    with pytest.raises(AssertionError, match=r"name\.example:1080 is a name"):
        _ = NAME.address


@pytest.mark.parametrize(
    ("spelled", "plain"),
    [
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::ffff:0.0.0.0", "0.0.0.0"),
        ("::192.0.2.1", "::192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("192.0.2.1", "192.0.2.1"),
    ],
)
def test_only_v4_mapped_addresses_are_unmapped(spelled: str, plain: str) -> None:
    assert unmapped(ip_address(spelled)) == ip_address(plain)
    assert unmapped_endpoint(Endpoint(ip_address(spelled), 9)) == Endpoint(ip_address(plain), 9)


def test_names_are_not_unmapped() -> None:
    assert unmapped_endpoint(NAME) is NAME


@pytest.mark.parametrize(
    ("sockaddr", "endpoint"),
    [
        (("192.0.2.1", 1080), V4),
        (("2001:db8::1", 1080, 0, 0), V6),
        (("::ffff:192.0.2.1", 1080, 0, 0), V4),
        (("fe80::1%eth0", 1080, 0, 2), Endpoint(IPv6Address("fe80::1"), 1080)),
        (("fe80::1", 1080, 7, 2), Endpoint(IPv6Address("fe80::1"), 1080)),
    ],
)
def test_sockaddr_becomes_an_endpoint(sockaddr: SockAddr, endpoint: Endpoint) -> None:
    assert from_sockaddr(sockaddr) == endpoint


def test_sockaddr_of_an_endpoint_has_the_shape_of_its_family() -> None:
    assert to_sockaddr(V4) == ("192.0.2.1", 1080)
    assert to_sockaddr(V6) == ("2001:db8::1", 1080, 0, 0)
    assert to_sockaddr(Endpoint(IPv6Address("fe80::1"), 9), scope_id=3) == ("fe80::1", 9, 0, 3)


@quick
@given(addresses.filter(lambda address: address == unmapped(address)), u16)
def test_endpoint_survives_its_sockaddr(address: IPAddress, port: int) -> None:
    assert from_sockaddr(to_sockaddr(Endpoint(address, port))) == (address, port)


@pytest.mark.parametrize(
    ("address", "site"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("255.255.255.255", "255.255.255.255"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::"),
        ("fe80::1", "fe80::"),
        ("::1", "::"),
    ],
)
def test_site_is_an_ipv4_address_or_the_64_bit_prefix_of_an_ipv6_one(address: str, site: str) -> None:
    assert site_of(ip_address(address)) == ip_address(site)
