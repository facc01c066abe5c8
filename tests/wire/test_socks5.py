"""What is particular about single messages of the negotiation."""

import pytest
from hypothesis import given

from mcastsocks.address import Endpoint
from mcastsocks.errors import WireError
from mcastsocks.wire.socks5 import (
    Credentials,
    CredentialsReply,
    Greeting,
    InterfaceData,
    MethodChoice,
    Reply,
    Request,
    RequestFlag,
)
from tests import scapy_layers
from tests.vectors import octets
from tests.wire.second_opinion import endpoint_of
from tests.wire.strategies import interface_data, quick


@pytest.mark.parametrize("version", [0x00, 0x01, 0x04, 0x06, 0x16, 0xFF])
@pytest.mark.parametrize("message", [Greeting, MethodChoice, Request])
def test_another_version_is_an_error_at_its_first_octet(message: type[Greeting], version: int) -> None:
    with pytest.raises(WireError, match="expected version X'05'") as caught:
        message.parse(bytes((version,)))
    assert caught.value.reply is None


@pytest.mark.parametrize("version", [0x00, 0x02, 0x05, 0xFF])
@pytest.mark.parametrize("message", [Credentials, CredentialsReply])
def test_login_has_a_version_of_its_own(message: type[Credentials], version: int) -> None:
    with pytest.raises(WireError, match="expected version X'01'"):
        message.parse(bytes((version,)))


@pytest.mark.parametrize("version", [0x00, 0x02, 0x04, 0xFF])
def test_reply_is_of_socks_5_or_of_the_extension(version: int) -> None:
    with pytest.raises(WireError, match="version X'05' or X'01'"):
        Reply.parse(bytes((version,)))


def test_a_greeting_may_offer_nothing_or_all() -> None:
    assert Greeting.parse(b"\x05\x00") == (Greeting(()), 2)
    everything = bytes(range(255))
    assert Greeting.parse(b"\x05\xff" + everything) == (Greeting(tuple(everything)), 257)


def test_empty_password_is_legal_and_an_empty_name_is_not() -> None:
    assert Credentials.parse(b"\x01\x01x\x00") == (Credentials(b"x", b""), 4)
    with pytest.raises(WireError, match="empty user name"):
        Credentials.parse(b"\x01\x00")  # as soon as its length is known


def test_credentials_of_255_octets_each_are_whole() -> None:
    raw = b"\x01\xff" + b"u" * 255 + b"\xff" + b"p" * 255
    assert Credentials.parse(raw) == (Credentials(b"u" * 255, b"p" * 255), len(raw))


@pytest.mark.parametrize(
    ("user", "password"), [(b"", b"secret"), (b"u" * 256, b"secret"), (b"alice", b"p" * 256)], ids=repr
)
def test_credentials_that_no_message_holds_are_not_written(user: bytes, password: bytes) -> None:
    with pytest.raises(ValueError, match="1 to 255 octets"):
        Credentials(user, password).encode()


def test_password_is_in_no_repr() -> None:
    assert "secret" not in repr(Credentials(b"alice", b"secret"))
    assert "alice" in repr(Credentials(b"alice", b"secret"))


@pytest.mark.parametrize(("address", "reply"), [("07", 0x08), ("03000050", 0x09), ("03036100620050", 0x09)])
def test_request_with_a_bad_address_carries_the_reply(address: str, reply: int) -> None:
    with pytest.raises(WireError) as caught:
        Request.parse(bytes.fromhex("050100" + address))
    assert caught.value.reply == reply


@pytest.mark.parametrize("command", [0x01, 0x02, 0x03, 0x10, 0x42])
def test_only_enhanced_udp_mode_may_leave_its_address_unused(command: int) -> None:
    everything_zero = bytearray(octets("ENHANCED_UDP_MODE with everything zero"))
    assert Request.parse(everything_zero) is not None
    everything_zero[1] = command
    with pytest.raises(WireError) as caught:
        Request.parse(everything_zero)
    assert caught.value.reply == 0x08


def test_destination_of_enhanced_udp_mode_is_parsed_and_means_nothing() -> None:
    parsed = Request.parse(bytes.fromhex("050400 03 0161 0009"))
    assert parsed is not None
    assert (parsed[0].command, parsed[1]) == (0x04, 8)


def test_unused_address_of_a_foreign_reply_is_zero() -> None:
    assert Reply.parse(bytes.fromhex("05070000000000000000")) == Reply.parse(octets("ENHANCED_UDP_MODE switched off"))


# --- UDP ASSOCIATE ---


@pytest.mark.parametrize(
    ("flag", "port", "asks"),
    [
        (0x00, 5000, RequestFlag.NONE),
        (0x01, 0, RequestFlag.INTERFACE_REQUEST),
        (0x04, 5000, RequestFlag.USECLIENTSPORT),
        (0x04, 0, RequestFlag.NONE),  # no port, nothing to use
        (0xFF, 0, RequestFlag.INTERFACE_REQUEST),
        (0xFF, 5000, RequestFlag.INTERFACE_REQUEST | RequestFlag.USECLIENTSPORT),
    ],
)
def test_association_asks_for_what_is_known_and_possible(flag: int, port: int, asks: RequestFlag) -> None:
    assert Request(3, Endpoint("x", port), flag).udp_flags == asks


def test_golden_association_asks_to_use_the_clients_port() -> None:
    parsed = Request.parse(octets("UDP ASSOCIATE USECLIENTSPORT"))
    assert parsed is not None
    assert parsed[0].udp_flags == RequestFlag.USECLIENTSPORT


@pytest.mark.parametrize(
    ("octets", "reply"),
    [
        ("05", None),  # a request on a connection that had its own
        ("01", None),
        ("00000001", 0x07),
        ("00020001", 0x07),
        ("00010000", 0x08),
        ("00010007", 0x08),
        ("0001000300", 0x09),
    ],
)
def test_interface_data_that_cannot_be_answered_carries_the_reply(octets: str, reply: int | None) -> None:
    with pytest.raises(WireError) as caught:
        InterfaceData.parse(bytes.fromhex(octets).ljust(12, b"\0"))
    assert caught.value.reply == reply


@quick
@given(interface_data)
def test_scapy_reads_the_same_interface_data(message: InterfaceData) -> None:
    packet = scapy_layers.InterfaceData(message.encode())
    assert (packet.RSV, packet.SUB, packet.FLAG) == (0, 1, message.flag)
    assert endpoint_of(packet.DST) == message.destination
    assert not packet.payload
