"""10,000 associations on one control channel, and 5,000 of RFC 1928 with a connection each."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.netns.client import RECEIVE, SEND, UNICAST, RawClient
from tests.netns.lab import CLIENT, REMOTE, Lab, wait_for
from tests.netns.relay import RelayProcess
from tests.netns.socks_client import RULES, Associate

COUNT = 10_000
FIRST_PORT = 20_000
ASSOCIATES = 5_000
AT_ONCE = 100
WARMING = 5_000  # more than any cache of addresses holds
MARGIN_OCTETS = 2 << 20  # the allocator's: 400 octets an association, less than the smallest leak of one would be
WINDOW = 50  # datagrams under way at once: no queue of a default size overflows

_REQUEST = struct.Struct("!BHBHBHIB4sHB4sH")
_REPLY_OCTETS = 27


def resident_octets(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def descriptors(process: int) -> int:
    return len(os.listdir(f"/proc/{process}/fd"))


def address(text: str) -> bytes:
    return bytes(int(part) for part in text.split("."))


def test_ten_thousand_associations_on_one_channel(
    lab: Lab, start_relay: Callable[..., RelayProcess], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each opened, used both ways, and closed with the channel; what one costs is printed."""
    relay = start_relay(limits=f"associations = {COUNT}\nassociations_per_user = {COUNT}")
    with RawClient(lab.client) as client:
        client.release(client.associate((REMOTE[4], 5000)))  # the first brings code and buffers with it
        memory, files = resident_octets(relay.pid), descriptors(relay.pid)
        aids = open_associations(client)
        assert len(set(aids)) == COUNT
        memory, files = resident_octets(relay.pid) - memory, descriptors(relay.pid) - files
        assert files <= 1, "the client's one outside socket"

        for start in range(0, COUNT, WINDOW):
            batch = aids[start : start + WINDOW]
            with ExitStack() as stack:
                remotes = [
                    stack.enter_context(lab.outside.udp(REMOTE[4], FIRST_PORT + start + each)) for each in range(WINDOW)
                ]
                for aid in batch:
                    client.send(aid, struct.pack("!I", aid))
                for aid, remote in zip(batch, remotes, strict=True):
                    data, source = remote.recvfrom(100)
                    assert data == struct.pack("!I", aid)
                    remote.sendto(b"answer to " + data, source)
            answers = dict(client.receive() for _ in batch)
            assert answers == {aid: b"answer to " + struct.pack("!I", aid) for aid in batch}
    wait_for("all to be released", lambda: relay.counters()["associations"] == 0)
    counters = relay.counters()
    assert counters["sent_outside"] == COUNT
    assert counters["sent_inside"] == COUNT
    assert counters["udp_sockets"] == 2
    with capsys.disabled():
        print(f"\n{COUNT} associations: {memory / COUNT:.0f} octets and {files / COUNT:.4f} descriptors each")


def test_five_thousand_udp_associates_leave_nothing_behind(
    lab: Lab, start_relay: Callable[..., RelayProcess], capsys: pytest.CaptureFixture[str]
) -> None:
    """A hundred at a time, every other one learnt by its first datagram, each used both ways."""
    relay = start_relay(rules=RULES)
    with lab.outside.udp(REMOTE[4]) as remote:
        for _ in range(WARMING // AT_ONCE):  # the first bring code, buffers and caches with them
            use_associates(lab, remote)
        wait_for("the first to be gone", lambda: relay.counters()["connections"] == 0)
        memory, files = resident_octets(relay.pid), descriptors(relay.pid)
        for _ in range(ASSOCIATES // AT_ONCE):
            use_associates(lab, remote)
        wait_for("the last to be gone", lambda: relay.counters()["connections"] == 0)
        grown = resident_octets(relay.pid) - memory
        assert descriptors(relay.pid) == files
        assert grown < MARGIN_OCTETS
    counters = relay.counters()
    assert counters["udp_sockets"] == 2
    assert counters["sent_outside"] == counters["sent_inside"] == WARMING + ASSOCIATES
    with capsys.disabled():
        print(f"\n{ASSOCIATES} UDP ASSOCIATEs: {grown:+} octets afterwards")


def use_associates(lab: Lab, remote: socket.socket) -> None:
    with ExitStack() as stack:
        associates = [
            stack.enter_context(Associate(lab.client, announced=None if index % 2 else ("0.0.0.0", 0)))
            for index in range(AT_ONCE)
        ]
        for index, associate in enumerate(associates):
            associate.send(remote.getsockname(), index.to_bytes(2))
            data, source = remote.recvfrom(100)
            remote.sendto(data, source)
            assert associate.receive() == (remote.getsockname(), index.to_bytes(2))


def open_associations(client: RawClient) -> list[int]:
    """AIDs in the order of their remotes' ports. Requests and replies flow at once, as a real client would."""
    local = address(CLIENT[4]), client.local[1]
    requests = b"".join(
        _REQUEST.pack(1, 27, 5, RECEIVE | SEND | UNICAST, 0, index, 0, 1, *local, 1, address(REMOTE[4]), port)
        for index, port in enumerate(range(FIRST_PORT, FIRST_PORT + COUNT))
    )
    writer = threading.Thread(target=client.tcp.sendall, args=(requests,))
    writer.start()
    replies = client.read(_REPLY_OCTETS * COUNT)
    writer.join()
    aids = [0] * COUNT
    for offset in range(0, len(replies), _REPLY_OCTETS):
        kind, size, code, _, _, tid, aid = struct.unpack_from("!BHBHBHI", replies, offset)
        assert (kind, size, code) == (2, _REPLY_OCTETS, 0)
        aids[tid] = aid
    return aids
