"""One association as a program sees it: a way to a remote or a group."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mcastsocks.address import Endpoint, SockAddr, to_sockaddr
from mcastsocks.errors import RelayError
from mcastsocks.wire.control import BOTH_DIRECTIONS, ControlReply, Flags
from mcastsocks.wire.datagram import HEADER, HEADER_OCTETS, UDP_PAYLOAD_OCTETS

if TYPE_CHECKING:
    from mcastsocks.client.relay import Relay

QUEUED_DATAGRAMS = 4096


@dataclass(frozen=True, slots=True)
class Datagram:
    """What came in. `source` is the original sender where the relay reports it."""

    data: bytes
    source: Endpoint | None = None


class Association:
    """Made by Relay.associate, Relay.join and Relay.sender; an async iterator of datagrams.

    When the program is slower than its datagrams the oldest are dropped and counted in `dropped`.
    """

    def __init__(self, relay: Relay, reply: ControlReply, local: Endpoint, remote: Endpoint, directions: Flags) -> None:
        self._relay = relay
        self.aid = reply.aid
        self.local = local
        self.remote = remote
        self.outside = reply.remote
        self.directions = directions
        self.dropped = 0
        self.received = 0
        # mcast §4.3.1.2: a relay that is no proxy gives our own addresses back, and wants no header.
        self.is_plain = reply.local == remote
        assert reply.local is not None
        self.relay_sockaddr: SockAddr = to_sockaddr(reply.local)
        self._header = b"" if self.is_plain else HEADER.pack(0, 0, 0, self.aid)
        self._queue: deque[Datagram] = deque(maxlen=QUEUED_DATAGRAMS)
        self._arrived = asyncio.Event()
        self._ended: RelayError | None = None
        self._closed = False

    @property
    def max_data_octets(self) -> int:
        """The room for data in one datagram: 8 octets less than UDP's (mcast §4.5)."""
        version = 6 if ":" in self.relay_sockaddr[0] else 4
        return UDP_PAYLOAD_OCTETS[version] - (0 if self.is_plain else HEADER_OCTETS)

    async def send(self, data: bytes) -> None:
        """Send one datagram. Raises ValueError when it is too large, RelayError when the association is over."""
        if len(data) > self.max_data_octets:
            raise ValueError(f"{len(data)} octets; a datagram through this relay holds {self.max_data_octets}")
        if not self.directions & Flags.SEND_TO:
            raise ValueError("this association does not send; add(send=True) first")
        if self._closed or self._ended is not None:
            raise self._ended or RelayError("the association is closed")
        await self._relay.endpoint.send(self._header + data, self.relay_sockaddr)

    async def recv(self) -> Datagram:
        """The next datagram. Raises RelayError when none will come any more."""
        while not self._queue:
            if self._closed or self._ended is not None:
                raise self._ended or RelayError("the association is closed")
            self._arrived.clear()
            await self._arrived.wait()
        return self._queue.popleft()

    async def __aiter__(self) -> AsyncIterator[Datagram]:
        """Datagrams until the association is closed; raises RelayError when the relay is lost."""
        while not self._closed:
            try:
                yield await self.recv()
            except RelayError:
                if self._closed:
                    return
                raise

    async def add(self, *, receive: bool = False, send: bool = False, ttl: int = 1) -> None:
        """Add a direction; with send=True for a group, its TTL. Raises RequestRefused."""
        await self._relay.rebind(self, _directions(receive, send), ttl)

    async def set_ttl(self, ttl: int) -> None:
        """Another TTL for what is sent to the group. Raises RequestRefused."""
        await self._relay.set_ttl(self, ttl)

    async def release(self, *, receive: bool = False, send: bool = False) -> None:
        """Give up directions; the association ends with its last. Raises RequestRefused."""
        given_up = _directions(receive, send)
        await self._relay.release(self, given_up)
        if not self.directions & ~given_up:
            self.end(None)
        self.directions &= ~given_up

    async def close(self) -> None:
        """Give up everything; no error when the relay is gone already."""
        if not self._closed and self._ended is None:
            await self._relay.release(self, self.directions & BOTH_DIRECTIONS)
        self.end(None)

    def deliver(self, data: bytes) -> None:
        """A datagram came in (called by the endpoint)."""
        self.received += 1
        if len(self._queue) == QUEUED_DATAGRAMS:
            self.dropped += 1
        self._queue.append(Datagram(data))
        self._arrived.set()

    def end(self, error: RelayError | None) -> None:
        """Nothing will come any more (called by the relay's connection)."""
        self._closed = self._closed or error is None
        self._ended = self._ended or error
        self._relay.forget(self)
        self._arrived.set()


def _directions(receive: bool, send: bool) -> Flags:
    return (Flags.RECEIVE_FROM if receive else Flags.NONE) | (Flags.SEND_TO if send else Flags.NONE)
