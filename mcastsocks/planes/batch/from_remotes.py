"""What comes from remotes, by the batch: to the one client that expects it."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np

from mcastsocks.planes.batch.layouts import Ints, some
from mcastsocks.planes.batch.receiver import Batch, Receiver
from mcastsocks.planes.batch.singles import Single
from mcastsocks.planes.batch.sockaddrs import version_of
from mcastsocks.planes.batch.vector import BUFFERS, VectorPaths
from mcastsocks.planes.doors import Door
from mcastsocks.planes.outsides import OutsideSocket
from mcastsocks.planes.scalar import DATA


class FromRemotes(VectorPaths):
    """Many outside sockets are drained together, because most of them have little."""

    def _drain_door(self, door: Door) -> None:
        self._socks.drain_door(door)

    def _drain_outside(self, outside: OutsideSocket) -> None:
        self._drain_outlets([outside])

    def _drain_outlets(self, ready: list[OutsideSocket]) -> None:
        """Many sockets in one pass, each with its share of the buffers."""
        plain = [outside for outside in ready if outside.associated is None]
        for outside in ready:
            if outside.associated is not None:
                self._socks.drain_outside(outside, outside.associated)
        if len(plain) == 1:
            inlet, outside = self._inlet(plain[0].sock), plain[0]
            few, many = partial(self._from_few_remotes, outside), partial(self._from_one_outlet, inlet.version, outside)
            self._drain(inlet, few, many)
            return
        for version, receiver in self._receivers.items():
            self._drain_version(version, receiver, [each for each in plain if version_of(each.sock) == version])

    def _from_few_remotes(self, outside: OutsideSocket, singles: list[Single]) -> None:
        for single in singles:
            self._from_remote(outside, *self._place_single(single, DATA))

    def _from_one_outlet(self, version: int, outside: OutsideSocket, batch: Batch) -> None:
        self._from_remotes(version, batch, np.full(len(batch), self._outlets.number(outside.sock), np.int64))

    def _drain_version(self, version: int, receiver: Receiver, outsides: list[OutsideSocket]) -> None:
        if not outsides:
            return
        each = max(1, BUFFERS // len(outsides))
        filled = [receiver.receive(outside.sock.fileno(), each) for outside in outsides]
        if any(filled):
            numbers = np.array([self._outlets.number(outside.sock) for outside in outsides], np.int64)
            batch = receiver.take()
            self._from_remotes(version, batch, numbers.repeat(filled)[batch.buffers])

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
