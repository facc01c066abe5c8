"""Datagrams to remotes and groups, by the batch: from the outside socket of each association, with its TTL."""

from __future__ import annotations

import ctypes
from itertools import pairwise

import numpy as np

from mcastsocks.planes.batch import libc
from mcastsocks.planes.batch.delivery import Outcomes
from mcastsocks.planes.batch.layouts import Ints
from mcastsocks.planes.batch.outlets import Outlets
from mcastsocks.planes.batch.rows import Rows
from mcastsocks.planes.batch.sender import Outgoing, Sender
from mcastsocks.planes.batch.to_clients import reasons
from mcastsocks.planes.counters import Counters

_FEW = 4
"""Fewer than this from one socket cost less one by one."""


class ToRemotes:
    """For one IP version of the outside. Everything that is given to it is counted as sent, or as dropped and why."""

    def __init__(self, version: int, table: Rows, outlets: Outlets, counters: Counters, segments: int) -> None:
        self._table, self._outlets, self._counters = table, outlets, counters
        self._remotes = table.remotes[version]
        self._sender = Sender(self._remotes, segments)
        self._send_one = libc.send_one()

    def send(self, rows: Ints, addresses: Ints, octets: Ints, classes: Ints | None) -> None:
        """An element for each datagram; the order is kept for each association."""
        table = self._table
        outlets = table.outsides[rows]
        classes = table.marks(table.send_dscps, rows, classes)
        if np.count_nonzero(outlets != outlets[0]) == 0:
            outcomes = self._send_from(int(outlets[0]), rows, addresses, octets, classes)
        else:
            outcomes = np.zeros(len(rows), np.int32)
            order = outlets.argsort(kind="stable")
            ends = (outlets[order][1:] != outlets[order][:-1]).nonzero()[0] + 1
            for start, end in pairwise([0, *ends.tolist(), len(rows)]):
                mine = order[start:end]
                marks = None if classes is None else classes[mine]
                number = int(outlets[mine[0]])
                outcomes[mine] = self._send_from(number, rows[mine], addresses[mine], octets[mine], marks)
        self._count(rows, octets, outcomes)

    def _send_from(self, number: int, rows: Ints, addresses: Ints, octets: Ints, classes: Ints | None) -> Outcomes:
        fd = self._outlets[number].sock.fileno()
        ttls = self._table.ttls[rows]
        if np.count_nonzero(ttls):
            return self._sender.send(fd, Outgoing(rows, addresses, octets, None, ttls, classes))
        if classes is None and len(rows) < _FEW:
            return self._send_singly(fd, rows, addresses, octets)
        return self._sender.send(fd, Outgoing(rows, addresses, octets, None, None, classes))

    def _send_singly(self, fd: int, rows: Ints, addresses: Ints, octets: Ints) -> Outcomes:
        names, name_octets = self._remotes.addresses[rows].tolist(), self._remotes.name_octets
        outcomes = np.zeros(len(rows), np.int32)
        for index, (name, address, size) in enumerate(zip(names, addresses.tolist(), octets.tolist(), strict=True)):
            if self._send_one(fd, address, size, libc.MSG_DONTWAIT, name, name_octets) < 0:
                outcomes[index] = self._try_again(fd, address, size, name)
        return outcomes

    def _try_again(self, fd: int, address: int, size: int, name: int) -> int:
        """An error left over from an earlier datagram is nothing to this one."""
        if self._send_one(fd, address, size, libc.MSG_DONTWAIT, name, self._remotes.name_octets) >= 0:
            return 0
        return ctypes.get_errno()

    def _count(self, rows: Ints, octets: Ints, outcomes: Outcomes) -> None:
        if np.count_nonzero(outcomes):
            sent = outcomes == 0
            self._table.count_dropped(rows[~sent])
            self._counters.drops.update(reasons(outcomes[~sent]))
            rows, octets = rows[sent], octets[sent]
        self._counters.sent_outside += len(rows)
        self._table.count_to_remote(rows, octets)
