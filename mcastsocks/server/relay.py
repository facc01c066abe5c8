"""The relay: everything made, started, and taken down again."""

from __future__ import annotations

import asyncio
import itertools
import signal
import socket
from functools import partial

import mcastsocks
from mcastsocks.address import Endpoint, SockAddr, from_sockaddr
from mcastsocks.errors import ConfigError
from mcastsocks.planes.interface import Outside
from mcastsocks.planes.portable import PortablePlane
from mcastsocks.rules.decide import Ruleset
from mcastsocks.rules.protected import Protected
from mcastsocks.server import descriptors, interfaces
from mcastsocks.server.auth.userpass import PasswordCheck
from mcastsocks.server.config import Loaded
from mcastsocks.server.connections import Connections, Place
from mcastsocks.server.listener import Listener
from mcastsocks.server.records import Records
from mcastsocks.server.resolver import Resolver
from mcastsocks.server.services import Services
from mcastsocks.server.session import Session
from mcastsocks.tables.associations import AssociationTable, TableLimits


class Relay:
    """One relay process. `start` raises ConfigError for what cannot be had here; `stop` leaves nothing behind."""

    def __init__(self, loaded: Loaded, records: Records | None = None) -> None:
        config = loaded.config
        self.source = loaded.source
        self.config = config
        self._loaded = loaded
        self.outside: Outside = interfaces.configured_outside(loaded)
        self.descriptors = descriptors.claim(config.limits)
        limits = config.limits
        listen = [endpoint.address for endpoint in config.inside.listen]
        protected = Protected(interfaces.own_addresses(), interfaces.inside_networks(listen, self.outside))
        self._services = Services(
            config=config,
            rules=Ruleset(config.rules, loaded.users.teams, protected),
            table=AssociationTable(
                TableLimits(limits.associations, limits.associations_per_user, limits.groups, limits.groups_per_user)
            ),
            plane=PortablePlane(asyncio.get_running_loop(), self.outside, self.descriptors.udp_sockets),
            passwords=PasswordCheck(loaded.users, limits),
            resolver=Resolver(limits.name_lookups, limits.name_timeout_s),
            records=records or Records(config.log.format),
            connections=Connections(limits, self.descriptors.connections),
        )
        self._numbers = itertools.count(1)
        self._listeners: list[Listener] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._sessions: set[asyncio.Task[None]] = set()
        self._started = False
        self._stopped = asyncio.Event()

    @property
    def plane_name(self) -> str:
        return self._services.plane.name

    def start(self) -> None:
        """Listen. TCP first: a relay that runs already is found there. Signals are heeded from here on."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._stopped.set)
        loop.add_signal_handler(signal.SIGUSR1, self.record_counters)
        for index, endpoint in enumerate(self.config.inside.listen):
            try:
                self._listen(endpoint)
            except ConfigError as error:
                raise self._loaded.error((("inside", "listen", index), str(error))) from None
        self._services.records.write(
            "relay-start",
            version=mcastsocks.__version__,
            configuration=self.source,
            listen=" ".join(str(listener.endpoint) for listener in self._listeners),
            outside=self.outside.name,
            plane=self.plane_name,
        )
        self._started = True

    async def serve(self) -> None:
        """Until SIGTERM, SIGINT or SIGHUP; SIGUSR1 writes the counters."""
        try:
            await self._stopped.wait()
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Release everything, leave every group, say goodbye in the record."""
        for listener in self._listeners:
            listener.close()
        tasks = (*self._tasks, *self._sessions)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._started:
            self.record_counters()
        self._services.plane.close()
        self._services.passwords.close()
        self._services.resolver.close()
        if self._started:
            self._services.records.write("relay-end")
        self._services.records.close()

    def record_counters(self) -> None:
        """What the plane moved and dropped, and what is open now."""
        services = self._services
        services.records.write(
            "counters",
            connections=len(services.connections),
            associations=len(services.table),
            udp_sockets=services.plane.descriptors(),
            **services.plane.counters().as_dict(),
        )

    def _listen(self, endpoint: Endpoint) -> None:
        listener = Listener(endpoint, self.config.limits.dead_client_s, self._accepted)
        self._listeners.append(listener)
        for inside in _inside_endpoints(endpoint):
            self._open_inside(inside)
        self._tasks.add(asyncio.create_task(listener.run()))

    def _open_inside(self, endpoint: Endpoint) -> None:
        try:
            self._services.plane.open_inside(endpoint)
        except OSError as error:
            raise ConfigError(f"cannot take datagrams on UDP {endpoint}: {error.strerror}") from None

    def _accepted(self, sock: socket.socket) -> None:
        connections = self._services.connections
        try:
            peer: SockAddr = sock.getpeername()  # asked now: it cannot be had any more when the client has gone
        except OSError:
            sock.close()
            return
        if connections.overrun:
            sock.close()
            return
        place = connections.open(from_sockaddr(peer).address)
        task = asyncio.create_task(self._run_session(sock, peer, place))
        self._sessions.add(task)
        task.add_done_callback(partial(self._session_done, sock, place))

    def _session_done(self, sock: socket.socket, place: Place, task: asyncio.Task[None]) -> None:
        """Here and not in the session, which never begins when it is cancelled at once."""
        self._sessions.discard(task)
        place.close()
        sock.close()
        if not task.cancelled() and (defect := task.exception()) is not None:
            self._services.records.write("defect", why=f"{type(defect).__name__}: {defect}")
            asyncio.get_running_loop().call_exception_handler({"message": "session", "exception": defect})

    async def _run_session(self, sock: socket.socket, peer: SockAddr, place: Place) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        transport, protocol = await loop.connect_accepted_socket(lambda: asyncio.StreamReaderProtocol(reader), sock)
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        await Session(self._services, next(self._numbers), reader, writer, peer, place).run()


def _inside_endpoints(listen: Endpoint) -> list[Endpoint]:
    """Where datagrams come in: a socket for each local address, as a wildcard one answers from the wrong address.

    Addresses that come up later get theirs when a client first connects to them.
    """
    if not listen.address.is_unspecified:
        return [listen]
    return [
        Endpoint(address, listen.port)
        for address in interfaces.own_addresses()
        if address.version == listen.address.version and not address.is_link_local
    ]
