"""What the kernel tells about received datagrams beside their data."""

from __future__ import annotations

import socket
from enum import IntFlag, auto

import numpy as np
from numpy.typing import NDArray

from mcastsocks.planes.batch.layouts import CMSG, Ints, addresses_of, allocate
from mcastsocks.planes.batch.offload import UDP_GRO

_WORD_OCTETS = 8
_SLOT_WORDS, _KIND, _VALUE = 3, 1, 2
"""Of a slot, in words of eight octets: how many it has, and where its level with its type, and its data, stand."""

_LOWER_HALF = 0xFFFF_FFFF


class Tell(IntFlag):
    """What a receiver has room for; a socket must be asked for it, too."""

    SEGMENTS = auto()  # UDP_GRO
    TRAFFIC_CLASS = auto()  # IP_RECVTOS, IPV6_RECVTCLASS


def _kind(level: int, kind: int) -> int:
    """Level and type of a control message as the one number they are in memory."""
    return level | kind << 32


_SEGMENT = _kind(socket.IPPROTO_UDP, UDP_GRO)
_TRAFFIC_CLASS = {
    4: _kind(socket.IPPROTO_IP, socket.IP_TOS),
    6: _kind(socket.IPPROTO_IPV6, socket.IPV6_TCLASS),
}


class ReceivedControl:
    """Memory for the control messages of `buffers` receive calls: a fixed number of slots for each."""

    def __init__(self, version: int, buffers: int, tell: Tell) -> None:
        self._slots = tell.bit_count()
        self.octets = self._slots * CMSG.itemsize
        memory = allocate(buffers * self._slots, CMSG).reshape(buffers, self._slots)
        self.addresses = addresses_of(memory)
        self._words = memory.view(np.int64).reshape(-1).data
        self._kinds: Ints = memory.view(np.int64).reshape(buffers, self._slots, 3)[:, :, 1]
        self._values: NDArray[np.uint32] = memory["value"]
        self._traffic_class = _TRAFFIC_CLASS[version]

    def of_one(self, index: int, octets: int) -> tuple[int, int]:
        """Segment size and traffic class of one call, of so many octets of control messages; zero for what it lacks."""
        words, segment, traffic_class = self._words, 0, 0
        start = index * self._slots * _SLOT_WORDS
        for at in range(start, start + octets // _WORD_OCTETS, _SLOT_WORDS):
            kind = words[at + _KIND]
            if kind == self._traffic_class:
                traffic_class = words[at + _VALUE] & 0xFF
            elif kind == _SEGMENT:
                segment = words[at + _VALUE] & _LOWER_HALF
        return segment, traffic_class

    def clear_few(self, count: int) -> None:
        """The same as clear, sooner for a few."""
        words = self._words
        for at in range(_KIND, count * self._slots * _SLOT_WORDS, _SLOT_WORDS):
            words[at] = 0

    def segments(self, count: int) -> Ints:
        """The size that datagrams were coalesced with, zero where they were not."""
        return self._find(_SEGMENT, count)

    def traffic_classes(self, count: int) -> Ints:
        """TOS or traffic class, DSCP and ECN; zero where the kernel told nothing. IPv4 writes a single octet."""
        return self._find(self._traffic_class, count) & 0xFF

    def clear(self, count: int) -> None:
        """So that nothing of this batch is taken for the next one's."""
        self._kinds[:count] = 0

    def _find(self, kind: int, count: int) -> Ints:
        found = np.zeros(count, np.int64)
        for slot in range(self._slots):
            np.copyto(found, self._values[:count, slot], where=self._kinds[:count, slot] == kind)
        return found
