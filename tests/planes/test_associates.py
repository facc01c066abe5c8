"""UDP ASSOCIATE as every plane does it: who may send, where to, in what order, and what comes back; on loopback."""

from __future__ import annotations

import errno
import socket
import struct
from functools import partial
from ipaddress import IPv4Address, ip_address
from typing import Any

import pytest

from mcastsocks.address import Endpoint
from mcastsocks.planes import associates, waiting
from mcastsocks.planes.counters import DropReason
from mcastsocks.tables.changes import Answers, Done, Failed, ForgetRoutes
from mcastsocks.tables.reassembly import QueueEnd
from tests.planes.bench import PLANES
from tests.planes.doors import Doors, block, header, named, on_doors, remote_of

every_plane = pytest.mark.parametrize("plane", PLANES)
LOOPBACK = IPv4Address("127.0.0.1")
UNLEARNT = ("127.0.0.1", 0)
BY_NAME = Endpoint("files.example", 4004)
NAMED = ("files.example", 4004)


# There and back


@every_plane
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_datagram_goes_where_it_says_and_the_answer_says_where_it_comes_from(plane: str, host: str) -> None:
    async def test(doors: Doors) -> None:
        client, remote = doors.bench.udp(), doors.bench.udp(host)
        doors.open(client)
        doors.send(client, named(remote), b"question")
        outside = await doors.reaches(remote, b"question")
        remote.sendto(b"answer", outside)
        assert await doors.received(client) == header(named(remote)) + b"answer"
        traffic = doors.traffic()
        assert (traffic.to_remote_datagrams, traffic.to_remote_octets) == (1, 8)
        assert (traffic.to_client_datagrams, traffic.to_client_octets) == (1, 6)
        assert doors.remove() == traffic

    on_doors(plane, test)


@every_plane
def test_a_client_by_ipv6_reaches_remotes_of_both_families(plane: str) -> None:
    async def test(doors: Doors) -> None:
        client, old, new = doors.bench.udp("::1"), doors.bench.udp(), doors.bench.udp("::1")
        doors.door = doors.free_door("::1")
        doors.open(client)
        for remote in (old, new):
            doors.send(client, named(remote), b"hello")
            outside = await doors.reaches(remote, b"hello")
            remote.sendto(b"welcome", outside)
            assert await doors.received(client) == header(named(remote)) + b"welcome"

    on_doors(plane, test)


@every_plane
def test_every_destination_of_a_client_sees_the_same_outside_endpoint(plane: str) -> None:
    async def test(doors: Doors) -> None:
        client, remotes = doors.bench.udp(), [doors.bench.udp() for _ in range(3)]
        doors.open(client)
        for remote in remotes:
            doors.send(client, named(remote), b"x")
        assert len({await doors.reaches(remote, b"x") for remote in remotes}) == 1

    on_doors(plane, test)


@every_plane
def test_an_empty_datagram_is_one(plane: str) -> None:
    async def test(doors: Doors) -> None:
        client, remote = doors.bench.udp(), doors.bench.udp()
        doors.open(client)
        doors.send(client, named(remote))
        remote.sendto(b"", await doors.reaches(remote, b""))
        assert await doors.received(client) == header(named(remote))

    on_doors(plane, test)


@every_plane
@pytest.mark.parametrize("octets", [1_472, 1_490, 16_384, 65_497])
def test_large_datagrams_come_through_whole(plane: str, octets: int) -> None:
    async def test(doors: Doors) -> None:
        client, remote = doors.bench.udp(), doors.bench.udp()
        doors.open(client)
        data = bytes(range(256)) * 256
        doors.send(client, named(remote), data[:octets])
        remote.sendto(data[-octets:], await doors.reaches(remote, data[:octets]))
        assert await doors.received(client) == header(named(remote)) + data[-octets:]

    on_doors(plane, test)


@every_plane
def test_what_has_no_room_beside_the_header_is_dropped(plane: str) -> None:
    async def test(doors: Doors) -> None:
        client, remote = doors.bench.udp(), doors.bench.udp()
        doors.open(client)
        doors.send(client, named(remote), b"x")
        outside = await doors.reaches(remote, b"x")
        remote.sendto(bytes(65_507), outside)
        remote.sendto(bytes(65_498), outside)
        remote.sendto(bytes(65_497), outside)
        assert len(await doors.received(client)) == 65_507
        assert doors.counters.drops == {DropReason.TOO_LARGE: 2}
        assert doors.traffic().dropped_datagrams == 2

    on_doors(plane, test)


@every_plane
def test_dscp_is_the_routes_and_ecn_the_datagrams(plane: str) -> None:
    async def test(doors: Doors) -> None:
        client, marked, plain = doors.bench.udp(), doors.bench.udp(), doors.bench.udp()
        for sock in (client, marked, plain):
            sock.setsockopt(socket.IPPROTO_IP, 13, 1)  # IP_RECVTOS
        client.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0x29)
        doors.open(client)
        doors.asked.answers = False
        doors.route(remote_of(marked), remote_of(marked), dscp=46)
        doors.route(remote_of(plain), remote_of(plain))
        for remote, tos in ((marked, 46 << 2 | 1), (plain, 0x29)):
            outside_before, inside_before = doors.counters.sent_outside, doors.counters.sent_inside
            doors.send(client, named(remote), b"x")
            await doors.settled(partial(doors.has_sent, outside_before + 1, inside_before))
            _, ancillary, _, outside = remote.recvmsg(100, 100)
            assert ancillary[0][2][0] == tos
            remote.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0x88)
            remote.sendto(b"y", outside)
            await doors.settled(partial(doors.has_sent, outside_before + 1, inside_before + 1))
            assert client.recvmsg(100, 100)[1][0][2][0] == 0x88

    on_doors(plane, test)


