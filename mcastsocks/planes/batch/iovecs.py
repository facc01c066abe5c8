"""Where the kernel finds each datagram's octets."""

from __future__ import annotations

import numpy as np

from mcastsocks.planes.batch.layouts import IOVEC, MMSGHDR, Ints, Words, address_of, addresses_of, allocate
from mcastsocks.wire.datagram import HEADER_OCTETS


class Iovecs:
    """For each of `most` datagrams one iovec, or with `headed` one for its header and one for its payload.

    Neighbours follow one another, so that a run is its first's iovecs and so many more. `singles` are messages of one
    datagram each that lack nothing but their names.
    """

    def __init__(self, most: int, name_octets: int, headed: bool) -> None:
        self.each = 2 if headed else 1
        memory = allocate(most * self.each, IOVEC).reshape(most, self.each)
        self.addresses = addresses_of(memory)
        self._bases, self._octets = memory["base"][:, -1], memory["octets"][:, -1]
        self._headers: Words = allocate(most if headed else 0, np.uint64)
        if headed:
            memory["base"][:, 0], memory["octets"][:, 0] = addresses_of(self._headers), HEADER_OCTETS
        singles = allocate(most, MMSGHDR)
        singles["name_octets"], singles["iov"], singles["iovs"] = name_octets, self.addresses, self.each
        self.names: Ints = singles["name"]
        self.singles = address_of(singles)

    def write(self, addresses: Ints, octets: Ints, headers: Words | None) -> None:
        count = len(octets)
        self._bases[:count], self._octets[:count] = addresses, octets
        if headers is not None:
            self._headers[:count] = headers
