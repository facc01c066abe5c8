"""What the vector paths know of associations: arrays with a row for each, found by the low bits of its AID."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mcastsocks.planes.batch.layouts import Ints, Words, allocate
from mcastsocks.planes.batch.receiver import aids_of
from mcastsocks.planes.batch.sockaddrs import Destinations
from mcastsocks.planes.forwarding import Forwarding
from mcastsocks.planes.sockets import ECN
from mcastsocks.tables.changes import Traffic
from mcastsocks.wire.datagram import HEADER

ORDINARY = np.array(0xFFFFFFFF_0000FFFF, np.uint64)
"""Of a header as it stands in memory: AID, FRAG and RSV, but not DGID, which an ordinary datagram leaves undefined."""

KEEP = -1
"""A DSCP that is the datagram's own."""


class Rows:
    """Rows of associations that are served by the vector paths; what they do not say, the scalar path knows.

    A row is zero where there is none. `headers` are what an ordinary datagram of the association begins with.
    `clients` and `remotes` are tables by IP version. `to_remote` and `to_client` say whether the vector paths serve
    that direction; `outsides` and `insides` are numbers of the sockets; `is_crowded` that an association got no row,
    because another has its slot (the low bits of its AID) or all rows are taken.
    Rows are used again before new ones are, so that memory is touched only where it is needed: some 200 octets a row,
    and 8 for each slot. Row 0 is nobody's.
    """

    def __init__(self, slot_bits: int) -> None:
        self._mask = np.array((1 << slot_bits) - 1, np.uint32)
        self._by_slot: Ints = allocate(1 << slot_bits, np.int64)
        self._free: list[int] = []
        self._used = 1
        size = (1 << slot_bits) // 2 + 1  # an AID rests for as long: tables.aids
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

    def rows_of(self, headers: Words) -> Ints:
        """The rows that datagrams' AIDs lead to, whether or not they are these AIDs' own."""
        rows: Ints = self._by_slot[aids_of(headers) & self._mask]
        return rows

    def row_of(self, aid: int | None) -> int | None:
        """Where an association is; None where only the scalar path knows it."""
        row = self._row(aid) if aid is not None else 0
        return row if row and self.aids[row] == aid else None

    def _row(self, aid: int) -> int:
        return int(self._by_slot[aid & int(self._mask)])

    def _new_row(self, aid: int) -> int:
        """0 when all are taken."""
        if not self._free and self._used == len(self.aids):
            return 0
        row = self._free.pop() if self._free else self._used
        self._used = max(self._used, row + 1)
        self._by_slot[aid & int(self._mask)] = row
        return row

    def set(self, forwarding: Forwarding, outside: int, inside: int) -> None:
        """Write its row anew; without a row (`is_crowded`) only the scalar path serves it."""
        entry, terms = forwarding.entry, forwarding.terms
        row = self._row(entry.aid) or self._new_row(entry.aid)
        if not row or self.aids[row] not in (0, entry.aid):
            self.is_crowded = True
            return
        known = forwarding.client is not None and not entry.mm and not terms.upstream
        if known and forwarding.client is not None:
            self.clients[entry.inside.address.version].set(row, forwarding.client)
        self.remotes[entry.remote.address.version].set(row, forwarding.remote)
        self.aids[row] = entry.aid
        self.headers[row] = np.frombuffer(HEADER.pack(0, 0, 0, entry.aid), np.uint64)[0]
        self.to_remote[row] = known and terms.sends and forwarding.outside is not None and not terms.sends_rtp
        self.to_client[row] = known and terms.receives and not (terms.reports_source or terms.receives_rtp)
        self.groups[row], self.outsides[row], self.ttls[row] = forwarding.is_group, outside, terms.ttl
        self.insides[row] = inside
        self.send_dscps[row] = KEEP if terms.send_dscp is None else terms.send_dscp
        self.receive_dscps[row] = KEEP if terms.receive_dscp is None else terms.receive_dscp
        self.marked |= terms.send_dscp is not None or terms.receive_dscp is not None

    def clear(self, aid: int) -> None:
        """The association has ended; its traffic was asked for."""
        row = self.row_of(aid)
        if row is None:
            return
        self._by_slot[aid & int(self._mask)] = 0
        self._free.append(row)
        self.aids[row] = self.headers[row] = 0
        self.to_remote[row] = self.to_client[row] = False
        for by_version in (self.clients, self.remotes):
            for destinations in by_version.values():
                destinations.clear(row)
        for moved in (self._to_remote, self._to_client):
            moved.clear(row)
        self._dropped[row] = 0

    def add_traffic(self, aid: int, traffic: Traffic) -> None:
        """Move what the vector paths counted into an association's traffic."""
        row = self.row_of(aid)
        if row is None:
            return
        traffic.to_remote_datagrams += int(self._to_remote.datagrams[row])
        traffic.to_remote_octets += int(self._to_remote.octets[row])
        traffic.to_client_datagrams += int(self._to_client.datagrams[row])
        traffic.to_client_octets += int(self._to_client.octets[row])
        traffic.dropped_datagrams += int(self._dropped[row])
        for moved in (self._to_remote, self._to_client):
            moved.clear(row)
        self._dropped[row] = 0

    def count_to_remote(self, rows: Ints, octets: Ints) -> None:
        self._to_remote.add(rows, octets)

    def count_to_client(self, rows: Ints, octets: Ints) -> None:
        self._to_client.add(rows, octets)

    def count_burst(self, rows: Ints, datagrams: Ints | int, octets: Ints | int) -> None:
        """To clients; every row stands there once."""
        self._to_client.datagrams[rows] += datagrams
        self._to_client.octets[rows] += octets

    def marks(self, dscps: Ints, rows: Ints, classes: Ints | None) -> Ints | None:
        """What datagrams leave with."""
        return marks(dscps[rows] if self.marked else None, classes)

    def count_dropped(self, rows: Ints) -> None:
        np.add.at(self._dropped, rows, 1)


def marks(dscps: Ints | None, classes: Ints | None) -> Ints | None:
    """DSCP and ECN that datagrams leave with, of those that they came with; None where none has any.

    `dscps` are what rules say of each; None: nothing, of any.
    """
    if dscps is not None:
        classes = np.zeros(len(dscps), np.int64) if classes is None else classes
        classes = np.where(dscps == KEEP, classes, dscps << 2 | classes & ECN)
    return classes if classes is not None and np.count_nonzero(classes) else None


class _Moved:
    """Datagrams and octets by row."""

    def __init__(self, size: int) -> None:
        self.datagrams: Ints = allocate(size, np.int64)
        self.octets: Ints = allocate(size, np.int64)

    def add(self, rows: Ints, octets: Ints) -> None:
        np.add.at(self.datagrams, rows, 1)
        np.add.at(self.octets, rows, octets)

    def clear(self, row: int) -> None:
        self.datagrams[row] = self.octets[row] = 0
