"""Framing of the control channel, and faults that leave it whole; scapy reads the same from what we write."""

from typing import Any

import pytest
from hypothesis import given
from scapy.packet import Packet

from mcastsocks.errors import WireError
from mcastsocks.wire.control import (
    ControlReply,
    ControlRequest,
    Encapsulated,
    Flags,
    parse_message,
)
from mcastsocks.wire.datagram import MAX_FRAME_OCTETS
from mcastsocks.wire.options import Option
from tests import scapy_layers
from tests.scapy_layers import split_control_stream
from tests.wire.second_opinion import endpoint_of
from tests.wire.strategies import control_replies, control_requests, encapsulated, quick

# PKT TYPE, SIZE, then all but the last octet of a request's fixed part
HEAD = "01 {size:04x} 05 0005 00 0001 000000"
V4, V6, NAME, UNUSED = "01c00002010001", "0420010db80000000000000000000000010001", "0301610001", "00000000000000"
UNKNOWN, FILLED, EMPTY_NAME = "07000000000000", "00000000010000", "03000001"


def request(*blocks: str) -> bytes:
    """A BIND with these octets behind its fixed part, and the SIZE that they make."""
    rest = bytes.fromhex("00" + "".join(blocks))
    return bytes.fromhex(HEAD.format(size=12 + len(rest))) + rest


def fault_of(octets: bytes) -> int | None:
    found = parse_message(octets)
    assert found is not None
    message, size = found
    assert size == len(octets)
    assert isinstance(message, ControlRequest)
    return None if message.fault is None else message.fault.reply


# --- framing ---


@pytest.mark.parametrize("local", [V4, V6, NAME, UNUSED, FILLED, EMPTY_NAME])
@pytest.mark.parametrize("remote", [V4, V6, NAME, UNUSED, FILLED, EMPTY_NAME])
def test_a_message_that_ends_before_its_blocks_do_breaks_framing(local: str, remote: str) -> None:
    """Whatever is wrong inside the blocks: a lost boundary comes first."""
    blocks = bytes.fromhex(local + remote)
    for end in range(1, len(blocks)):
        with pytest.raises(WireError) as caught:
            parse_message(request(blocks[:end].hex()))
        assert caught.value.reply is None


@pytest.mark.parametrize("kind", [0x00, 0x04, 0x05, 0x16, 0xFF])
def test_unknown_packet_type_breaks_framing_at_its_first_octet(kind: int) -> None:
    with pytest.raises(WireError, match=f"unknown packet type X'{kind:02x}'") as caught:
        parse_message(bytes((kind,)))
    assert caught.value.reply is None


@pytest.mark.parametrize(("kind", "minimum"), [(0x01, 13), (0x02, 13), (0x03, 7)])
def test_size_below_the_minimum_breaks_framing_as_soon_as_it_is_read(kind: int, minimum: int) -> None:
    for size in range(minimum):
        with pytest.raises(WireError, match=f"SIZE {size} is below {minimum}") as caught:
            parse_message(bytes((kind, 0, size)))
        assert caught.value.reply is None
    assert parse_message(bytes((kind, 0, minimum))) is None


@pytest.mark.parametrize("kind", [0x01, 0x02])
def test_size_13_leaves_both_blocks_unused(kind: int) -> None:
    found = parse_message(bytes((kind, 0, 13, 6, 0, 3, 0, 0, 1, 0, 0, 0, 9)))
    assert found is not None
    message, size = found
    assert isinstance(message, ControlRequest | ControlReply)
    assert (size, message.aid, message.local, message.remote) == (13, 9, None, None)


def test_octets_behind_remote_are_ignored_without_extended() -> None:
    found = parse_message(request(V4, V6, "0504ffff"))
    assert found is not None
    message, size = found
    assert isinstance(message, ControlRequest)
    assert (size, message.fault, message.options) == (13 + 7 + 19 + 4, None, ())


def test_rsvd_of_a_reply_is_ignored() -> None:
    quiet, loud = bytearray(ControlReply(0, 1, 2).encode()), bytearray(ControlReply(0, 1, 2).encode())
    loud[6] = 0xFF
    assert parse_message(loud) == parse_message(quiet)


# --- faults ---


@pytest.mark.parametrize(
    ("local", "remote", "reply"),
    [
        (UNKNOWN, V4, 0x08),
        (UNKNOWN, "", 0x08),  # no known width, so SIZE alone frames the message
        (V4, UNKNOWN, 0x08),
        (V4, "07", 0x08),
        (FILLED, V4, 0x08),
        (V4, FILLED, 0x08),
        (NAME, V4, 0x08),
        (EMPTY_NAME, V4, 0x08),
        (V4, EMPTY_NAME, 0x09),
        (V4, NAME, None),
        (UNUSED, UNUSED, None),
        (V6, V4, None),
    ],
)
def test_fault_in_a_block_carries_its_reply(local: str, remote: str, reply: int | None) -> None:
    assert fault_of(request(local, remote)) == reply


