"""The plane that Linux gets: datagrams by the batch, each system call for many of them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mcastsocks.address import Endpoint, SockAddr
from mcastsocks.planes import sockets
from mcastsocks.planes.batch.fan import Fan, fan_of
from mcastsocks.planes.batch.inlet import FEW, Inlet
from mcastsocks.planes.batch.judgement import LOOK_AGAIN, count_drops, judge
from mcastsocks.planes.batch.layouts import Ints, Words, octets_at
from mcastsocks.planes.batch.offload import segments_of
from mcastsocks.planes.batch.outlets import Outlets
from mcastsocks.planes.batch.received_control import Tell
from mcastsocks.planes.batch.receiver import Batch, Receiver
from mcastsocks.planes.batch.singles import Single
from mcastsocks.planes.batch.slots import ORDINARY, Slots
from mcastsocks.planes.batch.sockaddrs import sockaddr_of, words_of
from mcastsocks.planes.batch.to_clients import ToClients
from mcastsocks.planes.batch.to_remotes import ToRemotes
from mcastsocks.planes.counters import DropReason, reason_of
from mcastsocks.planes.forwarding import Forwarding
from mcastsocks.planes.groups import Group, InsideGroup
from mcastsocks.planes.interface import Outside, PlaneOptions
from mcastsocks.planes.outsides import OutsideSocket
from mcastsocks.planes.scalar import DATA, ScalarPaths
from mcastsocks.tables.changes import Traffic
from mcastsocks.wire.datagram import HEADER, HEADER_OCTETS, UDP_PAYLOAD_OCTETS

_BUFFERS = 64
_SENDERS = 64
"""Of one group, whose receivers are remembered."""

_INSIDE = DATA - HEADER_OCTETS
"""Where a client's datagram stands for the scalar paths."""


