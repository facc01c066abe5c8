"""A real relay and its clients, captured on the wire between them: each message, field by field."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.packet import Packet, Padding
from scapy.utils import wrpcap

from tests import scapy_layers as layers
from tests.netns.client import BOTH, MULTICAST, RECEIVE, UNICAST, RawClient, Refused
from tests.netns.lab import GROUP, PORT, REMOTE, Capture, Lab, missing_packages
from tests.netns.relay import RelayProcess
from tests.netns.test_encapsulated import encapsulated
from tests.netns.test_fragments import send_pieces
from tests.netns.test_groups import outside_sender
from tests.netns.test_sources import filtered
from tests.wireshark import tshark
from tests.wireshark.naming import assert_shows

pytestmark = pytest.mark.skipif(missing_packages() is not None, reason=str(missing_packages()))

REPORT_SOURCE, EXTENDED, TCP_ENCAPSULATED = 0x0100, 0x8000, 0x08


def unicast(lab: Lab, client: RawClient) -> None:
    with lab.outside.udp(REMOTE[client.version]) as remote:
        aid = client.associate(remote.getsockname()[:2])
        client.send(aid, b"question")
        _, relay = remote.recvfrom(100)
        remote.sendto(b"answer", relay)
        client.receive()
        send_pieces(client, aid, 7, [(0x01, b"first "), (0x02, b"second "), (0x83, b"third")])
        assert remote.recv(100) == b"first second third"
        remote.sendto(bytes(1400), relay)  # three pieces
        for _ in range(3):
            client.udp.recv(2000)
        client.release(aid)
        client.release(aid)  # an unknown one now


def groups(lab: Lab, client: RawClient) -> None:
    group = (GROUP[client.version], 5810)
    with outside_sender(lab, client.version) as sender:
        reporting = client.bind(RECEIVE | MULTICAST | REPORT_SOURCE, group).AID
        sender.sendto(b"news", group)
        client.udp.recv(1000)
        client.release(reporting, RECEIVE)
        only = filtered(client, (group[0], 5811), REMOTE[client.version], client.address)
        sender.sendto(b"from the right one", (group[0], 5811))
        client.udp.recv(1000)
        client.release(only.AID, RECEIVE)
        aid = client.send_to_group(group, ttl=2)
        client.request(7, aid=aid, ttl=3)
        client.request(7, aid=aid, ttl=99)
        client.send(aid, b"views")


def frames(lab: Lab, client: RawClient) -> None:
    group = (GROUP[client.version], 5812)
    with outside_sender(lab, client.version) as sender, lab.outside.udp(REMOTE[client.version]) as remote:
        reporting = encapsulated(client, RECEIVE | MULTICAST | REPORT_SOURCE, group)
        plain = encapsulated(client, BOTH, remote.getsockname()[:2])
        sender.sendto(b"news", group)
        client.read(int.from_bytes(client.read(3)[1:]) - 3)
        for data in (b"", b"question", bytes(9000)):
            client.tcp.sendall(bytes(layers.EncapsulatedDatagram(AID=plain, DATA=data)))
            got, relay = remote.recvfrom(10_000)
            remote.sendto(got, relay)
            client.read(int.from_bytes(client.read(3)[1:]) - 3)
        client.tcp.sendall(bytes(layers.ControlRequest(UDPCMD=6, SIZE=13, TID=900, FLAGS=RECEIVE, AID=reporting)))
        assert client.read_reply().REPLY == 0


def refusals(lab: Lab, client: RawClient) -> None:
    remote = (REMOTE[client.version], 5000)
    for flags, where in ((BOTH | UNICAST, ("10.99.9.9", 5000)), (BOTH, remote), (BOTH | UNICAST, ("no.such.name", 53))):
        client.request(5, flags | EXTENDED, LOCAL=client.local, REMOTE=where)
        client.request(5, flags, LOCAL=client.local, REMOTE=where)
    client.request(9)
    client.request(5, BOTH | UNICAST, LOCAL=client.local, REMOTE=(GROUP[client.version], 5000))


def with_relay(kind: type[Packet]) -> Callable[[Any], bool]:
    """Picks what has the relay at one end."""
    return lambda packet: kind in packet and PORT in (packet[kind].sport, packet[kind].dport)


def tcp_side(packets: list[Any], port: int, *, by_client: bool) -> bytes:
    """What one side of a connection wrote; a segment sent again counts once."""
    written = bytearray()
    segments = {
        packet[TCP].seq: bytes(packet[TCP].payload)
        for packet in packets
        if (packet[TCP].sport if by_client else packet[TCP].dport) == port and not packet.haslayer(Padding)
    }
    first = min(segments)
    for sequence, octets in sorted(segments.items()):
        at = max(0, sequence - first - 1)
        written[at : at + len(octets)] = octets
    return bytes(written)


class Reader:
    """Layers one behind the other."""

    def __init__(self, octets: bytes) -> None:
        self.octets = octets

    def __call__(self, layer: type[Packet]) -> Packet:
        message = layer(self.octets)
        self.octets = message[Padding].load if Padding in message else b""
        message.remove_payload()
        return message


def channel(by_client: bytes, by_relay: bytes) -> Iterator[tuple[str, Packet]]:
    """Every message of a connection whose client logs in by password, may ask for features, and enters."""
    client, relay = Reader(by_client), Reader(by_relay)
    yield from (("client", client(layers.Greeting)), ("relay", relay(layers.MethodChoice)))
    yield from (("client", client(layers.UserpassRequest)), ("relay", relay(layers.UserpassReply)))
    request = client(layers.Request)
    yield from (("client", request), ("relay", relay(layers.Reply)))
    while request.CMD == 0x10:
        yield "relay", relay(layers.FeatureList)
        request = client(layers.Request)
        yield from (("client", request), ("relay", relay(layers.Reply)))
    replies = [m for m in layers.split_control_stream(relay.octets) if isinstance(m, layers.ControlReply)]
    reporting = {m.AID for m in replies if m.REPLY == 0 and m.FLAGS & REPORT_SOURCE and m.FLAGS & RECEIVE}
    yield from (("client", message) for message in layers.split_control_stream(client.octets))
    yield from (("relay", message) for message in layers.split_control_stream(relay.octets, reporting))


def datagrams(packets: list[Any], port: int) -> Iterator[tuple[str, Packet]]:
    for packet in packets:
        if port in (packet[UDP].sport, packet[UDP].dport):
            yield "client" if packet[UDP].sport == port else "relay", layers.Datagram(bytes(packet[UDP].payload))


def assert_shown(messages: list[tshark.Message], told: Iterator[tuple[str, Packet]]) -> None:
    expected = list(told)
    for side in ("client", "relay"):
        shown = [message for message in messages if message.by_client == (side == "client")]
        wanted = [layer for who, layer in expected if who == side]
        assert len(shown) == len(wanted), (side, [message.headline for message in shown])
        for message, layer in zip(shown, wanted, strict=True):
            assert_shows(message, layer)
            assert not set(message.experts) - {"refused", "value"}


@pytest.fixture
def relay(start_relay: Callable[..., RelayProcess]) -> RelayProcess:
    return start_relay(inside="fragment_above = 600")


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("talk", [unicast, groups, frames, refusals], ids=lambda talk: talk.__name__)
def test_every_message_between_client_and_relay_is_shown(
    lab: Lab, relay: RelayProcess, tmp_path: Path, version: int, talk: Callable[[Lab, RawClient], None]
) -> None:
    with Capture(lab.client, "in") as wire:
        with RawClient(lab.client, version=version, enter=False) as client:
            client.list_features()
            client.enter()
            talk(lab, client)
            ports = client.tcp.getsockname()[1], client.udp.getsockname()[1]
        wire.wait_for("the end", lambda packet: TCP in packet and packet[TCP].dport == PORT and packet[TCP].flags.F)
        tcp, udp = wire.packets(with_relay(TCP)), wire.packets(with_relay(UDP))
        everything = wire.packets(lambda _: True)
    wrpcap(str(tmp_path / "wire.pcap"), everything)
    messages = tshark.messages(tmp_path / "wire.pcap", "-2")
    octets = [tcp_side(tcp, ports[0], by_client=by_client) for by_client in (True, False)]
    assert_shown([m for m in messages if m.transport == "tcp"], channel(*octets))
    assert_shown([m for m in messages if m.transport == "udp"], datagrams(udp, ports[1]))


def test_a_refused_login_is_shown(lab: Lab, relay: RelayProcess, tmp_path: Path) -> None:
    with Capture(lab.client, "in") as wire:
        with pytest.raises(Refused):
            RawClient(lab.client, "mallory")
        wire.wait_for("the end", lambda packet: TCP in packet and packet[TCP].dport == PORT and packet[TCP].flags.F)
        everything = wire.packets(lambda _: True)
    wrpcap(str(tmp_path / "wire.pcap"), everything)
    *_, reply = tshark.messages(tmp_path / "wire.pcap")
    assert (reply.headline, reply.experts) == ("Username/password reply: refused", ["refused"])
