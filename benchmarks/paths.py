"""What is asked of a relay, and the way that datagrams take through it: plain values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from benchmarks.lab import CLIENT, REMOTE, Host
from benchmarks.process import Usage

Address = tuple[str, int]

FIRST_CLIENT_PORT = 20_000
FIRST_REMOTE_PORT = 9_000
_MOST_REMOTE_PORTS = 128


@dataclass(frozen=True, slots=True)
class Case:
    """The traffic of one measurement.

    `associations` of one client or, `thin`, of as many clients, each with a port of its own. `run` datagrams to one
    destination stand together. `inward` is from the remotes to the clients. With `receivers` it is a group's traffic,
    copied to so many. `coalesced`: who receives takes runs in one piece (UDP_GRO).
    """

    payload_octets: int = 64
    run: int = 1
    associations: int = 100
    thin: bool = False
    inward: bool = False
    version: int = 4
    receivers: int = 0
    coalesced: bool = False

    def clients(self) -> list[Address]:
        """The clients' endpoints, one for each association."""
        distinct = self.associations if self.thin else 1
        return [(CLIENT[self.version], FIRST_CLIENT_PORT + i % distinct) for i in range(self.associations)]

    def remotes(self) -> list[Address]:
        """The remotes' endpoints, one for each association; thin clients share one."""
        distinct = 1 if self.thin else min(self.associations, _MOST_REMOTE_PORTS)
        return [(REMOTE[self.version], FIRST_REMOTE_PORT + i % distinct) for i in range(self.associations)]

    def __str__(self) -> str:
        if self.receivers:
            return f"{self.payload_octets} octets to {self.receivers} receivers, bursts of {self.run}"
        clients = f"{self.associations} thin clients" if self.thin else f"{self.associations} associations"
        way = "inward" if self.inward else "outward"
        end = ", GRO at the end" if self.coalesced else ""
        return f"{self.payload_octets} octets, runs of {self.run}, {clients}, {way}, IPv{self.version}{end}"


@dataclass(frozen=True, slots=True)
class Flow:
    """Datagrams from one endpoint to another, with a header before the payload."""

    source: Address
    to: Address
    header: bytes = b""

    def __str__(self) -> str:
        return f"{self.source[0]} {self.source[1]} {self.to[0]} {self.to[1]} {self.header.hex() or '-'}"


@dataclass(frozen=True, slots=True)
class Path:
    """From the generator's flows, through a relay, to the sink's endpoints.

    `skip_octets` is the header that arrives before the payload; `copies` is how often each datagram arrives; `usage`
    is what the relay has used until now.
    """

    origin: Host
    flows: list[Flow]
    end: Host
    listeners: list[Address]
    skip_octets: int = 0
    copies: int = 1
    usage: Callable[[], Usage] = Usage

    def measuring(self, usage: Callable[[], Usage]) -> Path:
        return replace(self, usage=usage)
