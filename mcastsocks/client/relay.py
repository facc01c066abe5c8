"""A connection to a relay: logs in, enters the enhanced mode, opens associations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from mcastsocks.address import UNSPECIFIED_V4, UNSPECIFIED_V6, Endpoint, to_sockaddr
from mcastsocks.client import names, terms
from mcastsocks.client.association import Association
from mcastsocks.client.config import ClientConfig
from mcastsocks.client.connection import DEAD_RELAY_S, Connection, in_time, reason
from mcastsocks.client.endpoint import ClientEndpoint, split_source
from mcastsocks.client.paths import ChannelPath, Path, PlainPath, UdpPath
from mcastsocks.client.requests import Requests
from mcastsocks.client.terms import Terms
from mcastsocks.client.url import RelayUrl
from mcastsocks.errors import ConnectionLost, NotConfirmed, RelayError, RequestRefused, WireError
from mcastsocks.protocol.client import DatagramEncapsulated, ReplyReceived
from mcastsocks.wire.control import BOTH_DIRECTIONS, ControlReply, ControlRequest, Encapsulated, Flags, UdpCommand
from mcastsocks.wire.features import Extension, FeatureList
from mcastsocks.wire.replies import ReplyCode

_T = TypeVar("_T")

Confirm = Callable[[Endpoint, int], Awaitable[bool]]
"""Asked whether to send to a group with a TTL, before the relay is (mcast §6)."""

_FEATURES_SHARE = 1 / 3
"""Of the time to connect: a relay that leaves LIST-FEATURES unanswered still has to be entered without it."""

_LOCAL_REFUSED = "is not the client's own address"
"""In this project's REASON for a LOCAL that it does not know us by."""

_HELLO_FIRST_S, _HELLO_LAST_S = 0.5, 15.0


@asynccontextmanager
async def connect(
    url: str | RelayUrl | None = None,
    *,
    config: ClientConfig | None = None,
    timeout_s: float = 10.0,
    dead_relay_s: int = DEAD_RELAY_S,
    ask_features: bool = True,
    fragment_above: int | None = None,
) -> AsyncIterator[Relay]:
    """A relay to ask things of; leaving the block closes everything.

    `config` says for which groups and TTLs the relay is used, and which relay where there is no `url`.

    With `ask_features` it is asked first what it can do. One that does not know that question costs a second
    connection, unless it is known not to. Datagrams of more than `fragment_above` octets, header included, are sent in
    fragments; None: what UDP carries. The connection ends when a request is not answered within `timeout_s`, or when
    the relay's host is silent to everything for about `dead_relay_s`.

    Raises ConnectionLost, LoginRefused or RequestRefused when the relay cannot be had, ValueError for a bad URL.
    """
    config = config or ClientConfig()
    wanted = RelayUrl.parse(url) if isinstance(url, str) else url or config.relay
    if wanted is None:
        raise ValueError(f"no relay is named, neither here nor in the configuration ({config.place('relay')})")
    connection = Connection(wanted, dead_relay_s)
    relay = await Relay.open(connection, timeout_s, ask_features, fragment_above, config)
    try:
        yield relay
    finally:
        await relay.close()


async def list_features(url: str | RelayUrl, *, timeout_s: float = 10.0) -> FeatureList:
    """What a relay can do for this user, from this address; also where that is nothing.

    Raises RelayError when it does not answer that (RequestRefused, when it says so), or cannot be had.
    """
    connection = Connection(RelayUrl.parse(url) if isinstance(url, str) else url)
    try:
        async with in_time(connection.url, timeout_s):
            await connection.log_in()
            try:
                await connection.list_features()
            except (ConnectionLost, ConnectionError):
                raise RelayError("the relay lists no features: it closed the connection instead") from None
            except WireError as error:
                raise RelayError(f"the relay lists no features: {error}") from None
    finally:
        await connection.close()
    assert connection.features is not None
    return connection.features


