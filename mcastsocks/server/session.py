"""One TCP connection, from accept to close: who it is, what it asks for, and then that."""

from __future__ import annotations

import asyncio
import errno
import time
from typing import Protocol

from mcastsocks.errors import WireError
from mcastsocks.protocol.server import LoginAttempted, MethodsOffered, RequestMade
from mcastsocks.server import features
from mcastsocks.server.associate import UdpAssociate
from mcastsocks.server.client import Client, SessionEnded
from mcastsocks.server.connections import Place
from mcastsocks.server.enhanced import Enhanced
from mcastsocks.server.tunnel import Bind, Connect
from mcastsocks.wire.replies import ReplyCode
from mcastsocks.wire.socks5 import Command, Method, Request

_GOODBYE_S = 5
"""RFC 1928 §6 wants a connection closed within 10 s of a failure."""

_DEAD = {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH}
"""What the kernel reports of a client that answers nothing: the time-out, or the last ICMP or ARP failure before it."""

_METHODS = {"none": Method.NONE, "userpass": Method.USERPASS}
_STRONGEST_FIRST = ("userpass", "none")


class Service(Protocol):
    """What a connection is for, once it has asked for it."""

    async def run(self) -> None:
        """Until it is over. Raises SessionEnded, which says why, WireError, OSError."""

    async def close(self, reason: str) -> None:
        """Release everything, write the record. Also when `run` was cancelled."""


_SERVICES: dict[int, type[Enhanced] | type[Connect] | type[Bind] | type[UdpAssociate]] = {
    Command.CONNECT: Connect,
    Command.BIND: Bind,
    Command.UDP_ASSOCIATE: UdpAssociate,
    Command.ENHANCED_UDP_MODE: Enhanced,
}


class Session:
    """Runs one connection."""

    def __init__(self, client: Client, place: Place) -> None:
        self._client, self._place = client, place
        self._service: Service | None = None
        self._lists = 0

    async def run(self) -> None:
        """Until the client goes, breaks the protocol, or the task is cancelled (the relay stops)."""
        reason = "shutdown"
        try:
            await self._converse()
        except SessionEnded as ended:
            reason = str(ended)
        except WireError as error:
            reason = f"protocol error: {error}"
            if self._service is None:
                self._client.record("refused", command="session", why=reason)
        except ConnectionError:
            reason = "connection reset"
        except OSError as error:
            reason = "client dead" if error.errno in _DEAD else error.strerror or str(error)
        finally:
            await self._end(reason)

    async def _converse(self) -> None:
        deadline = self._client.machine.deadline
        assert deadline is not None
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + deadline - time.monotonic()) as patience:
                request = await self._negotiate()
        except TimeoutError:
            if not patience.expired():  # the kernel's: the client is dead
                raise
            self._client.refuse("handshake timeout")
        if request.command not in _SERVICES:
            self._client.fail(request, ReplyCode.COMMAND_NOT_SUPPORTED, "no such command")
        if full := self._place.log_in(self._client.account):
            self._client.fail(request, ReplyCode.GENERAL_FAILURE, full)
        self._service = _SERVICES[request.command](self._client, request)
        await self._service.run()

    async def _negotiate(self) -> Request:
        """The request that the connection is for."""
        client = self._client
        while True:
            match await client.next_event():
                case MethodsOffered(methods):
                    self._choose_method(methods)
                case LoginAttempted(credentials):
                    why = await client.services.passwords.check(credentials, client.endpoint.address)
                    client.user = credentials.user.decode("utf-8", "replace")
                    if why is not None:
                        client.machine.refuse_login()
                        client.refuse(why)
                    client.machine.accept_login()
                case RequestMade(request, socks4_user) if socks4_user is not None:
                    self._judge_socks4(request)
                    return request
                case RequestMade(request) if request.command == Command.LIST_FEATURES:
                    self._list_features(request)
                case RequestMade(request):
                    return request

    def _choose_method(self, methods: tuple[int, ...]) -> None:
        """The strongest that the configuration allows, not the first listed (RFC 1928 §3)."""
        machine = self._client.machine
        if self._place.full is not None:
            machine.refuse_methods()
            self._client.refuse(self._place.full)
        for name in _STRONGEST_FIRST:
            if name in self._client.services.config.auth.methods and _METHODS[name] in methods:
                machine.choose_method(_METHODS[name])
                return
        machine.refuse_methods()
        self._client.refuse("no common authentication method")

    def _judge_socks4(self, request: Request) -> None:
        """Nobody logs in there: USERID proves nothing."""
        if self._place.full is not None:
            self._client.fail(request, ReplyCode.GENERAL_FAILURE, self._place.full)
        if "none" not in self._client.services.config.auth.methods:
            self._client.fail(request, ReplyCode.NOT_ALLOWED, "SOCKS 4 knows no authentication, and one is demanded")

    def _list_features(self, request: Request) -> None:
        client, self._lists = self._client, self._lists + 1
        if self._lists > features.MOST_LISTS:
            why = f"asked for features more than {features.MOST_LISTS} times"
            client.fail(request, ReplyCode.GENERAL_FAILURE, why)
        services = client.services
        methods = [_METHODS[name] for name in services.config.auth.methods]
        listed = features.list_for(
            client.user, client.endpoint.address, services.rules, methods, socks4=services.config.socks.socks4
        )
        client.machine.list_features(request, listed)
        if client.machine.deadline is None:
            raise SessionEnded("features listed")

    async def _end(self, reason: str) -> None:
        client = self._client
        try:
            if self._service is not None:
                await self._service.close(reason)
        finally:
            client.write()
            client.writer.close()
            try:
                async with asyncio.timeout(_GOODBYE_S):
                    await client.writer.wait_closed()
            except TimeoutError:  # the client does not read its last reply
                client.writer.transport.abort()
            except OSError:
                pass