class BatchPlane(ScalarPaths):
    """See planes.interface.Plane. Raises OSError or ImportError where the system has not what it needs.

    Ordinary datagrams go by arrays; what is unusual is copied to where the scalar paths expect it, and goes theirs.
    """

    name = "batch"

    def __init__(self, loop: asyncio.AbstractEventLoop, outsides: Mapping[str, Outside], options: PlaneOptions) -> None:
        super().__init__(loop, outsides, options)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            segments = segments_of(probe)
        table, counters = Slots(options.slot_bits), self._counters
        self._slots = table
        self._receivers = {each: Receiver(each, _BUFFERS, Tell.SEGMENTS | Tell.TRAFFIC_CLASS) for each in (4, 6)}
        self._to_clients = {each: ToClients(each, table, counters, segments) for each in (4, 6)}
        self._outlets = Outlets(loop, self._drain_outlets, self._note_errors)
        self._to_remotes = {each: ToRemotes(each, table, self._outlets, counters, segments) for each in (4, 6)}
        self._largest = min(UDP_PAYLOAD_OCTETS[4], options.fragment_above or UDP_PAYLOAD_OCTETS[4]) - HEADER_OCTETS
        self._insides: list[socket.socket] = []
        self._inlets: dict[int, Inlet] = {}
        self._fans: dict[tuple[str, Endpoint], dict[str, Fan]] = {}

    def traffic(self, aid: int) -> Traffic | None:
        if (traffic := super().traffic(aid)) is not None:
            self._slots.add_traffic(aid, traffic)
        return traffic

    def close(self) -> None:
        super().close()
        self._outlets.close()

    # What the switchboard changes

    def _settle(self, forwarding: Forwarding, receives: bool, sends: bool) -> None:
        super()._settle(forwarding, receives, sends)
        self._refresh(forwarding, is_over=not (receives or sends))

    def _learnt(self, forwarding: Forwarding) -> None:
        self._refresh(forwarding, is_over=False)

    def _refresh(self, forwarding: Forwarding, is_over: bool) -> None:
        """The arrays as the entry is now."""
        entry, table = forwarding.entry, self._slots
        outside = self._outlets.number(forwarding.outside) if forwarding.outside is not None else 0
        if is_over:
            table.add_traffic(entry.aid, forwarding.traffic)
            table.clear(entry.aid)
        else:
            table.set(forwarding, outside, self._inside_number(forwarding.inside))
        forwarding.name = b"" if is_over else _name_of(forwarding)
        if forwarding.is_group:
            self._fans.pop((entry.via, entry.remote), None)
        elif forwarding.outside is not None:
            first = self._remotes_of(forwarding).exactly(*forwarding.remote[:2])
            self._outlets.expect(outside, forwarding.remote, table.row_of(first))

    def _inside_number(self, sock: socket.socket) -> int:
        if sock not in self._insides:
            self._insides.append(sock)
        return self._insides.index(sock)

    def _use_outside(self, forwarding: Forwarding) -> Endpoint | None:
        """Runs are received in one piece here, but not for a UDP ASSOCIATE, which takes datagrams one at a time."""
        endpoint = super()._use_outside(forwarding)
        if forwarding.outside is not None:
            self._inlet(forwarding.outside)
        return endpoint

    def _outside_opened(self, outside: OutsideSocket) -> None:
        self._own.add(outside.sockaddr)
        self._overruns.opened(outside.sock)
        self._outlets.add(outside)

    def _outside_closing(self, outside: OutsideSocket) -> None:
        self._own.discard(outside.sockaddr)
        self._overruns.closing(outside.sock)
        self._inlets.pop(outside.sock.fileno(), None)
        self._outlets.remove(outside)

    def _unwatch(self, sock: socket.socket) -> None:
        self._inlets.pop(sock.fileno(), None)
        super()._unwatch(sock)

    def _inlet(self, sock: socket.socket) -> Inlet:
        inlet = self._inlets.get(sock.fileno())
        if inlet is None:
            inlet = self._inlets[sock.fileno()] = Inlet(sock)
        return inlet

    # From clients

    def _drain_inside(self, sock: socket.socket) -> None:
        inlet = self._inlet(sock)
        self._drain(inlet, self._from_few_clients, partial(self._from_clients, inlet.version))

    def _drain(self, inlet: Inlet, few: Callable[[list[Single]], None], many: Callable[[Batch], None]) -> None:
        """As many as are worth a turn, one by one or by the batch."""
        receiver, before = self._receivers[inlet.version], self._given
        taken = receiver.receive(inlet.fd, min(inlet.most, _BUFFERS))
        if not taken:
            return
        if taken < FEW and (singles := receiver.take_few()) is not None:
            few(singles)
        else:
            batch = receiver.take()
            taken = len(batch)
            many(batch)
        inlet.note(taken, self._given - before)

    @property
    def _given(self) -> int:
        return self._counters.sent_inside + self._counters.sent_outside

    def _from_few_clients(self, singles: list[Single]) -> None:
        """What nothing is unusual about leaves at once."""
        counters, forwardings = self._counters, self._forwardings
        for single in singles:
            data, name, tos = single
            if len(data) >= HEADER_OCTETS and not tos:
                rsv, frag, _, aid = HEADER.unpack_from(data)
                forwarding = forwardings.get(aid)
                if forwarding is not None and forwarding.name == name and not rsv and not frag:
                    counters.received_inside += 1
                    self._leave(forwarding, data[HEADER_OCTETS:])
                    continue
            self._from_client(*self._place_single(single, _INSIDE))

    def _leave(self, forwarding: Forwarding, data: memoryview) -> None:
        """To a remote, without anything that would have to be said of the datagram."""
        assert forwarding.outside is not None, "or it would have no name"
        try:
            sockets.send(forwarding.outside, data, forwarding.remote)
        except OSError as error:
            self._drop(forwarding, reason_of(error))
            return
        self._counters.sent_outside += 1
        traffic = forwarding.traffic
        traffic.to_remote_datagrams += 1
        traffic.to_remote_octets += len(data)

    def _place_single(self, single: Single, start: int) -> tuple[int, SockAddr, int]:
        """One datagram to where the scalar paths expect it: octets, source, DSCP and ECN."""
        data, name, tos = single
        self._view[start : start + len(data)] = data
        return len(data), sockaddr_of(np.frombuffer(name, np.uint64)), tos

    def _from_clients(self, version: int, batch: Batch) -> None:
        """An ordinary datagram's header and source are exactly what its association's row says."""
        table = self._slots
        slots = table.slots_of(batch.headers)
        ordinary = (batch.headers & ORDINARY) == table.headers[slots]
        ordinary &= table.to_remote[slots]
        ordinary &= _same(table.clients[version].words[slots], batch.sources)
        ordinary &= batch.octets >= HEADER_OCTETS
        count = int(np.count_nonzero(ordinary))
        self._counters.received_inside += count
        if count == len(batch):
            self._relay(slots, batch)
        else:
            self._sort_out(version, batch, slots, ordinary)

    def _sort_out(self, version: int, batch: Batch, slots: Ints, ordinary: NDArray[np.bool_]) -> None:
        """Drop what belongs to nobody, as it may be a flood; the rest in the order it came."""
        reasons = judge(self._slots, version, batch, slots)
        left = ordinary | (reasons == LOOK_AGAIN)
        self._counters.received_inside += len(left) - int(np.count_nonzero(left))
        count_drops(self._slots, self._counters, slots, reasons, ~left)
        if not np.count_nonzero(left):
            return
        batch, slots, ordinary = batch.part(left), slots[left], ordinary[left]
        turns = [0, *((ordinary[1:] != ordinary[:-1]).nonzero()[0] + 1).tolist(), len(batch)]
        for start, end in pairwise(turns):
            part = slice(start, end)
            if ordinary[start]:
                self._relay(slots[part], batch.part(part))
            else:
                for index in range(start, end):
                    self._from_client(*self._place(batch, index, _INSIDE))

    def _place(self, batch: Batch, index: int, start: int) -> tuple[int, SockAddr, int]:
        """One datagram to where the scalar paths expect it: octets, source, DSCP and ECN."""
        datagram, classes = batch.datagram(index), batch.traffic_classes
        self._view[start : start + len(datagram)] = datagram
        return len(datagram), sockaddr_of(batch.sources[index]), int(classes[index]) if classes is not None else 0

    def _relay(self, slots: Ints, batch: Batch) -> None:
        """To the remotes, whose IP versions may differ, and to the other receivers of groups."""
        table, classes = self._slots, batch.traffic_classes
        addresses, octets = batch.addresses + HEADER_OCTETS, batch.octets - HEADER_OCTETS
        is_six = table.remotes[6].words[slots, 0] != 0
        for version, chosen in ((4, ~is_six), (6, is_six)):
            count = np.count_nonzero(chosen)
            if count == len(slots):
                self._to_remotes[version].send(slots, addresses, octets, classes)
            elif count:
                self._to_remotes[version].send(slots[chosen], addresses[chosen], octets[chosen], _some(classes, chosen))
        groups = table.groups[slots]
        if np.count_nonzero(groups):
            for slot in np.unique(slots[groups]).tolist():
                mine = slots == slot
                marks = table.marks(table.send_dscps, slots[mine], _some(classes, mine))
                self._copy_burst(self._forwardings[int(table.aids[slot])], addresses[mine], octets[mine], marks)

    def _copy_burst(self, sender: Forwarding, addresses: Ints, octets: Ints, classes: Ints | None) -> None:
        """What a client sends to a group goes to the group's other receivers too (mcast §5.1)."""
        group = self._groups.get((sender.entry.via, sender.entry.remote))
        if group is None:
            return
        source = sender.seen_as
        others = [each for each in group.receivers if not each.is_same_client(sender) and each.admits(source[0])]
        self._counters.copied += (len(others) + bool(group.listeners)) * len(octets)
        self._fan_out(group, fan_of(others, self._slots), addresses, octets, classes, source)

    # From outside

    def _drain_outside(self, outside: OutsideSocket) -> None:
        self._drain_outlets([outside])

    def _drain_outlets(self, ready: list[OutsideSocket]) -> None:
        """Many sockets in one pass, each with its share of the buffers."""
        plain = [outside for outside in ready if outside.associated is None]
        for outside in ready:
            if outside.associated is not None:
                self._associates.drain_outside(outside, outside.associated)
        if len(plain) == 1:
            inlet, outside = self._inlet(plain[0].sock), plain[0]
            few, many = partial(self._from_few_remotes, outside), partial(self._from_one_outlet, inlet.version, outside)
            self._drain(inlet, few, many)
            return
        for version, receiver in self._receivers.items():
            self._drain_version(version, receiver, [each for each in plain if _version(each.sock) == version])

    def _from_few_remotes(self, outside: OutsideSocket, singles: list[Single]) -> None:
        for single in singles:
            self._from_remote(outside, *self._place_single(single, DATA))

    def _from_one_outlet(self, version: int, outside: OutsideSocket, batch: Batch) -> None:
        self._from_remotes(version, batch, np.full(len(batch), self._outlets.number(outside.sock), np.int64))

    def _drain_version(self, version: int, receiver: Receiver, outsides: list[OutsideSocket]) -> None:
        if not outsides:
            return
        each = max(1, _BUFFERS // len(outsides))
        filled = [receiver.receive(outside.sock.fileno(), each) for outside in outsides]
        if any(filled):
            numbers = np.array([self._outlets.number(outside.sock) for outside in outsides], np.int64)
            batch = receiver.take()
            self._from_remotes(version, batch, numbers.repeat(filled)[batch.buffers])

    def _from_remotes(self, version: int, batch: Batch, outlets: Ints) -> None:
        """To the association that expects exactly this remote at this socket; whoever else, one at a time."""
        table = self._slots
        slots = self._outlets.lookup(version, outlets, batch.sources)
        ordinary = slots >= 0
        ordinary &= table.to_client[slots]
        ordinary &= batch.octets <= self._largest
        count = int(np.count_nonzero(ordinary))
        self._counters.received_outside += count
        if count == len(batch):
            self._face(batch, slots)
            return
        # What is cut in pieces keeps its place in its association; whatever else is not ordinary is somebody else's.
        cut = ~ordinary & (batch.octets > self._largest)
        for start, end in pairwise([0, *cut.nonzero()[0].tolist(), len(batch)]):
            for index in (start + (~ordinary[start:end]).nonzero()[0]).tolist():
                self._from_remote(self._outlets[int(outlets[index])], *self._place(batch, index, DATA))
            chosen = start + ordinary[start:end].nonzero()[0]
            if len(chosen):
                self._face(batch.part(chosen), slots[chosen])

    def _face(self, batch: Batch, slots: Ints) -> None:
        """To their clients, from the inside socket that each of these faces."""
        insides = self._slots.insides[slots]
        for number in range(len(self._insides)):
            mine = insides == number
            if np.count_nonzero(mine):
                sock, marks = self._insides[number], _some(batch.traffic_classes, mine)
                to_clients = self._to_clients[_version(sock)]
                to_clients.send(sock.fileno(), slots[mine], batch.addresses[mine], batch.octets[mine], marks)

    # Groups

    def _drain_group(self, group: Group, sock: socket.socket) -> None:
        few, many = partial(self._from_few_of_group, group), partial(self._from_group_batch, group)
        self._drain(self._inlet(sock), few, many)

    def _from_few_of_group(self, group: Group, singles: list[Single]) -> None:
        for single in singles:
            self._from_group(group, *self._place_single(single, DATA))

    def _from_group_batch(self, group: Group, batch: Batch) -> None:
        """A group has one sender as a rule, and few at most."""
        left = np.ones(len(batch), np.bool_)
        while np.count_nonzero(left):
            source = batch.sources[left.argmax()]
            mine = _same(batch.sources, source) & left
            left &= ~mine
            self._from_sender(group, batch.part(mine), sockaddr_of(source))

    def _from_sender(self, group: Group, batch: Batch, source: SockAddr) -> None:
        counters, count = self._counters, len(batch)
        counters.received_outside += count
        if (reason := self._flaw_of_source(group, source)) is not None:
            counters.drops[reason] += count
            return
        fan = self._fan_of(group, source[0])
        if not fan.receivers and not group.listeners:
            counters.drops[DropReason.UNWANTED_SOURCE] += count
            return
        counters.copied += (fan.receivers + bool(group.listeners) - 1) * count
        self._fan_out(group, fan, batch.addresses, batch.octets, batch.traffic_classes, source)

    def _fan_of(self, group: Group, host: str) -> Fan:
        """Who receives the group from a sender; made anew when that changes."""
        fans = self._fans.setdefault(group.name, {})
        if host not in fans:
            if len(fans) >= _SENDERS:
                fans.clear()
            fans[host] = fan_of((each for each in group.receivers if each.admits(host)), self._slots)
        return fans[host]

    def _fan_out(
        self, group: Group, fan: Fan, addresses: Ints, octets: Ints, classes: Ints | None, source: SockAddr
    ) -> None:
        """A burst to all of a fan, and inside for those who listen there."""
        slow = fan.slow
        if np.count_nonzero(octets > self._largest):
            slow, shares = fan.everybody(self._forwardings, self._slots), []
        else:
            shares = fan.shares
        classes = classes if classes is not None and np.count_nonzero(classes) else None
        for share in shares:
            self._to_clients[share.version].copy(share, addresses, octets, classes)
        if slow or group.listeners:
            self._copy_one_by_one(group, slow, addresses, octets, classes, source)

    def _copy_one_by_one(
        self,
        group: Group,
        slow: list[Forwarding],
        addresses: Ints,
        octets: Ints,
        classes: Ints | None,
        source: SockAddr,
    ) -> None:
        marks = classes.tolist() if classes is not None else [0] * len(octets)
        for address, size, tos in zip(addresses.tolist(), octets.tolist(), marks, strict=True):
            self._view[DATA : DATA + size] = octets_at(address, size)
            for receiver in slow:
                self._to_client(receiver, size, source, tos)
            if group.listeners:
                self._multicast_inside(group, size, tos)

    def _drain_inside_group(self, group: InsideGroup, sock: socket.socket) -> None:
        """MM-mode goes the scalar paths."""
        self._drain(self._inlet(sock), partial(self._from_few_inside, group), partial(self._from_inside_batch, group))

    def _from_few_inside(self, group: InsideGroup, singles: list[Single]) -> None:
        for single in singles:
            self._from_inside_group(group, *self._place_single(single, DATA))

    def _from_inside_batch(self, group: InsideGroup, batch: Batch) -> None:
        for index in range(len(batch)):
            self._from_inside_group(group, *self._place(batch, index, DATA))


def _name_of(forwarding: Forwarding) -> bytes:
    """Empty where a client's datagram needs more than its header taken away."""
    entry = forwarding.entry
    if forwarding.client is None or forwarding.outside is None or forwarding.is_group or not entry.sends:
        return b""
    return b"" if entry.send_dscp is not None or entry.sends_rtp else _as_written(forwarding.client)


@lru_cache(maxsize=16_384)
def _as_written(sockaddr: SockAddr) -> bytes:
    return words_of(sockaddr).tobytes()


def _same(these: Words, those: Words) -> NDArray[np.bool_]:
    """Rows that are equal in every word."""
    same: NDArray[np.bool_] = these[:, 0] == those[..., 0]
    for word in range(1, these.shape[1]):
        same &= these[:, word] == those[..., word]
    return same


def _some(classes: Ints | None, which: NDArray[np.bool_]) -> Ints | None:
    return None if classes is None else classes[which]


def _version(sock: socket.socket) -> int:
    return 4 if sock.family == socket.AF_INET else 6
