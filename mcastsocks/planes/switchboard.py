"""The sockets and entries of a plane, and how changes are made; the planes differ in how they move datagrams."""

from __future__ import annotations

import asyncio
import errno
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from mcastsocks.address import Endpoint, SockAddr
from mcastsocks.planes import linux, sockets
from mcastsocks.planes.associates import Associates
from mcastsocks.planes.counters import Counters
from mcastsocks.planes.doors import Door
from mcastsocks.planes.errors import note_errors
from mcastsocks.planes.forwarding import Forwarding
from mcastsocks.planes.groups import Group, InsideGroup
from mcastsocks.planes.interface import Interface, Outside, PlaneOptions
from mcastsocks.planes.loop import unwatch, watch
from mcastsocks.planes.membership import Membership
from mcastsocks.planes.outsides import OutsideSocket, OutsideSockets
from mcastsocks.planes.quota import Quota
from mcastsocks.tables.changes import (
    AddAssociate,
    AddEntry,
    Change,
    ChangeEntry,
    Done,
    Entry,
    Failed,
    ForgetRoutes,
    RemoveAssociate,
    RemoveEntry,
    Result,
    Route,
    Terms,
    Traffic,
)
from mcastsocks.tables.filters import ANY_SOURCE, union
from mcastsocks.tables.reassembly import Reassembly

_WHY = {
    errno.EACCES: "a group on a port below 1024 needs CAP_NET_BIND_SERVICE (net.ipv4.ip_unprivileged_port_start)",
    errno.EADDRINUSE: "another program holds this group's port for itself (it did not set SO_REUSEADDR)",
    errno.ENOBUFS: "the kernel's limit: net.ipv4.igmp_max_memberships, net.ipv4.igmp_max_msf or net.core.optmem_max",
    errno.ENOMEM: "the kernel's limit: net.core.optmem_max",
}

_EMPTYING = 64
"""Datagrams at least that are taken from a socket whose association or filter ends."""