# Asking, and waiting for the answer


@every_plane
def test_a_destination_is_asked_for_once_and_what_waits_goes_out_in_order(plane: str) -> None:
    async def test(doors: Doors) -> None:
        client, remote = doors.bench.udp(), doors.bench.udp()
        doors.open(client)
        for number in range(5):
            doors.send(client, NAMED, bytes((number,)))
        await doors.settled(lambda: doors.counters.waiting == 5)
        assert doors.asked.destinations == [(1, BY_NAME)]
        expected = doors.outside(BY_NAME, remote_of(remote))
        doors.send(client, NAMED, b"later")
        for number in range(5):
            outside = await doors.reaches(remote, bytes((number,)))
        assert expected == Endpoint(LOOPBACK, outside[1])
        await doors.reaches(remote, b"later")
        assert doors.asked.destinations == [(1, BY_NAME)]
        assert doors.counters.waiting == 0

    on_doors(plane, test)


@every_plane
def test_one_destination_that_waits_holds_no_other_up(plane: str) -> None:
    async def test(doors: Doors) -> None:
        client, slow, quick = doors.bench.udp(), doors.bench.udp(), doors.bench.udp()
        doors.open(client)
        doors.send(client, NAMED, b"slow")
        doors.send(client, named(quick), b"quick")
        await doors.reaches(quick, b"quick")
        doors.route(BY_NAME, remote_of(slow))
        await doors.reaches(slow, b"slow")

    on_doors(plane, test)


@every_plane
def test_a_name_is_answered_from_by_the_address_behind_it(plane: str) -> None:
    async def test(doors: Doors) -> None:
        client, remote = doors.bench.udp(), doors.bench.udp()
        doors.open(client)
        doors.route(BY_NAME, remote_of(remote))
        doors.send(client, NAMED, b"x")
        remote.sendto(b"y", await doors.reaches(remote, b"x"))
        assert await doors.received(client) == header(named(remote)) + b"y"

    on_doors(plane, test)


@every_plane
@pytest.mark.parametrize("spelling", ["FILES.Example", "files.example.", "::ffff:127.0.0.1", "0.0.0.0", "!"])
def test_an_answer_finds_what_waits_for_it_however_the_destination_is_spelt(plane: str, spelling: str) -> None:
    async def test(doors: Doors) -> None:
        client, remote = doors.bench.udp(), doors.bench.udp()
        doors.asked.answers = False
        doors.open(client)
        doors.send(client, (spelling, 4004), b"x")
        await doors.settled(lambda: doors.counters.waiting == 1)
        [(_, destination)] = doors.asked.destinations
        doors.route(destination, remote_of(remote))
        await doors.reaches(remote, b"x")
        assert doors.counters.waiting == 0

    on_doors(plane, test)


@every_plane
@pytest.mark.parametrize("reason", [DropReason.NOT_ALLOWED, DropReason.UNRESOLVED, DropReason.BAD_ADDRESS])
def test_what_is_refused_is_dropped_for_that_reason_and_not_asked_for_again(plane: str, reason: DropReason) -> None:
    async def test(doors: Doors) -> None:
        client = doors.bench.udp()
        doors.open(client)
        for _ in range(2):
            doors.send(client, NAMED, b"x")
        await doors.settled(lambda: doors.counters.waiting == 2)
        assert doors.route(BY_NAME, None, refused=reason) == Done()
        doors.send(client, NAMED, b"x")
        await doors.settled(lambda: doors.counters.drops.total() == 3)
        assert doors.counters.drops == {reason: 3}
        assert doors.asked.destinations == [(1, BY_NAME)]
        assert doors.traffic().dropped_datagrams == 3

    on_doors(plane, test)


@every_plane
def test_a_better_answer_replaces_a_refusal(plane: str) -> None:
    async def test(doors: Doors) -> None:
        client, remote = doors.bench.udp(), doors.bench.udp()
        doors.open(client)
        doors.route(BY_NAME, None, refused="not-allowed")
        doors.route(BY_NAME, remote_of(remote))
        doors.send(client, NAMED, b"x")
        await doors.reaches(remote, b"x")

    on_doors(plane, test)


@every_plane
def test_a_family_that_the_outside_does_not_speak_is_unreachable(plane: str) -> None:
    async def test(doors: Doors) -> None:
        client, remote = doors.bench.udp(), doors.bench.udp("::1")
        doors.open(client)
        doors.asked.answers = False
        doors.send(client, named(remote), b"x")
        await doors.settled(lambda: doors.counters.waiting == 1)
        doors.bench.forget_ipv6()
        refused = doors.route(remote_of(remote), remote_of(remote))
        assert isinstance(refused, Failed)
        assert refused.errno == errno.EAFNOSUPPORT
        assert doors.counters.drops == {DropReason.UNREACHABLE: 1}
        doors.send(client, named(remote), b"x")
        await doors.settled(lambda: doors.counters.drops == {DropReason.UNREACHABLE: 2})

    on_doors(plane, test)