class Relay:
    """A control channel and the UDP socket that goes with it. Use `connect`.

    `features` is what the relay listed, None when it was not asked or knows no such list.
    """

    def __init__(
        self,
        connection: Connection,
        endpoint: ClientEndpoint,
        timeout_s: float,
        fragment_above: int | None,
        config: ClientConfig,
    ) -> None:
        self.url = connection.url
        self.features = connection.features
        self.endpoint = endpoint
        self.config = config
        self._connection = connection
        self._timeout_s = timeout_s
        self._fragment_above = fragment_above
        self._requests = Requests()
        self._associations: dict[int, Association] = {}
        self._hellos: dict[int, asyncio.Task[None]] = {}
        self._lost: RelayError | None = None
        self._behind_nat: bool | None = None  # until a BIND has succeeded
        self._listener = asyncio.create_task(self._listen())

    @classmethod
    async def open(
        cls,
        connection: Connection,
        timeout_s: float,
        ask_features: bool,
        fragment_above: int | None,
        config: ClientConfig,
    ) -> Relay:
        try:
            async with in_time(connection.url, timeout_s):
                await connection.enter(ask_features=ask_features, features_timeout_s=timeout_s * _FEATURES_SHARE)
                endpoint = await ClientEndpoint.open(connection.sockname)
                return cls(connection, endpoint, timeout_s, fragment_above, config)
        except BaseException:
            await connection.close()
            raise

    @property
    def extensions(self) -> frozenset[Extension]:
        """What the relay says it can do in the enhanced mode; empty when it says nothing."""
        return self.features.extensions if self.features is not None else frozenset()

    async def associate(
        self, host: str, port: int, *, receive: bool = True, send: bool = True, over_tcp: bool = False
    ) -> Association:
        """An association with one remote, by address or name. Raises RequestRefused.

        With `over_tcp` its datagrams go inside the control channel; so for groups.
        """
        return await self._bind(names.endpoint(host, port), terms.unicast(receive, send, over_tcp=over_tcp))

    async def join(
        self,
        group: str,
        port: int,
        *,
        sources: Sequence[str] = (),
        excluding: Sequence[str] = (),
        over_tcp: bool = False,
    ) -> Association:
        """Receive what is sent to a group, from these sources only or from all but some.

        Raises RequestRefused, ValueError for sources that are none, RelayError when the relay filters no sources,
        NotRelayed for a group that the configuration leaves out.
        """
        wanted, remote = terms.receiving(sources, excluding, over_tcp=over_tcp), names.endpoint(group, port)
        self.config.check(remote)
        return await self._bind(remote, wanted)

    async def sender(
        self, group: str, port: int, *, ttl: int = 1, over_tcp: bool = False, confirm: Confirm | None = None
    ) -> Association:
        """Send to a group, `ttl` hops far on the other side of the relay, if `confirm` agrees.

        Raises RequestRefused, NotRelayed for a group or TTL that the configuration leaves out, NotConfirmed.
        """
        wanted, remote = terms.sending(ttl, over_tcp=over_tcp), names.endpoint(group, port)
        await self._may_send(remote, wanted, confirm)
        return await self._bind(remote, wanted)

    async def close(self) -> None:
        """Close the channel: the relay releases everything that was opened on it."""
        self._fail(ConnectionLost("the connection was closed here"))
        self._listener.cancel()
        with suppress(asyncio.CancelledError):
            await self._listener
        await self.endpoint.close()
        await self._connection.close()

    # What associations ask for

    async def rebind(self, association: Association, wanted: Terms, confirm: Confirm | None = None) -> None:
        """Ask for what is wanted on top of what an association has."""
        if wanted.is_group and Flags.SEND_TO in wanted.flags:
            await self._may_send(association.remote, wanted, confirm)
        request = self._request(association.aid, association.local, association.remote, wanted)
        await self._ask(request, lambda reply: association.granted(wanted, reply))

    async def release(self, association: Association, directions: Flags) -> None:
        request = self._release(association.aid, directions)
        await self._ask(request, lambda _: association.released(directions), f"releasing {association.remote}")

    async def set_ttl(self, association: Association, ttl: int) -> None:
        hops = terms.hops(ttl)
        if association.terms.is_group:
            self.config.check(association.remote, hops)
        request = ControlRequest(UdpCommand.SET_TTL, self._requests.tid(), association.aid, ttl=hops)
        await self._ask(request, lambda _: None, f"TTL {ttl} for {association.remote}")

    def forget(self, association: Association) -> None:
        self._associations.pop(association.aid, None)
        self.endpoint.remove(association)
        if hello := self._hellos.pop(association.aid, None):
            hello.cancel()

    # The channel

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

    def _deliver(self, frame: Encapsulated) -> None:
        association = self._associations.get(frame.aid)
        if association is not None and association.reports_source:
            association.deliver(*split_source(frame.data))
        elif association is not None:
            association.deliver(frame.data)

    def _hang_up(self, error: RelayError) -> None:
        self._fail(error)
        self._connection.abort()

    def _fail(self, error: RelayError) -> None:
        """Nothing works any more; the first error is the one that everything fails with."""
        self._lost = self._lost or error
        self._requests.fail(self._lost)
        for association in list(self._associations.values()):
            association.end(self._lost)

    async def _ask(self, request: ControlRequest, take: Callable[[ControlReply], _T], what: str = "") -> _T:
        """What `take` makes of a success, when it is read. Raises RequestRefused, ConnectionLost.

        A relay that does not answer is given up: what it holds, it has to release.
        """
        if self._lost is not None:
            raise self._lost
        self._connection.write(request)
        answer = self._requests.add(request.tid, what or str(request.remote), take)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._connection.drain()
                return await answer
        except TimeoutError:
            lost = ConnectionLost(f"{self.url} did not answer within {self._timeout_s:g} s")
            self._hang_up(lost)
            raise lost from None
        finally:
            answer.cancel()

    async def _may_send(self, group: Endpoint, wanted: Terms, confirm: Confirm | None) -> None:
        """Raises NotRelayed or NotConfirmed."""
        self.config.check(group, wanted.ttl)
        if confirm is not None:
            if not await confirm(group, wanted.ttl):
                raise NotConfirmed(f"sending to {group} was not confirmed")
        elif self.config.confirm_sending:
            place = self.config.place("confirm_sending")
            raise NotConfirmed(f"sending to {group} has to be confirmed ({place}), and there is nobody to ask")

    async def _bind(self, remote: Endpoint, wanted: Terms) -> Association:
        """Name our own endpoint; when the relay sees another address of us, let it learn (a NAT is between)."""
        local = None if wanted.is_encapsulated else self._learnt() if self._behind_nat else self.endpoint.local
        try:
            association = await self._open(local, remote, wanted)
        except RequestRefused as refused:
            if local is None or self._behind_nat is not None or not self._may_be_nat(refused):
                raise
            association = await self._open(self._learnt(), remote, wanted)
            self._behind_nat = True
        else:
            if local is not None:
                self._behind_nat = bool(self._behind_nat)
        return association

    def _may_be_nat(self, refused: RequestRefused) -> bool:
        """Whether LOCAL was refused; a relay that gives no reasons says 02 for that and for much else."""
        if refused.code != ReplyCode.NOT_ALLOWED:
            return False
        return Extension.REASONS not in self.extensions or _LOCAL_REFUSED in str(refused)

    async def _open(self, local: Endpoint | None, remote: Endpoint, wanted: Terms) -> Association:
        """A new association; released when it is granted after whoever asked has gone."""
        opened: list[Association] = []
        is_awaited = True

        def take(reply: ControlReply) -> Association:
            association = self._opened(reply, local, remote, wanted)
            opened.append(association)
            if not is_awaited:
                self._abandon(association)
            return association

        try:
            return await self._ask(self._request(0, local, remote, wanted), take)
        except asyncio.CancelledError:
            is_awaited = False
            for association in opened:
                self._abandon(association)
            raise

    def _abandon(self, association: Association) -> None:
        """Release what nobody has; nobody waits for the reply to this either."""
        if self._lost is None:
            self._connection.write(self._release(association.aid, association.directions))
        association.end(None)

    def _request(self, aid: int, local: Endpoint | None, remote: Endpoint, wanted: Terms) -> ControlRequest:
        """A BIND, with the extensions that the relay says it has."""
        if wanted.options and Extension.SOURCE_FILTERS not in self.extensions:
            raise RelayError(f"{self.url} filters no sources")
        flags = wanted.flags
        if Extension.SOURCE_REPORTING in self.extensions and Flags.RECEIVE_FROM in flags:
            flags |= Flags.REPORT_SOURCE
        if wanted.options or Extension.REASONS in self.extensions:
            flags |= Flags.EXTENDED
        tid = self._requests.tid()
        return ControlRequest(UdpCommand.BIND, tid, aid, flags, wanted.ttl, local, remote, wanted.options)

    def _release(self, aid: int, directions: Flags) -> ControlRequest:
        return ControlRequest(UdpCommand.RELEASE, self._requests.tid(), aid, directions)

    def _opened(self, reply: ControlReply, local: Endpoint | None, remote: Endpoint, wanted: Terms) -> Association:
        if reply.flags & Flags.MM_MODE:
            self._connection.write(self._release(reply.aid, wanted.flags & BOTH_DIRECTIONS))
            raise RelayError(f"{self.url} grants {remote} in MM-mode alone: the group is on this network itself")
        if not reply.aid or reply.aid in self._associations:
            raise RelayError(f"{self.url} granted {remote} without an association id of its own")
        path: Path
        if wanted.is_encapsulated:
            path = ChannelPath(self._connection, reply.aid)
            association = Association(self, reply, local, remote, wanted, path)
        else:
            if reply.local is None or reply.local.address.version != self.endpoint.local.address.version:
                raise RelayError(f"{self.url} granted {remote} without saying where to send")
            relay = to_sockaddr(reply.local)
            plain = reply.local == remote  # mcast §4.3.1.2: the relay is no proxy
            if plain:
                path = PlainPath(self.endpoint, relay)
            else:
                path = UdpPath(self.endpoint, relay, reply.aid, self._fragment_above)
            association = Association(self, reply, local, remote, wanted, path)
            self.endpoint.add(association, relay, plain=plain)
        self._associations[association.aid] = association
        if local == self._learnt() and isinstance(path, UdpPath) and Flags.SEND_TO not in wanted.flags:
            self._hellos[association.aid] = asyncio.create_task(self._say_hello(association, path))
        return association

    def _learnt(self) -> Endpoint:
        return Endpoint(UNSPECIFIED_V4 if self.endpoint.local.address.version == 4 else UNSPECIFIED_V6, 0)

    async def _say_hello(self, association: Association, path: UdpPath) -> None:
        """Show the relay our port by the bare header until data comes (a datagram can be lost)."""
        pause = _HELLO_FIRST_S
        while not association.received:
            await path.hello()
            await asyncio.sleep(pause)
            pause = min(2 * pause, _HELLO_LAST_S)
