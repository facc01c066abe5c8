"""Several outsides, and what is kept of a datagram's marks.

                                        ┌── "out"  ── outside   10.77.2.0/24, fd77:2::/64
client ── "in" ── relay ────────────────┤
                                        └── "out2" ── annex     10.77.3.0/24, fd77:3::/64; it is 10.77.2.2 as well
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest
from pyroute2 import IPRoute
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6

from tests.netns.client import BOTH, MM, MULTICAST, RECEIVE, SEND, UNICAST, RawClient, Refused
from tests.netns.lab import ANNEX, ANNEX_BORDER, BORDER, GROUP, REMOTE, SECOND, Capture, Host, Lab
from tests.netns.relay import RelayProcess
from tests.netns.test_groups import both_versions, outside_sender, udp_to

TWO_OUTSIDES = 'name = "street"\n[[outside]]\nname = "annex"\ninterface = "out2"\n'
RULES = """
[[rules]]
name = "alice goes to the annex"
allow = true
users = ["alice"]
via = "annex"
[[rules]]
name = "bob talks in the annex and listens in the street"
allow = true
users = ["bob"]
do = ["send-group"]
via = "annex"
[[rules]]
name = "others go to the street"
allow = true
"""
MARKED = """
[[rules]]
name = "groups are marked"
allow = true
do = ["receive-group", "send-group"]
dscp = 10
[[rules]]
name = "the rest keeps its marks"
allow = true
"""
EXPEDITED, CONGESTED = 46 << 2, 3


@pytest.fixture
def annex(lab: Lab) -> Iterator[Host]:
    with lab.annex() as host:
        yield host


@pytest.fixture
def relay(annex: Host, start_relay: Callable[..., RelayProcess]) -> RelayProcess:
    return start_relay(rules=RULES, outside=TWO_OUTSIDES)


def annex_sender(annex: Host, version: int) -> socket.socket:
    sock = annex.udp(ANNEX[version])
    with annex.entered():
        index = socket.if_nametoindex("out2")
    if version == 4:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(ANNEX[4]))
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    return sock


@both_versions
def test_one_group_on_two_borders_is_two_groups(lab: Lab, annex: Host, relay: RelayProcess, version: int) -> None:
    group = (GROUP[version], 5960)
    with (
        RawClient(lab.client, version=version) as alice,
        RawClient(lab.client, "carol", version=version, address=SECOND[version]) as carol,
        outside_sender(lab, version) as street,
        annex_sender(annex, version) as talker,
    ):
        hers, his = alice.join(group), carol.join(group)
        assert lab.relay.memberships(version, "out")[group[0]] == 1
        assert lab.relay.memberships(version, "out2")[group[0]] == 1
        street.sendto(b"in the street", group)
        talker.sendto(b"in the annex", group)
        assert alice.receive() == (hers, b"in the annex")
        assert carol.receive() == (his, b"in the street")
        relay.received_outside(2)
        assert alice.receives_nothing()
        assert carol.receives_nothing()


@both_versions
def test_what_is_sent_leaves_by_the_rules_border_alone(
    lab: Lab, annex: Host, relay: RelayProcess, version: int
) -> None:
    group = (GROUP[version], 5961)
    layer = IP if version == 4 else IPv6
    with (
        Capture(lab.outside, "out") as street,
        Capture(annex, "out2") as courtyard,
        RawClient(lab.client, version=version) as alice,
        RawClient(lab.client, "carol", version=version, address=SECOND[version]) as carol,
    ):
        carol.join(group)
        alice.send(alice.send_to_group(group, ttl=3), b"to the annex")
        [packet] = courtyard.wait_for("the datagram", udp_to(*group))
        assert packet[layer].src == ANNEX_BORDER[version]
        carol.send(carol.send_to_group(group, ttl=3), b"to the street")
        [packet] = street.wait_for("the datagram", udp_to(*group))
        assert packet[layer].src == BORDER[version]
        assert bytes(packet["UDP"].payload) == b"to the street"
        assert carol.receives_nothing(), "a sender of another border is in another group"


@both_versions
def test_unicast_leaves_by_the_rules_border_whatever_the_routing_table_prefers(
    lab: Lab, annex: Host, relay: RelayProcess, version: int
) -> None:
    with RawClient(lab.client, version=version) as alice, annex.udp(REMOTE[version]) as remote:
        if version == 6:
            _route_to(lab.relay, REMOTE[6])
        aid = alice.associate(remote.getsockname()[:2])
        alice.send(aid, b"who are you?")
        data, source = remote.recvfrom(100)
        assert (data, source[0]) == (b"who are you?", ANNEX_BORDER[version])
        remote.sendto(b"the one in the annex", source)
        assert alice.receive() == (aid, b"the one in the annex")


def _route_to(relay: Host, address: str) -> None:
    """IPv6 has to be told what is on a link."""
    with relay.entered(), IPRoute() as route:
        index = route.link_lookup(ifname="out2")[0]
        route.route("add", dst=f"{address}/128", oif=index, metric=5000, family=socket.AF_INET6)


def test_directions_by_different_borders_need_two_associations(lab: Lab, relay: RelayProcess) -> None:
    group = (GROUP[4], 5962)
    with RawClient(lab.client, "bob") as bob:
        with pytest.raises(Refused) as refused:
            bob.bind(BOTH | MULTICAST, group, ttl=1)
        assert (refused.value.code, refused.value.flags) == (0x01, RECEIVE | MULTICAST)
        aid = bob.join(group)
        with pytest.raises(Refused) as refused:
            bob.bind(SEND | MULTICAST, group, aid=aid, ttl=1)
        assert refused.value.code == 0x01
        assert bob.send_to_group(group) != aid


def test_a_border_that_comes_back_gets_its_memberships_again_and_the_other_keeps_its_own(
    lab: Lab, annex: Host, relay: RelayProcess
) -> None:
    group = (GROUP[4], 5963)
    with RawClient(lab.client) as alice, RawClient(lab.client, "carol", address=SECOND[4]) as carol:
        hers, his = alice.join(group), carol.join(group)
        with annex.entered(), IPRoute() as route:
            route.link("del", index=route.link_lookup(ifname="out2")[0])
        relay.wait_for_record("outside-lost", interface="annex")
        with outside_sender(lab, 4) as street:
            street.sendto(b"all the same", group)
            assert carol.receive() == (his, b"all the same")
        lab.plug_annex(annex)
        relay.wait_for_record("outside-renewed", interface="annex", groups=1)
        assert lab.relay.memberships(4, "out2")[group[0]] == 1
        with annex_sender(annex, 4) as talker:
            talker.sendto(b"after all", group)
            assert alice.receive() == (hers, b"after all")


def test_the_inside_interface_gets_the_memberships_of_mm_senders_again(
    lab: Lab, start_relay: Callable[..., RelayProcess]
) -> None:
    group = (GROUP[4], 5964)
    relay = start_relay(rules='[[rules]]\nname = "all"\nallow = true\nmodes = ["mm"]\n', limits="dead_client_s = 60")
    with RawClient(lab.client) as client, Capture(lab.outside, "out") as street:
        client.bind(SEND | MULTICAST | MM, group, ttl=2)
        assert lab.relay.memberships(4, "in")[group[0]] == 1
        lab.replug_inside()
        relay.wait_for_record("inside-renewed", groups=1)
        client.udp.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(client.address))
        client.udp.sendto(b"still heard", group)
        street.wait_for("the datagram", udp_to(*group))


def _tos(packet: object, version: int) -> int:
    return int(packet[IP].tos if version == 4 else packet[IPv6].tc)  # type: ignore[index]


def _mark(sock: socket.socket, version: int, tos: int) -> None:
    if version == 4:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, tos)


@both_versions
def test_dscp_and_ecn_cross_in_both_directions(
    lab: Lab, start_relay: Callable[..., RelayProcess], version: int
) -> None:
    start_relay(rules=MARKED, inside="fragment_above = 1000")
    with (
        RawClient(lab.client, version=version) as client,
        lab.outside.udp(REMOTE[version]) as remote,
        Capture(lab.outside, "out") as out,
        Capture(lab.client, "in") as inside,
    ):
        aid = client.bind(BOTH | UNICAST, remote.getsockname()[:2]).AID
        for tos in (EXPEDITED | CONGESTED, 1, 0):
            _mark(client.udp, version, tos)
            client.send(aid, b"there")
            _, source = remote.recvfrom(100)
            _mark(remote, version, tos)
            remote.sendto(bytes(1500), source)
        there = out.wait_for("three there", udp_to(*remote.getsockname()[:2]), count=3)
        assert [_tos(packet, version) for packet in there] == [EXPEDITED | CONGESTED, 1, 0]
        back = inside.wait_for("three back, in two pieces each", udp_to(*client.local), count=6)
        assert [_tos(packet, version) for packet in back] == [EXPEDITED | CONGESTED] * 2 + [1] * 2 + [0] * 2


@both_versions
def test_a_rule_sets_the_dscp_and_leaves_ecn_alone(
    lab: Lab, start_relay: Callable[..., RelayProcess], version: int
) -> None:
    start_relay(rules=MARKED)
    group = (GROUP[version], 5965)
    with (
        RawClient(lab.client, version=version) as client,
        outside_sender(lab, version) as sender,
        Capture(lab.outside, "out") as out,
        Capture(lab.client, "in") as inside,
    ):
        aid = client.bind(BOTH | MULTICAST, group, ttl=3).AID
        _mark(client.udp, version, EXPEDITED | 1)
        client.send(aid, b"there")
        [packet] = out.wait_for("the datagram", udp_to(*group))
        assert _tos(packet, version) == 10 << 2 | 1
        _mark(sender, version, EXPEDITED | CONGESTED)
        sender.sendto(b"back", group)
        [packet] = inside.wait_for("the copy", udp_to(*client.local))
        assert _tos(packet, version) == 10 << 2 | CONGESTED
