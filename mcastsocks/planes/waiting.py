"""Datagrams of UDP ASSOCIATEs that wait until somebody has said where they go."""

from __future__ import annotations

from collections.abc import Iterator

from mcastsocks.address import Endpoint
from mcastsocks.planes.associate import Associated
from mcastsocks.planes.counters import Counters

_WAITING_OCTETS = 8 << 20
"""Of datagrams that wait for a name, in all."""


class Waiting:
    """All of one plane, counted in its counters. Each association holds its own, by the octets of a destination."""

    def __init__(self, counters: Counters) -> None:
        self._counters, self._octets = counters, 0

    def hold(self, associated: Associated, destination: Endpoint, named: bytes, data: bytes, tos: int) -> bool:
        """False when there is no room for it."""
        is_name = isinstance(destination.host, str) or named in associated.waiting  # an address is answered at once
        if is_name and self._octets + len(data) > _WAITING_OCTETS:
            return False
        if not associated.wait(named, data, tos):
            return False
        self._counters.waiting += 1
        self._octets += len(data)
        return True

    def release(self, associated: Associated, named: bytes) -> Iterator[tuple[bytes, int]]:
        """What waits for a destination no more, in order: data, DSCP and ECN."""
        for data, tos in associated.waiting.pop(named, ()):
            self._counters.waiting -= 1
            self._octets -= len(data)
            associated.waiting_octets -= len(data)
            yield data, tos
