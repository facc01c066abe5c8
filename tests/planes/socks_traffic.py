"""Random traffic of UDP ASSOCIATEs of every kind for a plane's bench, the same for the same seed whatever the plane."""

from __future__ import annotations

import errno
import random
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address

from mcastsocks.address import Endpoint, SockAddr, from_sockaddr
from mcastsocks.tables.changes import (
    AddAssociate,
    Answers,
    Associate,
    Change,
    Done,
    ForgetRoutes,
    RemoveAssociate,
    Route,
)
from mcastsocks.wire.block import encode_block
from tests.planes.bench import Bench
from tests.planes.stage import Stage
from tests.planes.witness import Observed, Witness

_UDP = socket.SOCK_DGRAM
_MOST_ASSOCIATES = 8
_FAR = Endpoint(IPv4Address("198.51.100.1"), 4004)
_REFUSED, _MARKED = 3, 1
"""Remotes by number: what a rule forbids, and where it sets the DSCP."""

_NAMES = {"soon.example": 0, "late.example": 4, "never.example": None, "far.example": None}
"""Names and the remotes they stand for; `late` is known when a step says so, `far` goes through an upstream."""


@dataclass
class _Live:
    """An association: whose, where its outside sockets are by IP version, and what has to be answered yet."""

    client: socket.socket
    door: Endpoint
    outsides: dict[int, SockAddr]
    asked: list[Endpoint]


