"""Captures of conversations that nobody had: what each side wrote, cut into segments, as a pcap."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Packet, Raw
from scapy.utils import wrpcap

CLIENT, RELAY = "192.0.2.10", "192.0.2.1"

Segments = list[tuple[str, bytes]]
"""Who wrote ("client" or "relay"), and the octets."""


def as_written(said: Segments) -> Segments:
    """One message a segment."""
    return said


def one_octet_each(said: Segments) -> Segments:
    return [(side, octets[at : at + 1]) for side, octets in said for at in range(len(octets))]


def joined(said: Segments) -> Segments:
    """All that the client wrote in one segment, as a client does that waits for nothing; then all of the relay."""
    ordered = sorted(said, key=lambda segment: segment[0])
    return [(side, b"".join(octets for _, octets in run)) for side, run in groupby(ordered, lambda each: each[0])]


def across_messages(said: Segments) -> Segments:
    """Cut every seven octets of what one side wrote: messages end and begin in the middle of segments."""
    return [
        (side, octets[at : at + 7])
        for side, run in groupby(said, lambda segment: segment[0])
        for octets in [b"".join(octets for _, octets in run)]
        for at in range(0, len(octets), 7)
    ]


CUTS: list[Callable[[Segments], Segments]] = [as_written, one_octet_each, joined, across_messages]


@dataclass
class Conversation:
    """A TCP connection, known by the client's port, or datagrams between two ports."""

    client_port: int
    relay_port: int = 1080
    said: Segments = field(default_factory=list)
    first_sequence: int = 1000

    def tcp(self, cut: Callable[[Segments], Segments] = as_written) -> list[Packet]:
        """The handshake and the segments, without acknowledgements of their own."""
        sequence = {"client": self.first_sequence, "relay": 2 * self.first_sequence}
        frames = [self._segment("client", sequence, "S"), self._segment("relay", sequence, "SA")]
        frames.append(self._segment("client", sequence, "A"))
        return frames + [self._segment(side, sequence, "PA", octets) for side, octets in cut(self.said)]

    def udp(self) -> list[Packet]:
        return [self._ends(side, UDP) / Raw(octets) for side, octets in self.said]

    def _segment(self, side: str, sequence: dict[str, int], flags: str, octets: bytes = b"") -> Packet:
        other = "relay" if side == "client" else "client"
        frame = self._ends(side, TCP)
        frame[TCP].flags, frame[TCP].seq = flags, sequence[side]
        frame[TCP].ack = sequence[other] if "A" in flags else 0
        sequence[side] += len(octets) + ("S" in flags)
        return frame / Raw(octets) if octets else frame

    def _ends(self, side: str, kind: type[Packet]) -> Packet:
        if side == "client":
            return IP(src=CLIENT, dst=RELAY) / kind(sport=self.client_port, dport=self.relay_port)
        return IP(src=RELAY, dst=CLIENT) / kind(sport=self.relay_port, dport=self.client_port)


def write(path: Path, frames: Iterable[Packet]) -> Path:
    """A millisecond between frames."""
    stamped = list(frames)
    for number, frame in enumerate(stamped):
        frame.time = 1_000_000_000 + number / 1000
    wrpcap(str(path), stamped)
    return path
