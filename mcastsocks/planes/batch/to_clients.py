"""Datagrams to clients, by the batch: behind the header of each association, from the inside socket that it faces."""

from __future__ import annotations

from collections import Counter

import numpy as np

from mcastsocks.planes.batch.delivery import Outcomes
from mcastsocks.planes.batch.fan import Share
from mcastsocks.planes.batch.fanout import FanOut
from mcastsocks.planes.batch.layouts import Ints
from mcastsocks.planes.batch.sender import Outgoing, Sender
from mcastsocks.planes.batch.slots import Slots
from mcastsocks.planes.counters import Counters, DropReason, reason_of


class ToClients:
    """For one IP version of the inside. Everything that is given to it is counted as sent, or as dropped and why."""

    def __init__(self, version: int, table: Slots, counters: Counters, segments: int) -> None:
        self._table, self._counters = table, counters
        self._sender = Sender(table.clients[version], segments)
        self._fan_out = FanOut(self._sender)

    def send(self, fd: int, slots: Ints, addresses: Ints, octets: Ints, classes: Ints | None) -> None:
        """An element for each datagram."""
        classes = self._table.marks(self._table.receive_dscps, slots, classes)
        outgoing = Outgoing(slots, addresses, octets, self._table.headers[slots], None, classes)
        outcomes = self._sender.send(fd, outgoing)
        if np.count_nonzero(outcomes):
            sent = outcomes == 0
            self._count_failures(slots[~sent], outcomes[~sent])
            slots, octets = slots[sent], octets[sent]
        self._counters.sent_inside += len(slots)
        self._table.count_to_client(slots, octets)

    def copy(self, share: Share, addresses: Ints, octets: Ints, classes: Ints | None) -> None:
        """A burst to every receiver of a share."""
        slots, datagrams = share.slots, len(octets)
        if classes is not None or self._table.marked:
            each = slots.repeat(datagrams)
            copied = None if classes is None else np.tile(classes, len(slots))
            self.send(share.sock.fileno(), each, np.tile(addresses, len(slots)), np.tile(octets, len(slots)), copied)
            return
        outcomes = self._fan_out.send(share.sock.fileno(), slots, share.headers, addresses, octets)
        failed = int(np.count_nonzero(outcomes))
        if failed:
            receivers, _ = outcomes.nonzero()
            self._count_failures(slots[receivers], outcomes[outcomes != 0])
            sent = outcomes == 0
            self._table.count_burst(slots, sent.sum(1), (sent * octets).sum(1))
        else:
            self._table.count_burst(slots, datagrams, int(octets.sum()))
        self._counters.sent_inside += outcomes.size - failed

    def _count_failures(self, slots: Ints, errnos: Outcomes) -> None:
        self._table.count_dropped(slots)
        self._counters.drops.update(reasons(errnos))


def reasons(errnos: Outcomes) -> Counter[DropReason]:
    """Drop reasons of datagrams that the kernel did not take."""
    return Counter(reason_of(OSError(number, "")) for number in errnos.tolist())
