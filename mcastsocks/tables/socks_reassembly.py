"""Fragments of a UDP ASSOCIATE's datagrams until they are whole (RFC 1928 §7): one bounded queue a sender.

Nothing but the order tells which datagram a fragment belongs to. So positions must rise by one: a lower one means
another datagram and abandons the queue, and a gap could never be closed any more. Position 1 always begins a queue.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from mcastsocks.address import Endpoint
from mcastsocks.tables.reassembly import LAST, QueueEnd, ReassemblyLimits

_POSITION = 0x7F
_PIECE_OCTETS = 256
"""What a piece takes besides its octets, roughly: even empty ones are bounded."""

_S = TypeVar("_S", bound=Hashable)


@dataclass(slots=True)
class _Queue:
    deadline: float
    destination: Endpoint
    pieces: list[bytes] = field(default_factory=list)
    octets: int = 0

    @property
    def highest(self) -> int:
        return len(self.pieces)

    @property
    def cost(self) -> int:
        return self.octets + len(self.pieces) * _PIECE_OCTETS

    def is_repeat(self, frag: int, destination: Endpoint, body: bytes) -> bool:
        """The piece held last, once again; the end mark makes it another."""
        return frag == self.highest and destination == self.destination and body == self.pieces[-1]

    def continues(self, position: int, destination: Endpoint) -> bool:
        return position == self.highest + 1 and destination == self.destination


class SocksReassembly(Generic[_S]):
    """`_S` is what tells senders apart. Of the limits, octets and time count; how queues end is counted in `ends`.

    DISPLACED: by the next datagram of the same sender, or where all queues took too much room. CONTRADICTED: a
    piece without the one before it, a position twice with other octets, another destination; counted for a piece
    that finds no queue, too.
    """

    def __init__(self, limits: ReassemblyLimits, ends: Counter[QueueEnd]) -> None:
        self._limits, self._ends = limits, ends
        self._queues: OrderedDict[_S, _Queue] = OrderedDict()  # oldest first: one timeout for all
        self._octets = 0

    def __len__(self) -> int:
        return len(self._queues)

    def __contains__(self, sender: _S) -> bool:
        """Whether something of it is unfinished."""
        return sender in self._queues

    @property
    def octets(self) -> int:
        """What all the pieces take, their own overhead included."""
        return self._octets

    def add(
        self, sender: _S, frag: int, destination: Endpoint, body: bytes, max_octets: int, now: float
    ) -> bytes | None:
        """The whole body, at most `max_octets`, when this piece was the last missing.

        FRAG 0 is whole by itself; it is below any position, so it abandons the sender's queue as well.
        """
        self.expire(now)
        position, queue = frag & _POSITION, self._queues.get(sender)
        if queue is not None:
            if queue.is_repeat(frag, destination, body):
                return None
            if queue.continues(position, destination):
                return self._put(sender, queue, frag, body, max_octets)
            begins = position == 1 or position < queue.highest
            self._end(sender, QueueEnd.DISPLACED if begins else QueueEnd.CONTRADICTED)
        elif position > 1:
            self._ends[QueueEnd.CONTRADICTED] += 1
        if position == 1:
            queue = self._queues[sender] = _Queue(now + self._limits.timeout_s, destination)
            return self._put(sender, queue, frag, body, max_octets)
        return None if frag else body

    def expire(self, now: float) -> None:
        """Give up the queues whose time is over."""
        while self._queues:
            sender, oldest = next(iter(self._queues.items()))
            if oldest.deadline > now:
                return
            self._end(sender, QueueEnd.TIMED_OUT)

    def release(self, sender: _S) -> None:
        """The association has ended."""
        if sender in self._queues:
            self._end(sender, QueueEnd.RELEASED)

    def _put(self, sender: _S, queue: _Queue, frag: int, body: bytes, max_octets: int) -> bytes | None:
        queue.pieces.append(body)
        queue.octets += len(body)
        self._octets += len(body) + _PIECE_OCTETS
        if queue.octets > max_octets:
            self._end(sender, QueueEnd.TOO_LARGE)
            return None
        if frag & LAST:
            self._end(sender, QueueEnd.COMPLETE)
            return b"".join(queue.pieces)
        while self._octets > self._limits.octets:
            self._end(next(iter(self._queues)), QueueEnd.DISPLACED)
        return None

    def _end(self, sender: _S, how: QueueEnd) -> None:
        self._octets -= self._queues.pop(sender).cost
        self._ends[how] += 1
