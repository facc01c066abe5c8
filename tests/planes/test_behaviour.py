"""What every plane does, run against each of them on loopback, without privileges."""

from __future__ import annotations

import asyncio
import errno
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import pairwise
from pathlib import Path

import pytest

from mcastsocks.address import Endpoint, from_sockaddr
from mcastsocks.planes.counters import DropReason
from mcastsocks.tables.changes import ChangeEntry, Done, Failed, RemoveEntry
from mcastsocks.tables.filters import ANY_SOURCE, SourceFilter
from mcastsocks.tables.reassembly import QueueEnd, ReassemblyLimits
from mcastsocks.wire.datagram import HEADER, Datagram, source_block
from mcastsocks.wire.replies import ReplyCode, of_errno
from tests.planes.bench import BUDGETS, LOOPBACK, PLANES, Bench, on_plane

every_plane = pytest.mark.parametrize("plane", PLANES)


def remote_of(sock: socket.socket) -> Endpoint:
    return from_sockaddr(sock.getsockname())


def including(*hosts: str) -> SourceFilter:
    return SourceFilter(True, frozenset(map(ip_address, hosts)))


def excluding(*hosts: str) -> SourceFilter:
    return SourceFilter(False, frozenset(map(ip_address, hosts)))


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
        addition = bench.addition(("127.0.0.1", 0), remote_of(remote), sends=False)
        added = bench.apply(addition)
        assert isinstance(added, Done)
        assert added.outside is not None
        to_relay = (str(added.outside.host), added.outside.port)
        counters = bench.plane.counters()
        remote.sendto(b"too early", to_relay)
        await bench.settled(lambda: counters.drops[DropReason.ENDPOINT_UNKNOWN] == 1)
        bench.send(client, addition.entry.aid)
        await bench.settled(lambda: counters.hellos == 1)
        remote.sendto(b"in time", to_relay)
        assert await bench.received(client) == (addition.entry.aid, b"in time")
        bench.send(client, addition.entry.aid, b"but it may not send")
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
        bench.change(aid, sends=False, receives=True)
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
            bench.apply(RemoveEntry(aid))
        assert sockets_joined(group) == 1
        bench.apply(RemoveEntry(aids[0]))
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
def test_what_does_not_fit_with_its_header_comes_in_fragments(plane: str) -> None:
    async def test(bench: Bench) -> None:
        client, remote = bench.udp(), bench.udp()
        aid = bench.add(client, remote_of(remote))
        bench.send(client, aid, b"x")
        _, outside = await bench.receive(remote)
        data = bytes(range(250)) * 262
        for number in (1, 2):
            remote.sendto(data[:65_500], (str(outside.host), outside.port))
            pieces = [(await bench.receive(client))[0] for _ in range(2)]
            assert [piece[:8] for piece in pieces] == [
                HEADER.pack(0, 0x01, number, aid),
                HEADER.pack(0, 0x82, number, aid),
            ]
            assert b"".join(piece[8:] for piece in pieces) == data[:65_500]
        traffic = bench.plane.traffic(aid)
        assert traffic is not None
        assert (traffic.to_client_datagrams, traffic.to_client_octets) == (2, 131_000)

    on_plane(plane, test)


@every_plane
def test_datagrams_above_the_configured_size_come_in_fragments(plane: str) -> None:
    async def test(bench: Bench) -> None:
        client, remote = bench.udp(), bench.udp()
        aid = bench.add(client, remote_of(remote))
        bench.send(client, aid, b"x")
        _, outside = await bench.receive(remote)
        remote.sendto(bytes(592), (str(outside.host), outside.port))
        assert await bench.received(client) == (aid, bytes(592)), "600 octets are not above"
        remote.sendto(bytes(593), (str(outside.host), outside.port))
        assert [len((await bench.receive(client))[0]) for _ in range(2)] == [600, 9]

    on_plane(plane, test, fragment_above=600)


@every_plane
def test_fragments_of_a_client_are_relayed_as_one_datagram(plane: str) -> None:
    async def test(bench: Bench) -> None:
        client, remote = bench.udp(), bench.udp()
        aid = bench.add(client, remote_of(remote))
        to_relay = (str(bench.inside.host), bench.inside.port)
        for frag, body in ((0x83, b"third"), (0x01, b"first "), (0x01, b"first "), (0x02, b"second ")):
            client.sendto(HEADER.pack(0, frag, 7, aid) + body, to_relay)
            bench.send(client, aid, b"in between")
        got = [(await bench.receive(remote))[0] for _ in range(5)]
        assert got == [b"in between"] * 3 + [b"first second third", b"in between"]
        counters = bench.plane.counters()
        assert (counters.pieces, counters.reassembled) == (4, 1)
        assert counters.queues == {QueueEnd.COMPLETE: 1}

    on_plane(plane, test)


