"""Outside sockets: what a client's datagrams leave by, and the remotes that may answer there."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from mcastsocks.address import Endpoint, SockAddr
from mcastsocks.planes import sockets
from mcastsocks.planes.interface import Interface, Outside
from mcastsocks.planes.quota import Quota
from mcastsocks.tables.changes import Entry
from mcastsocks.tables.remotes import RemoteIndex
from mcastsocks.tables.shared_ports import SharedPorts

if TYPE_CHECKING:
    from mcastsocks.planes.associate import Associated


SHARED: SockAddr = ()
"""Nobody's address: the client of a socket that clients share."""


class OutsideKey(NamedTuple):
    """What the associations that share a socket have in common; `client` is None over the control channel.

    Where clients share sockets, `client` is SHARED, and `channel` the number of one of them.
    """

    via: str
    channel: int
    client: SockAddr | None
    version: int


@dataclass(slots=True)
class OutsideSocket:
    """Shared by the associations of one client that go the same way, for one IP version; or a UDP ASSOCIATE's own.

    `remotes` are who may answer; `targets` who is sent to besides.
    """

    key: OutsideKey
    sock: socket.socket
    sockaddr: SockAddr
    endpoint: Endpoint
    remotes: RemoteIndex = field(default_factory=RemoteIndex)
    targets: RemoteIndex = field(default_factory=RemoteIndex)
    users: int = 0
    associated: Associated | None = None


class OutsideSockets:
    """Opened for their first user and closed with their last; `opened` and `closing` are told.

    Where there are several outsides a datagram leaves by its rule's; with one alone, unicast goes as the routing table
    says. `clock` counts seconds.
    """

    def __init__(
        self,
        outsides: Mapping[str, Outside],
        quota: Quota,
        opened: Callable[[OutsideSocket], None],
        closing: Callable[[OutsideSocket], None],
        clock: Callable[[], float],
    ) -> None:
        self._interfaces = {via: outside.interface for via, outside in outsides.items()}
        self._shared = {via: SharedPorts() for via, outside in outsides.items() if outside.shares_ports}
        self._quota, self._opened, self._closing, self._clock = quota, opened, closing, clock
        self._open: dict[OutsideKey, OutsideSocket] = {}

    def interface(self, via: str) -> Interface:
        return self._interfaces[via]

    def renew(self, via: str, interface: Interface) -> None:
        """The interface is another, or has other addresses. Raises OSError."""
        before, self._interfaces[via] = self._interfaces[via], interface
        if before.index != interface.index:
            for key, outside in self._open.items():
                if key.via == via:
                    self._direct(outside.sock, key.version, interface)

    def use_for(self, entry: Entry, via: str) -> OutsideSocket:
        """What an association leaves by: its client's own socket, or a shared one. Raises OSError as `use` does."""
        remote, client = entry.remote.address, (entry.channel, entry.client)
        if via not in self._shared:
            return self.use(OutsideKey(via, *client, remote.version))
        number = self._shared[via].take(remote, client, self._clock())
        try:
            return self.use(OutsideKey(via, number, SHARED, remote.version))
        except OSError:
            self._shared[via].give_back(remote, client, self._clock())
            raise

    def release_for(self, entry: Entry, outside: OutsideSocket) -> None:
        """The association has ended."""
        via, _, client, _ = outside.key
        self.release(outside.key)
        if client == SHARED:
            self._shared[via].give_back(entry.remote.address, (entry.channel, entry.client), self._clock())

    def use(self, key: OutsideKey, port: int = 0) -> OutsideSocket:
        """Count one more user. Raises OSError when the first finds no address, port or descriptor."""
        outside = self._open.get(key) or self._add(key, port)
        outside.users += 1
        return outside

    def release(self, key: OutsideKey) -> None:
        outside = self._open[key]
        outside.users -= 1
        if not outside.users:
            del self._open[key]
            self._close(outside)

    def close(self) -> None:
        for outside in self._open.values():
            self._close(outside)
        self._open.clear()

    def _add(self, key: OutsideKey, port: int) -> OutsideSocket:
        interface = self._interfaces[key.via]

        def direct(sock: socket.socket) -> None:
            self._direct(sock, key.version, interface)
            sockets.ask_for_errors(sock, key.version)

        sock = self._quota.open(partial(sockets.open_outside, interface, key.version, port), direct)
        outside = self._open[key] = OutsideSocket(key, sock, sock.getsockname(), sockets.own_endpoint(sock))
        self._opened(outside)
        return outside

    def _close(self, outside: OutsideSocket) -> None:
        self._closing(outside)
        self._quota.close(outside.sock)

    def _direct(self, sock: socket.socket, version: int, interface: Interface) -> None:
        sockets.set_multicast_interface(sock, version, interface)
        if len(self._interfaces) > 1:
            sockets.set_unicast_interface(sock, version, interface)