class Switchboard(ABC):
    """Sockets in an event loop's selector; see planes.interface.Plane."""

    def __init__(self, loop: asyncio.AbstractEventLoop, outsides: Mapping[str, Outside], options: PlaneOptions) -> None:
        self._loop = loop
        self._options = options
        self._quota = Quota(options.max_sockets)
        self._borders = outsides
        self._outside = OutsideSockets(outsides, self._quota, self._outside_opened, self._outside_closing, loop.time)
        self._inside_interface = options.inside
        self._counters = Counters()
        self._overruns = sockets.Overruns()
        self._reassembly = Reassembly(options.reassembly, self._counters.queues)
        self._associates = Associates(
            loop, self._quota, self._outside, self._counters, options, self._door_opened, self._door_closing
        )
        self._socks = self._associates.paths
        self._inside: dict[Endpoint, socket.socket] = {}
        self._inside_sockaddrs: set[SockAddr] = set()
        self._own: set[SockAddr] = set()
        self._groups: dict[tuple[str, Endpoint], Group] = {}
        self._inside_groups: dict[Endpoint, InsideGroup] = {}
        self._inside_voices: dict[int, socket.socket] = {}
        self._forwardings: dict[int, Forwarding] = {}

    def open_inside(self, endpoint: Endpoint, zone: int = 0) -> None:
        if endpoint not in self._inside:
            sock = self._quota.open(partial(sockets.open_inside, endpoint, zone))
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

    def renew(self, via: str, interface: Interface) -> int:
        self._outside.renew(via, interface)
        return _renew([group.membership for (its, _), group in self._groups.items() if its == via], interface)

    def renew_inside(self, interface: Interface) -> int:
        before, self._inside_interface = self._inside_interface, interface
        if before is not None and before.index != interface.index:
            for version, voice in self._inside_voices.items():
                sockets.set_multicast_interface(voice, version, interface)
        return _renew([group.membership for group in self._inside_groups.values()], interface)

    def catch_up(self, inside: Endpoint) -> None:
        if (sock := self._inside.get(inside)) is not None:
            self._empty(partial(self._drain_inside, sock))

    def traffic(self, aid: int) -> Traffic | None:
        forwarding = self._forwardings.get(aid)
        return forwarding.traffic if forwarding else None

    def associate_traffic(self, channel: int) -> Traffic | None:
        return self._associates.traffic(channel)

    def counters(self) -> Counters:
        self._counters.overruns = self._overruns.total
        return self._counters

    def descriptors(self) -> int:
        return self._quota.held

    def close(self) -> None:
        for group in self._groups.values():
            group.close()
        for inside_group in self._inside_groups.values():
            inside_group.membership.close()
        self._associates.close()
        self._outside.close()
        for sock in self._inside.values():
            self._unwatch(sock)
        for sock in (*self._inside.values(), *self._inside_voices.values()):
            self._quota.close(sock)
        for table in (self._inside, self._groups, self._inside_groups, self._inside_voices):
            table.clear()
        self._forwardings.clear()

    @abstractmethod
    def _drain_inside(self, sock: socket.socket) -> None:
        """Read what clients sent to one of our own addresses."""

    @abstractmethod
    def _drain_outside(self, outside: OutsideSocket) -> None:
        """Read what remotes sent to a client's outside socket."""

    @abstractmethod
    def _drain_door(self, door: Door) -> None:
        """Read what clients of UDP ASSOCIATE sent."""

    @abstractmethod
    def _drain_group(self, group: Group, sock: socket.socket) -> None:
        """Read what was sent to a group."""

    @abstractmethod
    def _drain_inside_group(self, group: InsideGroup, sock: socket.socket) -> None:
        """Read what inside hosts sent to a group in MM-mode."""

    def _apply(self, change: Change) -> Result:
        try:
            match change:
                case AddEntry(entry, terms):
                    return self._add(entry, terms)
                case ChangeEntry(aid, terms):
                    return self._change(self._forwardings[aid], terms)
                case RemoveEntry(aid):
                    return self._remove(self._forwardings[aid])
                case AddAssociate(associate):
                    return self._associates.add(associate)
                case Route():
                    return self._associates.route(change)
                case ForgetRoutes(channel):
                    return self._associates.forget(channel)
                case RemoveAssociate(channel):
                    self._empty(partial(self._drain_door, self._associates.door(channel)))
                    return self._associates.remove(channel)
        except OSError as error:
            return Failed(error.errno or 0, _WHY.get(error.errno or 0) or error.strerror or str(error))
        except KeyError as error:
            return Failed(0, f"no such entry: {error}")

    def _add(self, entry: Entry, terms: Terms) -> Done:
        if entry.client in self._inside_sockaddrs:
            raise OSError(errno.EPERM, "the client's endpoint is the relay's own: datagrams would go round for ever")
        remote = sockets.remote_sockaddr(entry.remote, self._outside.interface(terms.via))
        forwarding = Forwarding.of(entry, terms, self._inside[entry.inside], remote)
        outside = self._use_outside(forwarding)
        try:
            self._settle(forwarding, terms.receives, terms.sends)
        except OSError:
            self._settle(forwarding, receives=False, sends=False)
            self._release_outside(forwarding)
            raise
        self._forwardings[entry.aid] = forwarding
        return Done(outside)

    def _change(self, forwarding: Forwarding, terms: Terms) -> Done:
        before = forwarding.terms
        forwarding.become(terms)
        outside = None
        try:
            outside = self._use_outside(forwarding)
            self._settle(forwarding, terms.receives, terms.sends)
        except OSError:
            forwarding.become(before)
            self._settle(forwarding, before.receives, before.sends)
            if outside is not None:
                self._release_outside(forwarding)
            raise
        return Done(outside)

    def _remove(self, forwarding: Forwarding) -> Done:
        self._settle(forwarding, receives=False, sends=False)
        self._release_outside(forwarding)
        self._reassembly.release(forwarding.entry.aid)
        del self._forwardings[forwarding.entry.aid]
        return Done(traffic=forwarding.traffic)

    def _settle(self, forwarding: Forwarding, receives: bool, sends: bool) -> None:
        """Let the association's group or remote in, or no more. Raises OSError, and all is as it was."""
        if forwarding.terms.upstream:
            return
        self._aim(forwarding, sends and (forwarding.is_group or not receives))
        if forwarding.is_group:
            self._receive_group(forwarding, receives)
            if forwarding.entry.mm:
                self._hear_inside(forwarding, sends)
            return
        assert forwarding.outside is not None, "unicast always has one"
        remotes, place, aid = forwarding.outside.remotes, forwarding.place, forwarding.entry.aid
        if receives != remotes.holds(place, aid):
            (remotes.add if receives else remotes.remove)(place, aid)

    def _receive_group(self, forwarding: Forwarding, wanted: bool) -> None:
        """Join for the first receiver, ask for other sources with every change, leave with the last."""
        entry, terms = forwarding.entry, forwarding.terms
        name, sources = (terms.via, entry.remote), terms.sources if wanted else None
        group = self._groups.get(name)
        if group is None:
            if not wanted:
                return
            group = self._new_group(*name)
        filters = group.filters_with(entry.aid, sources)
        if not filters:
            del self._groups[name]
            group.close()
            return
        if wanted and entry.mm:
            self._open_voice(entry.remote.address.version)
        try:
            group.membership.update(union(filters))
        except OSError:
            if wanted:
                raise
            # Whoever leaves must always be able to: the others' filters go on with more than they need from the kernel.
        group.note(forwarding, sources)
        self._groups[name] = group

    def _hear_inside(self, forwarding: Forwarding, wanted: bool) -> None:
        """Join inside for the first sender in MM-mode, leave with the last."""
        name = forwarding.entry.remote
        group = self._inside_groups.get(name)
        if wanted and group is None:
            membership = Membership(name, self._mm_interface(), self._quota)
            group = InsideGroup(name, membership, self._options.claims)
            group.membership.opened = partial(self._watch_inside_group, group)
            group.membership.closing = self._unwatch
            group.membership.update(ANY_SOURCE)
            self._inside_groups[name] = group
        if group is None:
            return
        if wanted and forwarding not in group.senders:
            group.add(forwarding)
        elif not wanted and forwarding in group.senders:
            group.remove(forwarding)
            if not group.senders:
                del self._inside_groups[name]
                group.membership.close()

    def _watch_inside_group(self, group: InsideGroup, sock: socket.socket) -> None:
        self._watch(partial(self._drain_inside_group, group, sock), sock)

    def _mm_interface(self) -> Interface:
        if self._inside_interface is None:
            raise OSError(errno.EOPNOTSUPP, "MM-mode needs [inside] interface")
        return self._inside_interface

    def _open_voice(self, version: int) -> None:
        """The socket that groups are multicast inside from."""
        if version not in self._inside_voices:
            interface = self._mm_interface()

            def direct(voice: socket.socket) -> None:
                sockets.set_multicast_interface(voice, version, interface)
                sockets.set_multicast_ttl(voice, version, self._options.inside_ttl)

            voice = self._inside_voices[version] = self._quota.open(
                partial(sockets.open_outside, interface, version), direct
            )
            self._own.add(voice.getsockname())

    def _new_group(self, via: str, name: Endpoint) -> Group:
        membership = Membership(name, self._outside.interface(via), self._quota)
        group = Group((via, name), membership, self._borders[via], self._options.claims)
        group.membership.opened = lambda sock: self._watch(partial(self._drain_group, group, sock), sock)
        group.membership.closing = partial(self._retire, group)
        return group

    def _retire(self, group: Group, sock: socket.socket) -> None:
        """What waits in the socket of a changed filter is still wanted; more may come all the time, so not for ever."""
        self._empty(partial(self._drain_group, group, sock))
        self._unwatch(sock)

    def _empty(self, drain: Callable[[], None]) -> None:
        counters = self._counters
        for _ in range(_EMPTYING):
            before = counters.received_inside + counters.received_outside
            drain()
            if counters.received_inside + counters.received_outside == before:
                break

    def _use_outside(self, forwarding: Forwarding) -> Endpoint | None:
        """Give an association what it leaves by, where it needs it and has none: the endpoint, which remotes see."""
        terms = forwarding.terms
        if forwarding.outside is not None or terms.upstream or (forwarding.is_group and not terms.sends):
            return None
        forwarding.outside = self._outside.use_for(forwarding.entry, terms.via)
        return forwarding.outside.endpoint

    def _release_outside(self, forwarding: Forwarding) -> None:
        if forwarding.outside is not None:
            self._outside.release_for(forwarding.entry, forwarding.outside)
            forwarding.outside = None

    def _aim(self, forwarding: Forwarding, wanted: bool) -> None:
        """Errors about its destination are its own, where that is none of those who may answer."""
        if forwarding.outside is None:
            return
        targets, place, aid = forwarding.outside.targets, forwarding.place, forwarding.entry.aid
        if wanted != targets.holds(place, aid):
            (targets.add if wanted else targets.remove)(place, aid)

    def _outside_opened(self, outside: OutsideSocket) -> None:
        self._own.add(outside.sockaddr)
        self._watch(partial(self._drain_any_outside, outside), outside.sock)

    def _drain_any_outside(self, outside: OutsideSocket) -> None:
        if outside.associated is not None:
            self._socks.drain_outside(outside, outside.associated)
        else:
            self._drain_outside(outside)
        self._note_errors(outside)

    def _note_errors(self, outside: OutsideSocket) -> None:
        note_errors(outside, self._forwardings, self._counters)

    def _outside_closing(self, outside: OutsideSocket) -> None:
        self._own.discard(outside.sockaddr)
        self._unwatch(outside.sock)

    def _door_opened(self, door: Door) -> None:
        self._watch(partial(self._drain_door, door), door.sock)

    def _door_closing(self, door: Door) -> None:
        self._unwatch(door.sock)

    def _watch(self, drain: Callable[[], None], sock: socket.socket) -> None:
        watch(self._loop, sock.fileno(), drain)
        self._overruns.opened(sock)

    def _unwatch(self, sock: socket.socket) -> None:
        unwatch(self._loop, sock.fileno())
        self._overruns.closing(sock)


def _renew(memberships: Sequence[Membership], interface: Interface) -> int:
    """Join again what the kernel has forgotten; how many that were. Raises OSError."""
    held = linux.held_groups(interface.name)
    forgotten = [membership for membership in memberships if not membership.is_held(held)]
    for membership in forgotten:
        membership.renew(interface)
    return len(forgotten)