class SocksTraffic(Stage):
    """Clients, remotes, an upstream and strangers on loopback, and what they do."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self._doors = [_never_given(host) for host in ("127.0.0.1", "127.0.0.1", "::1")]
        super().__init__(bench, seed, Witness(bench, (), self._doors))
        self._clients = self._witness.open("user", ("127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.2", "::1", "::1"))
        self._remotes = self._witness.open("remote", ("127.0.0.1", "127.0.0.3", "127.0.0.1", "127.0.0.3", "::1", "::1"))
        self._strangers = self._witness.open("stranger", ("127.0.0.4", "127.0.0.3", "::1"))
        self._upstream = self._witness.open("upstream", ("127.0.0.8",))[0]
        self._gone = [_never_given(host) for host in ("127.0.0.1", "::1")]
        self._live: dict[int, _Live] = {}
        self._channels = 0

    async def run(self, steps: int) -> Observed:
        """Do something so many times, then release everything."""
        for _ in range(4):
            self._open()
        ways = (self._from_clients, self._from_clients_in_runs, self._from_remotes, self._from_remotes_in_runs)
        changes = (self._open, self._remove, self._forget, self._answer_late)
        moved = False
        for _ in range(steps):
            step = self._random.choices((*ways, *changes), (6, 3, 6, 3, 2, 1, 1, 1))[0]
            # Otherwise a change happens to what still waits in a socket.
            if step in ways or not moved or self._random.random() < 0.6:
                await self._settle()
            step()
            moved = step in ways
        await self._settle()
        for channel in list(self._live):
            self._end(channel)
        await self._settle()
        counters = self._bench.plane.counters().as_dict()
        observed = self._witness.observed
        observed.counters = {name: count for name, count in counters.items() if not name.startswith("icmp.")}
        observed.results.sort()  # which door is read first is nobody's business
        observed.settle()
        return observed

    # Associations

    def _open(self) -> None:
        if len(self._live) >= _MOST_ASSOCIATES:
            self._remove()
        client = self._random.choice(self._clients)
        door = self._random.choice([each for each in self._doors if _is_six(client) == (each.address.version == 6)])
        sockaddr: SockAddr = client.getsockname()
        if self._random.random() < 0.25:
            sockaddr = (sockaddr[0], 0, *sockaddr[2:])
        answers = self._random.choice(list(Answers))
        self._channels += 1
        if self._apply(AddAssociate(Associate(self._channels, door, sockaddr, answers))) is not None:
            self._live[self._channels] = _Live(client, door, {}, [])

    def _remove(self) -> None:
        if self._live:
            self._end(self._random.choice(list(self._live)))

    def _forget(self) -> None:
        if self._live:
            self._apply(ForgetRoutes(self._random.choice(list(self._live))))

    def _end(self, channel: int) -> None:
        traffic = self._bench.plane.associate_traffic(channel)
        assert traffic is not None
        waited = asdict(traffic)
        self._witness.look()  # its outside ports may be another's from now on
        done = self._apply(RemoveAssociate(channel))
        assert done is not None
        assert done.traffic is not None
        told = {name: value for name, value in asdict(done.traffic).items() if "error" not in name}
        assert all(waited[name] == value for name, value in told.items() if name.startswith("to_client"))
        self._witness.observed.traffic[channel] = dict(told)
        del self._live[channel]

    def ask(self, channel: int, destination: Endpoint) -> None:
        if destination.host == "late.example":
            self._live[channel].asked.append(destination)
        else:
            self._route(channel, destination)

    def _answer_late(self) -> None:
        for channel, live in self._live.items():
            asked, live.asked = live.asked, []
            for destination in asked:
                self._route(channel, destination)

    def _route(self, channel: int, destination: Endpoint) -> None:
        number = self._number(destination)
        if destination.host == "far.example":
            self._apply(Route(channel, destination, _FAR, through=from_sockaddr(self._upstream.getsockname())))
        elif number == _REFUSED or destination.host == "never.example":
            self._apply(Route(channel, destination, None, refused="not-allowed"))
        else:
            target = destination if number is None else from_sockaddr(self._remotes[number].getsockname())
            self._apply(Route(channel, destination, target, dscp=46 if number == _MARKED else None))

    def _number(self, destination: Endpoint) -> int | None:
        """Which remote it is."""
        if isinstance(destination.host, str):
            return _NAMES[destination.host]
        remotes = [from_sockaddr(each.getsockname()) for each in self._remotes]
        return remotes.index(destination) if destination in remotes else None

    def _apply(self, change: Change) -> Done | None:
        result = self._bench.apply(change)
        told = "done" if isinstance(result, Done) else errno.errorcode.get(result.errno, str(result))
        self._witness.observed.results.append(f"{type(change).__name__} {told}")
        if not isinstance(result, Done):
            return None
        if isinstance(change, Route) and result.outside is not None:
            outside: SockAddr = (str(result.outside.host), result.outside.port)
            self._live[change.channel].outsides[result.outside.address.version] = outside
            self._witness.names[outside] = f"outside of {change.channel}"
        return result

    # Datagrams

    def _from_clients(self) -> None:
        """Each names its destination, some wrongly, and some are not of the client that they seem to be of."""
        chance = self._random
        lives = chance.choices(list(self._live.values()), k=3) if self._live else []
        destinations = [self._destination() for _ in range(4)]
        for _ in range(self._burst() if lives else 0):
            live = chance.choice(lives)
            client = live.client
            if chance.random() < 0.05:
                client = chance.choice([each for each in self._clients if _is_six(each) == _is_six(client)])
            name, destination = chance.choice(destinations)
            most = 65_515 if _is_six(client) else 65_490
            data = self._witness.payload(client, name, self._size(most - len(encode_block(destination))))
            self._send(client, self._flawed(encode_block(destination), data), _sockaddr(live.door))

    def _flawed(self, block: bytes, data: bytes) -> bytes:
        """As a rule all right."""
        chance, flaw = self._random, self._random.random()
        octets = bytes(3) + block + data
        if flaw < 0.03:
            return octets[: chance.randint(0, 9)]
        if flaw < 0.05:
            return chance.randbytes(2) + octets[2:]
        if flaw < 0.07:
            return octets[:3] + bytes((chance.choice((0, 2, 5, 255)),)) + octets[4:]
        if flaw < 0.10:
            return octets[:2] + bytes((chance.choice((1, 1, 2, 0x80, 0x81, 0x82, 0x83)),)) + octets[3:]
        return octets

    def _from_clients_in_runs(self) -> None:
        """Runs of one size, with a shorter one behind them; to one destination, or to two of one kind in turns."""
        chance = self._random
        for _ in range(chance.choice((1, 1, 2)) if self._live else 0):
            live = chance.choice(list(self._live.values()))
            destinations = [self._destination() for _ in range(chance.choice((1, 1, 3)))]
            blocks = [(name, encode_block(each)) for name, each in destinations]
            blocks = [each for each in blocks if len(each[1]) == len(blocks[0][1])]
            size = chance.choice((4, 64, 200))
            run = b"".join(
                bytes(3) + block + self._witness.payload(live.client, name, size)
                for name, block in (blocks[index % len(blocks)] for index in range(chance.choice((2, 13, 25, 50))))
            )
            segment = 3 + len(blocks[0][1]) + size
            shorter = bytes(3) + blocks[0][1] if chance.random() < 0.5 else b"\0\0\0"
            self._send(live.client, run + shorter, _sockaddr(live.door), segment)

    def _destination(self) -> tuple[str, Endpoint]:
        """What a witness calls it, and how a client names it."""
        flaw = self._random.random()
        if flaw < 0.2:
            name = self._random.choice(list(_NAMES))
            return name, Endpoint(name, 4004)
        if flaw < 0.25:
            return "gone", self._random.choice(self._gone)
        remote = self._random.choice([*self._remotes[:3], *self._remotes])
        return self._witness.names[remote.getsockname()], from_sockaddr(remote.getsockname())

    def _from_remotes(self) -> None:
        """To outside sockets: answers, and what nobody asked for."""
        outsides = self._some_outsides()
        for _ in range(self._burst() if outsides else 0):
            outside = self._random.choice(outsides)
            speaker = self._speaker(outside)
            data = self._witness.payload(speaker, self._witness.names[outside], self._size(65_507))
            if speaker is self._upstream and self._random.random() < 0.9:
                data = bytes(3) + encode_block(_FAR) + data[:60_000]
            self._send(speaker, data, outside)

    def _from_remotes_in_runs(self) -> None:
        for outside in self._some_outsides()[: self._random.choice((1, 3))]:
            for _ in range(self._random.choice((1, 1, 2))):
                speaker, size = self._speaker(outside), self._random.choice((4, 64, 200))
                datagrams = self._random.choice((2, 13, 25, 50))
                name = self._witness.names[outside]
                run = b"".join(self._witness.payload(speaker, name, size) for _ in range(datagrams))
                self._send(speaker, run + self._random.choice((b"", b"end")), outside, size)

    def _some_outsides(self) -> list[SockAddr]:
        there = [outside for live in self._live.values() for outside in live.outsides.values()]
        return self._random.choices(there, k=3) if there else []

    def _speaker(self, outside: SockAddr) -> socket.socket:
        able = [
            each for each in (*self._remotes, *self._strangers, self._upstream) if _is_six(each) == (":" in outside[0])
        ]
        return self._random.choice(able)


def _never_given(host: str) -> Endpoint:
    """A port that is free and that the kernel gives to nobody who does not ask for it (ip_local_port_range)."""
    for port in random.sample(range(10_000, 32_000), 100):
        with suppress(OSError), socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, _UDP) as sock:
            sock.bind((host, port))
            return from_sockaddr(sock.getsockname())
    raise AssertionError("no free port on loopback")


def _is_six(sock: socket.socket) -> bool:
    return sock.family == socket.AF_INET6


def _sockaddr(endpoint: Endpoint) -> SockAddr:
    return (str(endpoint.host), endpoint.port)
