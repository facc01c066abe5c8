"""A stream between a client and its remote: octets go both ways until both directions have ended."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from mcastsocks.liveness import unanswered_s
from mcastsocks.server.streams.carriers import COPY_OCTETS, Copy
from mcastsocks.server.streams.direction import Direction
from mcastsocks.server.streams.pipes import PipePool

_RESET_ON_CLOSE = struct.pack("@ii", 1, 0)  # struct linger: l_onoff, l_linger
_RESET = {errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN, errno.ECONNABORTED}
_DEAD = {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH}

_LOOKS = 5
"""At whether both sides are alive, in the time after which a silent one is dead."""


class Ending(StrEnum):
    """Why a stream is over, for its record."""

    CLIENT_CLOSED = "closed by client"
    REMOTE_CLOSED = "closed by remote"
    CLIENT_RESET = "reset by client"
    REMOTE_RESET = "reset by remote"
    CLIENT_DEAD = "client dead"
    REMOTE_DEAD = "remote dead"
    IDLE = "idle"


@dataclass(slots=True)
class Octets:
    """What a stream has moved so far, counted when the receiving side's kernel took it."""

    to_remote: int = 0
    to_client: int = 0


class Pumps:
    """What the streams of one event loop share: the buffer that copies go through, and the pipes."""

    def __init__(self, pipes: PipePool) -> None:
        self.pipes = pipes
        self.buffer = memoryview(bytearray(COPY_OCTETS))

    async def pump(
        self, client: socket.socket, remote: socket.socket, *, early: bytes, idle_s: float, octets: Octets
    ) -> Ending:
        """Move octets between two connected non-blocking TCP sockets; why it ended, by whom first.

        `early` is what the client sent before the reply; `idle_s` is for both directions together. An end of stream is
        passed on and the other direction goes on. Anything else, a cancellation too, resets a side that was not sent
        its end: a stream cut short must not look whole. Both sockets are closed in any case. Raises OSError for what
        is neither side's doing. A slow reader makes this hold COPY_OCTETS a direction, or one of the pool's pipes.
        """
        stream = _Stream(self, client, remote, early, idle_s, octets)
        try:
            return await stream.run()
        finally:
            stream.close()


class _Stream:
    """Two directions, one result."""

    def __init__(
        self, pumps: Pumps, client: socket.socket, remote: socket.socket, early: bytes, idle_s: float, octets: Octets
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[Ending] = self._loop.create_future()
        self._ended_first: Ending | None = None
        self._client, self._octets, self._idle_s = client, octets, idle_s
        self._up = Direction(client, remote, Copy(pumps.buffer, early), pumps.pipes, self)
        self._down = Direction(remote, client, Copy(pumps.buffer), pumps.pipes, self)
        self._moved_at = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._alive_timer: asyncio.TimerHandle | None = None

    async def run(self) -> Ending:
        self._check_idle()
        patience_s = [_prepare(direction.source) for direction in (self._up, self._down)]
        if any(patience_s):
            self._check_alive(min(filter(None, patience_s)))
        for direction in (self._up, self._down):
            direction.start()
        return await self._done

    def moved(self, direction: Direction, octets: int) -> None:
        self._moved_at = self._loop.time()
        if direction is self._up:
            self._octets.to_remote += octets
        else:
            self._octets.to_client += octets

    def ended(self, direction: Direction) -> None:
        self._moved_at = self._loop.time()
        if self._ended_first is None:
            self._ended_first = Ending.CLIENT_CLOSED if direction is self._up else Ending.REMOTE_CLOSED
        else:
            self._finish(self._ended_first)

    def failed(self, sock: socket.socket, error: OSError) -> None:
        is_client = sock is self._client
        if error.errno in _RESET:
            self._finish(Ending.CLIENT_RESET if is_client else Ending.REMOTE_RESET)
        elif error.errno in _DEAD:
            self._finish(Ending.CLIENT_DEAD if is_client else Ending.REMOTE_DEAD)
        elif not self._done.done():
            self._done.set_exception(error)

    def close(self) -> None:
        for timer in (self._timer, self._alive_timer):
            if timer is not None:
                timer.cancel()
        for direction in (self._up, self._down):
            direction.close()
            if not direction.over:
                with suppress(OSError):
                    direction.sink.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._up.source.close()
        self._up.sink.close()

    def _finish(self, why: Ending) -> None:
        if not self._done.done():
            self._done.set_result(why)

    def _check_idle(self) -> None:
        """Armed once an `idle_s` and not for every round."""
        left_s = self._moved_at + self._idle_s - self._loop.time()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._check_idle)
        else:
            self._finish(Ending.IDLE)

    def _check_alive(self, patience_s: float) -> None:
        for direction in (self._up, self._down):
            with suppress(OSError):  # as its next round will tell
                if unanswered_s(direction.source) >= patience_s:
                    self.failed(direction.source, TimeoutError(errno.ETIMEDOUT, "silent"))
        self._alive_timer = self._loop.call_later(patience_s / _LOOKS, self._check_alive, patience_s)


def _prepare(sock: socket.socket) -> float:
    """Octets go out at once, urgent ones in their place among the others, and a reader that pauses is not given up:
    TCP_USER_TIMEOUT, which detect_dead_peer sets, ends a window that stays closed even while its probes are answered.
    So the stream looks itself whether a side is silent for as long, in seconds; 0 for ever.
    """
    patience_s = 0.0
    with suppress(OSError):  # it is dead already, as its first round will tell
        patience_s = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) / 1000
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0)
    return patience_s
