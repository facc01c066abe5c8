"""What names remotes to clients of UDP ASSOCIATE: headers in memory, to be sent from there (RFC 1928 §7)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mcastsocks.planes.batch.iovecs import Heads
from mcastsocks.planes.batch.layouts import Ints, addresses_of, allocate
from mcastsocks.planes.batch.sockaddrs import sockaddr_from
from mcastsocks.planes.socks_paths import header_of
from mcastsocks.wire.socks_datagram import MAX_HEADER_OCTETS

_ROWS = 1 << 13
_ROW_OCTETS = 24


class SourceHeaders:
    """A row for each remote, whichever clients it sends to; given up all at once when they are full. Row 0 is none."""

    def __init__(self) -> None:
        memory: NDArray[np.uint8] = allocate(_ROWS * _ROW_OCTETS, np.uint8).reshape(_ROWS, _ROW_OCTETS)
        self._memory = memory[:, :MAX_HEADER_OCTETS]
        self._addresses, self._octets = addresses_of(memory), allocate(_ROWS, np.int64)
        self._rows: dict[bytes, int] = {}

    @property
    def is_full(self) -> bool:
        return len(self._rows) == _ROWS - 1

    def clear(self) -> None:
        """No remote has any."""
        self._rows.clear()

    def row_of(self, source: bytes) -> int:
        """A new one, while there are any, for a source as the kernel writes it that has none."""
        row = self._rows.get(source)
        if row is None:
            row = self._rows[source] = len(self._rows) + 1
            header = header_of(sockaddr_from(source)[:2])
            self._memory[row, : len(header)] = np.frombuffer(header, np.uint8)
            self._octets[row] = len(header)
        return row

    def heads(self, rows: Ints) -> Heads:
        return Heads(self._addresses[rows], self._octets[rows])
