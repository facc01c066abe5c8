"""What every plane does, run against each of them on loopback, without privileges."""

from __future__ import annotations

import errno
import socket
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from mcastsocks.address import Endpoint, from_sockaddr
from mcastsocks.planes.counters import DropReason
from mcastsocks.tables.changes import AddEntry, AddReceiver, ChangeEntry, Done, Failed, RemoveEntry, RemoveReceiver
from tests.planes.bench import LOOPBACK, PLANES, Bench, on_plane

every_plane = pytest.mark.parametrize("plane", PLANES)


def remote_of(sock: socket.socket) -> Endpoint:
    return from_sockaddr(sock.getsockname())


def sockets_joined(group: Endpoint) -> int:
    """By the kernel's own account."""
    wanted = f"{int.from_bytes(group.address.packed, 'little'):08X}"
    lines = (line.split() for line in Path("/proc/net/igmp").read_text().splitlines())
    return sum(int(fields[1]) for fields in lines if fields and fields[0] == wanted)


@every_plane
def test_a_datagram_goes_out_without_its_header_and_the_answer_comes_back_with_one(plane: str) -> None:
    async def test(bench: Bench) -> None:
        client, remote = bench.udp(), bench.udp()
        aid = bench.add(client, remote_of(remote))
        bench.send(client, aid, b"question")
        data, outside = await bench.receive(remote)
        assert data == b"question"
        remote.sendto(b"answer", (str(outside.host), outside.port))
        assert await bench.received(client) == (aid, b"answer")
        traffic = bench.plane.traffic(aid)
        assert traffic is not None
        assert (traffic.to_remote_datagrams, traffic.to_remote_octets) == (1, 8)
        assert (traffic.to_client_datagrams, traffic.to_client_octets) == (1, 6)

    on_plane(plane, test)


@every_plane
def test_a_remote_of_the_other_family(plane: str) -> None:
    async def test(bench: Bench) -> None:
        client, remote = bench.udp(), bench.udp("::1")
        aid = bench.add(client, remote_of(remote))
        bench.send(client, aid, b"four to six")
        data, outside = await bench.receive(remote)
        assert (data, outside.host) == (b"four to six", IPv6Address("::1"))
        remote.sendto(b"six to four", (str(outside.host), outside.port))
        assert await bench.received(client) == (aid, b"six to four")

    on_plane(plane, test)


@every_plane
@pytest.mark.parametrize(
    ("reason", "octets"),
    [
        (DropReason.RUNT, bytes(7)),
        (DropReason.RUNT, b""),
        (DropReason.RESERVED_BITS, bytes.fromhex("0400000000001000") + b"x"),
        (DropReason.BAD_FRAGMENT, bytes.fromhex("0080000100001000") + b"x"),
        (DropReason.FRAGMENT, bytes.fromhex("0001000100001000") + b"x"),
        (DropReason.UNKNOWN_AID, bytes.fromhex("0000000080001000") + b"x"),
    ],
)
def test_what_is_malformed_is_dropped_by_its_reason(plane: str, reason: DropReason, octets: bytes) -> None:
    async def test(bench: Bench) -> None:
        client, remote = bench.udp(), bench.udp()
        aid = bench.add(client, remote_of(remote))
        assert aid == 0x1000, "the AID in the octets above"
        client.sendto(octets, (str(bench.inside.host), bench.inside.port))
        bench.send(client, aid, b"afterwards")
        assert (await bench.receive(remote))[0] == b"afterwards"
        assert bench.plane.counters().drops == {reason: 1}

    on_plane(plane, test)


@every_plane
def test_only_the_clients_own_endpoint_may_use_its_aid(plane: str) -> None:
    async def test(bench: Bench) -> None:
        client, port_thief, address_thief, remote = bench.udp(), bench.udp(), bench.udp("127.0.0.2"), bench.udp()
        aid = bench.add(client, remote_of(remote))
        for thief in (port_thief, address_thief):
            bench.send(thief, aid, b"stolen")
        bench.send(client, aid, b"mine")
        assert (await bench.receive(remote))[0] == b"mine"
        assert bench.plane.counters().drops == {DropReason.WRONG_PORT: 1, DropReason.WRONG_ADDRESS: 1}

    on_plane(plane, test)


@every_plane
def test_an_endpoint_is_learnt_once_and_only_from_the_right_address(plane: str) -> None:
    async def test(bench: Bench) -> None:
        thief, client, later, remote = bench.udp("127.0.0.2"), bench.udp(), bench.udp(), bench.udp()
        aid = bench.add(("127.0.0.1", 0), remote_of(remote))
        bench.send(thief, aid, b"mine")
        bench.send(client, aid, b"here I am")
        bench.send(later, aid, b"me too")
        data, outside = await bench.receive(remote)
        assert data == b"here I am"
        remote.sendto(b"answer", (str(outside.host), outside.port))
        assert await bench.received(client) == (aid, b"answer")
        assert bench.plane.counters().drops == {DropReason.WRONG_ADDRESS: 1, DropReason.WRONG_PORT: 1}

    on_plane(plane, test)