@every_plane
def test_only_so_many_datagrams_wait_for_one_destination(plane: str) -> None:
    async def test(doors: Doors) -> None:
        client, remote = doors.bench.udp(), doors.bench.udp()
        doors.open(client)
        for number in range(20):
            doors.send(client, NAMED, bytes((number,)))
        await doors.settled(lambda: doors.counters.received_inside == 20)
        assert (doors.counters.waiting, doors.counters.drops) == (16, {DropReason.NOT_WAITING: 4})
        doors.route(BY_NAME, remote_of(remote))
        for number in range(16):
            await doors.reaches(remote, bytes((number,)))

    on_doors(plane, test)


@every_plane
def test_only_so_many_destinations_are_waited_for(plane: str) -> None:
    async def test(doors: Doors) -> None:
        client = doors.bench.udp()
        doors.open(client)
        for number in range(70):
            doors.send(client, (f"n{number}.example", 9), b"x")
        await doors.settled(lambda: doors.counters.received_inside == 70)
        assert len(doors.asked.destinations) == 64
        assert (doors.counters.waiting, doors.counters.drops) == (64, {DropReason.NOT_WAITING: 6})
        for channel, destination in doors.asked.destinations:
            doors.route(destination, None, channel, refused="unresolved")
        doors.send(client, ("n69.example", 9), b"x")
        await doors.settled(lambda: doors.counters.waiting == 1)

    on_doors(plane, test)


