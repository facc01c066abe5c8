"""The sockets and entries of a plane, and how changes are made; the planes differ in how they move datagrams."""

from __future__ import annotations

import asyncio
import errno
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from mcastsocks.address import Endpoint, SockAddr
from mcastsocks.planes import linux, sockets
from mcastsocks.planes.counters import Counters
from mcastsocks.planes.forwarding import Forwarding
from mcastsocks.planes.interface import Interface, PlaneOptions
from mcastsocks.planes.membership import Membership
from mcastsocks.tables.changes import AddEntry, Change, ChangeEntry, Done, Entry, Failed, RemoveEntry, Result, Traffic
from mcastsocks.tables.filters import ANY_SOURCE, SourceFilter, union
from mcastsocks.tables.reassembly import Reassembly
from mcastsocks.tables.remotes import RemoteIndex
from mcastsocks.tables.tally import Tally

_WHY = {
    errno.EACCES: "a group on a port below 1024 needs CAP_NET_BIND_SERVICE (net.ipv4.ip_unprivileged_port_start)",
    errno.EADDRINUSE: "another program holds this group's port for itself (it did not set SO_REUSEADDR)",
    errno.ENOBUFS: "the kernel's limit: net.ipv4.igmp_max_memberships, net.ipv4.igmp_max_msf or net.core.optmem_max",
    errno.ENOMEM: "the kernel's limit: net.core.optmem_max",
}

_RETIRING = 64
"""Datagrams at least that are taken from a socket before it is closed."""

OutsideKey = tuple[int, SockAddr | None, int]  # channel, client, IP version


@dataclass(slots=True)
class OutsideSocket:
    """What one client sends from, and the remotes that may answer there."""

    sock: socket.socket
    sockaddr: SockAddr
    endpoint: Endpoint
    remotes: RemoteIndex = field(default_factory=RemoteIndex)
    users: int = 0


@dataclass(slots=True)
class Group:
    """A group that somebody receives: `receivers` by copies, `listeners` where it is multicast inside (MM-mode)."""

    membership: Membership
    receivers: list[Forwarding] = field(default_factory=list)
    listeners: list[Forwarding] = field(default_factory=list)
    _sources: dict[int, SourceFilter] = field(default_factory=dict)
    _filters: Tally[SourceFilter] = field(default_factory=Tally)

    def filters_with(self, aid: int, wanted: SourceFilter | None) -> set[SourceFilter]:
        """The different filters there would be if this receiver had another one, or left (None)."""
        filters, held = set(self._filters), self._sources.get(aid)
        if held is not None and self._filters[held] == 1:
            filters.discard(held)
        return filters if wanted is None else filters | {wanted}

    def note(self, aid: int, wanted: SourceFilter | None) -> None:
        """It has."""
        held = self._sources.pop(aid, None)
        if held is not None:
            self._filters.remove(held)
        if wanted is not None:
            self._sources[aid] = wanted
            self._filters.add(wanted)


@dataclass(slots=True)
class InsideGroup:
    """A group that clients in MM-mode send to, joined on the inside interface."""

    membership: Membership
    senders: list[Forwarding] = field(default_factory=list)

    def sender(self, host: str, port: int) -> Forwarding | None:
        """Whoever may send from there; the only proof in MM-mode is the source address (mcast §6)."""
        for forwarding in self.senders:
            client = forwarding.entry.client
            if client is not None and client[0] == host and client[1] in (0, port):
                return forwarding
        return None