@pytest.mark.parametrize("local", [UNKNOWN, FILLED, NAME, EMPTY_NAME])
def test_a_bad_address_type_in_local_comes_before_a_bad_address_in_remote(local: str) -> None:
    assert fault_of(request(local, EMPTY_NAME)) == 0x08


def test_fields_before_the_fault_are_kept_for_the_answer() -> None:
    found = parse_message(bytes.fromhex("01 001b 06 0003 00 0102 0a0b0c0d") + bytes.fromhex(UNKNOWN + UNUSED))
    assert found is not None
    message, _ = found
    assert isinstance(message, ControlRequest)
    assert (message.command, message.flags, message.tid, message.aid) == (6, 3, 0x0102, 0x0A0B0C0D)


def test_a_kept_fault_keeps_no_frames() -> None:
    found = parse_message(request(UNKNOWN, UNKNOWN))
    assert found is not None
    assert isinstance(found[0], ControlRequest)
    assert found[0].fault is not None
    assert found[0].fault.__traceback__ is None


def test_reply_with_a_senseless_address_is_a_wire_error() -> None:
    for blocks in (UNKNOWN + V4, V4 + FILLED, V4 + EMPTY_NAME, NAME + V4):
        octets = bytearray(request(blocks))
        octets[0] = 0x02
        with pytest.raises(WireError):
            parse_message(octets)


# --- options ---

BEHIND = "03 0001 ff"  # no option has this number


def extended(kind: int) -> bytes:
    octets = bytearray(request(V4, V4, BEHIND))
    octets[0], octets[4] = kind, 0x80
    return bytes(octets)


def test_unknown_option_is_a_fault_of_a_request_and_passed_over_in_a_reply() -> None:
    assert fault_of(extended(0x01)) == 0x01
    found = parse_message(extended(0x02))
    assert found is not None
    assert isinstance(found[0], ControlReply)
    assert (found[0].flags, found[0].options) == (0x8005, ())


@pytest.mark.parametrize("message", [ControlRequest, ControlReply])
def test_options_are_written_only_with_extended(message: type[ControlRequest] | type[ControlReply]) -> None:
    reason = (Option(5, b"why"),)
    assert message(5, 1, options=reason).encode() == message(5, 1).encode()
    assert message(5, 1, flags=0x8000, options=reason).encode().endswith(b"\x05\x00\x03why")


# --- limits of what is written ---


def test_largest_frame_is_as_long_as_size_can_say() -> None:
    octets = Encapsulated(1, bytes(65_528)).encode()
    assert MAX_FRAME_OCTETS == 65_528
    assert octets[:3].hex() == "03ffff"
    assert len(octets) == 65_535
    with pytest.raises(ValueError, match="at most 65528 octets, not 65529"):
        Encapsulated(1, bytes(65_529)).encode()


# --- the second opinion ---


def dissected(octets: bytes) -> Packet:
    (packet,) = split_control_stream(octets)
    return packet


def common(message: ControlRequest | ControlReply) -> tuple[Any, ...]:
    options = [(option.kind, option.value) for option in message.options]
    return message.flags, message.tid, message.aid, message.local, message.remote, options


def common_of_scapy(packet: Packet) -> tuple[Any, ...]:
    options = [(option.TYPE, option.VALUE) for option in packet.OPTIONS or ()]
    assert packet.REST == b""
    assert (packet.OPTIONS is not None) == bool(packet.FLAGS & Flags.EXTENDED)
    return int(packet.FLAGS), packet.TID, packet.AID, endpoint_of(packet.LOCAL), endpoint_of(packet.REMOTE), options


@quick
@given(control_requests)
def test_scapy_reads_the_same_request(message: ControlRequest) -> None:
    packet = dissected(message.encode())
    assert isinstance(packet, scapy_layers.ControlRequest)
    assert (packet.UDPCMD, packet.RSVD) == (message.command, message.ttl)
    assert common_of_scapy(packet) == common(message)


@quick
@given(control_replies)
def test_scapy_reads_the_same_reply(message: ControlReply) -> None:
    packet = dissected(message.encode())
    assert isinstance(packet, scapy_layers.ControlReply)
    assert (packet.REPLY, packet.RSVD) == (message.code, 0)
    assert common_of_scapy(packet) == common(message)


@quick
@given(encapsulated)
def test_scapy_reads_the_same_frame(message: Encapsulated) -> None:
    packet = dissected(message.encode())
    assert (packet.PKT_TYPE, packet.AID, packet.DATA) == (3, message.aid, message.data)
