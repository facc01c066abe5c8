"""Whoever floods the relay does not keep the others waiting: turns of the event loop, on every plane."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from functools import partial

import pytest

from mcastsocks.address import SockAddr, from_sockaddr
from mcastsocks.planes.batch.offload import UDP_SEGMENT
from tests.planes.bench import PLANES, Bench, on_plane
from tests.planes.doors import Doors, header, named, on_doors

_BACKLOG = 1000
_WARM_TURNS = 30
_NEXT_TURNS = 4
"""A turn for what the flood gets, another for the datagram, and what it takes to see it."""

_LEAST_A_TURN = 32
"""Datagrams that any plane takes from a flooded socket in one turn."""

_MOST_AMISS = 64
"""Datagrams that the portable plane takes in one turn."""

every_plane = pytest.mark.parametrize("plane", PLANES)


class Flood:
    """Fills a socket up in every turn of the event loop, to so many datagrams that wait."""

    def __init__(self, write: Callable[[], object], taken: Callable[[], int]) -> None:
        self._write, self._taken = write, taken
        self._loop, self._written = asyncio.get_running_loop(), 0
        self.turns = 0
        self._next = self._loop.call_soon(self._top_up)

    def _top_up(self) -> None:
        self.turns += 1
        for _ in range(_BACKLOG - (self._written - self._taken())):
            self._write()
            self._written += 1
        self._next = self._loop.call_soon(self._top_up)

    def stop(self) -> None:
        self._next.cancel()


def arrives(sock: socket.socket, data: bytes) -> bool:
    """It is there, behind whatever else is."""
    while True:
        try:
            if sock.recv(100).endswith(data):
                return True
        except BlockingIOError:
            return False


async def turns_until(bench: Bench, flood: Flood, write: Callable[[], object], there: Callable[[], bool]) -> int:
    """How many turns a datagram takes through the relay while the flood goes on."""
    await bench.settled(lambda: flood.turns >= _WARM_TURNS)
    write()
    begun = flood.turns
    await bench.settled(there)
    return flood.turns - begun


@every_plane
@pytest.mark.parametrize("flooded", ["inside", "an outside socket", "a group"])
@pytest.mark.parametrize("way", ["out", "in"])
def test_a_quiet_client_is_served_in_the_next_turns(plane: str, flooded: str, way: str) -> None:
    async def test(bench: Bench) -> None:
        loud, quiet, remote, far = bench.udp(), bench.udp(), bench.udp(), bench.udp()
        group, counters = bench.group(), bench.plane.counters()
        aids = {sock: bench.add(sock, from_sockaddr(remote.getsockname()), n) for n, sock in enumerate((loud, quiet))}
        outsides: dict[socket.socket, SockAddr] = {}
        for sock, aid in aids.items():
            bench.send(sock, aid, b"x")
            _, outside = await bench.receive(remote)
            outsides[sock] = (str(outside.host), outside.port)
        for channel in range(20):
            bench.add(loud, group, channel, sends=False)
        floods: dict[str, Callable[[], object]] = {
            "inside": lambda: bench.send(loud, aids[loud], b"flood"),
            "an outside socket": lambda: remote.sendto(b"flood", outsides[loud]),
            "a group": lambda: far.sendto(b"flood", (str(group.host), group.port)),
        }
        came = counters.received_inside if flooded == "inside" else counters.received_outside

        def taken() -> int:
            return (counters.received_inside if flooded == "inside" else counters.received_outside) - came

        flood = Flood(floods[flooded], taken)
        if way == "out":
            took = await turns_until(
                bench, flood, lambda: bench.send(quiet, aids[quiet], b"quiet"), lambda: arrives(remote, b"quiet")
            )
        else:
            took = await turns_until(
                bench, flood, lambda: remote.sendto(b"quiet", outsides[quiet]), lambda: arrives(quiet, b"quiet")
            )
        flood.stop()
        waits_behind = _BACKLOG // _LEAST_A_TURN if (flooded, way) == ("inside", "out") else 0
        assert took <= waits_behind + _NEXT_TURNS
        for sock in (loud, remote):
            arrives(sock, b"nothing of the kind")

    on_plane(plane, test)


@every_plane
def test_many_flooded_outside_sockets_leave_a_quiet_one_its_share(plane: str) -> None:
    """More of them than are drained in one pass."""

    async def test(bench: Bench) -> None:
        remote, quiet = bench.udp(), bench.udp()
        there, outsides = from_sockaddr(remote.getsockname()), []
        for channel in range(100):
            client = quiet if channel == 50 else bench.udp()
            bench.send(client, bench.add(client, there, channel), b"x")
            outside = (await bench.receive(remote))[1]
            outsides.append((str(outside.host), outside.port))
        loud = [*outsides[:50], *outsides[51:]]
        counters, written = bench.plane.counters(), 0

        def write() -> None:
            nonlocal written
            remote.sendto(b"flood", loud[written % len(loud)])
            written += 1

        flood = Flood(write, lambda: counters.received_outside)
        took = await turns_until(
            bench, flood, lambda: remote.sendto(b"quiet", outsides[50]), lambda: arrives(quiet, b"quiet")
        )
        flood.stop()
        assert took <= 2 * _NEXT_TURNS

    on_plane(plane, test, max_sockets=128)


@every_plane
@pytest.mark.parametrize("way", ["out", "in"])
@pytest.mark.parametrize("flood", ["its door", "its door, amiss", "another door", "an outside socket", "by a stranger"])
def test_a_quiet_client_of_udp_associate_is_served_in_the_next_turns(plane: str, flood: str, way: str) -> None:
    async def test(doors: Doors) -> None:
        loud, quiet, remote = doors.bench.udp(), doors.bench.udp(), doors.bench.udp()
        stranger, door = doors.bench.udp("127.0.0.9"), doors.door
        other = doors.free_door() if flood == "another door" else door
        outsides = []
        for channel, (client, inside) in enumerate(((loud, other), (quiet, door))):
            doors.open(client, channel, inside=inside)
            doors.write(client, header(named(remote)) + b"x", inside)
            outsides.append(await doors.reaches(remote, b"x"))
        writes: dict[str, Callable[[], object]] = {
            "its door": lambda: doors.send(loud, named(remote), b"flood"),
            "its door, amiss": lambda: doors.write(loud, b"GET / HTTP/1.0"),
            "another door": lambda: doors.write(loud, header(named(remote)) + b"flood", other),
            "an outside socket": lambda: remote.sendto(b"flood", outsides[0]),
            "by a stranger": lambda: stranger.sendto(b"flood", outsides[0]),
        }
        counters, is_inside = doors.counters, "door" in flood
        came = counters.received_inside if is_inside else counters.received_outside

        def taken() -> int:
            return (counters.received_inside if is_inside else counters.received_outside) - came

        going = Flood(writes[flood], taken)
        if way == "out":
            write = partial(doors.send, quiet, named(remote), b"quiet")
            took = await turns_until(doors.bench, going, write, lambda: arrives(remote, b"quiet"))
        else:
            took = await turns_until(
                doors.bench, going, lambda: remote.sendto(b"quiet", outsides[1]), lambda: arrives(quiet, b"quiet")
            )
        going.stop()
        waits_behind = _BACKLOG // _LEAST_A_TURN if way == "out" and flood.startswith("its door") else 0
        assert took <= waits_behind + _NEXT_TURNS
        for sock in (loud, remote):
            arrives(sock, b"nothing of the kind")

    on_doors(plane, test)


@every_plane
def test_what_is_amiss_takes_a_turn_no_longer_than_one_by_one(plane: str) -> None:
    """However many of them a batch could hold: in runs, 50 in one piece."""

    async def test(doors: Doors) -> None:
        client, taken = doors.bench.udp(), 0
        doors.open(client)
        cut = (socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("@H", 14))
        for turn in range(200):
            if turn % 20 == 0:
                for _ in range(20):
                    client.sendmsg((b"GET / HTTP/1.0" * 50,), [cut], 0, (str(doors.door.host), doors.door.port))
            before = doors.counters.received_inside
            await asyncio.sleep(0)
            taken = max(taken, doors.counters.received_inside - before)
        assert taken <= 2 * _MOST_AMISS
        assert doors.counters.drops.total() == 10_000

    on_doors(plane, test)
