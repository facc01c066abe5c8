"""One TCP connection, from accept to close: who it is, what it asks first, then its control channel."""

from __future__ import annotations

import asyncio
import errno
import time
from typing import NoReturn

from mcastsocks.address import Endpoint, SockAddr, from_sockaddr
from mcastsocks.errors import McastsocksError, WireError
from mcastsocks.protocol.server import (
    ControlRequested,
    DatagramEncapsulated,
    Event,
    LoginAttempted,
    MethodsOffered,
    RequestMade,
    ServerConnection,
    State,
)
from mcastsocks.rules.model import Action
from mcastsocks.server import features
from mcastsocks.server.channel import ControlChannel
from mcastsocks.server.connections import Place
from mcastsocks.server.frames import FrameQueue
from mcastsocks.server.services import Services
from mcastsocks.tables.associations import Channel
from mcastsocks.wire.control import ControlReply
from mcastsocks.wire.replies import ReplyCode
from mcastsocks.wire.socks5 import Command, Method, Request

_READ_OCTETS = 2048
"""Some 75 requests: as many as are answered before others, and datagrams, get their turn."""

_GOODBYE_S = 5
"""RFC 1928 §6 wants a connection closed within 10 s of a failure."""

_DEAD = {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH}
"""What the kernel reports of a client that answers nothing: the time-out, or the last ICMP or ARP failure before it."""

_DATAGRAM_ACTIONS = frozenset((Action.UDP, Action.RECEIVE_GROUP, Action.SEND_GROUP))
_METHODS = {"none": Method.NONE, "userpass": Method.USERPASS}
_STRONGEST_FIRST = ("userpass", "none")


class SessionEnded(McastsocksError):
    """Why a session is over, in a word or a few for its record."""