@every_plane
def test_fragments_that_never_become_whole_are_given_up_in_time(plane: str) -> None:
    async def test(bench: Bench) -> None:
        client, remote = bench.udp(), bench.udp()
        aid = bench.add(client, remote_of(remote))
        bench.send(client, aid, b"piece", frag=0x01)
        counters = bench.plane.counters()
        await bench.settled(lambda: counters.queues == {QueueEnd.TIMED_OUT: 1})
        bench.send(client, aid, b"piece", frag=0x01)
        await bench.settled(lambda: counters.pieces == 2)
        bench.apply(RemoveEntry(aid))
        assert counters.queues[QueueEnd.RELEASED] == 1

    on_plane(plane, test, reassembly=ReassemblyLimits(timeout_s=0.05))


@every_plane
def test_the_original_sender_is_reported_where_asked(plane: str) -> None:
    async def test(bench: Bench) -> None:
        told, untold, talker = bench.udp(), bench.udp(), bench.udp()
        group, sender = bench.group(), bench.udp()
        aid = bench.add(told, group, 1, sends=False, reports_source=True)
        other = bench.add(untold, group, 2, sends=False)
        sender.sendto(b"news", (str(group.host), group.port))
        octets, _ = await bench.receive(told)
        assert Datagram.parse(octets) == Datagram(aid, b"news", rsv=1, source=remote_of(sender))
        assert await bench.received(untold) == (other, b"news")
        voice = bench.addition(talker.getsockname(), group, 3, receives=False, ttl=1)
        added = bench.apply(voice)
        assert isinstance(added, Done)
        bench.send(talker, voice.entry.aid, b"from inside")
        octets, _ = await bench.receive(told)
        assert Datagram.parse(octets).source == added.outside, "what the group outside sees"

    on_plane(plane, test)


@every_plane
def test_each_receiver_gets_the_sources_it_asked_for(plane: str) -> None:
    async def test(bench: Bench) -> None:
        senders = {host: bench.udp(host) for host in ("127.0.0.1", "127.0.0.2", "127.0.0.3")}
        group = bench.group()
        clients = [bench.udp() for _ in range(3)]
        wanted = (including("127.0.0.2"), including("127.0.0.2", "127.0.0.3"), excluding("127.0.0.2"))
        aids = [
            bench.add(client, group, channel, sends=False, sources=sources)
            for channel, (client, sources) in enumerate(zip(clients, wanted, strict=True))
        ]
        for host, sender in senders.items():
            sender.sendto(host.encode(), (str(group.host), group.port))
        got = [
            {(await bench.received(client))[1].decode() for _ in range(count)}
            for client, count in zip(clients, (1, 2, 2), strict=True)
        ]
        assert got == [{"127.0.0.2"}, {"127.0.0.2", "127.0.0.3"}, {"127.0.0.1", "127.0.0.3"}]
        assert all(bench.nothing_waits_for(client) for client in clients)
        bench.apply(RemoveEntry(aids[2]))
        senders["127.0.0.1"].sendto(b"nobody wants it", (str(group.host), group.port))
        senders["127.0.0.2"].sendto(b"two want it", (str(group.host), group.port))
        assert await bench.received(clients[0]) == (aids[0], b"two want it")
        assert bench.plane.counters().received_outside == 4, "the kernel kept the unwanted one out"

    on_plane(plane, test)


@every_plane
def test_more_sources_than_one_socket_takes_are_spread(plane: str) -> None:
    async def test(bench: Bench) -> None:
        client, group = bench.udp(), bench.group()
        hosts = [f"127.0.1.{number}" for number in range(1, 26)]
        before = bench.plane.descriptors()
        aid = bench.add(client, group, sends=False, sources=including(*hosts))
        assert bench.plane.descriptors() == before + 3, "25 sources, 10 on a socket"
        for host in (*hosts, "127.0.2.1"):
            bench.udp(host).sendto(host.encode(), (str(group.host), group.port))
        assert {(await bench.received(client))[1].decode() for _ in hosts} == set(hosts)
        assert bench.nothing_waits_for(client)
        bench.change(aid, sources=including(*hosts[5:15]))
        assert bench.plane.descriptors() == before + 2
        bench.change(aid, sources=ANY_SOURCE)
        assert bench.plane.descriptors() == before + 1
        bench.udp("127.0.2.1").sendto(b"anybody", (str(group.host), group.port))
        assert await bench.received(client) == (aid, b"anybody")

    on_plane(plane, test)


