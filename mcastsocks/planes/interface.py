"""What every plane can do, and what it is told once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from mcastsocks.address import Endpoint, IPAddress
from mcastsocks.planes.counters import Counters, DropReason
from mcastsocks.tables.changes import Change, Result, Traffic
from mcastsocks.tables.reassembly import ReassemblyLimits


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface that groups are joined on, and the addresses that the relay speaks from there."""

    name: str
    index: int
    ipv4: IPv4Address | None
    ipv6: IPv6Address | None

    def address(self, version: int) -> IPAddress | None:
        return self.ipv4 if version == 4 else self.ipv6


@dataclass(frozen=True, slots=True)
class Outside:
    """One way out. What comes to a group there from `ignore_sources`, other relays on that border, is not relayed.

    With `shares_ports` associations leave by sockets that all clients share; otherwise each client has its own.
    """

    interface: Interface
    ignore_sources: frozenset[str] = frozenset()
    shares_ports: bool = False


ChannelSink = Callable[[int, int, bytes], Sequence[int]]
"""Takes channel, AID and body of a datagram for a client that has its datagrams TCP-encapsulated. Returns the AIDs of
those, perhaps this one, that were dropped because the client reads too slowly, oldest first."""


def no_channels(channel: int, aid: int, body: bytes) -> Sequence[int]:
    """The sink of a plane without any control channel: everything is dropped."""
    return (aid,)


Ask = Callable[[int, Endpoint], None]
"""Told of a destination that a UDP ASSOCIATE, by its channel, sends to and that has no Route; one is given, now or
later."""


def nobody_answers(channel: int, destination: Endpoint) -> None:
    """Of a plane without UDP ASSOCIATE."""


Through = Callable[[bytes], DropReason | None]
"""Takes the data of a datagram that goes on through an upstream; returns why, when it drops it."""


def no_upstream(data: bytes) -> DropReason:
    """Of an association that has not been given its own yet."""
    return DropReason.UNREACHABLE


class Claim(Protocol):
    """On something that one worker of a relay does for all who could: the first of those who are left."""

    @property
    def is_ours(self) -> bool:
        """Whether it is this worker now."""

    def close(self) -> None:
        """This worker could not any more."""


class Claims(Protocol):
    """How the workers of a relay share out what has to happen once."""

    def claim(self, *name: object) -> Claim: ...

    def is_others(self, *name: object) -> bool:
        """Whether another worker does that, whether or not this one has a claim."""


class Alone:
    """The claims, and each claim, of a relay that is one process."""

    is_ours = True

    def claim(self, *name: object) -> Claim:
        return self

    def is_others(self, *name: object) -> bool:
        return False

    def close(self) -> None:
        pass


ALONE = Alone()


@dataclass(frozen=True, slots=True)
class PlaneOptions:
    """`fragment_above` is the largest UDP payload sent to a client, in octets; None: what UDP carries.

    `inside` is where MM-mode takes and gives group datagrams, with `inside_ttl` hops; None: no MM-mode.
    An AID's lowest `slot_bits` are its own among all that live, as a rule.
    `socks_fragments`: whether a UDP ASSOCIATE takes fragments, and gives them.
    """

    max_sockets: int
    fragment_above: int | None = None
    inside: Interface | None = None
    inside_ttl: int = 1
    reassembly: ReassemblyLimits = field(default_factory=ReassemblyLimits)
    sink: ChannelSink = no_channels
    ask: Ask = nobody_answers
    socks_fragments: bool = False
    slot_bits: int = 16
    claims: Claims = ALONE


class Plane(Protocol):
    """One way of moving datagrams."""

    name: str

    def open_inside(self, endpoint: Endpoint, zone: int = 0) -> None:
        """Take clients' datagrams on one of our own addresses. Raises OSError; again does nothing."""

    def apply(self, changes: Sequence[Change]) -> list[Result]:
        """Do the changes in order, up to and including the first that fails: a result for each one tried."""

    def take(self, channel: int, aid: int, data: bytes) -> None:
        """A datagram that a client sent over its control channel."""

    def divert(self, aid: int, through: Through) -> None:
        """What the client sends on this association, whose entry has `upstream`, goes there from now on."""

    def give(self, aid: int, data: bytes, source: Endpoint | None) -> None:
        """A datagram that came through an upstream, and its sender; None where nobody wants reports of that."""

    def renew(self, via: str, interface: Interface) -> int:
        """Links or addresses outside have changed: join again what the kernel has forgotten; how many groups that were.

        Raises OSError when that cannot be done now.
        """

    def renew_inside(self, interface: Interface) -> int:
        """The same for the inside interface of MM-mode."""

    def catch_up(self, inside: Endpoint) -> None:
        """Relay what clients sent there before now: their control channels' ends overtake it."""

    def traffic(self, aid: int) -> Traffic | None:
        """What an association moved so far."""

    def associate_traffic(self, channel: int) -> Traffic | None:
        """What a UDP ASSOCIATE moved so far."""

    def counters(self) -> Counters:
        """What the plane moved and dropped so far."""

    def descriptors(self) -> int:
        """How many descriptors the plane holds."""

    def close(self) -> None:
        """Leave every group and close every socket."""
