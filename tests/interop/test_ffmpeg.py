"""FFmpeg sends MPEG-TS to a group outside; `mcastsocks join` inside feeds a file, ffprobe and a player."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP

from tests.interop.program import Program, joined, needs, program, wait_until_listening
from tests.interop.transport_stream import PACKET, continuity_errors, pids
from tests.netns.lab import REMOTE, Capture, Lab, wait_for
from tests.netns.relay import RelayProcess
from tests.netns.test_groups import outside_sender, udp_to

pytestmark = needs(ffmpeg="ffmpeg", ffprobe="ffmpeg")

QUIET = ("ffmpeg", "-nostdin", "-hide_banner", "-loglevel", "warning")
SECONDS, FRAMES_A_SECOND = 3, 25
DATAGRAM = 7 * PACKET
MARK = ("239.77.9.99", 5998)


def stream_to(group: tuple[str, int]) -> tuple[str, ...]:
    """A test picture and a tone, at the pace of a broadcast."""
    return (
        *QUIET,
        *("-re", "-f", "lavfi", "-i", f"testsrc=size=320x240:rate={FRAMES_A_SECOND}"),
        *("-re", "-f", "lavfi", "-i", "sine=frequency=440"),
        *("-t", str(SECONDS), "-c:v", "mpeg2video", "-c:a", "mp2"),
        *("-f", "mpegts", f"udp://{group[0]}:{group[1]}?pkt_size={DATAGRAM}&localaddr={REMOTE[4]}&ttl=4"),
    )


def assert_ended_well(ffmpeg: Program) -> None:
    code = ffmpeg.finish()
    assert (code, ffmpeg.said) == (0, ""), "it warns of nothing"


@pytest.mark.parametrize("options", [(), ("--over-tcp",)], ids=["by-udp", "over-tcp"])
def test_a_transport_stream_arrives_whole(
    lab: Lab, relay: RelayProcess, tmp_path: Path, options: tuple[str, ...]
) -> None:
    group, file = ("239.77.9.9", 5004), tmp_path / "received.ts"
    with (
        Capture(lab.outside, "out") as outside,
        file.open("wb") as output,
        joined(lab.client, group, *options, output=output) as join,
    ):
        with program(lab.outside, *stream_to(group)) as ffmpeg:
            assert_ended_well(ffmpeg)
        with outside_sender(lab, 4) as marker:  # behind all of it
            marker.sendto(b"end", MARK)
        outside.wait_for("the mark", udp_to(*MARK))
        packets = outside.packets(udp_to(*group))
        sent = [bytes(packet[UDP].payload) for packet in packets]
        octets = sum(map(len, sent))
        wait_for("all of it in the file", lambda: file.stat().st_size >= octets)
        assert join.stop() == 0
        assert f"{len(sent)} datagrams, {octets} octets" in join.said

    stream = file.read_bytes()
    assert {packet[IP].ttl for packet in packets} == {4}
    assert stream == b"".join(sent)
    assert continuity_errors(stream) == []
    assert len(pids(stream)) == 5, "tables of three kinds, picture, sound"
    assert relay.drops() == {}
    probe = lab.client.run(
        *("ffprobe", "-v", "warning", "-show_format", "-show_streams", "-count_frames", "-of", "json", str(file))
    )
    assert probe.stderr == b""
    found = json.loads(probe.stdout)
    assert (found["format"]["format_name"], found["format"]["nb_streams"]) == ("mpegts", 2)
    kinds = {each["codec_type"]: each for each in found["streams"]}
    assert {kind: each["codec_name"] for kind, each in kinds.items()} == {"video": "mpeg2video", "audio": "mp2"}
    assert int(kinds["video"]["nb_read_frames"]) == SECONDS * FRAMES_A_SECOND

    lossy = stream[: 40 * PACKET] + stream[40 * PACKET + DATAGRAM :]
    assert continuity_errors(lossy), "one datagram less would have been noticed"


def test_a_player_inside_decodes_what_join_hands_on(lab: Lab, relay: RelayProcess) -> None:
    group, player_port, frames = ("239.77.9.9", 5006), 5106, 2 * FRAMES_A_SECOND
    play = (
        *(*QUIET, "-xerror", "-err_detect", "explode", "-analyzeduration", "500000"),
        *("-i", f"udp://127.0.0.1:{player_port}?timeout=8000000"),
        *("-map", "0", "-frames:v", str(frames), "-progress", "pipe:1", "-f", "null", "-"),
    )
    with program(lab.client, *play) as player:
        wait_until_listening(lab.client, "0.0.0.0", player_port)
        with (
            joined(lab.client, group, "--to", f"udp://127.0.0.1:{player_port}"),
            program(lab.outside, *stream_to(group)) as ffmpeg,
        ):
            assert player.finish() == 0, player.said
            assert_ended_well(ffmpeg)
    assert f"frame={frames}\n" in player.said
    assert "progress=end" in player.said
    assert relay.drops() == {}
