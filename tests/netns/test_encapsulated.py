"""TCP-encapsulated datagrams: both ways, mixed with requests, and a client that does not read."""

from __future__ import annotations

import struct

import pytest

from tests import scapy_layers as layers
from tests.netns.client import BOTH, MULTICAST, RECEIVE, UNICAST, RawClient, Refused
from tests.netns.lab import GROUP, REMOTE, SECOND, Lab, wait_for
from tests.netns.relay import RelayProcess
from tests.netns.test_groups import outside_sender

TCP, REPORT_SOURCE = 0x08, 0x0100


def encapsulated(client: RawClient, flags: int, remote: tuple[str, int], ttl: int = 0) -> int:
    """The AID of a new association without LOCAL."""
    reply = client.request(5, flags | TCP, ttl=ttl, REMOTE=remote)
    if reply.REPLY:
        raise Refused(int(reply.REPLY), int(reply.FLAGS))
    return int(reply.AID)


def send(client: RawClient, aid: int, data: bytes) -> None:
    client.tcp.sendall(bytes(layers.EncapsulatedDatagram(AID=aid, DATA=data)))


def receive(client: RawClient) -> tuple[int, bytes]:
    head = client.read(3)
    assert head[0] == 3
    frame = layers.EncapsulatedDatagram(head + client.read(int.from_bytes(head[1:]) - 3))
    return frame.AID, bytes(frame.DATA)


def test_unicast_both_ways(lab: Lab, relay: RelayProcess) -> None:
    with RawClient(lab.client) as client, lab.outside.udp(REMOTE[4]) as remote:
        aid = encapsulated(client, BOTH, remote.getsockname())
        for data in (b"question", b"", bytes(65_507)):
            send(client, aid, data)
            got, source = remote.recvfrom(70_000)
            assert got == data
            remote.sendto(got, source)
            assert receive(client) == (aid, data)
        send(client, aid, bytes(65_508))  # no datagram by IPv4 carries that: silently dropped
        wait_for("the drop", lambda: relay.drops().get("too-large") == 1)


def test_groups_both_ways_beside_udp_receivers(lab: Lab, relay: RelayProcess) -> None:
    group = (GROUP[4], 5800)
    with (
        RawClient(lab.client) as client,
        RawClient(lab.client, "bob", address=SECOND[4]) as by_udp,
        outside_sender(lab, 4) as sender,
    ):
        aid = encapsulated(client, BOTH | MULTICAST, group, ttl=1)
        heard = by_udp.join(group)
        sender.sendto(b"news", group)
        assert receive(client) == (aid, b"news")
        assert by_udp.receive() == (heard, b"news")
        send(client, aid, b"views")
        assert by_udp.receive() == (heard, b"views")


def test_frames_requests_and_udp_associations_mix_on_one_channel(lab: Lab, relay: RelayProcess) -> None:
    with RawClient(lab.client) as client, lab.outside.udp(REMOTE[4]) as remote:
        host, port = remote.getsockname()
        framed, plain = encapsulated(client, BOTH, (host, port)), client.associate((host, port))
        frame = bytes(layers.EncapsulatedDatagram(AID=framed, DATA=b"frame"))
        release = bytes(layers.ControlRequest(UDPCMD=6, FLAGS=1, TID=900, AID=framed))
        client.tcp.sendall(frame + release + frame)
        assert client.read_reply().TID == 900
        client.send(plain, b"datagram")
        assert sorted(remote.recvfrom(99)[0] for _ in range(3)) == [b"datagram", b"frame", b"frame"]
        client.udp.sendto(bytes(layers.datagram(framed, b"by UDP")), client.relay)
        send(client, plain, b"by TCP")
        wait_for("the drops", lambda: relay.drops() == {"encapsulated": 1, "not-encapsulated": 1})


def test_the_original_sender_stands_in_the_frame(lab: Lab, relay: RelayProcess) -> None:
    group = (GROUP[4], 5802)
    with RawClient(lab.client) as client, outside_sender(lab, 4) as sender:
        aid = encapsulated(client, RECEIVE | MULTICAST | REPORT_SOURCE, group)
        sender.sendto(b"news", group)
        head = client.read(3)
        frame = layers.EncapsulatedWithSource(head + client.read(int.from_bytes(head[1:]) - 3))
        assert (frame.AID, bytes(frame.DATA)) == (aid, b"news")
        assert frame.SOURCE.pair == sender.getsockname()


@pytest.mark.parametrize("flags", [BOTH | UNICAST, RECEIVE | MULTICAST | 0x40])
def test_what_excludes_encapsulation_is_refused(lab: Lab, relay: RelayProcess, flags: int) -> None:
    with RawClient(lab.client) as client, pytest.raises(Refused) as refused:
        encapsulated(client, flags, (GROUP[4] if flags & MULTICAST else REMOTE[4], 5804))
    assert refused.value.code == 0x01


def test_a_slow_reader_loses_its_oldest_datagrams_but_no_reply(lab: Lab, relay: RelayProcess) -> None:
    group = (GROUP[4], 5806)
    with RawClient(lab.client) as client, outside_sender(lab, 4) as sender:
        aid = encapsulated(client, RECEIVE | MULTICAST, group)
        sent = 0
        while not relay.drops().get("slow-client"):
            for _ in range(100):
                sender.sendto(struct.pack("!I", sent) + bytes(1396), group)
                sent += 1
            assert relay.received_outside(sent)
            assert sent < 100_000
        client.tcp.sendall(bytes(layers.ControlRequest(UDPCMD=6, FLAGS=RECEIVE, TID=77, AID=aid)))
        numbers = []
        while (head := client.read(3))[0] == 3:
            body = client.read(int.from_bytes(head[1:]) - 3)
            numbers.append(struct.unpack_from("!I", body, 4)[0])
        reply = layers.ControlReply(head + client.read(int.from_bytes(head[1:]) - 3))
        assert (reply.TID, reply.REPLY) == (77, 0)
        while numbers[-1] != sent - 1:
            head = client.read(3)
            numbers.append(struct.unpack_from("!I", client.read(int.from_bytes(head[1:]) - 3), 4)[0])
        assert numbers == sorted(set(numbers))
        assert len(numbers) == sent - relay.drops()["slow-client"]
        assert numbers[0] == 0, "what was written already cannot be taken back"


def test_replies_that_are_not_read_stop_the_reading(lab: Lab, relay: RelayProcess) -> None:
    """The relay takes no more requests of a client that leaves its replies unread, and lives on."""
    with RawClient(lab.client) as client:
        request = bytes(layers.ControlRequest(UDPCMD=7, TID=1, AID=1)) * 1000
        client.tcp.settimeout(0.5)
        with pytest.raises(TimeoutError):
            client.tcp.sendall(request * 10_000)
        before = relay.counters()
        assert before["connections"] == 1
        with RawClient(lab.client, "bob", address=SECOND[4]) as other:
            assert other.join((GROUP[4], 5808))
