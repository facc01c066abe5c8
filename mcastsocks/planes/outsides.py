"""Outside sockets: what a client's datagrams leave by, and the remotes that may answer there."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from mcastsocks.address import Endpoint, SockAddr
from mcastsocks.planes import sockets
from mcastsocks.planes.interface import Interface, Outside
from mcastsocks.planes.quota import Quota
from mcastsocks.tables.changes import Entry
from mcastsocks.tables.remotes import RemoteIndex

_Key = tuple[str, int, SockAddr | None, int]  # via, channel, client, IP version


@dataclass(slots=True)
class OutsideSocket:
    """Shared by the associations of one client that go the same way, for one IP version."""

    sock: socket.socket
    sockaddr: SockAddr
    endpoint: Endpoint
    remotes: RemoteIndex = field(default_factory=RemoteIndex)
    users: int = 0


class OutsideSockets:
    """Opened for their first user and closed with their last; `opened` and `closing` are told.

    Where there are several outsides a datagram leaves by its rule's; with one alone, unicast goes as the routing table
    says.
    """

    def __init__(
        self,
        outsides: Mapping[str, Outside],
        quota: Quota,
        opened: Callable[[OutsideSocket], None],
        closing: Callable[[OutsideSocket], None],
    ) -> None:
        self._interfaces = {via: outside.interface for via, outside in outsides.items()}
        self._quota, self._opened, self._closing = quota, opened, closing
        self._open: dict[_Key, OutsideSocket] = {}

    def interface(self, via: str) -> Interface:
        return self._interfaces[via]

    def renew(self, via: str, interface: Interface) -> None:
        """The interface is another, or has other addresses. Raises OSError."""
        before, self._interfaces[via] = self._interfaces[via], interface
        if before.index != interface.index:
            for (its, _, _, version), outside in self._open.items():
                if its == via:
                    self._direct(outside.sock, version, interface)

    def of(self, entry: Entry) -> OutsideSocket:
        return self._open[_key(entry)]

    def use(self, entry: Entry) -> OutsideSocket:
        """Count one more user. Raises OSError when the first finds no address, port or descriptor."""
        key = _key(entry)
        outside = self._open.get(key) or self._add(key)
        outside.users += 1
        return outside

    def release(self, entry: Entry) -> None:
        key = _key(entry)
        outside = self._open[key]
        outside.users -= 1
        if not outside.users:
            del self._open[key]
            self._close(outside)

    def close(self) -> None:
        self._drop(self._open.values())
        self._open.clear()

    def _drop(self, outsides: Iterable[OutsideSocket]) -> None:
        for outside in outsides:
            self._close(outside)

    def _add(self, key: _Key) -> OutsideSocket:
        via, _, _, version = key
        self._quota.take()
        try:
            sock = sockets.open_outside(self._interfaces[via], version)
        except OSError:
            self._quota.give_back()
            raise
        self._direct(sock, version, self._interfaces[via])
        outside = self._open[key] = OutsideSocket(sock, sock.getsockname(), sockets.own_endpoint(sock))
        self._opened(outside)
        return outside

    def _close(self, outside: OutsideSocket) -> None:
        self._closing(outside)
        outside.sock.close()
        self._quota.give_back()

    def _direct(self, sock: socket.socket, version: int, interface: Interface) -> None:
        sockets.set_multicast_interface(sock, version, interface)
        if len(self._interfaces) > 1:
            sockets.set_unicast_interface(sock, version, interface)


def _key(entry: Entry) -> _Key:
    return entry.via, entry.channel, entry.client, entry.remote.address.version
