"""SOCKS 4 and 4a: strings without a length before them, bounded all the same."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given

from mcastsocks.address import Endpoint, parse_endpoint
from mcastsocks.errors import WireError
from mcastsocks.wire.socks4 import Answer, Socks4Reply, Socks4Request
from tests import scapy_layers
from tests.vectors import octets
from tests.wire.strategies import (
    ipv4_endpoints,
    means_a_name,
    quick,
    socks4_replies,
    socks4_requests,
    u8,
    user_ids,
)

WEB = bytes.fromhex("04010050c6336407")
NAME = bytes.fromhex("0401005000000001")


@pytest.mark.parametrize("version", [0x00, 0x05, 0x16, 0xFF])
def test_another_version_is_an_error_at_its_first_octet(version: int) -> None:
    with pytest.raises(WireError, match="expected version X'04'") as caught:
        Socks4Request.parse(bytes((version,)))
    assert caught.value.reply is None


@pytest.mark.parametrize("version", [0x01, 0x04, 0x05, 0xFF])
def test_reply_has_version_0(version: int) -> None:
    with pytest.raises(WireError, match="expected version X'00'"):
        Socks4Reply.parse(bytes((version,)))


@pytest.mark.parametrize("command", [0x00, 0x03, 0x04, 0x10, 0xFF])
def test_commands_of_socks_5_alone_are_none_of_socks_4(command: int) -> None:
    with pytest.raises(WireError) as caught:
        Socks4Request.parse(bytes((4, command)))
    assert caught.value.reply == 0x07


def test_user_id_may_be_empty_or_no_text() -> None:
    for user in (b"", b"\xff\x01 %s"):
        raw = WEB + user + b"\0"
        assert Socks4Request.parse(raw) == (Socks4Request(1, parse_endpoint("198.51.100.7:80"), user), len(raw))


def test_strings_of_255_octets_are_whole_and_no_longer_ones() -> None:
    raw = NAME + b"u" * 255 + b"\0" + b"n" * 255 + b"\0"
    longest = Socks4Request(1, Endpoint("n" * 255, 80), b"u" * 255)
    assert Socks4Request.parse(raw) == (longest, len(raw))
    assert longest.encode() == raw


@pytest.mark.parametrize("behind", [b"", b"\0", b"u\0"])
def test_string_of_256_octets_ends_the_wait_for_its_end(behind: bytes) -> None:
    for start, reply in ((WEB, 0x01), (NAME + b"alice\0", 0x09)):
        assert Socks4Request.parse(start + b"x" * 255) is None
        with pytest.raises(WireError, match="more than 255 octets") as caught:
            Socks4Request.parse(start + b"x" * 256 + behind)
        assert caught.value.reply == reply


@pytest.mark.parametrize("name", [b"", b"a b", b"\xc3\xa4", b"\x7f"])
def test_name_that_cannot_be_one_carries_the_reply(name: bytes) -> None:
    with pytest.raises(WireError) as caught:
        Socks4Request.parse(NAME + b"\0" + name + b"\0")
    assert caught.value.reply == 0x09


@quick
@given(means_a_name, user_ids)
def test_every_address_below_256_but_zero_means_a_name(address: IPv4Address, user: bytes) -> None:
    raw = bytes.fromhex("04020050") + address.packed + user + b"\0"
    assert Socks4Request.parse(raw) is None
    assert Socks4Request.parse(raw + b"a\0") == (Socks4Request(2, Endpoint("a", 80), user), len(raw) + 2)


@pytest.mark.parametrize("address", ["0.0.0.0", "0.0.1.0", "0.0.1.1", "1.0.0.1"])
def test_any_other_address_is_one(address: str) -> None:
    raw = bytes.fromhex("04010050") + IPv4Address(address).packed + b"\0"
    assert Socks4Request.parse(raw) == (Socks4Request(1, Endpoint(IPv4Address(address), 80)), len(raw))


@pytest.mark.parametrize(
    "request_",
    [
        Socks4Request(1, parse_endpoint("[2001:db8::1]:80")),
        Socks4Request(1, parse_endpoint("192.0.2.1:80"), b"u" * 256),
        Socks4Request(1, parse_endpoint("192.0.2.1:80"), b"a\0b"),
        Socks4Request(1, Endpoint("a\0b", 80)),
        Socks4Request(1, Endpoint("", 80)),
        Socks4Request(1, Endpoint("n" * 256, 80)),
    ],
    ids=["IPv6", "long user", "user with a NUL", "name with a NUL", "no name", "long name"],
)
def test_request_that_no_message_holds_is_not_written(request_: Socks4Request) -> None:
    with pytest.raises(ValueError, match=r"octets|IPv4|NUL"):
        request_.encode()


@pytest.mark.parametrize("bound", [parse_endpoint("[::1]:80"), Endpoint("name.example", 80)])
def test_reply_without_an_ipv4_address_is_not_written(bound: Endpoint) -> None:
    with pytest.raises(ValueError, match="IPv4 addresses only"):
        Socks4Reply(Answer.GRANTED, bound).encode()


def test_granted_is_the_golden_octets() -> None:
    assert Socks4Reply(Answer.GRANTED).encode() == octets("SOCKS 4 granted")
    assert [*Answer] == [90, 91, 92, 93]


@quick
@given(socks4_requests)
def test_scapy_reads_the_same_request(request_: Socks4Request) -> None:
    packet = scapy_layers.Socks4Request(request_.encode())
    host = packet.DSTIP if packet.HOST is None else packet.HOST.decode()
    assert (packet.VN, packet.CD, packet.USERID) == (4, request_.command, request_.user)
    assert (host, packet.DSTPORT) == (str(request_.destination.host), request_.destination.port)
    assert not packet.payload


@quick
@given(socks4_replies)
def test_scapy_reads_the_same_reply(reply: Socks4Reply) -> None:
    packet = scapy_layers.Socks4Reply(reply.encode())
    assert (packet.VN, packet.CD) == (0, reply.code)
    assert (packet.DSTIP, packet.DSTPORT) == (str(reply.bound.host), reply.bound.port)


@quick
@given(u8, ipv4_endpoints)
def test_what_scapy_writes_is_the_same_reply(code: int, bound: Endpoint) -> None:
    raw = bytes(scapy_layers.Socks4Reply(CD=code, DSTIP=str(bound.host), DSTPORT=bound.port))
    assert Socks4Reply.parse(raw) == (Socks4Reply(code, bound), 8)
