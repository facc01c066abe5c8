"""TCP-encapsulated datagrams on their way to a client that may read slowly (mcast §4.4)."""

from __future__ import annotations

import asyncio
from collections import deque

from mcastsocks.wire.control import Encapsulated

_MOST_OCTETS = 256 * 1024
_FRAME_OCTETS = 128
"""What a frame takes besides its data, roughly: even empty ones are bounded."""


class FrameQueue:
    """Bounded; the oldest go first. Replies do not wait here, so a slow reader never loses one."""

    def __init__(self) -> None:
        self._frames: deque[Encapsulated] = deque()
        self._octets = 0
        self._filled = asyncio.Event()

    def push(self, aid: int, body: bytes) -> list[int]:
        """The AIDs of the datagrams that were dropped for this one."""
        self._frames.append(Encapsulated(aid, body))
        self._octets += len(body) + _FRAME_OCTETS
        dropped = []
        while self._octets > _MOST_OCTETS:
            dropped.append(self._popleft().aid)
        self._filled.set()
        return dropped

    async def pop(self) -> bytes:
        """The octets of the oldest frame; waits for one."""
        while not self._frames:
            self._filled.clear()
            await self._filled.wait()
        return self._popleft().encode()

    def _popleft(self) -> Encapsulated:
        frame = self._frames.popleft()
        self._octets -= len(frame.data) + _FRAME_OCTETS
        return frame


class Channels:
    """The frame queues of all control channels by their number: where a plane hands datagrams over."""

    def __init__(self) -> None:
        self._queues: dict[int, FrameQueue] = {}

    def open(self, channel: int) -> FrameQueue:
        queue = self._queues[channel] = FrameQueue()
        return queue

    def close(self, channel: int) -> None:
        self._queues.pop(channel, None)

    def push(self, channel: int, aid: int, body: bytes) -> list[int]:
        """A sink for planes.interface.PlaneOptions."""
        queue = self._queues.get(channel)
        return queue.push(aid, body) if queue is not None else [aid]
