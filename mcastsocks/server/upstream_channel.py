"""What one session has at an upstream in the enhanced mode: a control channel, and what waits to be sent there."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from mcastsocks.client.association import Association
from mcastsocks.client.relay import Relay
from mcastsocks.errors import ConnectionLost, RelayError
from mcastsocks.planes.counters import DropReason
from mcastsocks.server.upstream import Upstream

_MOST_OCTETS = 4 << 20
_DATAGRAM_OCTETS = 128
"""What a datagram takes besides its data, roughly: even empty ones are bounded."""
_AT_ONCE = 32
"""Datagrams that are sent before the others get their turn."""
_T = TypeVar("_T")


class UpstreamChannel:
    """Entered when first needed, and anew when it was lost; everything on it ends with it.

    What ends takes `ending`, one in a turn of the event loop, as it may be thousands at once.
    """

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.ending = asyncio.Lock()
        self._entering: asyncio.Task[Relay] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._outgoing: deque[tuple[Association, bytes]] = deque()
        self._octets = 0
        self._filled = asyncio.Event()
        self._sender: asyncio.Task[None] | None = None

    async def ask(self, request: Callable[[Relay], Awaitable[_T]]) -> _T:
        """What it answers; on a new channel where an old one turns out to be lost. Raises UpstreamFailed."""
        entered = self._entering
        while True:
            relay = await self._enter()
            try:
                return await request(relay)
            except ConnectionLost as error:
                was_new, entered = entered is None, None
                self.leave(relay)
                if was_new:
                    raise self.upstream.failed(error) from None
            except RelayError as error:
                raise self.upstream.failed(error) from None

    def send(self, association: Association, data: bytes) -> DropReason | None:
        """A datagram for later, as the plane that has it waits for nobody; why, if it is dropped."""
        if len(data) > association.max_data_octets:
            return DropReason.TOO_LARGE
        if self._octets + len(data) + _DATAGRAM_OCTETS > _MOST_OCTETS:
            return DropReason.BUFFER_FULL
        self._outgoing.append((association, data))
        self._octets += len(data) + _DATAGRAM_OCTETS
        self._filled.set()
        if self._sender is None:
            self._sender = asyncio.create_task(self._send_all())
        return None

    def leave(self, relay: Relay) -> None:
        """It is lost: whoever comes next needs another."""
        if self._entered() is relay:
            self._entering = None
            leaving = asyncio.create_task(relay.close())
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        """The upstream releases everything that was opened on it."""
        if (relay := self._entered()) is not None:
            self.leave(relay)
        tasks = {task for task in (self._sender, self._entering) if task is not None}
        for task in tasks:
            task.cancel()
        if tasks := tasks | self._leaving:
            await asyncio.wait(tasks)

    def _entered(self) -> Relay | None:
        entering = self._entering
        if entering is None or not entering.done() or entering.cancelled() or entering.exception() is not None:
            return None
        return entering.result()

    async def _enter(self) -> Relay:
        """Raises UpstreamFailed; then whoever comes next tries again."""
        if self._entering is None:
            self._entering = asyncio.create_task(self.upstream.enter())
            self._entering.add_done_callback(self._forget_failure)
        return await asyncio.shield(self._entering)

    def _forget_failure(self, entering: asyncio.Task[Relay]) -> None:
        if (entering.cancelled() or entering.exception() is not None) and self._entering is entering:
            self._entering = None

    async def _send_all(self) -> None:
        while True:
            for _ in range(_AT_ONCE):
                while not self._outgoing:
                    self._filled.clear()
                    await self._filled.wait()
                await self._send_one()
            await asyncio.sleep(0)

    async def _send_one(self) -> None:
        association, data = self._outgoing.popleft()
        self._octets -= len(data) + _DATAGRAM_OCTETS
        with suppress(RelayError, ValueError):  # it has ended, or given up its direction: these came too late
            await association.send(data)
