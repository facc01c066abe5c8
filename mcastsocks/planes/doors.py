"""A UDP port that clients of UDP ASSOCIATE send to: one client each, or many that are told apart by their endpoints."""

from __future__ import annotations

import errno
import socket

from mcastsocks.address import SockAddr
from mcastsocks.planes.associate import Associated


class Door:
    """Truthy while somebody uses it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._known: dict[SockAddr, Associated] = {}
        self._unlearnt: dict[SockAddr, Associated] = {}

    def __bool__(self) -> bool:
        return bool(self._known or self._unlearnt)

    def add(self, associated: Associated) -> None:
        """Raises OSError when it could not be told from another."""
        client = associated.associate.client
        table, key = (self._known, client) if client[1] else (self._unlearnt, _host(client))
        if key in table:
            raise OSError(errno.EADDRINUSE, f"{client[0]} is at this port already")
        table[key] = associated

    def remove(self, associated: Associated) -> None:
        if associated.client is not None:
            del self._known[associated.client]
        else:
            del self._unlearnt[_host(associated.associate.client)]

    def client_of(self, source: SockAddr) -> Associated | None:
        """Whose datagrams come from there, of those who are known."""
        return self._known.get(source)

    def client_at(self, source: SockAddr) -> Associated | None:
        """The same, and who has announced no port is learnt by its first, and pinned."""
        associated = self._known.get(source)
        if associated is None and source[1] and (associated := self._unlearnt.pop(_host(source), None)) is not None:
            associated.client = source
            self._known[source] = associated
        return associated


def _host(sockaddr: SockAddr) -> SockAddr:
    """Address and zone, without the port."""
    return (sockaddr[0], 0, *sockaddr[2:])
