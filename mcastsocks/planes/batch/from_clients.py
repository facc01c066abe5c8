"""What comes from clients, by the batch: to remotes and groups."""

from __future__ import annotations

import socket
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mcastsocks.planes import sockets
from mcastsocks.planes.batch.judgement import LOOK_AGAIN, count_drops, judge
from mcastsocks.planes.batch.layouts import Ints, same_words, some
from mcastsocks.planes.batch.receiver import Batch
from mcastsocks.planes.batch.rows import ORDINARY
from mcastsocks.planes.batch.singles import Single
from mcastsocks.planes.batch.to_receivers import ToReceivers
from mcastsocks.planes.batch.to_remotes import send_by_version
from mcastsocks.planes.counters import reason_of
from mcastsocks.planes.forwarding import Forwarding
from mcastsocks.planes.scalar import DATA
from mcastsocks.wire.datagram import HEADER, HEADER_OCTETS

_INSIDE = DATA - HEADER_OCTETS
"""Where a client's datagram stands for the scalar paths."""


class FromClients(ToReceivers):
    """An ordinary datagram leaves without its header; what goes to a group, to the group's other receivers too."""

    def _drain_inside(self, sock: socket.socket) -> None:
        inlet = self._inlet(sock)
        self._drain(inlet, self._from_few_clients, partial(self._from_clients, inlet.version))

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
            sockets.send(forwarding.outside.sock, data, forwarding.remote)
        except OSError as error:
            self._drop(forwarding, reason_of(error))
            return
        self._count_to_remote(forwarding, len(data))

    def _from_clients(self, version: int, batch: Batch) -> None:
        """An ordinary datagram's header and source are exactly what its association's row says."""
        table = self._table
        rows = table.rows_of(batch.headers)
        ordinary = (batch.headers & ORDINARY) == table.headers[rows]
        ordinary &= table.to_remote[rows]
        ordinary &= same_words(table.clients[version].words[rows], batch.sources)
        ordinary &= batch.octets >= HEADER_OCTETS
        count = int(np.count_nonzero(ordinary))
        self._counters.received_inside += count
        if count == len(batch):
            self._relay(rows, batch)
        else:
            self._sort_out(version, batch, rows, ordinary)

    def _sort_out(self, version: int, batch: Batch, rows: Ints, ordinary: NDArray[np.bool_]) -> None:
        """Drop what belongs to nobody, as it may be a flood; the rest in the order it came."""
        reasons = judge(self._table, version, batch, rows)
        left = ordinary | (reasons == LOOK_AGAIN)
        self._counters.received_inside += len(left) - int(np.count_nonzero(left))
        count_drops(self._table, self._counters, rows, reasons, ~left)
        if not np.count_nonzero(left):
            return
        batch, rows, ordinary = batch.part(left), rows[left], ordinary[left]
        turns = [0, *((ordinary[1:] != ordinary[:-1]).nonzero()[0] + 1).tolist(), len(batch)]
        for start, end in pairwise(turns):
            part = slice(start, end)
            if ordinary[start]:
                self._relay(rows[part], batch.part(part))
            else:
                for index in range(start, end):
                    self._from_client(*self._place(batch, index, _INSIDE))

    def _relay(self, rows: Ints, batch: Batch) -> None:
        """To the remotes, whose IP versions may differ, and to the other receivers of groups."""
        table, classes = self._table, batch.traffic_classes
        addresses, octets = batch.addresses + HEADER_OCTETS, batch.octets - HEADER_OCTETS
        is_six = table.remotes[6].words[rows, 0] != 0
        send_by_version(self._to_remotes, is_six, rows, addresses, octets, classes)
        groups = table.groups[rows]
        if np.count_nonzero(groups):
            for row in np.unique(rows[groups]).tolist():
                mine = rows == row
                marks = table.marks(table.send_dscps, rows[mine], some(classes, mine))
                self._copy_to_others(self._forwardings[int(table.aids[row])], addresses[mine], octets[mine], marks)
