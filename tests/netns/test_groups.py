"""MU-mode groups across the border: what really crosses, on both wires.

client ── "in" ── relay ── "out" ── outside
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest
from scapy.contrib.igmpv3 import IGMPv3gr, IGMPv3mr
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6MLDMultAddrRec, ICMPv6MLReport2, IPv6

from tests import scapy_layers as layers
from tests.netns.client import BOTH, MULTICAST, RECEIVE, SEND, RawClient
from tests.netns.lab import BORDER, GROUP, INSIDE, PORT, REMOTE, SECOND, Capture, Lab, wait_for
from tests.netns.relay import RelayProcess

both_versions = pytest.mark.parametrize("version", [4, 6])
TO_EXCLUDE, TO_INCLUDE = 4, 3  # record types of IGMPv3 and MLDv2 that join and leave without sources


def outside_sender(lab: Lab, version: int, address: str | None = None) -> socket.socket:
    """A socket outside that sends to groups by "out", from the remote's address or another one."""
    with lab.outside.entered():
        index = socket.if_nametoindex("out")
    sock = lab.outside.udp(address or REMOTE[version])
    if version == 4:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", b"", b"", index))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 4)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 4)
    return sock


def reports(group: str, record_type: int) -> Any:
    """Picks IGMPv3 and MLDv2 reports that carry a record of that type for a group."""

    def wanted(packet: Any) -> bool:
        if IGMPv3mr in packet:
            return any(record.maddr == group and record.rtype == record_type for record in packet[IGMPv3mr].records)
        if ICMPv6MLReport2 in packet:
            records: list[ICMPv6MLDMultAddrRec] = packet[ICMPv6MLReport2].records
            return any(record.dst == group and record.rtype == record_type for record in records)
        return False

    return wanted


def udp_to(address: str, port: int) -> Any:
    def wanted(packet: Any) -> bool:
        network = packet.getlayer(IP) or packet.getlayer(IPv6)
        return UDP in packet and network.dst == address and packet[UDP].dport == port

    return wanted


def assert_checksum_is_right(packet: Any) -> None:
    network = packet.getlayer(IP) or packet.getlayer(IPv6)
    claimed = packet[UDP].chksum
    again = network.copy()
    del again[UDP].chksum
    assert network.__class__(bytes(again))[UDP].chksum == claimed


def test_igmpv3_records_are_dissected_as_these_tests_expect() -> None:
    """scapy keeps the records of a report in a list of IGMPv3gr; a report that is not one is not picked."""
    report = IP(dst="224.0.0.22") / IGMPv3mr(numgrp=1, records=[IGMPv3gr(rtype=TO_EXCLUDE, maddr="239.1.1.1")])
    assert reports("239.1.1.1", TO_EXCLUDE)(report)
    assert not reports("239.1.1.1", TO_INCLUDE)(report)
    assert not reports("239.1.1.2", TO_EXCLUDE)(report)


@both_versions
def test_a_group_outside_reaches_the_client_inside(lab: Lab, relay: RelayProcess, version: int) -> None:
    group = (GROUP[version], 5004)
    with (
        Capture(lab.relay, "in") as inside,
        Capture(lab.outside, "out") as outside,
        RawClient(lab.client, version=version) as client,
        outside_sender(lab, version) as sender,
    ):
        reply = client.bind(RECEIVE | MULTICAST, group)
        assert reply.LOCAL.pair == (INSIDE[version], PORT)
        assert reply.REMOTE.pair == group
        assert int(reply.FLAGS) == RECEIVE | MULTICAST | 0x20, "MU-mode was chosen"
        assert lab.relay.memberships(version, "out")[group[0]] == 1
        outside.wait_for("a report that joins", reports(group[0], TO_EXCLUDE))
        sender.sendto(b"from outside", group)
        assert client.receive() == (reply.AID, b"from outside")

        [crossed] = inside.wait_for("the copy", udp_to(client.local[0], client.local[1]))
        datagram = layers.Datagram(bytes(crossed[UDP].payload))
        assert bytes(crossed[UDP].payload)[:8] == struct.pack("!BBHI", 0, 0, 0, reply.AID)
        assert bytes(datagram.DATA) == b"from outside"
        network = crossed.getlayer(IP) or crossed.getlayer(IPv6)
        assert (network.src, crossed[UDP].sport) == (INSIDE[version], PORT)
        assert_checksum_is_right(crossed)
        assert client.release(reply.AID, RECEIVE) == 0
        outside.wait_for("a report that leaves", reports(group[0], TO_INCLUDE))
        assert group[0] not in lab.relay.memberships(version, "out")
        assert not inside.packets(udp_to(*group)), "nothing is multicast inside in MU-mode"


