"""Which conversations the dissector takes, and which it leaves to others."""

from __future__ import annotations

from pathlib import Path

import pytest
from scapy.layers.dns import DNS, DNSQR, DNSRR
from scapy.layers.rtp import RTP
from scapy.packet import Packet

from tests import scapy_layers as layers
from tests.vectors import octets
from tests.wireshark import dialogues, tshark
from tests.wireshark.captures import RELAY, Conversation, as_written, one_octet_each, write
from tests.wireshark.naming import assert_shows

GUESS = ("-o", "mcastsocks.guess_udp:TRUE")
ENHANCED_CLIENT = dialogues.segments(dialogues.ENHANCED)


def greeted(port: int, relay_port: int) -> Conversation:
    return Conversation(port, relay_port, ENHANCED_CLIENT)


def datagrams(relay_port: int, *messages: bytes) -> list[Packet]:
    return Conversation(41_000, relay_port, [("relay", each) for each in messages]).udp()


def bound(
    *, local: tuple[str, int], remote: tuple[str, int] = ("198.51.100.7", 53), flags: int = 7
) -> dialogues.Dialogue:
    """A channel with one BIND, granted at `local`."""
    return [
        *dialogues.ENHANCED,
        dialogues.client("control", layers.ControlRequest(FLAGS=flags, TID=1, REMOTE=remote)),
        dialogues.relay("control", layers.ControlReply(FLAGS=flags, TID=1, AID=9, LOCAL=local, REMOTE=remote)),
    ]


def test_port_1080_is_no_longer_the_one_of_the_socks_dissector(tmp_path: Path) -> None:
    shown = tshark.run(write(tmp_path / "a.pcap", greeted(41_000, 1080).tcp()), "-T", "pdml")
    assert 'proto name="mcastsocks"' in shown
    assert 'proto name="socks"' not in shown


def test_ports_may_be_others(tmp_path: Path) -> None:
    frames = greeted(41_000, 23_456).tcp(one_octet_each) + datagrams(3456, octets("datagram standalone"))
    path = write(tmp_path / "a.pcap", frames)
    assert not tshark.messages(path, relay_ports=(23_456, 3456))
    ports = ("-o", "mcastsocks.tcp_ports:23456", "-o", "mcastsocks.udp_ports:3000-3456")
    found = tshark.messages(path, *ports, relay_ports=(23_456, 3456))
    assert [message.transport for message in found] == ["tcp"] * 4 + ["udp"]


def test_a_greeting_is_recognised_on_any_port(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pcap", greeted(41_000, 23_456).tcp(as_written))
    assert len(tshark.messages(path, relay_ports=(23_456,))) == 4
    assert len(tshark.messages(path, "-2", relay_ports=(23_456,))) == 4


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\n\r\n", b"\x05\x03\x00", b"\x05\x02\x00\x00", b"\x05\x01\xff"])
def test_no_greeting_is_left_to_others(tmp_path: Path, first: bytes) -> None:
    path = write(tmp_path / "a.pcap", Conversation(41_000, 23_456, [("client", first)]).tcp())
    assert not tshark.messages(path, relay_ports=(23_456,))


def test_a_pair_of_ports_used_again_is_another_connection(tmp_path: Path) -> None:
    frames = [f for at in (1000, 900_000) for f in Conversation(41_000, said=ENHANCED_CLIENT, first_sequence=at).tcp()]
    path = write(tmp_path / "a.pcap", frames)
    assert [message.experts for message in tshark.messages(path, "-2")] == [[]] * 8


def test_datagrams_are_recognised_where_a_reply_to_bind_named_the_endpoint(tmp_path: Path) -> None:
    said = dialogues.segments(bound(local=(RELAY, 3456)))
    frames = Conversation(41_000, said=said).tcp() + datagrams(3456, octets("datagram standalone"))
    for passes in ((), ("-2",)):
        path = write(tmp_path / "a.pcap", frames)
        *_, message = tshark.messages(path, *passes, relay_ports=(1080, 3456))
        assert message.transport == "udp"
        assert_shows(message, layers.Datagram(octets("datagram standalone")))


@pytest.mark.parametrize(
    ("local", "remote", "flags"),
    [
        ((RELAY, 3456), (RELAY, 3456), 7),  # a non-proxy relay: plain datagrams
        ((RELAY, 3456), ("198.51.100.7", 53), 0x0B),  # encapsulated
    ],
)
def test_datagrams_without_a_header_are_left_alone(
    tmp_path: Path, local: tuple[str, int], remote: tuple[str, int], flags: int
) -> None:
    said = dialogues.segments(bound(local=local, remote=remote, flags=flags))
    frames = Conversation(41_000, said=said).tcp() + datagrams(3456, octets("datagram standalone"))
    path = write(tmp_path / "a.pcap", frames)
    assert all(message.transport == "tcp" for message in tshark.messages(path, relay_ports=(1080, 3456)))


def test_datagrams_of_rfc_1928_are_recognised_beside_those_with_a_header(tmp_path: Path) -> None:
    enhanced = dialogues.segments(bound(local=(RELAY, 3456)))
    frames = Conversation(41_000, said=enhanced).tcp()
    frames += Conversation(41_001, said=dialogues.segments(dialogues.associated(3457))).tcp()
    frames += datagrams(3456, octets("datagram standalone")) + datagrams(3457, octets("1928 datagram IPv4"))
    path = write(tmp_path / "a.pcap", frames)
    shown = [m.headline for m in tshark.messages(path, relay_ports=(1080, 3456, 3457)) if m.transport == "udp"]
    assert [headline.partition(":")[0] for headline in shown] == ["Datagram", "RFC 1928 datagram"]


RECOGNISABLE = ["datagram standalone", "extension: with the original sender"] + [
    f"extension: protected, {which}" for which in ("AES-128-GCM, packet number 7", "ChaCha20-Poly1305, packet number 0")
]


@pytest.mark.parametrize("vector", RECOGNISABLE)
def test_datagrams_are_guessed_only_when_asked_to(tmp_path: Path, vector: str) -> None:
    path = write(tmp_path / "a.pcap", datagrams(3456, octets(vector)))
    assert not tshark.messages(path, relay_ports=(3456,))
    [message] = tshark.messages(path, *GUESS, relay_ports=(3456,))
    assert_shows(message, layers.Datagram(octets(vector)))


def test_guesses_leave_dns_rtp_and_others_alone(tmp_path: Path) -> None:
    query = DNSQR(qname="example.com")
    answer = DNSRR(rrname="example.com", rdata="192.0.2.1")
    others = [bytes(DNS(id=number, rd=rd, qd=query)) for number in (0, 1, 0x0100, 0x0200, 0xFFFF) for rd in (0, 1)]
    others += [bytes(DNS(id=number, qr=1, qd=query, an=answer)) for number in (0, 0x0100, 0x0200)]
    others += [bytes(RTP(version=2, sequence=number, timestamp=90 * number) / bytes(160)) for number in range(50)]
    others.append(bytes.fromhex("000100002112a442") + bytes(range(12)))  # STUN binding request
    others.append(bytes.fromhex("0101000c2112a442") + bytes(24))
    path = write(tmp_path / "a.pcap", datagrams(3456, *others))
    assert not tshark.messages(path, *GUESS, relay_ports=(3456,))
