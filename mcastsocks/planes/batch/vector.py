"""What the vector paths share: the memory that batches stand in, and a turn of the event loop."""

from __future__ import annotations

import asyncio
import socket
from abc import abstractmethod
from collections.abc import Callable, Mapping

from mcastsocks.address import SockAddr
from mcastsocks.planes.batch.inlet import FEW, Inlet
from mcastsocks.planes.batch.offload import segments_of
from mcastsocks.planes.batch.outlets import Outlets
from mcastsocks.planes.batch.received_control import Tell
from mcastsocks.planes.batch.receiver import Batch, Receiver
from mcastsocks.planes.batch.rows import Rows
from mcastsocks.planes.batch.singles import Single
from mcastsocks.planes.batch.sockaddrs import sockaddr_from, sockaddr_of
from mcastsocks.planes.batch.to_clients import ToClients
from mcastsocks.planes.batch.to_remotes import ToRemotes
from mcastsocks.planes.interface import Outside, PlaneOptions
from mcastsocks.planes.outsides import OutsideSocket
from mcastsocks.planes.scalar import ScalarPaths
from mcastsocks.wire.datagram import HEADER_OCTETS, UDP_PAYLOAD_OCTETS

BUFFERS = 64
"""Receive calls that a batch may come of."""

_SINGLY = 15
"""Datagrams that leave by the batch take about as long as one that is looked at; a turn has as few of these as one of
the portable plane, however many a buffer holds.
"""


class VectorPaths(ScalarPaths):
    """Many datagrams at a time, as arrays; few of them, and what is unusual, go the scalar paths.

    `_insides` are the inside sockets by the numbers that rows have for them, `_inlets` go by descriptor, and `_largest`
    is the most octets of data that reach every client in one piece. `_singly` counts datagrams of batches that the
    paths of UDP ASSOCIATE looked at one by one.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, outsides: Mapping[str, Outside], options: PlaneOptions) -> None:
        super().__init__(loop, outsides, options)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            segments = self._segments = segments_of(probe)
        table, counters = Rows(options.slot_bits), self._counters
        self._table = table
        self._receivers = {each: Receiver(each, BUFFERS, Tell.SEGMENTS | Tell.TRAFFIC_CLASS) for each in (4, 6)}
        self._to_clients = {each: ToClients(each, table, counters, segments) for each in (4, 6)}
        self._outlets = Outlets(loop, self._drain_outlets, self._note_errors)
        self._to_remotes = {each: ToRemotes(each, table, self._outlets, counters, segments) for each in (4, 6)}
        self._largest = min(UDP_PAYLOAD_OCTETS[4], options.fragment_above or UDP_PAYLOAD_OCTETS[4]) - HEADER_OCTETS
        self._insides: list[socket.socket] = []
        self._inlets: dict[int, Inlet] = {}
        self._singly = 0

    @abstractmethod
    def _drain_outlets(self, ready: list[OutsideSocket]) -> None:
        """Read what remotes sent to some of the outside sockets."""

    def _inlet(self, sock: socket.socket) -> Inlet:
        """Made when the socket is first asked for something."""
        inlet = self._inlets.get(sock.fileno())
        if inlet is None:
            inlet = self._inlets[sock.fileno()] = Inlet(sock)
        return inlet

    def _drain(
        self, inlet: Inlet, few: Callable[[list[Single]], None], many: Callable[[Batch], None], enough: int = FEW
    ) -> None:
        """As many as are worth a turn, by the batch where there are enough, otherwise one by one."""
        receiver, before, singly = self._receivers[inlet.version], self._given, self._singly
        taken = buffers = receiver.receive(inlet.fd, min(inlet.most, BUFFERS))
        if not taken:
            return
        if taken < enough and (singles := receiver.take_few()) is not None:
            few(singles)
        else:
            batch = receiver.take()
            taken = len(batch)
            many(batch)
        given = self._given - before
        if self._singly != singly:
            given += _SINGLY * (self._singly - singly) * taken // buffers
        inlet.note(taken, given)

    @property
    def _given(self) -> int:
        """Datagrams that left, copies included."""
        return self._counters.sent_inside + self._counters.sent_outside

    def _place_single(self, single: Single, start: int) -> tuple[int, SockAddr, int]:
        """Copy a datagram to where the scalar paths expect it: octets, source, DSCP and ECN."""
        data, name, tos = single
        self._view[start : start + len(data)] = data
        return len(data), sockaddr_from(name), tos

    def _place(self, batch: Batch, index: int, start: int) -> tuple[int, SockAddr, int]:
        """The same for one of a batch."""
        datagram = batch.datagram(index)
        self._view[start : start + len(datagram)] = datagram
        return len(datagram), sockaddr_of(batch.sources[index]), batch.traffic_class(index)
