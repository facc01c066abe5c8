"""What a plane keeps for each association: an entry, ready for use."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from mcastsocks.address import SockAddr
from mcastsocks.planes.interface import Through, no_upstream
from mcastsocks.planes.outsides import OutsideSocket
from mcastsocks.tables.changes import Entry, Terms, Traffic
from mcastsocks.tables.remotes import Place
from mcastsocks.wire.datagram import HEADER, RSV_SOURCE

_NO_HOSTS: frozenset[str] = frozenset()
"""One for all: Python makes 200 octets for each."""


@dataclass(slots=True, eq=False)
class Forwarding:
    """`client` is None while the client's port has to be learnt, and for TCP-encapsulated associations.

    `outside` is None for what only receives a group. `through` takes what the client sends where the entry has an
    upstream.
    """

    entry: Entry
    terms: Terms
    inside: socket.socket
    remote: SockAddr
    client: SockAddr | None
    is_group: bool
    hosts: frozenset[str] = _NO_HOSTS
    outside: OutsideSocket | None = None
    through: Through = no_upstream
    dgid: int = 0
    name: bytes = b""
    """The client's address as the kernel writes it, where nothing but address and header has to be looked at."""
    _traffic: Traffic | None = None

    @classmethod
    def of(cls, entry: Entry, terms: Terms, inside: socket.socket, remote: SockAddr) -> Forwarding:
        client = entry.client if entry.client is not None and entry.client[1] else None
        forwarding = cls(entry, terms, inside, remote, client, entry.remote.is_group)
        forwarding.become(terms)
        return forwarding

    def become(self, terms: Terms) -> None:
        """Take over what may change."""
        self.terms = terms
        self.hosts = frozenset(str(source) for source in terms.sources.sources) if terms.sources.sources else _NO_HOSTS

    @property
    def traffic(self) -> Traffic:
        """What was counted one by one; most associations need none."""
        if self._traffic is None:
            self._traffic = Traffic()
        return self._traffic

    @property
    def header(self) -> bytes:
        """What stands before every copy to the client."""
        return HEADER.pack(RSV_SOURCE if self.terms.reports_source else 0, 0, 0, self.entry.aid)

    @property
    def place(self) -> Place:
        """Of the remote."""
        place: Place = self.remote[:2]
        return place

    @property
    def seen_as(self) -> SockAddr:
        """The source that remotes and groups see."""
        assert self.outside is not None, "or nobody sees it"
        return self.outside.sockaddr

    @property
    def sends(self) -> bool:
        return self.terms.sends

    @property
    def takes_datagrams(self) -> bool:
        """The client sends, and behind headers of ours."""
        return self.terms.sends and not self.entry.mm

    def admits(self, host: str) -> bool:
        """Whether the client's source filter lets a sender's datagrams through."""
        return (host in self.hosts) == self.terms.sources.include

    def is_same_client(self, other: Forwarding) -> bool:
        """Another association of the same connection with the same endpoint (mcast §5.1: no copy to oneself)."""
        mine, its = self.entry, other.entry
        return (mine.channel, mine.client, self.client) == (its.channel, its.client, other.client)

    def next_dgid(self) -> int:
        """1 to 65535 and round again: far more than can be under way at once."""
        self.dgid = self.dgid % 0xFFFF + 1
        return self.dgid
