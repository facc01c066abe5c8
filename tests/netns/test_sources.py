"""Source filters, as the kernel's own reports show them outside; original senders; reasons."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from scapy.contrib.igmpv3 import IGMPv3mr
from scapy.layers.inet6 import ICMPv6MLReport2

from tests import scapy_layers as layers
from tests.netns.client import MULTICAST, RECEIVE, SEND, RawClient, Refused
from tests.netns.lab import GROUP, REMOTE, STRANGER, Capture, Lab, wait_for
from tests.netns.relay import RelayProcess
from tests.netns.test_groups import both_versions, outside_sender

REPORT_SOURCE, EXTENDED = 0x0100, 0x8000
INCLUDE, EXCLUDE = 1, 2


def filtered(client: RawClient, group: tuple[str, int], *sources: str, kind: int = INCLUDE, **options: Any) -> Any:
    """The reply to a receive BIND with a source filter."""
    value = bytes(layers.SourceList(ATYP=4 if ":" in group[0] else 1, ADDRS=list(sources)))
    flags = RECEIVE | MULTICAST | EXTENDED | options.pop("flags", 0)
    return client.request(
        5, flags, LOCAL=client.local, REMOTE=group, OPTIONS=[layers.Option(TYPE=kind, VALUE=value)], **options
    )


def sources_reported(group: str) -> Any:
    """Picks reports that name sources of a group."""

    def wanted(packet: Any) -> bool:
        if IGMPv3mr in packet:
            return any(record.maddr == group and record.srcaddrs for record in packet[IGMPv3mr].records)
        if ICMPv6MLReport2 in packet:
            return any(record.dst == group and record.sources for record in packet[ICMPv6MLReport2].records)
        return False

    return wanted


@both_versions
def test_only_the_sources_asked_for_come_and_the_network_knows(lab: Lab, relay: RelayProcess, version: int) -> None:
    group = ({4: "232.77.1.2", 6: "ff35::77:1"}[version], 5700)
    with (
        Capture(lab.outside, "out") as outside,
        RawClient(lab.client, version=version) as client,
        outside_sender(lab, version) as sender,
        outside_sender(lab, version, STRANGER[version]) as stranger,
    ):
        reply = filtered(client, group, REMOTE[version])
        assert reply.REPLY == 0, bytes(reply)
        [report, *_] = outside.wait_for("a report with its source", sources_reported(group[0]))
        records = report[IGMPv3mr].records if version == 4 else report[ICMPv6MLReport2].records
        assert [
            list(record.srcaddrs if version == 4 else record.sources) for record in records if record.rtype in (1, 5)
        ] == [[REMOTE[version]]]
        stranger.sendto(b"unwanted", group)
        sender.sendto(b"wanted", group)
        assert client.receive() == (reply.AID, b"wanted")
        assert relay.counters()["received_outside"] == 1, "the kernel kept the other one out"


@both_versions
def test_each_client_of_a_group_gets_its_own_sources(lab: Lab, relay: RelayProcess, version: int) -> None:
    group = (GROUP[version], 5702)
    with (
        RawClient(lab.client, version=version) as one,
        RawClient(lab.client, version=version) as other,
        outside_sender(lab, version) as sender,
        outside_sender(lab, version, STRANGER[version]) as stranger,
    ):
        only = filtered(one, group, REMOTE[version]).AID
        but = filtered(other, group, REMOTE[version], kind=EXCLUDE).AID
        assert lab.relay.memberships(version, "out")[group[0]] == 1
        sender.sendto(b"remote", group)
        stranger.sendto(b"stranger", group)
        assert one.receive() == (only, b"remote")
        assert other.receive() == (but, b"stranger")
        assert filtered(one, group, REMOTE[version], STRANGER[version], aid=only).REPLY == 0
        stranger.sendto(b"now both", group)
        assert one.receive() == (only, b"now both")
        assert other.receive() == (but, b"now both")
        assert one.receives_nothing()
        assert other.receives_nothing()


def test_more_sources_than_the_kernel_takes_on_a_socket(lab: Lab, relay: RelayProcess) -> None:
    group = ("232.77.1.3", 5704)
    with RawClient(lab.client) as client, outside_sender(lab, 4) as sender:
        others = [f"10.77.2.{number}" for number in range(100, 140)]
        reply = filtered(client, group, *others, REMOTE[4])
        assert reply.REPLY == 0
        assert lab.relay.memberships(4, "out")[group[0]] == 5, "41 sources, 10 on a socket"
        sender.sendto(b"the 41st", group)
        assert client.receive() == (reply.AID, b"the 41st")


@pytest.mark.parametrize("group", ["232.1.1.1", "ff35::1"])
def test_a_source_specific_group_insists_on_sources(lab: Lab, relay: RelayProcess, group: str) -> None:
    version = 6 if ":" in group else 4
    with RawClient(lab.client, version=version) as client:
        with pytest.raises(Refused) as refused:
            client.join((group, 5706))
        assert refused.value.code == 0x14
        assert filtered(client, (group, 5706), REMOTE[version], kind=EXCLUDE).REPLY == 0x14
        assert filtered(client, (group, 5706), REMOTE[version]).REPLY == 0x00
        assert client.send_to_group((group, 5706)), "sending needs none"


@both_versions
def test_the_original_sender_stands_before_the_data(lab: Lab, relay: RelayProcess, version: int) -> None:
    group = (GROUP[version], 5708)
    with RawClient(lab.client, version=version) as client, outside_sender(lab, version) as sender:
        reply = client.bind(RECEIVE | MULTICAST | REPORT_SOURCE, group)
        assert int(reply.FLAGS) & REPORT_SOURCE
        sender.sendto(b"news", group)
        datagram = layers.Datagram(client.udp.recv(2000))
        assert (int(datagram.RSV), datagram.AID, bytes(datagram.DATA)) == (1, reply.AID, b"news")
        assert datagram.SOURCE.pair == (REMOTE[version], sender.getsockname()[1])


def test_a_refusal_gives_its_reason_to_whoever_understands(lab: Lab, relay: RelayProcess) -> None:
    with RawClient(lab.client) as client:
        reply = client.request(5, SEND | MULTICAST | EXTENDED, ttl=99, LOCAL=client.local, REMOTE=(GROUP[4], 5710))
        assert reply.REPLY == 0x15
        [option] = reply.OPTIONS
        assert (option.TYPE, b"above 16" in option.VALUE) == (5, True)


def test_a_group_port_that_another_program_holds_is_refused_with_the_reason(lab: Lab, relay: RelayProcess) -> None:
    with RawClient(lab.client) as client, lab.relay.udp("0.0.0.0", 5712):
        reply = client.request(5, RECEIVE | MULTICAST | EXTENDED, LOCAL=client.local, REMOTE=(GROUP[4], 5712))
        assert reply.REPLY == 0x01
        assert b"another program holds this group's port" in reply.OPTIONS[0].VALUE
        assert client.join((GROUP[4], 5713))


def test_a_kernel_limit_is_named(lab: Lab, relay: RelayProcess) -> None:
    lab.relay.write("/proc/sys/net/ipv4/igmp_max_memberships", "0")
    try:
        with RawClient(lab.client) as client:
            reply = client.request(5, RECEIVE | MULTICAST | EXTENDED, LOCAL=client.local, REMOTE=(GROUP[4], 5714))
            assert reply.REPLY == 0x01
            assert b"net.ipv4.igmp_max_memberships" in reply.OPTIONS[0].VALUE
    finally:
        lab.relay.write("/proc/sys/net/ipv4/igmp_max_memberships", "20")


def test_a_filter_that_changes_under_traffic_loses_nothing_that_stays_wanted(lab: Lab, relay: RelayProcess) -> None:
    group = (GROUP[4], 5716)
    with RawClient(lab.client) as client, outside_sender(lab, 4) as sender:
        aid = filtered(client, group, REMOTE[4]).AID
        others = [f"10.77.2.{number}" for number in range(100, 125)]
        for number in range(60):
            sources = [REMOTE[4], *others[: number % 25]]
            sender.sendto(struct.pack("!H", number), group)
            assert filtered(client, group, *sources, aid=aid).REPLY == 0
        assert [client.receive()[1] for _ in range(60)] == [struct.pack("!H", number) for number in range(60)]
        assert client.release(aid, RECEIVE) == 0
        wait_for("the group to be left", lambda: group[0] not in lab.relay.memberships(4, "out"))
