"""What a plane keeps for each association: an entry, ready for use."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

from mcastsocks.address import SockAddr
from mcastsocks.planes.interface import Through, no_upstream
from mcastsocks.tables.changes import Entry, Traffic
from mcastsocks.wire.datagram import HEADER, RSV_SOURCE

_NO_HOSTS: frozenset[str] = frozenset()
"""One for all: Python makes 200 octets for each."""


@dataclass(slots=True, eq=False)
class Forwarding:
    """`client` is None while the client's port has to be learnt, and for TCP-encapsulated associations.

    `header` stands before every copy to the client; `outside` is None for what only receives a group, and `seen_as` is
    the source that remotes and groups see. `through` takes what the client sends where the entry has an upstream.
    """

    entry: Entry
    inside: socket.socket
    remote: SockAddr
    client: SockAddr | None
    header: bytes = b""
    hosts: frozenset[str] = frozenset()
    outside: socket.socket | None = None
    seen_as: SockAddr = ()
    through: Through = no_upstream
    dgid: int = 0
    name: bytes = b""
    """The client's address as the kernel writes it, where nothing but address and header has to be looked at."""
    traffic: Traffic = field(default_factory=Traffic)

    @classmethod
    def of(cls, entry: Entry, inside: socket.socket, remote: SockAddr) -> Forwarding:
        client = entry.client if entry.client is not None and entry.client[1] else None
        forwarding = cls(entry, inside, remote, client)
        forwarding.become(entry)
        return forwarding

    def become(self, entry: Entry) -> None:
        """Take over what may change: directions, TTL, sources, reports."""
        self.entry = entry
        self.header = HEADER.pack(RSV_SOURCE if entry.reports_source else 0, 0, 0, entry.aid)
        self.hosts = frozenset(str(source) for source in entry.sources.sources) if entry.sources.sources else _NO_HOSTS

    @property
    def sends(self) -> bool:
        return self.entry.sends

    @property
    def takes_datagrams(self) -> bool:
        """The client sends, and behind headers of ours."""
        return self.entry.sends and not self.entry.mm

    @property
    def is_group(self) -> bool:
        return self.entry.remote.is_group

    def admits(self, host: str) -> bool:
        """Whether the client's source filter lets a sender's datagrams through."""
        return (host in self.hosts) == self.entry.sources.include

    def is_same_client(self, other: Forwarding) -> bool:
        """Another association of the same connection with the same endpoint (mcast §5.1: no copy to oneself)."""
        mine, its = self.entry, other.entry
        return (mine.channel, mine.client, self.client) == (its.channel, its.client, other.client)

    def next_dgid(self) -> int:
        """1 to 65535 and round again: far more than can be under way at once."""
        self.dgid = self.dgid % 0xFFFF + 1
        return self.dgid