@every_plane
def test_a_filter_changes_under_traffic_without_loss(plane: str) -> None:
    async def test(bench: Bench) -> None:
        client, group = bench.udp(), bench.group()
        kept = bench.udp("127.0.0.2")
        hosts = [f"127.0.1.{number}" for number in range(1, 16)]
        aid = bench.add(client, group, sends=False, sources=including("127.0.0.2"))
        filters = (including("127.0.0.2", *hosts), including("127.0.0.2"), excluding("127.0.0.9"), ANY_SOURCE)
        for number in range(400):
            kept.sendto(number.to_bytes(2), (str(group.host), group.port))
            bench.change(aid, sources=filters[number % len(filters)])
            if number % 50 == 49:
                got = [(await bench.received(client))[1] for _ in range(50)]
                assert got == [each.to_bytes(2) for each in range(number - 49, number + 1)]
        assert bench.nothing_waits_for(client), "nothing twice"

    on_plane(plane, test)


@every_plane
def test_what_waits_when_a_filter_changes_reaches_every_one_of_many_receivers(plane: str) -> None:
    async def test(bench: Bench) -> None:
        client, sender, group = bench.udp(), bench.udp("127.0.0.2"), bench.group()
        hosts = [f"127.0.1.{number}" for number in range(1, 16)]
        several = including("127.0.0.2", *hosts)  # on two sockets
        aids = [bench.add(client, group, sends=False, sources=several) for _ in range(200)]
        late = bench.udp(hosts[-1])
        for _ in range(20):
            late.sendto(b"still wanted", (str(group.host), group.port))
            sender.sendto(b"wanted all along", (str(group.host), group.port))
        bench.change(aids[0], sources=ANY_SOURCE)  # on one
        late.sendto(b"wanted afterwards", (str(group.host), group.port))
        counters = bench.plane.counters()
        await bench.settled(lambda: counters.received_outside == 41)
        assert counters.copied == 41 * 199

    on_plane(plane, test)


class Turns:
    """Runs once in every turn of the event loop, and notes how much the plane has moved by then."""

    def __init__(self, bench: Bench) -> None:
        self._counters = bench.plane.counters()
        self._loop = asyncio.get_running_loop()
        self.moved = [0]
        self._next = self._loop.call_soon(self._note)

    def _note(self) -> None:
        self.moved.append(self._counters.sent_inside + self._counters.sent_outside)
        self._next = self._loop.call_soon(self._note)

    @property
    def longest(self) -> int:
        """The most datagrams that were given in one turn."""
        return max(after - before for before, after in pairwise(self.moved))

    def stop(self) -> None:
        self._next.cancel()


@every_plane
@pytest.mark.parametrize("way", ["from outside", "from a client", "in fragments", "in MM-mode"])
def test_copies_for_many_receivers_do_not_hold_up_other_sockets(plane: str, way: str) -> None:
    """200 receivers and 50 datagrams: whoever else waits gets a turn behind each one."""

    async def test(bench: Bench) -> None:
        receiver, sender, remote, other = bench.udp(), bench.udp(), bench.udp(), bench.udp()
        group = bench.group()
        for _ in range(200):
            bench.add(receiver, group, sends=False)
        speaks = bench.add(sender, group, channel=2, receives=False, ttl=1, mm=way == "in MM-mode")
        aid = bench.add(other, remote_of(remote), channel=3)
        turns = Turns(bench)
        for number in range(50):
            if way == "from outside":
                bench.udp().sendto(b"news", (str(group.host), group.port))
            elif way == "from a client":
                bench.send(sender, speaks, b"news")
            elif way == "in MM-mode":
                sender.sendto(b"news", (str(group.host), group.port))
            else:
                dgid = number + 1
                for frag, octets in ((1, b"ne"), (0x82, b"ws")):
                    piece = HEADER.pack(0, frag, dgid, speaks) + octets
                    sender.sendto(piece, (str(bench.inside.host), bench.inside.port))
        bench.send(other, aid, b"mine")
        counters = bench.plane.counters()
        times = 2 if way == "in MM-mode" else 1  # here inside is outside too, and hears it itself
        await bench.settled(lambda: counters.sent_inside == times * 50 * 200)
        assert (await bench.receive(remote))[0] == b"mine"
        turns.stop()
        assert 200 <= turns.longest <= times * (200 + BUDGETS[plane]) + 64

    on_plane(plane, test, inside=LOOPBACK)


