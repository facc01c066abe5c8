"""Whoever floods the relay does not keep the others waiting: turns of the event loop, on every plane."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest

from mcastsocks.address import SockAddr, from_sockaddr
from tests.planes.bench import PLANES, Bench, on_plane

_BACKLOG = 1000
_WARM_TURNS = 30
_NEXT_TURNS = 4
"""A turn for what the flood gets, another for the datagram, and what it takes to see it."""

_LEAST_A_TURN = 32
"""Datagrams that any plane takes from a flooded socket in one turn."""

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
