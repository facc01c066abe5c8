"""Many datagrams of UDP ASSOCIATEs at once, on every plane; the kernel may give and take runs in one piece."""

from __future__ import annotations

import socket
import struct
from functools import partial

import pytest

from mcastsocks.address import Endpoint
from mcastsocks.planes.counters import DropReason
from mcastsocks.tables.changes import Done, ForgetRoutes
from tests.planes.bench import PLANES
from tests.planes.doors import Doors, header, named, on_doors, remote_of

every_plane = pytest.mark.parametrize("plane", PLANES)
BY_NAME = Endpoint("files.example", 4004)
NAMED = ("files.example", 4004)


def run_of(destination: tuple[str, int], numbers: range, octets: int = 100) -> list[bytes]:
    return [header(destination) + number.to_bytes(2) * (octets // 2) for number in numbers]


def write_run(client: socket.socket, to: tuple[str, int], datagrams: list[bytes]) -> None:
    """All but the last of one size."""
    cut = (socket.IPPROTO_UDP, 103, struct.pack("@H", len(datagrams[0])))  # UDP_SEGMENT
    client.sendmsg((b"".join(datagrams),), [cut], 0, to)


@every_plane
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("inside", ["127.0.0.1", "::1"])
def test_long_runs_come_through_in_order(plane: str, inside: str, host: str) -> None:
    async def test(doors: Doors) -> None:
        client, remotes = doors.bench.udp(inside), [doors.bench.udp(host) for _ in range(2)]
        doors.door = doors.free_door(inside)
        doors.open(client)
        expected: dict[socket.socket, list[bytes]] = {remote: [] for remote in remotes}
        for order in (remotes[:1] * 60, remotes[1:] * 60, remotes * 30):
            run = [(remote, number.to_bytes(2) * 50) for number, remote in enumerate(order)] + [(remotes[0], b"end")]
            write_run(client, (inside, doors.door.port), [header(named(remote)) + data for remote, data in run])
            for remote, data in run:
                expected[remote].append(data)
        for remote, datagrams in expected.items():
            for data in datagrams:
                outside = await doors.reaches(remote, data)
        for remote in remotes:
            write_run(remote, outside, [number.to_bytes(2) * 50 for number in range(60)] + [b"end"])
            for number in range(60):
                assert await doors.received(client) == header(named(remote)) + number.to_bytes(2) * 50
            assert await doors.received(client) == header(named(remote)) + b"end"
        traffic = doors.traffic()
        assert (traffic.to_remote_datagrams, traffic.to_client_datagrams) == (3 * 61, 2 * 61)
        assert (traffic.to_remote_octets, traffic.to_client_octets) == (18_009, 12_006)

    on_doors(plane, test)


@every_plane
def test_a_run_goes_where_the_last_answer_says(plane: str) -> None:
    async def test(doors: Doors) -> None:
        client, first, second = doors.bench.udp(), doors.bench.udp(), doors.bench.udp()
        doors.open(client)
        for remote in (first, second, first):
            doors.route(BY_NAME, remote_of(remote))
            for _ in range(2):
                for datagram in run_of(NAMED, range(40)):
                    doors.write(client, datagram)
                for number in range(40):
                    await doors.reaches(remote, number.to_bytes(2) * 50)
        assert doors.bench.apply(ForgetRoutes(1)) == Done()
        for datagram in run_of(NAMED, range(40)):
            doors.write(client, datagram)
        await doors.settled(lambda: doors.counters.received_inside == 7 * 40)
        assert (doors.counters.waiting, doors.counters.drops) == (16, {DropReason.NOT_WAITING: 24})
        doors.route(BY_NAME, None, refused="not-allowed")
        for datagram in run_of(NAMED, range(40)):
            doors.write(client, datagram)
        await doors.settled(lambda: doors.counters.drops[DropReason.NOT_ALLOWED] == 16 + 40)

    on_doors(plane, test)


@every_plane
def test_nothing_of_an_association_that_is_over_is_taken_for_the_next_ones(plane: str) -> None:
    """The same client, door and destination, and as likely as not the same descriptors and rows."""

    async def test(doors: Doors) -> None:
        client, other, remote = doors.bench.udp(), doors.bench.udp(), doors.bench.udp()
        doors.open(other, 99)  # the door stays open
        for channel in range(4):
            doors.open(client, channel)
            for datagram in run_of(named(remote), range(40)):
                doors.write(client, datagram)
            for number in range(40):
                outside = await doors.reaches(remote, number.to_bytes(2) * 50)
            for number in range(40):
                remote.sendto(number.to_bytes(2), outside)
            for number in range(40):
                assert await doors.received(client) == header(named(remote)) + number.to_bytes(2)
            traffic = doors.remove(channel)
            for datagram in run_of(named(remote), range(40)):
                doors.write(client, datagram)
            assert (traffic.to_remote_datagrams, traffic.to_client_datagrams) == (40, 40)
            before = doors.counters.received_inside
            await doors.settled(partial(doors.has_received, before + 40))
            assert doors.counters.drops == {DropReason.WRONG_ADDRESS: 40 * (channel + 1)}
        assert doors.bench.nothing_waits_for(remote)

    on_doors(plane, test)


@every_plane
def test_strangers_are_told_from_remotes_in_the_midst_of_many(plane: str) -> None:
    async def test(doors: Doors) -> None:
        client, remote, stranger = doors.bench.udp(), doors.bench.udp(), doors.bench.udp("127.0.0.5")
        doors.open(client)
        doors.send(client, named(remote), b"x")
        outside = await doors.reaches(remote, b"x")
        for number in range(80):
            (stranger if number % 20 == 19 else remote).sendto(number.to_bytes(2), outside)
        for number in range(80):
            if number % 20 != 19:
                assert await doors.received(client) == header(named(remote)) + number.to_bytes(2)
        await doors.settled(lambda: doors.counters.drops == {DropReason.UNEXPECTED_REMOTE: 4})
        assert doors.traffic().dropped_datagrams == 4

    on_doors(plane, test)
