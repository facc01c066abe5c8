"""ICMP errors, and what the kernel has no room for: counted where they belong, on every plane; on loopback."""

from __future__ import annotations

import select
import socket
from ipaddress import ip_address

import pytest

from mcastsocks.address import Endpoint, from_sockaddr
from mcastsocks.planes import linux, sockets
from mcastsocks.planes.counters import DropReason
from mcastsocks.tables.changes import Done, RemoveEntry, Traffic
from mcastsocks.tables.requests import mention_error, refuse
from mcastsocks.wire.control import ControlRequest, Flags, UdpCommand
from mcastsocks.wire.replies import ReplyCode
from tests.planes.bench import PLANES, Bench, on_plane
from tests.planes.doors import Doors, named, on_doors

every_plane = pytest.mark.parametrize("plane", PLANES)
both_versions = pytest.mark.parametrize("host", ["127.0.0.1", "::1"])


def remote_of(sock: socket.socket) -> Endpoint:
    return from_sockaddr(sock.getsockname())


def nobody(host: str) -> Endpoint:
    """A port that refuses."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        return remote_of(sock)


def traffic_of(bench: Bench, aid: int) -> Traffic:
    traffic = bench.plane.traffic(aid)
    assert traffic is not None
    return traffic


def reports_errors(bench: Bench) -> bool:
    """Whether an outside socket would still wake the loop with them."""
    poll = select.poll()
    for outside in bench.plane._outside._open.values():  # type: ignore[attr-defined]
        poll.register(outside.sock, select.POLLERR)
    return bool(poll.poll(0))


@every_plane
@both_versions
@pytest.mark.parametrize("burst", [1, 60])
def test_a_destination_that_refuses_costs_the_others_nothing(plane: str, host: str, burst: int) -> None:
    async def test(bench: Bench) -> None:
        client, remotes = bench.udp(), [bench.udp(host) for _ in range(3)]
        refused = bench.add(client, nobody(host))
        aids = [bench.add(client, remote_of(remote)) for remote in remotes]
        counters = bench.plane.counters()
        for sent in range(0, 120, burst):
            for number in range(sent, sent + burst):
                bench.send(client, refused, b"anybody there?")
                bench.send(client, aids[number % 3], number.to_bytes(2))
            await bench.settled(lambda: counters.sent_outside == 2 * (sent + burst))  # noqa: B023 - waited for here
        for remote, aid in zip(remotes, aids, strict=True):
            got = [(await bench.receive(remote))[0] for _ in range(40)]
            assert got == [number.to_bytes(2) for number in range(aids.index(aid), 120, 3)]
            assert (traffic_of(bench, aid).errors, traffic_of(bench, aid).last_error) == (0, None)
        await bench.settled(lambda: not reports_errors(bench))
        errors = traffic_of(bench, refused).errors
        assert 0 < errors <= 120, "the kernel limits their rate"
        assert counters.errors == {"port-unreachable": errors}
        assert traffic_of(bench, refused).last_error == "port-unreachable"
        assert not counters.drops

    on_plane(plane, test)


@every_plane
@pytest.mark.parametrize("receives", [True, False])
def test_an_error_is_the_associations_that_sends_there(plane: str, receives: bool) -> None:
    async def test(bench: Bench) -> None:
        client, there = bench.udp(), nobody("127.0.0.1")
        aid = bench.add(client, there, sends=True, receives=receives)
        others = [bench.add(bench.udp(), there, channel=2)]
        if not receives:
            others.append(bench.add(client, there, sends=False))
        bench.send(client, aid, b"anybody there?")
        counters = bench.plane.counters()
        await bench.settled(lambda: counters.errors.total() == 1)
        bench.change(aid, ttl=1)
        bench.send(client, aid, b"still nobody?")
        await bench.settled(lambda: counters.errors.total() == 2)
        assert not any(traffic_of(bench, each).errors for each in others)
        removed = bench.apply(RemoveEntry(aid))
        assert isinstance(removed, Done)
        assert removed.traffic is not None
        assert removed.traffic.errors == 2

    on_plane(plane, test)


@every_plane
def test_an_error_about_a_udp_associates_datagram_is_its_own(plane: str) -> None:
    async def test(doors: Doors) -> None:
        client, remote, there = doors.bench.udp(), doors.bench.udp(), nobody("127.0.0.1")
        doors.open(client)
        for number in range(10):
            doors.send(client, (str(there.host), there.port), b"anybody there?")
            doors.send(client, named(remote), number.to_bytes(2))
        assert [(await doors.bench.receive(remote))[0] for _ in range(10)] == [n.to_bytes(2) for n in range(10)]
        await doors.settled(lambda: doors.traffic().errors)
        await doors.settled(lambda: not reports_errors(doors.bench))
        assert doors.traffic().last_error == "port-unreachable"
        assert doors.counters.errors == {"port-unreachable": doors.traffic().errors}
        assert doors.has_sent(20, 0)

    on_doors(plane, test)


@every_plane
@pytest.mark.parametrize("burst", [1, 40])
def test_a_datagram_larger_than_its_way_out_carries_is_dropped_and_no_other(plane: str, burst: int) -> None:
    """IPv6 carries 20 octets more than IPv4."""

    async def test(bench: Bench) -> None:
        inside = Endpoint(ip_address("::1"), bench.inside.port)
        bench.plane.open_inside(inside)
        client, remote = bench.udp("::1"), bench.udp()
        aid = bench.add(client, remote_of(remote), inside=inside)
        header = aid.to_bytes(8)
        client.sendto(header + bytes(65_508), (str(inside.host), inside.port))
        for _ in range(burst):
            client.sendto(header + b"small", (str(inside.host), inside.port))
        assert [(await bench.receive(remote))[0] for _ in range(burst)] == [b"small"] * burst
        counters = bench.plane.counters()
        assert counters.drops == {DropReason.TOO_LARGE: 1}
        await bench.settled(lambda: not reports_errors(bench))
        assert not counters.errors, "the kernel's own refusal is no ICMP error"
        assert traffic_of(bench, aid).dropped_datagrams == 1

    on_plane(plane, test)


@every_plane
def test_what_finds_a_receive_buffer_full_is_counted(plane: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "RECEIVE_BUFFER_OCTETS", 8192)

    async def test(bench: Bench) -> None:
        client, remote, group = bench.udp(), bench.udp(), bench.group()
        aid = bench.add(client, remote_of(remote))
        heard = bench.add(client, group, sends=False)
        bench.send(client, aid, b"x")
        _, outside = await bench.receive(remote)
        assert bench.plane.counters().overruns == 0
        for _ in range(300):
            client.sendto(b"runt", (str(bench.inside.host), bench.inside.port))
            remote.sendto(b"answer", (str(outside.host), outside.port))
            remote.sendto(b"news", (str(group.host), group.port))
        counters = bench.plane.counters()
        assert counters.overruns > 600
        expected = 901 - counters.overruns
        await bench.settled(lambda: counters.received_inside + counters.received_outside == expected)
        for each in (aid, heard):
            bench.apply(RemoveEntry(each))
        assert bench.plane.counters().overruns == 901 - expected, "those of closed sockets as well"
        assert counters.as_dict()["overruns"] == 901 - expected

    on_plane(plane, test)


@every_plane
def test_what_finds_a_udp_associates_door_full_is_counted(plane: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "RECEIVE_BUFFER_OCTETS", 8192)

    async def test(doors: Doors) -> None:
        client = doors.bench.udp()
        doors.open(client)
        for _ in range(300):
            doors.write(client, b"runt")
        overruns = doors.plane.counters().overruns
        assert overruns > 200
        await doors.settled(lambda: doors.has_received(300 - overruns))
        doors.remove()
        assert doors.plane.counters().overruns == overruns

    on_doors(plane, test)


@pytest.mark.parametrize("flags", [Flags.NONE, Flags.EXTENDED])
def test_a_refusal_mentions_the_last_error_to_who_knows_of_options(flags: int) -> None:
    request = ControlRequest(UdpCommand.SET_TTL, 7, aid=5, flags=flags)
    refusal = refuse(request, ReplyCode.BAD_CONTEXT, "the association does not send to a group")
    assert mention_error(refusal, None) == refusal
    told = mention_error(refusal, "port-unreachable")
    why = "the association does not send to a group; the last ICMP error was port-unreachable"
    assert told.why == why
    assert (told.reply.code, told.reply.aid, told.reply.flags) == (ReplyCode.BAD_CONTEXT, 5, flags)
    assert [option.value.decode() for option in told.reply.options] == (
        [f"bad association context: {why}"] if flags else []
    )


def test_a_small_receive_buffer_is_told_with_what_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    wished = sockets.RECEIVE_BUFFER_OCTETS
    monkeypatch.setattr(linux, "SO_RCVBUFFORCE", socket.SO_RCVBUF)  # as without the capability
    monkeypatch.setattr(sockets, "RECEIVE_BUFFER_OCTETS", 65_536)
    assert sockets.flaw_of_buffers() is None
    monkeypatch.setattr(sockets, "RECEIVE_BUFFER_OCTETS", 1 << 30)
    told = sockets.flaw_of_buffers()
    assert told is not None
    assert "instead of 1073741824" in told
    assert "net.core.rmem_max" in told
    assert "CAP_NET_ADMIN" in told
    assert wished == 4 << 20
