"""A few received datagrams, one at a time: plain values out of the memory that the kernel has written."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mcastsocks.planes.batch.layouts import MMSGHDR, Words
from mcastsocks.planes.batch.received_control import ReceivedControl

_CONTROL_OCTETS, _OCTETS = struct.Struct("@40xQ"), struct.Struct("@56xI")
"""Of an mmsghdr: where msg_controllen and msg_len stand."""

_CONTROL_OCTETS_AT = 40
"""The first for writing, because pack_into writes zeros over what it passes."""


class Single(NamedTuple):
    """One datagram, valid until the next is received; `name` its source as the kernel writes it."""

    data: memoryview
    name: bytes
    tos: int


class Singles:
    """A view of a receiver's memory."""

    def __init__(
        self, messages: NDArray[np.void], buffers: NDArray[np.uint8], names: Words, control: ReceivedControl
    ) -> None:
        self._messages = messages.view(np.uint8).data
        self._buffers = [row.data for row in buffers]
        self._names, self._width = names.reshape(-1).view(np.uint8).data, names.shape[1] * names.itemsize
        self._control = control

    def read(self, count: int) -> list[Single] | None:
        """The first so many; None where the kernel has coalesced some."""
        singles = []
        for index in range(count):
            start = index * MMSGHDR.itemsize
            (control_octets,) = _CONTROL_OCTETS.unpack_from(self._messages, start)
            (octets,) = _OCTETS.unpack_from(self._messages, start)
            segment, tos = self._control.of_one(index, control_octets) if control_octets else (0, 0)
            if 0 < segment < octets:
                return None
            name = bytes(self._names[index * self._width : (index + 1) * self._width])
            singles.append(Single(self._buffers[index][:octets], name, tos))
        for index in range(count):
            struct.pack_into("@Q", self._messages, index * MMSGHDR.itemsize + _CONTROL_OCTETS_AT, self._control.octets)
        self._control.clear(count)
        return singles