@every_plane
def test_only_so_many_octets_wait_for_one_and_in_all(plane: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for a name; where an address is asked for, it is answered at once."""
    monkeypatch.setattr(waiting, "_WAITING_OCTETS", 1 << 20)

    async def test(doors: Doors) -> None:
        clients = [doors.bench.udp() for _ in range(12)]
        for channel, client in enumerate(clients):
            doors.open(client, channel)
            for number in range(16):
                doors.send(client, NAMED, bytes(60_000))
                await doors.settled(partial(doors.has_received, channel * 16 + number + 1))
            assert doors.counters.waiting == min(4 * (channel + 1), (1 << 20) // 60_000)
        assert doors.counters.drops == {DropReason.NOT_WAITING: 12 * 16 - doors.counters.waiting}
        doors.send(clients[-1], ("192.0.2.1", 9), bytes(60_000))
        await doors.settled(lambda: doors.asked.destinations[-1][1] == Endpoint(ip_address("192.0.2.1"), 9))
        doors.remove(0)
        doors.send(clients[-1], ("other.example", 9), bytes(60_000))
        await doors.settled(lambda: len(doors.asked.destinations) and doors.asked.destinations[-1][1].port == 9)

    on_doors(plane, test)


@every_plane
def test_more_destinations_than_are_remembered_are_asked_for_again(plane: str) -> None:
    async def test(doors: Doors) -> None:
        client, remote = doors.bench.udp(), doors.bench.udp()
        doors.open(client)
        doors.asked.answers = False
        for number in range(1025):
            doors.route(Endpoint(f"n{number}.example", 9), remote_of(remote))
        doors.send(client, ("n1.example", 9), b"remembered")
        await doors.reaches(remote, b"remembered")
        doors.send(client, ("n0.example", 9), b"forgotten")
        await doors.settled(lambda: doors.counters.waiting == 1)
        assert doors.asked.destinations == [(1, Endpoint("n0.example", 9))]

    on_doors(plane, test)


@every_plane
def test_routes_are_asked_for_again_from_time_to_time(plane: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(associates, "_WAYS_AGE_S", 0.05)

    async def test(doors: Doors) -> None:
        client, remote = doors.bench.udp(), doors.bench.udp()
        doors.open(client)
        doors.send(client, named(remote), b"x")
        outside = await doors.reaches(remote, b"x")
        while len(doors.asked.destinations) < 3:
            doors.send(client, named(remote), b"x")
            assert await doors.reaches(remote, b"x") == outside
        remote.sendto(b"y", outside)
        assert await doors.received(client) == header(named(remote)) + b"y"

    on_doors(plane, test)


# Whose datagrams a door takes


@every_plane
def test_a_client_that_announced_no_port_is_learnt_once_and_pinned(plane: str) -> None:
    async def test(doors: Doors) -> None:
        thief, client, later, remote = (doors.bench.udp(host) for host in ("127.0.0.2", *["127.0.0.1"] * 3))
        doors.open(UNLEARNT)
        doors.send(thief, named(remote), b"mine")
        doors.send(client, named(remote), b"here I am")
        doors.send(later, named(remote), b"me too")
        remote.sendto(b"answer", await doors.reaches(remote, b"here I am"))
        assert await doors.received(client) == header(named(remote)) + b"answer"
        await doors.settled(lambda: doors.counters.drops == {DropReason.WRONG_ADDRESS: 2})
        assert doors.bench.nothing_waits_for(later)
        assert doors.bench.nothing_waits_for(thief)

    on_doors(plane, test)


@every_plane
def test_only_what_is_well_formed_teaches(plane: str) -> None:
    async def test(doors: Doors) -> None:
        noise, client, remote = doors.bench.udp(), doors.bench.udp(), doors.bench.udp()
        doors.open(UNLEARNT)
        for octets in (b"", b"\0\0", b"\1\0" + header(named(remote))[2:], header(named(remote))[:-1], b"GET / HTTP"):
            doors.write(noise, octets)
        doors.send(client, named(remote), b"x")
        await doors.reaches(remote, b"x")
        assert doors.counters.drops.total() == 5

    on_doors(plane, test)


@every_plane
def test_an_announced_client_is_held_to_its_address_and_port(plane: str) -> None:
    async def test(doors: Doors) -> None:
        client, port_thief, address_thief, remote = (
            doors.bench.udp(host) for host in ("127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.1")
        )
        doors.open(client)
        for thief in (port_thief, address_thief):
            doors.send(thief, named(remote), b"stolen")
        doors.send(client, named(remote), b"mine")
        await doors.reaches(remote, b"mine")
        assert doors.counters.drops == {DropReason.WRONG_ADDRESS: 2}
        assert not doors.traffic().dropped_datagrams, "not the client's doing"

    on_doors(plane, test)


@every_plane
def test_an_answer_before_the_client_has_shown_itself_is_dropped(plane: str) -> None:
    async def test(doors: Doors) -> None:
        remote = doors.bench.udp()
        doors.open(UNLEARNT)
        outside = doors.outside(remote_of(remote), remote_of(remote))
        remote.sendto(b"early", ("127.0.0.1", outside.port))
        await doors.settled(lambda: doors.counters.drops == {DropReason.ENDPOINT_UNKNOWN: 1})

    on_doors(plane, test)


@every_plane
def test_several_clients_at_one_door_are_told_apart(plane: str) -> None:
    async def test(doors: Doors) -> None:
        clients = [doors.bench.udp(), doors.bench.udp(), doors.bench.udp("127.0.0.2"), doors.bench.udp("127.0.0.3")]
        remote = doors.bench.udp()
        for channel, client in enumerate(clients[:3]):
            doors.open(client, channel)
        doors.open(("127.0.0.3", 0), 3)
        assert doors.plane.descriptors() == 2, "the bench's own and one door for all"
        outsides = []
        for channel, client in enumerate(clients):
            doors.send(client, named(remote), bytes((channel,)))
            outsides.append(await doors.reaches(remote, bytes((channel,))))
        assert len(set(outsides)) == 4
        for channel, outside in enumerate(outsides):
            remote.sendto(bytes((channel,)), outside)
        for channel, client in enumerate(clients):
            assert await doors.received(client) == header(named(remote)) + bytes((channel,))
            assert doors.traffic(channel).to_client_datagrams == 1

    on_doors(plane, test)


@every_plane
def test_two_clients_that_could_not_be_told_apart_do_not_share_a_door(plane: str) -> None:
    async def test(doors: Doors) -> None:
        client, remote = doors.bench.udp(), doors.bench.udp()
        doors.open(client)
        doors.open(UNLEARNT, 2)
        for sockaddr in (client.getsockname(), UNLEARNT):
            refused = doors.add(sockaddr, 3)
            assert isinstance(refused, Failed)
            assert refused.errno == errno.EADDRINUSE
        doors.send(client, named(remote), b"x")
        await doors.reaches(remote, b"x")
        assert doors.traffic().to_remote_datagrams == 1

    on_doors(plane, test)


@every_plane
def test_a_door_takes_the_next_unlearnt_client_of_an_address_when_the_first_is_known(plane: str) -> None:
    async def test(doors: Doors) -> None:
        first, second, remote = doors.bench.udp(), doors.bench.udp(), doors.bench.udp()
        doors.open(UNLEARNT, 1)
        doors.send(first, named(remote), b"1")
        await doors.reaches(remote, b"1")
        doors.open(UNLEARNT, 2)
        doors.send(second, named(remote), b"2")
        await doors.reaches(remote, b"2")
        assert (doors.traffic(1).to_remote_datagrams, doors.traffic(2).to_remote_datagrams) == (1, 1)
        assert isinstance(doors.add(first, 3), Failed), "learnt is as good as announced"
        doors.remove(1)
        doors.send(first, named(remote), b"gone")
        await doors.settled(lambda: doors.counters.drops == {DropReason.WRONG_ADDRESS: 1})

    on_doors(plane, test)


# Who may answer


ADMITTED = {
    # what: answers, of which remotes (the one sent to, its host's other port, another host) those get through
    "any port of the host": (Answers.CONTACTED_HOST, (True, True, False)),
    "exactly": (Answers.EXACT, (True, False, False)),
    "anybody": (Answers.ANYONE, (True, True, True)),
}


@every_plane
@pytest.mark.parametrize(("answers", "admitted"), ADMITTED.values(), ids=ADMITTED)
def test_answers_are_taken_from(plane: str, answers: Answers, admitted: tuple[bool, ...]) -> None:
    async def test(doors: Doors) -> None:
        client, last = doors.bench.udp(), doors.bench.udp()
        remotes = [doors.bench.udp(host) for host in ("127.0.0.5", "127.0.0.5", "127.0.0.6")]
        doors.open(client, answers=answers)
        doors.send(client, named(last), b"x")
        await doors.reaches(last, b"x")
        doors.send(client, named(remotes[0]), b"x")
        outside = await doors.reaches(remotes[0], b"x")
        for remote in remotes:
            remote.sendto(b"y", outside)
        last.sendto(b"end", outside)
        for remote, is_admitted in zip(remotes, admitted, strict=True):
            if is_admitted:
                assert await doors.received(client) == header(named(remote)) + b"y"
        assert await doors.received(client) == header(named(last)) + b"end"
        assert doors.counters.drops[DropReason.UNEXPECTED_REMOTE] == admitted.count(False)

    on_doors(plane, test)


@every_plane
def test_a_refused_destination_may_not_answer(plane: str) -> None:
    async def test(doors: Doors) -> None:
        client, remote, refused = doors.bench.udp(), doors.bench.udp(), doors.bench.udp("127.0.0.7")
        doors.open(client)
        doors.route(remote_of(refused), None, refused="not-allowed")
        doors.send(client, named(refused), b"x")
        doors.send(client, named(remote), b"x")
        refused.sendto(b"y", await doors.reaches(remote, b"x"))
        await doors.settled(lambda: doors.counters.received_outside == 1)
        assert doors.counters.drops == {DropReason.NOT_ALLOWED: 1, DropReason.UNEXPECTED_REMOTE: 1}
        assert doors.bench.nothing_waits_for(client)

    on_doors(plane, test)


@every_plane
def test_of_many_remotes_the_one_that_was_longest_not_sent_to_may_answer_no_more(plane: str) -> None:
    async def test(doors: Doors) -> None:
        client = doors.bench.udp()
        first, second, last = (doors.bench.udp(host) for host in ("127.0.0.5", "127.0.0.6", "127.0.0.1"))
        doors.open(client)
        outside = doors.outside(remote_of(first), remote_of(first))
        doors.outside(remote_of(second), remote_of(second))
        for number in range(4094):
            other = Endpoint(IPv4Address("127.1.0.0") + number, 9)
            doors.outside(other, other)
        doors.outside(remote_of(first), remote_of(first))
        doors.outside(remote_of(last), remote_of(last))
        for remote in (second, first, last):
            remote.sendto(b"y", ("127.0.0.1", outside.port))
        for remote in (first, last):
            assert await doors.received(client) == header(named(remote)) + b"y"
        assert doors.counters.drops == {DropReason.UNEXPECTED_REMOTE: 1}

    on_doors(plane, test)


# Through another relay


@every_plane
def test_through_an_upstream_relay_headers_go_along(plane: str) -> None:
    async def test(doors: Doors) -> None:
        client, upstream = doors.bench.udp(), doors.bench.udp("127.0.0.8")
        far = ("198.51.100.1", 4004)
        doors.open(client)
        doors.send(client, NAMED, b"question")
        await doors.settled(lambda: doors.counters.waiting == 1)
        target = Endpoint(IPv4Address(far[0]), far[1])
        outside = doors.outside(BY_NAME, target, through=remote_of(upstream))
        assert await doors.reaches(upstream, header(far) + b"question") == ("127.0.0.1", outside.port)
        for source in (far, ("2001:db8::1", 9)):
            upstream.sendto(header(source) + b"answer", ("127.0.0.1", outside.port))
            assert await doors.received(client) == header(source) + b"answer"
        traffic = doors.traffic()
        assert (traffic.to_remote_octets, traffic.to_client_octets) == (8, 12)

    on_doors(plane, test)


@every_plane
def test_what_an_upstream_relay_sends_amiss_is_dropped(plane: str) -> None:
    async def test(doors: Doors) -> None:
        client, upstream, neighbour = doors.bench.udp(), doors.bench.udp("127.0.0.8"), doors.bench.udp("127.0.0.8")
        doors.open(client)
        outside = doors.outside(BY_NAME, Endpoint(LOOPBACK, 9), through=remote_of(upstream))
        to_relay = ("127.0.0.1", outside.port)
        for octets in (b"", header(NAMED, 1), header(NAMED), b"\1" + header(("127.0.0.1", 9))[1:]):
            upstream.sendto(octets, to_relay)
        neighbour.sendto(header(("127.0.0.1", 9)) + b"from another port", to_relay)
        upstream.sendto(header(("127.0.0.1", 9)), to_relay)
        assert await doors.received(client) == header(("127.0.0.1", 9))
        assert doors.counters.drops == {
            DropReason.RUNT: 1,
            DropReason.BAD_FRAGMENT: 1,
            DropReason.BAD_ADDRESS: 1,
            DropReason.RESERVED_BITS: 1,
            DropReason.UNEXPECTED_REMOTE: 1,
        }

    on_doors(plane, test)


@every_plane
def test_when_routes_are_forgotten_destinations_are_asked_for_and_upstream_relays_unknown(plane: str) -> None:
    async def test(doors: Doors) -> None:
        client, upstream = doors.bench.udp(), doors.bench.udp("127.0.0.8")
        doors.open(client)
        outside = doors.outside(BY_NAME, Endpoint(LOOPBACK, 9), through=remote_of(upstream))
        assert doors.bench.apply(ForgetRoutes(1)) == Done()
        doors.send(client, NAMED, b"x")
        await doors.settled(lambda: doors.counters.waiting == 1)
        upstream.sendto(header(("127.0.0.1", 9)) + b"late", ("127.0.0.1", outside.port))
        await doors.settled(lambda: doors.counters.drops == {DropReason.UNEXPECTED_REMOTE: 1})

    on_doors(plane, test)


# What is malformed


FLAWED = {
    # what: reason, octets
    "nothing": (DropReason.RUNT, ""),
    "two octets": (DropReason.RUNT, "0000"),
    "no address": (DropReason.RUNT, "000000"),
    "half an address": (DropReason.RUNT, "000000 01 7f0000"),
    "no port": (DropReason.RUNT, "000000 01 7f000001 00"),
    "half a name": (DropReason.RUNT, "000000 03 05 6162"),
    "reserved octets": (DropReason.RESERVED_BITS, "000100 01 7f000001 0009"),
    "reserved octets, the first": (DropReason.RESERVED_BITS, "010000 01 7f000001 0009"),
    "an end without a position": (DropReason.BAD_FRAGMENT, "000080 01 7f000001 0009"),
    "an unknown kind of address": (DropReason.BAD_ADDRESS, "000000 02 7f000001 0009"),
    "nobody": (DropReason.BAD_ADDRESS, "000000 00 00000000 0000"),
    "an empty name": (DropReason.BAD_ADDRESS, "000000 03 00 0009"),
    "a name that is none": (DropReason.BAD_ADDRESS, "000000 03 02 0aff 0009"),
}


@every_plane
@pytest.mark.parametrize(("reason", "octets"), FLAWED.values(), ids=FLAWED)
def test_what_is_malformed_is_dropped_by_its_reason(plane: str, reason: DropReason, octets: str) -> None:
    async def test(doors: Doors) -> None:
        client, remote = doors.bench.udp(), doors.bench.udp()
        doors.open(client)
        doors.write(client, bytes.fromhex(octets))
        doors.send(client, named(remote), b"afterwards")
        await doors.reaches(remote, b"afterwards")
        assert doors.counters.drops == {reason: 1}

    on_doors(plane, test)


# Sockets


@every_plane
def test_the_end_of_an_association_closes_what_was_opened_for_it(plane: str) -> None:
    async def test(doors: Doors) -> None:
        client, other, old, new = (doors.bench.udp(host) for host in ("127.0.0.1", "127.0.0.1", "127.0.0.1", "::1"))
        before = doors.plane.descriptors()
        doors.open(client)
        doors.open(other, 2)
        for remote in (old, new):
            doors.send(client, named(remote), b"x")
            outside = await doors.reaches(remote, b"x")
        doors.send(client, NAMED, b"still waits")
        await doors.settled(lambda: doors.counters.waiting == 1)
        assert doors.plane.descriptors() == before + 3, "a door and two families outside"
        traffic = doors.remove()
        assert (doors.counters.waiting, doors.counters.drops) == (0, {DropReason.UNRESOLVED: 1})
        assert (traffic.to_remote_datagrams, traffic.dropped_datagrams) == (2, 1)
        assert doors.plane.descriptors() == before + 1
        doors.send(client, named(old), b"late")
        doors.send(other, named(old), b"the other's")
        await doors.reaches(old, b"the other's")
        new.connect(outside)
        new.send(b"late")
        with pytest.raises(ConnectionRefusedError):
            new.recv(1)
        doors.remove(2)
        assert doors.plane.descriptors() == before
        client.connect((str(doors.door.host), doors.door.port))
        client.send(b"late")
        with pytest.raises(ConnectionRefusedError):
            client.recv(1)
        assert doors.plane.associate_traffic(2) is None

    on_doors(plane, test)


@every_plane
def test_a_door_whose_port_another_program_has_is_refused_and_takes_nothing(plane: str) -> None:
    async def test(doors: Doors) -> None:
        before = doors.plane.descriptors()
        taken = socket.socket(type=socket.SOCK_DGRAM)
        with taken:
            taken.bind(("127.0.0.1", 0))
            doors.door = remote_of(taken)
            refused = doors.add(UNLEARNT)
            assert isinstance(refused, Failed)
            assert refused.errno == errno.EADDRINUSE
        assert doors.plane.descriptors() == before
        assert doors.plane.associate_traffic(1) is None
        doors.open(UNLEARNT)

    on_doors(plane, test)


@every_plane
def test_a_plane_without_a_descriptor_left_refuses_and_drops(plane: str) -> None:
    async def test(doors: Doors) -> None:
        client, remote = doors.bench.udp(), doors.bench.udp()
        doors.open(client)
        doors.asked.answers = False
        refused = doors.route(remote_of(remote), remote_of(remote))
        assert isinstance(refused, Failed)
        assert refused.errno == errno.EMFILE
        doors.send(client, named(remote), b"x")
        await doors.settled(lambda: doors.counters.drops == {DropReason.UNREACHABLE: 1})
        door, doors.door = doors.door, doors.free_door()
        refused = doors.add(UNLEARNT, 2)
        assert isinstance(refused, Failed)
        assert refused.errno == errno.EMFILE
        doors.door = door
        doors.remove()
        doors.open(UNLEARNT, 2)

    on_doors(plane, test, max_sockets=2)


@every_plane
def test_a_wish_for_an_outside_port_is_met_in_both_families(plane: str) -> None:
    async def test(doors: Doors) -> None:
        client, old, new = doors.bench.udp(), doors.bench.udp(), doors.bench.udp("::1")
        wished = doors.free_door().port
        assert doors.open(client, outside_port=wished).outside == Endpoint(LOOPBACK, wished)
        for remote in (old, new):
            doors.send(client, named(remote), b"x")
            assert (await doors.reaches(remote, b"x"))[1] == wished

    on_doors(plane, test)


@every_plane
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_wish_that_cannot_be_met_in_each_family_is_met_in_none(plane: str, host: str) -> None:
    async def test(doors: Doors) -> None:
        client, remote = doors.bench.udp(), doors.bench.udp()
        before = doors.plane.descriptors()
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind((host, 0))
            wished = remote_of(taken).port
            assert doors.open(client, outside_port=wished).outside is None
            assert doors.plane.descriptors() == before + 1, "the door alone"
            doors.send(client, named(remote), b"x")
            assert (await doors.reaches(remote, b"x"))[1] != wished

    on_doors(plane, test)


# Fragments (RFC 1928 §7)


def pieces_of(doors: Doors, client: socket.socket, remote: socket.socket, *pieces: tuple[int, bytes]) -> None:
    for frag, data in pieces:
        doors.send(client, named(remote), data, frag)


@every_plane
@pytest.mark.parametrize("frag", [0x01, 0x81, 0x7F, 0xFF])
def test_fragments_are_dropped_where_they_are_not_taken(plane: str, frag: int) -> None:
    async def test(doors: Doors) -> None:
        client, remote = doors.bench.udp(), doors.bench.udp()
        doors.open(client)
        pieces_of(doors, client, remote, (frag, b"piece"), (0, b"whole"))
        await doors.reaches(remote, b"whole")
        assert doors.counters.drops == {DropReason.BAD_FRAGMENT: 1}

    on_doors(plane, test)


REASSEMBLED: dict[str, tuple[list[tuple[int, bytes]], list[bytes]]] = {
    # what: pieces in the order sent, what the remote sees
    "two": ([(1, b"a"), (0x82, b"b")], [b"ab"]),
    "one, which is the last": ([(0x81, b"a")], [b"a"]),
    "three": ([(1, b"a"), (2, b""), (0x83, b"c")], [b"ac"]),
    "one after another": ([(1, b"a"), (0x82, b"b"), (1, b"c"), (0x82, b"d")], [b"ab", b"cd"]),
    "a lower one abandons": ([(1, b"a"), (2, b"b"), (1, b"c"), (0x82, b"d")], [b"cd"]),
    "a gap abandons": ([(1, b"a"), (0x83, b"c")], []),
    "FRAG 0 passes and abandons": ([(1, b"a"), (0, b"whole"), (0x82, b"b")], [b"whole"]),
    "no beginning": ([(0x82, b"b")], []),
}


@every_plane
@pytest.mark.parametrize(("pieces", "wholes"), REASSEMBLED.values(), ids=REASSEMBLED)
def test_fragments_make_a_datagram(plane: str, pieces: list[tuple[int, bytes]], wholes: list[bytes]) -> None:
    async def test(doors: Doors) -> None:
        client, remote = doors.bench.udp(), doors.bench.udp()
        doors.open(client)
        pieces_of(doors, client, remote, *pieces, (0, b"end"))
        for whole in (*wholes, b"end"):
            await doors.reaches(remote, whole)
        assert doors.counters.pieces == sum(1 for frag, _ in pieces if frag)

    on_doors(plane, test, socks_fragments=True)


@every_plane
def test_fragments_of_different_clients_or_destinations_do_not_mix(plane: str) -> None:
    async def test(doors: Doors) -> None:
        one, two, remote, other = (doors.bench.udp() for _ in range(4))
        doors.open(one)
        doors.open(two, 2)
        for client, data in ((one, b"1"), (two, b"2")):
            doors.send(client, named(remote), data, 1)
        for client, data in ((two, b"two"), (one, b"one")):
            doors.send(client, named(remote), data, 0x82)
        await doors.reaches(remote, b"2two")
        await doors.reaches(remote, b"1one")
        doors.send(one, named(remote), b"a", 1)
        doors.send(one, named(other), b"b", 0x82)
        doors.send(one, named(other), b"end")
        await doors.reaches(other, b"end")

    on_doors(plane, test, socks_fragments=True)


@every_plane
def test_what_is_left_of_fragments_ends_with_its_association(plane: str) -> None:
    async def test(doors: Doors) -> None:
        client, remote = doors.bench.udp(), doors.bench.udp()
        doors.open(client)
        doors.send(client, named(remote), b"old", 1)
        await doors.settled(lambda: doors.counters.pieces == 1)
        doors.remove()
        assert doors.counters.queues == {QueueEnd.RELEASED: 1}
        doors.open(client)
        pieces_of(doors, client, remote, (0x82, b"new"), (0, b"end"))
        await doors.reaches(remote, b"end")

    on_doors(plane, test, socks_fragments=True)


@every_plane
@pytest.mark.parametrize(("octets", "arrives"), [(65_507, True), (65_508, False), (65_528, False)])
def test_a_datagram_in_fragments_has_as_much_as_udp_carries(plane: str, octets: int, arrives: bool) -> None:
    async def test(doors: Doors) -> None:
        client, remote = doors.bench.udp(), doors.bench.udp()
        doors.open(client)
        pieces_of(doors, client, remote, (1, bytes(40_000)), (0x82, bytes(octets - 40_000)), (0, b"end"))
        if arrives:
            await doors.reaches(remote, bytes(octets))
        await doors.reaches(remote, b"end")

    on_doors(plane, test, socks_fragments=True)


@every_plane
def test_a_large_answer_comes_in_fragments_that_name_its_source(plane: str) -> None:
    async def test(doors: Doors) -> None:
        client, remote = doors.bench.udp(), doors.bench.udp()
        doors.open(client)
        doors.send(client, named(remote), b"x")
        outside = await doors.reaches(remote, b"x")
        data = bytes(range(256)) * 8
        remote.sendto(data, outside)
        pieces = [await doors.received(client) for _ in range(3)]
        assert [len(piece) for piece in pieces] == [1000, 1000, 2048 - 2 * 990 + 10]
        assert [piece[:3].hex() for piece in pieces] == ["000001", "000002", "000083"]
        assert {piece[3:10] for piece in pieces} == {block(named(remote))}
        assert b"".join(piece[10:] for piece in pieces) == data
        remote.sendto(data[:990], outside)
        assert await doors.received(client) == header(named(remote)) + data[:990]
        assert (doors.counters.sent_inside, doors.traffic().to_client_octets) == (2, 2048 + 990)

    on_doors(plane, test, socks_fragments=True, fragment_above=1000)


@every_plane
@pytest.mark.parametrize(
    ("options", "octets"),
    [
        ({"fragment_above": 1000}, 1_200),  # fragments are not taken, so none are given
        ({"fragment_above": 1000}, 65_497),
        ({"socks_fragments": True}, 65_497),
    ],
)
def test_an_answer_stays_whole_where_it_may(plane: str, options: dict[str, Any], octets: int) -> None:
    async def test(doors: Doors) -> None:
        client, remote = doors.bench.udp(), doors.bench.udp()
        doors.open(client)
        doors.send(client, named(remote), b"x")
        remote.sendto(bytes(octets), await doors.reaches(remote, b"x"))
        assert await doors.received(client) == header(named(remote)) + bytes(octets)

    on_doors(plane, test, **options)


@every_plane
def test_the_largest_answer_needs_fragments(plane: str) -> None:
    async def test(doors: Doors) -> None:
        client, remote = doors.bench.udp(), doors.bench.udp()
        doors.open(client)
        doors.send(client, named(remote), b"x")
        remote.sendto(bytes(65_507), await doors.reaches(remote, b"x"))
        pieces = [await doors.received(client) for _ in range(2)]
        assert sum(len(piece) - 10 for piece in pieces) == 65_507

    on_doors(plane, test, socks_fragments=True)


@every_plane
def test_what_127_fragments_do_not_hold_is_dropped(plane: str) -> None:
    async def test(doors: Doors) -> None:
        client, remote = doors.bench.udp(), doors.bench.udp()
        doors.open(client)
        doors.send(client, named(remote), b"x")
        outside = await doors.reaches(remote, b"x")
        remote.sendto(bytes(65_507), outside)
        remote.sendto(bytes(127 * 490), outside)
        for _ in range(127):
            assert len(await doors.received(client)) == 500
        assert doors.counters.drops == {DropReason.TOO_LARGE: 1}

    on_doors(plane, test, socks_fragments=True, fragment_above=500)


@every_plane
def test_what_a_remote_sends_in_one_run_comes_as_single_datagrams(plane: str) -> None:
    """The kernel hands a run over in one piece to whoever asked for that."""

    async def test(doors: Doors) -> None:
        client, remote = doors.bench.udp(), doors.bench.udp()
        doors.open(client)
        doors.send(client, named(remote), b"x")
        outside = await doors.reaches(remote, b"x")
        data = [letter.encode() * 100 for letter in "abcdefghij"]
        cut = (socket.IPPROTO_UDP, 103, struct.pack("@H", 100))  # UDP_SEGMENT
        try:
            remote.sendmsg([*data, b"end"], [cut], 0, outside)
        except OSError:
            pytest.skip("needs Linux 4.18: the kernel does not cut runs")
        for each in (*data, b"end"):
            assert await doors.received(client) == header(named(remote)) + each

    on_doors(plane, test)


@every_plane
def test_what_a_client_sent_before_it_went_is_relayed(plane: str) -> None:
    """Its TCP connection's end is another socket's, and may be read first."""

    async def test(doors: Doors) -> None:
        client, remote = doors.bench.udp(), doors.bench.udp()
        doors.open(client)
        for number in range(20):
            doors.send(client, named(remote), bytes((number,)))
        assert doors.remove().to_remote_datagrams == 20
        assert [(await doors.bench.receive(remote))[0] for _ in range(20)] == [bytes((n,)) for n in range(20)]

    on_doors(plane, test)
