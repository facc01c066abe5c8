"""Datagrams to clients of UDP ASSOCIATE, by the batch: through the door of each, behind headers that name remotes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mcastsocks.planes.associate import Associated
from mcastsocks.planes.batch.delivery import Outcomes, count_failures
from mcastsocks.planes.batch.iovecs import Heads
from mcastsocks.planes.batch.layouts import Ints, allocate
from mcastsocks.planes.batch.outlets import Outlets
from mcastsocks.planes.batch.sender import Outgoing, Sender
from mcastsocks.planes.batch.sockaddrs import Destinations
from mcastsocks.planes.batch.sums import sums
from mcastsocks.planes.counters import Counters


class ToDoors:
    """For one IP version of the inside. Clients go by the numbers of their outside sockets, below `size`.

    Everything that is given to it is counted as sent, or as dropped and why.
    """

    def __init__(self, version: int, size: int, outlets: Outlets, counters: Counters, segments: int) -> None:
        self._outlets, self._counters = outlets, counters
        self._clients = Destinations(version, size)
        self._doors: NDArray[np.int32] = allocate(size, np.int32)
        self._sender = Sender(self._clients, segments)

    def open(self, number: int, associated: Associated) -> None:
        """What comes to this outside socket goes to this client, which must be known, from now on."""
        if not self._doors[number]:
            assert associated.client is not None
            self._clients.set(number, associated.client)
            self._doors[number] = associated.inside.fileno()

    def close(self, number: int) -> None:
        """The outside socket is closed; its number may be another's soon."""
        self._doors[number] = 0
        self._clients.clear(number)

    def serves(self, numbers: Ints) -> NDArray[np.bool_]:
        """Whether a client of this IP version is at the other side."""
        served: NDArray[np.bool_] = self._doors[numbers] != 0
        return served

    def send(self, numbers: Ints, heads: Heads, addresses: Ints, octets: Ints, classes: Ints | None) -> None:
        """An element for each datagram; the order is kept for each client."""
        classes = classes if classes is not None and np.count_nonzero(classes) else None
        doors = self._doors[numbers]
        outgoing = Outgoing(numbers, addresses, octets, heads, None, classes)
        if np.count_nonzero(doors != doors[0]) == 0:
            outcomes = self._sender.send(int(doors[0]), outgoing)
        else:
            outcomes = np.zeros(len(numbers), np.int32)
            for door in np.unique(doors).tolist():
                (mine,) = (doors == door).nonzero()
                outcomes[mine] = self._sender.send(door, outgoing.part(mine))
        self._count(numbers, octets, outcomes)

    def _count(self, numbers: Ints, octets: Ints, outcomes: Outcomes) -> None:
        if np.count_nonzero(outcomes):
            failed = outcomes != 0
            count_failures(self._outlets, self._counters, numbers[failed], outcomes[failed])
            numbers, octets = numbers[~failed], octets[~failed]
        self._counters.sent_inside += len(numbers)
        for number, datagrams, total in sums(numbers, octets):
            traffic = self._outlets.traffic(number)
            traffic.to_client_datagrams += datagrams
            traffic.to_client_octets += total
