"""Association ids: unpredictable, never zero, never the same one soon again."""

from __future__ import annotations

import os
from array import array
from collections import deque
from random import Random, SystemRandom

from mcastsocks.errors import LocalError

AID_BITS = 32
_PAGE_OCTETS = 4096


class _Buffered(SystemRandom):
    """The system's randomness, asked for by the page: a call to the kernel takes longer than all else here."""

    _octets = memoryview(b"")

    def getrandbits(self, k: int) -> int:
        octets = (k + 7) // 8
        if len(self._octets) < octets:
            self._octets = memoryview(os.urandom(_PAGE_OCTETS))
        drawn, self._octets = self._octets[:octets], self._octets[octets:]
        return int.from_bytes(drawn) >> (octets * 8 - k)


class AidPool:
    """Draws AIDs of 32 random bits.

    The low bits are a slot, drawn at random from those never used or longest at rest, so that a table indexed by
    slot needs no search; the high bits are random for every draw, so that a guess must still hit all 32.
    """

    def __init__(self, capacity: int, random: Random | None = None) -> None:
        """At least twice `capacity` slots, so that a released one rests until as many others have been used."""
        self.slot_bits = max(8, (2 * capacity - 1).bit_length())
        self._random = random or _Buffered()
        self._fresh = array("I", range(1 << self.slot_bits))
        self._resting: deque[int] = deque()

    def draw(self) -> int:
        """A new AID. Raises LocalError when every slot is in use, which limits prevent."""
        if not self._fresh:
            self._wake_older_half()
        if not self._fresh:
            raise LocalError("every AID is in use")
        fresh = self._fresh
        index = self._random.randrange(len(fresh))
        slot, fresh[index] = fresh[index], fresh[-1]
        fresh.pop()
        high = self._random.getrandbits(AID_BITS - self.slot_bits)
        if high == slot == 0:
            high = 1  # AID 0 means a new association
        return high << self.slot_bits | slot

    def give_back(self, aid: int) -> None:
        """The association of this AID has ended."""
        self._resting.append(aid & ((1 << self.slot_bits) - 1))

    def _wake_older_half(self) -> None:
        for _ in range((len(self._resting) + 1) // 2):
            self._fresh.append(self._resting.popleft())