class Session:
    """Runs one connection. `number` names it in records."""

    def __init__(
        self,
        services: Services,
        number: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        peer: SockAddr,
        place: Place,
    ) -> None:
        self._services, self._number = services, number
        self._reader, self._writer = reader, writer
        self._peer, self._place = peer, place
        self._client = from_sockaddr(peer)
        self._machine = ServerConnection(time.monotonic(), services.config.limits.handshake_timeout_s)
        self._user: str | None = None
        self._channel: ControlChannel | None = None
        self._frames: asyncio.Task[None] | None = None
        self._lists = 0
        self._started = time.monotonic()

    async def run(self) -> None:
        """Until the client goes, breaks the protocol, or the task is cancelled (the relay stops)."""
        reason = "shutdown"
        try:
            await self._converse()
        except SessionEnded as ended:
            reason = str(ended)
        except WireError as error:
            reason = f"protocol error: {error}"
            if self._channel is None:
                self._refused(reason)
        except ConnectionError:
            reason = "connection reset"
        except OSError as error:
            reason = "client dead" if error.errno in _DEAD else error.strerror or str(error)
        finally:
            await self._end(reason)

    async def _converse(self) -> NoReturn:
        deadline = self._machine.deadline
        assert deadline is not None
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + deadline - time.monotonic()):
                while self._machine.state is not State.ENHANCED:
                    await self._negotiate(await self._next_event())
        except TimeoutError:
            self._refuse("handshake timeout")
        assert self._channel is not None
        while True:
            async with self._services.turn:
                self._take_messages(self._channel)
                await asyncio.sleep(0)
            await self._read()

    def _take_messages(self, channel: ControlChannel) -> None:
        while (event := self._machine.next_event()) is not None:
            if isinstance(event, ControlRequested):
                channel.handle(event.request)
            elif isinstance(event, DatagramEncapsulated):
                self._services.plane.take(self._number, event.datagram.aid, event.datagram.data)

    async def _next_event(self) -> Event:
        """The next event of the negotiation, writing and reading as needed."""
        while (event := self._machine.next_event()) is None:
            await self._read()
        return event

    async def _read(self) -> None:
        """What the peer does not read holds it up."""
        self._write()
        await self._writer.drain()
        octets = await self._reader.read(_READ_OCTETS)
        if not octets:
            raise SessionEnded("closed by client")
        self._machine.receive(octets)

    async def _write_frames(self, frames: FrameQueue) -> None:
        """Datagrams for a client that has them TCP-encapsulated: one at a time, as fast as it reads."""
        while True:
            frame = await frames.pop()
            self._writer.write(frame)
            await self._writer.drain()

    async def _negotiate(self, event: Event) -> None:
        match event:
            case MethodsOffered(methods):
                self._choose_method(methods)
            case LoginAttempted(credentials):
                why = await self._services.passwords.check(credentials, self._client.address)
                self._user = credentials.user.decode("utf-8", "replace")
                if why is not None:
                    self._machine.refuse_login()
                    self._refuse(why)
                self._machine.accept_login()
            case RequestMade(request):
                match request.command:
                    case Command.ENHANCED_UDP_MODE:
                        self._enter_enhanced(request)
                    case Command.LIST_FEATURES:
                        self._list_features(request)
                    case _:
                        self._machine.fail_request(request, ReplyCode.COMMAND_NOT_SUPPORTED)
                        self._refuse(f"command X'{request.command:02x}' is not supported")

    def _choose_method(self, methods: tuple[int, ...]) -> None:
        """The strongest that the configuration allows, not the first listed (RFC 1928 §3)."""
        if self._place.full is not None:
            self._machine.refuse_methods()
            self._refuse(self._place.full)
        for name in _STRONGEST_FIRST:
            if name in self._services.config.auth.methods and _METHODS[name] in methods:
                self._machine.choose_method(_METHODS[name])
                return
        self._machine.refuse_methods()
        self._refuse("no common authentication method")

    def _list_features(self, request: Request) -> None:
        self._lists += 1
        if self._lists > features.MOST_LISTS:
            self._machine.fail_request(request, ReplyCode.GENERAL_FAILURE)
            self._refuse(f"asked for features more than {features.MOST_LISTS} times")
        methods = [_METHODS[name] for name in self._services.config.auth.methods]
        listed = features.list_for(self._user, self._client.address, self._services.rules, methods)
        self._machine.list_features(request, listed)
        if self._machine.state is State.CLOSED:
            raise SessionEnded("features listed")

    def _enter_enhanced(self, request: Request) -> None:
        account = self._user or str(self._client.host)
        if full := self._place.log_in(account):
            self._machine.fail_request(request, ReplyCode.GENERAL_FAILURE)
            self._refuse(full)
        if not self._services.rules.may_ever(self._user, self._client.address, _DATAGRAM_ACTIONS):
            self._machine.fail_request(request, ReplyCode.NOT_ALLOWED)
            self._refuse("no rule allows this client any datagrams or groups")
        self._open_channel(request, account)
        self._machine.enter_enhanced()

    def _open_channel(self, request: Request, account: str) -> None:
        services, sockname = self._services, self._writer.get_extra_info("sockname")
        inside = from_sockaddr(sockname)
        zone = sockname[3] if len(sockname) == 4 else 0
        try:
            services.plane.open_inside(inside, zone)
        except OSError as error:
            self._machine.fail_request(request, ReplyCode.GENERAL_FAILURE)
            self._refuse(f"no UDP socket on {inside}: {error.strerror}")
        advertise = services.config.inside.advertise
        usable = advertise is not None and advertise.version == inside.address.version
        relay = Endpoint(advertise, inside.port) if advertise is not None and usable else inside
        hosts = services.users.hosts_of(self._user)
        channel = Channel(self._number, account, self._client.address, self._peer, inside, relay, hosts)
        self._channel = ControlChannel(services, channel, self._user, self._answer)
        self._frames = asyncio.create_task(self._write_frames(services.channels.open(self._number)))
        self._services.records.write(
            "session-start", session=self._number, user=self._user, client=str(self._client), relay=str(inside)
        )

    def _answer(self, reply: ControlReply) -> None:
        """Many requests of one segment are answered by one write; a look-up's answer must not wait for more."""
        self._machine.reply(reply)
        asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        octets = self._machine.octets_to_send()
        if octets and not self._writer.is_closing():
            self._writer.write(octets)

    def _refuse(self, why: str) -> NoReturn:
        self._refused(why)
        raise SessionEnded(why)

    def _refused(self, why: str) -> None:
        self._services.records.write(
            "refused", session=self._number, user=self._user, client=str(self._client), command="session", why=why
        )

    async def _end(self, reason: str) -> None:
        channel = self._channel
        try:
            if self._frames is not None:
                self._frames.cancel()
                self._services.channels.close(self._number)
            if channel is not None:
                await channel.close(reason)
                self._services.records.write(
                    "session-end",
                    session=self._number,
                    user=self._user,
                    client=str(self._client),
                    duration_s=round(time.monotonic() - self._started, 3),
                    associations=channel.opened,
                    refusals=channel.refused,
                    reason=reason,
                )
        finally:
            self._write()
            self._writer.close()
            try:
                async with asyncio.timeout(_GOODBYE_S):
                    if self._frames is not None:  # not above: a relay that stops meanwhile would skip what follows
                        await asyncio.gather(self._frames, return_exceptions=True)
                    await self._writer.wait_closed()
            except TimeoutError:  # the client does not read its last reply
                self._writer.transport.abort()
            except OSError:
                pass