@every_plane
def test_a_hello_teaches_and_is_relayed_nowhere(plane: str) -> None:
    async def test(bench: Bench) -> None:
        client, remote = bench.udp(), bench.udp()
        entry = bench.entry(("127.0.0.1", 0), remote_of(remote), sends=False)
        added = bench.apply(AddEntry(entry))
        assert isinstance(added, Done)
        assert added.outside is not None
        to_relay = (str(added.outside.host), added.outside.port)
        counters = bench.plane.counters()
        remote.sendto(b"too early", to_relay)
        await bench.settled(lambda: counters.drops[DropReason.ENDPOINT_UNKNOWN] == 1)
        bench.send(client, entry.aid)
        await bench.settled(lambda: counters.hellos == 1)
        remote.sendto(b"in time", to_relay)
        assert await bench.received(client) == (entry.aid, b"in time")
        bench.send(client, entry.aid, b"but it may not send")
        await bench.settled(lambda: counters.drops[DropReason.NO_SEND_DIRECTION] == 1)
        assert counters.sent_outside == 0

    on_plane(plane, test)


@every_plane
def test_only_the_expected_remote_comes_in_and_the_exact_port_wins(plane: str) -> None:
    async def test(bench: Bench) -> None:
        client, first, second, stranger = bench.udp(), bench.udp(), bench.udp(), bench.udp("127.0.0.2")
        one, two = bench.add(client, remote_of(first)), bench.add(client, remote_of(second))
        bench.send(client, one, b"x")
        _, outside = await bench.receive(first)
        to_relay = (str(outside.host), outside.port)
        stranger.sendto(b"not asked", to_relay)
        for sock, aid in ((second, two), (first, one), (bench.udp(), one)):
            sock.sendto(b"answer", to_relay)
            assert await bench.received(client) == (aid, b"answer")
        assert bench.plane.counters().drops == {DropReason.UNEXPECTED_REMOTE: 1}

    on_plane(plane, test)


@every_plane
def test_directions_are_given_and_taken(plane: str) -> None:
    async def test(bench: Bench) -> None:
        client, remote = bench.udp(), bench.udp()
        aid = bench.add(client, remote_of(remote), receives=False)
        bench.send(client, aid, b"one way")
        _, outside = await bench.receive(remote)
        to_relay = (str(outside.host), outside.port)
        drops = bench.plane.counters().drops
        remote.sendto(b"unwanted", to_relay)
        await bench.settled(lambda: drops[DropReason.UNEXPECTED_REMOTE] == 1)
        bench.apply(ChangeEntry(aid, sends=False, receives=True, ttl=0))
        remote.sendto(b"wanted", to_relay)
        assert await bench.received(client) == (aid, b"wanted")
        bench.send(client, aid, b"no longer")
        await bench.settled(lambda: drops[DropReason.NO_SEND_DIRECTION] == 1)

    on_plane(plane, test)


@every_plane
def test_a_group_is_joined_once_and_copied_to_every_receiver(plane: str) -> None:
    async def test(bench: Bench) -> None:
        clients = [bench.udp() for _ in range(5)]
        group, sender = bench.group(), bench.udp()
        aids = [bench.add(client, group, channel, sends=False) for channel, client in enumerate(clients)]
        assert sockets_joined(group) == 1
        assert bench.plane.descriptors() == 2, "one faces clients, one receives the group"
        sender.sendto(b"to all", (str(group.host), group.port))
        for client, aid in zip(clients, aids, strict=True):
            assert await bench.received(client) == (aid, b"to all")
        counters = bench.plane.counters()
        assert (counters.received_outside, counters.copied, counters.sent_inside) == (1, 4, 5)
        for aid in aids[1:]:
            bench.apply(RemoveReceiver(aid), RemoveEntry(aid))
        assert sockets_joined(group) == 1
        bench.apply(RemoveReceiver(aids[0]), RemoveEntry(aids[0]))
        assert sockets_joined(group) == 0

    on_plane(plane, test)


@every_plane
def test_what_a_client_sends_reaches_members_and_other_receivers_once(plane: str) -> None:
    async def test(bench: Bench) -> None:
        talker, listener = bench.udp(), bench.udp()
        group = bench.group()
        member = bench.member(group)
        aid = bench.add(talker, group, 1, ttl=1)
        also_talker = bench.add(talker, group, 1, sends=False)
        heard = bench.add(listener, group, 2, sends=False)
        bench.send(talker, aid, b"hello")
        assert (await bench.receive(member))[0] == b"hello"
        assert await bench.received(listener) == (heard, b"hello")
        counters = bench.plane.counters()
        await bench.settled(lambda: counters.drops[DropReason.OWN_DATAGRAM] == 1)
        assert bench.nothing_waits_for(talker), "neither by its own association nor by its other one"
        assert bench.nothing_waits_for(listener)
        assert also_talker != aid

    on_plane(plane, test)


