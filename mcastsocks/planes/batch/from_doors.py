"""What comes from clients of UDP ASSOCIATE, by the batch: to where each datagram says (RFC 1928 §7)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial

import numpy as np

from mcastsocks.planes.batch.flows import ENOUGH_FOR_FLOWS, Flows, flows_of, sort_out
from mcastsocks.planes.batch.layouts import Ints
from mcastsocks.planes.batch.receiver import Batch
from mcastsocks.planes.batch.singles import Single
from mcastsocks.planes.batch.sockaddrs import sockaddr_from
from mcastsocks.planes.batch.to_remotes import ToRemotes, send_by_version
from mcastsocks.planes.batch.vector import VectorPaths
from mcastsocks.planes.batch.ways import Ways
from mcastsocks.planes.doors import Door
from mcastsocks.planes.interface import Outside, PlaneOptions
from mcastsocks.wire.socks_datagram import HEAD_OCTETS, HEADER_OCTETS, destination_octets

(_FOUR, _FOUR_OCTETS), (_SIX, _SIX_OCTETS) = HEADER_OCTETS.items()
_TYPE_BITS = np.uint64(8 * HEAD_OCTETS)
_OCTET = np.uint64(0xFF)
_REST_OF_FOUR, _REST_OF_SIX = (np.uint64((1 << 8 * (octets % 8)) - 1) for octets in HEADER_OCTETS.values())
"""Of the last word: the octets that are still the header's."""


class FromDoors(VectorPaths):
    """An ordinary datagram is of a known client, no fragment, and has a way with nothing to put before the data."""

    def __init__(self, loop: asyncio.AbstractEventLoop, outsides: Mapping[str, Outside], options: PlaneOptions) -> None:
        super().__init__(loop, outsides, options)
        self._ways = ways = Ways(self._outlets)
        self._to_targets = {
            each: ToRemotes(each, ways, self._outlets, self._counters, self._segments) for each in (4, 6)
        }

    def _door_opened(self, door: Door) -> None:
        super()._door_opened(door)
        self._inlet(door.sock)

    def _drain_door(self, door: Door) -> None:
        few, many = partial(self._from_few_at_door, door), partial(self._from_door, door)
        self._drain(self._inlet(door.sock), few, many, ENOUGH_FOR_FLOWS)

    def _from_few_at_door(self, door: Door, singles: list[Single]) -> None:
        for data, name, tos in singles:
            self._socks.from_client(door, data, sockaddr_from(name), tos)

    def _from_door(self, door: Door, batch: Batch) -> None:
        self._socks.expire()
        width = batch.sources.shape[1] * batch.sources.itemsize

        def find(index: int, flow: bytes) -> int:
            if flow:
                return self._way_of(door, flow[:width], flow[width:])
            return self._way_of(door, batch.sources[index].tobytes(), batch.datagram(index))

        def look(index: int) -> None:
            self._singly += 1
            source = sockaddr_from(batch.sources[index].tobytes())
            self._socks.from_client(door, batch.datagram(index), source, batch.traffic_class(index))

        sort_out(_flows_of(batch), self._ways, find, partial(self._set_out, batch), look)

    def _way_of(self, door: Door, source: bytes, datagram: bytes | memoryview) -> int:
        """The row of the way of a datagram, which begins like this; 0 for what is not ordinary."""
        associated = door.client_of(sockaddr_from(source))
        if associated is None or self._socks.reassembles(associated):
            return 0
        destination = destination_octets(datagram)
        way = associated.ways.get(destination)
        if way is None or way.outside is None or way.prefix:
            return 0
        return self._ways.row_of(way, HEAD_OCTETS + len(destination))

    def _set_out(self, batch: Batch, start: int, end: int, rows: Ints) -> None:
        """Some of a batch, by the rows of their ways."""
        part = batch.part(slice(start, end))
        self._counters.received_inside += len(part)
        headers = self._ways.headers[rows]
        addresses, octets = part.addresses + headers, part.octets - headers
        send_by_version(self._to_targets, self._ways.is_six[rows], rows, addresses, octets, part.traffic_classes)


def _flows_of(batch: Batch) -> Flows:
    """By source and header, zeros behind it, where that names an address; what has another is looked at by itself."""
    kinds = (batch.headers >> _TYPE_BITS) & _OCTET
    plain = is_four = (kinds == _FOUR) & (batch.octets >= _FOUR_OCTETS)
    header = [batch.headers, batch.words_at(8)]
    if np.count_nonzero(is_four) == len(batch):
        header[1] &= _REST_OF_FOUR
    else:
        is_six = (kinds == _SIX) & (batch.octets >= _SIX_OCTETS)
        plain = is_four | is_six
        header[1][is_four] &= _REST_OF_FOUR
        header.append(np.where(is_six, batch.words_at(16) & _REST_OF_SIX, np.uint64(0)))
    return flows_of(np.column_stack((batch.sources, *header)), plain)