@every_plane
def test_encapsulated_datagrams_come_and_go_by_the_channel(plane: str) -> None:
    frames: list[tuple[int, int, bytes]] = []

    def sink(channel: int, aid: int, body: bytes) -> list[int]:
        frames.append((channel, aid, body))
        return [frames[0][1]] if len(frames) == 3 else []

    async def test(bench: Bench) -> None:
        remote, sender, group = bench.udp(), bench.udp(), bench.group()
        aid = bench.add(None, remote_of(remote), 5)
        heard = bench.add(None, group, 5, ttl=1, reports_source=True)
        bench.plane.take(5, aid, b"question")
        data, outside = await bench.receive(remote)
        assert data == b"question"
        remote.sendto(b"answer", (str(outside.host), outside.port))
        await bench.settled(lambda: len(frames) == 1)
        sender.sendto(b"news", (str(group.host), group.port))
        await bench.settled(lambda: len(frames) == 2)
        assert frames == [(5, aid, b"answer"), (5, heard, source_block(remote_of(sender)) + b"news")]
        remote.sendto(b"one too many", (str(outside.host), outside.port))
        await bench.settled(lambda: len(frames) == 3)
        counters = bench.plane.counters()
        assert counters.drops == {DropReason.SLOW_CLIENT: 1}
        assert counters.sent_inside == 2
        bench.plane.take(5, aid ^ 1 << 31, b"unknown")
        bench.plane.take(6, aid, b"of another channel")
        by_udp = bench.add(bench.udp(), remote_of(remote), 5)
        bench.plane.take(5, by_udp, b"comes by UDP")
        bench.send(bench.udp(), aid, b"comes by the channel")
        await bench.settled(lambda: counters.drops[DropReason.ENCAPSULATED] == 1)
        assert counters.drops[DropReason.UNKNOWN_AID] == 2
        assert counters.drops[DropReason.NOT_ENCAPSULATED] == 1

    on_plane(plane, test, sink=sink)


@every_plane
def test_what_goes_through_an_upstream_is_handed_over_and_takes_no_socket(plane: str) -> None:
    taken: list[bytes] = []
    answers = iter((None, None, None, None, DropReason.BUFFER_FULL))

    def through(data: bytes) -> DropReason | None:
        taken.append(data)
        return next(answers)

    async def test(bench: Bench) -> None:
        client, remote, counters = bench.udp(), bench.udp(), bench.plane.counters()
        before = bench.plane.descriptors()
        addition = bench.addition(client.getsockname(), remote_of(remote), upstream=True)
        assert bench.apply(addition) == Done()
        bench.send(client, addition.entry.aid, b"nobody there yet")
        await bench.settled(lambda: counters.drops[DropReason.UNREACHABLE] == 1)
        bench.plane.divert(addition.entry.aid, through)
        to_relay = (str(bench.inside.host), bench.inside.port)
        bench.send(client, addition.entry.aid, b"one")
        bench.send(client, addition.entry.aid)
        for frag, body in ((0x82, b"half"), (0x01, b"one ")):
            client.sendto(HEADER.pack(0, frag, 7, addition.entry.aid) + body, to_relay)
        bench.send(client, addition.entry.aid, bytes(65_499))
        bench.send(bench.udp(), addition.entry.aid, b"stolen")
        bench.send(client, addition.entry.aid, b"too many")
        await bench.settled(lambda: counters.drops[DropReason.BUFFER_FULL] == 1)
        assert taken == [b"one", b"", b"one half", bytes(65_499), b"too many"]
        assert counters.drops[DropReason.WRONG_PORT] == 1
        traffic = bench.plane.traffic(addition.entry.aid)
        assert traffic is not None
        assert (traffic.to_remote_datagrams, traffic.to_remote_octets, traffic.dropped_datagrams) == (4, 65_510, 3)
        assert bench.nothing_waits_for(remote)
        assert bench.plane.descriptors() == before
        bench.change(addition.entry.aid, sends=False)
        bench.send(client, addition.entry.aid, b"not any more")
        await bench.settled(lambda: counters.drops[DropReason.NO_SEND_DIRECTION] == 1)
        bench.apply(RemoveEntry(addition.entry.aid))

    on_plane(plane, test)