@every_plane
def test_the_same_endpoint_on_another_channel_is_another_receiver(plane: str) -> None:
    async def test(bench: Bench) -> None:
        client = bench.udp()
        group = bench.group()
        aid = bench.add(client, group, 1, ttl=1, receives=False)
        heard = bench.add(client, group, 2, sends=False)
        bench.send(client, aid, b"hello")
        assert await bench.received(client) == (heard, b"hello")

    on_plane(plane, test)


@every_plane
def test_neither_unicast_nor_another_port_is_taken_for_a_group(plane: str) -> None:
    async def test(bench: Bench) -> None:
        client, sender = bench.udp(), bench.udp()
        group, other = bench.group(), bench.group()
        aid = bench.add(client, group, sends=False)
        sender.sendto(b"other port", (str(other.host), other.port))
        sender.sendto(b"unicast", ("127.0.0.1", group.port))
        sender.sendto(b"the group", (str(group.host), group.port))
        assert await bench.received(client) == (aid, b"the group")
        assert bench.plane.counters().received_outside == 1

    on_plane(plane, test)


@every_plane
@pytest.mark.parametrize("octets", [0, 1, 1472, 1490, 16_384, 65_499])
def test_datagrams_of_every_size(plane: str, octets: int) -> None:
    async def test(bench: Bench) -> None:
        client, remote = bench.udp(), bench.udp()
        aid = bench.add(client, remote_of(remote))
        bench.send(client, aid, bytes(octets))
        data, outside = await bench.receive(remote)
        assert data == bytes(octets)
        remote.sendto(data, (str(outside.host), outside.port))
        assert await bench.received(client) == (aid, bytes(octets))

    on_plane(plane, test)


@every_plane
def test_what_would_not_fit_with_its_header_is_dropped(plane: str) -> None:
    async def test(bench: Bench) -> None:
        client, remote = bench.udp(), bench.udp()
        aid = bench.add(client, remote_of(remote))
        bench.send(client, aid, b"x")
        _, outside = await bench.receive(remote)
        remote.sendto(bytes(65_500), (str(outside.host), outside.port))
        await bench.settled(lambda: bench.plane.counters().drops[DropReason.TOO_LARGE] == 1)
        traffic = bench.plane.traffic(aid)
        assert traffic is not None
        assert traffic.dropped_datagrams == 1

    on_plane(plane, test)


@every_plane
def test_a_burst_is_relayed_whole_and_in_order(plane: str) -> None:
    async def test(bench: Bench) -> None:
        client, remote = bench.udp(), bench.udp()
        aid = bench.add(client, remote_of(remote))
        for number in range(200):
            bench.send(client, aid, number.to_bytes(2))
        assert [(await bench.receive(remote))[0] for _ in range(200)] == [n.to_bytes(2) for n in range(200)]

    on_plane(plane, test)


@every_plane
def test_entries_of_one_client_share_an_outside_socket_until_the_last_is_gone(plane: str) -> None:
    async def test(bench: Bench) -> None:
        client, other, remote = bench.udp(), bench.udp(), bench.udp()
        before = bench.plane.descriptors()
        aids = [bench.add(client, remote_of(remote)) for _ in range(10)]
        assert bench.plane.descriptors() == before + 1
        bench.add(other, remote_of(remote))
        assert bench.plane.descriptors() == before + 2
        for aid in aids:
            bench.apply(RemoveEntry(aid))
        assert bench.plane.descriptors() == before + 1

    on_plane(plane, test)


@every_plane
def test_a_full_plane_refuses_and_leaves_nothing_behind(plane: str) -> None:
    async def test(bench: Bench) -> None:
        client = bench.udp()
        bench.add(client, Endpoint(IPv4Address("127.0.0.1"), 9))
        entry = bench.entry(client.getsockname(), bench.group(), sends=False)
        added, refused = bench.plane.apply([AddEntry(entry), AddReceiver(entry.aid), RemoveEntry(entry.aid)])
        assert isinstance(added, Done)
        assert isinstance(refused, Failed), "and the third was not tried"
        assert refused.errno == errno.EMFILE
        assert isinstance(bench.apply(RemoveEntry(entry.aid)), Done)
        assert bench.plane.traffic(entry.aid) is None

    on_plane(plane, test, max_sockets=2)


@every_plane
def test_an_unknown_entry_fails_and_says_so(plane: str) -> None:
    async def test(bench: Bench) -> None:
        for change in (RemoveEntry(7), AddReceiver(7), RemoveReceiver(7), ChangeEntry(7, True, True, 1)):
            assert isinstance(bench.apply(change), Failed)

    on_plane(plane, test)


@every_plane
def test_a_family_that_the_outside_lacks_fails(plane: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without_ipv6 = type(LOOPBACK)(LOOPBACK.name, LOOPBACK.index, LOOPBACK.ipv4, None)
    monkeypatch.setattr("tests.planes.bench.LOOPBACK", without_ipv6)

    async def test(bench: Bench) -> None:
        entry = bench.entry(bench.udp().getsockname(), Endpoint(IPv6Address("::1"), 9))
        failed = bench.apply(AddEntry(entry))
        assert isinstance(failed, Failed)
        assert failed.errno == errno.EAFNOSUPPORT
        assert bench.plane.descriptors() == 1

    on_plane(plane, test)