@both_versions
def test_what_a_client_sends_reaches_the_group_outside_with_its_ttl(
    lab: Lab, relay: RelayProcess, version: int
) -> None:
    group = (GROUP[version], 5006)
    with Capture(lab.outside, "out") as outside, RawClient(lab.client, version=version) as client:
        reply = client.bind(SEND | MULTICAST, group, ttl=7)
        assert int(reply.FLAGS) == SEND | MULTICAST | 0x20, "MU-mode was chosen"
        aid = int(reply.AID)
        client.send(aid, b"seven hops")
        [packet] = outside.wait_for("the datagram", udp_to(*group))
        network = packet.getlayer(IP) or packet.getlayer(IPv6)
        assert bytes(packet[UDP].payload) == b"seven hops", "no header outside"
        assert network.src == BORDER[version]
        assert (network.ttl if version == 4 else network.hlim) == 7
        assert_checksum_is_right(packet)

        assert client.request(7, aid=aid, ttl=16).REPLY == 0
        client.send(aid, b"sixteen")
        packets = outside.wait_for("the second datagram", udp_to(*group), count=2)
        network = packets[1].getlayer(IP) or packets[1].getlayer(IPv6)
        assert (network.ttl if version == 4 else network.hlim) == 16
        assert group[0] not in lab.relay.memberships(version, "out"), "a sender joins nothing"


def test_each_sender_of_a_group_has_its_own_ttl(lab: Lab, relay: RelayProcess) -> None:
    group = (GROUP[4], 5008)
    with (
        Capture(lab.outside, "out") as outside,
        RawClient(lab.client) as near,
        RawClient(lab.client, address=SECOND[4]) as far,
    ):
        aids = near.send_to_group(group, ttl=2), far.send_to_group(group, ttl=12)
        for _ in range(3):
            near.send(aids[0], b"near")
            far.send(aids[1], b"far")
        packets = outside.wait_for("all six", udp_to(*group), count=6)
        hops = {(bytes(packet[UDP].payload), packet[IP].ttl) for packet in packets}
        assert hops == {(b"near", 2), (b"far", 12)}


@both_versions
def test_second_receiver_keeps_one_kernel_membership(lab: Lab, relay: RelayProcess, version: int) -> None:
    group = (GROUP[version], 5010)
    with (
        Capture(lab.outside, "out") as outside,
        RawClient(lab.client, version=version) as first,
        RawClient(lab.client, "bob", address=SECOND[version], version=version) as second,
        outside_sender(lab, version) as sender,
    ):
        aids = first.join(group), second.join(group)
        assert lab.relay.memberships(version, "out")[group[0]] == 1
        sender.sendto(b"to both", group)
        assert first.receive() == (aids[0], b"to both")
        assert second.receive() == (aids[1], b"to both")
        assert first.release(aids[0], RECEIVE) == 0
        assert lab.relay.memberships(version, "out")[group[0]] == 1
        sender.sendto(b"to one", group)
        assert second.receive() == (aids[1], b"to one")
        assert not outside.packets(reports(group[0], TO_INCLUDE)), "nobody has left yet"
        assert second.release(aids[1], RECEIVE) == 0
        outside.wait_for("a report that leaves", reports(group[0], TO_INCLUDE))
        assert first.receives_nothing()


@both_versions
def test_a_clients_datagram_is_copied_to_the_other_receivers_but_not_to_itself(
    lab: Lab, relay: RelayProcess, version: int
) -> None:
    group = (GROUP[version], 5012)
    with (
        RawClient(lab.client, version=version) as talker,
        RawClient(lab.client, "bob", address=SECOND[version], version=version) as listener,
        outside_sender(lab, version) as sender,
    ):
        aid = int(talker.bind(BOTH | MULTICAST, group, ttl=3).AID)
        heard = listener.join(group)
        talker.send(aid, b"hello all")
        assert listener.receive() == (heard, b"hello all")
        sender.sendto(b"later", group)  # comes after whatever the relay would wrongly give back
        assert talker.receive() == (aid, b"later")
        assert listener.receive() == (heard, b"later")
        assert talker.receives_nothing()
        assert listener.receives_nothing(), "heard once, not a second time by loopback of multicast"
    assert relay.drops().get("own-datagram") == 1


