"""Datagrams to remotes and groups, by the batch: from the outside socket of each association, with its TTL."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mcastsocks.planes.batch import libc
from mcastsocks.planes.batch.delivery import Dropping, Outcomes, count_failures
from mcastsocks.planes.batch.layouts import Ints, some
from mcastsocks.planes.batch.outlets import Outlets
from mcastsocks.planes.batch.sender import Outgoing, Sender
from mcastsocks.planes.batch.sockaddrs import Destinations
from mcastsocks.planes.counters import Counters

_FEW = 4
"""Fewer than this from one socket cost less one by one."""


class Table(Dropping, Protocol):
    """Who sends where: planes.batch.rows for associations, planes.batch.ways for UDP ASSOCIATE."""

    remotes: dict[int, Destinations]
    outsides: NDArray[np.int32]
    ttls: Ints
    send_dscps: Ints

    def marks(self, dscps: Ints, rows: Ints, classes: Ints | None) -> Ints | None: ...

    def count_to_remote(self, rows: Ints, octets: Ints) -> None: ...


class ToRemotes:
    """For one IP version of the outside. Everything that is given to it is counted as sent, or as dropped and why."""

    def __init__(self, version: int, table: Table, outlets: Outlets, counters: Counters, segments: int) -> None:
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
            outcomes = self._send_from_several(outlets, rows, addresses, octets, classes)
        self._count(rows, octets, outcomes)

    def _send_from_several(
        self, outlets: NDArray[np.int32], rows: Ints, addresses: Ints, octets: Ints, classes: Ints | None
    ) -> Outcomes:
        order = outlets.argsort(kind="stable")
        ends = (outlets[order][1:] != outlets[order][:-1]).nonzero()[0] + 1
        if len(rows) < _FEW * len(ends) and classes is None and not np.count_nonzero(self._table.ttls[rows]):
            fds = [self._outlets[number].sock.fileno() for number in outlets.tolist()]
            return self._send_singly(fds, rows, addresses, octets)
        outcomes = np.zeros(len(rows), np.int32)
        for start, end in pairwise([0, *ends.tolist(), len(rows)]):
            mine = order[start:end]
            marks = None if classes is None else classes[mine]
            number = int(outlets[mine[0]])
            outcomes[mine] = self._send_from(number, rows[mine], addresses[mine], octets[mine], marks)
        return outcomes

    def _send_from(self, number: int, rows: Ints, addresses: Ints, octets: Ints, classes: Ints | None) -> Outcomes:
        fd = self._outlets[number].sock.fileno()
        ttls = self._table.ttls[rows]
        if np.count_nonzero(ttls):
            return self._sender.send(fd, Outgoing(rows, addresses, octets, None, ttls, classes))
        if classes is None and len(rows) < _FEW:
            return self._send_singly([fd] * len(rows), rows, addresses, octets)
        return self._sender.send(fd, Outgoing(rows, addresses, octets, None, None, classes))

    def _send_singly(self, fds: list[int], rows: Ints, addresses: Ints, octets: Ints) -> Outcomes:
        names, name_octets = self._remotes.addresses[rows].tolist(), self._remotes.name_octets
        outcomes = np.zeros(len(rows), np.int32)
        datagrams = zip(fds, names, addresses.tolist(), octets.tolist(), strict=True)
        for index, (fd, name, address, size) in enumerate(datagrams):
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
            count_failures(self._table, self._counters, rows[~sent], outcomes[~sent])
            rows, octets = rows[sent], octets[sent]
        self._counters.sent_outside += len(rows)
        self._table.count_to_remote(rows, octets)


def send_by_version(
    senders: Mapping[int, ToRemotes],
    is_six: NDArray[np.bool_],
    rows: Ints,
    addresses: Ints,
    octets: Ints,
    classes: Ints | None,
) -> None:
    """To remotes whose IP versions may differ."""
    for version, chosen in ((4, ~is_six), (6, is_six)):
        count = np.count_nonzero(chosen)
        if count == len(rows):
            senders[version].send(rows, addresses, octets, classes)
        elif count:
            senders[version].send(rows[chosen], addresses[chosen], octets[chosen], some(classes, chosen))
