"""MM-mode, where groups live inside as they do outside, and how it mixes with MU-mode.

client ── "in" ── relay ── "out" ── outside        the same group on both wires, and only the relay crosses
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6

from tests.netns.client import BOTH, MM, MU, MULTICAST, RECEIVE, SEND, UNICAST, RawClient, Refused
from tests.netns.lab import (
    BORDER,
    CLIENT,
    FAMILY,
    GROUP,
    INSIDE,
    REMOTE,
    SECOND,
    STRANGER,
    THIRD,
    Capture,
    Host,
    Lab,
    wait_for,
)
from tests.netns.relay import RelayProcess
from tests.netns.test_groups import both_versions, outside_sender, udp_to

TCP = 0x08
ANY_MODE = """
[[rules]]
name = "everybody in either mode"
allow = true
do = ["receive-group", "send-group"]
groups = ["239.77.0.0/16", "ff15::/16"]
max_ttl = 16
modes = ["mm", "mu"]
"""
ONLY_MM = ANY_MODE.replace('["mm", "mu"]', '["mm"]')
ONLY_MU = ANY_MODE.replace('["mm", "mu"]', '["mu"]')


@pytest.fixture
def relay(start_relay: Callable[..., RelayProcess]) -> RelayProcess:
    return start_relay(rules=ANY_MODE)


def member(host: Host, link: str, group: tuple[str, int], address: str) -> socket.socket:
    """A plain program on a host that joined the group there, and sends to it from `address`."""
    version = 6 if ":" in group[0] else 4
    sock = host.open_socket(version)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(group)
    with host.entered():
        index = socket.if_nametoindex(link)
    if version == 4:
        sock.setsockopt(
            socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, struct.pack("=4s4si", socket.inet_aton(group[0]), b"", index)
        )
    else:
        packed = socket.inet_pton(socket.AF_INET6, group[0])
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, struct.pack("=16si", packed, index))
    return sock


def inside_talker(lab: Lab, address: str, port: int = 0) -> socket.socket:
    """A plain program inside that multicasts from an address."""
    version = 6 if ":" in address else 4
    with lab.client.entered():
        index = socket.if_nametoindex("in")
    sock = lab.client.udp(address, port)
    if version == 4:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", b"", b"", index))
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    assert sock.family == FAMILY[version]
    return sock


@both_versions
def test_a_group_outside_is_multicast_inside_without_a_header(lab: Lab, relay: RelayProcess, version: int) -> None:
    group = (GROUP[version], 5600)
    with (
        RawClient(lab.client, version=version) as client,
        member(lab.client, "in", group, CLIENT[version]) as listener,
        Capture(lab.relay, "in") as inside,
        outside_sender(lab, version) as sender,
    ):
        reply = client.bind(RECEIVE | MULTICAST | MM, group)
        assert int(reply.FLAGS) == RECEIVE | MULTICAST | MM
        assert (bytes(reply.LOCAL), reply.REMOTE.pair) == (bytes(7), group), "LOCAL is unused in MM-mode"
        sender.sendto(b"from outside", group)
        assert listener.recvfrom(100)[0] == b"from outside"
        [packet] = inside.wait_for("the group", udp_to(*group))
        network = packet.getlayer(IP) or packet.getlayer(IPv6)
        assert bytes(packet[UDP].payload) == b"from outside"
        assert (network.src, network.ttl if version == 4 else network.hlim) == (INSIDE[version], 1)
        assert client.receives_nothing(), "no copy"
        assert client.release(reply.AID, RECEIVE) == 0
        assert group[0] not in lab.relay.memberships(version, "out")


@both_versions
def test_a_permitted_inside_host_is_heard_outside(lab: Lab, relay: RelayProcess, version: int) -> None:
    group = (GROUP[version], 5602)
    with (
        RawClient(lab.client, version=version) as client,
        inside_talker(lab, CLIENT[version]) as talker,
        inside_talker(lab, SECOND[version]) as stranger,
        Capture(lab.outside, "out") as outside,
    ):
        reply = client.bind(SEND | MULTICAST | MM, group, ttl=9, local=(CLIENT[version], talker.getsockname()[1]))
        assert reply.REMOTE.pair == group, "where to send"
        assert lab.relay.memberships(version, "in")[group[0]] == 1
        stranger.sendto(b"not permitted", group)
        talker.sendto(b"permitted", group)
        [packet] = outside.wait_for("the datagram", udp_to(*group))
        network = packet.getlayer(IP) or packet.getlayer(IPv6)
        assert bytes(packet[UDP].payload) == b"permitted"
        assert (network.src, network.ttl if version == 4 else network.hlim) == (BORDER[version], 9)
        assert relay.drops() == {"unpermitted-sender": 1}
        assert client.release(reply.AID, SEND) == 0
        assert group[0] not in lab.relay.memberships(version, "in")
        client.send(reply.AID, b"with a header, after all")
        wait_for("the drop", lambda: relay.drops().get("unknown-aid") == 1)


def test_another_port_of_the_same_host_may_not_send(lab: Lab, relay: RelayProcess) -> None:
    group = (GROUP[4], 5604)
    with (
        RawClient(lab.client) as client,
        inside_talker(lab, CLIENT[4]) as talker,
        inside_talker(lab, CLIENT[4]) as other,
        outside_receiving(lab, group) as receiver,
    ):
        client.bind(SEND | MULTICAST | MM, group, ttl=1, local=(CLIENT[4], talker.getsockname()[1]))
        other.sendto(b"another port", group)
        talker.sendto(b"the port", group)
        assert receiver.recvfrom(100)[0] == b"the port"
        assert relay.drops() == {"unpermitted-sender": 1}
        client.bind(SEND | MULTICAST | MM, group, ttl=1, local=("0.0.0.0", 0))
        other.sendto(b"any port of that host", group)
        assert receiver.recvfrom(100)[0] == b"any port of that host"


def outside_receiving(lab: Lab, group: tuple[str, int]) -> socket.socket:
    return member(lab.outside, "out", group, REMOTE[4])


def test_both_modes_share_a_group(lab: Lab, relay: RelayProcess) -> None:
    """Whoever sends, everybody else hears it once."""
    group = (GROUP[4], 5606)
    with ExitStack() as stack:
        enter = stack.enter_context
        mm, mu, talks_mu = (
            enter(RawClient(lab.client, "alice", address=CLIENT[4])),
            enter(RawClient(lab.client, "bob", address=SECOND[4])),
            enter(RawClient(lab.client, "carol", address=THIRD[4])),
        )
        listener, talker = enter(member(lab.client, "in", group, CLIENT[4])), enter(inside_talker(lab, CLIENT[4]))
        outside, sender = enter(outside_receiving(lab, group)), enter(outside_sender(lab, 4))
        mm.bind(BOTH | MULTICAST | MM, group, ttl=1, local=(CLIENT[4], talker.getsockname()[1]))
        copied = int(mu.bind(RECEIVE | MULTICAST | MU, group).AID)
        voice = int(talks_mu.bind(SEND | MULTICAST | MU, group, ttl=1).AID)
        assert lab.relay.memberships(4, "out")[group[0]] == 1

        sender.sendto(b"outside", group)
        assert (listener.recvfrom(99)[0], mu.receive()) == (b"outside", (copied, b"outside"))
        assert outside.recvfrom(99)[0] == b"outside", "the sender's own host hears its own"

        talks_mu.send(voice, b"MU")
        assert (listener.recvfrom(99)[0], mu.receive(), outside.recvfrom(99)[0]) == (b"MU", (copied, b"MU"), b"MU")

        talker.sendto(b"MM", group)
        assert (listener.recvfrom(99)[0], mu.receive(), outside.recvfrom(99)[0]) == (b"MM", (copied, b"MM"), b"MM")

        sender.sendto(b"last", group)
        assert (listener.recvfrom(99)[0], mu.receive()) == (b"last", (copied, b"last")), "nothing came twice"
        assert outside.recvfrom(99)[0] == b"last"


@pytest.mark.parametrize(
    ("rules", "flags", "mode"),
    [
        (ANY_MODE, 0, MM),
        (ANY_MODE, MM | MU, MM),
        (ANY_MODE, MM, MM),
        (ANY_MODE, MU, MU),
        (ANY_MODE, UNICAST, MU),
        (ANY_MODE, TCP, MU),
        (ONLY_MU, 0, MU),
        (ONLY_MU, MM, MU),
        (ONLY_MM, MU, MM),
        (ONLY_MM, TCP, None),
        (ONLY_MM, 0x0100, None),
        (ANY_MODE, TCP | MM, None),
    ],
)
def test_the_preference_is_honoured_where_the_rules_allow_it(
    lab: Lab, start_relay: Callable[..., RelayProcess], rules: str, flags: int, mode: int | None
) -> None:
    start_relay(rules=rules)
    with RawClient(lab.client) as client:
        if mode is None:
            with pytest.raises(Refused) as refused:
                client.bind(RECEIVE | MULTICAST | flags, (GROUP[4], 5608))
            assert refused.value.code == 0x01
        else:
            assert int(client.bind(RECEIVE | MULTICAST | flags, (GROUP[4], 5608)).FLAGS) & (MU | MM) == mode


def test_a_client_of_the_other_family_is_given_mu_mode(lab: Lab, relay: RelayProcess) -> None:
    with RawClient(lab.client, version=4) as client:
        assert int(client.bind(RECEIVE | MULTICAST | MM, (GROUP[6], 5610)).FLAGS) & (MU | MM) == MU


def test_group_datagrams_of_an_ignored_relay_are_not_relayed(
    lab: Lab, start_relay: Callable[..., RelayProcess]
) -> None:
    relay = start_relay(rules=ANY_MODE, outside=f'ignore_sources = ["{STRANGER[4]}"]')
    group = (GROUP[4], 5612)
    with (
        RawClient(lab.client) as client,
        outside_sender(lab, 4) as sender,
        lab.outside.udp(STRANGER[4]) as other_relay,
    ):
        aid = int(client.bind(RECEIVE | MULTICAST | MU, group).AID)
        other_relay.sendto(b"from the other relay", group)
        sender.sendto(b"from a sender", group)
        assert client.receive() == (aid, b"from a sender")
        assert relay.drops() == {"ignored-source": 1}
