"""What tshark shows of the golden octets, field by field, against the scapy layers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests import scapy_layers as layers
from tests.vectors import VECTORS, Vector, name
from tests.wireshark import dialogues, tshark
from tests.wireshark.captures import CUTS, Conversation, Segments, as_written, joined, write
from tests.wireshark.naming import assert_shows

Cut = Callable[[Segments], Segments]
ByVector = dict[str, list[tshark.Message]]

ON_TCP = [vector for vector in VECTORS if vector["layer"] not in dialogues.DATAGRAMS]
ON_UDP = [vector for vector in VECTORS if vector["layer"] in dialogues.DATAGRAMS]
EXPERTS = {
    "SIZE 20 ends after LOCAL": "runt",
    "ATYP 07 in REMOTE: a reply, not a broken frame": "value",
    "option overruns SIZE": "option",
    "source list cut inside an address": "option",
    "empty name in REMOTE": "value",
    "fragment X'80'": "frag",
    "RSV bit 04": "bits",
    "userpass with an empty name": "value",
    "SIZE below 13": "size",
    "SIZE cuts the remote address": "runt",
    "unknown packet type": "framing",
    "encapsulated SIZE below 7": "size",
    "datagram shorter than its header": "runt",
    "1928 datagram, name runs past the end": "runt",
}
NO_LAYER = {vector["name"] for vector in VECTORS if vector.get("invalid") in ("framing", "truncated")}


def port_of(vector: Vector) -> int:
    return 40_000 + VECTORS.index(vector)


def whole_lists(messages: list[tshark.Message]) -> list[tshark.Message]:
    """The octets of END that came after the first belong to the list before them."""
    merged: list[tshark.Message] = []
    for message in messages:
        if [field for field, _ in message.fields] == ["feature.end"]:
            *before, (_, end) = merged[-1].fields
            merged[-1] = replace(merged[-1], fields=[*before, ("feature.end", end + message.fields[0][1])])
        else:
            merged.append(message)
    return merged


def by_vector(messages: list[tshark.Message]) -> ByVector:
    found: ByVector = defaultdict(list)
    for message in messages:
        found[str(VECTORS[message.client_port - 40_000]["name"])].append(message)
    return found


def datagram_ports(vector: Vector) -> tuple[int, int]:
    """Of the relay: 1928 datagrams go to a port of their own, named by the reply to UDP ASSOCIATE."""
    return (1080, 20_000 + VECTORS.index(vector)) if vector["layer"] == "datagram-1928" else (1080, 1080)


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Cut], Path]:
    """A capture of every vector on TCP, cut in one way."""

    @cache
    def capture(cut: Cut) -> Path:
        frames = []
        for vector in ON_TCP:
            said = dialogues.segments(dialogues.of_vector(vector))
            frames += Conversation(port_of(vector), said=said).tcp(cut)
        return write(tmp_path_factory.mktemp("vectors") / "tcp.pcap", frames)

    return capture


@pytest.fixture(scope="module")
def on_tcp(captured: Callable[[Cut], Path]) -> Callable[[Cut], ByVector]:
    """Messages by vector; tshark runs once for each way of cutting, and dissects every frame twice."""
    return cache(lambda cut: by_vector(tshark.messages(captured(cut), "-2")))


@pytest.fixture(scope="module")
def on_udp(tmp_path_factory: pytest.TempPathFactory) -> ByVector:
    frames = []
    for vector in ON_UDP:
        tcp_port, udp_port = datagram_ports(vector)
        if udp_port != tcp_port:
            association = dialogues.segments(dialogues.associated(udp_port))
            frames += Conversation(port_of(vector), said=association).tcp()
        said = dialogues.segments(dialogues.of_vector(vector))
        frames += Conversation(port_of(vector), udp_port, said=said).udp()
    path = write(tmp_path_factory.mktemp("vectors") / "udp.pcap", frames)
    relay_ports = tuple(port for vector in ON_UDP for port in datagram_ports(vector))
    return by_vector([m for m in tshark.messages(path, relay_ports=relay_ports) if m.transport == "udp"])


@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: cut.__name__)
@pytest.mark.parametrize("vector", [v for v in ON_TCP if v["name"] not in NO_LAYER], ids=name)
def test_every_field_of_a_conversation_is_shown(on_tcp: Callable[[Cut], ByVector], vector: Vector, cut: Cut) -> None:
    said = dialogues.of_vector(vector)
    if cut is joined:
        said.sort(key=lambda each: each.side)
    messages = whole_lists(on_tcp(cut)[vector["name"]])
    assert len(messages) == len(said), [message.headline for message in messages]
    for message, each in zip(messages, said, strict=True):
        assert_shows(message, each.dissected)


@pytest.mark.parametrize("vector", [v for v in ON_UDP if v["name"] not in NO_LAYER], ids=name)
def test_every_field_of_a_datagram_is_shown(on_udp: ByVector, vector: Vector) -> None:
    [message] = on_udp[vector["name"]]
    [said] = dialogues.of_vector(vector)
    assert_shows(message, said.dissected)


@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: cut.__name__)
def test_a_frame_dissected_once_more_shows_the_same(captured: Callable[[Cut], Path], cut: Cut) -> None:
    once, twice = tshark.messages(captured(cut)), tshark.messages(captured(cut), "-2")
    for message in once + twice:
        message.generated.clear()  # a request cannot know its reply yet
    assert once == twice


@pytest.mark.parametrize("vector", [v for v in VECTORS if "invalid" in v], ids=name)
def test_what_is_wrong_has_an_expert_info(on_tcp: Callable[[Cut], ByVector], on_udp: ByVector, vector: Vector) -> None:
    message = (on_udp if vector in ON_UDP else on_tcp(as_written))[vector["name"]][-1]
    assert message.experts == [EXPERTS[vector["name"]]]


def test_what_is_right_has_none(on_tcp: Callable[[Cut], ByVector], on_udp: ByVector) -> None:
    found = on_tcp(as_written) | on_udp
    wrong = {
        message.headline: message.experts
        for vector in VECTORS
        if "invalid" not in vector
        for message in found[vector["name"]]
        if set(message.experts) - {"refused"}
    }
    assert not wrong


@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: cut.__name__)
def test_a_reply_and_its_request_name_each_other(on_tcp: Callable[[Cut], ByVector], cut: Cut) -> None:
    *_, request, reply = on_tcp(cut)["encapsulated with the sender (REPORT-SOURCE granted, relay to client)"][:-1]
    if cut is joined:
        *_, request, reply = [
            message
            for message in on_tcp(cut)["encapsulated with the sender (REPORT-SOURCE granted, relay to client)"]
            if message.headline.startswith("Control")
        ]
    assert request.generated == {"response_in": str(reply.frame)}
    assert reply.generated["response_to"] == str(request.frame)
    assert float(reply.generated["time"]) == pytest.approx((reply.frame - request.frame) / 1000)


@pytest.mark.parametrize("secret", ["secret", *(bytes(range(at, at + 16)).hex() for at in (0, 16, 32, 48))])
def test_passwords_and_keys_are_not_shown(captured: Callable[[Cut], Path], secret: str) -> None:
    for message in ElementTree.fromstring(tshark.run(captured(as_written), "-T", "pdml")).iter("proto"):
        if message.get("name") == tshark.PROTOCOL:
            text = ElementTree.tostring(message, encoding="unicode")
            assert secret not in text
            assert secret.encode().hex() not in text


def test_what_is_marked_of_a_granted_protection_ends_before_its_keys(captured: Callable[[Cut], Path]) -> None:
    items = ElementTree.fromstring(tshark.run(captured(as_written), "-T", "pdml")).iter("field")
    options = [item for item in items if (item.get("showname") or "").startswith("Option PROTECTION")]
    assert [item.get("size") for item in options] == ["5", "4"]  # TYPE LEN and the AEADs asked for, or the one granted


@pytest.mark.parametrize(
    ("kind", "value"),
    [(6, "01c0000207"), (6, "0420010db8000000000000000000000007"), (5, "74656b7374"), (0x77, "0102"), (3, "ff")],
)
def test_options_without_a_vector_are_shown(tmp_path: Path, kind: int, value: str) -> None:
    option = layers.Option(TYPE=kind, VALUE=bytes.fromhex(value))
    reply = dialogues.relay("control", layers.ControlReply(FLAGS="EXTENDED", TID=1, OPTIONS=[option]))
    said = dialogues.segments([*dialogues.ENHANCED, reply])
    *_, message = tshark.messages(write(tmp_path / "a.pcap", Conversation(41_000, said=said).tcp()))
    assert_shows(message, reply.dissected)
    assert message.experts == ([] if kind in (5, 6) else ["option"])
