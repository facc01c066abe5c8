"""The control channel: requests that wait for replies, datagrams between them, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from mcastsocks.client.connection import Connection
from mcastsocks.client.dial import reason
from mcastsocks.client.requests import Requests
from mcastsocks.errors import ConnectionLost, RelayError, WireError
from mcastsocks.protocol.client import DatagramEncapsulated, ReplyReceived
from mcastsocks.wire.control import ControlReply, ControlRequest, Encapsulated, UdpCommand

_T = TypeVar("_T")


class ControlChannel:
    """Listens from the start: `deliver` gets what comes encapsulated, `end` the error that the channel ends with."""

    def __init__(
        self,
        connection: Connection,
        timeout_s: float,
        deliver: Callable[[Encapsulated], None],
        end: Callable[[RelayError], None],
    ) -> None:
        self.url = connection.url
        self.lost: RelayError | None = None
        self._connection, self._timeout_s = connection, timeout_s
        self._deliver, self._end = deliver, end
        self._requests = Requests()
        self._listener = asyncio.create_task(self._listen())

    def tid(self) -> int:
        return self._requests.tid()

    def write(self, message: ControlRequest | Encapsulated) -> None:
        self._connection.write(message)

    def release(self, aid: int, directions: int) -> ControlRequest:
        return ControlRequest(UdpCommand.RELEASE, self.tid(), aid, directions)

    def give_up(self, aid: int, directions: int) -> None:
        """Release what nobody has; nobody waits for the reply to this either."""
        if self.lost is None:
            self.write(self.release(aid, directions))

    async def drain(self) -> None:
        """Wait while the relay is slower than we are. Raises ConnectionLost."""
        await self._connection.drain()

    async def ask(self, request: ControlRequest, take: Callable[[ControlReply], _T], what: str = "") -> _T:
        """What `take` makes of a success, when it is read. Raises RequestRefused, ConnectionLost.

        A relay that does not answer is given up: what it holds, it has to release.
        """
        if self.lost is not None:
            raise self.lost
        self.write(request)
        answer = self._requests.add(request.tid, what or str(request.remote), take)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self.drain()
                return await answer
        except TimeoutError:
            lost = ConnectionLost(f"{self.url} did not answer within {self._timeout_s:g} s")
            self._hang_up(lost)
            raise lost from None
        finally:
            answer.cancel()

    async def close(self) -> None:
        """The relay releases everything that was opened on it."""
        self._fail(ConnectionLost("the connection was closed here"))
        self._listener.cancel()
        with suppress(asyncio.CancelledError):
            await self._listener
        await self._connection.close()

    async def _listen(self) -> None:
        """Pair replies with requests until the channel ends; everything that waits then fails."""
        try:
            async for event in self._connection.events():
                if isinstance(event, ReplyReceived):
                    self._requests.answer(event.reply)
                elif isinstance(event, DatagramEncapsulated):
                    self._deliver(event.datagram)
            lost = ConnectionLost(f"{self.url} closed the control channel")
        except OSError as error:
            lost = ConnectionLost(f"the control channel to {self.url} broke: {reason(error)}")
        except WireError as error:
            lost = ConnectionLost(f"{self.url} broke the protocol: {error}")
        self._hang_up(lost)

    def _hang_up(self, error: RelayError) -> None:
        self._fail(error)
        self._connection.abort()

    def _fail(self, error: RelayError) -> None:
        """Nothing works any more; the first error is the one that everything fails with."""
        self.lost = self.lost or error
        self._requests.fail(self.lost)
        self._end(self.lost)
