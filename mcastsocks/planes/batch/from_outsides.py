"""What comes to outside sockets, whoever they belong to: many of them are drained together, as most have little."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial

import numpy as np

from mcastsocks.planes.batch.flows import ENOUGH_FOR_FLOWS
from mcastsocks.planes.batch.inlet import FEW
from mcastsocks.planes.batch.layouts import Ints
from mcastsocks.planes.batch.receiver import Batch, Receiver
from mcastsocks.planes.batch.singles import Single
from mcastsocks.planes.batch.sockaddrs import version_of
from mcastsocks.planes.batch.vector import BUFFERS, VectorPaths
from mcastsocks.planes.outsides import OutsideSocket

Few = Callable[[OutsideSocket, list[Single]], None]
Many = Callable[[int, Batch, Ints], None]
"""Takes the IP version, a batch, and for each datagram the number of the socket where it came in."""


class FromOutsides(VectorPaths):
    """Those of the associations of clients, and those of UDP ASSOCIATEs."""

    def _drain_outside(self, outside: OutsideSocket) -> None:
        self._drain_outlets([outside])

    def _drain_outlets(self, ready: list[OutsideSocket]) -> None:
        others = [outside for outside in ready if outside.associated is not None]
        if others:
            self._drain_together(others, self._from_few_contacts, self._from_contacts, ENOUGH_FOR_FLOWS)
        if len(others) < len(ready):
            plain = [outside for outside in ready if outside.associated is None] if others else ready
            self._drain_together(plain, self._from_few_remotes, self._from_remotes, FEW)

    @abstractmethod
    def _from_few_remotes(self, outside: OutsideSocket, singles: list[Single]) -> None: ...

    @abstractmethod
    def _from_remotes(self, version: int, batch: Batch, outlets: Ints) -> None: ...

    @abstractmethod
    def _from_few_contacts(self, outside: OutsideSocket, singles: list[Single]) -> None: ...

    @abstractmethod
    def _from_contacts(self, version: int, batch: Batch, outlets: Ints) -> None: ...

    def _drain_together(self, ready: list[OutsideSocket], few: Few, many: Many, enough: int) -> None:
        """In one pass, each with its share of the buffers."""
        if len(ready) == 1:
            inlet = self._inlet(ready[0].sock)
            batch = partial(self._from_one, many, inlet.version, ready[0])
            self._drain(inlet, partial(few, ready[0]), batch, enough)
            return
        for version, receiver in self._receivers.items():
            self._drain_version(version, receiver, [each for each in ready if version_of(each.sock) == version], many)

    def _drain_version(self, version: int, receiver: Receiver, outsides: list[OutsideSocket], many: Many) -> None:
        if not outsides:
            return
        each = max(1, BUFFERS // len(outsides))
        filled = [receiver.receive(outside.sock.fileno(), each) for outside in outsides]
        if any(filled):
            numbers = np.array([self._outlets.number(outside.sock) for outside in outsides], np.int64)
            batch = receiver.take()
            many(version, batch, numbers.repeat(filled)[batch.buffers])

    def _from_one(self, many: Many, version: int, outside: OutsideSocket, batch: Batch) -> None:
        many(version, batch, np.full(len(batch), self._outlets.number(outside.sock), np.int64))
