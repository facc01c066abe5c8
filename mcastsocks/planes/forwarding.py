"""What a plane keeps for each association: an entry, ready for use."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

from mcastsocks.address import SockAddr
from mcastsocks.planes.sockets import ttl_message
from mcastsocks.tables.changes import Entry, Traffic
from mcastsocks.wire.datagram import HEADER

Ancillary = list[tuple[int, int, bytes]]


@dataclass(slots=True, eq=False)
class Forwarding:
    """`client` is None while the client's port has to be learnt; `header` stands before every copy to it.

    `outside` is None for what only receives a group.
    """

    entry: Entry
    inside: socket.socket
    remote: SockAddr
    client: SockAddr | None
    header: bytes
    sends: bool
    receives: bool
    ancillary: Ancillary
    outside: socket.socket | None = None
    traffic: Traffic = field(default_factory=Traffic)

    @classmethod
    def of(cls, entry: Entry, inside: socket.socket, remote: SockAddr) -> Forwarding:
        client = entry.client if entry.client[1] else None
        header = HEADER.pack(0, 0, 0, entry.aid)
        forwarding = cls(entry, inside, remote, client, header, entry.sends, entry.receives, [])
        forwarding.set_ttl(entry.ttl)
        return forwarding

    @property
    def is_group(self) -> bool:
        return self.entry.remote.is_group

    def set_ttl(self, ttl: int) -> None:
        """TTL 0, unicast and receivers: whatever the system's default is."""
        self.ancillary = ttl_message(self.entry.remote.address.version, ttl) if ttl else []

    def is_same_client(self, other: Forwarding) -> bool:
        """Another association of the same connection with the same endpoint (mcast §5.1: no copy to oneself)."""
        return self.entry.channel == other.entry.channel and self.client == other.client