@every_plane
def test_what_comes_through_an_upstream_reaches_its_client_alone(plane: str) -> None:
    async def test(bench: Bench) -> None:
        client, other = bench.udp(), bench.udp()
        group, sender = bench.group("239.255.66.77"), Endpoint(ip_address("192.0.2.7"), 9)
        aid = bench.add(client, group, ttl=1, upstream=True)
        told = bench.add(client, group, sends=False, reports_source=True, upstream=True)
        assert sockets_joined(group) == 0
        direct = bench.add(other, group, 2, sends=False)
        for data in (b"news", b"", bytes(65_499)):
            bench.plane.give(aid, data, sender)
            assert await bench.received(client) == (aid, data)
        bench.plane.give(told, b"news", sender)
        octets, _ = await bench.receive(client)
        assert Datagram.parse(octets) == Datagram(told, b"news", rsv=1, source=sender)
        bench.plane.give(aid, bytes(65_507), None)
        pieces = [(await bench.receive(client))[0] for _ in range(2)]
        assert [piece[1] for piece in pieces] == [0x01, 0x82]
        assert b"".join(piece[HEADER.size :] for piece in pieces) == bytes(65_507)
        assert bench.nothing_waits_for(other)
        bench.plane.give(aid, bytes(65_528), sender)
        bench.change(aid, receives=False)
        bench.plane.give(aid, b"not any more", sender)
        for stranger in (direct, 0x7FFF_FFFF):
            bench.plane.give(stranger, b"of no upstream", sender)
        counters = bench.plane.counters()
        assert counters.drops == {
            DropReason.TOO_LARGE: 1,
            DropReason.UNEXPECTED_REMOTE: 1,
            DropReason.UNKNOWN_AID: 2,
        }
        assert (counters.received_outside, counters.sent_inside) == (9, 5)

    on_plane(plane, test)


@every_plane
def test_encapsulated_datagrams_go_through_an_upstream_too(plane: str) -> None:
    frames: list[tuple[int, int, bytes]] = []
    taken: list[bytes] = []

    def sink(channel: int, aid: int, body: bytes) -> list[int]:
        frames.append((channel, aid, body))
        return []

    async def test(bench: Bench) -> None:
        aid = bench.add(None, Endpoint(ip_address("192.0.2.7"), 9), 5, upstream=True)
        bench.plane.divert(aid, taken.append)
        bench.plane.take(5, aid, b"question")
        bench.plane.give(aid, b"answer", None)
        assert (taken, frames) == ([b"question"], [(5, aid, b"answer")])

    on_plane(plane, test, sink=sink)


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
        addition = bench.addition(client.getsockname(), bench.group(), sends=False)
        refused = bench.apply(addition)
        assert isinstance(refused, Failed)
        assert refused.errno == errno.EMFILE
        assert bench.plane.traffic(addition.entry.aid) is None
        assert bench.plane.descriptors() == 2

    on_plane(plane, test, max_sockets=2)


@every_plane
def test_sockets_towards_clients_count_as_well(plane: str) -> None:
    async def test(bench: Bench) -> None:
        bench.add(bench.udp(), Endpoint(IPv4Address("127.0.0.1"), 9))
        another = Endpoint(IPv4Address("127.0.0.2"), bench.inside.port)
        with pytest.raises(OSError, match="the relay is full: 2 UDP sockets") as refused:
            bench.plane.open_inside(another)
        assert refused.value.errno == errno.EMFILE
        assert bench.plane.descriptors() == 2
        bench.plane.open_inside(bench.inside)  # it is there already
        bench.apply(RemoveEntry(next(iter(bench.terms))))
        bench.plane.open_inside(another)
        assert bench.plane.descriptors() == 2

    on_plane(plane, test, max_sockets=2)


@every_plane
def test_an_endpoint_of_the_relays_own_is_no_clients(plane: str) -> None:
    """Datagrams would go round for ever."""

    async def test(bench: Bench) -> None:
        another = Endpoint(IPv4Address("127.0.0.2"), bench.inside.port)
        bench.plane.open_inside(another)
        before = bench.plane.descriptors()
        for own in (bench.inside, another):
            for remote in (Endpoint(IPv4Address("127.0.0.1"), 9), bench.group()):
                addition = bench.addition((str(own.host), own.port), remote)
                refused = bench.apply(addition)
                assert isinstance(refused, Failed)
                assert refused.errno == errno.EPERM
                assert of_errno(refused.errno) == ReplyCode.NOT_ALLOWED
                assert bench.plane.traffic(addition.entry.aid) is None
        assert bench.plane.descriptors() == before
        bench.add(("127.0.0.3", bench.inside.port), Endpoint(IPv4Address("127.0.0.1"), 9))

    on_plane(plane, test)


