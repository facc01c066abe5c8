"""Continuity of an MPEG transport stream, ISO/IEC 13818-1, 2.4.3.3."""

from __future__ import annotations

PACKET = 188
NULL_PID = 0x1FFF


def continuity_errors(stream: bytes) -> list[str]:
    """Where a counter is not the one that has to follow; the first packet of a PID may have any."""
    assert len(stream) % PACKET == 0, f"{len(stream)} octets are not whole packets"
    errors = []
    last: dict[int, int] = {}
    for offset in range(0, len(stream), PACKET):
        packet = stream[offset : offset + PACKET]
        assert packet[0] == 0x47, f"no sync byte at {offset}"
        pid = int.from_bytes(packet[1:3]) & 0x1FFF
        has_payload, has_adaptation, counter = packet[3] & 0x10, packet[3] & 0x20, packet[3] & 0x0F
        if pid == NULL_PID:
            continue
        starts_anew = bool(has_adaptation and packet[4] and packet[5] & 0x80)
        if pid in last and not starts_anew:
            expected = (last[pid] + 1) % 16 if has_payload else last[pid]
            if counter != expected:
                errors.append(f"PID {pid:#x} at {offset}: {counter} instead of {expected}")
        last[pid] = counter
    return errors


def pids(stream: bytes) -> set[int]:
    return {int.from_bytes(stream[at + 1 : at + 3]) & 0x1FFF for at in range(0, len(stream), PACKET)}
