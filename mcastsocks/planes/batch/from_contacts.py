"""What comes from those whom UDP ASSOCIATEs send to, by the batch: to the client whose outside socket it came to."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial

import numpy as np

from mcastsocks.planes.batch.flows import flows_of, sort_out
from mcastsocks.planes.batch.from_outsides import FromOutsides
from mcastsocks.planes.batch.layouts import Ints, some
from mcastsocks.planes.batch.receiver import Batch
from mcastsocks.planes.batch.singles import Single
from mcastsocks.planes.batch.sockaddrs import sockaddr_from
from mcastsocks.planes.batch.source_headers import SourceHeaders
from mcastsocks.planes.batch.to_doors import ToDoors
from mcastsocks.planes.interface import Outside, PlaneOptions
from mcastsocks.planes.outsides import OutsideSocket
from mcastsocks.wire.socks_datagram import MAX_HEADER_OCTETS

_NUMBER_OCTETS = 8


class FromContacts(FromOutsides):
    """An ordinary datagram is of a source that the client has sent to or takes all the same, and fits in one piece."""

    def __init__(self, loop: asyncio.AbstractEventLoop, outsides: Mapping[str, Outside], options: PlaneOptions) -> None:
        super().__init__(loop, outsides, options)
        self._source_headers = SourceHeaders()
        self._to_doors = {
            each: ToDoors(each, options.max_sockets, self._outlets, self._counters, self._segments) for each in (4, 6)
        }
        self._largest_answer = min(self._socks.rooms.values()) - MAX_HEADER_OCTETS

    def _from_few_contacts(self, outside: OutsideSocket, singles: list[Single]) -> None:
        associated, view, from_remote = outside.associated, self._socks.view, self._socks.from_remote
        assert associated is not None
        for data, name, tos in singles:
            octets = len(data)
            view[MAX_HEADER_OCTETS : MAX_HEADER_OCTETS + octets] = data
            from_remote(associated, octets, sockaddr_from(name), tos)

    def _from_contacts(self, version: int, batch: Batch, outlets: Ints) -> None:
        words = np.empty((len(batch), 1 + batch.sources.shape[1]), np.uint64)
        words[:, 0], words[:, 1:] = outlets, batch.sources

        def find(index: int, flow: bytes) -> int:
            return self._header_for(int(outlets[index]), flow[_NUMBER_OCTETS:]) if flow else 0

        def look(index: int) -> None:
            self._singly += 1
            single = Single(batch.datagram(index), batch.sources[index].tobytes(), batch.traffic_class(index))
            self._from_few_contacts(self._outlets[int(outlets[index])], [single])

        flows = flows_of(words, batch.octets <= self._largest_answer)
        sort_out(flows, self._source_headers, find, partial(self._answer, batch, outlets), look)

    def _header_for(self, number: int, source: bytes) -> int:
        """The row of the header that names the source; 0 for what is not ordinary."""
        associated, sockaddr = self._outlets[number].associated, sockaddr_from(source)
        assert associated is not None
        if associated.client is None or sockaddr in associated.upstreams or not associated.admits(sockaddr):
            return 0
        self._to_doors[associated.associate.inside.address.version].open(number, associated)
        return self._source_headers.row_of(source)

    def _answer(self, batch: Batch, outlets: Ints, start: int, end: int, rows: Ints) -> None:
        """Some of a batch, to the clients at the other side, whose IP versions may differ."""
        span = slice(start, end)
        part, numbers, heads = batch.part(span), outlets[span], self._source_headers.heads(rows)
        self._counters.received_outside += len(part)
        for to_doors in self._to_doors.values():
            mine = to_doors.serves(numbers)
            count = np.count_nonzero(mine)
            if count == len(part):
                to_doors.send(numbers, heads, part.addresses, part.octets, part.traffic_classes)
            elif count:
                marks = some(part.traffic_classes, mine)
                to_doors.send(numbers[mine], heads.part(mine), part.addresses[mine], part.octets[mine], marks)
