"""Structures that the kernel reads and writes, as numpy types; addresses of this process are int64 values.

Signed, because numpy turns a sum of int64 and uint64 into a float, and no address needs the topmost bit.
"""

from __future__ import annotations

import ctypes
import struct
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
"""Octets, indices and addresses."""

Words = NDArray[np.uint64]

IOVEC = np.dtype([("base", "<i8"), ("octets", "<i8")])

MMSGHDR = np.dtype(
    [
        *(("name", "<i8"), ("name_octets", "<u4"), ("", "<u4")),
        *(("iov", "<i8"), ("iovs", "<i8"), ("control", "<i8"), ("control_octets", "<i8")),
        *(("flags", "<i4"), ("", "<u4"), ("octets", "<u4"), ("", "<u4")),
    ]
)

CMSG = np.dtype([("octets", "<i8"), ("level", "<i4"), ("kind", "<i4"), ("value", "<u4"), ("", "<u4")])
"""A control message with up to eight octets of data: whatever it carries, it takes this much room."""

CMSG_HEADER_OCTETS = 16

if sys.byteorder != "little" or (
    (IOVEC.itemsize, MMSGHDR.itemsize, CMSG_HEADER_OCTETS)
    != (struct.calcsize("@PN"), struct.calcsize("@PIPNPNi0PI0P"), struct.calcsize("@Nii"))
):
    raise ImportError("the batch plane knows the structures of 64-bit little-endian Linux only")

_CACHE_LINE_OCTETS = 64


def allocate(count: int, dtype: Any) -> NDArray[Any]:
    """Zeroed memory that begins on a cache line and stays where it is. Pages become real when they are touched."""
    octets = count * np.dtype(dtype).itemsize
    memory = np.zeros(octets + _CACHE_LINE_OCTETS, np.uint8)
    start = -memory.ctypes.data % _CACHE_LINE_OCTETS
    return memory[start : start + octets].view(dtype)


def address_of(memory: NDArray[Any]) -> int:
    return int(memory.ctypes.data)


def octets_at(address: int, octets: int) -> memoryview:
    """What stands somewhere in this process."""
    return memoryview((ctypes.c_char * octets).from_address(address)).cast("B")


def addresses_of(memory: NDArray[Any]) -> Ints:
    """Where each element or row is."""
    return address_of(memory) + np.arange(len(memory), dtype=np.int64) * memory.strides[0]


def some(values: Ints | None, which: NDArray[np.bool_]) -> Ints | None:
    """Some elements of what may be missing."""
    return None if values is None else values[which]


def same_words(these: Words, those: Words) -> NDArray[np.bool_]:
    """Rows that are equal in every word."""
    same: NDArray[np.bool_] = these[:, 0] == those[..., 0]
    for word in range(1, these.shape[1]):
        same &= these[:, word] == those[..., word]
    return same