class Switchboard(ABC):
    """Sockets in an event loop's selector; see planes.interface.Plane."""

    def __init__(self, loop: asyncio.AbstractEventLoop, outside: Interface, options: PlaneOptions) -> None:
        self._loop = loop
        self._interface = outside
        self._options = options
        self._counters = Counters()
        self._reassembly = Reassembly(options.reassembly, self._counters.queues)
        self._inside: dict[Endpoint, socket.socket] = {}
        self._outside: dict[OutsideKey, OutsideSocket] = {}
        self._inside_sockaddrs: set[SockAddr] = set()
        self._own: set[SockAddr] = set()
        self._groups: dict[Endpoint, Group] = {}
        self._inside_groups: dict[Endpoint, InsideGroup] = {}
        self._inside_voices: dict[int, socket.socket] = {}
        self._forwardings: dict[int, Forwarding] = {}

    def open_inside(self, endpoint: Endpoint, zone: int = 0) -> None:
        if endpoint not in self._inside:
            self._expect_room(1)
            sock = sockets.open_inside(endpoint, zone)
            self._inside[endpoint] = sock
            self._inside_sockaddrs.add(sock.getsockname())
            self._watch(partial(self._drain_inside, sock), sock)

    def apply(self, changes: Sequence[Change]) -> list[Result]:
        results: list[Result] = []
        for change in changes:
            results.append(self._apply(change))
            if isinstance(results[-1], Failed):
                break
        return results

    def renew(self, outside: Interface) -> int:
        if outside.index != self._interface.index:
            for (_, _, version), each in self._outside.items():
                sockets.set_multicast_interface(each.sock, version, outside)
        self._interface = outside
        held = linux.held_groups(outside.name)
        forgotten = [group.membership for name, group in self._groups.items() if name.address not in held]
        for membership in forgotten:
            membership.renew(outside)
        return len(forgotten)

    def traffic(self, aid: int) -> Traffic | None:
        forwarding = self._forwardings.get(aid)
        return forwarding.traffic if forwarding else None

    def counters(self) -> Counters:
        return self._counters

    def descriptors(self) -> int:
        memberships = sum(membership.sockets for membership in self._memberships())
        return len(self._inside) + len(self._outside) + len(self._inside_voices) + memberships

    def close(self) -> None:
        for membership in self._memberships():
            membership.close()
        for sock in (*self._inside.values(), *(outside.sock for outside in self._outside.values())):
            self._unwatch(sock)
            sock.close()
        for voice in self._inside_voices.values():
            voice.close()
        for table in (self._inside, self._outside, self._groups, self._inside_groups, self._inside_voices):
            table.clear()
        self._forwardings.clear()

    def _memberships(self) -> list[Membership]:
        outside = [group.membership for group in self._groups.values()]
        return outside + [group.membership for group in self._inside_groups.values()]

    @abstractmethod
    def _drain_inside(self, sock: socket.socket) -> None:
        """Read what clients sent to one of our own addresses."""

    @abstractmethod
    def _drain_outside(self, outside: OutsideSocket) -> None:
        """Read what remotes sent to a client's outside socket."""

    @abstractmethod
    def _drain_group(self, group: Group, sock: socket.socket) -> None:
        """Read what was sent to a group."""

    @abstractmethod
    def _drain_inside_group(self, group: InsideGroup, sock: socket.socket) -> None:
        """Read what inside hosts sent to a group in MM-mode."""

    def _apply(self, change: Change) -> Result:
        try:
            match change:
                case AddEntry(entry):
                    return self._add(entry)
                case ChangeEntry(entry):
                    return self._change(self._forwardings[entry.aid], entry)
                case RemoveEntry(aid):
                    return self._remove(self._forwardings[aid])
        except OSError as error:
            return Failed(error.errno or 0, _WHY.get(error.errno or 0) or error.strerror or str(error))
        except KeyError as error:
            return Failed(0, f"no such entry: {error}")

    def _add(self, entry: Entry) -> Done:
        if entry.client in self._inside_sockaddrs:
            raise OSError(errno.EPERM, "the client's endpoint is the relay's own: datagrams would go round for ever")
        remote = sockets.remote_sockaddr(entry.remote, self._interface)
        forwarding = Forwarding.of(entry, self._inside[entry.inside], remote)
        outside = self._use_outside(forwarding) if _needs_outside(entry) else None
        try:
            self._settle(forwarding, entry.receives, entry.sends)
        except OSError:
            self._settle(forwarding, receives=False, sends=False)
            self._release_outside(forwarding)
            raise
        self._forwardings[entry.aid] = forwarding
        return Done(outside=outside.endpoint if outside else None)

    def _change(self, forwarding: Forwarding, entry: Entry) -> Done:
        outside = None
        if _needs_outside(entry) and forwarding.outside is None:
            outside = self._use_outside(forwarding)
        before = forwarding.entry
        forwarding.become(entry)
        try:
            self._settle(forwarding, entry.receives, entry.sends)
        except OSError:
            forwarding.become(before)
            self._settle(forwarding, before.receives, before.sends)
            if outside is not None:
                self._release_outside(forwarding)
            raise
        return Done(outside=outside.endpoint if outside else None)

    def _remove(self, forwarding: Forwarding) -> Done:
        self._settle(forwarding, receives=False, sends=False)
        self._release_outside(forwarding)
        self._reassembly.release(forwarding.entry.aid)
        del self._forwardings[forwarding.entry.aid]
        return Done(traffic=forwarding.traffic)

    def _settle(self, forwarding: Forwarding, receives: bool, sends: bool) -> None:
        """Let the association's group or remote in, or no more. Raises OSError, and all is as it was."""
        if forwarding.is_group:
            self._receive_group(forwarding, receives)
            if forwarding.entry.mm:
                self._hear_inside(forwarding, sends)
            return
        remotes, (host, port, *_) = self._outside[_outside_key(forwarding.entry)].remotes, forwarding.remote
        if receives != remotes.holds(host, port, forwarding.entry.aid):
            (remotes.add if receives else remotes.remove)(host, port, forwarding.entry.aid)

    def _receive_group(self, forwarding: Forwarding, wanted: bool) -> None:
        """Join for the first receiver, ask for other sources with every change, leave with the last."""
        name, aid, sources = forwarding.entry.remote, forwarding.entry.aid, forwarding.entry.sources
        group = self._groups.get(name)
        if group is None:
            if not wanted:
                return
            group = self._new_group(name)
        filters = group.filters_with(aid, sources if wanted else None)
        if not filters:
            del self._groups[name]
            group.membership.close()
            return
        if wanted and forwarding.entry.mm:
            self._open_voice(name.address.version)
        try:
            self._ask(group.membership, union(filters))
        except OSError:
            if wanted:
                raise
            # Whoever leaves must always be able to: the others' filters go on with more than they need from the kernel.
        group.note(aid, sources if wanted else None)
        self._groups[name] = group
        places = group.listeners if forwarding.entry.mm else group.receivers
        if wanted and forwarding not in places:
            places.append(forwarding)
        elif not wanted and forwarding in places:
            places.remove(forwarding)

    def _hear_inside(self, forwarding: Forwarding, wanted: bool) -> None:
        """Join inside for the first sender in MM-mode, leave with the last."""
        name = forwarding.entry.remote
        group = self._inside_groups.get(name)
        if wanted and group is None:
            group = InsideGroup(Membership(name, self._inside_interface()))
            group.membership.opened = partial(self._watch_inside_group, group)
            group.membership.closing = self._unwatch
            self._ask(group.membership, ANY_SOURCE)
            self._inside_groups[name] = group
        if group is None:
            return
        if wanted and forwarding not in group.senders:
            group.senders.append(forwarding)
        elif not wanted and forwarding in group.senders:
            group.senders.remove(forwarding)
            if not group.senders:
                del self._inside_groups[name]
                group.membership.close()

    def _watch_inside_group(self, group: InsideGroup, sock: socket.socket) -> None:
        self._watch(partial(self._drain_inside_group, group, sock), sock)

    def _inside_interface(self) -> Interface:
        if self._options.inside is None:
            raise OSError(errno.EOPNOTSUPP, "MM-mode needs [inside] interface")
        return self._options.inside

    def _open_voice(self, version: int) -> None:
        """The socket that groups are multicast inside from."""
        if version not in self._inside_voices:
            interface = self._inside_interface()
            self._expect_room(1)
            voice = sockets.open_outside(interface, version)
            sockets.set_multicast_ttl(voice, version, self._options.inside_ttl)
            self._inside_voices[version] = voice
            self._own.add(voice.getsockname())

    def _new_group(self, name: Endpoint) -> Group:
        group = Group(Membership(name, self._interface))
        group.membership.opened = lambda sock: self._watch(partial(self._drain_group, group, sock), sock)
        group.membership.closing = partial(self._retire, group)
        return group

    def _retire(self, group: Group, sock: socket.socket) -> None:
        """What waits in the socket of a changed filter is still wanted; more may come all the time, so not for ever."""
        for _ in range(_RETIRING):
            before = self._counters.received_outside
            self._drain_group(group, sock)
            if self._counters.received_outside == before:
                break
        self._unwatch(sock)

    def _ask(self, membership: Membership, wanted: SourceFilter) -> None:
        self._expect_room(membership.sockets_for(wanted) - membership.sockets)
        membership.update(wanted)

    def _use_outside(self, forwarding: Forwarding) -> OutsideSocket:
        """The outside socket that this client has for its associations of that IP version."""
        key = _outside_key(forwarding.entry)
        outside = self._outside.get(key) or self._open_outside(key)
        outside.users += 1
        forwarding.outside, forwarding.seen_as = outside.sock, outside.sockaddr
        return outside

    def _open_outside(self, key: OutsideKey) -> OutsideSocket:
        self._expect_room(1)
        sock = sockets.open_outside(self._interface, key[2])
        outside = self._outside[key] = OutsideSocket(sock, sock.getsockname(), sockets.own_endpoint(sock))
        self._own.add(outside.sockaddr)
        self._watch(partial(self._drain_outside, outside), sock)
        return outside

    def _release_outside(self, forwarding: Forwarding) -> None:
        if forwarding.outside is None:
            return
        forwarding.outside = None
        key = _outside_key(forwarding.entry)
        outside = self._outside[key]
        outside.users -= 1
        if not outside.users:
            del self._outside[key]
            self._own.discard(outside.sockaddr)
            self._unwatch(outside.sock)
            outside.sock.close()

    def _expect_room(self, more: int) -> None:
        if self.descriptors() + more > self._options.max_sockets:
            raise OSError(errno.EMFILE, f"the relay is full: {self._options.max_sockets} UDP sockets")

    def _watch(self, drain: Callable[[], None], sock: socket.socket) -> None:
        self._loop.add_reader(sock.fileno(), drain)

    def _unwatch(self, sock: socket.socket) -> None:
        self._loop.remove_reader(sock.fileno())


def _needs_outside(entry: Entry) -> bool:
    return entry.sends or not entry.remote.is_group


def _outside_key(entry: Entry) -> OutsideKey:
    return entry.channel, entry.client, entry.remote.address.version
