"""multicat sends a file as RTP and writes what it receives to another; the two have to be the same."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

from tests.interop.crossing import RULES, both_ways, datagrams_crossed, open_group
from tests.interop.program import joined, needs, program, wait_until_listening
from tests.interop.transport_stream import PACKET
from tests.netns.client import RawClient
from tests.netns.lab import REMOTE, Lab, wait_for
from tests.netns.relay import RelayProcess

pytestmark = needs(multicat="multicat")

CHUNK = 7 * PACKET
COUNT = 100
PACE_MS = 5


def recording(folder: Path) -> Path:
    """Numbered null packets, and the times at which multicat is to send each chunk."""
    file = folder / "sent.ts"
    packets = (struct.pack("!4sI180x", bytes.fromhex("471fff10"), number) for number in range(COUNT * CHUNK // PACKET))
    file.write_bytes(b"".join(packets))
    file.with_suffix(".aux").write_bytes(b"".join(struct.pack("!Q", n * PACE_MS * 27_000) for n in range(COUNT)))
    return file


@both_ways
def test_a_file_crosses_in_mm_mode(
    lab: Lab, start_relay: Callable[..., RelayProcess], tmp_path: Path, way: str
) -> None:
    group, relay = ("239.77.9.12", 5404), start_relay(rules=RULES)
    sent, received = recording(tmp_path), tmp_path / "received.ts"
    with RawClient(lab.client) as client:
        sender, receiver = open_group(lab, client, group, way)
        listen = f"@{group[0]}:{group[1]}/ifaddr={receiver.address}"
        with program(receiver.host, "multicat", listen, str(received)) as listener:
            receiver.wait_for_member(group[0])
            talk = f"{group[0]}:{group[1]}@{sender.address}/ttl=4"
            with program(sender.host, "multicat", str(sent), talk) as talker:
                assert talker.finish() == 0, talker.said
            wait_for("all of the file", lambda: received.stat().st_size >= COUNT * CHUNK)
            assert "error" not in listener.said
    assert received.read_bytes() == sent.read_bytes()
    assert datagrams_crossed(relay.counters(), way) == (COUNT, COUNT)
    assert relay.drops() == {}


def test_join_hands_a_file_on_to_multicat(lab: Lab, relay: RelayProcess, tmp_path: Path) -> None:
    group, port = ("239.77.9.13", 5406), 5506
    sent, received = recording(tmp_path), tmp_path / "received.ts"
    with program(lab.client, "multicat", f"@127.0.0.1:{port}", str(received)) as listener:
        wait_until_listening(lab.client, "127.0.0.1", port)
        with joined(lab.client, group, "--to", f"udp://127.0.0.1:{port}") as join:
            with program(lab.outside, "multicat", str(sent), f"{group[0]}:{group[1]}@{REMOTE[4]}/ttl=4") as talker:
                assert talker.finish() == 0, talker.said
            wait_for("all of the file", lambda: received.stat().st_size >= COUNT * CHUNK)
            assert join.stop() == 0
            assert f"{COUNT} datagrams" in join.said
        assert "error" not in listener.said
    assert received.read_bytes() == sent.read_bytes()
    assert relay.drops() == {}
