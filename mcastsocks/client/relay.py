"""A connection to a relay: logs in, enters the enhanced mode, opens associations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address

from mcastsocks.address import UNSPECIFIED_V4, UNSPECIFIED_V6, Endpoint
from mcastsocks.client.association import Association
from mcastsocks.client.endpoint import ClientEndpoint
from mcastsocks.client.url import RelayUrl
from mcastsocks.errors import ConnectionLost, McastsocksError, RelayError, RequestRefused, WireError
from mcastsocks.protocol.client import ClientConnection, EnhancedEntered, Event, LoggedIn, ReplyReceived
from mcastsocks.wire.control import BOTH_DIRECTIONS, ControlReply, ControlRequest, Flags, UdpCommand
from mcastsocks.wire.datagram import HEADER
from mcastsocks.wire.replies import ReplyCode, meaning

_READ_OCTETS = 65_536
_HELLO_FIRST_S, _HELLO_LAST_S = 0.5, 15.0


@asynccontextmanager
async def connect(url: str | RelayUrl, *, timeout_s: float = 10.0) -> AsyncIterator[Relay]:
    """A relay to ask things of; leaving the block closes everything.

    Raises ConnectionLost, LoginRefused or RequestRefused when the relay cannot be had, ValueError for a bad URL.
    """
    relay = await Relay.open(RelayUrl.parse(url) if isinstance(url, str) else url, timeout_s)
    try:
        yield relay
    finally:
        await relay.close()


class Relay:
    """A control channel and the UDP socket that goes with it. Use `connect`."""

    def __init__(self, url: RelayUrl, timeout_s: float) -> None:
        self.url = url
        self._timeout_s = timeout_s
        self._machine = ClientConnection(url.credentials)
        self._answers: dict[int, asyncio.Future[ControlReply]] = {}
        self._associations: dict[int, Association] = {}
        self._hellos: dict[int, asyncio.Task[None]] = {}
        self._next_tid = 0
        self._lost: RelayError | None = None
        self._behind_nat: bool | None = None  # until a BIND has succeeded
        self._listener: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, url: RelayUrl, timeout_s: float) -> Relay:
        relay = cls(url, timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                await relay._open()
        except TimeoutError:
            await relay.close()
            raise ConnectionLost(f"{url} did not answer within {timeout_s:g} s") from None
        except OSError as error:
            await relay.close()
            raise ConnectionLost(f"cannot reach {url}: {error.strerror or error}") from None
        except WireError as error:
            await relay.close()
            raise ConnectionLost(f"{url} does not speak this protocol: {error}") from None
        except McastsocksError:
            await relay.close()
            raise
        return relay

    async def associate(self, host: str, port: int, *, receive: bool = True, send: bool = True) -> Association:
        """An association with one remote, by address or name. Raises RequestRefused."""
        return await self._bind(_endpoint(host, port), _flags(receive, send) | Flags.UDP_UNICAST)

    async def join(self, group: str, port: int) -> Association:
        """Receive what is sent to a group. Raises RequestRefused."""
        return await self._bind(_endpoint(group, port), Flags.RECEIVE_FROM | Flags.UDP_MULTICAST | Flags.MU_MODE)

    async def sender(self, group: str, port: int, *, ttl: int = 1) -> Association:
        """Send to a group, `ttl` hops far on the other side of the relay. Raises RequestRefused."""
        return await self._bind(_endpoint(group, port), Flags.SEND_TO | Flags.UDP_MULTICAST | Flags.MU_MODE, ttl)

    async def lost(self) -> None:
        """Wait until the control channel is gone; then raise the ConnectionLost that says why."""
        if self._listener is not None:
            with suppress(asyncio.CancelledError):
                await asyncio.shield(self._listener)
        raise self._lost or ConnectionLost("the connection is closed")

    async def close(self) -> None:
        """Close the channel: the relay releases everything that was opened on it."""
        self._fail(ConnectionLost("the connection was closed here"))
        if self._listener is not None:
            self._listener.cancel()
            with suppress(asyncio.CancelledError):
                await self._listener
        if hasattr(self, "endpoint"):
            await self.endpoint.close()
        if hasattr(self, "_writer"):
            self._writer.close()
            with suppress(OSError):
                await self._writer.wait_closed()

    # What associations ask for

    async def rebind(self, association: Association, directions: Flags, ttl: int) -> None:
        transport = Flags.UDP_MULTICAST if association.remote.is_group else Flags.UDP_UNICAST
        sending_to_group = association.remote.is_group and Flags.SEND_TO in directions
        request = ControlRequest(
            UdpCommand.BIND,
            self._tid(),
            association.aid,
            directions | transport,
            ttl if sending_to_group else 0,
            association.local,
            association.remote,
        )
        await self._ask(request, f"{association.remote}")
        association.directions |= directions

    async def release(self, association: Association, directions: Flags) -> None:
        request = ControlRequest(UdpCommand.RELEASE, self._tid(), association.aid, directions)
        await self._ask(request, f"releasing {association.remote}")

    async def set_ttl(self, association: Association, ttl: int) -> None:
        request = ControlRequest(UdpCommand.SET_TTL, self._tid(), association.aid, ttl=ttl)
        await self._ask(request, f"TTL {ttl} for {association.remote}")

    def forget(self, association: Association) -> None:
        self._associations.pop(association.aid, None)
        self.endpoint.remove(association)
        if hello := self._hellos.pop(association.aid, None):
            hello.cancel()

    # The channel

    async def _open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(self.url.host, self.url.port)
        self._machine.greet()
        await self._expect(LoggedIn)
        self._machine.request_enhanced()
        await self._expect(EnhancedEntered)
        self.endpoint = await ClientEndpoint.open(self._writer.get_extra_info("sockname"))
        self._listener = asyncio.create_task(self._listen())

    async def _expect(self, kind: type[Event]) -> None:
        while True:
            event = self._machine.next_event()
            self._writer.write(self._machine.octets_to_send())
            if isinstance(event, kind):
                return
            if event is None and not await self._read():
                raise ConnectionLost(f"{self.url} closed the connection")

    async def _read(self) -> bool:
        octets = await self._reader.read(_READ_OCTETS)
        self._machine.receive(octets)
        return bool(octets)

    async def _listen(self) -> None:
        """Pair replies with requests until the channel ends; everything that waits then fails."""
        try:
            while await self._read():
                while (event := self._machine.next_event()) is not None:
                    if isinstance(event, ReplyReceived):
                        answer = self._answers.pop(event.reply.tid, None)
                        if answer is not None and not answer.done():
                            answer.set_result(event.reply)
            self._fail(ConnectionLost(f"{self.url} closed the control channel"))
        except OSError as error:
            self._fail(ConnectionLost(f"the control channel to {self.url} broke: {error.strerror or error}"))
        except WireError as error:
            self._fail(ConnectionLost(f"{self.url} broke the protocol: {error}"))

    def _fail(self, error: RelayError) -> None:
        self._lost = self._lost or error
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(error)
        self._answers.clear()
        for association in list(self._associations.values()):
            association.end(error)

    def _tid(self) -> int:
        """A transaction id that no request waits under (mcast §4.2)."""
        if len(self._answers) > 0xFFFF:
            raise RelayError("65,536 requests wait for an answer already")
        while True:
            self._next_tid = (self._next_tid + 1) & 0xFFFF
            if self._next_tid not in self._answers:
                return self._next_tid

    async def _ask(self, request: ControlRequest, what: str) -> ControlReply:
        """The reply to a request. Raises RequestRefused for a failure code, ConnectionLost."""
        if self._lost is not None:
            raise self._lost
        answer: asyncio.Future[ControlReply] = asyncio.get_running_loop().create_future()
        self._answers[request.tid] = answer
        self._machine.request(request)
        self._writer.write(self._machine.octets_to_send())
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._writer.drain()
                reply = await answer
        except TimeoutError:
            raise ConnectionLost(f"{self.url} did not answer within {self._timeout_s:g} s") from None
        except OSError as error:
            raise ConnectionLost(f"the control channel to {self.url} broke: {error.strerror or error}") from None
        finally:
            self._answers.pop(request.tid, None)
        if reply.code != ReplyCode.SUCCEEDED:
            raise RequestRefused(f"{what}: {meaning(reply.code)}", reply.code)
        return reply

    async def _bind(self, remote: Endpoint, flags: Flags, ttl: int = 0) -> Association:
        """Name our own endpoint; when the relay sees another address of us, let it learn (a NAT is between)."""
        local = self._learnt() if self._behind_nat else self.endpoint.local
        request = ControlRequest(UdpCommand.BIND, self._tid(), 0, flags, ttl, local, remote)
        try:
            reply = await self._ask(request, str(remote))
        except RequestRefused as refused:
            if refused.code != ReplyCode.NOT_ALLOWED or self._behind_nat is not None:
                raise
            local = self._learnt()
            request = ControlRequest(UdpCommand.BIND, self._tid(), 0, flags, ttl, local, remote)
            reply = await self._ask(request, str(remote))
            self._behind_nat = True
        else:
            self._behind_nat = bool(self._behind_nat)
        if reply.local is None or not reply.aid:
            raise RelayError(f"{self.url} granted {remote} without saying where to send")
        association = Association(self, reply, local, remote, flags & BOTH_DIRECTIONS)
        self._associations[association.aid] = association
        self.endpoint.add(association)
        if self._behind_nat and Flags.SEND_TO not in flags:
            self._hellos[association.aid] = asyncio.create_task(self._say_hello(association))
        return association

    def _learnt(self) -> Endpoint:
        return Endpoint(UNSPECIFIED_V4 if self.endpoint.local.address.version == 4 else UNSPECIFIED_V6, 0)

    async def _say_hello(self, association: Association) -> None:
        """Show the relay our port by the bare header until data comes (a datagram can be lost)."""
        pause = _HELLO_FIRST_S
        while not association.received:
            await self.endpoint.send(HEADER.pack(0, 0, 0, association.aid), association.relay_sockaddr)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _HELLO_LAST_S)


def _endpoint(host: str, port: int) -> Endpoint:
    try:
        return Endpoint(ip_address(host), port)
    except ValueError:
        return Endpoint(host, port)


def _flags(receive: bool, send: bool) -> Flags:
    return (Flags.RECEIVE_FROM if receive else Flags.NONE) | (Flags.SEND_TO if send else Flags.NONE)
