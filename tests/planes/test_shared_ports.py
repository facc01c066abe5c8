"""Outside sockets that clients share, in every plane: what a remote answers reaches its own client and no other."""

from __future__ import annotations

import socket

import pytest

from mcastsocks.address import Endpoint, SockAddr
from mcastsocks.planes.counters import DropReason
from mcastsocks.tables.changes import Done, Failed, RemoveEntry
from tests.planes.bench import PLANES, Bench, on_plane
from tests.planes.doors import remote_of

every_plane = pytest.mark.parametrize("plane", PLANES)


def added(bench: Bench, client: socket.socket, remote: Endpoint, channel: int) -> tuple[int, Endpoint]:
    """AID and what the remote sees."""
    addition = bench.addition(client.getsockname(), remote, channel, via="shared")
    done = bench.apply(addition)
    assert isinstance(done, Done)
    assert done.outside is not None
    return addition.entry.aid, done.outside


async def exchanged(bench: Bench, client: socket.socket, aid: int, remote: socket.socket, data: bytes) -> Endpoint:
    """There and back; what the remote saw."""
    bench.send(client, aid, data)
    octets, source = await bench.receive(remote)
    assert octets == data
    remote.sendto(b"answer to " + data, (str(source.host), source.port))
    assert await bench.received(client) == (aid, b"answer to " + data)
    return source


@every_plane
def test_clients_of_different_remotes_share_a_socket(plane: str) -> None:
    async def test(bench: Bench) -> None:
        clients = [bench.udp() for _ in range(8)]
        remotes = [bench.udp(f"127.0.0.{host}") for host in range(10, 18)]
        pairs = list(zip(clients, remotes, strict=True))
        known = [added(bench, client, remote_of(remote), number) for number, (client, remote) in enumerate(pairs)]
        assert len({outside for _, outside in known}) == 1
        assert bench.plane.descriptors() == 2, "one faces clients, one remotes"
        for (client, remote), (aid, outside) in zip(pairs, known, strict=True):
            assert await exchanged(bench, client, aid, remote, str(aid).encode()) == outside
        for aid, _ in known:
            bench.apply(RemoveEntry(aid))
        assert bench.plane.descriptors() == 1

    on_plane(plane, test)


@every_plane
def test_clients_of_one_remote_do_not(plane: str) -> None:
    """Not even for different ports of it: its answers are told apart by its address."""

    async def test(bench: Bench) -> None:
        clients, remotes = [bench.udp() for _ in range(3)], [bench.udp() for _ in range(3)]
        pairs = list(zip(clients, remotes, strict=True))
        known = [added(bench, client, remote_of(remote), number) for number, (client, remote) in enumerate(pairs)]
        assert len({outside for _, outside in known}) == 3
        for (client, remote), (aid, outside) in zip(pairs, known, strict=True):
            assert await exchanged(bench, client, aid, remote, b"x") == outside

    on_plane(plane, test)


@every_plane
def test_one_client_has_one_socket_for_a_remote(plane: str) -> None:
    async def test(bench: Bench) -> None:
        client, remotes = bench.udp(), [bench.udp() for _ in range(3)]
        known = [added(bench, client, remote_of(remote), 1) for remote in remotes]
        assert len({outside for _, outside in known}) == 1
        for remote, (aid, _) in zip(remotes, known, strict=True):
            await exchanged(bench, client, aid, remote, b"x")

    on_plane(plane, test)


@every_plane
def test_what_was_one_clients_is_not_the_next_ones(plane: str) -> None:
    async def test(bench: Bench) -> None:
        first, second, remote, other = bench.udp(), bench.udp(), bench.udp(), bench.udp("127.0.0.9")
        aid, outside = added(bench, first, remote_of(remote), 1)
        added(bench, second, remote_of(other), 2)  # the socket stays open
        await exchanged(bench, first, aid, remote, b"x")
        bench.apply(RemoveEntry(aid))
        _, elsewhere = added(bench, second, remote_of(remote), 2)
        assert elsewhere != outside
        late: SockAddr = (str(outside.host), outside.port)
        remote.sendto(b"late", late)
        drops = bench.plane.counters().drops
        await bench.settled(lambda: drops[DropReason.UNEXPECTED_REMOTE] == 1)
        assert bench.nothing_waits_for(second)

    on_plane(plane, test)


@every_plane
def test_what_finds_no_socket_holds_no_port(plane: str) -> None:
    async def test(bench: Bench) -> None:
        client, other, remote = bench.udp(), bench.udp(), bench.udp()
        aid, _ = added(bench, client, remote_of(remote), 1)
        refused = bench.apply(bench.addition(other.getsockname(), remote_of(remote), 2, via="shared"))
        assert isinstance(refused, Failed)
        bench.apply(RemoveEntry(aid))
        assert bench.plane.descriptors() == 1
        added(bench, other, remote_of(remote), 2)

    on_plane(plane, test, max_sockets=2)
