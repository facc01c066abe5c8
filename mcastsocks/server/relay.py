"""The relay: everything made, started, and taken down again."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

import mcastsocks
from mcastsocks.address import Endpoint, SockAddr, from_sockaddr
from mcastsocks.errors import ConfigError
from mcastsocks.planes import sockets
from mcastsocks.planes.interface import Interface, Outside, Plane, PlaneOptions
from mcastsocks.rules.decide import Ruleset
from mcastsocks.rules.protected import Protected
from mcastsocks.server import descriptors, interfaces, planes
from mcastsocks.server.associate import UdpAssociate
from mcastsocks.server.auth.userpass import PasswordCheck
from mcastsocks.server.client import Client
from mcastsocks.server.config import Loaded
from mcastsocks.server.connections import Connections, Place
from mcastsocks.server.frames import Channels
from mcastsocks.server.listener import Listener
from mcastsocks.server.records import Records
from mcastsocks.server.resolver import Resolver
from mcastsocks.server.services import Services
from mcastsocks.server.session import Session
from mcastsocks.server.streams.pipes import PipePool
from mcastsocks.server.streams.pump import Pumps
from mcastsocks.server.upstream import Upstream
from mcastsocks.server.watch import AddressWatch
from mcastsocks.server.worker import Worker
from mcastsocks.tables.associations import AssociationTable, TableLimits
from mcastsocks.tables.ports import DoorPorts


class Relay:
    """One relay process. `start` raises ConfigError for what cannot be had here; `stop` leaves nothing behind."""

    def __init__(self, loaded: Loaded, records: Records | None = None, worker: Worker | None = None) -> None:
        config, worker = loaded.config, worker or Worker()
        self.source = loaded.source
        self.config = config
        self._loaded = loaded
        outsides = {
            settings.called: Outside(
                interfaces.configured_outside(loaded, index),
                frozenset(str(each) for each in settings.ignore_sources),
                settings.ports == "shared",
            )
            for index, settings in enumerate(config.outside)
        }
        self.descriptors = descriptors.claim(config.limits, len(config.upstream))
        limits = config.limits
        self._outside_names = frozenset(outside.interface.name for outside in outsides.values())
        self._inside = interfaces.configured_inside(loaded)
        channels, associates = Channels(), dict[int, UdpAssociate]()
        table = AssociationTable(
            TableLimits(
                limits.associations,
                limits.associations_per_user,
                limits.groups,
                limits.groups_per_user,
                limits.group_receivers_per_user,
                limits.local_endpoints_per_user,
            ),
            ledger=worker.ledger,
        )
        options = PlaneOptions(
            self.descriptors.udp_sockets,
            config.inside.fragment_above,
            self._inside,
            config.inside.multicast_ttl,
            sink=channels.push,
            ask=lambda number, destination: associates[number].ask(destination),
            socks_fragments=config.socks.udp_fragments,
            slot_bits=table.slot_bits,
            claims=worker.claims,
        )
        resolver = Resolver(
            worker.part_of(limits.name_lookups), worker.part_of(limits.name_lookups_per_user), limits.name_timeout_s
        )
        self._services = Services(
            config=config,
            channels=channels,
            turn=asyncio.Lock(),
            outsides={via: outside.interface for via, outside in outsides.items()},
            ports=DoorPorts(config.udp_ports_of(worker.index)),
            associates=associates,
            pumps=Pumps(PipePool(limits.splice_pipes // worker.of)),
            users=loaded.users,
            rules=Ruleset(config.rules, loaded.users.teams, self._protected(), next(iter(outsides))),
            table=table,
            plane=self._plane(outsides, options),
            passwords=PasswordCheck(loaded.users, limits, worker=worker),
            resolver=resolver,
            upstreams={
                name: Upstream(name, url, resolver, limits, directed=len(outsides) > 1)
                for name, url in loaded.upstreams.items()
            },
            records=records or Records(config.log.format),
            connections=Connections(limits, self.descriptors.connections, worker.ledger),
            worker=worker,
        )
        self._worker = worker
        self._listeners: list[Listener] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._sessions: set[asyncio.Task[None]] = set()
        self._watch: AddressWatch | None = None
        self._started = False
        self._stopped = asyncio.Event()

    @property
    def plane_name(self) -> str:
        return self._services.plane.name

    def start(self) -> None:
        """Listen. TCP first: a relay that runs already is found there. Signals are heeded from here on."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.end)
        loop.add_signal_handler(signal.SIGHUP, self._ignore_reload)
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
            outside=" ".join(outside.called for outside in self.config.outside),
            udp_ports=" ".join(str(port) for port in self._own_ports()) if self._worker.of > 1 else None,
            plane=self.plane_name,
        )
        if (flaw := sockets.flaw_of_buffers()) is not None:
            self._services.records.write("warning", why=flaw)
        with suppress(OSError):  # no rtnetlink: addresses are taken as they were at start
            self._watch = AddressWatch(self._addresses_changed)
        self._started = True

    def _own_ports(self) -> list[int]:
        """Of this worker, for the enhanced mode."""
        return sorted({endpoint.port + self._worker.index for endpoint in self.config.inside.listen})

    def _ignore_reload(self) -> None:
        self._services.records.write("reload", why="this release reads its configuration and users at start only")

    def _plane(self, outsides: Mapping[str, Outside], options: PlaneOptions) -> Plane:
        """Raises ConfigError when the one that is wanted cannot start."""
        try:
            return planes.start(self.config.plane.kind, asyncio.get_running_loop(), outsides, options)
        except planes.CannotStart as error:
            raise self._loaded.error((("plane", "kind"), str(error))) from None

    def _protected(self) -> Protected:
        listen = [endpoint.address for endpoint in self.config.inside.listen]
        return Protected(interfaces.own_addresses(), interfaces.inside_networks(listen, self._outside_names))

    def _addresses_changed(self) -> None:
        """The relay's own addresses are protected as they are now, and groups are joined again where need be."""
        plane = self._services.plane
        self._services.rules.protect(self._protected())
        for index, settings in enumerate(self.config.outside):
            find = partial(interfaces.configured_outside, self._loaded, index)
            self._renew("outside", settings.called, find, partial(self._renew_outside, settings.called))
        if (inside := self._inside) is not None:
            find_inside = partial(interfaces.configured_inside, self._loaded)
            self._renew("inside", inside.name, find_inside, plane.renew_inside)

    def _renew_outside(self, via: str, interface: Interface) -> int:
        self._services.outsides[via] = interface
        return self._services.plane.renew(via, interface)

    def _renew(
        self, side: str, name: str, find: Callable[[], Interface | None], renew: Callable[[Interface], int]
    ) -> None:
        records = self._services.records
        try:
            joined = renew(interface) if (interface := find()) is not None else 0
        except (ConfigError, OSError) as error:
            records.write(f"{side}-lost", interface=name, why=str(error))
            return
        if joined:
            records.write(f"{side}-renewed", interface=name, groups=joined)

    def end(self) -> None:
        """Serve no longer."""
        self._stopped.set()

    async def serve(self) -> None:
        """Until SIGTERM or SIGINT; SIGUSR1 writes the counters."""
        try:
            await self._stopped.wait()
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Release everything, leave every group, say goodbye in the record."""
        for listener in self._listeners:
            listener.close()
        if self._watch is not None:
            self._watch.close()
        tasks = (*self._tasks, *self._sessions)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._started:
            self.record_counters()
        self._services.plane.close()
        self._services.pumps.pipes.close()
        self._services.passwords.close()
        if self._started:
            self._services.records.write("relay-end")
        self._services.records.close()

    def record_counters(self) -> None:
        """What the plane moved and dropped, and what is open now."""
        services = self._services
        services.records.write(
            "counters",
            connections=len(services.connections),
            turned_away=services.connections.turned_away,
            associations=len(services.table),
            udp_sockets=services.plane.descriptors(),
            **services.plane.counters().as_dict(),
        )

    def _listen(self, endpoint: Endpoint) -> None:
        dead_client_s, shared = self.config.limits.dead_client_s, self._worker.of > 1
        listener = Listener(endpoint, dead_client_s, self._accepted, shared=shared)
        self._listeners.append(listener)
        for inside in _inside_endpoints(endpoint, self._worker.index):
            self._open_inside(inside, may_fail=endpoint.address.is_unspecified)
        self._tasks.add(asyncio.create_task(listener.run()))

    def _open_inside(self, endpoint: Endpoint, *, may_fail: bool) -> None:
        """An address that is not usable yet (IPv6, tentative) gets its socket when a client first connects to it."""
        try:
            self._services.plane.open_inside(endpoint)
        except OSError as error:
            if not (may_fail and error.errno == errno.EADDRNOTAVAIL):
                raise ConfigError(f"cannot take datagrams on UDP {endpoint}: {error.strerror}") from None

    def _accepted(self, sock: socket.socket) -> None:
        connections = self._services.connections
        try:
            peer: SockAddr = sock.getpeername()  # asked now: it cannot be had any more when the client has gone
        except OSError:
            sock.close()
            return
        client = from_sockaddr(peer).address
        if connections.turns_away(client):
            sock.close()
            return
        place = connections.open(client)
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
        await Session(Client(self._services, self._worker.ledger.next_session(), reader, writer, peer), place).run()


def _inside_endpoints(listen: Endpoint, worker: int) -> list[Endpoint]:
    """Where datagrams come in: a socket for each local address, as a wildcard one answers from the wrong address.

    The first worker has the port that is listened on, the others the next ones.

    Addresses that come up later get theirs when a client first connects to them.
    """
    port = listen.port + worker
    if not listen.address.is_unspecified:
        return [Endpoint(listen.host, port)]
    return [
        Endpoint(address, port)
        for address in interfaces.own_addresses()
        if address.version == listen.address.version and not address.is_link_local
    ]
