"""A client's TCP connection: who it is, and how its octets get into and out of the protocol's machine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, NoReturn, TypeVar

from mcastsocks.address import SockAddr, from_sockaddr, site_of
from mcastsocks.errors import McastsocksError
from mcastsocks.protocol.server import Event, ServerConnection
from mcastsocks.server.judge import Judge
from mcastsocks.server.records import Value, command_name
from mcastsocks.server.services import Services
from mcastsocks.wire.replies import ReplyCode
from mcastsocks.wire.socks5 import Command, Request

_READ_OCTETS = 2048
"""Some 75 control requests: as many as are answered before others, and datagrams, get their turn."""

_AHEAD_OCTETS = 64 * 1024
"""Taken from a client that sends before there is anybody to send to."""

_T = TypeVar("_T")


class SessionEnded(McastsocksError):
    """Why a session is over, in a word or a few for its record."""


class Client:
    """`number` names the session in records; `user` is None until somebody has logged in."""

    def __init__(
        self,
        services: Services,
        number: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        peer: SockAddr,
    ) -> None:
        self.services, self.number, self.peer = services, number, peer
        self.reader, self.writer = reader, writer
        self.endpoint = from_sockaddr(peer)
        self.user: str | None = None
        self.started = time.monotonic()
        config = services.config
        self.machine = ServerConnection(self.started, config.limits.handshake_timeout_s, socks4=config.socks.socks4)

    @property
    def account(self) -> str:
        """What limits count by."""
        return self.user or str(site_of(self.endpoint.address))

    def judge(self) -> Judge:
        return Judge(self.services, self.user, self.endpoint.address, self.account)

    async def next_event(self) -> Event:
        """The next event, writing and reading as needed. Raises SessionEnded, WireError, OSError."""
        while (event := self.machine.next_event()) is None:
            await self.read()
        return event

    async def read(self) -> None:
        """What the peer does not read holds it up. Raises SessionEnded at its end."""
        self.write()
        await self.writer.drain()
        octets = await self.reader.read(_READ_OCTETS)
        if not octets:
            raise SessionEnded("closed by client")
        self.machine.receive(octets)

    async def unless_gone(self, awaited: Coroutine[Any, Any, _T]) -> _T:
        """What is awaited, unless the client goes first. Raises SessionEnded and whatever both raise."""
        waiting, reading = asyncio.ensure_future(awaited), asyncio.ensure_future(self._read_ahead())
        try:
            await asyncio.wait((waiting, reading), return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                await reading
            return await waiting
        finally:
            waiting.cancel()
            reading.cancel()
            await asyncio.gather(waiting, reading, return_exceptions=True)

    async def _read_ahead(self) -> NoReturn:
        while self.machine.octets_held < _AHEAD_OCTETS:
            await self.read()
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")

    def write(self) -> None:
        octets = self.machine.octets_to_send()
        if octets and not self.writer.is_closing():
            self.writer.write(octets)

    def record(self, event: str, **fields: Value) -> None:
        """A record that says whose it is."""
        self.services.records.write(event, session=self.number, user=self.user, client=str(self.endpoint), **fields)

    def fail(self, request: Request, code: ReplyCode, why: str) -> NoReturn:
        """Answer a request with a failure. Raises SessionEnded."""
        self.machine.fail_request(request, code)
        self.refuse(why, command=command_name(Command, request.command), remote=str(request.destination))

    def refuse(self, why: str, command: str = "session", remote: str | None = None) -> NoReturn:
        """Raises SessionEnded; the machine has its answer already."""
        self.record("refused", command=command, remote=remote, why=why)
        raise SessionEnded(why)
