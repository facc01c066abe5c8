"""What the vector paths know of associations: arrays with a row for each slot, the low bits of an AID."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mcastsocks.planes.batch.layouts import Ints, Words, allocate
from mcastsocks.planes.batch.receiver import aids_of
from mcastsocks.planes.batch.sockaddrs import Destinations
from mcastsocks.planes.forwarding import Forwarding
from mcastsocks.tables.changes import Traffic
from mcastsocks.wire.datagram import HEADER

ORDINARY = np.array(0xFFFFFFFF_0000FFFF, np.uint64)
"""Of a header as it stands in memory: AID, FRAG and RSV, but not DGID, which an ordinary datagram leaves undefined."""

_KEEP = -1
_ECN = 0x03


class Slots:
    """Rows of associations that are served by the vector paths; what they do not say, the scalar path knows.

    A row is zero where there is none. `headers` are what an ordinary datagram of the association begins with.
    `clients` and `remotes` are tables by IP version. `to_remote` and `to_client` say whether the vector paths serve
    that direction; `outsides` and `insides` are numbers of the sockets; `is_crowded` that an association found its slot
    taken. A DSCP of -1 is the datagram's own. Rows are given out from the lowest, so that memory is touched only where
    it is needed: some 200 octets a row, and 8 for each slot. Row 0 is nobody's.
    """

    def __init__(self, bits: int) -> None:
        self.mask = np.array((1 << bits) - 1, np.uint32)
        self._rows: Ints = allocate(1 << bits, np.int64)
        self._free: list[int] = []
        self._used = 1
        size = (1 << bits) // 2 + 1  # an AID rests for as long: tables.aids
        self.aids: NDArray[np.uint32] = allocate(size, np.uint32)
        self.headers: Words = allocate(size, np.uint64)
        self.clients = {version: Destinations(version, size) for version in (4, 6)}
        self.remotes = {version: Destinations(version, size) for version in (4, 6)}
        self.to_remote: NDArray[np.bool_] = allocate(size, np.bool_)
        self.to_client: NDArray[np.bool_] = allocate(size, np.bool_)
        self.groups: NDArray[np.bool_] = allocate(size, np.bool_)
        self.outsides: NDArray[np.int32] = allocate(size, np.int32)
        self.insides: NDArray[np.int32] = allocate(size, np.int32)
        self.ttls: Ints = allocate(size, np.int64)
        self.send_dscps: Ints = allocate(size, np.int64)
        self.receive_dscps: Ints = allocate(size, np.int64)
        self._to_remote = _Moved(size)
        self._to_client = _Moved(size)
        self._dropped: Ints = allocate(size, np.int64)
        self.marked = self.is_crowded = False

    def slots_of(self, headers: Words) -> Ints:
        """The rows that datagrams' AIDs lead to, whether or not they are these AIDs' own."""
        rows: Ints = self._rows[aids_of(headers) & self.mask]
        return rows

    def row_of(self, aid: int | None) -> int | None:
        """Where an association is; None where only the scalar path knows it."""
        row = self._row(aid) if aid is not None else 0
        return row if row and self.aids[row] == aid else None

    def _row(self, aid: int) -> int:
        return int(self._rows[aid & int(self.mask)])

    def _new_row(self, aid: int) -> int:
        """0 when all are taken."""
        if not self._free and self._used == len(self.aids):
            return 0
        row = self._free.pop() if self._free else self._used
        self._used = max(self._used, row + 1)
        self._rows[aid & int(self.mask)] = row
        return row

    def set(self, forwarding: Forwarding, outside: int, inside: int) -> bool:
        """Write a row anew; False when another association has the slot, so that only the scalar path serves this."""
        entry = forwarding.entry
        slot = self._row(entry.aid) or self._new_row(entry.aid)
        if not slot or self.aids[slot] not in (0, entry.aid):
            self.is_crowded = True
            return False
        known = forwarding.client is not None and not entry.mm and not entry.upstream
        if known and forwarding.client is not None:
            self.clients[entry.inside.address.version].set(slot, forwarding.client)
        self.remotes[entry.remote.address.version].set(slot, forwarding.remote)
        self.aids[slot] = entry.aid
        self.headers[slot] = np.frombuffer(HEADER.pack(0, 0, 0, entry.aid), np.uint64)[0]
        self.to_remote[slot] = known and entry.sends and forwarding.outside is not None and not entry.sends_rtp
        self.to_client[slot] = known and entry.receives and not (entry.reports_source or entry.receives_rtp)
        self.groups[slot], self.outsides[slot], self.ttls[slot] = forwarding.is_group, outside, entry.ttl
        self.insides[slot] = inside
        self.send_dscps[slot] = _KEEP if entry.send_dscp is None else entry.send_dscp
        self.receive_dscps[slot] = _KEEP if entry.receive_dscp is None else entry.receive_dscp
        self.marked |= entry.send_dscp is not None or entry.receive_dscp is not None
        return True

    def clear(self, aid: int) -> None:
        """The association has ended; its traffic was asked for."""
        slot = self.row_of(aid)
        if slot is None:
            return
        self._rows[aid & int(self.mask)] = 0
        self._free.append(slot)
        self.aids[slot] = self.headers[slot] = 0
        self.to_remote[slot] = self.to_client[slot] = False
        for tables in (self.clients, self.remotes):
            for table in tables.values():
                table.clear(slot)
        for moved in (self._to_remote, self._to_client):
            moved.clear(slot)
        self._dropped[slot] = 0

    def add_traffic(self, aid: int, traffic: Traffic) -> None:
        """Move what the vector paths counted into an association's traffic."""
        slot = self.row_of(aid)
        if slot is None:
            return
        traffic.to_remote_datagrams += int(self._to_remote.datagrams[slot])
        traffic.to_remote_octets += int(self._to_remote.octets[slot])
        traffic.to_client_datagrams += int(self._to_client.datagrams[slot])
        traffic.to_client_octets += int(self._to_client.octets[slot])
        traffic.dropped_datagrams += int(self._dropped[slot])
        for moved in (self._to_remote, self._to_client):
            moved.clear(slot)
        self._dropped[slot] = 0

    def count_to_remote(self, slots: Ints, octets: Ints) -> None:
        self._to_remote.add(slots, octets)

    def count_to_client(self, slots: Ints, octets: Ints) -> None:
        self._to_client.add(slots, octets)

    def count_burst(self, slots: Ints, datagrams: Ints | int, octets: Ints | int) -> None:
        """To clients; every slot stands there once."""
        self._to_client.datagrams[slots] += datagrams
        self._to_client.octets[slots] += octets

    def marks(self, dscps: Ints, slots: Ints, classes: Ints | None) -> Ints | None:
        """DSCP and ECN that datagrams leave with, of those that they came with; None where none has any."""
        if self.marked:
            classes = np.zeros(len(slots), np.int64) if classes is None else classes
            wanted = dscps[slots]
            classes = np.where(wanted == _KEEP, classes, wanted << 2 | classes & _ECN)
        return classes if classes is not None and np.count_nonzero(classes) else None

    def count_dropped(self, slots: Ints) -> None:
        np.add.at(self._dropped, slots, 1)


class _Moved:
    """Datagrams and octets by slot."""

    def __init__(self, size: int) -> None:
        self.datagrams: Ints = allocate(size, np.int64)
        self.octets: Ints = allocate(size, np.int64)

    def add(self, slots: Ints, octets: Ints) -> None:
        np.add.at(self.datagrams, slots, 1)
        np.add.at(self.octets, slots, octets)

    def clear(self, slot: int) -> None:
        self.datagrams[slot] = self.octets[slot] = 0