@every_plane
def test_an_unknown_entry_fails_and_says_so(plane: str) -> None:
    async def test(bench: Bench) -> None:
        addition = bench.addition(bench.udp().getsockname(), bench.group())
        for change in (RemoveEntry(addition.entry.aid), ChangeEntry(addition.entry.aid, addition.terms)):
            assert isinstance(bench.apply(change), Failed)

    on_plane(plane, test)


@every_plane
def test_a_family_that_the_outside_lacks_fails(plane: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without_ipv6 = type(LOOPBACK)(LOOPBACK.name, LOOPBACK.index, LOOPBACK.ipv4, None)
    monkeypatch.setattr("tests.planes.bench.LOOPBACK", without_ipv6)

    async def test(bench: Bench) -> None:
        addition = bench.addition(bench.udp().getsockname(), Endpoint(IPv6Address("::1"), 9))
        failed = bench.apply(addition)
        assert isinstance(failed, Failed)
        assert failed.errno == errno.EAFNOSUPPORT
        assert bench.plane.descriptors() == 1

    on_plane(plane, test)


@every_plane
@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.EACCES, "CAP_NET_BIND_SERVICE"),
        (errno.EADDRINUSE, "another program holds this group's port"),
        (errno.ENOBUFS, "net.ipv4.igmp_max_memberships"),
    ],
)
def test_a_join_that_the_kernel_refuses_says_what_to_change(
    plane: str, number: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> socket.socket:
        raise OSError(number, "as the kernel says it")

    monkeypatch.setattr("mcastsocks.planes.sockets.open_group", refuse)

    async def test(bench: Bench) -> None:
        addition = bench.addition(bench.udp().getsockname(), bench.group(), sends=False)
        failed = bench.apply(addition)
        assert isinstance(failed, Failed)
        assert told in failed.why
        assert bench.plane.descriptors() == 1

    on_plane(plane, test)


@every_plane
@pytest.mark.parametrize("over_tcp", [False, True])
def test_where_the_rule_demands_it_what_is_not_rtp_is_dropped(plane: str, over_tcp: bool) -> None:
    """For a group and for a host, out and in, and for copies to other receivers."""
    rtp, junk = bytes.fromhex("8060 1234 00000001 deadbeef") + b"sound", b"no sound"
    frames: list[bytes] = []

    def sink(channel: int, aid: int, body: bytes) -> list[int]:
        frames.append(body)
        return []

    async def test(bench: Bench) -> None:
        client, other, remote, group = bench.udp(), bench.udp(), bench.udp(), bench.group()
        receiver = None if over_tcp else other
        strict = bench.add(receiver, group, channel=2, sends=False, receives_rtp=True)
        speaks = bench.add(client, group, receives=False, ttl=1)
        asks = bench.add(client, remote_of(remote), sends_rtp=True, receives_rtp=True)
        for data in (junk, rtp):
            bench.send(client, speaks, data)
            bench.send(client, asks, data)
        octets, back = await bench.receive(remote)
        assert octets == rtp
        for data in (junk, rtp):
            remote.sendto(data, (str(back.host), back.port))
        assert await bench.received(client) == (asks, rtp)
        counters = bench.plane.counters()
        await bench.settled(lambda: counters.drops[DropReason.NOT_RTP] == 3)
        assert frames == [rtp] if over_tcp else await bench.received(other) == (strict, rtp)

    on_plane(plane, test, sink=sink)


@every_plane
def test_what_a_client_sent_before_it_went_is_relayed(plane: str) -> None:
    """Its control channel's end is another socket's, and may be read first."""

    async def test(bench: Bench) -> None:
        client, remote = bench.udp(), bench.udp()
        aid = bench.add(client, remote_of(remote))
        for number in range(20):
            bench.send(client, aid, bytes((number,)))
        bench.plane.catch_up(bench.inside)
        removed = bench.apply(RemoveEntry(aid))
        assert isinstance(removed, Done)
        assert removed.traffic is not None
        assert removed.traffic.to_remote_datagrams == 20
        assert [(await bench.receive(remote))[0] for _ in range(20)] == [bytes((number,)) for number in range(20)]

    on_plane(plane, test)
