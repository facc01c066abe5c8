"""What comes from remotes, by the batch: to the one client that expects it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from mcastsocks.planes.batch.from_outsides import FromOutsides
from mcastsocks.planes.batch.layouts import Ints, some
from mcastsocks.planes.batch.receiver import Batch
from mcastsocks.planes.batch.singles import Single
from mcastsocks.planes.batch.sockaddrs import version_of
from mcastsocks.planes.outsides import OutsideSocket
from mcastsocks.planes.scalar import DATA


class FromRemotes(FromOutsides):
    """An ordinary datagram is of exactly the remote that an association has, and fits in one piece."""

    def _from_few_remotes(self, outside: OutsideSocket, singles: list[Single]) -> None:
        for single in singles:
            self._from_remote(outside, *self._place_single(single, DATA))

    def _from_remotes(self, version: int, batch: Batch, outlets: Ints) -> None:
        """To the association that expects exactly this remote at this socket; whoever else, one at a time."""
        table = self._table
        rows = self._outlets.lookup(version, outlets, batch.sources)
        ordinary = rows >= 0
        ordinary &= table.to_client[rows]
        ordinary &= batch.octets <= self._largest
        count = int(np.count_nonzero(ordinary))
        self._counters.received_outside += count
        if count == len(batch):
            self._face(batch, rows)
            return
        # What is cut in pieces keeps its place in its association; whatever else is not ordinary is somebody else's.
        cut = ~ordinary & (batch.octets > self._largest)
        for start, end in pairwise([0, *cut.nonzero()[0].tolist(), len(batch)]):
            for index in (start + (~ordinary[start:end]).nonzero()[0]).tolist():
                self._from_remote(self._outlets[int(outlets[index])], *self._place(batch, index, DATA))
            chosen = start + ordinary[start:end].nonzero()[0]
            if len(chosen):
                self._face(batch.part(chosen), rows[chosen])

    def _face(self, batch: Batch, rows: Ints) -> None:
        """To their clients, from the inside socket that each of these faces."""
        insides = self._table.insides[rows]
        for number in range(len(self._insides)):
            mine = insides == number
            if np.count_nonzero(mine):
                sock, marks = self._insides[number], some(batch.traffic_classes, mine)
                to_clients = self._to_clients[version_of(sock)]
                to_clients.send(sock.fileno(), rows[mine], batch.addresses[mine], batch.octets[mine], marks)
