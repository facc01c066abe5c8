"""Datagrams to clients, by the batch: behind the header of each association, from the inside socket that it faces."""

from __future__ import annotations

import numpy as np

from mcastsocks.planes.batch.delivery import count_failures
from mcastsocks.planes.batch.fan import Share
from mcastsocks.planes.batch.fanout import FanOut
from mcastsocks.planes.batch.layouts import Ints
from mcastsocks.planes.batch.rows import Rows
from mcastsocks.planes.batch.sender import Outgoing, Sender
from mcastsocks.planes.counters import Counters


class ToClients:
    """For one IP version of the inside. Everything that is given to it is counted as sent, or as dropped and why."""

    def __init__(self, version: int, table: Rows, counters: Counters, segments: int) -> None:
        self._table, self._counters = table, counters
        self._sender = Sender(table.clients[version], segments)
        self._fan_out = FanOut(self._sender)

    def send(self, fd: int, rows: Ints, addresses: Ints, octets: Ints, classes: Ints | None) -> None:
        """An element for each datagram."""
        classes = self._table.marks(self._table.receive_dscps, rows, classes)
        outgoing = Outgoing(rows, addresses, octets, self._table.headers[rows], None, classes)
        outcomes = self._sender.send(fd, outgoing)
        if np.count_nonzero(outcomes):
            sent = outcomes == 0
            count_failures(self._table, self._counters, rows[~sent], outcomes[~sent])
            rows, octets = rows[sent], octets[sent]
        self._counters.sent_inside += len(rows)
        self._table.count_to_client(rows, octets)

    def copy(self, share: Share, addresses: Ints, octets: Ints, classes: Ints | None) -> None:
        """A burst to every receiver of a share."""
        rows, datagrams = share.rows, len(octets)
        if classes is not None or self._table.marked:
            each = rows.repeat(datagrams)
            copied = None if classes is None else np.tile(classes, len(rows))
            self.send(share.sock.fileno(), each, np.tile(addresses, len(rows)), np.tile(octets, len(rows)), copied)
            return
        outcomes = self._fan_out.send(share.sock.fileno(), rows, share.headers, addresses, octets)
        failed = int(np.count_nonzero(outcomes))
        if failed:
            receivers, _ = outcomes.nonzero()
            count_failures(self._table, self._counters, rows[receivers], outcomes[outcomes != 0])
            sent = outcomes == 0
            self._table.count_burst(rows, sent.sum(1), (sent * octets).sum(1))
        else:
            self._table.count_burst(rows, datagrams, int(octets.sum()))
        self._counters.sent_inside += outcomes.size - failed
