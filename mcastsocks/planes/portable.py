"""The plane that the others are compared with: one datagram at a time, nothing but Python's socket module."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from mcastsocks.address import Endpoint, SockAddr, to_sockaddr
from mcastsocks.planes import slow_path, sockets
from mcastsocks.planes.counters import Counters, DropReason
from mcastsocks.planes.forwarding import Forwarding
from mcastsocks.planes.interface import Outside
from mcastsocks.tables.changes import (
    AddEntry,
    AddReceiver,
    Change,
    ChangeEntry,
    Done,
    Entry,
    Failed,
    RemoveEntry,
    RemoveReceiver,
    Result,
    Traffic,
)
from mcastsocks.tables.remotes import RemoteIndex
from mcastsocks.wire.datagram import HEADER, HEADER_OCTETS

_BUFFER_OCTETS = 1 << 16
_BUDGET = 64
"""Datagrams of one socket before the others, and the control channels, get their turn."""

_DROP_OF_ERRNO = {
    errno.EAGAIN: DropReason.BUFFER_FULL,
    errno.ENOBUFS: DropReason.BUFFER_FULL,
    errno.EMSGSIZE: DropReason.TOO_LARGE,
    errno.ENETUNREACH: DropReason.UNREACHABLE,
    errno.EHOSTUNREACH: DropReason.UNREACHABLE,
    errno.ENETDOWN: DropReason.UNREACHABLE,
    errno.EADDRNOTAVAIL: DropReason.UNREACHABLE,
}

_OutsideKey = tuple[int, SockAddr, int]  # channel, client, IP version


@dataclass(slots=True)
class _OutsideSocket:
    sock: socket.socket
    endpoint: Endpoint
    remotes: RemoteIndex = field(default_factory=RemoteIndex)
    users: int = 0


@dataclass(slots=True)
class _Group:
    sock: socket.socket
    receivers: list[Forwarding] = field(default_factory=list)


class PortablePlane:
    """Sockets in an event loop's selector; see planes.interface.Plane."""

    name = "portable"

    def __init__(self, loop: asyncio.AbstractEventLoop, outside: Outside, max_sockets: int) -> None:
        self._loop = loop
        self._outside_interface = outside
        self._max_sockets = max_sockets
        self._counters = Counters()
        self._buffer = bytearray(HEADER_OCTETS + _BUFFER_OCTETS)
        self._view = memoryview(self._buffer)
        self._inside: dict[Endpoint, socket.socket] = {}
        self._outside: dict[_OutsideKey, _OutsideSocket] = {}
        self._own: set[SockAddr] = set()
        self._groups: dict[Endpoint, _Group] = {}
        self._forwardings: dict[int, Forwarding] = {}

    def open_inside(self, endpoint: Endpoint, zone: int = 0) -> None:
        if endpoint not in self._inside:
            sock = sockets.open_inside(endpoint, zone)
            self._inside[endpoint] = sock
            self._watch(sock, partial(self._drain_inside, sock))

    def apply(self, changes: Sequence[Change]) -> list[Result]:
        results: list[Result] = []
        for change in changes:
            results.append(self._apply(change))
            if isinstance(results[-1], Failed):
                break
        return results

    def traffic(self, aid: int) -> Traffic | None:
        forwarding = self._forwardings.get(aid)
        return forwarding.traffic if forwarding else None

    def counters(self) -> Counters:
        return self._counters

    def descriptors(self) -> int:
        return len(self._inside) + len(self._outside) + len(self._groups)

    def close(self) -> None:
        for sock in (
            *self._inside.values(),
            *(outside.sock for outside in self._outside.values()),
            *(group.sock for group in self._groups.values()),
        ):
            self._unwatch(sock)
        self._inside.clear()
        self._outside.clear()
        self._groups.clear()
        self._forwardings.clear()

    # Changes

    def _apply(self, change: Change) -> Result:
        try:
            match change:
                case AddEntry(entry):
                    return self._add(entry)
                case ChangeEntry(aid, sends, receives, ttl):
                    return self._change(self._forwardings[aid], sends, receives, ttl)
                case RemoveEntry(aid):
                    return self._remove(self._forwardings[aid])
                case AddReceiver(aid):
                    return self._add_receiver(self._forwardings[aid])
                case RemoveReceiver(aid):
                    return self._remove_receiver(self._forwardings[aid])
        except OSError as error:
            return Failed(error.errno or 0, error.strerror or str(error))
        except KeyError as error:
            return Failed(0, f"no such entry: {error}")

    def _add(self, entry: Entry) -> Done:
        remote = sockets.remote_sockaddr(entry.remote, self._outside_interface)
        forwarding = Forwarding.of(entry, self._inside[entry.inside], remote)
        outside = self._use_outside(forwarding) if entry.sends or not forwarding.is_group else None
        self._forwardings[entry.aid] = forwarding
        if outside and entry.receives and not forwarding.is_group:
            outside.remotes.add(remote[0], remote[1], entry.aid)
        return Done(outside=outside.endpoint if outside else None)

    def _change(self, forwarding: Forwarding, sends: bool, receives: bool, ttl: int) -> Done:
        outside = self._use_outside(forwarding) if sends and forwarding.outside is None else None
        if receives != forwarding.receives and not forwarding.is_group:
            remotes, remote = self._outside[_outside_key(forwarding.entry)].remotes, forwarding.remote
            (remotes.add if receives else remotes.remove)(remote[0], remote[1], forwarding.entry.aid)
        forwarding.sends, forwarding.receives = sends, receives
        forwarding.set_ttl(ttl)
        return Done(outside=outside.endpoint if outside else None)

    def _remove(self, forwarding: Forwarding) -> Done:
        self._change(forwarding, sends=False, receives=False, ttl=0)
        if forwarding.outside is not None:
            key = _outside_key(forwarding.entry)
            outside = self._outside[key]
            outside.users -= 1
            if not outside.users:
                self._unwatch(outside.sock)
                self._own.discard(to_sockaddr(outside.endpoint))
                del self._outside[key]
        del self._forwardings[forwarding.entry.aid]
        return Done(traffic=forwarding.traffic)

    def _add_receiver(self, forwarding: Forwarding) -> Done:
        name = forwarding.entry.remote
        group = self._groups.get(name)
        if group is None:
            self._expect_room()
            group = self._groups[name] = _Group(sockets.open_group(name, self._outside_interface))
            self._watch(group.sock, partial(self._drain_group, group))
        group.receivers.append(forwarding)
        return Done()

    def _remove_receiver(self, forwarding: Forwarding) -> Done:
        name = forwarding.entry.remote
        group = self._groups[name]
        group.receivers.remove(forwarding)
        if not group.receivers:
            self._unwatch(group.sock)
            del self._groups[name]
        return Done()

    def _use_outside(self, forwarding: Forwarding) -> _OutsideSocket:
        """The outside socket that this client has for its associations of that IP version."""
        key = _outside_key(forwarding.entry)
        outside = self._outside.get(key) or self._open_outside(key)
        outside.users += 1
        forwarding.outside = outside.sock
        return outside

    def _open_outside(self, key: _OutsideKey) -> _OutsideSocket:
        self._expect_room()
        sock = sockets.open_outside(self._outside_interface, key[2])
        outside = self._outside[key] = _OutsideSocket(sock, sockets.own_endpoint(sock))
        self._own.add(to_sockaddr(outside.endpoint))
        self._watch(sock, partial(self._drain_outside, outside))
        return outside

    def _expect_room(self) -> None:
        if self.descriptors() >= self._max_sockets:
            raise OSError(errno.EMFILE, f"the relay is full: {self._max_sockets} UDP sockets")

    def _watch(self, sock: socket.socket, drain: Callable[[], None]) -> None:
        self._loop.add_reader(sock.fileno(), drain)

    def _unwatch(self, sock: socket.socket) -> None:
        self._loop.remove_reader(sock.fileno())
        sockets.close(sock)

    # Datagrams

    def _drain_inside(self, sock: socket.socket) -> None:
        """From clients: check, strip the header, pass on."""
        buffer, view, counters = self._buffer, self._view, self._counters
        for _ in range(_BUDGET):
            try:
                octets, source = sock.recvfrom_into(buffer)
            except OSError:  # nothing more, or an error left over from a datagram that was sent
                return
            counters.received_inside += 1
            if octets < HEADER_OCTETS:
                counters.drops[DropReason.RUNT] += 1
                continue
            rsv, frag, _, aid = HEADER.unpack_from(buffer)
            forwarding = self._forwardings.get(aid)
            if forwarding is None:
                counters.drops[DropReason.UNKNOWN_AID] += 1
                continue
            if rsv or frag or not forwarding.sends or source != forwarding.client:
                verdict = slow_path.judge(forwarding, rsv, frag, source, octets)
                if verdict is slow_path.HELLO:
                    counters.hellos += 1
                    continue
                if isinstance(verdict, DropReason):
                    self._drop(forwarding, verdict)
                    continue
            self._to_remote(forwarding, view[HEADER_OCTETS:octets])

    def _drain_outside(self, outside: _OutsideSocket) -> None:
        """From a remote to the one association that expects it."""
        view, counters = self._view, self._counters
        for _ in range(_BUDGET):
            try:
                octets, source = outside.sock.recvfrom_into(view[HEADER_OCTETS:])
            except OSError:
                return
            counters.received_outside += 1
            aid = outside.remotes.match(source[0], source[1])
            if aid is None:
                counters.drops[DropReason.UNEXPECTED_REMOTE] += 1
            else:
                self._to_client(self._forwardings[aid], octets)

    def _drain_group(self, group: _Group) -> None:
        """From a group to everyone who receives it."""
        view, counters = self._view, self._counters
        for _ in range(_BUDGET):
            try:
                octets, source = group.sock.recvfrom_into(view[HEADER_OCTETS:])
            except OSError:
                return
            counters.received_outside += 1
            if source in self._own:
                counters.drops[DropReason.OWN_DATAGRAM] += 1
                continue
            if not group.receivers:
                counters.drops[DropReason.NO_RECEIVER] += 1
                continue
            counters.copied += len(group.receivers) - 1
            for receiver in group.receivers:
                self._to_client(receiver, octets)

    def _to_remote(self, forwarding: Forwarding, data: memoryview) -> None:
        outside = forwarding.outside
        assert outside is not None, "an entry that sends has an outside socket"
        try:
            if forwarding.ancillary:
                outside.sendmsg([data], forwarding.ancillary, 0, forwarding.remote)
            else:
                outside.sendto(data, forwarding.remote)
        except OSError as error:
            self._drop(forwarding, _DROP_OF_ERRNO.get(error.errno or 0, DropReason.SEND_FAILED))
        else:
            self._counters.sent_outside += 1
            forwarding.traffic.to_remote_datagrams += 1
            forwarding.traffic.to_remote_octets += len(data)
        if forwarding.is_group:
            self._copy_to_other_receivers(forwarding, len(data))

    def _copy_to_other_receivers(self, sender: Forwarding, octets: int) -> None:
        """What a client sends to a group goes to the group's other receivers too (mcast §5.1)."""
        group = self._groups.get(sender.entry.remote)
        for receiver in group.receivers if group else ():
            if not receiver.is_same_client(sender):
                self._counters.copied += 1
                self._to_client(receiver, octets)

    def _to_client(self, forwarding: Forwarding, octets: int) -> None:
        """Send the data that stands behind the header's place in the buffer, `octets` of them."""
        if forwarding.client is None:
            self._drop(forwarding, DropReason.ENDPOINT_UNKNOWN)
            return
        view = self._view
        view[:HEADER_OCTETS] = forwarding.header
        try:
            forwarding.inside.sendto(view[: HEADER_OCTETS + octets], forwarding.client)
        except OSError as error:
            self._drop(forwarding, _DROP_OF_ERRNO.get(error.errno or 0, DropReason.SEND_FAILED))
            return
        self._counters.sent_inside += 1
        forwarding.traffic.to_client_datagrams += 1
        forwarding.traffic.to_client_octets += octets

    def _drop(self, forwarding: Forwarding, reason: DropReason) -> None:
        self._counters.drops[reason] += 1
        forwarding.traffic.dropped_datagrams += 1


def _outside_key(entry: Entry) -> _OutsideKey:
    return entry.channel, entry.client, entry.remote.address.version
