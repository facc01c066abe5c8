"""Fragments of datagrams until they are whole (mcast §4.5): queues by AID and DGID, all of them bounded."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from enum import StrEnum

from mcastsocks.tables.tally import Tally

LAST = 0x80
_POSITION = 0x7F
_PIECE_OCTETS = 256
"""What a piece takes besides its octets, roughly: even empty ones are bounded."""


class QueueEnd(StrEnum):
    """How a queue ended; counted."""

    COMPLETE = "complete"
    TIMED_OUT = "timed-out"
    CONTRADICTED = "contradicted"  # two different pieces for one position, a second end, a piece beyond the end
    TOO_LARGE = "too-large"  # beyond what UDP carries
    DISPLACED = "displaced"  # by a newer one, where there was no room for both
    RELEASED = "released"  # with its association


@dataclass(frozen=True, slots=True)
class ReassemblyLimits:
    queues_per_association: int = 8
    octets: int = 16 << 20
    timeout_s: float = 5.0


@dataclass(slots=True)
class _Queue:
    deadline: float
    pieces: dict[int, bytes] = field(default_factory=dict)
    last: int | None = None
    octets: int = 0

    def contradicts(self, position: int, is_last: bool, body: bytes) -> bool:
        if is_last and self.last not in (None, position):
            return True
        if not is_last and self.last is not None and position >= self.last:
            return True
        if is_last and any(held > position for held in self.pieces):
            return True
        return self.pieces.get(position, body) != body or (is_last and position in self.pieces and self.last is None)

    @property
    def is_complete(self) -> bool:
        return self.last is not None and len(self.pieces) == self.last

    @property
    def cost(self) -> int:
        return self.octets + len(self.pieces) * _PIECE_OCTETS

    def whole(self) -> bytes:
        return b"".join(self.pieces[position] for position in sorted(self.pieces))


class Reassembly:
    """Pieces may come in any order; a datagram without fragmentation leaves the queues alone."""

    def __init__(self, limits: ReassemblyLimits, ends: Counter[QueueEnd]) -> None:
        self._limits, self._ends = limits, ends
        self._queues: OrderedDict[tuple[int, int], _Queue] = OrderedDict()  # oldest first: one timeout for all
        self._held: Tally[int] = Tally()
        self._octets = 0

    def __len__(self) -> int:
        return len(self._queues)

    @property
    def octets(self) -> int:
        """What all the pieces take, their own overhead included."""
        return self._octets

    def add(self, aid: int, dgid: int, frag: int, body: bytes, max_octets: int, now: float) -> bytes | None:
        """A piece with a position of 1 or more; the whole body, at most `max_octets`, when it was the last missing."""
        self.expire(now)
        key, position, is_last = (aid, dgid), frag & _POSITION, bool(frag & LAST)
        queue = self._queues.get(key) or self._open(key, now)
        if queue.contradicts(position, is_last, body):
            self._end(key, QueueEnd.CONTRADICTED)
            return None
        if is_last:
            queue.last = position
        if position not in queue.pieces:
            queue.pieces[position] = body
            queue.octets += len(body)
            self._octets += len(body) + _PIECE_OCTETS
        if queue.octets > max_octets:
            self._end(key, QueueEnd.TOO_LARGE)
            return None
        if queue.is_complete:
            self._end(key, QueueEnd.COMPLETE)
            return queue.whole()
        while self._octets > self._limits.octets:
            self._end(next(iter(self._queues)), QueueEnd.DISPLACED)
        return None

    def expire(self, now: float) -> None:
        """Give up the queues whose time is over."""
        while self._queues:
            key, oldest = next(iter(self._queues.items()))
            if oldest.deadline > now:
                return
            self._end(key, QueueEnd.TIMED_OUT)

    def release(self, aid: int) -> None:
        """The association has ended."""
        if aid in self._held:
            for key in [key for key in self._queues if key[0] == aid]:
                self._end(key, QueueEnd.RELEASED)

    def _open(self, key: tuple[int, int], now: float) -> _Queue:
        aid = key[0]
        if self._held[aid] >= self._limits.queues_per_association:
            self._end(next(held for held in self._queues if held[0] == aid), QueueEnd.DISPLACED)
        queue = self._queues[key] = _Queue(now + self._limits.timeout_s)
        self._held.add(aid)
        return queue

    def _end(self, key: tuple[int, int], how: QueueEnd) -> None:
        queue = self._queues.pop(key)
        self._held.remove(key[0])
        self._octets -= queue.cost
        self._ends[how] += 1
