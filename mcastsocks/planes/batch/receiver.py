"""Datagrams of one or many sockets, received by the batch."""

from __future__ import annotations

import ctypes
import errno
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcastsocks.planes.batch import libc, sockaddrs
from mcastsocks.planes.batch.layouts import IOVEC, MMSGHDR, Ints, Words, address_of, addresses_of, allocate
from mcastsocks.planes.batch.received_control import ReceivedControl, Tell
from mcastsocks.planes.batch.singles import Single, Singles
from mcastsocks.planes.batch.spans import cut

BUFFER_OCTETS = 1 << 16
"""No datagram and no coalesced run of them is longer."""

_STRIDE_OCTETS = BUFFER_OCTETS + 5 * 64
"""Buffers a power of two apart would put all headers into the same few lines of the cache. What is behind a buffer may
be read for octets that a datagram does not have (Batch.words_at)."""

_RSV_AND_FRAG = np.uint64(0xFFFF)


@dataclass(slots=True, eq=False)
class Batch:
    """What the calls of receive() since the last take() brought, valid until the next receive().

    An element for each datagram: `addresses` where it begins, `octets` how long it is, `buffers` which buffer it came
    in (they are filled in the order of the calls), `sources` rows as in planes.batch.sockaddrs, `headers` its first
    eight octets as they stand in memory, without meaning where there are fewer. `traffic_classes` is there when asked
    for, `truncated` when something was. `memory` is what the addresses lie in, from `base` on.
    """

    addresses: Ints
    octets: Ints
    buffers: Ints
    sources: Words
    headers: Words
    memory: memoryview
    base: int
    traffic_classes: Ints | None = None
    truncated: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.octets)

    def part(self, which: NDArray[np.bool_] | Ints | slice) -> Batch:
        """Some of it."""
        classes, truncated = self.traffic_classes, self.truncated
        return Batch(
            self.addresses[which],
            self.octets[which],
            self.buffers[which],
            self.sources[which],
            self.headers[which],
            self.memory,
            self.base,
            None if classes is None else classes[which],
            None if truncated is None else truncated[which],
        )

    def words_at(self, offset: int) -> Words:
        """Eight octets of each from there on, without meaning where there are fewer."""
        window: Words = np.ndarray(len(self.memory) - 7, np.uint64, self.memory, strides=(1,))
        return window[self.addresses - (self.base - offset)]

    def traffic_class(self, index: int) -> int:
        """DSCP and ECN of one of them."""
        return int(self.traffic_classes[index]) if self.traffic_classes is not None else 0

    def datagram(self, index: int) -> memoryview:
        """One of them, for what is done one at a time."""
        start = int(self.addresses[index]) - self.base
        return self.memory[start : start + int(self.octets[index])]


def aids_of(headers: Words) -> NDArray[np.uint32]:
    """The AIDs, octets 4 to 8."""
    return headers.view(np.uint32)[1::2].byteswap()


def frag_bits(headers: Words) -> Words:
    """RSV in the lowest eight bits, FRAG in the next: zero for an ordinary datagram."""
    return headers & _RSV_AND_FRAG


class Receiver:
    """Memory for `buffers` receive calls on sockets of one IP version: 64 KiB each, real once it was used.

    A coalesced buffer holds up to 128 datagrams, and each takes some 200 octets of arrays while a batch lives.
    """

    def __init__(self, version: int, buffers: int = 64, tell: Tell = Tell.SEGMENTS) -> None:
        self.buffers = buffers
        self._receive = libc.calls().receive
        self._tell = tell
        self._filled = 0
        self._memory = allocate(buffers * _STRIDE_OCTETS, np.uint8)
        self._view = self._memory.data
        self._names = allocate(buffers * sockaddrs.WORDS[version], np.uint64).reshape(buffers, -1)
        self._iovecs = allocate(buffers, IOVEC)
        self._control = ReceivedControl(version, buffers, tell)
        self._messages = allocate(buffers, MMSGHDR)
        self._lay_out(sockaddrs.OCTETS[version])

    def _lay_out(self, name_octets: int) -> None:
        rows = self._memory.reshape(self.buffers, _STRIDE_OCTETS)
        self._places, self._base = addresses_of(rows), address_of(self._memory)
        self._offsets, self._numbers = self._places - self._base, np.arange(self.buffers)
        self._window: Words = np.ndarray(self._memory.size - 7, np.uint64, self._memory.data, strides=(1,))
        self._iovecs["base"], self._iovecs["octets"] = self._places, BUFFER_OCTETS
        messages = self._messages
        messages["name"], messages["name_octets"] = addresses_of(self._names), name_octets
        messages["iov"], messages["iovs"] = addresses_of(self._iovecs), 1
        messages["control"], messages["control_octets"] = self._control.addresses, self._control.octets
        self._octets, self._flags, self._control_octets = (
            messages[name] for name in ("octets", "flags", "control_octets")
        )
        self._messages_at = addresses_of(messages).tolist()
        self._singles = Singles(messages, rows, self._names, self._control)

    @property
    def room(self) -> int:
        """Buffers that are still free."""
        return self.buffers - self._filled

    def receive(self, fd: int, most: int | None = None) -> int:
        """Fill free buffers with what waits in a socket, at most so many; how many were filled. There must be room.

        Errors left over from datagrams sent before are passed over.
        """
        room, message = self.buffers - self._filled, self._messages_at[self._filled]
        if most is not None and most < room:
            room = most
        got = self._receive(fd, message, room, libc.MSG_DONTWAIT, None)
        if got < 0 and ctypes.get_errno() != errno.EAGAIN:
            got = self._receive(fd, message, room, libc.MSG_DONTWAIT, None)
        if got <= 0:
            return 0
        self._filled += got
        return got

    def take_few(self) -> list[Single] | None:
        """The same one by one; None where something was coalesced, and is still to be taken."""
        singles = self._singles.read(self._filled)
        if singles is not None:
            self._filled = 0
        return singles

    def take(self) -> Batch:
        """Everything received since the last time; all buffers are free again."""
        count, self._filled = self._filled, 0
        places, octets = self._places[:count], self._octets[:count].astype(np.int64)
        headers = self._window[self._offsets[:count]]
        batch = Batch(places, octets, self._numbers[:count], self._names[:count], headers, self._view, self._base)
        truncated = self._flags[:count] & libc.MSG_TRUNC
        if np.count_nonzero(truncated):
            batch.truncated = truncated.astype(bool)
        if self._tell:
            if np.count_nonzero(self._control_octets[:count]):
                self._read_control(batch)
            self._control_octets[:count] = self._control.octets
        return batch

    def _read_control(self, batch: Batch) -> None:
        count, tell, control = len(batch), self._tell, self._control
        if tell & Tell.TRAFFIC_CLASS:
            batch.traffic_classes = control.traffic_classes(count)
        if tell & Tell.SEGMENTS:
            segments = control.segments(count)
            if np.count_nonzero(segments):
                self._split(batch, segments)
        control.clear(count)

    def _split(self, batch: Batch, segments: Ints) -> None:
        """Coalesced buffers into datagrams."""
        parts = cut(batch.octets, np.where(segments, segments, np.maximum(batch.octets, 1)))
        whole = parts.whole
        batch.addresses, batch.octets = batch.addresses[whole] + parts.offset, parts.length
        batch.buffers, batch.sources = whole, batch.sources[whole]
        batch.headers = self._window[batch.addresses - self._base]
        if batch.traffic_classes is not None:
            batch.traffic_classes = batch.traffic_classes[whole]
        if batch.truncated is not None:
            batch.truncated = batch.truncated[whole]
