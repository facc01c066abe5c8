"""How many failed logins a client address may still afford: a bucket that fills again over a minute.

What is kept of each is when it will be full: every failure puts that off by its part of a minute.
"""

from __future__ import annotations

import mmap
import struct
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from mcastsocks.address import IPAddress
from mcastsocks.server.shares import Shares

_ENTRY = struct.Struct("=16sd")  # name, when it will be full
_OF_A_SHELF = 8


class Failures(Protocol):
    def left(self, client: IPAddress) -> int:
        """How many more failures are borne now."""

    def spend(self, client: IPAddress) -> None:
        """An attempt failed."""


class Throttle:
    """Of one process. When there are more addresses than `most`, the one that failed longest ago is forgotten."""

    def __init__(self, per_minute: int, most: int, clock: Callable[[], float]) -> None:
        self._per_minute, self._most, self._clock = per_minute, most, clock
        self._full: OrderedDict[IPAddress, float] = OrderedDict()

    def left(self, client: IPAddress) -> int:
        return _left(self._full.get(client, 0.0) - self._clock(), self._per_minute)

    def spend(self, client: IPAddress) -> None:
        self._full[client] = max(self._full.get(client, 0.0), self._clock()) + 60 / self._per_minute
        self._full.move_to_end(client)
        while len(self._full) > self._most:
            self._full.popitem(last=False)


class SharedThrottle:
    """Of all workers, which inherit it; what a worker that died has seen fail stays.

    An address has a few places on a shelf that its keyed name chooses, where the first to be forgotten makes room.
    """

    def __init__(self, shares: Shares, per_minute: int, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._shares, self._per_minute, self._clock = shares, per_minute, clock
        self._shelves = -(-most // _OF_A_SHELF)
        self._octets = mmap.mmap(-1, self._shelves * _OF_A_SHELF * _ENTRY.size)

    def left(self, client: IPAddress) -> int:
        with self._shares:
            return _left(self._place(client)[1] - self._clock(), self._per_minute)

    def spend(self, client: IPAddress) -> None:
        with self._shares:
            at, full = self._place(client)
            full = max(full, self._clock()) + 60 / self._per_minute
            _ENTRY.pack_into(self._octets, at, self._shares.name("throttle", client), full)

    def _place(self, client: IPAddress) -> tuple[int, float]:
        """Where it is, and when it will be full; else where it would be, and 0."""
        name = self._shares.name("throttle", client)
        begin = int.from_bytes(name[:8]) % self._shelves * _OF_A_SHELF * _ENTRY.size
        shelf = range(begin, begin + _OF_A_SHELF * _ENTRY.size, _ENTRY.size)
        held = [(*_ENTRY.unpack_from(self._octets, at), at) for at in shelf]
        for its, full, at in held:
            if its == name:
                return at, full
        return min((full, at) for _, full, at in held)[1], 0.0


def _left(full_in_s: float, per_minute: int) -> int:
    return int(per_minute - max(0.0, full_in_s) * per_minute / 60)
