"""One UDP ASSOCIATE (RFC 1928 §7): its client, where its datagrams go, and whose it takes."""

from __future__ import annotations

import socket
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from mcastsocks.address import SockAddr
from mcastsocks.planes.counters import DropReason
from mcastsocks.planes.outsides import OutsideKey, OutsideSocket
from mcastsocks.tables.changes import Answers, Associate, Traffic

_ROUTES = 1024
_REMOTES = 4096
_WAITING_DESTINATIONS = 64
_WAITING_OCTETS = 256 * 1024
_WAITING_DATAGRAMS = 16
"""For one destination, whose name is being resolved."""


@dataclass(slots=True, eq=False)
class Way:
    """Where the datagrams to one destination go, and what is put before them.

    Without an outside they are dropped, for the reason `refused`, `until` some time of the loop's clock. `row` is for
    the plane that has a table of ways: where it was put last, and in which era of the table.
    """

    outside: socket.socket | None
    target: SockAddr
    dscp: int | None
    refused: DropReason
    prefix: bytes = b""
    until: float = 0.0
    row: int = 0
    era: int = 0


@dataclass(slots=True)
class Associated:
    """`client` is None until its port is known, `inside` the door's socket.

    Ways are kept by the octets that a client names a destination with.
    """

    associate: Associate
    client: SockAddr | None
    inside: socket.socket
    traffic: Traffic = field(default_factory=Traffic)
    outsides: dict[OutsideKey, OutsideSocket] = field(default_factory=dict)
    ways: OrderedDict[bytes, Way] = field(default_factory=OrderedDict)
    waiting: dict[bytes, deque[tuple[bytes, int]]] = field(default_factory=dict)
    waiting_octets: int = 0
    upstreams: set[SockAddr] = field(default_factory=set)
    _remotes: OrderedDict[tuple[str, int], None] = field(default_factory=OrderedDict)

    def admits(self, source: SockAddr) -> bool:
        """Whether a datagram from there is for this client."""
        answers = self.associate.answers
        port = source[1] if answers is Answers.EXACT else 0
        return answers is Answers.ANYONE or (source[0], port) in self._remotes

    def contact(self, target: SockAddr) -> None:
        """It is sent to from now on, and may answer; the one that was longest not may no more."""
        key = (target[0], target[1] if self.associate.answers is Answers.EXACT else 0)
        self._remotes[key] = None
        self._remotes.move_to_end(key)
        if len(self._remotes) > _REMOTES:
            self._remotes.popitem(last=False)

    def keep(self, destination: bytes, way: Way) -> None:
        self.ways[destination] = way
        if len(self.ways) > _ROUTES:
            self.ways.popitem(last=False)

    def wait(self, destination: bytes, data: bytes, tos: int) -> bool:
        """Have a datagram wait for its way; False when there is no room for it."""
        queue = self.waiting.get(destination)
        if queue is None:
            if len(self.waiting) >= _WAITING_DESTINATIONS:
                return False
            queue = self.waiting[destination] = deque()
        if len(queue) >= _WAITING_DATAGRAMS or self.waiting_octets + len(data) > _WAITING_OCTETS:
            return False
        queue.append((data, tos))
        self.waiting_octets += len(data)
        return True
