"""Octets that nobody meant: tshark shows something, and the dissector throws nothing."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from scapy.packet import Packet

from tests.vectors import VECTORS, Vector
from tests.wireshark import dialogues, tshark
from tests.wireshark.captures import CUTS, Conversation, write

CASES = 200
PORTS = range(42_000, 42_000 + CASES)


def spoilt(source: random.Random, octets: bytes) -> bytes:
    """Cut, changed in places, or followed by noise."""
    changed = bytearray(octets)
    for _ in range(source.randrange(4)):
        changed[source.randrange(len(changed))] = source.randrange(256)
    end = source.choice([len(changed), source.randrange(1, len(changed) + 1)])
    return bytes(changed[:end]) + source.randbytes(source.choice([0, 0, 30]))


def spoilt_conversation(source: random.Random, port: int, vector: Vector) -> list[Packet]:
    said = dialogues.segments(dialogues.of_vector(vector))
    spoil_from = source.randrange(len(said))
    said = [(side, spoilt(source, octets) if at >= spoil_from else octets) for at, (side, octets) in enumerate(said)]
    conversation = Conversation(port, said=said)
    return conversation.udp() if vector["layer"] in dialogues.DATAGRAMS else conversation.tcp(source.choice(CUTS))


def assert_all_is_well(capture: Path, *arguments: str) -> list[tshark.Message]:
    """tshark.run fails at a Lua error; a layout that ran over the end would make a malformed packet."""
    assert "[Malformed Packet" not in tshark.run(capture, "-T", "pdml", *arguments)
    return tshark.messages(capture, *arguments)


@pytest.mark.parametrize("passes", [(), ("-2",)], ids=["one pass", "two passes"])
def test_spoilt_messages_throw_nothing(tmp_path: Path, passes: tuple[str, ...]) -> None:
    source = random.Random(1080)
    frames = [frame for port in PORTS for frame in spoilt_conversation(source, port, source.choice(VECTORS))]
    messages = assert_all_is_well(write(tmp_path / "spoilt.pcap", frames), *passes)
    assert len({message.client_port for message in messages}) > CASES * 0.9
    assert {"runt", "value", "unexpected"} <= {expert for message in messages for expert in message.experts}


@pytest.mark.parametrize("passes", [(), ("-2",)], ids=["one pass", "two passes"])
def test_random_octets_throw_nothing(tmp_path: Path, passes: tuple[str, ...]) -> None:
    source = random.Random(1928)
    frames: list[Packet] = []
    for port in PORTS:
        said = [(source.choice(["client", "relay"]), source.randbytes(source.randrange(1, 60))) for _ in range(3)]
        conversation = Conversation(port, said=said)
        frames += conversation.tcp() + conversation.udp()
    messages = assert_all_is_well(write(tmp_path / "random.pcap", frames), *passes)
    assert sum(message.transport == "udp" for message in messages) == 3 * CASES


@pytest.mark.parametrize("layer", sorted(set(dialogues.LAYERS) - set(dialogues.DATAGRAMS)))
def test_a_conversation_may_stop_anywhere(tmp_path: Path, layer: str) -> None:
    vector = next(v for v in VECTORS if v["layer"] == layer and "invalid" not in v)
    *before, (side, octets) = dialogues.segments(dialogues.of_vector(vector))
    frames = [
        frame
        for end in range(1, len(octets))
        for frame in Conversation(42_000 + end, said=[*before, (side, octets[:end])]).tcp()
    ]
    messages = assert_all_is_well(write(tmp_path / "cut.pcap", frames), "-2")
    for end in range(1, len(octets)):
        found = [message for message in messages if message.client_port == 42_000 + end]
        listed = layer == "features" and end > len(octets) - 3  # FF is END enough where the stream ends
        assert len(found) == len(before) + listed
