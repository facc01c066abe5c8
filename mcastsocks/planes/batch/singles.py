"""A few received datagrams, one at a time: plain values out of the memory that the kernel has written."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mcastsocks.planes.batch.layouts import MMSGHDR, Words
from mcastsocks.planes.batch.received_control import ReceivedControl

_WORD_OCTETS = 8
_MESSAGE_WORDS = MMSGHDR.itemsize // _WORD_OCTETS
_CONTROL_OCTETS, _OCTETS = 5, 7
"""Of an mmsghdr: the words where msg_controllen and, in its lower half, msg_len stand."""

_LOWER_HALF = 0xFFFF_FFFF


class Single(NamedTuple):
    """One datagram, valid until the next is received; `name` its source as the kernel writes it."""

    data: memoryview
    name: bytes
    tos: int


class Singles:
    """A view of a receiver's memory, by words: an element of a memoryview is had sooner than a field by struct."""

    def __init__(
        self, messages: NDArray[np.void], buffers: NDArray[np.uint8], names: Words, control: ReceivedControl
    ) -> None:
        self._messages = messages.view(np.uint64).data
        self._buffers = [row.data for row in buffers]
        self._names, self._width = names.reshape(-1).view(np.uint8).data, names.shape[1] * names.itemsize
        self._control = control

    def read(self, count: int) -> list[Single] | None:
        """The first so many; None where the kernel has coalesced some."""
        messages, names, width, control, singles = self._messages, self._names, self._width, self._control, []
        for index in range(count):
            start = index * _MESSAGE_WORDS
            control_octets, octets = messages[start + _CONTROL_OCTETS], messages[start + _OCTETS] & _LOWER_HALF
            segment, tos = control.of_one(index, control_octets) if control_octets else (0, 0)
            if 0 < segment < octets:
                return None
            name = bytes(names[index * width : index * width + width])
            singles.append(Single(self._buffers[index][:octets], name, tos))
        for at in range(_CONTROL_OCTETS, count * _MESSAGE_WORDS, _MESSAGE_WORDS):
            messages[at] = control.octets
        control.clear_few(count)
        return singles
