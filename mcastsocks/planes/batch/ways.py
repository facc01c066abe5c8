"""What the vector paths know of ways: arrays with a row for each, met again by the way itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mcastsocks.planes.associate import Way
from mcastsocks.planes.batch.layouts import Ints, allocate
from mcastsocks.planes.batch.outlets import Outlets
from mcastsocks.planes.batch.rows import KEEP, marks
from mcastsocks.planes.batch.sockaddrs import Destinations, version_of
from mcastsocks.planes.batch.sums import sums

_ROWS = 1 << 14


class Ways:
    """Rows of ways with an outside socket and nothing to put before the data.

    A way that has ended is not found any more where ways are looked up, so nobody has to be told, and its row is given
    to no other. When all rows are taken they are given up at once (`clear`), an era ends, and they are taken again by
    the ways that are met then. `headers` are the octets before the data. Row 0 is nobody's.
    """

    def __init__(self, outlets: Outlets) -> None:
        self._outlets = outlets
        self._era = self._used = 1
        self.remotes = {version: Destinations(version, _ROWS) for version in (4, 6)}
        self.is_six: NDArray[np.bool_] = allocate(_ROWS, np.bool_)
        self.headers: Ints = allocate(_ROWS, np.int64)
        self.outsides: NDArray[np.int32] = allocate(_ROWS, np.int32)
        self.ttls: Ints = allocate(_ROWS, np.int64)  # their sockets' own
        self.send_dscps: Ints = allocate(_ROWS, np.int64)
        self._marked = False

    @property
    def is_full(self) -> bool:
        return self._used == _ROWS

    def clear(self) -> None:
        """No row is anybody's."""
        self._era, self._used = self._era + 1, 1
        self._marked = False

    def row_of(self, way: Way, header_octets: int) -> int:
        """A new one, while there are any, where it has none. There must be an outside socket."""
        if way.era == self._era:
            return way.row
        assert way.outside is not None
        row = way.row = self._used
        way.era = self._era
        self._used += 1
        version = version_of(way.outside)
        self.remotes[version].set(row, way.target)
        self.is_six[row] = version == 6
        self.headers[row] = header_octets
        self.outsides[row] = self._outlets.number(way.outside)
        self.send_dscps[row] = KEEP if way.dscp is None else way.dscp
        self._marked |= way.dscp is not None
        return row

    def marks(self, dscps: Ints, rows: Ints, classes: Ints | None) -> Ints | None:
        """As of associations: planes.batch.rows."""
        return marks(dscps[rows] if self._marked else None, classes)

    def count_to_remote(self, rows: Ints, octets: Ints) -> None:
        for number, datagrams, total in sums(self.outsides[rows], octets):
            traffic = self._outlets.traffic(number)
            traffic.to_remote_datagrams += datagrams
            traffic.to_remote_octets += total

    def count_dropped(self, rows: Ints) -> None:
        self._outlets.count_dropped(self.outsides[rows])
