"""One association as a program sees it: a way to a remote or a group."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mcastsocks.address import Endpoint
from mcastsocks.client.dial import reason
from mcastsocks.client.paths import GroupPath, Path
from mcastsocks.client.terms import Mode, Terms, directions
from mcastsocks.errors import ConnectionLost, RelayError
from mcastsocks.wire.control import BOTH_DIRECTIONS, ControlReply, Flags

if TYPE_CHECKING:
    from mcastsocks.client.relay import Confirm, Relay

QUEUED_DATAGRAMS = 4096


@dataclass(frozen=True, slots=True)
class Datagram:
    """What came in. `source` is the original sender where the relay reports it: never in MM-mode."""

    data: bytes
    source: Endpoint | None = None


class Association:
    """Made by Relay.associate, Relay.join and Relay.sender; an async iterator of datagrams.

    When the program is slower than its datagrams the oldest are dropped and counted in `dropped`.
    """

    def __init__(
        self,
        relay: Relay,
        reply: ControlReply,
        local: Endpoint | None,
        remote: Endpoint,
        terms: Terms,
        path: Path,
    ) -> None:
        self._relay = relay
        self._path = path
        self.aid = reply.aid
        self.local = local
        self.remote = remote
        self.relay_endpoint = reply.local
        self.outside = reply.remote
        self.terms = terms
        self.reports_source = bool(reply.flags & Flags.REPORT_SOURCE)
        self.dropped = 0
        self.received = 0
        self._queue: deque[Datagram] = deque(maxlen=QUEUED_DATAGRAMS)
        self._arrived = asyncio.Event()
        self._ended: RelayError | None = None
        self._closed = False

    @property
    def directions(self) -> int:
        return self.terms.flags & BOTH_DIRECTIONS

    @property
    def mode(self) -> Mode | None:
        """How a group travels between the relay and us; None for a remote."""
        return self.terms.mode

    @property
    def max_data_octets(self) -> int:
        """The room for data in one datagram as the drafts want it reported: 8 octets less than UDP's (mcast §4.5).

        In MM-mode all that UDP carries.
        """
        return self._path.max_data_octets

    async def send(self, data: bytes) -> None:
        """Send one datagram. Raises ValueError when it is too large, RelayError when the association is over."""
        if len(data) > self.max_data_octets:
            raise ValueError(f"{len(data)} octets; a datagram through this relay holds {self.max_data_octets}")
        if not self.directions & Flags.SEND_TO:
            raise ValueError("this association does not send; add(send=True) first")
        if self._closed or self._ended is not None:
            raise self._ended or RelayError("the association is closed")
        await self._path.send(data)

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

    async def add(
        self, *, receive: bool = False, send: bool = False, ttl: int = 1, confirm: Confirm | None = None
    ) -> None:
        """Add a direction; with send=True for a group, as Relay.sender does. Raises what that raises."""
        await self._relay.rebind(self, self.terms.with_directions(directions(receive, send), ttl), confirm)

    async def set_sources(self, sources: Sequence[str] = (), *, excluding: Sequence[str] = ()) -> None:
        """Receive the group from these sources only, or from all but some. Raises RequestRefused."""
        await self._relay.rebind(self, self.terms.with_sources(sources, excluding))

    async def set_ttl(self, ttl: int) -> None:
        """Another TTL for what is sent to the group. Raises RequestRefused, NotRelayed."""
        await self._relay.set_ttl(self, ttl)

    async def release(self, *, receive: bool = False, send: bool = False) -> None:
        """Give up directions; the association ends with its last. Raises RequestRefused."""
        await self._relay.release(self, directions(receive, send))

    async def close(self) -> None:
        """Give up everything; no error when the relay is gone already."""
        try:
            if not self._closed and self._ended is None:
                with suppress(ConnectionLost):
                    await self._relay.release(self, self.directions)
        finally:
            self.end(None)

    def deliver(self, data: bytes, source: Endpoint | None = None) -> None:
        """A datagram came in (called by the endpoint and the control channel)."""
        self.received += 1
        if len(self._queue) == QUEUED_DATAGRAMS:
            self.dropped += 1
        self._queue.append(Datagram(data, source))
        self._arrived.set()

    def prepare(self, wanted: Terms) -> None:
        """Have what wanted directions need on our own side. Raises RelayError."""
        if isinstance(self._path, GroupPath):
            try:
                self._path.open(wanted.flags, self.deliver)
            except OSError as error:
                raise RelayError(f"{self.remote} in MM-mode, on this network itself: {reason(error)}") from None

    def granted(self, wanted: Terms, reply: ControlReply) -> None:
        """A further BIND was granted (called by the relay's connection). Raises RelayError."""
        self.prepare(wanted)
        self.terms = self.terms.merged(wanted)
        if wanted.flags & Flags.RECEIVE_FROM:
            self.reports_source = bool(reply.flags & Flags.REPORT_SOURCE)

    def released(self, given_up: int) -> None:
        """Directions were given up (called by the relay's connection)."""
        self.terms = self.terms.without_directions(given_up)
        if given_up & Flags.RECEIVE_FROM:
            self._leave()
        if not self.directions:
            self.end(None)

    def end(self, error: RelayError | None) -> None:
        """Nothing will come any more (called by the relay's connection)."""
        self._closed = self._closed or error is None
        self._ended = self._ended or error
        self._leave()
        self._relay.forget(self)
        self._arrived.set()

    def _leave(self) -> None:
        if isinstance(self._path, GroupPath):
            self._path.leave()
