"""Where the kernel finds each datagram's octets."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mcastsocks.planes.batch.layouts import IOVEC, MMSGHDR, Ints, Words, address_of, addresses_of, allocate
from mcastsocks.wire.datagram import HEADER_OCTETS


class Heads(NamedTuple):
    """What goes before each payload: where it stands, and how many octets that are."""

    addresses: Ints
    octets: Ints

    def part(self, which: slice | Ints | NDArray[np.bool_]) -> Heads:
        return Heads(self.addresses[which], self.octets[which])


class Iovecs:
    """For each of `most` datagrams one iovec, or with `headed` one for its header and one for its payload.

    Neighbours follow one another, so that a run is its first's iovecs and so many more. `singles` are messages of one
    datagram each that lack nothing but their names.
    """

    def __init__(self, most: int, name_octets: int, headed: bool) -> None:
        self.each = 2 if headed else 1
        self._memory = allocate(most * self.each, IOVEC).reshape(most, self.each)
        self.addresses = addresses_of(self._memory)
        self._bases, self._octets = self._memory["base"][:, -1], self._memory["octets"][:, -1]
        singles = allocate(most, MMSGHDR)
        singles["name_octets"], singles["iov"], singles["iovs"] = name_octets, self.addresses, self.each
        self.names: Ints = singles["name"]
        self.singles = address_of(singles)

    def write(self, addresses: Ints, octets: Ints) -> None:
        count = len(octets)
        self._bases[:count], self._octets[:count] = addresses, octets


class Headed(Iovecs):
    """Each header is eight octets, which are copied."""

    def __init__(self, most: int, name_octets: int) -> None:
        super().__init__(most, name_octets, headed=True)
        self._headers: Words = allocate(most, np.uint64)
        self._memory["base"][:, 0], self._memory["octets"][:, 0] = addresses_of(self._headers), HEADER_OCTETS

    def write_headers(self, headers: Words) -> None:
        self._headers[: len(headers)] = headers


class Pointed(Iovecs):
    """Headers stand elsewhere, and each is as long as it is."""

    def __init__(self, most: int, name_octets: int) -> None:
        super().__init__(most, name_octets, headed=True)
        self._head_bases, self._head_octets = self._memory["base"][:, 0], self._memory["octets"][:, 0]

    def write_heads(self, heads: Heads) -> None:
        count = len(heads.octets)
        self._head_bases[:count], self._head_octets[:count] = heads