@both_versions
def test_the_same_group_on_another_port_never_reaches_a_client(lab: Lab, relay: RelayProcess, version: int) -> None:
    with (
        RawClient(lab.client, version=version) as client,
        RawClient(lab.client, "bob", address=SECOND[version], version=version) as other,
        outside_sender(lab, version) as sender,
    ):
        wanted, others = (GROUP[version], 5014), (GROUP[version], 5016)
        aid, other_aid = client.join(wanted), other.join(others)
        talker = client.send_to_group(others)
        sender.sendto(b"other port", others)
        client.send(talker, b"other port, from inside")
        assert [other.receive()[1] for _ in range(2)] == [b"other port", b"other port, from inside"]
        sender.sendto(b"right port", wanted)
        assert client.receive() == (aid, b"right port")
        assert client.receives_nothing()
        assert other_aid != aid


def test_unicast_to_a_groups_port_is_not_taken_for_the_group(lab: Lab, relay: RelayProcess) -> None:
    group = (GROUP[4], 5018)
    with RawClient(lab.client) as client, outside_sender(lab, 4) as sender:
        aid = client.join(group)
        sender.sendto(b"unicast to the border", (BORDER[4], group[1]))
        sender.sendto(b"to the group", group)
        assert client.receive() == (aid, b"to the group")
        assert client.receives_nothing()


def test_an_ipv4_client_receives_and_sends_to_an_ipv6_group(lab: Lab, relay: RelayProcess) -> None:
    group = (GROUP[6], 5020)
    with (
        RawClient(lab.client, version=4) as client,
        outside_sender(lab, 6) as sender,
        Capture(lab.outside, "out") as outside,
    ):
        aid = int(client.bind(BOTH | MULTICAST, group, ttl=5).AID)
        sender.sendto(b"six to four", group)
        assert client.receive() == (aid, b"six to four")
        client.send(aid, b"four to six")
        packets = outside.wait_for("the datagram", udp_to(*group), count=2)
        assert (packets[-1][IPv6].src, packets[-1][IPv6].hlim) == (BORDER[6], 5)


def test_empty_and_largest_datagrams_cross(lab: Lab, relay: RelayProcess) -> None:
    group = (GROUP[4], 5022)
    with RawClient(lab.client) as client, outside_sender(lab, 4) as sender:
        aid = client.join(group)
        for data in (b"", bytes(65_507 - 8)):
            sender.sendto(data, group)
            assert client.receive() == (aid, data)
        sender.sendto(bytes(65_507), group)  # with our header it fits in no datagram
        pieces = [layers.Datagram(client.udp.recv(70_000)) for _ in range(2)]
        assert [(piece.FRAG, len(bytes(piece.DATA))) for piece in pieces] == [(0x01, 65_499), (0x82, 8)]


def test_a_direction_added_to_a_receiver_sends(lab: Lab, relay: RelayProcess) -> None:
    group = (GROUP[4], 5024)
    with RawClient(lab.client) as client, Capture(lab.outside, "out") as outside:
        aid = client.join(group)
        client.send(aid, b"too early")
        wait_for("the drop", lambda: relay.drops().get("no-send-direction") == 1)
        assert int(client.bind(SEND | MULTICAST, group, aid=aid, ttl=2).AID) == aid
        client.send(aid, b"in time")
        [packet] = outside.wait_for("the datagram", udp_to(*group))
        assert bytes(packet[UDP].payload) == b"in time"
        assert lab.relay.memberships(4, "out")[group[0]] == 1
        assert client.release(aid, SEND) == 0, "it is known to be held"


@both_versions
def test_only_rtp_and_rtcp_cross_where_the_rule_says_so(
    lab: Lab, start_relay: Callable[..., RelayProcess], version: int
) -> None:
    relay = start_relay(rules='[[rules]]\nname = "media"\nallow = true\nrequire = "rtp"\n')
    group = (GROUP[version], 5970)
    rtp, rtcp = bytes.fromhex("8060 1234 00000001 deadbeef"), bytes.fromhex("80c9 0001 deadbeef")
    with (
        outside_sender(lab, version) as sender,
        Capture(lab.outside, "out") as outside,
        RawClient(lab.client, version=version) as client,
    ):
        aid = int(client.bind(BOTH | MULTICAST, group, ttl=3).AID)
        for data in (b"a worm", rtp, rtcp):
            sender.sendto(data, group)
            client.send(aid, data)
        assert [client.receive(), client.receive()] == [(aid, rtp), (aid, rtcp)]
        layer, wanted = (IP, IPv6)[version == 6], udp_to(*group)
        sent = outside.wait_for(
            "what the client sent", lambda packet: wanted(packet) and packet[layer].src == BORDER[version], count=2
        )
        assert [bytes(packet["UDP"].payload) for packet in sent] == [rtp, rtcp]
        wait_for("the drops", lambda: relay.drops().get("not-rtp") == 2)
